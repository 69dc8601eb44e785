//! `tls://`: TLS 1.3 over TCP, whose handshake is the session's own (its secrets come from the exporter).
//!
//! Whom a certificate names is decided by the verifier in the caller's configuration, from the SPIFFE name in the
//! certificate; so the server name of the handshake is a constant that means nothing. The configuration has to offer
//! [`OUTER_TLS_ALPN`]. Deadlines are the caller's.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use thiserror::Error;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, CommonState, ServerConfig, SupportedCipherSuite};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::address::ChannelKind;
use super::connection::{ChannelInfo, Connection, Io, TlsIo};
use super::shared_tcp::SharedTcp;
use super::tls_pipe::TlsPipe;

/// The protocol name (RFC 7301) that both ends of a `tls://` channel have to agree on.
pub const OUTER_TLS_ALPN: &[u8] = b"longhaul-tls/1";

/// A TLS channel after its handshake.
#[derive(Debug)]
pub struct TlsConnection {
    /// Its bytes and ends.
    pub connection: Connection,
    /// What the handshake left.
    pub outer: OuterTls,
}

/// What the handshake of a TLS channel left.
#[derive(Clone)]
pub struct OuterTls {
    peer_certificates: Vec<CertificateDer<'static>>,
    cipher_suite: SupportedCipherSuite,
    exporter: Weak<TlsPipe>,
}

impl OuterTls {
    /// The peer's certificate chain, its own certificate first. Empty when it showed none.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.peer_certificates
    }

    /// The negotiated cipher suite.
    #[must_use]
    pub fn cipher_suite(&self) -> SupportedCipherSuite {
        self.cipher_suite
    }

    /// A secret that both ends can draw from the handshake (RFC 8446 §7.5), and nobody else.
    ///
    /// # Errors
    ///
    /// The channel is closed, or rustls refuses.
    pub fn export_keying_material(&self, label: &[u8], context: Option<&[u8]>) -> Result<[u8; 32], TlsError> {
        let pipe = self.exporter.upgrade().ok_or(TlsError::Closed)?;
        let stream = pipe.lock();
        match &*stream {
            TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], label, context),
            TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], label, context),
        }
        .map_err(TlsError::Exporter)
    }
}

impl fmt::Debug for OuterTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OuterTls")
            .field("peer_certificates", &self.peer_certificates.len())
            .field("cipher_suite", &self.cipher_suite)
            .finish_non_exhaustive()
    }
}

/// Why a TLS channel did not come about.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The connection is no plain TCP one.
    #[error("TLS runs over TCP only, and this channel is {kind} or has TLS already")]
    NotTcp {
        /// What it is.
        kind: ChannelKind,
    },
    /// The handshake failed, or the connection under it.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
    /// The ends do not speak the same protocol above TLS.
    #[error("expected the protocol `longhaul-tls/1` above TLS, the peer agreed to {negotiated}")]
    Alpn {
        /// What was negotiated, for a person to read.
        negotiated: String,
    },
    /// The channel is closed, so that nothing can be drawn from its handshake.
    #[error("the TLS channel is closed")]
    Closed,
    /// rustls refused to export.
    #[error("TLS exporter: {0}")]
    Exporter(#[source] rustls::Error),
    /// The handshake ended without what a finished one has.
    #[error("the TLS handshake ended without a cipher suite")]
    Unfinished,
}

/// Runs the client's side of the handshake over a connection that was dialled.
///
/// # Errors
///
/// See [`TlsError`]; the connection is closed then.
pub async fn connect_tls(tcp: Connection, config: Arc<ClientConfig>) -> Result<TlsConnection, TlsError> {
    let (socket, info) = socket_of(tcp)?;
    let name = ServerName::try_from(SERVER_NAME).expect("the constant is a valid DNS name");
    let stream = TlsConnector::from(config).connect(name, socket).await.map_err(TlsError::Handshake)?;
    finish(TlsStream::Client(stream), info)
}

/// Runs the server's side of the handshake over a connection that was accepted.
///
/// # Errors
///
/// See [`TlsError`]; the connection is closed then.
pub async fn accept_tls(tcp: Connection, config: Arc<ServerConfig>) -> Result<TlsConnection, TlsError> {
    let (socket, info) = socket_of(tcp)?;
    let stream = TlsAcceptor::from(config).accept(socket).await.map_err(TlsError::Handshake)?;
    finish(TlsStream::Server(stream), info)
}

fn socket_of(connection: Connection) -> Result<(SharedTcp, ChannelInfo), TlsError> {
    match connection.io {
        Io::Tcp(stream) => Ok((SharedTcp(stream), connection.info)),
        Io::Unix(_) | Io::Tls(_) => Err(TlsError::NotTcp { kind: connection.info.kind }),
    }
}

fn finish(stream: TlsStream<SharedTcp>, mut info: ChannelInfo) -> Result<TlsConnection, TlsError> {
    let state: &CommonState = stream.get_ref().1;
    let negotiated = state.alpn_protocol();
    if negotiated != Some(OUTER_TLS_ALPN) {
        let negotiated = negotiated.map_or("none".to_owned(), |name| format!("`{}`", name.escape_ascii()));
        return Err(TlsError::Alpn { negotiated });
    }
    let cipher_suite = state.negotiated_cipher_suite().ok_or(TlsError::Unfinished)?;
    let peer_certificates = state.peer_certificates().unwrap_or_default().to_vec();
    let pipe = Arc::new(TlsPipe::new(stream));
    let outer = OuterTls { peer_certificates, cipher_suite, exporter: Arc::downgrade(&pipe) };
    info.kind = ChannelKind::Tls;
    Ok(TlsConnection { connection: Connection { io: Io::Tls(TlsIo(pipe)), info }, outer })
}

/// Stands where rustls wants a server's name; `.invalid` is never resolved (RFC 6761 §6.4).
const SERVER_NAME: &str = "longhaul.invalid";
