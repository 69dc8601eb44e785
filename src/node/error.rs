//! What can go wrong, by whose fault.

use std::io;

use crate::base::StreamCode;
use crate::channel::{DialError, ListenError, QuicError};
use crate::crypto::identity::{IdentityError, NodeId, VerifyFailure};
use crate::session::{CloseReason, EstablishError};

/// A session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// It was closed.
    #[error("session ended: {0}")]
    Closed(CloseReason),
    /// The peer takes no new streams.
    #[error("peer takes no new streams: it is shutting down")]
    GoingAway,
}

/// Bytes could not be written to a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The peer wants no more.
    #[error("peer stopped the stream: {0}")]
    Stopped(StreamCode),
    /// This side finished or reset the stream.
    #[error("stream was finished or reset by this side")]
    Closed,
    /// The session is over.
    #[error("session ended: {0}")]
    Session(CloseReason),
}

/// Bytes could not be read from a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The peer gave the stream up.
    #[error("peer reset the stream: {0}")]
    Reset(StreamCode),
    /// This side stopped the stream.
    #[error("stream was stopped by this side")]
    Closed,
    /// The session is over.
    #[error("session ended: {0}")]
    Session(CloseReason),
    /// More bytes came than the caller wanted to hold.
    #[error("stream is longer than {0} bytes")]
    TooLong(usize),
}

/// A datagram could not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The peer takes no datagrams of this size, or none at all.
    #[error("datagram has {size} bytes, and the peer takes at most {size_max}")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// What the peer takes; 0 when it takes no datagrams.
        size_max: usize,
    },
    /// The stream is over, or the peer has stopped it.
    #[error("flow of datagrams is over")]
    Closed,
    /// The session is over.
    #[error("session ended: {0}")]
    Session(CloseReason),
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match error {
            WriteError::Stopped(_) => io::ErrorKind::ConnectionReset,
            WriteError::Closed => io::ErrorKind::NotConnected,
            WriteError::Session(_) => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::Reset(_) => io::ErrorKind::ConnectionReset,
            ReadError::Closed => io::ErrorKind::NotConnected,
            ReadError::Session(_) => io::ErrorKind::ConnectionAborted,
            ReadError::TooLong(_) => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// A channel to a peer could not be made, or made no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The peer could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The peer was reached, and the handshake failed.
    #[error("handshake failed: {0}")]
    Establish(#[from] EstablishError),
    /// The channel failed in the middle.
    #[error("channel failed during the handshake: {0}")]
    Io(#[from] io::Error),
    /// The peer did not answer in time.
    #[error("peer did not answer within {} s", .0.as_secs_f32())]
    TimedOut(std::time::Duration),
    /// Another node answered.
    #[error("{got} answered where {expected} was expected")]
    WrongPeer {
        /// The node that was wanted.
        expected: NodeId,
        /// The node that answered.
        got: NodeId,
    },
    /// The session was resumed, and the peer's certificate has expired since it was shown.
    #[error("the certificate of {peer} has expired")]
    Expired {
        /// The peer.
        peer: NodeId,
    },
    /// The session ended before it was connected.
    #[error("session ended: {0}")]
    Closed(CloseReason),
    /// The peer refused to take the channel into the session.
    #[error("peer refused to join the channel to the session")]
    JoinRefused,
    /// The proof of a guest was not accepted, or the peer of one did not accept it.
    #[error(
        "the peer did not accept the token: it is wrong, expired, used up or revoked, or not for this address or name; \
         the audit log of the peer says which"
    )]
    GuestRefused,
    /// The session takes no channel now.
    #[error("session takes no channel now")]
    NotJoinable,
    /// A certificate or a TLS setting cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The own handshake of a `tls://` or `quic://` channel failed.
    #[error("outer TLS: {0}")]
    OuterTls(String),
    /// The link was closed.
    #[error("link is closed")]
    LinkClosed,
}

impl From<QuicError> for ConnectError {
    fn from(error: QuicError) -> Self {
        match error {
            QuicError::Connection(error) => Self::Io(error),
            QuicError::Tls { reason } => Self::OuterTls(VerifyFailure::explain_text(&reason).to_owned()),
            QuicError::Settings { reason } => Self::OuterTls(reason),
        }
    }
}

impl ConnectError {
    /// Whether the peer or its certificate refused, so that trying again soon is of no use.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::OuterTls(_)
                | Self::GuestRefused
                | Self::Establish(_)
                | Self::WrongPeer { .. }
                | Self::Expired { .. }
                | Self::Identity(_)
                | Self::Dial(DialError::Tls { .. } | DialError::Quic { .. })
        )
    }
}

/// A node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// An address could not be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The identity or the trust cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}
