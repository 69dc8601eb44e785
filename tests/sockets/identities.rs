//! Peers that are not who they should be: each is refused, nothing is delivered, and the other peers do not notice.
//! The dialler learns what came instead of what; a stranger that dials learns nothing.

use std::time::Duration;

use futures_util::FutureExt;
use longhaul::crypto::identity::{ALPN_QUIC, ALPN_TLS, TlsSettings, TrustAnchors, default_provider};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::node::{LinkConfig, Node};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};

use crate::common::{authority, dialling, id, listening, settings, settings_by};
use crate::rogue::{Papers, forge, listen, refused_over_quic, refused_over_raw, refused_over_tls};
use crate::transfer::{both_ways, soon};

/// Papers that are wrong in one way each, and what the peer that verifies them finds.
fn wrong_papers(role: &ExtendedKeyUsagePurpose) -> Vec<(Papers, &'static str)> {
    let valid = || Validity::from_now(Duration::from_secs(3600));
    let impostor = CertificateAuthority::generate("test", KeyType::P256, valid()).unwrap();
    let foreign = CertificateAuthority::generate("elsewhere", KeyType::P256, valid()).unwrap();
    let ours = |change: fn(&mut CertificateParams)| forge(authority(), "test", "rogue", change);
    let other_role = match role {
        ExtendedKeyUsagePurpose::ClientAuth => ExtendedKeyUsagePurpose::ServerAuth,
        _ => ExtendedKeyUsagePurpose::ClientAuth,
    };
    vec![
        (forge(&impostor, "test", "rogue", |_| {}), "unknown issuer"),
        (forge(&foreign, "elsewhere", "rogue", |_| {}), "expected a node of \"test\""),
        // An authority of another domain cannot name nodes of this one, nor ours of another.
        (forge(&foreign, "test", "rogue", |_| {}), "unknown issuer"),
        (forge(authority(), "elsewhere", "rogue", |_| {}), "expected a node of \"test\""),
        (ours(|params| params.not_after = time::OffsetDateTime::now_utc() - Duration::from_secs(60)), "expired"),
        (ours(|params| params.not_before = time::OffsetDateTime::now_utc() + Duration::from_secs(60)), "valid from"),
        (
            forge(authority(), "test", "rogue", |params| params.extended_key_usages = vec![other_role]),
            "not for this use",
        ),
        (ours(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]), "not for this use"),
        (ours(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "certificate"),
        (
            ours(|params| params.subject_alt_names = vec![SanType::DnsName("b.example".try_into().unwrap())]),
            "does not name a node",
        ),
    ]
}

/// Dials what answers with wrong papers: the error that the application gets.
async fn dial(papers: Papers, scheme: &str) -> String {
    let base = settings("rogue");
    let address = listen(base, papers, scheme).await;
    let a = dialling("a").await;
    let refused = soon(a.connect(LinkConfig::new(id("b"), [address]))).await;
    refused.expect_err("the wrong one").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialler_says_what_answered_instead_of_what() {
    for (papers, finding) in wrong_papers(&ExtendedKeyUsagePurpose::ServerAuth) {
        for scheme in ["tcp", "tls", "quic"] {
            let error = dial(papers.clone(), scheme).await;
            assert!(error.contains(finding), "{scheme}: {error:?} should tell {finding:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialler_refuses_another_node() {
    for scheme in ["tcp", "tls", "quic"] {
        let c = listening("c", &format!("{scheme}://127.0.0.1:0")).await;
        let a = dialling("a").await;
        let refused = a.connect(LinkConfig::new(id("b"), [c.local_addresses()[0].clone()])).await;
        let error = refused.expect_err("another node").to_string();
        let said = "spiffe://test/node/c; expected spiffe://test/node/b";
        assert!(error.contains(said), "{scheme}: {error}");
        assert!(c.accept().now_or_never().is_none(), "nothing was made of it");
    }
}

/// Whether a node's peers do not notice what strangers do.
struct Peaceful {
    b: Node,
    link: longhaul::node::Link,
    a: Node,
}

impl Peaceful {
    async fn new(scheme: &str) -> Self {
        let b = listening("b", &format!("{scheme}://127.0.0.1:0")).await;
        let a = dialling("a").await;
        let (link, _) = a.connect(LinkConfig::new(id("b"), [b.local_addresses()[0].clone()])).await.expect("a session");
        Self { b, link, a }
    }

    /// Nobody but the one peer has a session, and it works.
    async fn check(self) {
        let session_b = self.b.accept().await.expect("the other end");
        assert_eq!(session_b.peer().node_id, self.a.id());
        assert!(self.b.accept().now_or_never().is_none(), "a stranger has a session");
        let session_a = self.link.session().await.expect("a session");
        both_ways(&session_a, &session_b, 1, 1 << 20).await;
        assert_eq!(self.b.session_count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_not_told_why() {
    let peaceful = Peaceful::new("tcp").await;
    let address = peaceful.b.local_addresses()[0].clone();
    let base = settings("rogue");
    assert!(refused_over_raw(&base, &None, &address).await, "no certificate");
    for (papers, finding) in wrong_papers(&ExtendedKeyUsagePurpose::ClientAuth) {
        assert!(refused_over_raw(&base, &papers, &address).await, "{finding}");
    }
    peaceful.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_under_tls() {
    let peaceful = Peaceful::new("tls").await;
    let address = peaceful.b.local_addresses()[0].clone();
    let base = settings("rogue");
    let without = refused_over_tls(&base, &None, &address, ALPN_TLS).await;
    assert!(without.contains("CertificateRequired"), "{without}");
    for (papers, finding) in wrong_papers(&ExtendedKeyUsagePurpose::ClientAuth) {
        let error = refused_over_tls(&base, &papers, &address, ALPN_TLS).await;
        assert!(error.contains("received fatal alert"), "{finding}: {error}");
        assert!(!error.contains("rogue") && !error.contains("issuer"), "{finding}: {error}");
    }
    peaceful.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_under_quic() {
    let peaceful = Peaceful::new("quic").await;
    let address = peaceful.b.local_addresses()[0].clone();
    let base = settings("rogue");
    let without = refused_over_quic(&base, &None, &address, ALPN_QUIC).await;
    assert!(!without.ends_with("bytes"), "{without}");
    for (papers, finding) in wrong_papers(&ExtendedKeyUsagePurpose::ClientAuth) {
        let error = refused_over_quic(&base, &papers, &address, ALPN_QUIC).await;
        assert!(!error.ends_with("bytes"), "{finding}: {error}");
        assert!(!error.contains("rogue") && !error.contains("issuer"), "{finding}: {error}");
    }
    peaceful.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_above_quic_is_refused() {
    let peaceful = Peaceful::new("quic").await;
    let address = peaceful.b.local_addresses()[0].clone();
    let a: TlsSettings = settings("a");
    let papers = a.identity().certified_key();
    for alpn in [&b"h3"[..], ALPN_TLS, b"longhaul/1"] {
        let error = refused_over_quic(&a, &papers, &address, alpn).await;
        assert!(error.contains("NoApplicationProtocol"), "{error}");
    }
    peaceful.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_above_tls_is_refused() {
    let peaceful = Peaceful::new("tls").await;
    let address = peaceful.b.local_addresses()[0].clone();
    let a: TlsSettings = settings("a");
    let papers = a.identity().certified_key();
    let error = refused_over_tls(&a, &papers, &address, b"h2").await;
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    // The session's own protocol is not that of the outer handshake, though the same key signs in both.
    let error = refused_over_tls(&a, &papers, &address, b"longhaul/1").await;
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    peaceful.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_refused_is_told_where_to_look() {
    let impostor =
        CertificateAuthority::generate("test", KeyType::P256, Validity::from_now(Duration::from_secs(3600))).unwrap();
    let b = listening("b", "tcp://127.0.0.1:0").await;
    // It trusts b, and b does not trust it.
    let identity = settings_by(&impostor, "a").identity();
    let anchors = TrustAnchors::from_pem(authority().certificate_pem().as_bytes()).unwrap();
    let time = std::sync::Arc::new(rustls::time_provider::DefaultTimeProvider);
    let a = TlsSettings::new(identity, anchors, default_provider(), time).unwrap();
    let a = Node::builder(a).build().await.unwrap();
    let refused = soon(a.connect(LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]))).await;
    let error = refused.expect_err("b does not trust it").to_string();
    assert!(error.contains("the peer refused the handshake; its log says why"), "{error}");
    assert_eq!(a.session_count() + b.session_count(), 0);
}
