//! Certificates, keys and anchors that are exchanged while sessions run: no stream notices, channels go on joining, and
//! new sessions have the new ones. And denylists, which end the sessions of whom they name.

use longhaul::base::CloseCode;
use longhaul::channel::ListenOptions;
use longhaul::crypto::identity::{ExchangeError, TlsSettings, TrustAnchors};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::node::{LinkConfig, Node};
use longhaul::session::CloseReason;
use longhaul::wire::{DenylistBody, SignedDenylist};

use crate::common::{Pair, authority, id, pair, settings, settings_by};
use crate::proxy::Proxy;
use crate::transfer::{Transfer, soon};

fn anchors(authorities: &[&CertificateAuthority]) -> TrustAnchors {
    let pem: String = authorities.iter().map(|authority| authority.certificate_pem()).collect();
    TrustAnchors::from_pem(pem.as_bytes()).unwrap()
}

/// Two nodes with the handles of what they are.
async fn nodes(scheme: &str) -> ([TlsSettings; 2], [Node; 2], Proxy) {
    let tls = ["a", "b"].map(settings);
    let address = format!("{scheme}://127.0.0.1:0").parse().unwrap();
    let b = Node::builder(tls[1].clone()).listen(address, ListenOptions::default()).build().await.unwrap();
    let a = Node::builder(tls[0].clone()).build().await.unwrap();
    let proxy = Proxy::to(&b.local_addresses()[0]);
    (tls, [a, b], proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_goes_on_while_both_sides_exchange_everything() {
    for scheme in ["tcp", "tls"] {
        let (tls, [a, b], proxy) = nodes(scheme).await;
        let mut config = LinkConfig::new(id("b"), [proxy.address()]);
        config.addresses[0].count = 2;
        let (link, session_a) = a.connect(config).await.unwrap();
        let session_b = b.accept().await.unwrap();
        let mut transfer = Transfer::start(&session_a, &session_b, 7, 1).await;
        soon(transfer.advance(1 << 20)).await;
        // To another authority, as an operator does it: trust both, change the certificates, trust the new one alone.
        let valid = Validity::from_now(std::time::Duration::from_secs(600));
        let other = CertificateAuthority::generate("test", KeyType::P256, valid).unwrap();
        for (side, name) in tls.iter().zip(["a", "b"]) {
            side.exchange(side.identity(), anchors(&[authority(), &other])).unwrap();
            // Peers would refuse this one.
            let refused = side.exchange(settings_by(&other, name).identity(), anchors(&[authority()]));
            assert!(matches!(refused, Err(ExchangeError::Refused(_))), "{refused:?}");
        }
        for (side, name) in tls.iter().zip(["a", "b"]) {
            side.exchange(settings_by(&other, name).identity(), anchors(&[authority(), &other])).unwrap();
            // All channels die; those that come instead join the session under the new certificates.
            proxy.passing().iter().for_each(|wire| wire.reset());
            soon(transfer.advance(4 << 20)).await;
        }
        for side in &tls {
            side.exchange(side.identity(), anchors(&[&other])).unwrap();
        }
        proxy.passing().iter().for_each(|wire| wire.reset());
        soon(transfer.advance(4 << 20)).await;
        soon(transfer.finish()).await;
        assert_eq!(link.session().await.unwrap().id(), session_a.id(), "{scheme}: it is the session of the beginning");
        // A new session has the new certificates.
        drop((session_b, link));
        let (_link, again) = a.connect(LinkConfig::new(id("b"), [proxy.address()])).await.unwrap();
        assert_eq!(again.peer().spki_sha256, tls[1].identity().spki_sha256());
        assert_ne!(again.peer().spki_sha256, session_a.peer().spki_sha256);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_cannot_rename_a_node() {
    let tls = settings("a");
    let refused = tls.exchange(settings("b").identity(), anchors(&[authority()]));
    assert!(matches!(refused, Err(ExchangeError::Identity(_))), "{refused:?}");
    let generation = tls.trust().generation();
    tls.exchange(settings("a").identity(), anchors(&[authority()])).unwrap();
    assert_eq!(tls.trust().generation(), generation, "who is trusted is the same");
    let valid = Validity::from_now(std::time::Duration::from_secs(600));
    let other = CertificateAuthority::generate("test", KeyType::P256, valid).unwrap();
    tls.exchange(tls.identity(), anchors(&[authority(), &other])).unwrap();
    assert!(tls.trust().generation() > generation);
}

/// A denylist of the common authority.
pub(crate) fn denying(version: u64, name: &str) -> SignedDenylist {
    let names = vec![name.to_owned()];
    let body = DenylistBody { trust_domain: "test".to_owned(), version, names, keys: Vec::new() };
    authority().sign_denylist(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_peer_loses_its_session_and_gets_no_other_over_any_kind_of_channel() {
    for scheme in ["tcp", "tls", "quic"] {
        let Pair { a, b, session_a, session_b, link } = pair(&format!("{scheme}://127.0.0.1:0"), 1).await;
        assert!(b.revoker().deny(denying(1, "a")).unwrap());
        let closed = |reason: CloseReason| match reason {
            CloseReason::Local { code } | CloseReason::Peer { code, .. } => code,
            other => panic!("{scheme}: {other}"),
        };
        assert_eq!(closed(soon(session_b.closed()).await), CloseCode::REVOKED);
        // A QUIC connection waits a second for its last word to arrive, which a busy machine may miss; then the peer finds out
        // by its next dial.
        if scheme != "quic" {
            assert_eq!(closed(soon(session_a.closed()).await), CloseCode::REVOKED, "{scheme}");
        }
        drop(session_a);
        drop(link);
        let again = LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]);
        let refused = soon(a.connect(again.clone())).await.expect_err("it is denied").to_string();
        assert!(refused.contains("refused"), "{scheme}: {refused}");
        // Who denies whom it dials refuses as well.
        assert!(a.revoker().deny(denying(1, "b")).unwrap());
        let refused = soon(a.connect(again.clone())).await.expect_err("it is denied").to_string();
        assert!(refused.contains("was revoked"), "{scheme}: {refused}");
        assert_eq!(a.session_count() + b.session_count(), 0);
        // Newer lists let both in again.
        assert!(a.revoker().deny(denying(2, "c")).unwrap() && b.revoker().deny(denying(2, "c")).unwrap());
        soon(a.connect(again)).await.expect("a session");
    }
}

/// As a renewal does it, past the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denylist_that_came_past_the_node_closes_sessions_too() {
    let Pair { b, session_b, .. } = pair("tcp://127.0.0.1:0", 1).await;
    assert!(b.tls().trust().deny(denying(1, "a")).unwrap());
    soon(session_b.closed()).await;
}
