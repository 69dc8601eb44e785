//! A client's tickets for one server and one kind of channel, in memory only. Each is used once.
//!
//! A client that resumes does not see the server's certificate again, so that a ticket is good only while that certificate
//! is, under the anchors by which it was verified; and while the client's own certificate is the one that it showed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::time_provider::TimeProvider;

use super::verify::Witness;
use super::{KeyResolver, PeerIdentity, Trust};
use crate::base::limits;

/// The tickets that a server has given to a client.
pub struct ClientTickets {
    trust: Arc<Trust>,
    resolver: Arc<KeyResolver>,
    time: Arc<dyn TimeProvider>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Oldest first.
    tickets: VecDeque<Ticket>,
    /// What the server showed in the last full handshake.
    server: Option<(PeerIdentity, u64)>,
    group: Option<NamedGroup>,
}

struct Ticket {
    value: Tls13ClientSessionValue,
    server: PeerIdentity,
    trust_generation: u64,
    /// The own certificate that was shown.
    own: ([u8; 32], u64),
}

impl ClientTickets {
    pub(super) fn new(trust: Arc<Trust>, resolver: Arc<KeyResolver>, time: Arc<dyn TimeProvider>) -> Self {
        Self { trust, resolver, time, kept: Mutex::default() }
    }

    /// Forgets all tickets.
    pub fn purge(&self) {
        self.lock().tickets.clear();
    }

    /// How many tickets are kept.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().tickets.len()
    }

    /// Who the server was in the last full handshake.
    #[must_use]
    pub fn server(&self) -> Option<PeerIdentity> {
        self.lock().server.as_ref().map(|(server, _)| server.clone())
    }

    fn own(&self) -> ([u8; 32], u64) {
        let identity = self.resolver.identity();
        (identity.spki_sha256(), identity.not_after_unix())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness for ClientTickets {
    fn on_verified(&self, peer: PeerIdentity, _chain: Vec<CertificateDer<'static>>, trust_generation: u64) {
        let mut kept = self.lock();
        // Tickets of a certificate that the server has replaced would prolong it.
        kept.tickets.retain(|ticket| ticket.server == peer);
        kept.server = Some((peer, trust_generation));
    }
}

impl ClientSessionStore for ClientTickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.lock().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.lock().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let own = self.own();
        let mut kept = self.lock();
        let Some((server, trust_generation)) = kept.server.clone() else { return };
        if kept.tickets.len() >= limits::TICKETS_KEPT_MAX {
            kept.tickets.pop_front();
        }
        kept.tickets.push_back(Ticket { value, server, trust_generation, own });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let (own, now, generation) = (self.own(), self.time.current_time()?.as_secs(), self.trust.generation());
        let mut kept = self.lock();
        kept.tickets.retain(|ticket| {
            ticket.own == own && ticket.trust_generation == generation && now < ticket.server.not_after_unix
        });
        kept.tickets.pop_back().map(|ticket| ticket.value)
    }
}

impl fmt::Debug for ClientTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTickets").field("count", &self.count()).finish_non_exhaustive()
    }
}
