//! From what a configuration means to what the layers below take.

use crate::config::{LimitsConfig, LinkConfig, NodeConfig, Seal};
use crate::node;
use crate::session::SessionConfig;

pub(super) fn node(config: &NodeConfig) -> node::NodeConfig {
    node::NodeConfig {
        session: SessionConfig { survive: config.survive, age_max: config.session_age_max, ..SessionConfig::default() },
        memory_bytes_max: config.memory_bytes_max,
        ..node::NodeConfig::default()
    }
}

pub(in crate::cli) fn bandwidth_limits(limits: &LimitsConfig, links: &[LinkConfig]) -> node::BandwidthLimits {
    let of_link = |link: &LinkConfig| Some((link.peer.clone(), link.bandwidth_limit?));
    node::BandwidthLimits {
        node: limits.bandwidth,
        each_peer: limits.peer_bandwidth,
        peers: limits.peer_bandwidths.clone(),
        links: links.iter().filter_map(of_link).collect(),
    }
}

pub(in crate::cli) fn link(config: LinkConfig) -> node::LinkConfig {
    let session = SessionConfig {
        padding: config.padding,
        scheduler: config.scheduler,
        seal_always: config.seal == Seal::Always,
        survive: config.survive,
        age_max: config.session_age_max,
        ..SessionConfig::default()
    };
    let usual = node::LinkConfig::new(config.peer, []);
    node::LinkConfig {
        addresses: config.addresses,
        prefer: config.prefer,
        entrances: config.entrances,
        session,
        dial: config.dial,
        early_data: config.early_data,
        ..usual
    }
}
