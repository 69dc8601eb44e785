//! Certificates and nodes for tests.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longhaul::channel::{Address, ListenOptions};
use longhaul::crypto::identity::{Identity, NodeId, TlsSettings, TrustAnchors, default_provider};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::node::{LinkConfig, Node, Session};

/// One authority for all tests of this binary.
pub(crate) fn authority() -> &'static CertificateAuthority {
    static AUTHORITY: OnceLock<CertificateAuthority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        CertificateAuthority::generate("test", KeyType::P256, Validity::from_now(Duration::from_secs(3600)))
            .expect("an authority")
    })
}

/// A node's settings, certified by `authority`, trusting it.
pub(crate) fn settings_by(authority: &CertificateAuthority, name: &str) -> TlsSettings {
    let issued =
        authority.issue_node(name, KeyType::P256, Validity::from_now(Duration::from_secs(600))).expect("a certificate");
    let provider = default_provider();
    let identity = Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes(), &provider)
        .expect("an identity");
    let anchors = TrustAnchors::from_pem(authority.certificate_pem().as_bytes()).expect("anchors");
    let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
    TlsSettings::new(identity, anchors, provider, time).expect("settings")
}

/// A node's settings by the common authority.
pub(crate) fn settings(name: &str) -> TlsSettings {
    settings_by(authority(), name)
}

/// The id of a node of the common authority.
pub(crate) fn id(name: &str) -> NodeId {
    NodeId::new("test", name).expect("a valid name")
}

/// A node that listens on an address.
pub(crate) async fn listening(name: &str, address: &str) -> Node {
    let address: Address = address.parse().expect("a valid address");
    Node::builder(settings(name)).listen(address, ListenOptions::default()).build().await.expect("a listening node")
}

/// A node that only dials.
pub(crate) async fn dialling(name: &str) -> Node {
    Node::builder(settings(name)).build().await.expect("a node")
}

/// A link from a fresh node "a" to a fresh node "b", and the sessions at both ends.
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) link: longhaul::node::Link,
    pub(crate) session_a: Session,
    pub(crate) session_b: Session,
}

/// Connects two nodes over one address of b with `count` channels.
pub(crate) async fn pair(address: &str, count: u32) -> Pair {
    pair_with(address, |config| config.addresses[0].count = count).await
}

/// Connects two nodes, with a link that `change` changes.
pub(crate) async fn pair_with(address: &str, change: impl FnOnce(&mut LinkConfig)) -> Pair {
    let b = listening("b", address).await;
    let a = dialling("a").await;
    let mut config = LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]);
    change(&mut config);
    let (link, session_a) = a.connect(config).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    Pair { a, b, link, session_a, session_b }
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}
