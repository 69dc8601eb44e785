//! The TLS 1.3 handshake on a raw channel, run by `rustls::quic`.
//!
//! Owns the order of levels (initial, handshake, traffic) and what may be read and written at each. Leaves to the
//! session how the bytes travel, and to the verifiers in [`identity`](super::identity) who is trusted.

use std::collections::VecDeque;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::quic::{self, DirectionalKeys, KeyChange, Keys, Version};
use rustls::{AlertDescription, ClientConfig, KeyLog, ServerConfig};

use super::identity::VerifyFailure;
use super::schedule::SessionSecrets;
use crate::base::{SessionId, Side, limits};
use crate::wire::HandshakeLevel;

/// Handshake bytes to send, all of one level.
#[derive(Debug, PartialEq, Eq)]
pub struct Flight {
    /// The keys that protect the bytes.
    pub level: HandshakeLevel,
    /// Where in the level's bytes these begin.
    pub offset: u64,
    /// TLS handshake messages.
    pub data: Vec<u8>,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// rustls refused what the peer sent, or the peer's certificate.
    #[error("TLS handshake failed: {}", VerifyFailure::explain(source))]
    Tls {
        /// What rustls says.
        source: rustls::Error,
        /// The alert that describes it; rustls has none for some errors.
        alert: Option<AlertDescription>,
    },
    /// The peer sent bytes of a level that is not being read.
    #[error("handshake bytes of level {got:?} came while {expected:?} is read")]
    WrongLevel {
        /// The level being read.
        expected: HandshakeLevel,
        /// The level that came.
        got: HandshakeLevel,
    },
    /// The peer's bytes do not follow each other.
    #[error("handshake bytes at offset {got} came, {expected} was expected")]
    OutOfOrder {
        /// The offset that had to come.
        expected: u64,
        /// The offset that came.
        got: u64,
    },
    /// The peer sent more bytes than any handshake needs.
    #[error("handshake is longer than {} bytes", limits::HANDSHAKE_BYTES_PER_LEVEL_MAX)]
    TooLong,
    /// The handshake ended without one of its parts.
    #[error("handshake ended without {0}")]
    Incomplete(&'static str),
}

/// What a complete handshake gives.
pub struct CompletedHandshake {
    /// Everything that keys are derived from.
    pub secrets: SessionSecrets,
    /// The negotiated cipher suite's packet protection.
    pub suite: quic::Suite,
    /// The peer's certificates, leaf first, verified. Empty if it is a client that showed none and needed none.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// The peer's transport parameters, authenticated by the transcript.
    pub peer_parameters: Vec<u8>,
}

/// A handshake in progress.
pub struct Handshake {
    connection: quic::Connection,
    /// The one of the TLS configuration.
    key_log: Arc<dyn KeyLog>,
    /// Level of the bytes that the next `write_hs` returns.
    writing: HandshakeLevel,
    reading: HandshakeLevel,
    received: [u64; 3],
    sent: [u64; 3],
    output: VecDeque<Flight>,
    keys: Option<Keys>,
}

impl Handshake {
    /// The dialling side: its first flight is ready.
    ///
    /// # Errors
    /// [`HandshakeError::Tls`] when the configuration cannot be used.
    pub fn client(config: Arc<ClientConfig>, parameters: Vec<u8>) -> Result<Self, HandshakeError> {
        // Peers are verified by the name in their certificate, never by DNS: the name here has no meaning.
        let name = ServerName::try_from("longhaul.invalid").expect("a valid DNS name");
        let key_log = Arc::clone(&config.key_log);
        let connection = quic::ClientConnection::new(config, Version::V1, name, parameters);
        Ok(Self::new(quic::Connection::Client(connection.map_err(local_error)?), key_log))
    }

    /// The accepting side.
    ///
    /// # Errors
    /// [`HandshakeError::Tls`] when the configuration cannot be used.
    pub fn server(config: Arc<ServerConfig>, parameters: Vec<u8>) -> Result<Self, HandshakeError> {
        let key_log = Arc::clone(&config.key_log);
        let connection = quic::ServerConnection::new(config, Version::V1, parameters);
        Ok(Self::new(quic::Connection::Server(connection.map_err(local_error)?), key_log))
    }

    fn new(connection: quic::Connection, key_log: Arc<dyn KeyLog>) -> Self {
        let mut handshake = Self {
            connection,
            key_log,
            writing: HandshakeLevel::Initial,
            reading: HandshakeLevel::Initial,
            received: [0; 3],
            sent: [0; 3],
            output: VecDeque::new(),
            keys: None,
        };
        handshake.drain();
        handshake
    }

    /// Takes handshake bytes of the peer. They have to be of the level being read and to follow those before: rustls
    /// itself checks neither.
    ///
    /// # Errors
    /// Any [`HandshakeError`]; the handshake cannot go on after it.
    pub fn handle_data(&mut self, level: HandshakeLevel, offset: u64, data: &[u8]) -> Result<(), HandshakeError> {
        if level != self.reading {
            return Err(HandshakeError::WrongLevel { expected: self.reading, got: level });
        }
        let received = &mut self.received[level as usize];
        if offset != *received {
            return Err(HandshakeError::OutOfOrder { expected: *received, got: offset });
        }
        *received += data.len() as u64;
        if *received > limits::HANDSHAKE_BYTES_PER_LEVEL_MAX as u64 {
            return Err(HandshakeError::TooLong);
        }
        self.connection
            .read_hs(data)
            .map_err(|source| HandshakeError::Tls { source, alert: self.connection.alert() })?;
        self.drain();
        Ok(())
    }

    /// The next bytes to send.
    pub fn poll_flight(&mut self) -> Option<Flight> {
        self.output.pop_front()
    }

    /// The key that seals packets of the handshake level.
    #[must_use]
    pub fn sealing_key(&self) -> Option<&dyn quic::PacketKey> {
        self.keys.as_ref().map(|keys| packet_key(&keys.local))
    }

    /// The key that opens packets of the handshake level.
    #[must_use]
    pub fn opening_key(&self) -> Option<&dyn quic::PacketKey> {
        self.keys.as_ref().map(|keys| packet_key(&keys.remote))
    }

    /// The key of early data, while it may be used: at a client that offers some, and at a server that accepts it.
    #[must_use]
    pub fn early_key(&self) -> Option<Arc<dyn quic::PacketKey>> {
        self.connection.zero_rtt_keys().map(|keys| Arc::from(keys.packet))
    }

    /// At a client with a complete handshake: whether the server has taken early data.
    #[must_use]
    pub fn is_early_data_accepted(&self) -> bool {
        matches!(&self.connection, quic::Connection::Client(client) if client.is_early_data_accepted())
    }

    /// Tickets that a client got.
    #[must_use]
    pub fn tickets_received(&self) -> u32 {
        match &self.connection {
            quic::Connection::Client(client) => client.tls13_tickets_received(),
            quic::Connection::Server(_) => 0,
        }
    }

    /// The peer's certificates, leaf first, as far as they are known: a server that accepts early data has them from the
    /// ticket.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.connection.peer_certificates()
    }

    /// The peer's transport parameters, as far as they are known: authenticated once the handshake is complete.
    #[must_use]
    pub fn peer_parameters(&self) -> Option<&[u8]> {
        self.connection.quic_transport_parameters()
    }

    /// Whether the handshake is complete on this side: the peer's Finished was verified.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// Draws the secrets of a complete handshake.
    ///
    /// # Errors
    /// [`HandshakeError::Incomplete`] when it is not complete or lacks a part.
    pub fn complete(&self, session_id: SessionId) -> Result<CompletedHandshake, HandshakeError> {
        if !self.is_complete() {
            return Err(HandshakeError::Incomplete("the peer's Finished"));
        }
        let suite = self
            .connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.tls13())
            .and_then(rustls::Tls13CipherSuite::quic_suite)
            .ok_or(HandshakeError::Incomplete("a cipher suite for packets"))?;
        // Whether a client may come without is for the server's configuration to say; the session then asks for a proof.
        let peer_certificates = match (self.connection.peer_certificates(), self.side()) {
            (Some(certificates), _) => certificates.to_vec(),
            (None, Side::Server) => Vec::new(),
            (None, Side::Client) => return Err(HandshakeError::Incomplete("the peer's certificate")),
        };
        let peer_parameters = self
            .connection
            .quic_transport_parameters()
            .ok_or(HandshakeError::Incomplete("the peer's transport parameters"))?
            .to_vec();
        let secrets = SessionSecrets::from_exporter(session_id, |output, label, context| {
            self.connection.export_keying_material(output, label, Some(context)).map(|_| ())
        })
        .map_err(|source| HandshakeError::Tls { source, alert: None })?;
        secrets.tell(&*self.key_log, session_id, &suite);
        Ok(CompletedHandshake { secrets, suite, peer_certificates, peer_parameters })
    }

    /// Takes everything that rustls has to say before it is fed again: else it would hand out bytes of a level
    /// before the keys of that level.
    fn drain(&mut self) {
        loop {
            let mut data = Vec::new();
            let change = self.connection.write_hs(&mut data);
            let level = self.writing;
            if !data.is_empty() {
                let offset = self.sent[level as usize];
                self.sent[level as usize] += data.len() as u64;
                self.output.push_back(Flight { level, offset, data });
            }
            match change {
                Some(KeyChange::Handshake { keys }) => {
                    self.keys = Some(keys);
                    self.writing = HandshakeLevel::Handshake;
                    self.reading = HandshakeLevel::Handshake;
                }
                // The packet keys come from the exporter, as on channels that bring a TLS handshake of their own.
                Some(KeyChange::OneRtt { .. }) => self.writing = HandshakeLevel::Traffic,
                None => break,
            }
        }
        if self.is_complete() {
            self.reading = HandshakeLevel::Traffic;
        }
    }

    /// Which side this is.
    #[must_use]
    pub fn side(&self) -> Side {
        match self.connection {
            quic::Connection::Client(_) => Side::Client,
            quic::Connection::Server(_) => Side::Server,
        }
    }
}

fn packet_key(keys: &DirectionalKeys) -> &dyn quic::PacketKey {
    keys.packet.as_ref()
}

fn local_error(source: rustls::Error) -> HandshakeError {
    HandshakeError::Tls { source, alert: None }
}
