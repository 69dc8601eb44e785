//! The services of a node: takes the streams that peers open, and leads each to its target.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::bench;
use super::connections::{ConnectionGuard, Connections, PeerConnections, PeerGuard};
use super::copy::{Copier, End};
use super::counters::ServicesCounters;
use super::datagrams;
use super::denylists::Denylists;
use super::logged::LogLimit;
use super::peers::Peers;
use super::refusal::Refusal;
use super::request::read_request;
use super::target::{Connected, Held, Service, ServiceConfig};
use super::targets::{Checks, Strategy};
use crate::crypto::identity::{NodeId, PeerIdentity};
use crate::node::{DatagramFlow, NodeEvent, RecvStream, SendStream, Session, SessionError};
use crate::wire::{DENYLIST_SERVICE, ServiceRequest};

/// What peers may reach at this node. Clones are the same.
#[derive(Clone, Debug)]
pub struct Services(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    services: RwLock<HashMap<String, Arc<Service>>>,
    counters: ServicesCounters,
    /// Streams that are answered or carried.
    running: Connections,
    /// Connections and flows of each peer, over all services, and how many there may be.
    of_peers: PeerConnections,
    of_peer_max: AtomicU32,
    is_closed: AtomicBool,
    /// Flows of datagrams end when it turns: they have no end of their own.
    closing: watch::Sender<bool>,
    /// Changes when the services do: connections then ask whether they are allowed still.
    replaced: watch::Sender<()>,
    log: LogLimit,
    /// Takes the denylists that peers send.
    denylists: OnceLock<Denylists>,
    /// Once the services are in use.
    checks: Mutex<Option<Checks>>,
    /// Tells the node's observer.
    peers: OnceLock<Peers>,
}

impl Services {
    /// Offers services; of several with one name the last one counts.
    #[must_use]
    pub fn new(configs: impl IntoIterator<Item = ServiceConfig>) -> Self {
        let shared = Shared {
            services: RwLock::default(),
            counters: ServicesCounters::default(),
            running: Connections::new(),
            of_peers: PeerConnections::default(),
            of_peer_max: AtomicU32::new(u32::MAX),
            is_closed: AtomicBool::new(false),
            closing: watch::Sender::new(false),
            replaced: watch::Sender::new(()),
            log: LogLimit::new(),
            denylists: OnceLock::new(),
            checks: Mutex::default(),
            peers: OnceLock::new(),
        };
        let services = Self(Arc::new(shared));
        services.replace(configs);
        services
    }

    /// Offers these services from now on, and no others. Connections that are open go on, those of removed services
    /// included; where a service does not allow their peer any more they are reset.
    pub fn replace(&self, configs: impl IntoIterator<Item = ServiceConfig>) {
        let mut services = self.0.services.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *services);
        for config in configs {
            let name = config.name.clone();
            let service = match before.get(&name) {
                Some(known) => known.reconfigured(config),
                None => Service::new(config),
            };
            services.insert(name, Arc::new(service));
        }
        drop(services);
        self.0.follow_checks();
        self.0.replaced.send_replace(());
    }

    /// Lets each peer have so many connections and flows at once, over all services. Those that are open go on.
    pub fn set_connections_per_peer_max(&self, max: u32) {
        self.0.of_peer_max.store(max, Ordering::Relaxed);
    }

    /// Checks the health of targets from now on, where that is configured, until [`stop_checks`](Self::stop_checks).
    pub(super) fn start_checks(&self) {
        self.0.lock_checks().get_or_insert_default();
        self.0.follow_checks();
    }

    /// Checks nothing any more.
    pub(super) fn stop_checks(&self) {
        *self.0.lock_checks() = None;
    }

    /// Takes denylists from peers; before, they are refused as unknown services are.
    pub(super) fn set_denylists(&self, denylists: Denylists) {
        // A second gateway with the same services has a node of its own, and is not told.
        let _ = self.0.denylists.set(denylists);
    }

    /// Has the observer of the node hear what becomes of requests.
    pub(super) fn set_peers(&self, peers: Peers) {
        // As with denylists.
        let _ = self.0.peers.set(peers);
    }

    /// The service of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Service>> {
        self.0.services.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All services, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Service>> {
        self.0.services.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Counters of requests that led to no service.
    #[must_use]
    pub fn counters(&self) -> &ServicesCounters {
        &self.0.counters
    }

    /// Streams that are answered or carried now.
    #[must_use]
    pub fn open_connections(&self) -> u32 {
        self.0.running.open()
    }

    /// Takes the streams of a session until it is over, and says why it is.
    pub async fn serve(&self, session: Session) -> SessionError {
        let peer = Arc::new(session.peer().clone());
        loop {
            match session.accept_bi().await {
                Ok((send, recv)) => {
                    let Some(guard) = self.0.running.begin(u32::MAX) else { continue };
                    tokio::spawn(Arc::clone(&self.0).answer(Arc::clone(&peer), send, recv, guard));
                }
                Err(error) => return error,
            }
        }
    }

    /// Refuses all further streams; those that are carried go on, without flows of datagrams.
    pub fn close(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.0.closing.send_replace(true);
        self.stop_checks();
    }

    /// Waits until no stream is answered or carried.
    pub async fn ended(&self) {
        self.0.running.ended().await;
    }
}

/// A stream that leads to its target.
struct Prepared {
    service: Arc<Service>,
    target: Connected,
    /// What counts against the limit of the service, and of the peer over all services.
    held: (Held, PeerGuard),
    request: ServiceRequest,
    first: Bytes,
}

impl Shared {
    async fn answer(
        self: Arc<Self>,
        identity: Arc<PeerIdentity>,
        mut send: SendStream,
        mut recv: RecvStream,
        _: ConnectionGuard,
    ) {
        let peer = &identity.node_id;
        // Boxed: what is needed to get here is given back before the connection is carried.
        let prepared = match Box::pin(self.prepare(&identity, &mut recv)).await {
            Ok(Some(prepared)) => prepared,
            // It was for the node itself, which has it.
            Ok(None) => return drop(send.finish()),
            Err((refusal, service)) => {
                self.count(refusal);
                send.reset(refusal.code());
                recv.stop(refusal.code());
                if let Some(suppressed) = self.log.take(Instant::now()) {
                    tracing::warn!(service, %peer, reason = %refusal, suppressed, "stream refused");
                }
                return;
            }
        };
        let Prepared { service, target, held, request, first } = prepared;
        send.set_priority(service.config().priority);
        service.counters().on_connection();
        let forbidden = Box::pin(self.no_longer_allowed(&service.config().name, &identity));
        let socket = match target {
            Connected::Stream(socket) => socket,
            Connected::Datagrams(socket) => {
                drop((request, first));
                let flow = DatagramFlow::new(send, recv);
                tokio::select! {
                    () = self.carry_datagrams(&service, peer, flow, socket) => {}
                    () = forbidden => {}
                }
                return;
            }
            Connected::Bench => {
                tokio::select! {
                    outcome = bench::serve_stream(send, recv, first) => if let Err(error) = outcome {
                        tracing::debug!(service = %service.config().name, %peer, %error, "benchmark broke off");
                    },
                    () = forbidden => {}
                }
                return;
            }
        };
        let mut copier = Copier::new(socket, send, recv, Arc::clone(service.counters()), service.pace());
        if let Some(greeting) = service.greeting(&request) {
            copier.begin_download_with(greeting.into());
        }
        copier.begin_download_with(first);
        if service.config().balance.strategy == Strategy::ResponseTime {
            copier.on_answer(held.0.lease.answer_teller());
        }
        drop(request);
        let end = tokio::select! {
            end = copier.run() => Some(end),
            () = forbidden => None,
        };
        let end = end.unwrap_or_else(|| copier.break_off(Refusal::NotAllowed.code()));
        drop((copier, held));
        if !matches!(end, End::Complete) {
            tracing::debug!(service = %service.config().name, %peer, reason = %end, "connection broke off");
        }
    }

    /// Waits until the services change such that a peer may not use one any more.
    async fn no_longer_allowed(&self, service: &str, peer: &PeerIdentity) {
        let mut replaced = self.replaced.subscribe();
        let is_allowed = || {
            let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
            services.get(service).is_none_or(|service| service.config().allow.allows(peer))
        };
        while is_allowed() {
            // The sender lives in `self`, so that the wait cannot fail.
            let _ = replaced.changed().await;
        }
        tracing::info!(service, peer = %peer.node_id, "connection is not allowed any more");
    }

    async fn carry_datagrams(&self, service: &Service, peer: &NodeId, flow: DatagramFlow, socket: UdpSocket) {
        let mut closing = self.closing.subscribe();
        let options = &service.config().datagrams;
        let outcome = tokio::select! {
            outcome = datagrams::carry(flow, socket, options, service.counters(), service.throttle()) => outcome,
            // The sender lives in `self`, so that the wait cannot fail.
            _ = closing.wait_for(|closing| *closing) => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::debug!(service = %service.config().name, %peer, %error, "flow broke off");
        }
    }

    /// Reads the request, and connects to the target that it asks for. An error comes with the service's name.
    async fn prepare(&self, peer: &PeerIdentity, recv: &mut RecvStream) -> Result<Option<Prepared>, (Refusal, String)> {
        let nameless = |refusal| (refusal, String::new());
        if self.is_closed.load(Ordering::Acquire) {
            return Err(nameless(Refusal::ShuttingDown));
        }
        let request = tokio::time::timeout(REQUEST_TIMEOUT, read_request(recv)).await;
        let (request, first) = request.unwrap_or(Err(Refusal::BadRequest)).map_err(nameless)?;
        if let (DENYLIST_SERVICE, Some(denylists)) = (request.service.as_str(), self.denylists.get()) {
            denylists.receive(&peer.node_id, recv, first).await;
            return Ok(None);
        }
        let service = self.services.read().unwrap_or_else(PoisonError::into_inner).get(&request.service).cloned();
        let Some(service) = service else { return Err((Refusal::UnknownService, request.service)) };
        if !service.config().replay_safe && recv.authenticated().await.is_err() {
            return Err((Refusal::BadRequest, request.service));
        }
        let begun = Instant::now();
        let of_peer = self.of_peers.begin(&peer.node_id, self.of_peer_max.load(Ordering::Relaxed));
        let connected = match of_peer {
            Some(of_peer) => service.connect(peer, &request).await.map(|connected| (connected, of_peer)),
            None => Err(Refusal::TooManyOfPeer),
        };
        if let (Some(trace), Some(peers)) = (request.trace, self.peers.get()) {
            let (time, error) = (begun.elapsed(), connected.as_ref().err().map(ToString::to_string));
            let (peer, service) = (&peer.node_id, request.service.as_str());
            tracing::debug!(service, %peer, traceparent = %trace, error, "target asked for");
            peers.report(&NodeEvent::ServiceConnected { peer, service, time, trace, error });
        }
        match connected {
            Ok(((target, held), of_peer)) => {
                Ok(Some(Prepared { service, target, held: (held, of_peer), request, first }))
            }
            Err(refusal) => {
                service.counters().on_refused(refusal);
                Err((refusal, request.service))
            }
        }
    }

    /// Checks the targets of the services as they are now, if targets are checked at all.
    fn follow_checks(&self) {
        let mut checks = self.lock_checks();
        if let Some(checks) = checks.as_mut() {
            checks.follow(self.services.read().unwrap_or_else(PoisonError::into_inner).values());
        }
    }

    fn lock_checks(&self) -> MutexGuard<'_, Option<Checks>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what no service counts.
    fn count(&self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::UnknownService => &self.counters.unknown_service,
            Refusal::BadRequest => &self.counters.bad_request,
            Refusal::ShuttingDown => &self.counters.shutting_down,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// From a stream's opening to its complete request, which commonly come together.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
