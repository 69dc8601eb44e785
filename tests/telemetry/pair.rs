//! Two nodes with a link, of which one is watched, and an echo behind it.

use std::sync::Arc;
use std::time::Duration;

use longhaul::channel::{Address, ListenOptions};
use longhaul::crypto::identity::{Identity, NodeId, TlsSettings, TrustAnchors, default_provider};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::node::{LinkConfig, Node};
use longhaul::service::{Allow, Endpoint, ForwardConfig, Gateway, ServiceConfig, Services};
use longhaul::telemetry::{Settings, Telemetry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The name of the node at the other end, as metrics have it.
pub const PEER: &str = "spiffe://test/node/b";

/// Node "b" listens and offers "echo", node "a" dials it, forwards to it, and is watched.
pub struct Pair {
    pub telemetry: Telemetry,
    pub a: Arc<Gateway>,
    pub b: Gateway,
    forward: Endpoint,
}

impl Pair {
    pub async fn new(scheme: &str, settings: &Settings) -> Self {
        Self::with_peer(scheme, settings, None).await
    }

    /// The same, with node "b" watched, too.
    pub async fn with_peer(scheme: &str, settings: &Settings, of_b: Option<&Telemetry>) -> Self {
        let authority =
            CertificateAuthority::generate("test", KeyType::P256, Validity::from_now(Duration::from_secs(3600)))
                .unwrap();
        let telemetry = Telemetry::new("spiffe://test/node/a", settings).unwrap();
        let listen: Address = format!("{scheme}://127.0.0.1:0").parse().unwrap();
        let mut b = Node::builder(tls(&authority, "b")).listen(listen, ListenOptions::default());
        if let Some(telemetry) = of_b {
            b = b.observer(telemetry.observer());
        }
        let b = b.build().await.unwrap();
        if let Some(telemetry) = of_b {
            telemetry.watch(&b);
        }
        let a = Node::builder(tls(&authority, "a")).observer(telemetry.observer()).build().await.unwrap();
        let peer = NodeId::new("test", "b").unwrap();
        let mut link = LinkConfig::new(peer.clone(), [b.local_addresses()[0].clone()]);
        link.addresses[0].count = 2;
        let link = a.link(link);
        let service = ServiceConfig::new("echo", echo().await, Allow::Everyone);
        let (a, b) = (Gateway::start(a, Services::new([])), Gateway::start(b, Services::new([service])));
        let a = Arc::new(a);
        telemetry.watch(a.node());
        telemetry.watch_gateway(&a);
        a.add_link(link);
        let local: Address = "tcp://127.0.0.1:0".parse().unwrap();
        let forward = a.forward(ForwardConfig::new(local, peer, "echo")).await.unwrap();
        let forward = forward.local_address().clone();
        Self { telemetry, a, b, forward }
    }

    /// Exchanges a little again and again while something is waited for: on a busy machine a single round trip may not
    /// be measured, as time in which a side did not run says nothing about a path.
    pub async fn busy_until<T>(&self, what: &str, holds: impl FnMut() -> Option<T>) -> T {
        let exchanging = async {
            loop {
                self.exchange(1000).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            found = until(what, holds) => found,
            () = exchanging => unreachable!("it goes on for ever"),
        }
    }

    /// Sends bytes through the forward, and reads as many back.
    pub async fn exchange(&self, size: usize) {
        let Endpoint::Stream(Address::Tcp { host, port }) = &self.forward else { panic!("the forward is TCP") };
        let stream = TcpStream::connect((host.as_str(), *port)).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let data = vec![7; size];
        let mut answer = vec![0; size];
        let sending = async {
            write.write_all(&data).await.unwrap();
            write.shutdown().await.unwrap();
        };
        soon(async { tokio::join!(sending, read.read_exact(&mut answer)).1.unwrap() }).await;
        assert!(answer == data);
    }
}

fn tls(authority: &CertificateAuthority, name: &str) -> TlsSettings {
    let issued = authority.issue_node(name, KeyType::P256, Validity::from_now(Duration::from_secs(600))).unwrap();
    let provider = default_provider();
    let identity = Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes(), &provider).unwrap();
    let anchors = TrustAnchors::from_pem(authority.certificate_pem().as_bytes()).unwrap();
    TlsSettings::new(identity, anchors, provider, Arc::new(rustls::time_provider::DefaultTimeProvider)).unwrap()
}

/// A target that sends back what it gets.
async fn echo() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
            });
        }
    });
    Address::Tcp { host: "127.0.0.1".to_owned(), port }
}

/// Within patience, or a failed test.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("this takes too long")
}

/// Waits until something holds that nobody announces.
pub async fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = holds() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("this takes too long: {what}"))
}
