//! What can be chosen for a node and for a link.

use std::time::Duration;

use crate::channel::{Address, ChannelKind, DialOptions};
use crate::crypto::identity::NodeId;
use crate::session::SessionConfig;
use crate::wire::LaneRole;

/// What can be chosen for a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Sessions that this node accepts.
    pub session: SessionConfig,
    /// Bytes that all sessions may hold together. Above, new sessions are refused; a quarter above, the session that
    /// holds the most is closed.
    pub memory_bytes_max: u64,
    /// Sessions that are accepted and not yet taken by the application.
    pub backlog: usize,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self { session: SessionConfig::default(), memory_bytes_max: 4 << 30, backlog: 1024 }
    }
}

/// Where a peer can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// The address; a host name is resolved on every dial.
    pub address: Address,
    /// How many channels are kept up.
    pub count: u32,
    /// Share of each channel under the `weighted` scheduler.
    pub weight: u32,
    /// Addresses with a higher number carry data only while none with a lower one works; at most
    /// [`LANE_PRIORITY_MAX`](crate::base::limits::LANE_PRIORITY_MAX).
    pub priority: u32,
    /// Whether its channels carry data, or are kept up for the time when no active one works.
    pub role: LaneRole,
}

/// How a link uses several addresses that are equal otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Entrances {
    /// Channels to all of them carry data.
    #[default]
    Spread,
    /// The first one that works carries everything; the next one is dialled when it fails, until it is back.
    Failover,
}

impl LinkAddress {
    /// Channels of a TCP or TLS address when nothing else is said. One connection does not fill a long fat pipe, and clouds
    /// cap single flows; more than four take more than their share of a line with others.
    pub const TCP_COUNT: u32 = 4;

    /// The address with its usual count: four TCP or TLS channels. One QUIC channel, whose lanes do what several TCP
    /// connections do, fills a line, and one Unix socket needs no other.
    #[must_use]
    pub fn new(address: Address) -> Self {
        let count = match address {
            Address::Tcp { .. } | Address::Tls { .. } => Self::TCP_COUNT,
            Address::Quic { .. } | Address::Unix { .. } => 1,
        };
        Self { address, count, weight: 1, priority: 0, role: LaneRole::Active }
    }
}

impl From<Address> for LinkAddress {
    fn from(address: Address) -> Self {
        Self::new(address)
    }
}

/// What can be chosen for a link.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The node that has to answer.
    pub peer: NodeId,
    /// Where it can be reached.
    pub addresses: Vec<LinkAddress>,
    /// The kind of channel that carries data while one works; others are kept up for the time when none does.
    pub prefer: Option<ChannelKind>,
    /// How several addresses are used.
    pub entrances: Entrances,
    /// The sessions of the link.
    pub session: SessionConfig,
    /// Socket options of its channels.
    pub dial: DialOptions,
    /// Longest pause between attempts when the peer cannot be reached.
    pub backoff_max: Duration,
    /// Whether what streams say that are replay-safe may leave with the first flight, before the peer is heard. Somebody on
    /// the way can then record it and have it delivered once more, and who has the keys of the peer's memory can read it.
    pub early_data: bool,
}

impl LinkConfig {
    /// A link to a peer with everything else as usual.
    pub fn new(peer: NodeId, addresses: impl IntoIterator<Item = Address>) -> Self {
        Self {
            peer,
            addresses: addresses.into_iter().map(LinkAddress::new).collect(),
            prefer: None,
            entrances: Entrances::default(),
            session: SessionConfig::default(),
            dial: DialOptions::default(),
            backoff_max: Duration::from_secs(10),
            early_data: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_as_many_channels_as_its_kind_needs() {
        let count = |url: &str| LinkAddress::new(url.parse().unwrap()).count;
        assert_eq!(["tcp://a:1", "tls://a:1", "quic://a:1", "unix:///a"].map(count), [4, 4, 1, 1]);
    }
}
