//! The sessions of a node by id: where joins find theirs, and where memory is counted.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Instant;

use super::bandwidth::Limiter;
use super::observer::{NodeEvent, Observer};
use super::shared::Shared;
use crate::base::{CloseCode, SessionId};
use crate::channel::Gate;
use crate::crypto::token::TokenId;

/// All living sessions of a node, and who watches them.
#[derive(Default)]
pub(super) struct Registry {
    sessions: Mutex<HashMap<SessionId, Weak<Shared>>>,
    gates: Mutex<Vec<Gate>>,
    limiter: Arc<Limiter>,
    observer: Option<Arc<dyn Observer>>,
    /// Tokens whose guests may not be here any more.
    denied_tokens: RwLock<HashSet<TokenId>>,
}

impl Registry {
    /// No sessions, and an observer of those to come.
    pub(super) fn new(observer: Option<Arc<dyn Observer>>) -> Self {
        Self { observer, ..Self::default() }
    }

    /// Who hears what happens.
    pub(super) fn observer(&self) -> Option<&Arc<dyn Observer>> {
        self.observer.as_ref()
    }

    /// What limits the sessions.
    pub(super) fn limiter(&self) -> &Arc<Limiter> {
        &self.limiter
    }

    /// Tells the observer, if there is one.
    pub(super) fn tell(&self, event: &NodeEvent<'_>) {
        if let Some(observer) = &self.observer {
            observer.on_event(event);
        }
    }

    /// Denies the guests of these tokens, and of no others.
    pub(super) fn deny_tokens(&self, tokens: HashSet<TokenId>) {
        *self.denied_tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    /// Whether the guests of a token are denied.
    pub(super) fn is_token_denied(&self, id: TokenId) -> bool {
        self.denied_tokens.read().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Adds the gate of a listener.
    pub(super) fn add_gate(&self, gate: Gate) {
        self.gates.lock().expect("no task panics while it holds the gates").push(gate);
    }

    /// The gates of all listeners.
    pub(super) fn gates(&self) -> Vec<Gate> {
        self.gates.lock().expect("no task panics while it holds the gates").clone()
    }

    /// Adds a session, unless its id is taken.
    pub(super) fn insert(&self, id: SessionId, shared: &Arc<Shared>) -> bool {
        let mut sessions = self.lock();
        if sessions.get(&id).is_some_and(|known| known.strong_count() > 0) {
            return false;
        }
        sessions.insert(id, Arc::downgrade(shared));
        true
    }

    /// Tells the other sessions of a client that this one of it is authenticated: it may not know of them, if their accept never
    /// came. Guests do not count: many may have one name.
    pub(super) fn on_accepted(&self, accepted: &Arc<Shared>) {
        if accepted.peer.is_guest() {
            return;
        }
        let of_client = self.all().into_iter().filter(|shared| shared.peer.node_id == accepted.peer.node_id);
        for shared in of_client.filter(|shared| !Arc::ptr_eq(shared, accepted)) {
            shared.with_timer(|inner| inner.session.handle_newer_session(Instant::now()));
        }
    }

    /// The session of an id.
    pub(super) fn find(&self, id: SessionId) -> Option<Arc<Shared>> {
        self.lock().get(&id).and_then(Weak::upgrade)
    }

    /// Forgets a session.
    pub(super) fn remove(&self, id: SessionId) {
        self.lock().remove(&id);
    }

    /// All sessions that live.
    pub(super) fn all(&self) -> Vec<Arc<Shared>> {
        let known: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        known.into_iter().filter(|shared| shared.closed().is_none()).collect()
    }

    /// Forgets the sessions that are over.
    pub(super) fn purge(&self) {
        let is_alive = |shared: &Weak<Shared>| shared.upgrade().is_some_and(|shared| shared.closed().is_none());
        self.lock().retain(|_, shared| is_alive(shared));
    }

    /// Bytes that all sessions hold; closes the one that holds the most when that is above `close_above`.
    pub(super) fn enforce_memory(&self, close_above: u64) -> u64 {
        let held: Vec<_> =
            self.all().into_iter().map(|shared| (shared.look(|inner| inner.session.held_bytes()), shared)).collect();
        let total = held.iter().map(|(bytes, _)| bytes).sum();
        if total > close_above
            && let Some((bytes, shared)) = held.into_iter().max_by_key(|(bytes, _)| *bytes)
        {
            tracing::warn!(peer = %shared.peer.node_id, held_bytes = bytes, total_bytes = total, "memory limit reached, closing the session that holds the most");
            shared.with_timer(|inner| {
                inner.session.close(CloseCode::OUT_OF_MEMORY, "memory limit reached", Instant::now());
            });
        }
        total
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Weak<Shared>>> {
        self.sessions.lock().expect("no task panics while it holds the registry")
    }
}
