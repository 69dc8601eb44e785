//! `tls://`: TLS 1.3 over TCP, whose handshake is the session's own (its secrets come from the exporter).
//!
//! Whom a certificate names is decided by the verifier in the caller's configuration, from the SPIFFE name in the
//! certificate; so the server name of the handshake is a constant that means nothing. The configuration has to offer
//! [`OUTER_TLS_ALPN`]. Deadlines are the caller's.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use bytes::BytesMut;
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

/// What the handshake of a TLS or QUIC channel left.
#[derive(Clone)]
pub struct OuterTls {
    peer_certificates: Vec<CertificateDer<'static>>,
    cipher_suite: SupportedCipherSuite,
    exporter: Exporter,
}

/// What draws secrets from the handshake.
#[derive(Clone)]
enum Exporter {
    Tls(Weak<TlsPipe>),
    Quic(quinn::Connection),
}

impl OuterTls {
    /// What the handshake of a QUIC connection left.
    pub(crate) fn of_quic(
        connection: quinn::Connection,
        peer_certificates: Vec<CertificateDer<'static>>,
        cipher_suite: SupportedCipherSuite,
    ) -> Self {
        Self { peer_certificates, cipher_suite, exporter: Exporter::Quic(connection) }
    }

    /// The peer's certificate chain, its own certificate first. Empty when it showed none.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.peer_certificates
    }

    /// The cipher suite: the negotiated one, or what QUIC channels use above it, as quinn does not tell.
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
        let pipe = match &self.exporter {
            Exporter::Tls(pipe) => pipe.upgrade().ok_or(TlsError::Closed)?,
            Exporter::Quic(connection) => {
                let mut secret = [0; 32];
                let outcome = connection.export_keying_material(&mut secret, label, context.unwrap_or_default());
                return outcome.map(|()| secret).map_err(|_| TlsError::Closed);
            }
        };
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
    let (socket, info) = socket_of(tcp, BytesMut::new())?;
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
    let (socket, info) = socket_of(tcp, BytesMut::new())?;
    let stream = TlsAcceptor::from(config).accept(socket).await.map_err(TlsError::Handshake)?;
    finish(TlsStream::Server(stream), info)
}

/// The socket under a channel of which `read` has come already.
pub(super) fn socket_of(connection: Connection, read: BytesMut) -> Result<(SharedTcp, ChannelInfo), TlsError> {
    match connection.io {
        Io::Tcp(stream) => Ok((SharedTcp::after(stream, read), connection.info)),
        Io::Unix(_) | Io::Tls(_) | Io::Quic(_) => Err(TlsError::NotTcp { kind: connection.info.kind }),
    }
}

pub(super) fn finish(stream: TlsStream<SharedTcp>, mut info: ChannelInfo) -> Result<TlsConnection, TlsError> {
    let state: &CommonState = stream.get_ref().1;
    let negotiated = state.alpn_protocol();
    if negotiated != Some(OUTER_TLS_ALPN) {
        let negotiated = negotiated.map_or("none".to_owned(), |name| format!("`{}`", name.escape_ascii()));
        return Err(TlsError::Alpn { negotiated });
    }
    let cipher_suite = state.negotiated_cipher_suite().ok_or(TlsError::Unfinished)?;
    let peer_certificates = state.peer_certificates().unwrap_or_default().to_vec();
    let pipe = Arc::new(TlsPipe::new(stream));
    let outer = OuterTls { peer_certificates, cipher_suite, exporter: Exporter::Tls(Arc::downgrade(&pipe)) };
    info.kind = ChannelKind::Tls;
    Ok(TlsConnection { connection: Connection { io: Io::Tls(TlsIo(pipe)), info }, outer })
}

/// Stands where rustls wants a server's name; `.invalid` is never resolved (RFC 6761 §6.4).
const SERVER_NAME: &str = "longhaul.invalid";

#[cfg(test)]
#[cfg(feature = "issue")]
pub(crate) mod tests {
    use std::time::Duration;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::RootCertStore;
    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;

    use super::*;
    use crate::channel::{Address, DialError, DialOptions, ListenOptions, Listener, NotsentLowat, dial_tls};

    #[cfg(feature = "aws-lc-rs")]
    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::aws_lc_rs::default_provider())
    }

    #[cfg(not(feature = "aws-lc-rs"))]
    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    fn configs(client_alpn: &[&[u8]], server_alpn: &[&[u8]]) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([SERVER_NAME.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let versions = &[&rustls::version::TLS13];
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        client.alpn_protocols = client_alpn.iter().map(|name| name.to_vec()).collect();
        server.alpn_protocols = server_alpn.iter().map(|name| name.to_vec()).collect();
        (Arc::new(client), Arc::new(server))
    }

    async fn handshake(
        (client, server): (Arc<ClientConfig>, Arc<ServerConfig>),
    ) -> (Result<TlsConnection, TlsError>, Result<TlsConnection, TlsError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let dialled = Connection::tcp(dialled.unwrap(), ChannelKind::Tls, NotsentLowat::Auto).unwrap();
        let accepted = Connection::tcp(accepted.unwrap().0, ChannelKind::Tls, NotsentLowat::Auto).unwrap();
        tokio::join!(connect_tls(dialled, client), accept_tls(accepted, server))
    }

    /// The two ends of a TLS channel over loopback.
    pub(crate) async fn tls_pair() -> (TlsConnection, TlsConnection) {
        let (client, server) = handshake(configs(&[OUTER_TLS_ALPN], &[OUTER_TLS_ALPN])).await;
        (client.unwrap(), server.unwrap())
    }

    #[tokio::test]
    async fn both_ends_draw_the_same_secret() {
        let (client, server) = tls_pair().await;
        let draw =
            |end: &TlsConnection, label: &[u8], context| end.outer.export_keying_material(label, context).unwrap();
        let secret = draw(&client, b"label", Some(b"context"));
        assert_eq!(secret, draw(&server, b"label", Some(b"context")));
        assert_ne!(secret, draw(&server, b"label", None));
        assert_ne!(secret, draw(&server, b"other", Some(b"context")));
        assert_eq!(client.outer.cipher_suite().suite(), server.outer.cipher_suite().suite());
        assert_eq!(client.outer.peer_certificates().len(), 1);
        assert!(server.outer.peer_certificates().is_empty());
        drop(client.connection);
        assert!(matches!(client.outer.export_keying_material(b"label", None), Err(TlsError::Closed)));
    }

    #[tokio::test]
    async fn another_protocol_above_is_refused() {
        let (client, server) = handshake(configs(&[b"h2"], &[b"h2"])).await;
        assert!(matches!(client, Err(TlsError::Alpn { negotiated }) if negotiated == "`h2`"));
        assert!(matches!(server, Err(TlsError::Alpn { .. })));
        let (_client, server) = handshake(configs(&[], &[OUTER_TLS_ALPN])).await;
        assert!(matches!(server, Err(TlsError::Alpn { negotiated }) if negotiated == "none"));
        let (client, server) = handshake(configs(&[b"h2"], &[OUTER_TLS_ALPN])).await;
        assert!(matches!(client, Err(TlsError::Handshake(_))));
        assert!(matches!(server, Err(TlsError::Handshake(_))));
    }

    #[tokio::test]
    async fn tls_over_tls_is_refused() {
        let (client, _server) = tls_pair().await;
        let (config, _) = configs(&[OUTER_TLS_ALPN], &[]);
        assert!(matches!(connect_tls(client.connection, config).await, Err(TlsError::NotTcp { .. })));
    }

    #[tokio::test]
    async fn a_tls_address_is_dialled_and_accepted() {
        let (client, server) = configs(&[OUTER_TLS_ALPN], &[OUTER_TLS_ALPN]);
        let address: Address = "tls://127.0.0.1:0".parse().unwrap();
        let mut listener = Listener::bind(&address, &ListenOptions::default()).await.unwrap();
        let address = listener.local_address().clone();
        let accepting = async { accept_tls(listener.accept().await.connection, server).await };
        let options = DialOptions::default();
        let (dialled, accepted) = tokio::join!(dial_tls(&address, &options, client), accepting);
        assert_eq!(dialled.unwrap().connection.info.kind, ChannelKind::Tls);
        accepted.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_the_handshake_times_out() {
        let (client, _) = configs(&[OUTER_TLS_ALPN], &[]);
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tls { host: "127.0.0.1".to_owned(), port: silent.local_addr().unwrap().port() };
        let options = DialOptions { timeout: Duration::from_millis(100), ..DialOptions::default() };
        assert!(matches!(dial_tls(&address, &options, client).await, Err(DialError::TimedOut { .. })));
    }
}
