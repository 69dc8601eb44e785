//! Peers that do as they like: any certificate, any bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use longhaul::base::{LaneId, Secret, SessionId};
use longhaul::channel::{Address, DialOptions, ListenOptions, QuicListener, dial_quic};
use longhaul::crypto::LaneOpener;
use longhaul::crypto::identity::{ALPN_QUIC, ALPN_SESSION, ALPN_TLS, TlsSettings, quic_initial_suite, server_name};
use longhaul::issue::CertificateAuthority;
use longhaul::session::{CloseReason, EstablishError, Establishing, LaneKind, LaneSetup, Progress, SessionConfig};
use longhaul::wire::{Body, FrameMessage, GuestCredential, VERSION, decode_message, decode_packet};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a rogue presents: `None` is no certificate at all.
pub(crate) type Papers = Option<Arc<CertifiedKey>>;

/// A certificate that names node `name` of `domain`, with whatever `change` does to it.
pub(crate) fn forge(
    authority: &CertificateAuthority,
    domain: &str,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Papers {
    let mut params = CertificateParams::default();
    let uri = format!("spiffe://{domain}/node/{name}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    change(&mut params);
    let issuer_key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(authority.certificate_pem(), issuer_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = longhaul::crypto::identity::default_provider();
    Some(Arc::new(CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider).unwrap()))
}

/// The dialling side's configuration of `base`, with other papers.
pub(crate) fn client_config(base: &TlsSettings, papers: &Papers, alpn: &[u8]) -> Arc<ClientConfig> {
    let mut config = (*base.client_config(None, alpn).unwrap()).clone();
    config.client_auth_cert_resolver = match papers {
        Some(key) => Arc::new(SingleCertAndKey::from((**key).clone())),
        None => Arc::new(Nothing),
    };
    Arc::new(config)
}

/// The accepting side's configuration of `base`, with other papers.
pub(crate) fn server_config(base: &TlsSettings, papers: &Papers, alpn: &[u8]) -> Arc<ServerConfig> {
    let mut config = (*base.server_config(alpn).unwrap()).clone();
    let key = papers.as_ref().expect("a server without a certificate cannot begin");
    config.cert_resolver = Arc::new(SingleCertAndKey::from((**key).clone()));
    Arc::new(config)
}

#[derive(Debug)]
struct Nothing;

impl rustls::client::ResolvesClientCert for Nothing {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A raw channel, message by message.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    buffer: BytesMut,
}

impl Raw {
    pub(crate) async fn dial(address: &Address) -> Self {
        Self::on(TcpStream::connect(socket_address(address)).await.unwrap())
    }

    pub(crate) fn on(stream: TcpStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Writes, unless the other end has gone: that it has is for the reader to find.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next message; `None` at the end, however it comes.
    pub(crate) async fn next(&mut self) -> Option<FrameMessage> {
        loop {
            if let Some(message) = decode_message(&mut self.buffer, 1 << 16).expect("a message") {
                return Some(message);
            }
            let read = tokio::time::timeout(Duration::from_secs(120), self.stream.read_buf(&mut self.buffer)).await;
            match read.expect("an answer or an end in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Runs the dialling side's handshake to its end.
    pub(crate) async fn establish(&mut self, config: Arc<ClientConfig>) -> Result<(), EstablishError> {
        self.establish_as(config, SessionId(std::array::from_fn(|index| index as u8))).await
    }

    /// The same, for a session of that name.
    pub(crate) async fn establish_as(
        &mut self,
        config: Arc<ClientConfig>,
        id: SessionId,
    ) -> Result<(), EstablishError> {
        let mut establishing = Establishing::client(config, &SessionConfig::default(), id, VERSION)?;
        self.run(&mut establishing, None).await
    }

    /// The same, and shows what `credential` makes of the session's exporter in place of a certificate: why the session that
    /// the other end then accepts or closes is over, if it is.
    pub(crate) async fn come_as_guest(
        &mut self,
        config: Arc<ClientConfig>,
        id: SessionId,
        credential: impl FnOnce(&Secret<32>) -> GuestCredential,
    ) -> Option<CloseReason> {
        let mut establishing = Establishing::client(config, &SessionConfig::default(), id, VERSION).unwrap();
        self.run(&mut establishing, None).await.expect("this side is content");
        let lane = LaneSetup::new(LaneKind::Tcp);
        let made = establishing.finish(SessionConfig::default(), lane, [0; 16], Instant::now()).unwrap();
        let mut session = made.session;
        let credential = credential(session.guest_exporter().expect("the handshake is complete"));
        session.present_guest(credential);
        let mut message = BytesMut::new();
        let packet = session.poll_transmit(Instant::now(), LaneId::FIRST).expect("a guest speaks first");
        packet.encode(&mut message).unwrap();
        self.send(&message).await;
        let mut opener = LaneOpener::new(LaneId::FIRST, session.opening_keys());
        while !session.is_connected() && session.close_reason().is_none() {
            let FrameMessage { head, body: Body::Sealed(sealed) } = self.next().await? else { return None };
            let content = opener.open(&head, sealed).unwrap();
            let (size, mut frames) = (content.len(), Vec::new());
            decode_packet(&content, &mut frames).unwrap();
            session.handle_packet(Instant::now(), &head, true, &mut frames, size);
        }
        session.close_reason().cloned()
    }

    /// Runs the accepting side's handshake to its end.
    pub(crate) async fn accept(&mut self, config: Arc<ServerConfig>) -> Result<(), EstablishError> {
        let first = self.next().await.ok_or(EstablishError::Refused)?;
        let mut establishing = Establishing::server(config, &SessionConfig::default(), &first.head)?;
        self.run(&mut establishing, Some(first)).await
    }

    async fn run(
        &mut self,
        establishing: &mut Establishing,
        mut message: Option<FrameMessage>,
    ) -> Result<(), EstablishError> {
        loop {
            let progress = match message.take() {
                Some(message) => establishing.handle_message(message)?,
                None => Progress::Continue,
            };
            while let Some(output) = establishing.poll_output() {
                self.send(&output).await;
            }
            if progress == Progress::Complete {
                return Ok(());
            }
            message = Some(self.next().await.ok_or(EstablishError::Refused)?);
        }
    }

    /// Whether the other end refuses as it refuses all strangers, and ends.
    pub(crate) async fn is_refused(&mut self) -> bool {
        let refusal = self.next().await.map(|message| message.body);
        matches!(refusal, Some(Body::Refused)) && self.next().await.is_none()
    }
}

/// The host and port of a TCP address.
pub(crate) fn socket_address(address: &Address) -> String {
    match address {
        Address::Tcp { host, port } | Address::Tls { host, port } => format!("{host}:{port}"),
        other => panic!("no TCP under {other}"),
    }
}

/// Dials a session on a raw channel: whether the peer refuses, once the handshake is through on this side.
pub(crate) async fn refused_over_raw(base: &TlsSettings, papers: &Papers, address: &Address) -> bool {
    let mut raw = Raw::dial(address).await;
    // A client is done before the server has looked at its certificate.
    raw.establish(client_config(base, papers, ALPN_SESSION)).await.expect("this side is content");
    raw.is_refused().await
}

/// Dials the outer TLS of a channel, and begins a session in it: the error that comes for it.
pub(crate) async fn refused_over_tls(base: &TlsSettings, papers: &Papers, address: &Address, alpn: &[u8]) -> String {
    let stream = TcpStream::connect(socket_address(address)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(client_config(base, papers, alpn));
    let mut tls = match connector.connect(server_name(), stream).await {
        Ok(tls) => tls,
        Err(error) => return error.to_string(),
    };
    let id = SessionId([9; 16]);
    let start = longhaul::session::Established::start_message(&SessionConfig::default(), id, VERSION);
    let _ = tls.write_all(&start).await;
    let mut answer = Vec::new();
    match tls.read_to_end(&mut answer).await {
        Ok(_) => format!("{} bytes, and the end", answer.len()),
        Err(error) => error.to_string(),
    }
}

/// Dials QUIC, and begins a session in it: the error that comes for it.
pub(crate) async fn refused_over_quic(base: &TlsSettings, papers: &Papers, address: &Address, alpn: &[u8]) -> String {
    let config = client_config(base, papers, alpn);
    let quic = match dial_quic(address, &DialOptions::default(), config, quic_initial_suite()).await {
        Ok(quic) => quic,
        Err(error) => return error.to_string(),
    };
    let (mut read, mut write) = match quic.open_lane().await {
        Ok(lane) => lane.io.split(),
        Err(error) => return error.to_string(),
    };
    let id = SessionId([9; 16]);
    let start = longhaul::session::Established::start_message(&SessionConfig::default(), id, VERSION);
    let _ = write.write_all(&start).await;
    let mut answer = BytesMut::with_capacity(1024);
    match read.read(&mut answer).await {
        Ok(size) => format!("{size} bytes"),
        Err(error) => error.to_string(),
    }
}

async fn listen_quic(base: TlsSettings, papers: Papers) -> Address {
    let address = "quic://127.0.0.1:0".parse().unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[0; 32]);
    let config = move || server_config(&base, &papers, ALPN_QUIC);
    let suite = quic_initial_suite;
    let bound = QuicListener::bind(&address, &ListenOptions::default(), config(), suite(), key).await;
    let mut listener = bound.unwrap();
    let address = listener.local_address().clone();
    tokio::spawn(async move {
        while let Some(accepted) = listener.accept().await {
            if let Ok((connection, _permit)) = accepted.handshake(config(), suite()).await {
                connection.closed().await;
            }
        }
    });
    address
}

/// A listener that answers with whatever papers, on a raw channel or inside TLS or QUIC; its address.
pub(crate) async fn listen(base: TlsSettings, papers: Papers, scheme: &str) -> Address {
    if scheme == "quic" {
        return listen_quic(base, papers).await;
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("{scheme}://{}", listener.local_addr().unwrap()).parse().unwrap();
    let is_tls = scheme == "tls";
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if is_tls {
                let config = server_config(&base, &papers, ALPN_TLS);
                let _ = tokio_rustls::TlsAcceptor::from(config).accept(stream).await;
            } else {
                let _ = Raw::on(stream).accept(server_config(&base, &papers, ALPN_SESSION)).await;
            }
        }
    });
    address
}
