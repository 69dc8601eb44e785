//! One connection of a machine: from its hello to the answer. It asks once, for a first certificate with a token or for the
//! next one with the one that it has.
//!
//! Where the connection comes from, a port of its own or one that channels share, makes no difference: the TLS is that of
//! enrolment alone (no tickets, no early data, certificates only of nodes that renew), and so is the time that it may take.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::rustls::{ServerConfig, ServerConnection};
use tokio_rustls::server::TlsStream;

use super::registrar::{Registrar, Visit};
use super::renewing::RenewVisit;
use crate::base::{Secret, limits};
use crate::channel::{SharedTcp, TlsGreeting};
use crate::crypto::identity::{ALPN_ENROLL, PeerIdentity};
use crate::crypto::token::{ENROLL_EXPORTER_LABEL, TokenId};
use crate::node::{EnrolmentDoor, Served};
use crate::wire::{EnrollAnswer, EnrollRequest, RenewAnswer, RenewRequest};

/// What answers machines: a registrar behind TLS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Enrolment {
    tls: Arc<ServerConfig>,
    registrar: Arc<Registrar>,
}

impl Enrolment {
    /// Answers with what `registrar` decides, over
    /// [TLS of an enrolment point](crate::crypto::identity::TlsSettings::enroll_server_config).
    #[must_use]
    pub fn new(tls: Arc<ServerConfig>, registrar: Arc<Registrar>) -> Self {
        Self { tls, registrar }
    }

    pub(super) async fn visit(self, greeting: TlsGreeting) -> io::Result<()> {
        // One that offers others is told by TLS that they are not here; one that offers none could be meant for anything.
        if !greeting.offers_any() {
            return Err(not_negotiated());
        }
        let address = greeting.info().peer_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        serve(greeting, address, self.tls, self.registrar).await
    }
}

impl EnrolmentDoor for Enrolment {
    fn serve(&self, greeting: TlsGreeting) -> Served {
        Box::pin(self.clone().visit(greeting))
    }
}

async fn serve(
    greeting: TlsGreeting,
    address: IpAddr,
    tls: Arc<ServerConfig>,
    registrar: Arc<Registrar>,
) -> io::Result<()> {
    let arriving = async {
        let mut stream = greeting.accept_stream(tls).await?;
        if let Some(peer) = presented(&stream)? {
            let request = read(&mut stream, limits::CONTROL_MESSAGE_BYTES_MAX, RenewRequest::decode).await?;
            return Ok(Arrived::Node { stream, peer, request });
        }
        let request = read(&mut stream, limits::CONTROL_MESSAGE_BYTES_MAX, EnrollRequest::decode).await;
        Ok::<_, io::Error>(Arrived::Machine { stream, request })
    };
    let (mut stream, request) = match timeout(limits::ENROLL_TIMEOUT, arriving).await?? {
        Arrived::Machine { stream, request } => (stream, request),
        Arrived::Node { mut stream, peer, request } => {
            let deciding = tokio::task::spawn_blocking(move || renew(&registrar, &request, &peer, address));
            let answer = deciding.await.map_err(io::Error::other)?;
            return say(&mut stream, &answer.encode()).await;
        }
    };
    let exporter = request.as_ref().ok().map(|request| exporter(&stream, request)).transpose()?;
    let deciding =
        tokio::task::spawn_blocking(move || decide(&registrar, request.ok().zip(exporter).as_ref(), address));
    let answer = deciding.await.map_err(io::Error::other)?;
    say(&mut stream, &answer.encode()).await
}

/// Who asks, with what.
enum Arrived {
    /// With a token, or with something that is no request.
    Machine { stream: TlsStream<SharedTcp>, request: io::Result<EnrollRequest> },
    /// With a certificate.
    Node { stream: TlsStream<SharedTcp>, peer: PeerIdentity, request: RenewRequest },
}

async fn say(stream: &mut TlsStream<SharedTcp>, answer: &[u8]) -> io::Result<()> {
    let answering = async {
        stream.write_all(answer).await?;
        stream.shutdown().await
    };
    timeout(limits::ENROLL_TIMEOUT, answering).await?
}

/// The node whose certificate the connection was made with, if it was.
fn presented(stream: &TlsStream<SharedTcp>) -> io::Result<Option<PeerIdentity>> {
    let (_, state) = stream.get_ref();
    check_protocol(state)?;
    state.peer_certificates().map(PeerIdentity::from_chain).transpose().map_err(io::Error::other)
}

fn renew(registrar: &Registrar, request: &RenewRequest, peer: &PeerIdentity, address: IpAddr) -> RenewAnswer {
    let now = Instant::now();
    let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    registrar.renew(&RenewVisit { request, peer, address: Some(address), lifetime: None, now, now_unix })
}

/// TLS lets a client without any protocol name through.
fn check_protocol(state: &ServerConnection) -> io::Result<()> {
    if state.alpn_protocol() == Some(ALPN_ENROLL) { Ok(()) } else { Err(not_negotiated()) }
}

fn not_negotiated() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no enrolment protocol was negotiated")
}

fn decide(registrar: &Registrar, request: Option<&(EnrollRequest, Secret<32>)>, address: IpAddr) -> EnrollAnswer {
    let now = Instant::now();
    let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match request {
        Some((request, exporter)) => registrar.enroll(&Visit { request, exporter, address, now, now_unix }),
        None => registrar.refuse_unread(address, now, now_unix),
    }
}

/// What binds a proof to this connection.
fn exporter(stream: &TlsStream<SharedTcp>, request: &EnrollRequest) -> io::Result<Secret<32>> {
    let (_, state) = stream.get_ref();
    let context = TokenId::from_bytes(request.token_id).to_string();
    let exporter = state.export_keying_material([0; 32], ENROLL_EXPORTER_LABEL, Some(context.as_bytes()));
    exporter.map(Secret::new).map_err(io::Error::other)
}

/// Reads one message, which `decode` finds complete.
pub(super) async fn read<T, E: std::error::Error + Send + Sync + 'static>(
    stream: &mut (impl AsyncRead + Unpin),
    size_max: usize,
    decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E>,
) -> io::Result<T> {
    let mut buffer = Vec::with_capacity(size_max);
    loop {
        if let Some((message, _)) =
            decode(&buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
        {
            return Ok(message);
        }
        let room = size_max.saturating_sub(buffer.len());
        let count = stream.take(room as u64).read_buf(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
