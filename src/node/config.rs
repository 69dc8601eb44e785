//! What can be chosen for a node and for a link.

use std::time::Duration;

use crate::channel::{Address, DialOptions};
use crate::crypto::identity::NodeId;
use crate::session::SessionConfig;

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
}

impl LinkAddress {
    /// Channels of a TCP address when nothing else is said.
    pub const TCP_COUNT: u32 = 4;

    /// The address with its usual count: four TCP or TLS channels, one Unix socket.
    #[must_use]
    pub fn new(address: Address) -> Self {
        let count = if matches!(address, Address::Unix { .. }) { 1 } else { Self::TCP_COUNT };
        Self { address, count, weight: 1 }
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
    /// The sessions of the link.
    pub session: SessionConfig,
    /// Socket options of its channels.
    pub dial: DialOptions,
    /// Longest pause between attempts when the peer cannot be reached.
    pub backoff_max: Duration,
}

impl LinkConfig {
    /// A link to a peer with everything else as usual.
    pub fn new(peer: NodeId, addresses: impl IntoIterator<Item = Address>) -> Self {
        Self {
            peer,
            addresses: addresses.into_iter().map(LinkAddress::new).collect(),
            session: SessionConfig::default(),
            dial: DialOptions::default(),
            backoff_max: Duration::from_secs(10),
        }
    }
}
