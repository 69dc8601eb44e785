//! Datagrams: messages that arrive whole or not at all, in no order, and that are worth nothing when they are old.
//!
//! Each belongs to a bidirectional stream, whose life is that of the *flow* (as in RFC 9297). What waits to be sent is in
//! [`Outgoing`], what waits to be read in [`Incoming`], and pieces of what is not complete in [`Reassembly`]. All three
//! are bounded, and what they drop is counted by reason. Nothing is ever sent again.

mod incoming;
mod outgoing;
mod queues;
mod reassembly;
mod stats;

pub(super) use incoming::Incoming;
pub(super) use outgoing::Outgoing;
pub(super) use reassembly::{Outcome, Reassembly};
pub use stats::{DatagramDrop, DatagramStats};

/// Why a datagram was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The peer takes no datagrams of this size, or none at all.
    #[error("datagram of {size} bytes: the peer takes at most {size_max}")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// What the peer takes; 0 when it takes no datagrams.
        size_max: usize,
    },
    /// The stream is over, or the peer has stopped it.
    #[error("flow of datagrams is over")]
    Closed,
}
