//! The enrolment point: a listener of its own, on which each connection asks once.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, ServerConnection};
use tokio_rustls::server::TlsStream;

use super::registrar::{Registrar, Visit};
use super::renewing::RenewVisit;
use crate::base::{Secret, limits};
use crate::channel::{Accepted, Address, Io, ListenError, ListenOptions, Listener};
use crate::crypto::identity::{ALPN_ENROLL, PeerIdentity};
use crate::crypto::token::{ENROLL_EXPORTER_LABEL, TokenId};
use crate::wire::{EnrollAnswer, EnrollRequest, RenewAnswer, RenewRequest};

/// Takes requests until it is dropped.
#[derive(Debug)]
pub struct EnrollPoint {
    local: Address,
    registrar: Arc<Registrar>,
    task: JoinHandle<()>,
}

impl EnrollPoint {
    /// Listens at a `tls://` address. Who may connect is bounded as for channels.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(
        address: &Address,
        tls: Arc<ServerConfig>,
        registrar: Arc<Registrar>,
    ) -> Result<Self, ListenError> {
        let listener = Listener::bind(address, &ListenOptions::default()).await?;
        let local = listener.local_address().clone();
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&registrar)));
        Ok(Self { local, registrar, task })
    }

    /// Who judges what is asked there.
    #[must_use]
    pub fn registrar(&self) -> &Arc<Registrar> {
        &self.registrar
    }

    /// Where it listens; with the port that the system chose.
    #[must_use]
    pub fn local_address(&self) -> &Address {
        &self.local
    }
}

impl Drop for EnrollPoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(mut listener: Listener, tls: Arc<ServerConfig>, registrar: Arc<Registrar>) {
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                visits.spawn(visit(accepted, Arc::clone(&tls), Arc::clone(&registrar)));
            }
            Some(_) = visits.join_next() => {}
        }
    }
}

/// One connection, from its handshake to its answer.
async fn visit(accepted: Accepted, tls: Arc<ServerConfig>, registrar: Arc<Registrar>) {
    let Accepted { connection, permit, .. } = accepted;
    let peer = connection.info.peer.clone();
    let address = connection.info.peer_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let Io::Tcp(socket) = connection.io else { return };
    let Ok(socket) = Arc::try_unwrap(socket) else { return };
    if let Err(error) = serve(socket, address, tls, registrar).await {
        tracing::debug!(peer, %error, "enrolment connection ended");
    }
    drop(permit);
}

async fn serve(
    socket: TcpStream,
    address: IpAddr,
    tls: Arc<ServerConfig>,
    registrar: Arc<Registrar>,
) -> io::Result<()> {
    let arriving = async {
        let mut stream = TlsAcceptor::from(tls).accept(socket).await?;
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
    Machine { stream: TlsStream<TcpStream>, request: io::Result<EnrollRequest> },
    /// With a certificate.
    Node { stream: TlsStream<TcpStream>, peer: PeerIdentity, request: RenewRequest },
}

async fn say(stream: &mut TlsStream<TcpStream>, answer: &[u8]) -> io::Result<()> {
    let answering = async {
        stream.write_all(answer).await?;
        stream.shutdown().await
    };
    timeout(limits::ENROLL_TIMEOUT, answering).await?
}

/// The node whose certificate the connection was made with, if it was.
fn presented(stream: &TlsStream<TcpStream>) -> io::Result<Option<PeerIdentity>> {
    let (_, state) = stream.get_ref();
    check_protocol(state)?;
    state.peer_certificates().map(PeerIdentity::from_chain).transpose().map_err(io::Error::other)
}

fn renew(registrar: &Registrar, request: &RenewRequest, peer: &PeerIdentity, address: IpAddr) -> RenewAnswer {
    let now = Instant::now();
    let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    registrar.renew(&RenewVisit { request, peer, address: Some(address), lifetime: None, now, now_unix })
}

/// A client without any protocol name gets through the handshake.
fn check_protocol(state: &ServerConnection) -> io::Result<()> {
    if state.alpn_protocol() == Some(ALPN_ENROLL) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "no enrolment protocol was negotiated"))
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
fn exporter(stream: &TlsStream<TcpStream>, request: &EnrollRequest) -> io::Result<Secret<32>> {
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
