//! What a node does for applications: its services, its forwards, its links, and the sessions between.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::denylists::Denylists;
use super::forward::{Forward, ForwardConfig};
use super::peers::Peers;
use super::services::Services;
use crate::base::{CloseCode, SessionId};
use crate::channel::ListenError;
use crate::crypto::identity::NodeId;
use crate::node::{Link, Node, Session};

/// A node with services and forwards. It stops when it is dropped.
pub struct Gateway {
    node: Node,
    peers: Peers,
    services: Services,
    forwards: Mutex<Vec<Arc<Forward>>>,
    links: Mutex<Vec<Link>>,
    /// Wait for sessions: of the node, and of each link.
    waiting: Mutex<JoinSet<()>>,
    serving: Arc<Serving>,
    denylists: Denylists,
}

/// Takes sessions, a task each.
struct Serving {
    peers: Peers,
    services: Services,
    denylists: Denylists,
    tasks: Mutex<JoinSet<()>>,
}

impl Gateway {
    /// Offers services to the peers of a node, whose accepted sessions it takes.
    #[must_use]
    pub fn start(node: Node, services: Services) -> Self {
        let peers = Peers::new();
        if let Some(observer) = node.observer() {
            peers.observe(observer);
        }
        let denylists = Denylists::new(&node);
        services.set_denylists(denylists.clone());
        let serving = Serving {
            peers: peers.clone(),
            services: services.clone(),
            denylists: denylists.clone(),
            tasks: Mutex::default(),
        };
        let serving = Arc::new(serving);
        let mut waiting = JoinSet::new();
        waiting.spawn(Arc::clone(&serving).accept(node.clone()));
        let (forwards, links, waiting) = (Mutex::default(), Mutex::default(), Mutex::new(waiting));
        Self { node, peers, services, forwards, links, waiting, serving, denylists }
    }

    /// Uses the sessions of a link, as long as the gateway lives.
    pub fn add_link(&self, link: Link) {
        lock(&self.links).push(link.clone());
        lock(&self.waiting).spawn(Arc::clone(&self.serving).follow(link));
    }

    /// Starts a forward.
    ///
    /// # Errors
    /// [`ListenError`] when its address cannot be listened on.
    pub async fn forward(&self, config: ForwardConfig) -> Result<Arc<Forward>, ListenError> {
        let forward = Arc::new(Forward::start(config, self.peers.clone()).await?);
        lock(&self.forwards).push(Arc::clone(&forward));
        Ok(forward)
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Who is denied, and who tells whom.
    #[must_use]
    pub fn denylists(&self) -> &Denylists {
        &self.denylists
    }

    /// Which sessions lead to which peer.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// What peers may reach here.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// The links.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        lock(&self.links).clone()
    }

    /// The forwards.
    #[must_use]
    pub fn forwards(&self) -> Vec<Arc<Forward>> {
        lock(&self.forwards).clone()
    }

    /// Ends in order: takes no new connections, gives those that are open up to `timeout`, and closes the sessions.
    /// Returns whether all connections had ended by themselves.
    pub async fn shutdown(&self, timeout: Duration) -> bool {
        self.node.stop_listening();
        let forwards = self.forwards();
        for forward in &forwards {
            forward.stop().await;
        }
        self.services.close();
        self.node.go_away();
        let ended = async {
            for forward in &forwards {
                forward.ended().await;
            }
            self.services.ended().await;
            self.delivered().await;
        };
        let is_drained = tokio::time::timeout(timeout, ended).await.is_ok();
        // A link would dial again when its session is closed.
        lock(&self.waiting).abort_all();
        lock(&self.links).clear();
        self.node.close(CloseCode::SHUTTING_DOWN, "node is shutting down").await;
        is_drained
    }

    /// Waits until the peers have what was written: connections end here before that.
    async fn delivered(&self) {
        while self.peers.all().iter().any(|session| session.stream_count() > 0) {
            tokio::time::sleep(DELIVERED_INTERVAL).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        lock(&self.waiting).abort_all();
        // With them end the sessions, of which they are the holders.
        lock(&self.serving.tasks).abort_all();
    }
}

impl Serving {
    async fn accept(self: Arc<Self>, node: Node) {
        while let Some(session) = node.accept().await {
            self.begin(session);
        }
    }

    /// Takes the sessions of a link as soon as they may send. Each comes twice: early, and connected.
    async fn follow(self: Arc<Self>, mut link: Link) {
        let mut last = None;
        while let Ok(session) = link.early_session().await {
            if last.replace(session.id()) != Some(session.id()) {
                self.begin(session);
            }
            link.changed().await;
        }
    }

    fn begin(&self, session: Session) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(serve(session, self.peers.clone(), self.services.clone(), self.denylists.clone()));
    }
}

async fn serve(session: Session, peers: Peers, services: Services, denylists: Denylists) {
    let registered = Registered { peer: session.peer().node_id.clone(), id: session.id(), peers };
    registered.peers.add(session.clone());
    let error = tokio::select! {
        error = services.serve(session.clone()) => error,
        () = denylists.tell(&session) => return,
    };
    tracing::debug!(peer = %registered.peer, session = %registered.id, %error, "session serves no more");
}

/// A session that streams may take, until this is dropped.
struct Registered {
    peers: Peers,
    peer: NodeId,
    id: SessionId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.peers.remove(&self.peer, self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Only while the node shuts down.
const DELIVERED_INTERVAL: Duration = Duration::from_millis(5);
