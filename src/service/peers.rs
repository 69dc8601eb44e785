//! Which sessions lead to which peer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Notify, broadcast};

use crate::base::SessionId;
use crate::crypto::identity::NodeId;
use crate::node::{NodeEvent, Observer, Priority, RecvStream, SendStream, Session};
use crate::wire::TraceContext;

/// The sessions of a node by peer, dialled and accepted. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Peers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Oldest first.
    sessions: Mutex<HashMap<NodeId, Vec<Entry>>>,
    added: Notify,
    /// Once somebody wants to know.
    events: OnceLock<broadcast::Sender<PeerEvent>>,
    observer: OnceLock<Observing>,
}

/// A session that begins or ends.
#[derive(Clone, Debug)]
pub struct PeerEvent {
    /// The peer.
    pub peer: NodeId,
    /// The session.
    pub session: SessionId,
    /// Whether the peer began it with early data that was taken.
    pub began_early: bool,
    /// Why it ended; `None` when it begins.
    pub ended: Option<String>,
}

/// Who hears what becomes of streams.
struct Observing(Arc<dyn Observer>);

impl std::fmt::Debug for Observing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observing")
    }
}

#[derive(Debug)]
struct Entry {
    id: SessionId,
    session: Session,
    /// New streams may take it.
    is_open: bool,
}

impl Peers {
    /// No sessions yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has somebody hear what becomes of streams. Only the first one does.
    pub(super) fn observe(&self, observer: Arc<dyn Observer>) {
        // A second one would be another node's.
        let _ = self.0.observer.set(Observing(observer));
    }

    /// Whether somebody hears.
    pub(super) fn is_observed(&self) -> bool {
        self.0.observer.get().is_some()
    }

    /// Tells the observer, if there is one.
    pub(super) fn report(&self, event: &NodeEvent<'_>) {
        if let Some(Observing(observer)) = self.0.observer.get() {
            observer.on_event(event);
        }
    }

    /// The trace of a connection that begins, if one is made of it.
    pub(super) fn begin_trace(&self) -> Option<TraceContext> {
        self.0.observer.get().and_then(|Observing(observer)| observer.begin_trace())
    }

    /// Adds a session, connected or early, which streams to its peer take from now on.
    pub fn add(&self, session: Session) {
        let (peer, id) = (session.peer().node_id.clone(), session.id());
        let began_early = session.began_early();
        self.tell(|| PeerEvent { peer: peer.clone(), session: id, began_early, ended: None });
        self.lock().entry(peer).or_default().push(Entry { id, session, is_open: true });
        self.0.added.notify_waiters();
    }

    /// Forgets a session, once it is over.
    pub fn remove(&self, peer: &NodeId, id: SessionId) {
        let mut sessions = self.lock();
        let Some(of_peer) = sessions.get_mut(peer) else { return };
        if let Some(entry) = of_peer.iter().find(|entry| entry.id == id) {
            let reason = entry.session.close_reason();
            let ended = reason.map_or_else(|| "given up by this side".to_owned(), |reason| reason.to_string());
            let began_early = entry.session.began_early();
            self.tell(|| PeerEvent { peer: peer.clone(), session: id, began_early, ended: Some(ended) });
        }
        of_peer.retain(|entry| entry.id != id);
        if of_peer.is_empty() {
            sessions.remove(peer);
        }
    }

    /// The newest session with a peer that takes new streams: a connected one if there is one, else an early one.
    #[must_use]
    pub fn newest(&self, peer: &NodeId) -> Option<Session> {
        self.newest_with_id(peer).map(|(_, session)| session)
    }

    /// Tells of sessions that begin and end from now on. Whoever does not listen in time misses some, and is told how many.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.0.events.get_or_init(|| broadcast::Sender::new(EVENTS_MAX)).subscribe()
    }

    fn tell(&self, event: impl FnOnce() -> PeerEvent) {
        if let Some(events) = self.0.events.get() {
            // Nobody may be listening any more.
            let _ = events.send(event());
        }
    }

    /// All sessions, those that take no new streams included.
    #[must_use]
    pub fn all(&self) -> Vec<Session> {
        self.lock().values().flatten().map(|entry| entry.session.clone()).collect()
    }

    /// Opens a stream to a peer over its newest session that takes one; waits for a session, and for one that allows
    /// a further stream. Cancel safe.
    pub async fn open(&self, peer: &NodeId, priority: Priority) -> (SendStream, RecvStream) {
        self.open_on(peer, priority, false, false).await
    }

    /// The same, for a stream on which what is asked for may happen twice: it may leave as early data.
    pub async fn open_replay_safe(&self, peer: &NodeId, priority: Priority) -> (SendStream, RecvStream) {
        self.open_on(peer, priority, true, false).await
    }

    /// The same, over a connected session: what a stream of datagrams needs.
    pub(super) async fn open_connected(&self, peer: &NodeId, priority: Priority) -> (SendStream, RecvStream) {
        self.open_on(peer, priority, false, true).await
    }

    async fn open_on(
        &self,
        peer: &NodeId,
        priority: Priority,
        replay_safe: bool,
        is_connected: bool,
    ) -> (SendStream, RecvStream) {
        loop {
            let (id, session) = self.wait(peer).await;
            let ready = if is_connected { session.connected().await } else { Ok(()) };
            let opened = match ready {
                Ok(()) if replay_safe => session.stream().priority(priority).replay_safe().open_bi().await,
                Ok(()) => session.open_bi_with(priority).await,
                Err(error) => Err(error),
            };
            match opened {
                Ok(stream) => return stream,
                // It is over, or its peer shuts down: in both cases it takes no stream ever again.
                Err(error) => {
                    tracing::debug!(%peer, session = %id, %error, "session takes no stream");
                    self.retire(peer, id);
                }
            }
        }
    }

    async fn wait(&self, peer: &NodeId) -> (SessionId, Session) {
        loop {
            // Created before the look, so that no session is added unseen in between.
            let added = self.0.added.notified();
            match self.newest_with_id(peer) {
                Some(found) => return found,
                None => added.await,
            }
        }
    }

    /// No new streams take a session any more.
    pub(super) fn retire(&self, peer: &NodeId, id: SessionId) {
        let mut sessions = self.lock();
        let entries = sessions.get_mut(peer).into_iter().flatten();
        entries.filter(|entry| entry.id == id).for_each(|entry| entry.is_open = false);
    }

    fn newest_with_id(&self, peer: &NodeId) -> Option<(SessionId, Session)> {
        let sessions = self.lock();
        let newest = |is_wanted: fn(&Entry) -> bool| sessions.get(peer)?.iter().rev().find(|entry| is_wanted(entry));
        let connected = newest(|entry| entry.is_open && entry.session.is_connected());
        let entry = connected.or_else(|| newest(|entry| entry.is_open))?;
        Some((entry.id, entry.session.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Vec<Entry>>> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events that wait for who listens.
const EVENTS_MAX: usize = 256;
