//! A TLS client that has said hello, and that nothing was answered yet: by the protocols that it offers (RFC 7301) whoever
//! accepts chooses what it is answered with. One port serves several protocols so, each with a configuration of its own.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::{StartHandshake, TlsStream};
use tokio_rustls::{LazyConfigAcceptor, TlsStream as EitherTlsStream};

use super::connection::{ChannelInfo, Connection};
use super::shared_tcp::SharedTcp;
use super::tls::{TlsConnection, TlsError, finish, socket_of};

/// A connection over TCP whose client has said hello. Dropping it closes the connection.
#[derive(Debug)]
pub struct TlsGreeting {
    start: StartHandshake<SharedTcp>,
    info: ChannelInfo,
}

impl TlsGreeting {
    /// Waits for the client's hello, of which `read` has come already. How long is for the caller to bound; rustls bounds its
    /// size to 64 KiB.
    ///
    /// # Errors
    ///
    /// See [`TlsError`]; the connection is closed then.
    pub async fn read(tcp: Connection, read: BytesMut) -> Result<Self, TlsError> {
        let (socket, info) = socket_of(tcp, read)?;
        let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await.map_err(TlsError::Handshake)?;
        Ok(Self { start, info })
    }

    /// Whether the client offers a protocol above TLS.
    #[must_use]
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.start.client_hello().alpn().is_some_and(|mut offered| offered.any(|name| name == protocol))
    }

    /// Whether the client offers any protocol: who does is told when there is none of them.
    #[must_use]
    pub fn offers_any(&self) -> bool {
        self.start.client_hello().alpn().is_some_and(|mut offered| offered.next().is_some())
    }

    /// The ends of the connection.
    #[must_use]
    pub fn info(&self) -> &ChannelInfo {
        &self.info
    }

    /// Goes on as a `tls://` channel.
    ///
    /// # Errors
    ///
    /// See [`TlsError`]; the connection is closed then.
    pub async fn accept_channel(self, config: Arc<ServerConfig>) -> Result<TlsConnection, TlsError> {
        let stream = self.start.into_stream(config).await.map_err(TlsError::Handshake)?;
        finish(EitherTlsStream::Server(stream), self.info)
    }

    /// Goes on as something else than a channel.
    ///
    /// # Errors
    ///
    /// The handshake failed, or the connection under it.
    pub async fn accept_stream(self, config: Arc<ServerConfig>) -> io::Result<TlsStream<SharedTcp>> {
        self.start.into_stream(config).await
    }
}
