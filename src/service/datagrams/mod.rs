//! UDP services and forwards: a flow of datagrams for each client address, as a connection is for the others.
//!
//! A flow is opened by a client's first datagram and ends when nothing has moved for a while, in either direction. The
//! forward has one socket for all of its clients, the service a connected one for each flow, so that a target sees each
//! client at a port of its own, and answers find their way. Nothing is waited for: what cannot be carried in time is
//! dropped, and counted by reason.

mod clients;
mod forward;
mod idle;
mod loss;
mod service;
mod socket;

use std::time::Duration;

pub(super) use forward::DatagramForward;
pub use loss::DatagramLoss;
pub(super) use service::carry;
pub(super) use socket::connect;

use crate::base::limits;

/// How a forward or a service treats datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatagramOptions {
    /// A flow ends when nothing has moved for this long.
    pub idle_timeout: Duration,
    /// Flows at once. Datagrams of further clients are dropped.
    pub flow_count_max: u32,
    /// How long a datagram may wait for a lane before it is dropped.
    pub age_max: Duration,
}

impl Default for DatagramOptions {
    fn default() -> Self {
        Self { idle_timeout: IDLE_TIMEOUT, flow_count_max: FLOW_COUNT_MAX, age_max: limits::DATAGRAM_AGE_MAX }
    }
}

/// What protocols over UDP are told to expect of address translation (RFC 4787 REQ-5).
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// As many as a peer's service takes without being asked for more.
const FLOW_COUNT_MAX: u32 = 1024;
