//! Which sessions lead to which peer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::base::SessionId;
use crate::crypto::identity::NodeId;
use crate::node::{Priority, RecvStream, SendStream, Session};

/// The sessions of a node by peer, dialled and accepted. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Peers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Oldest first.
    sessions: Mutex<HashMap<NodeId, Vec<(SessionId, Session)>>>,
    added: Notify,
}

impl Peers {
    /// No sessions yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a connected session, which streams to its peer take from now on.
    pub fn add(&self, session: Session) {
        let (peer, id) = (session.peer().node_id.clone(), session.id());
        self.lock().entry(peer).or_default().push((id, session));
        self.0.added.notify_waiters();
    }

    /// Forgets a session: new streams take others. Its streams go on.
    pub fn remove(&self, peer: &NodeId, id: SessionId) {
        let mut sessions = self.lock();
        let Some(of_peer) = sessions.get_mut(peer) else { return };
        of_peer.retain(|(other, _)| *other != id);
        if of_peer.is_empty() {
            sessions.remove(peer);
        }
    }

    /// The newest session with a peer.
    #[must_use]
    pub fn newest(&self, peer: &NodeId) -> Option<Session> {
        self.newest_with_id(peer).map(|(_, session)| session)
    }

    /// All sessions that streams may take.
    #[must_use]
    pub fn all(&self) -> Vec<Session> {
        self.lock().values().flatten().map(|(_, session)| session.clone()).collect()
    }

    /// Peers with which there are sessions.
    #[must_use]
    pub fn connected(&self) -> Vec<NodeId> {
        self.lock().keys().cloned().collect()
    }

    /// Opens a stream to a peer over its newest session that takes one; waits for a session, and for one that allows
    /// a further stream. Cancel safe.
    pub async fn open(&self, peer: &NodeId, priority: Priority) -> (SendStream, RecvStream) {
        loop {
            let (id, session) = self.wait(peer).await;
            match session.open_bi_with(priority).await {
                Ok(stream) => return stream,
                // It is over, or its peer shuts down: in both cases it takes no stream ever again.
                Err(error) => {
                    tracing::debug!(%peer, session = %id, %error, "session takes no stream");
                    self.remove(peer, id);
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

    fn newest_with_id(&self, peer: &NodeId) -> Option<(SessionId, Session)> {
        self.lock().get(peer)?.last().cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Vec<(SessionId, Session)>>> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
