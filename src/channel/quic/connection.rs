//! A QUIC connection after its handshake: it opens and accepts lanes.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use quinn::{SendDatagramError, VarInt};
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, SupportedCipherSuite};

use super::error::{QuicError, refusal_of_tls};
use super::lane::{Common, QuicIo};
use crate::channel::{ChannelInfo, ChannelKind, Connection, Io, OuterTls};

/// A QUIC connection after its handshake. Its lanes are [`Connection`]s.
#[derive(Clone, Debug)]
pub struct QuicConnection {
    connection: quinn::Connection,
    info: ChannelInfo,
    outer: OuterTls,
    common: Common,
}

impl QuicConnection {
    /// `suites` are those of the provider.
    pub(super) fn new(
        connection: quinn::Connection,
        local: SocketAddr,
        suites: &[SupportedCipherSuite],
    ) -> Result<Self, QuicError> {
        let peer = connection.remote_address();
        let local = connection.local_ip().map_or(local, |ip| SocketAddr::new(ip, local.port()));
        let info = ChannelInfo {
            kind: ChannelKind::Quic,
            local: local.to_string(),
            peer: peer.to_string(),
            peer_ip: Some(peer.ip().to_canonical()),
        };
        let certificates = certificates_of(&connection);
        let suite = suites.iter().find(|suite| suite.suite() == PACKET_SUITE).copied();
        let suite = suite.ok_or_else(|| QuicError::Settings { reason: format!("{PACKET_SUITE:?} is missing") })?;
        let common = Common::new(&connection);
        let outer = OuterTls::of_quic(connection.clone(), certificates, suite);
        Ok(Self { connection, info, outer, common })
    }

    /// The same, once a handshake is complete that was not when this was made.
    #[must_use]
    pub fn completed(&self) -> Self {
        let (certificates, suite) = (certificates_of(&self.connection), self.outer.cipher_suite());
        Self { outer: OuterTls::of_quic(self.connection.clone(), certificates, suite), ..self.clone() }
    }

    /// The peer's certificates as far as they are known; while the handshake is under way those of a ticket.
    #[must_use]
    pub fn known_certificates(&self) -> Vec<CertificateDer<'static>> {
        certificates_of(&self.connection)
    }

    /// Why the connection has ended, if it has.
    pub(super) fn ended(&self) -> Option<quinn::ConnectionError> {
        self.connection.close_reason()
    }

    /// What the handshake left.
    #[must_use]
    pub fn outer(&self) -> &OuterTls {
        &self.outer
    }

    /// Both ends.
    #[must_use]
    pub fn info(&self) -> &ChannelInfo {
        &self.info
    }

    /// Opens a lane. The peer learns of it by its first byte. The first one carries the connection: when it ends, so does
    /// the connection.
    ///
    /// # Errors
    ///
    /// The connection has ended. Waits while the peer allows no further lane.
    pub async fn open_lane(&self) -> io::Result<Connection> {
        let (send, receive) = self.connection.open_bi().await?;
        Ok(self.lane(send, receive))
    }

    /// The next lane that the peer opens.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub async fn accept_lane(&self) -> io::Result<Connection> {
        let (send, receive) = self.connection.accept_bi().await?;
        Ok(self.lane(send, receive))
    }

    /// The largest datagram (RFC 9221) that the connection takes now, in bytes; it grows while the path is explored.
    /// `None` when the peer takes none.
    #[must_use]
    pub fn datagram_bytes_max(&self) -> Option<usize> {
        self.connection.max_datagram_size()
    }

    /// Sends a datagram, which may be lost. Waits while earlier ones have to leave first.
    ///
    /// # Errors
    ///
    /// The connection has ended. One that the path has become too narrow for is dropped without an error.
    pub async fn send_datagram(&self, datagram: Bytes) -> io::Result<()> {
        let size = datagram.len();
        let outcome = self.connection.send_datagram_wait(datagram).await;
        self.common.on_written(if outcome.is_ok() { size } else { 0 });
        match outcome {
            Ok(()) | Err(SendDatagramError::TooLarge) => Ok(()),
            Err(error) => Err(io::Error::new(io::ErrorKind::NotConnected, error)),
        }
    }

    /// The next datagram that arrives. Cancel safe.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub async fn read_datagram(&self) -> io::Result<Bytes> {
        Ok(self.connection.read_datagram().await?)
    }

    /// Ends the connection and its lanes at once.
    pub fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }

    /// Whether the peer ended the connection because its TLS refused this side, which a client learns after its own
    /// handshake is complete.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.connection.close_reason().is_some_and(|reason| refusal_of_tls(&reason).is_some())
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    fn lane(&self, send: quinn::SendStream, receive: quinn::RecvStream) -> Connection {
        let io = QuicIo::new(self.connection.clone(), &self.common, send, receive);
        Connection { io: Io::Quic(io), info: self.info.clone() }
    }
}

fn certificates_of(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|certificates| *certificates)
        .unwrap_or_default()
}

/// What protects the packets of raw channels that join a session which began over QUIC: quinn does not tell which suite
/// its handshake chose. Every node has this one.
const PACKET_SUITE: CipherSuite = CipherSuite::TLS13_AES_256_GCM_SHA384;
