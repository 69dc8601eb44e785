//! How many connections are open, of all and of each peer, how many may be, and the moment when none is left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::crypto::identity::NodeId;

/// Connections of one forward or service. Clones count together.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    open: Arc<watch::Sender<u32>>,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self { open: Arc::new(watch::Sender::new(0)) }
    }

    /// Counts one more until the guard is dropped, unless `max` are open.
    pub(super) fn begin(&self, max: u32) -> Option<ConnectionGuard> {
        let begun = self.open.send_if_modified(|open| {
            let fits = *open < max;
            *open += u32::from(fits);
            fits
        });
        begun.then(|| ConnectionGuard(Arc::clone(&self.open)))
    }

    pub(super) fn open(&self) -> u32 {
        *self.open.borrow()
    }

    /// Waits until none is open.
    pub(super) async fn ended(&self) {
        // The sender lives in `self`, so that the wait cannot fail.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

/// One open connection.
#[derive(Debug)]
pub(super) struct ConnectionGuard(Arc<watch::Sender<u32>>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Connections of each peer that has some. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerConnections {
    open: Arc<Mutex<HashMap<NodeId, u32>>>,
}

impl PeerConnections {
    /// Counts one more of a peer until the guard is dropped, unless it has `max`.
    pub(super) fn begin(&self, peer: &NodeId, max: u32) -> Option<PeerGuard> {
        let mut open = lock(&self.open);
        let count = open.get(peer).copied().unwrap_or(0);
        if count >= max {
            return None;
        }
        open.insert(peer.clone(), count + 1);
        Some(PeerGuard { open: Arc::clone(&self.open), peer: peer.clone() })
    }
}

/// One open connection of a peer.
#[derive(Debug)]
pub(super) struct PeerGuard {
    open: Arc<Mutex<HashMap<NodeId, u32>>>,
    peer: NodeId,
}

impl Drop for PeerGuard {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

fn lock(open: &Mutex<HashMap<NodeId, u32>>) -> MutexGuard<'_, HashMap<NodeId, u32>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_own_count_and_nothing_is_kept_of_those_without() {
        let (connections, peer) = (PeerConnections::default(), |name| NodeId::new("example.org", name).unwrap());
        let first = connections.begin(&peer("a"), 1).unwrap();
        assert!(connections.begin(&peer("a"), 1).is_none());
        let other = connections.begin(&peer("b"), 1).unwrap();
        drop(first);
        drop(connections.begin(&peer("a"), 1).unwrap());
        drop(other);
        assert!(lock(&connections.open).is_empty());
    }

    #[tokio::test]
    async fn a_dropped_guard_makes_room() {
        let connections = Connections::new();
        let guard = connections.begin(1).unwrap();
        assert!(connections.begin(1).is_none());
        assert_eq!(connections.open(), 1);
        let ended = tokio::spawn({
            let connections = connections.clone();
            async move { connections.ended().await }
        });
        tokio::task::yield_now().await;
        drop(guard);
        ended.await.unwrap();
        assert!(connections.begin(1).is_some());
    }
}
