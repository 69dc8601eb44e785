//! What a session tells the application, and why it or a lane ended.

use crate::base::{CloseCode, Epoch, LaneId};
use crate::stream::{StreamFault, StreamNotice};
use crate::wire::{GuestCredential, WireError};

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Both sides are verified: the session may be used.
    Connected,
    /// The client, which has no certificate, shows what it has instead. [`Session::accept_guest`](super::Session) lets it in.
    GuestProof(GuestCredential),
    /// A lane was admitted by both sides.
    LaneUp(LaneId),
    /// A lane acknowledges nothing: its data goes out again on others, and a replacement is wanted.
    LaneSuspect(LaneId),
    /// A suspect lane acknowledges again.
    LaneRecovered(LaneId),
    /// A lane is over; its channel should be closed.
    LaneDown(LaneId, LaneEnd),
    /// A stream changed.
    Stream(StreamNotice),
    /// New keys are in use.
    KeysUpdated(Epoch),
    /// The peer wants no new streams.
    GoAway {
        /// Why.
        code: CloseCode,
        /// In the peer's words.
        reason: String,
    },
    /// The session is over. Nothing comes after this.
    Closed(CloseReason),
}

/// Why a lane ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneEnd {
    /// Its channel was closed or failed.
    ChannelClosed,
    /// The peer stopped acknowledging.
    Unacknowledged,
    /// Nothing came for too long.
    Idle,
    /// The peer said so.
    ClosedByPeer(CloseCode),
    /// The join was not confirmed.
    NotConfirmed,
    /// This side said so.
    Closed(CloseCode),
    /// The session ended.
    SessionClosed,
}

impl std::fmt::Display for LaneEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ChannelClosed => f.write_str("channel closed"),
            Self::Unacknowledged => f.write_str("peer stopped acknowledging"),
            Self::Idle => f.write_str("silent for too long"),
            Self::ClosedByPeer(code) => write!(f, "closed by peer: {code}"),
            Self::NotConfirmed => f.write_str("join was not confirmed"),
            Self::Closed(code) => write!(f, "closed: {code}"),
            Self::SessionClosed => f.write_str("session closed"),
        }
    }
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// This side's application closed it.
    #[error("closed by this side: {code}")]
    Local {
        /// The code that was sent.
        code: CloseCode,
    },
    /// The peer closed it.
    #[error("closed by the peer: {code} {reason:?}")]
    Peer {
        /// The peer's code.
        code: CloseCode,
        /// In the peer's words.
        reason: String,
    },
    /// The peer broke the protocol.
    #[error("peer broke the protocol: {0}")]
    Fault(SessionFault),
    /// No channel came back in time.
    #[error("no channel to the peer for {} s", .after.as_secs())]
    ChannelsLost {
        /// How long the session waited.
        after: std::time::Duration,
    },
    /// The first channel ended before the peer had accepted the session.
    #[error("the peer ended the channel instead of accepting the session; its log says why")]
    NotAccepted,
    /// The client did not complete its handshake.
    #[error("the client did not complete its handshake")]
    Unauthenticated,
    /// The peer does not know the session any more.
    #[error("peer does not know the session: it was restarted")]
    Reset,
    /// The keys are used up and could not be replaced.
    #[error("keys are used up")]
    KeysExhausted,
}

/// What a peer did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionFault {
    /// Bytes that are no packet.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A fault on a stream.
    #[error(transparent)]
    Stream(#[from] StreamFault),
    /// A frame where it must not be.
    #[error("{0}")]
    Violation(&'static str),
    /// Work without data.
    #[error("too many {0}")]
    Load(&'static str),
}

impl SessionFault {
    /// The code to close the session with.
    #[must_use]
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Wire(error) => error.close_code(),
            Self::Stream(fault) => fault.close_code(),
            Self::Violation(_) => CloseCode::PROTOCOL_VIOLATION,
            Self::Load(_) => CloseCode::EXCESSIVE_LOAD,
        }
    }
}
