//! `[limits]`: how much this node sends, and how many connections it carries, for all peers and for each.

use std::collections::HashMap;
use std::str::FromStr;

use toml::Spanned;

use super::file;
use super::problem::{Problem, Problems};
use super::resolve::{number, value};
use crate::base::Bandwidth;
use crate::crypto::identity::NodeId;

/// How much this node sends, and how many connections it carries. What is absent is not limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// To all peers together.
    pub bandwidth: Option<Bandwidth>,
    /// To each peer.
    pub peer_bandwidth: Option<Bandwidth>,
    /// To single peers, in place of that.
    pub peer_bandwidths: HashMap<NodeId, Bandwidth>,
    /// Connections and flows of each peer, over all services.
    pub connections_per_peer_max: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            bandwidth: None,
            peer_bandwidth: None,
            peer_bandwidths: HashMap::new(),
            connections_per_peer_max: u32::MAX,
        }
    }
}

pub(super) fn resolve(section: &file::Limits, own: &NodeId, problems: &mut Problems) -> LimitsConfig {
    let mut peer_bandwidths = HashMap::new();
    for (name, text) in &section.peer_bandwidth_limits {
        let Some(peer) = problems.check(text.span(), own.relative(name)) else { continue };
        let Some(limit) = bandwidth(Some(text), problems) else { continue };
        if peer_bandwidths.insert(peer, limit).is_some() {
            problems.push(Problem::new(format!("the peer {name:?} is there twice")).at(text.span()));
        }
    }
    LimitsConfig {
        bandwidth: bandwidth(section.bandwidth_limit.as_ref(), problems),
        peer_bandwidth: bandwidth(section.peer_bandwidth_limit.as_ref(), problems),
        peer_bandwidths,
        connections_per_peer_max: connections_per_peer_max(section.connections_per_peer_max.as_ref(), problems),
    }
}

/// A bandwidth, if one is given.
pub(super) fn bandwidth(text: Option<&Spanned<String>>, problems: &mut Problems) -> Option<Bandwidth> {
    value(text, |text| Bandwidth::from_str(text).map(Some), None, problems)
}

/// Connections or flows of each peer, of one service or of all.
pub(super) fn connections_per_peer_max(given: Option<&Spanned<u32>>, problems: &mut Problems) -> u32 {
    number(given, 1..=1_000_000, u32::MAX, problems)
}
