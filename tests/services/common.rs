//! Two nodes with a link, targets, and clients.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longhaul::channel::{Address, ListenOptions};
use longhaul::crypto::identity::{Identity, NodeId, Roles, TlsSettings, TrustAnchors, default_provider};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::node::{LinkConfig, Node};
use longhaul::service::{Allow, Endpoint, Forward, ForwardConfig, Gateway, ServiceConfig, Services};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn authority() -> &'static CertificateAuthority {
    static AUTHORITY: OnceLock<CertificateAuthority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        CertificateAuthority::generate("test", KeyType::P256, Validity::from_now(Duration::from_secs(3600))).unwrap()
    })
}

pub fn settings(name: &str) -> TlsSettings {
    settings_with(name, &[])
}

/// The settings of a node that has these roles.
pub fn settings_with(name: &str, roles: &[&str]) -> TlsSettings {
    let validity = Validity::from_now(Duration::from_secs(600));
    let roles = Roles::new(roles.iter().map(|role| role.parse().unwrap())).unwrap();
    let issued = authority().issue_node_with(name, &roles, KeyType::P256, validity).unwrap();
    let provider = default_provider();
    let identity = Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes(), &provider).unwrap();
    let anchors = TrustAnchors::from_pem(authority().certificate_pem().as_bytes()).unwrap();
    let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
    TlsSettings::new(identity, anchors, provider, time).unwrap()
}

pub fn id(name: &str) -> NodeId {
    NodeId::new("test", name).unwrap()
}

pub fn tcp(port: u16) -> Address {
    Address::Tcp { host: "127.0.0.1".to_owned(), port }
}

/// Node "b" listens, node "a" dials it.
pub struct Net {
    pub a: Gateway,
    pub b: Gateway,
    folder: TempDir,
}

impl Net {
    /// Two nodes of which b offers services.
    pub async fn new(services: impl IntoIterator<Item = ServiceConfig>) -> Self {
        Self::with(Vec::new(), services).await
    }

    /// Two nodes, each with its services.
    pub async fn with(
        of_a: impl IntoIterator<Item = ServiceConfig>,
        of_b: impl IntoIterator<Item = ServiceConfig>,
    ) -> Self {
        let b = Node::builder(settings("b")).listen(tcp(0), ListenOptions::default()).build().await.unwrap();
        let a = Node::builder(settings("a")).build().await.unwrap();
        let link = a.link(LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]));
        let b = Gateway::start(b, Services::new(of_b));
        let a = Gateway::start(a, Services::new(of_a));
        a.add_link(link);
        Self { a, b, folder: tempfile::tempdir().unwrap() }
    }

    /// A path for a socket of this test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A forward at a to a service of b.
    pub async fn forward(&self, service: &str) -> Arc<Forward> {
        self.a.forward(ForwardConfig::new(tcp(0), id("b"), service)).await.unwrap()
    }
}

/// A service for every node.
pub fn open_service(name: &str, target: Address) -> ServiceConfig {
    ServiceConfig::new(name, target, Allow::Everyone)
}

/// Connects to where a forward listens.
pub async fn client(forward: &Forward) -> TcpStream {
    connect(forward).await.unwrap()
}

/// The same, for a connection that may be reset at once.
pub async fn connect(forward: &Forward) -> io::Result<TcpStream> {
    let Endpoint::Stream(Address::Tcp { host, port }) = forward.local_address() else {
        panic!("the forward listens on TCP")
    };
    TcpStream::connect((host.as_str(), *port)).await
}

/// An application's listener.
pub async fn target() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, tcp(port))
}

/// A target that sends back what it gets, for as many connections as come.
pub async fn echo() -> Address {
    let (listener, address) = target().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(echo_on(stream.into_split()));
        }
    });
    address
}

/// The same on a Unix socket.
pub fn echo_unix(path: PathBuf) -> Address {
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo_on(stream.into_split()));
        }
    });
    Address::Unix { path }
}

async fn echo_on((mut read, mut write): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin)) -> io::Result<()> {
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

/// Sends all of `data`, ends, and reads the answer to its end.
pub async fn exchange(stream: impl AsyncRead + AsyncWrite, data: &[u8]) -> io::Result<Vec<u8>> {
    let (mut read, mut write) = tokio::io::split(Box::pin(stream));
    let mut answer = Vec::new();
    let sending = async {
        write.write_all(data).await?;
        write.shutdown().await
    };
    let (sent, received) = tokio::join!(sending, read.read_to_end(&mut answer));
    sent.and(received).map(|_| answer)
}

/// Within patience, or a failed test.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("this takes too long")
}

/// Waits until something holds that nobody announces.
pub async fn until(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Whether the other end reset the connection.
pub async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 64];
    match soon(stream.read(&mut buffer)).await {
        Ok(count) => {
            assert_eq!(count, 0, "nothing but an end was expected");
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            true
        }
    }
}

/// Whether the next client of a forward is reset, which it may be before it knows that it is connected.
pub async fn next_is_reset(forward: &Forward) -> bool {
    match connect(forward).await {
        Ok(mut stream) => is_reset(&mut stream).await,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

pub async fn connect_unix(path: &std::path::Path) -> UnixStream {
    UnixStream::connect(path).await.unwrap()
}

/// Bytes that differ from place to place.
pub fn pattern(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..size).map(|_| next()).collect()
}
