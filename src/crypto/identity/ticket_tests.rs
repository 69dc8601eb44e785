//! Real handshakes in memory: who may resume, and every reason for which a ticket is declined.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::test_ca::{NOW, TestCa, at};
use super::tests::shake;
use super::{ALPN_SESSION, Identity, NodeId, ResumingClient, TlsSettings, TrustAnchors, default_provider};
use crate::base::limits;

const A: &str = "spiffe://example/node/a";
const B: &str = "spiffe://example/node/b";

#[derive(Debug)]
struct Clock(AtomicU64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

/// Node a dials node b.
struct Pair {
    ca: TestCa,
    clock: Arc<Clock>,
    a: TlsSettings,
    b: TlsSettings,
    client: ResumingClient,
}

fn identity(ca: &TestCa, uri: &str, life: i64) -> Identity {
    let (certificate, key) = ca.issue(&[uri], |params| params.not_after = at(life));
    Identity::from_pem(certificate.as_bytes(), key.as_bytes(), &default_provider()).unwrap()
}

/// Nodes whose certificates hold for so many seconds.
fn pair(life_of_a: i64, life_of_b: i64) -> Pair {
    let (ca, clock) = (TestCa::new(), Arc::new(Clock(AtomicU64::new(NOW))));
    let settings = |identity| TlsSettings::new(identity, ca.anchors(), default_provider(), clock.clone()).unwrap();
    let (a, b) = (settings(identity(&ca, A, life_of_a)), settings(identity(&ca, B, life_of_b)));
    let client = a.resuming_client(&b_id(), ALPN_SESSION, true).unwrap();
    Pair { ca, clock, a, b, client }
}

fn b_id() -> NodeId {
    B.parse().unwrap()
}

impl Pair {
    fn meet(&self) -> Option<HandshakeKind> {
        let server = self.b.resuming_server_config(ALPN_SESSION, true).unwrap();
        let (client, server) = shake(self.client.config.clone(), server).ok()?;
        assert_eq!(client.handshake_kind(), server.handshake_kind());
        assert_eq!(server.peer_certificates(), Some(self.a.identity().chain()), "it is known, resumed or not");
        server.handshake_kind()
    }

    fn at(&self, seconds: u64) {
        self.clock.0.store(NOW + seconds, Ordering::Relaxed);
    }

    fn declined(&self) -> (u64, u64, u64) {
        let counters = self.b.tickets().counters();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&counters.unknown), read(&counters.expired), read(&counters.untrusted))
    }
}

#[test]
fn client_that_returns_resumes() {
    let pair = pair(3600, 3600);
    assert_eq!(pair.meet(), Some(HandshakeKind::Full));
    assert_eq!((pair.b.tickets().count(), pair.client.tickets.count()), (2, 2));
    for _ in 0..20 {
        assert_eq!(pair.meet(), Some(HandshakeKind::Resumed));
    }
    assert_eq!(pair.declined(), (0, 0, 0));
    assert!(pair.b.tickets().count() <= limits::TICKETS_PER_PEER_MAX);
    assert!(pair.client.tickets.count() <= limits::TICKETS_KEPT_MAX);
}

#[test]
fn ticket_of_another_process_is_unknown() {
    let mut pair = pair(3600, 3600);
    pair.meet();
    // The same node, restarted.
    let identity = pair.b.identity();
    pair.b = TlsSettings::new(identity, pair.ca.anchors(), default_provider(), pair.clock.clone()).unwrap();
    assert_eq!(pair.meet(), Some(HandshakeKind::Full));
    assert_eq!(pair.declined(), (1, 0, 0));
}

#[test]
fn ticket_ends_with_the_clients_certificate() {
    let pair = pair(600, 3600);
    pair.meet();
    pair.at(599);
    assert_eq!(pair.meet(), Some(HandshakeKind::Resumed), "it holds for a second more");
    pair.at(601);
    assert_eq!(pair.meet(), None, "neither the ticket nor the certificate is good");
    assert_eq!(pair.declined(), (0, 1, 0));
}

#[test]
fn client_offers_no_ticket_beyond_the_servers_certificate() {
    let pair = pair(3600, 600);
    pair.meet();
    pair.at(601);
    assert_eq!(pair.meet(), None, "the server's certificate is seen again, and has expired");
    assert_eq!((pair.declined(), pair.client.tickets.count()), ((0, 0, 0), 0));
}

#[test]
fn resuming_does_not_prolong_a_lineage() {
    let pair = pair(300_000, 300_000);
    pair.meet();
    let day = limits::TICKET_LINEAGE_TIME.as_secs();
    for hours in 1..24 {
        pair.at(hours * 3600);
        assert_eq!(pair.meet(), Some(HandshakeKind::Resumed));
    }
    pair.at(day);
    assert_eq!(pair.meet(), Some(HandshakeKind::Full));
    assert_eq!(pair.declined().1, 1);
    pair.at(day + 3600);
    assert_eq!(pair.meet(), Some(HandshakeKind::Resumed), "another day has begun");
}

#[test]
fn ticket_ends_with_the_authority_behind_it() {
    let pair = pair(3600, 3600);
    pair.meet();
    let other = TestCa::new();
    let both = TrustAnchors::from_pem([pair.ca.pem(), other.pem()].concat().as_bytes()).unwrap();
    pair.b.trust().set("example", both).unwrap();
    assert_eq!(pair.meet(), Some(HandshakeKind::Resumed), "the authority has got another one beside it");
    pair.b.trust().set("example", other.anchors()).unwrap();
    assert_eq!(pair.meet(), None, "the full handshake fails, too");
    assert_eq!(pair.declined(), (0, 0, 1));
}

#[test]
fn client_whose_trust_changes_looks_again() {
    let pair = pair(3600, 3600);
    pair.meet();
    pair.a.trust().set("example", TestCa::new().anchors()).unwrap();
    assert_eq!(pair.meet(), None);
    assert_eq!(pair.declined(), (0, 0, 0), "nothing was offered");
}

#[test]
fn client_with_a_renewed_certificate_shows_it() {
    let pair = pair(3600, 3600);
    pair.meet();
    pair.a.replace_identity(identity(&pair.ca, A, 7200)).unwrap();
    assert_eq!(pair.meet(), Some(HandshakeKind::Full));
    assert_eq!(pair.meet(), Some(HandshakeKind::Resumed));
}

#[test]
fn purged_tickets_are_gone_and_handshakes_under_way_leave_none() {
    let pair = pair(3600, 3600);
    pair.meet();
    let a = pair.a.identity().node_id().clone();
    assert_eq!(pair.b.tickets().purge(|peer| peer.node_id != a), 0);
    assert_eq!(pair.b.tickets().purge(|peer| peer.node_id == a), 2);
    assert_eq!(pair.meet(), Some(HandshakeKind::Full));
    assert_eq!(pair.declined(), (1, 0, 0));

    pair.client.tickets.purge();
    let begun = pair.b.resuming_server_config(ALPN_SESSION, true).unwrap();
    assert_eq!(pair.b.tickets().purge(|peer| peer.node_id == a), 2);
    assert!(shake(pair.client.config.clone(), begun).is_ok(), "it is trusted yet");
    assert_eq!((pair.b.tickets().count(), pair.client.tickets.count()), (0, 0));
}

#[test]
fn a_client_has_so_many_tickets_and_no_more() {
    let pair = pair(3600, 3600);
    for _ in 0..limits::TICKETS_PER_PEER_MAX {
        pair.client.tickets.purge();
        assert_eq!(pair.meet(), Some(HandshakeKind::Full));
    }
    assert_eq!(pair.b.tickets().count(), limits::TICKETS_PER_PEER_MAX);
    assert_eq!(pair.meet(), Some(HandshakeKind::Resumed), "the newest are there");
}
