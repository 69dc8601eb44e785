//! QUIC connections that are used before their handshake is complete (0-RTT, RFC 9001 §4.6).
//!
//! A connection whose early data is rejected is left: whoever wrote to it dials another one. quinn could go on with it, but
//! what it was given by then counts as unsent for ever, and holds up what follows.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use quinn::ZeroRttAccepted;

use super::connection::QuicConnection;
use super::discreet::Words;
use super::error::QuicError;

/// A connection whose handshake is under way. As a future it waits for the end of that, and says whether early data was
/// accepted; at the accepting side that means nothing.
pub struct QuicEarly {
    connection: QuicConnection,
    accepted: ZeroRttAccepted,
    words: Words,
}

/// What dialling gave.
pub enum QuicDialled {
    /// The handshake is complete.
    Ready(QuicConnection),
    /// It is not, and early data may be sent.
    Early(QuicEarly),
}

impl QuicEarly {
    pub(super) fn new(connection: QuicConnection, accepted: ZeroRttAccepted, words: Words) -> Self {
        Self { connection, accepted, words }
    }

    /// The connection, which knows its peer as far as the ticket says.
    #[must_use]
    pub fn connection(&self) -> &QuicConnection {
        &self.connection
    }
}

impl Future for QuicEarly {
    type Output = Result<bool, QuicError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let is_accepted = ready!(Pin::new(&mut self.accepted).poll(context));
        Poll::Ready(match self.connection.ended() {
            Some(reason) if !is_accepted => Err(QuicError::new(reason, self.words.take())),
            _ => Ok(is_accepted),
        })
    }
}

impl std::fmt::Debug for QuicEarly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicEarly").field("connection", &self.connection).finish_non_exhaustive()
    }
}
