//! Why a QUIC channel did not come about, or ended.

use std::io;

use quinn::ConnectionError;
use rustls::AlertDescription;
use thiserror::Error;

/// Why a QUIC channel did not come about.
#[derive(Debug, Error)]
pub enum QuicError {
    /// One side's TLS refused the other.
    #[error("{reason}")]
    Tls {
        /// What was wrong, in the words of the side that found it.
        reason: String,
    },
    /// No answer, or the connection ended.
    #[error("QUIC handshake: {0}")]
    Connection(#[source] io::Error),
    /// TLS settings that QUIC cannot use.
    #[error("QUIC cannot use the TLS settings: {reason}")]
    Settings {
        /// quinn's words.
        reason: String,
    },
}

impl QuicError {
    /// The error of a handshake, of which this side's TLS said `words`.
    pub(super) fn new(error: ConnectionError, words: Option<String>) -> Self {
        words.map_or_else(|| error.into(), |reason| Self::Tls { reason })
    }
}

impl From<ConnectionError> for QuicError {
    fn from(error: ConnectionError) -> Self {
        match refusal_of_tls(&error) {
            Some(reason) => Self::Tls { reason },
            None => Self::Connection(error.into()),
        }
    }
}

/// What TLS said, when it was TLS that ended the connection. Errors of TLS are 0x100 and its alert (RFC 9001 §4.8).
pub(super) fn refusal_of_tls(error: &ConnectionError) -> Option<String> {
    let alert = |code: u64| (code >> 8 == 1).then(|| AlertDescription::from((code & 0xff) as u8));
    match error {
        ConnectionError::TransportError(error) => alert(error.code.into()).map(|_| error.reason.clone()),
        ConnectionError::ConnectionClosed(close) => {
            alert(close.error_code.into()).map(|alert| format!("the peer refused: {alert:?}"))
        }
        _ => None,
    }
}
