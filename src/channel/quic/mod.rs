//! `quic://`: a QUIC connection (RFC 9000) over UDP by quinn, whose streams are lanes.
//!
//! quinn owns everything about UDP: loss recovery, pacing, path MTU, ECN, segmentation offload, Retry and
//! anti-amplification. The connection's own handshake is the session's, or binds a join, as that of `tls://` does. One
//! bidirectional stream of the connection is one lane, so that a lost datagram holds up one lane only. The connection
//! lives as long as its first lane.

mod congestion;
mod connection;
mod dial;
mod discreet;
mod early;
mod endpoint;
mod error;
mod lane;
mod listen;
mod observed;
mod options;
mod reorder;
mod segments;
mod unsent;

pub use congestion::QuicCongestion;
pub use connection::QuicConnection;
pub use dial::{dial_quic, dial_quic_early};
pub use early::{QuicDialled, QuicEarly};
pub use error::QuicError;
pub use lane::QuicIo;
pub(crate) use lane::WeakQuicIo;
pub use listen::{QuicAccepted, QuicListener};
pub use observed::{Observed, PathObserver};
pub use options::{QuicOptions, RetryPolicy};
