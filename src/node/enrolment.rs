//! Enrolment on the ports of channels: connections that are no channels, because their client asks for a certificate.
//!
//! They are told apart before anything is answered: by what the client's TLS offers (ALPN), and at `tcp://` addresses, where
//! channels begin with a message, by the first two bytes ([`begins_tls`](crate::wire::begins_tls)). What is asked for, and
//! the answer, is the business of who stands behind [`EnrolmentDoor`].

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;

use super::error::ConnectError;
use super::fresh::Fresh;
use super::messages::MessageReader;
use super::outer::outer_tls_error;
use crate::base::limits;
use crate::channel::{ChannelKind, Connection, TlsGreeting};
use crate::crypto::identity::{ALPN_ENROLL, ALPN_TLS};

/// Answers machines that ask for a certificate. Shared by all listeners of a node that take them.
pub trait EnrolmentDoor: Debug + Send + Sync {
    /// Takes a connection whose client has said hello: at a `tls://` address one that offers [`ALPN_ENROLL`], at a `tcp://`
    /// one any. Bounds its time itself; it counts as a handshake as long as this takes.
    fn serve(&self, greeting: TlsGreeting) -> Served;
}

/// What comes of a connection to an [`EnrolmentDoor`], for the log.
pub type Served = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// What a connection is, at a listener that takes machines besides channels.
pub(super) enum Arrival {
    /// A machine that asks for a certificate.
    Machine(Box<TlsGreeting>),
    /// A `tls://` channel.
    Tls(Box<TlsGreeting>),
    /// A `tcp://` channel, of which something has been read.
    Raw(Connection, MessageReader),
}

impl Arrival {
    /// Waits for what tells.
    pub(super) async fn of(connection: Connection) -> Result<Self, ConnectError> {
        // A hello is the beginning of a handshake that is bounded as a whole; a message has to be there sooner.
        let is_tls = connection.info.kind == ChannelKind::Tls;
        let timeout: Duration = if is_tls { limits::HANDSHAKE_TIMEOUT } else { limits::FIRST_MESSAGE_TIMEOUT };
        tokio::time::timeout(timeout, Self::look(connection)).await.map_err(|_| ConnectError::TimedOut(timeout))?
    }

    async fn look(connection: Connection) -> Result<Self, ConnectError> {
        if connection.info.kind == ChannelKind::Tls {
            let greeting = greet(connection, BytesMut::new()).await?;
            // Who offers both is no client of ours; it gets what the listener is for.
            let is_machine = greeting.offers(ALPN_ENROLL) && !greeting.offers(ALPN_TLS);
            return Ok(if is_machine { Self::Machine(greeting) } else { Self::Tls(greeting) });
        }
        let mut reader = Fresh::reader(&connection);
        if reader.begins_tls().await.map_err(io::Error::from)? {
            return Ok(Self::Machine(greet(connection, reader.into_read()).await?));
        }
        Ok(Self::Raw(connection, reader))
    }
}

/// On the heap: a connection that stays silent holds no memory for it.
async fn greet(connection: Connection, read: BytesMut) -> Result<Box<TlsGreeting>, ConnectError> {
    let greeting = Box::pin(TlsGreeting::read(connection, read)).await;
    greeting.map(Box::new).map_err(|error| outer_tls_error(&error))
}
