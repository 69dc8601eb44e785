//! Certificates and nodes for tests.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longhaul::channel::{Address, ListenOptions};
use longhaul::crypto::identity::{Identity, NodeId, TlsSettings, TrustAnchors, default_provider};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::node::{LinkConfig, Node, NodeBuilder, NodeConfig, Session};

use crate::proxy::Proxy;

/// Shows what nodes log, when `RUST_LOG` asks for it.
fn log() {
    // Whoever comes second finds it done.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
}

/// One authority for all tests of this binary.
pub(crate) fn authority() -> &'static CertificateAuthority {
    log();
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
    listening_with(name, &[address], NodeConfig::default()).await
}

/// A node that listens on addresses.
pub(crate) async fn listening_with(name: &str, addresses: &[&str], config: NodeConfig) -> Node {
    let mut builder = Node::builder(settings(name)).config(config);
    for address in addresses {
        let address: Address = address.parse().expect("a valid address");
        builder = builder.listen(address, ListenOptions::default());
    }
    builder.build().await.expect("a listening node")
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

/// Connects a fresh node "a" to a node over its first address.
pub(crate) async fn pair_to(b: Node) -> Pair {
    let a = dialling("a").await;
    let (link, session_a) =
        a.connect(LinkConfig::new(id("b"), [b.local_addresses()[0].clone()])).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    Pair { a, b, link, session_a, session_b }
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

/// Connects two nodes with `count` channels through a proxy; `scheme` is `tcp` or `tls`.
pub(crate) async fn proxied(scheme: &str, count: u32) -> (Pair, Proxy) {
    proxied_with(scheme, |_| {}, |config| config.addresses[0].count = count).await
}

/// Connects two nodes through a proxy, of which `node` changes the listening one and `link` the link.
pub(crate) async fn proxied_with(
    scheme: &str,
    node: impl FnOnce(&mut NodeConfig),
    link: impl FnOnce(&mut LinkConfig),
) -> (Pair, Proxy) {
    let builders = ["a", "b"].map(|name| Node::builder(settings(name)));
    proxied_between(builders, scheme, node, link).await
}

/// The same with builders of nodes "a" and "b".
pub(crate) async fn proxied_between(
    [a, b]: [NodeBuilder; 2],
    scheme: &str,
    node: impl FnOnce(&mut NodeConfig),
    link: impl FnOnce(&mut LinkConfig),
) -> (Pair, Proxy) {
    let mut config = NodeConfig::default();
    node(&mut config);
    let address = format!("{scheme}://127.0.0.1:0").parse().expect("a valid address");
    let b = b.config(config).listen(address, ListenOptions::default()).build().await.expect("a listening node");
    let proxy = Proxy::to(&b.local_addresses()[0]);
    let a = a.build().await.expect("a node");
    let mut config = LinkConfig::new(id("b"), [proxy.address()]);
    link(&mut config);
    let (link, session_a) = a.connect(config).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    (Pair { a, b, link, session_a, session_b }, proxy)
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
