//! Accepting channels. The loop does not end on an error: it pauses where the system is out of something and goes on.
//!
//! Admission comes before anything else, and who is refused is closed at once. Handshakes are the business of the
//! caller, which holds the permit until they have finished.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixStream, lookup_host};

use super::address::{Address, ChannelKind};
use super::admission::AdmissionLimits;
use super::connection::Connection;
use super::gate::{Gate, GateCounters, Permit, increment};
use super::inherited;
use super::listen_error::ListenError;
use super::listen_unix::{BoundUnix, PeerCredentials, UnixOptions};
use super::options::TcpOptions;
use super::quic::QuicOptions;
use crate::base::TokenBucket;

/// How channels are accepted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenOptions {
    /// Options of TCP sockets.
    pub tcp: TcpOptions,
    /// Options of Unix sockets.
    pub unix: UnixOptions,
    /// Options of QUIC channels.
    pub quic: QuicOptions,
    /// Bounds on handshakes.
    pub admission: AdmissionLimits,
    /// Whether clients that come back may send early data (0-RTT). The channel leaves that to what is above it.
    pub early_data: bool,
    /// Takes peers without a certificate, if the node has somebody to judge their tokens.
    pub takes_guests: bool,
    /// Takes machines that ask for a certificate, at `tcp://` and `tls://` addresses, if the node has somebody to answer them.
    pub enrolls: bool,
}

/// Accepts channels at one address.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    options: ListenOptions,
    gate: Gate,
    local: Address,
    log: TokenBucket,
    #[cfg(test)]
    scripted_errors: std::collections::VecDeque<io::Error>,
}

/// A channel that was accepted and admitted.
#[derive(Debug)]
pub struct Accepted {
    /// The channel. At a `tls://` address it is TCP yet, for [`accept_tls`](super::accept_tls).
    pub connection: Connection,
    /// To be dropped when the handshake has finished.
    pub permit: Permit,
    /// Who is at the other end of a Unix socket.
    pub credentials: Option<PeerCredentials>,
}

impl Listener {
    /// Listens at an address, with a gate of its own. [`QuicListener`](super::QuicListener) listens at `quic://` ones.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub async fn bind(address: &Address, options: &ListenOptions) -> Result<Self, ListenError> {
        Self::bind_with_gate(address, options, Gate::new(options.admission.clone())).await
    }

    /// Listens at an address, with the limits of a gate that other listeners share.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub async fn bind_with_gate(address: &Address, options: &ListenOptions, gate: Gate) -> Result<Self, ListenError> {
        let (endpoint, local) = match address {
            Address::Tcp { host, port } | Address::Tls { host, port } => {
                let listener = bind_tcp(address, host, *port, &options.tcp).await?;
                let local = listener
                    .local_addr()
                    .map_err(|source| ListenError::Bind { address: address.to_string(), source })?;
                (Endpoint::Tcp(listener, address.kind()), address.at(local))
            }
            Address::Quic { .. } => {
                let text = "QUIC channels are accepted with their TLS settings";
                let source = io::Error::new(io::ErrorKind::InvalidInput, text);
                return Err(ListenError::Bind { address: address.to_string(), source });
            }
            Address::Unix { path } => {
                let bound = BoundUnix::bind(path, &options.unix, options.tcp.backlog).await?;
                (Endpoint::Unix(bound), address.clone())
            }
        };
        Ok(Self {
            endpoint,
            options: options.clone(),
            gate,
            local,
            log: TokenBucket::new(LOG_PER_SECOND, LOG_BURST),
            #[cfg(test)]
            scripted_errors: std::collections::VecDeque::new(),
        })
    }

    /// The next channel that is admitted. Waits through errors, refusals and shortages. Cancel safe.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            match self.accept_raw().await {
                Ok(raw) => {
                    if let Some(accepted) = self.admit(raw) {
                        return accepted;
                    }
                }
                Err(error) => {
                    increment(&self.gate.counters().accept_errors);
                    let pause = needs_pause(&error);
                    if self.log.take(Instant::now()) {
                        tracing::warn!(address = %self.local, %error, pause, "accept failed");
                    }
                    if pause {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Where it listens; with the port that the system chose.
    #[must_use]
    pub fn local_address(&self) -> &Address {
        &self.local
    }

    /// What was admitted and refused.
    #[must_use]
    pub fn counters(&self) -> &GateCounters {
        self.gate.counters()
    }

    /// The gate, to share it with another listener.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    async fn accept_raw(&mut self) -> io::Result<Raw> {
        #[cfg(test)]
        if let Some(error) = self.scripted_errors.pop_front() {
            return Err(error);
        }
        match &self.endpoint {
            Endpoint::Tcp(listener, kind) => {
                listener.accept().await.map(|(stream, peer)| Raw::Tcp(stream, peer, *kind))
            }
            Endpoint::Unix(bound) => bound.listener.accept().await.map(|(stream, _)| Raw::Unix(stream)),
        }
    }

    fn admit(&mut self, raw: Raw) -> Option<Accepted> {
        match raw {
            Raw::Tcp(stream, peer, kind) => self.admit_tcp(stream, peer, kind),
            Raw::Unix(stream) => self.admit_unix(stream),
        }
    }

    fn admit_tcp(&mut self, stream: TcpStream, peer: SocketAddr, kind: ChannelKind) -> Option<Accepted> {
        let permit = match self.gate.admit(Some(peer.ip()), Instant::now()) {
            Ok(permit) => permit,
            Err(refusal) => {
                // A reset: what is refused leaves no state behind in the kernel.
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                self.log_refusal(&peer.to_string(), &refusal);
                return None;
            }
        };
        if let Err(error) = self.options.tcp.apply(&SockRef::from(&stream), Some(peer.ip())) {
            self.log_failure(&peer.to_string(), &error);
            return None;
        }
        match Connection::tcp(stream, kind, self.options.tcp.notsent_lowat) {
            Ok(connection) => Some(Accepted { connection, permit, credentials: None }),
            Err(error) => {
                self.log_failure(&peer.to_string(), &error);
                None
            }
        }
    }

    fn admit_unix(&mut self, stream: UnixStream) -> Option<Accepted> {
        let permit = match self.gate.admit(None, Instant::now()) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.log_refusal("unix:", &refusal);
                return None;
            }
        };
        let credentials = match PeerCredentials::of(&stream) {
            Ok(credentials) => credentials,
            Err(error) => {
                self.log_failure("unix:", &error);
                return None;
            }
        };
        let peer = peer_name(credentials);
        if !self.options.unix.allows(credentials) {
            increment(&self.gate.counters().refused_credentials);
            self.log_refusal(&peer, &"its user and group are not allowed");
            return None;
        }
        let connection = Connection::unix(stream, self.local.to_string(), peer);
        Some(Accepted { connection, permit, credentials: Some(credentials) })
    }

    fn log_refusal(&mut self, peer: &str, reason: &dyn std::fmt::Display) {
        if self.log.take(Instant::now()) {
            tracing::warn!(address = %self.local, peer, %reason, "connection refused");
        }
    }

    fn log_failure(&mut self, peer: &str, error: &dyn std::fmt::Display) {
        increment(&self.gate.counters().accept_errors);
        if self.log.take(Instant::now()) {
            tracing::debug!(address = %self.local, peer, %error, "accepted connection failed");
        }
    }
}

#[derive(Debug)]
enum Endpoint {
    Tcp(TcpListener, ChannelKind),
    Unix(BoundUnix),
}

enum Raw {
    Tcp(TcpStream, SocketAddr, ChannelKind),
    Unix(UnixStream),
}

fn peer_name(credentials: PeerCredentials) -> String {
    let PeerCredentials { uid, gid, pid } = credentials;
    pid.map_or_else(|| format!("unix:uid={uid},gid={gid}"), |pid| format!("unix:uid={uid},gid={gid},pid={pid}"))
}

/// Binds to the first address of the name that lets itself be bound.
async fn bind_tcp(address: &Address, host: &str, port: u16, options: &TcpOptions) -> Result<TcpListener, ListenError> {
    let resolve_error = |source| ListenError::Resolve { address: address.to_string(), source };
    let candidates: Vec<_> = lookup_host((host, port)).await.map_err(resolve_error)?.collect();
    if let Some(socket) = candidates.iter().find_map(|candidate| inherited::tcp_at(*candidate)) {
        return take_tcp(address, socket, options);
    }
    let mut outcome = Err(resolve_error(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    for candidate in candidates {
        outcome = bind_tcp_at(address, candidate, options);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn bind_tcp_at(address: &Address, candidate: SocketAddr, options: &TcpOptions) -> Result<TcpListener, ListenError> {
    let bind_error = |source| ListenError::Bind { address: address.to_string(), source };
    let socket = Socket::new(Domain::for_address(candidate), Type::STREAM, None).map_err(bind_error)?;
    options.apply(&socket, None).map_err(|source| ListenError::Options { address: address.to_string(), source })?;
    let bind = || -> io::Result<()> {
        socket.set_reuse_address(true)?;
        if candidate.ip().is_unspecified() && candidate.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&candidate.into())?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        socket.set_nonblocking(true)?;
        Ok(())
    };
    bind().map_err(bind_error)?;
    TcpListener::from_std(socket.into()).map_err(bind_error)
}

/// Listens on what the service manager bound, whose backlog it chose.
fn take_tcp(address: &Address, socket: io::Result<Socket>, options: &TcpOptions) -> Result<TcpListener, ListenError> {
    let bind_error = |source| ListenError::Bind { address: address.to_string(), source };
    let socket = socket.map_err(bind_error)?;
    options.apply(&socket, None).map_err(|source| ListenError::Options { address: address.to_string(), source })?;
    TcpListener::from_std(socket.into()).map_err(bind_error)
}

/// Whether accepting again at once would fail again. The errors that need no pause belong to the one connection that
/// was to be accepted (accept(2), "Error handling").
fn needs_pause(error: &io::Error) -> bool {
    let of_the_connection = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::INTR,
        Errno::PROTO,
        Errno::PERM,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
    ];
    !Errno::from_io_error(error).is_some_and(|errno| of_the_connection.contains(&errno))
}

/// While the system is out of descriptors or memory; others give some back meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Log lines of one listener about what it did not accept.
const LOG_PER_SECOND: u32 = 1;

/// Burst of the rate above.
const LOG_BURST: u32 = 10;

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use bytes::BytesMut;

    use super::*;
    use crate::channel::{DialOptions, SourceRate, dial};

    fn tcp(host: &str) -> Address {
        Address::Tcp { host: host.to_owned(), port: 0 }
    }

    /// Dials the listener and says one thing through what it accepts.
    async fn greet(listener: &mut Listener) -> Accepted {
        let address = listener.local_address().clone();
        let options = DialOptions::default();
        let (dialled, accepted) = tokio::join!(dial(&address, &options), listener.accept());
        let (_read, mut write) = dialled.unwrap().io.split();
        let (mut read, _write) = accepted.connection.io.clone().split();
        write.write_all(b"hello").await.unwrap();
        let mut buffer = BytesMut::with_capacity(16);
        assert_eq!(read.read(&mut buffer).await.unwrap(), 5);
        accepted
    }

    async fn counted(counter: &std::sync::atomic::AtomicU64) {
        while counter.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn errors_of_accepting_do_not_end_the_loop() {
        let mut listener = Listener::bind(&tcp("127.0.0.1"), &ListenOptions::default()).await.unwrap();
        for errno in [Errno::MFILE, Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::CONNABORTED] {
            listener.scripted_errors.push_back(errno.into());
        }
        greet(&mut listener).await;
        assert!(listener.scripted_errors.is_empty());
        assert_eq!(listener.counters().accept_errors.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn shortages_pause_and_broken_connections_do_not() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::INVAL] {
            assert!(needs_pause(&errno.into()), "{errno}");
        }
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::HOSTUNREACH] {
            assert!(!needs_pause(&errno.into()), "{errno}");
        }
    }

    #[tokio::test]
    async fn the_unspecified_v6_address_takes_both_families() {
        let Ok(mut listener) = Listener::bind(&tcp("::"), &ListenOptions::default()).await else {
            return; // a host without IPv6
        };
        let Address::Tcp { port, .. } = *listener.local_address() else { panic!("tcp") };
        listener.local = Address::Tcp { host: "127.0.0.1".to_owned(), port };
        let accepted = greet(&mut listener).await;
        assert_eq!(accepted.connection.info.peer_ip, Some("127.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn accepted_sockets_have_the_options() {
        let mut listener = Listener::bind(&tcp("127.0.0.1"), &ListenOptions::default()).await.unwrap();
        let accepted = greet(&mut listener).await;
        let crate::channel::Io::Tcp(stream) = &accepted.connection.io else { panic!("tcp") };
        assert!(stream.nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(SockRef::from(&***stream).tcp_user_timeout().unwrap(), listener.options.tcp.user_timeout);
    }

    #[tokio::test]
    async fn who_is_not_admitted_is_closed_and_counted_and_the_next_one_gets_in() {
        let admission = AdmissionLimits {
            rate_per_source: Some(SourceRate { per_second: 1, burst: 1000 }),
            pending_per_source_max: Some(1),
            loopback_exempt: false,
            ..AdmissionLimits::default()
        };
        let options = ListenOptions { admission, ..ListenOptions::default() };
        let mut listener = Listener::bind(&tcp("127.0.0.1"), &options).await.unwrap();
        let first = greet(&mut listener).await;
        let gate = listener.gate().clone();
        let address = listener.local_address().clone();
        // The reset may come before the dial has finished.
        let refused = async {
            let Ok(connection) = dial(&address, &DialOptions::default()).await else { return };
            let (mut read, _write) = connection.io.split();
            let error = read.read(&mut BytesMut::with_capacity(1)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        };
        tokio::join!(refused, async {
            tokio::select! {
                _ = listener.accept() => panic!("the second one is to be refused"),
                () = counted(&gate.counters().refused_pending_of_source) => {}
            }
        });
        drop(first.permit);
        greet(&mut listener).await;
    }

    #[tokio::test]
    async fn a_unix_peer_is_known_by_its_credentials() {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::Unix { path: directory.path().join("node.sock") };
        let mut listener = Listener::bind(&address, &ListenOptions::default()).await.unwrap();
        let accepted = greet(&mut listener).await;
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(accepted.credentials.unwrap().uid, uid);
        assert_eq!(accepted.connection.info.kind, ChannelKind::Unix);

        listener.options.unix.allow_uids = vec![uid];
        greet(&mut listener).await;
    }

    #[tokio::test]
    async fn a_unix_peer_that_is_not_on_the_list_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::Unix { path: directory.path().join("node.sock") };
        let stranger = rustix::process::geteuid().as_raw() + 1;
        let unix = UnixOptions { allow_uids: vec![stranger], ..UnixOptions::default() };
        let options = ListenOptions { unix, ..ListenOptions::default() };
        let mut listener = Listener::bind(&address, &options).await.unwrap();
        let refused = async {
            let (mut read, _write) = dial(&address, &DialOptions::default()).await.unwrap().io.split();
            read.read(&mut BytesMut::with_capacity(1)).await
        };
        tokio::select! {
            outcome = refused => assert_eq!(outcome.unwrap(), 0),
            _ = listener.accept() => panic!("the stranger is to be refused"),
        }
        assert_eq!(listener.counters().refused_credentials.load(Ordering::Relaxed), 1);
        assert_eq!(listener.gate().pending(), 0);
    }
}
