//! The node: its listeners, its links, and the sessions that peers begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ring::hmac;
use rustls::crypto::CryptoProvider;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use super::accept::Acceptor;
use super::bandwidth::BandwidthLimits;
use super::config::{LinkConfig, NodeConfig};
use super::enrolment::EnrolmentDoor;
use super::error::{ConnectError, NodeError};
use super::fresh::Terms;
use super::guest::GuestAdmission;
use super::link::Link;
use super::observer::{NodeMeter, Observer};
use super::registry::Registry;
use super::revocation::{Revoker, close_revoked};
use super::session::Session;
use crate::base::CloseCode;
use crate::channel::{Address, ChannelKind, ListenOptions, Listener, QuicListener};
use crate::crypto::identity::{ALPN_QUIC, IdentityError, NodeId, TlsSettings, quic_initial_suite};

/// How often the memory of all sessions is added up, and denied peers are looked for if somebody changed who is.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// Begins a node.
pub struct NodeBuilder {
    tls: TlsSettings,
    config: NodeConfig,
    listeners: Vec<(Address, ListenOptions)>,
    observer: Option<Arc<dyn Observer>>,
    guests: Option<Arc<dyn GuestAdmission>>,
    enrolment: Option<Arc<dyn EnrolmentDoor>>,
}

impl NodeBuilder {
    /// Sets what can be chosen.
    #[must_use]
    pub fn config(mut self, config: NodeConfig) -> Self {
        self.config = config;
        self
    }

    /// Has somebody hear what happens in the node.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Listens on an address.
    #[must_use]
    pub fn listen(mut self, address: Address, options: ListenOptions) -> Self {
        self.listeners.push((address, options));
        self
    }

    /// Has the tokens of guests judged, who come by listeners with [`ListenOptions::takes_guests`].
    #[must_use]
    pub fn guests(mut self, admission: Arc<dyn GuestAdmission>) -> Self {
        self.guests = Some(admission);
        self
    }

    /// Has machines answered that ask for a certificate, who come by listeners with [`ListenOptions::enrolls`].
    #[must_use]
    pub fn enrolment(mut self, door: Arc<dyn EnrolmentDoor>) -> Self {
        self.enrolment = Some(door);
        self
    }

    /// Starts the node. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`NodeError`] when an address cannot be listened on, or a guest is to listen.
    pub async fn build(self) -> Result<Node, NodeError> {
        if !self.listeners.is_empty() && self.tls.guest_token().is_some() {
            return Err(IdentityError::NoCertificate.into());
        }
        seed_generator(Arc::clone(self.tls.provider()));
        let (sender, accepted) = mpsc::channel(self.config.backlog);
        let registry = Arc::new(Registry::new(self.observer));
        let acceptor = Arc::new(Acceptor {
            tls: self.tls.clone(),
            reset_key: hmac::Key::new(hmac::HMAC_SHA256, self.tls.identity().reset_secret().expose()),
            config: self.config,
            registry: Arc::clone(&registry),
            sessions: sender,
            is_full: AtomicBool::new(false),
            guests: self.guests,
            enrolment: self.enrolment,
        });
        let mut addresses = Vec::new();
        let mut tasks = vec![tokio::spawn(watch_memory(Arc::clone(&acceptor)))];
        for (address, options) in self.listeners {
            let terms = acceptor.terms(&options);
            if address.kind() == ChannelKind::Quic {
                let tls = acceptor.server_config(ALPN_QUIC, terms)?;
                let key = acceptor.datagram_reset_key();
                let listener = QuicListener::bind(&address, &options, tls, quic_initial_suite(), key).await?;
                tracing::info!(address = %listener.local_address(), "listening");
                addresses.push(listener.local_address().clone());
                acceptor.registry.add_gate(listener.gate().clone());
                tasks.push(tokio::spawn(listen_quic(listener, Arc::clone(&acceptor), terms)));
                continue;
            }
            let listener = Listener::bind(&address, &options).await?;
            tracing::info!(address = %listener.local_address(), "listening");
            addresses.push(listener.local_address().clone());
            acceptor.registry.add_gate(listener.gate().clone());
            tasks.push(tokio::spawn(listen(listener, Arc::clone(&acceptor), terms)));
        }
        let tasks = std::sync::Mutex::new(tasks);
        Ok(Node(Arc::new(Running { tls: self.tls, registry, accepted: Mutex::new(accepted), addresses, tasks })))
    }
}

/// Lets the provider gather its entropy before the first peer has to wait for it. aws-lc-rs takes 25 to 50 ms for that when a
/// process asks for the first time, which otherwise is in the middle of a handshake, and a few microseconds later on.
fn seed_generator(provider: Arc<CryptoProvider>) {
    // A failure shows in the first handshake, which asks again.
    drop(tokio::task::spawn_blocking(move || provider.secure_random.fill(&mut [0; 1])));
}

/// A running node. Clones are the same node; when the last one is dropped, it stops listening.
#[derive(Clone)]
pub struct Node(Arc<Running>);

struct Running {
    tls: TlsSettings,
    registry: Arc<Registry>,
    accepted: Mutex<mpsc::Receiver<Session>>,
    addresses: Vec<Address>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        stop(&self.tasks);
    }
}

impl Node {
    /// Begins a node with an identity and what it trusts.
    #[must_use]
    pub fn builder(tls: TlsSettings) -> NodeBuilder {
        NodeBuilder {
            tls,
            config: NodeConfig::default(),
            listeners: Vec::new(),
            observer: None,
            guests: None,
            enrolment: None,
        }
    }

    /// This node's own name.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.0.tls.identity().node_id().clone()
    }

    /// Reads the node's sessions, for statistics.
    #[must_use]
    pub fn meter(&self) -> NodeMeter {
        NodeMeter::new(Arc::clone(&self.0.registry))
    }

    /// Who it is, and whom it trusts: to exchange either.
    #[must_use]
    pub fn tls(&self) -> &TlsSettings {
        &self.0.tls
    }

    /// Sends no more than these allow from now on, in all sessions: those that are open go on at the other rate.
    pub fn set_bandwidth_limits(&self, limits: BandwidthLimits) {
        self.0.registry.limiter().set(limits);
    }

    /// How much it sends at most.
    #[must_use]
    pub fn bandwidth_limits(&self) -> BandwidthLimits {
        self.0.registry.limiter().limits()
    }

    /// Puts denylists into effect at this node.
    #[must_use]
    pub fn revoker(&self) -> Revoker {
        Revoker::new(Arc::clone(&self.0.registry), Arc::clone(self.0.tls.trust()))
    }

    /// Who hears what happens in it.
    #[must_use]
    pub fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.0.registry.observer().cloned()
    }

    /// The addresses that it listens on, with the ports that were chosen for it.
    #[must_use]
    pub fn local_addresses(&self) -> &[Address] {
        &self.0.addresses
    }

    /// Keeps a session with a peer up, for as long as the link lives. Begins to dial at once.
    ///
    /// # Panics
    /// When the configuration has no address, or one with no channel.
    #[must_use]
    pub fn link(&self, config: LinkConfig) -> Link {
        assert!(config.addresses.iter().any(|address| address.count > 0), "a link needs an address with a channel");
        Link::start(self.0.tls.clone(), config, Arc::clone(&self.0.registry))
    }

    /// Dials a peer once, without keeping anything up afterwards but the link that is returned with the session.
    ///
    /// # Errors
    /// Why the attempt failed.
    pub async fn connect(&self, config: LinkConfig) -> Result<(Link, Session), Arc<ConnectError>> {
        let link = self.link(config);
        let session = link.session_or_error().await?;
        Ok((link, session))
    }

    /// The next session that a peer begins; `None` when the node has stopped. Where a listener takes early data, a session
    /// may come before its peer has shown that it is there now: [`Session::is_early`].
    pub async fn accept(&self) -> Option<Session> {
        self.0.accepted.lock().await.recv().await
    }

    /// Living sessions, dialled and accepted.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.0.registry.all().len()
    }

    /// Stops listening. Sessions go on.
    pub fn stop_listening(&self) {
        stop(&self.0.tasks);
    }

    /// Asks all peers to open no more streams.
    pub fn go_away(&self) {
        for shared in self.0.registry.all() {
            shared.with_timer(|inner| inner.session.go_away(CloseCode::SHUTTING_DOWN, "node is shutting down"));
        }
    }

    /// Closes all sessions, and gives them a moment to tell their peers.
    pub async fn close(&self, code: CloseCode, reason: &str) {
        self.stop_listening();
        let sessions = self.0.registry.all();
        for shared in &sessions {
            shared.with_timer(|inner| inner.session.close(code, reason, Instant::now()));
        }
        for shared in sessions {
            Session::new(shared).closed().await;
        }
    }
}

fn stop(tasks: &std::sync::Mutex<Vec<JoinHandle<()>>>) {
    // A poisoned list is still a list of tasks to end.
    let mut tasks = tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    tasks.drain(..).for_each(|task| task.abort());
}

async fn listen(mut listener: Listener, acceptor: Arc<Acceptor>, terms: Terms) {
    loop {
        let accepted = listener.accept().await;
        tokio::spawn(Arc::clone(&acceptor).take(accepted, terms));
    }
}

async fn listen_quic(mut listener: QuicListener, acceptor: Arc<Acceptor>, terms: Terms) {
    while let Some(accepted) = listener.accept().await {
        tokio::spawn(Arc::clone(&acceptor).take_quic(accepted, terms));
    }
}

async fn watch_memory(acceptor: Arc<Acceptor>) {
    let mut interval = tokio::time::interval(MEMORY_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut trust_generation = 0;
    loop {
        interval.tick().await;
        acceptor.registry.purge();
        let trust = acceptor.tls.trust();
        if trust_generation != trust.generation() {
            trust_generation = trust.generation();
            close_revoked(&acceptor.registry, trust);
            acceptor.tls.tickets().purge(|peer| trust.is_denied(&peer.node_id, &peer.spki_sha256));
        }
        let max = acceptor.config.memory_bytes_max;
        let total = acceptor.registry.enforce_memory(max + max / 4);
        acceptor.is_full.store(total > max, Ordering::Relaxed);
    }
}
