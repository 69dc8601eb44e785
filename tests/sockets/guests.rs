//! Peers without a certificate: let in by a token that they prove in their session, and by nothing else.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use longhaul::base::{Secret, SessionId, SystemEntropy};
use longhaul::channel::{Address, ListenOptions};
use longhaul::crypto::identity::{ALPN_SESSION, NodeId, PeerIdentity, TlsSettings, default_provider};
use longhaul::crypto::token::{GuestProof, JoinToken};
use longhaul::node::{
    ConnectError, GuestAdmission, GuestRefusal, GuestVisit, Link, LinkAddress, LinkConfig, Node, NodeError, Session,
};
use longhaul::wire::GuestCredential;
use rustls::pki_types::CertificateDer;
use rustls::time_provider::DefaultTimeProvider;
use tokio::io::AsyncWriteExt;

use crate::common::{authority, dialling, id, settings};
use crate::rogue::Raw;
use crate::transfer::{eventually, soon};

const ADDRESSES: [&str; 3] = ["tcp://127.0.0.1:0", "tls://127.0.0.1:0", "quic://127.0.0.1:0"];

/// Knows one token, and keeps what it was shown.
#[derive(Debug)]
struct OneToken {
    public_key: [u8; 32],
    uses: AtomicU32,
    seen: Mutex<Vec<(Secret<32>, [u8; 64])>>,
    is_available: bool,
}

impl OneToken {
    fn new(token: &JoinToken, uses: u32) -> Self {
        let public_key = token.public_key();
        Self { public_key, uses: AtomicU32::new(uses), seen: Mutex::default(), is_available: true }
    }
}

impl GuestAdmission for OneToken {
    fn authority(&self) -> CertificateDer<'static> {
        authority().certificate_der().clone()
    }

    fn admit(&self, visit: &GuestVisit<'_>) -> Result<PeerIdentity, GuestRefusal> {
        if !self.is_available {
            return Err(GuestRefusal::Unavailable);
        }
        self.seen.lock().unwrap().push((visit.exporter.clone(), *visit.proof));
        let asked = GuestProof { exporter: visit.exporter, token_id: visit.token_id, name: visit.name };
        if !asked.verify(&self.public_key, visit.proof) {
            return Err(GuestRefusal::Refused);
        }
        let less = |uses: u32| uses.checked_sub(1);
        self.uses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).map_err(|_| GuestRefusal::Refused)?;
        Ok(PeerIdentity::unverified(NodeId::guest("test", visit.name).unwrap()))
    }
}

fn token() -> JoinToken {
    JoinToken::generate(authority().spki_sha256(), &mut SystemEntropy::new())
}

fn guest_settings(token: &JoinToken, name: &str) -> TlsSettings {
    let time = Arc::new(DefaultTimeProvider);
    TlsSettings::guest(token.clone(), "test", Some(name), default_provider(), time).unwrap()
}

async fn guest(token: &JoinToken, name: &str) -> Node {
    Node::builder(guest_settings(token, name)).build().await.unwrap()
}

/// A node that takes guests at some addresses and at others does not.
async fn hub(guests: &Arc<OneToken>, addresses: &[&str], others: &[&str]) -> Node {
    let mut builder = Node::builder(settings("b")).guests(Arc::clone(guests) as Arc<dyn GuestAdmission>);
    for (addresses, takes_guests) in [(addresses, true), (others, false)] {
        for address in addresses {
            let options = ListenOptions { takes_guests, ..ListenOptions::default() };
            builder = builder.listen(address.parse().unwrap(), options);
        }
    }
    builder.build().await.unwrap()
}

async fn connect(node: &Node, address: &Address) -> Result<(Link, Session), Arc<ConnectError>> {
    soon(node.connect(LinkConfig::new(id("b"), [address.clone()]))).await
}

async fn echoes(from: &Session, to: &Session) {
    let (mut send, mut recv) = soon(from.open_bi()).await.unwrap();
    send.write_all(b"hello").await.unwrap();
    send.finish().unwrap();
    let (mut back, mut there) = soon(to.accept_bi()).await.unwrap();
    assert_eq!(soon(there.read_to_end(100)).await.unwrap(), b"hello");
    back.write_all(b"hi").await.unwrap();
    back.finish().unwrap();
    assert_eq!(soon(recv.read_to_end(100)).await.unwrap(), b"hi");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_is_let_in_by_its_token_over_every_kind_of_channel() {
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("unix://{}", folder.path().join("b.sock").display());
    for address in ADDRESSES.into_iter().chain([&unix[..]]) {
        let token = token();
        let guests = Arc::new(OneToken::new(&token, 1));
        let b = hub(&guests, &[address], &[]).await;
        let a = guest(&token, "laptop").await;
        let (link, session) = connect(&a, &b.local_addresses()[0]).await.unwrap_or_else(|e| panic!("{address}: {e}"));
        let accepted = soon(b.accept()).await.unwrap();
        assert_eq!(accepted.peer().node_id.to_string(), "spiffe://test/guest/laptop");
        assert_eq!(session.peer().node_id, id("b"));
        echoes(&session, &accepted).await;
        echoes(&accepted, &session).await;
        // The other channels are the guest's as the first one is.
        if !address.starts_with("unix") {
            eventually("further channels join", || session.stats().lanes.len() >= 4).await;
            echoes(&session, &accepted).await;
        }
        drop(link);
        // The token is used up.
        let error = connect(&guest(&token, "laptop").await, &b.local_addresses()[0]).await.err().unwrap();
        assert!(matches!(*error, ConnectError::GuestRefused), "{address}: {error}");
    }
}

/// Nodes with a certificate are what they are, wherever they dial.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_let_in_by_their_certificates_beside_guests() {
    let token = token();
    let guests = Arc::new(OneToken::new(&token, 10));
    for address in ADDRESSES {
        // One for each: a link that is about to end may begin a session anew, which the next one would take for its own.
        let b = hub(&guests, &[address], &[]).await;
        let (_link, session) = connect(&dialling("a").await, &b.local_addresses()[0]).await.unwrap();
        let accepted = soon(b.accept()).await.unwrap();
        assert_eq!(accepted.peer().node_id, id("a"));
        echoes(&session, &accepted).await;
    }
    assert!(guests.seen.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_does_not_opt_in_takes_no_guest() {
    let token = token();
    let guests = Arc::new(OneToken::new(&token, 10));
    let b = hub(&guests, &[], &ADDRESSES).await;
    for address in b.local_addresses() {
        let error = connect(&guest(&token, "laptop").await, address).await.err().unwrap();
        assert!(!matches!(*error, ConnectError::GuestRefused), "{address}: {error}");
    }
    assert!(guests.seen.lock().unwrap().is_empty() && b.session_count() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_refused_and_begins_nothing() {
    let right = token();
    let guests = Arc::new(OneToken::new(&right, 10));
    let b = hub(&guests, &ADDRESSES, &[]).await;
    // The id of the right token, and a secret of one's own.
    let wrong = JoinToken::from_parts(right.id(), Secret::new([7; 32]), *right.authority_pin());
    for address in b.local_addresses() {
        for token in [&wrong, &token()] {
            let error = connect(&guest(token, "laptop").await, address).await.err().unwrap();
            assert!(matches!(*error, ConnectError::GuestRefused), "{address}: {error}");
        }
    }
    assert_eq!(b.session_count(), 0);
    assert!(connect(&guest(&right, "laptop").await, &b.local_addresses()[0]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_judge_refuses_in_another_way() {
    let token = token();
    let guests = Arc::new(OneToken { is_available: false, ..OneToken::new(&token, 10) });
    let b = hub(&guests, &ADDRESSES[..1], &[]).await;
    let error = connect(&guest(&token, "laptop").await, &b.local_addresses()[0]).await.err().unwrap();
    assert!(matches!(*error, ConnectError::Closed(_)), "{error}");
}

/// A guest knows the hub by the pin of its token: nobody else gets a proof.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_of_another_authority_gets_no_proof() {
    let token = token();
    let foreign = JoinToken::from_parts(token.id(), Secret::new([7; 32]), [9; 32]);
    let guests = Arc::new(OneToken::new(&foreign, 10));
    let b = hub(&guests, &ADDRESSES, &[]).await;
    for address in b.local_addresses() {
        let error = connect(&guest(&foreign, "laptop").await, address).await.err().unwrap();
        assert!(error.to_string().contains("authority"), "{error}");
        // And only the node that the link names.
        let config = LinkConfig::new(id("c"), [address.clone()]);
        let error = soon(guest(&token, "laptop").await.connect(config)).await.err().unwrap();
        assert!(error.to_string().contains("node/c"), "{error}");
    }
    assert!(guests.seen.lock().unwrap().is_empty());
}

/// What was proved in one session is worth nothing in another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_session_needs_a_proof_of_its_own() {
    let token = token();
    let guests = Arc::new(OneToken::new(&token, 10));
    let b = hub(&guests, &ADDRESSES, &[]).await;
    for address in b.local_addresses() {
        let _session = connect(&guest(&token, "laptop").await, address).await.unwrap();
    }
    let seen = guests.seen.lock().unwrap();
    assert_eq!(seen.len(), ADDRESSES.len());
    for (index, (exporter, _)) in seen.iter().enumerate() {
        let asked = GuestProof { exporter, token_id: token.id(), name: "laptop" };
        for (other, (_, proof)) in seen.iter().enumerate() {
            assert_eq!(asked.verify(&token.public_key(), proof), other == index);
        }
    }
}

/// A guest's channel at a door that is for nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_joins_no_channel_by_a_listener_for_nodes() {
    let token = token();
    let guests = Arc::new(OneToken::new(&token, 10));
    let b = hub(&guests, &ADDRESSES[..1], &ADDRESSES[..1]).await;
    let [open, closed] = b.local_addresses() else { panic!("two addresses") };
    let a = guest(&token, "laptop").await;
    let mut config = LinkConfig::new(id("b"), [open.clone(), closed.clone()]);
    config.addresses =
        [open, closed].map(|address| LinkAddress { count: 2, ..LinkAddress::new(address.clone()) }).to_vec();
    let (_link, session) = soon(a.connect(config)).await.unwrap();
    let accepted = soon(b.accept()).await.unwrap();
    eventually("the two open channels work", || accepted.stats().lanes.len() == 2).await;
    eventually("others are tried and refused", || session.stats().lanes_lost >= 2).await;
    assert!(accepted.stats().lanes.len() <= 2);
    echoes(&session, &accepted).await;
}

#[tokio::test]
async fn a_guest_cannot_listen() {
    let builder = Node::builder(guest_settings(&token(), "laptop"));
    let built = builder.listen("tcp://127.0.0.1:0".parse().unwrap(), ListenOptions::default()).build().await;
    assert!(matches!(built.err(), Some(NodeError::Identity(_))));
}

/// A node that guests talk to, and that is not who their token is for: it keeps what it was shown, and shows it itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_proof_is_worth_nothing_in_the_thiefs_session() {
    let token = token();
    let guests = Arc::new(OneToken::new(&token, 10));
    let b = hub(&guests, &ADDRESSES[..1], &[]).await;
    let address = &b.local_addresses()[0];
    // The victim shows its proof; whoever sees it there has it.
    let victim = guest(&token, "laptop").await;
    let _session = connect(&victim, address).await.unwrap();
    let stolen = guests.seen.lock().unwrap()[0].1;
    let tls = guest_settings(&token, "laptop");
    let config = || tls.client_config(Some(&id("b")), ALPN_SESSION).unwrap();
    let relayed = |_: &Secret<32>| GuestCredential::new(token.id().as_bytes(), &stolen, "laptop");
    let thief = SessionId([3; 16]);
    let closed = Raw::dial(address).await.come_as_guest(config(), thief, relayed).await;
    assert!(matches!(&closed, Some(reason) if reason.to_string().contains("guest refused")), "{closed:?}");
    assert_eq!(guests.uses.load(Ordering::SeqCst), 9, "the victim's one alone");
    // The same client with a proof of its own comes in: what was refused is the proof.
    let own = |exporter: &Secret<32>| tls.guest_token().unwrap().credential(exporter);
    let closed = Raw::dial(address).await.come_as_guest(config(), SessionId([4; 16]), own).await;
    assert_eq!(closed, None);
    assert_eq!(guests.uses.load(Ordering::SeqCst), 8);
}
