//! A forward: a local address that leads to a service of a peer.
//!
//! A client's connection, the request and the first bytes that the client has sent travel together: the first answer
//! takes one round trip.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use super::connections::{ConnectionGuard, Connections};
use super::copy::{Copier, End, with_scratch};
use super::counters::Counters;
use super::datagrams::{DatagramForward, DatagramOptions};
use super::endpoint::Endpoint;
use super::logged::LogLimit;
use super::peers::Peers;
use super::proxy_protocol::ProxyHeader;
use super::refusal::Refusal;
use super::request::read_proxy_header;
use super::socket::{Socket, local_tcp_options};
use super::throttle::{Pace, Throttle, Way};
use crate::channel::{Accepted, AdmissionLimits, ListenError, ListenOptions, Listener, UnixOptions};
use crate::crypto::identity::NodeId;
use crate::node::{Bandwidth, NodeEvent, Priority, RecvStream, SendStream};
use crate::wire::ServiceRequest;

/// What a forward leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardConfig {
    /// Where applications connect, TCP or a Unix socket, or where they send datagrams, UDP.
    pub listen: Endpoint,
    /// Options of the Unix socket, if it is one.
    pub unix: UnixOptions,
    /// Whose service.
    pub peer: NodeId,
    /// Which service.
    pub service: String,
    /// Whether connections begin with a PROXY protocol header, as behind a load balancer. Whoever can connect can then
    /// say who the client is.
    pub accepts_proxy_protocol: bool,
    /// Connections at once. Further ones are closed.
    pub connections_max: u32,
    /// Bytes of its connections or flows, in each direction.
    pub bandwidth_limit: Option<Bandwidth>,
    /// How datagrams are treated, if it has them.
    pub datagrams: DatagramOptions,
    /// Whether its requests may happen twice without harm, so that they may leave as early data.
    pub replay_safe: bool,
    /// How urgent its requests are.
    pub priority: Priority,
    /// How long a client waits for a session with the peer.
    pub session_timeout: Duration,
}

impl ForwardConfig {
    /// A forward with everything else as usual.
    #[must_use]
    pub fn new(listen: impl Into<Endpoint>, peer: NodeId, service: &str) -> Self {
        Self {
            listen: listen.into(),
            unix: UnixOptions::default(),
            peer,
            service: service.to_owned(),
            accepts_proxy_protocol: false,
            connections_max: CONNECTIONS_MAX,
            bandwidth_limit: None,
            datagrams: DatagramOptions::default(),
            replay_safe: false,
            priority: Priority::default(),
            session_timeout: SESSION_TIMEOUT,
        }
    }
}

/// A forward that listens. It stops when it is dropped; connections that are open go on.
#[derive(Debug)]
pub struct Forward {
    address: Endpoint,
    shared: Arc<Shared>,
    listening: std::sync::Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    config: RwLock<Arc<ForwardConfig>>,
    pub(super) peers: Peers,
    pub(super) counters: Arc<Counters>,
    pub(super) connections: Connections,
    pub(super) throttle: Arc<Throttle>,
    log: LogLimit,
}

impl Forward {
    /// Listens, and leads each connection to the peer's service.
    ///
    /// # Errors
    /// [`ListenError`] when the address cannot be listened on.
    pub async fn start(config: ForwardConfig, peers: Peers) -> Result<Self, ListenError> {
        let throttle = Throttle::new(config.bandwidth_limit);
        let shared = Arc::new(Shared {
            config: RwLock::new(Arc::new(config)),
            peers,
            counters: Arc::default(),
            connections: Connections::new(),
            throttle,
            log: LogLimit::new(),
        });
        let config = shared.config();
        let (address, task) = match &config.listen {
            Endpoint::Stream(address) => {
                let unix = config.unix.clone();
                let (tcp, admission) = (local_tcp_options(), unlimited_admission());
                let options = ListenOptions { tcp, unix, admission, ..ListenOptions::default() };
                let listener = Listener::bind(address, &options).await?;
                let address = listener.local_address().clone();
                (address.into(), tokio::spawn(Arc::clone(&shared).listen(listener)))
            }
            Endpoint::Datagrams(address) => {
                let (forward, address) = DatagramForward::bind(address, Arc::clone(&shared)).await?;
                (address.into(), tokio::spawn(forward.listen()))
            }
        };
        Ok(Self { address, shared, listening: std::sync::Mutex::new(Some(task)) })
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn local_address(&self) -> &Endpoint {
        &self.address
    }

    /// What it leads to.
    #[must_use]
    pub fn config(&self) -> Arc<ForwardConfig> {
        self.shared.config()
    }

    /// Leads further connections and flows as `config` says; those that are open go on as they are. Where it listens, and
    /// the options of its Unix socket, stay. A bandwidth limit holds for those that are open, too.
    pub fn reconfigure(&self, config: ForwardConfig) {
        self.shared.throttle.set(config.bandwidth_limit);
        *self.shared.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// What it counted.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// How long connections waited for the bandwidth limit, all together: towards the peer, and from it.
    #[must_use]
    pub fn throttled(&self) -> [Duration; 2] {
        [Way::ToPeer, Way::FromPeer].map(|way| self.shared.throttle.waited(way))
    }

    /// Connections or flows that are open, those that wait for a session included.
    #[must_use]
    pub fn open_connections(&self) -> u32 {
        self.shared.connections.open()
    }

    /// Stops listening: when it returns, the address is free. Connections that are open go on; flows of datagrams end, as
    /// they have no end of their own.
    pub async fn stop(&self) {
        let task = self.take_task();
        if let Some(task) = task {
            task.abort();
            // Aborted: there is no other outcome.
            let _ = task.await;
        }
    }

    /// Waits until no connection is open.
    pub async fn ended(&self) {
        self.shared.connections.ended().await;
    }

    fn take_task(&self) -> Option<JoinHandle<()>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if let Some(task) = self.take_task() {
            task.abort();
        }
    }
}

impl Shared {
    /// What holds for the next connection or flow.
    pub(super) fn config(&self) -> Arc<ForwardConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn listen(self: Arc<Self>, mut listener: Listener) {
        loop {
            let Accepted { connection, permit, .. } = listener.accept().await;
            drop(permit);
            let Some(socket) = Socket::from_connection(connection) else { continue };
            match self.connections.begin(self.config().connections_max) {
                Some(guard) => drop(tokio::spawn(Arc::clone(&self).carry(socket, guard))),
                None => self.refuse(&socket, Refusal::TooManyConnections),
            }
        }
    }

    async fn carry(self: Arc<Self>, mut socket: Socket, _guard: ConnectionGuard) {
        let begun = Instant::now();
        // Boxed: what is needed to get here is given back before the connection is carried.
        let (first, send, recv) = match Box::pin(self.open(&mut socket)).await {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse(&socket, refusal),
        };
        self.counters.on_connection();
        let mut copier =
            Copier::new(socket, send, recv, Arc::clone(&self.counters), Pace::new(Arc::clone(&self.throttle)));
        copier.begin_upload_with(first);
        if self.peers.is_observed() {
            copier.on_first_download(Arc::clone(&self).first_byte_teller(begun));
        }
        match copier.run().await {
            End::Complete => {}
            End::Reset(code) if let Some(refusal) = Refusal::from_code(code) => self.on_refused(refusal),
            end => {
                let config = self.config();
                let ForwardConfig { service, peer, .. } = &*config;
                tracing::debug!(service, %peer, reason = %end, "connection broke off");
            }
        }
    }

    /// Tells how long the first byte of an answer took.
    fn first_byte_teller(self: Arc<Self>, begun: Instant) -> Box<dyn FnOnce() + Send> {
        Box::new(move || {
            let config = self.config();
            let ForwardConfig { service, peer, .. } = &*config;
            self.peers.report(&NodeEvent::FirstByte { peer, service, time: begun.elapsed() });
        })
    }

    /// Opens a stream for a client: it, and its first bytes.
    async fn open(&self, socket: &mut Socket) -> Result<(Bytes, SendStream, RecvStream), Refusal> {
        let config = self.config();
        let (mut source, mut destination) = socket.addresses();
        let mut data = BytesMut::new();
        if config.accepts_proxy_protocol {
            let header = tokio::time::timeout(PROXY_HEADER_TIMEOUT, read_proxy_header(socket, &mut data)).await;
            if let ProxyHeader::Tcp { source: from, destination: to } = header.unwrap_or(Err(Refusal::BadRequest))? {
                (source, destination) = (Some(from), Some(to));
            }
        }
        let begun = Instant::now();
        let trace = self.peers.begin_trace();
        let ForwardConfig { peer, priority, replay_safe, .. } = &*config;
        let opening = async {
            if *replay_safe {
                self.peers.open_replay_safe(peer, *priority).await
            } else {
                self.peers.open(peer, *priority).await
            }
        };
        let opened = tokio::time::timeout(config.session_timeout, opening).await;
        self.peers.report(&NodeEvent::StreamOpened { peer, time: begun.elapsed(), is_open: opened.is_ok(), trace });
        let (send, recv) = opened.map_err(|_| Refusal::NoSession)?;
        if let Some(traceparent) = &trace {
            tracing::debug!(service = config.service, %peer, %traceparent, "stream opened");
        }
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
        let service = config.service.clone();
        let (source, destination) = (text(source), text(destination));
        let request = ServiceRequest { service, source, destination, datagrams: false, trace };
        let mut first = BytesMut::from(&request.encode()[..]);
        first.extend_from_slice(&data);
        self.counters.on_to_peer(data.len());
        with_scratch(|scratch| match socket.read_now(scratch) {
            Ok(count) => {
                self.counters.on_to_peer(count);
                first.extend_from_slice(&scratch[..count]);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Refusal::BadRequest),
        })?;
        Ok((first.freeze(), send, recv))
    }

    /// Closes the connection of a client at once.
    fn refuse(&self, socket: &Socket, refusal: Refusal) {
        socket.reset_on_close();
        self.on_refused(refusal);
    }

    pub(super) fn on_refused(&self, refusal: Refusal) {
        self.counters.on_refused(refusal);
        if let Some(suppressed) = self.log.take(Instant::now()) {
            let config = self.config();
            let ForwardConfig { service, peer, .. } = &*config;
            tracing::warn!(service, %peer, reason = %refusal, suppressed, "connection refused");
        }
    }
}

/// Local clients are bounded by how many are connected at once.
fn unlimited_admission() -> AdmissionLimits {
    AdmissionLimits {
        pending_max: None,
        pending_per_source_max: None,
        rate_per_source: None,
        ..AdmissionLimits::default()
    }
}

/// As many as a peer's service takes without being asked for more.
const CONNECTIONS_MAX: u32 = 1024;

/// Long enough for a link to come up again, short enough for clients that would try another way.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// A load balancer sends its header with the connection.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
