//! A server's tickets: what returning clients resume with, in memory only.
//!
//! rustls checks nothing again when a client resumes (as RFC 8446 has it; CVE-2025-23419 is what comes of it), so that the
//! store does: a ticket is used once, for a day after the full handshake at most, and as long as the certificate that was
//! shown in it holds and its authority is trusted. What is declined costs the client a full handshake and nothing else. As a
//! ticket is gone with its first use, early data that somebody repeats meets no ticket: at this process, after its restart,
//! and at any other node.
//!
//! rustls asks a store that belongs to one connection, [`ConnectionTickets`]: what it is asked to keep gets the lineage of
//! that connection's handshake.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::CertificateDer;
use rustls::server::StoresServerSessions;
use rustls::time_provider::TimeProvider;
use zeroize::Zeroize;

use super::verify::Witness;
use super::{NodeId, PeerIdentity, PeerVerifier, Trust};
use crate::base::limits;

/// The tickets that a node has given out. Bounded: the oldest go, those of a client that has many first.
pub struct TicketStore {
    trust: Arc<Trust>,
    time: Arc<dyn TimeProvider>,
    kept: Mutex<Kept>,
    counters: TicketCounters,
}

/// What became of tickets, in numbers.
#[derive(Debug, Default)]
pub struct TicketCounters {
    /// Given out.
    pub issued: AtomicU64,
    /// Used to resume.
    pub used: AtomicU64,
    /// Not known: used before, forgotten, or another node's.
    pub unknown: AtomicU64,
    /// Declined because the certificate behind it, or its time, was over.
    pub expired: AtomicU64,
    /// Declined because its certificate is trusted no more.
    pub untrusted: AtomicU64,
}

#[derive(Default)]
struct Kept {
    tickets: HashMap<Vec<u8>, Ticket>,
    by_age: BTreeMap<u64, Vec<u8>>,
    by_peer: HashMap<NodeId, VecDeque<u64>>,
    next: u64,
    /// Counts the purges: a handshake that began before one leaves no ticket.
    purges: u64,
}

struct Ticket {
    number: u64,
    value: Vec<u8>,
    lineage: Lineage,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

/// The full handshake that a ticket comes from.
#[derive(Clone)]
struct Lineage {
    peer: PeerIdentity,
    /// What the client showed, leaf first.
    chain: Arc<[CertificateDer<'static>]>,
    /// In seconds since 1970: neither it nor what follows from it is good any more.
    deadline_unix: u64,
    /// The anchors under which the chain was verified.
    trust_generation: u64,
}

impl TicketStore {
    pub(super) fn new(trust: Arc<Trust>, time: Arc<dyn TimeProvider>) -> Self {
        Self { trust, time, kept: Mutex::default(), counters: TicketCounters::default() }
    }

    /// Forgets the tickets of clients that are not wanted any more, by name or key. Handshakes that are under way leave
    /// none. Returns how many were forgotten.
    pub fn purge(&self, is_unwanted: impl Fn(&PeerIdentity) -> bool) -> usize {
        let mut kept = self.lock();
        kept.purges += 1;
        let unwanted = kept.tickets.iter().filter(|(_, ticket)| is_unwanted(&ticket.lineage.peer));
        let unwanted: Vec<_> = unwanted.map(|(key, _)| key.clone()).collect();
        unwanted.iter().filter(|key| kept.remove(key).is_some()).count()
    }

    /// How many tickets are kept.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().tickets.len()
    }

    /// What became of tickets.
    #[must_use]
    pub fn counters(&self) -> &TicketCounters {
        &self.counters
    }

    /// What rustls is given for one connection.
    pub(super) fn for_connection(self: &Arc<Self>) -> Arc<ConnectionTickets> {
        let purges = self.lock().purges;
        Arc::new(ConnectionTickets { store: Arc::clone(self), lineage: Mutex::default(), purges })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a ticket, if it is still good. It is gone either way.
    fn take(&self, key: &[u8]) -> Option<(Vec<u8>, Lineage)> {
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let taken = self.lock().remove(key);
        let Some(mut ticket) = taken else {
            count(&self.counters.unknown);
            return None;
        };
        let now = self.time.current_time()?;
        if now.as_secs() >= ticket.lineage.deadline_unix {
            count(&self.counters.expired);
            return None;
        }
        let generation = self.trust.generation();
        if ticket.lineage.trust_generation != generation {
            let verifier = PeerVerifier::new(Arc::clone(&self.trust), None);
            if verifier.verify_chain(&ticket.lineage.chain, now).is_err() {
                count(&self.counters.untrusted);
                return None;
            }
            ticket.lineage.trust_generation = generation;
        }
        count(&self.counters.used);
        Some((std::mem::take(&mut ticket.value), ticket.lineage.clone()))
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>, lineage: Lineage, purges: u64) -> bool {
        let mut kept = self.lock();
        if kept.purges != purges {
            return false;
        }
        let number = kept.next;
        kept.next += 1;
        let of_peer = kept.by_peer.entry(lineage.peer.node_id.clone()).or_default();
        of_peer.push_back(number);
        let surplus = (of_peer.len() > limits::TICKETS_PER_PEER_MAX).then(|| of_peer[0]);
        kept.by_age.insert(number, key.clone());
        kept.tickets.insert(key, Ticket { number, value, lineage });
        let oldest = surplus.or_else(|| {
            let first = || kept.by_age.keys().next().copied();
            if kept.tickets.len() > limits::TICKETS_MAX { first() } else { None }
        });
        if let Some(key) = oldest.and_then(|number| kept.by_age.get(&number).cloned()) {
            kept.remove(&key);
        }
        self.counters.issued.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Kept {
    fn remove(&mut self, key: &[u8]) -> Option<Ticket> {
        let ticket = self.tickets.remove(key)?;
        self.by_age.remove(&ticket.number);
        let peer = &ticket.lineage.peer.node_id;
        if let Some(of_peer) = self.by_peer.get_mut(peer) {
            of_peer.retain(|number| *number != ticket.number);
            if of_peer.is_empty() {
                self.by_peer.remove(peer);
            }
        }
        Some(ticket)
    }
}

impl fmt::Debug for TicketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketStore").field("count", &self.count()).finish_non_exhaustive()
    }
}

/// The store as one connection sees it.
pub(super) struct ConnectionTickets {
    store: Arc<TicketStore>,
    /// Of this connection's handshake: of its certificate, or of the ticket that it resumed with.
    lineage: Mutex<Option<Lineage>>,
    purges: u64,
}

impl ConnectionTickets {
    fn set_lineage(&self, lineage: Lineage) {
        *self.lineage.lock().unwrap_or_else(PoisonError::into_inner) = Some(lineage);
    }
}

impl Witness for ConnectionTickets {
    /// The client has shown a certificate: a full handshake.
    fn on_verified(&self, peer: PeerIdentity, chain: Vec<CertificateDer<'static>>, trust_generation: u64) {
        let Some(now) = self.store.time.current_time() else { return };
        let deadline_unix = peer.not_after_unix.min(now.as_secs() + limits::TICKET_LINEAGE_TIME.as_secs());
        self.set_lineage(Lineage { peer, chain: chain.into(), deadline_unix, trust_generation });
    }
}

impl StoresServerSessions for ConnectionTickets {
    /// rustls does this once the client's Finished was verified, so that the lineage is known.
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let lineage = self.lineage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lineage.is_some_and(|lineage| self.store.put(key, value, lineage, self.purges))
    }

    /// Of TLS 1.2, which is not spoken.
    fn get(&self, _key: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let (value, lineage) = self.store.take(key)?;
        self.set_lineage(lineage);
        Some(value)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for ConnectionTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionTickets").finish_non_exhaustive()
    }
}
