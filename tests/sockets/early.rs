//! Sessions that send before the peer has accepted them: what they say arrives, what is too much waits, and a refusal
//! ends them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use futures_util::FutureExt;
use longhaul::base::limits::{EARLY_STREAMS, EARLY_WINDOW_BYTES};
use longhaul::channel::Address;
use longhaul::crypto::identity::{TlsSettings, TrustAnchors, default_provider};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::node::{Link, LinkConfig, Node, NodeConfig, RecvStream, SendStream, Session, SessionError};
use longhaul::service::{Allow, ForwardConfig, Gateway, ServiceConfig, Services};
use longhaul::session::CloseReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::common::{authority, dialling, id, listening, listening_with, pattern, settings_by};
use crate::rogue::socket_address;
use crate::transfer::{both_ways, eventually, soon};
use crate::udp_path::UdpPath;

/// A way to a listener whose answers can be held back once its handshake is over: what arrives by then was sent without
/// waiting for them.
enum Way {
    Quic(UdpPath),
    Stream { address: Address, is_silenced: watch::Sender<bool> },
}

impl Way {
    /// A way that holds the answers back.
    async fn to(address: &Address) -> Self {
        if let Address::Quic { .. } = address {
            let path = UdpPath::to(address).await;
            path.silence_listener(true);
            return Self::Quic(path);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (front, target) = (listener.local_addr().unwrap(), socket_address(address).parse().unwrap());
        let is_silenced = watch::Sender::new(true);
        tokio::spawn(relay(listener, target, is_silenced.clone()));
        Self::Stream { address: format!("{}://{front}", address.kind()).parse().unwrap(), is_silenced }
    }

    fn address(&self) -> Address {
        match self {
            Self::Quic(path) => path.address(),
            Self::Stream { address, .. } => address.clone(),
        }
    }

    fn let_answers_through(&self) {
        match self {
            Self::Quic(path) => path.silence_listener(false),
            Self::Stream { is_silenced, .. } => drop(is_silenced.send_replace(false)),
        }
    }
}

async fn relay(listener: TcpListener, target: SocketAddr, is_silenced: watch::Sender<bool>) {
    while let Ok((dialler, _)) = listener.accept().await {
        let (from_dialler, to_dialler) = dialler.into_split();
        let (from_listener, to_listener) = TcpStream::connect(target).await.unwrap().into_split();
        let turns = Arc::new(Turns::default());
        tokio::spawn(carry_to_listener(from_dialler, to_listener, Arc::clone(&turns)));
        tokio::spawn(carry_to_dialler(from_listener, to_dialler, turns, is_silenced.subscribe()));
    }
}

/// Who has spoken. The dialler's second flight, which it sends once it has all of the listener's first one, ends the
/// handshake.
#[derive(Default)]
struct Turns {
    listener_has_spoken: AtomicBool,
    is_over: AtomicBool,
}

async fn carry_to_listener(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, turns: Arc<Turns>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let size = from.read(&mut buffer).await.unwrap_or(0);
        if turns.listener_has_spoken.load(Relaxed) {
            turns.is_over.store(true, Relaxed);
        }
        if size == 0 || to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}

async fn carry_to_dialler(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    turns: Arc<Turns>,
    mut is_silenced: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 65_536];
    loop {
        let size = from.read(&mut buffer).await.unwrap_or(0);
        if turns.is_over.load(Relaxed) && is_silenced.wait_for(|is_silenced| !is_silenced).await.is_err() {
            return;
        }
        turns.listener_has_spoken.store(true, Relaxed);
        if size == 0 || to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}

/// Two nodes, and a link whose session is early for as long as the answers are held back.
struct Early {
    a: Node,
    b: Node,
    way: Way,
    link: Link,
    session: Session,
}

impl Early {
    async fn new(scheme: &str) -> Self {
        let (a, b) = (dialling("a").await, listening("b", &format!("{scheme}://127.0.0.1:0")).await);
        let way = Way::to(&b.local_addresses()[0]).await;
        let link = a.link(LinkConfig::new(id("b"), [way.address()]));
        let session = soon(link.early_session()).await.expect("an early session");
        Self { a, b, way, link, session }
    }

    /// The session is not reported as what it is not.
    fn check_not_connected(&self) {
        assert!(!self.session.is_connected() && self.session.connected().now_or_never().is_none());
        let status = self.link.status();
        assert!(status.session.is_none() && self.link.session().now_or_never().is_none());
        assert_eq!(status.early_session.map(|session| session.id()), Some(self.session.id()));
        assert_eq!(self.session.peer().node_id, id("b"), "whose identity is known");
    }

    /// The answer comes, and the session is the link's.
    async fn check_connects(&self) {
        self.way.let_answers_through();
        soon(self.session.connected()).await.expect("it is accepted");
        let session = soon(self.link.session()).await.expect("a session");
        assert_eq!(session.id(), self.session.id());
        assert_eq!(soon(self.link.early_session()).await.expect("the same").id(), session.id());
        assert!(self.link.status().early_session.is_none(), "there is only the connected one");
    }
}

const SCHEMES: [&str; 3] = ["tcp", "tls", "quic"];

/// Those whose own handshake makes the session, which so begins before the peer has told its windows and versions.
const WITH_TLS: [&str; 2] = ["tls", "quic"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_arrive_before_any_answer_has_come() {
    for scheme in SCHEMES {
        let early = Early::new(scheme).await;
        let (mut send, mut recv) = soon(early.session.open_bi()).await.expect("a stream");
        send.write_all(b"early").await.expect("room");
        let session_b = soon(early.b.accept()).await.expect("the other end");
        assert!(session_b.is_connected());
        let (mut send_b, mut recv_b) = soon(session_b.accept_bi()).await.expect("the stream");
        let mut bytes = [0; 5];
        soon(recv_b.read_exact(&mut bytes)).await.expect("its bytes");
        assert_eq!(&bytes, b"early", "{scheme}");
        early.check_not_connected();
        send_b.write_all(b"answer").await.expect("room");
        send_b.finish().expect("an open stream");
        early.check_connects().await;
        assert_eq!(soon(recv.read_to_end(100)).await.expect("the answer"), b"answer");
        both_ways(&early.session, &session_b, 3, 1 << 20).await;
        assert_eq!(early.a.session_count(), 1);
    }
}

/// Reads so many streams side by side, and counts meanwhile.
async fn read_all(session: Session, streams: usize, arrived: Arc<AtomicUsize>) -> Vec<Vec<u8>> {
    let mut readers = Vec::new();
    for _ in 0..streams {
        let (mut recv, arrived) = (session.accept_uni().await.expect("a stream"), Arc::clone(&arrived));
        readers.push(tokio::spawn(async move {
            let mut bytes = Vec::new();
            while let Some(chunk) = recv.read_chunk(usize::MAX).await.expect("a whole stream") {
                arrived.fetch_add(chunk.len(), Relaxed);
                bytes.extend_from_slice(&chunk);
            }
            bytes
        }));
    }
    let mut all = Vec::new();
    for reader in readers {
        all.push(reader.await.expect("no panic"));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_waits_for_the_answer_and_goes_on_by_itself() {
    // Without acknowledgements QUIC itself sends no more than its first window.
    for (scheme, size) in [("tls", 20_000), ("quic", 200)] {
        let early = Early::new(scheme).await;
        let (streams, early_streams) = (3 * EARLY_STREAMS as usize, EARLY_STREAMS as usize);
        let early_bytes = (early_streams * size).min(EARLY_WINDOW_BYTES as usize);
        let session = early.session.clone();
        let writing = tokio::spawn(async move {
            for number in 0..streams {
                let mut send = session.open_uni().await?;
                send.write_chunk(pattern(size, number as u64).into()).await.expect("room");
                send.finish().expect("an open stream");
            }
            Ok::<_, SessionError>(())
        });
        let session_b = soon(early.b.accept()).await.expect("the other end");
        let arrived = Arc::new(AtomicUsize::new(0));
        let reading = tokio::spawn(read_all(session_b, streams, Arc::clone(&arrived)));
        eventually("what may leave has arrived", || arrived.load(Relaxed) == early_bytes).await;
        early.check_not_connected();
        assert!(!writing.is_finished(), "more streams than may be opened");
        early.check_connects().await;
        for (number, bytes) in soon(reading).await.expect("no panic").into_iter().enumerate() {
            assert_eq!(bytes, pattern(size, number as u64));
        }
        soon(writing).await.expect("no panic").expect("all were opened");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_wait_until_the_peer_has_said_how_large_they_may_be() {
    let early = Early::new("quic").await;
    assert!(early.session.open_datagrams().now_or_never().is_none());
    early.check_connects().await;
    let flow = soon(early.session.open_datagrams()).await.expect("a flow");
    flow.send(vec![1; 1000].into()).expect("the peer takes datagrams");
}

/// What a peer that does not trust this node lets an application see.
async fn fate(session: &Session) -> Result<Option<bytes::Bytes>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (mut send, mut recv): (SendStream, RecvStream) = session.open_bi().await.map_err(|error| text(&error))?;
    send.write_all(b"secret").await.map_err(|error| text(&error))?;
    recv.read_chunk(100).await.map_err(|error| text(&error))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_refused_learns_it_from_its_streams() {
    let impostor =
        CertificateAuthority::generate("test", KeyType::P256, Validity::from_now(Duration::from_secs(3600))).unwrap();
    for scheme in SCHEMES {
        let b = listening("b", &format!("{scheme}://127.0.0.1:0")).await;
        // It trusts b, and b does not trust it.
        let anchors = TrustAnchors::from_pem(authority().certificate_pem().as_bytes()).unwrap();
        let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
        let identity = settings_by(&impostor, "a").identity();
        let a = TlsSettings::new(identity, anchors, default_provider(), time).unwrap();
        let a = Node::builder(a).build().await.unwrap();
        let mut link = a.link(LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]));
        for _ in 0..2 {
            let session = soon(link.early_session()).await.expect("an early session");
            let error = soon(fate(&session)).await.expect_err("a refusal");
            assert!(error.contains("instead of accepting"), "{scheme}: {error}");
            assert_eq!(soon(session.connected()).await, Err(SessionError::Closed(CloseReason::NotAccepted)));
            while link.status().last_error.is_none() || link.status().early_session.is_some() {
                soon(link.changed()).await;
            }
            let error = link.status().last_error.expect("the attempt failed").to_string();
            assert!(error.contains("the peer refused the handshake"), "{scheme}: {error}");
            assert!(link.status().session.is_none() && link.session().now_or_never().is_none());
        }
        assert!(b.accept().now_or_never().is_none() && b.session_count() == 0, "nothing was made of it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_session_ends_with_its_link() {
    for scheme in SCHEMES {
        let Early { a, b: _b, way: _way, link, session } = Early::new(scheme).await;
        let (mut send, mut recv) = soon(session.open_bi()).await.expect("a stream");
        send.write_all(b"early").await.expect("room");
        drop(link);
        soon(session.closed()).await;
        assert!(soon(recv.read_chunk(1)).await.is_err());
        assert!(soon(session.connected()).await.is_err() && soon(session.open_bi()).await.is_err());
        assert_eq!(a.session_count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_session_that_is_not_answered_gives_way_to_another_address() {
    for scheme in SCHEMES {
        let addresses = [&*format!("{scheme}://127.0.0.1:0"), "tcp://127.0.0.1:0"];
        let b = listening_with("b", &addresses, NodeConfig::default()).await;
        let way = Way::to(&b.local_addresses()[0]).await;
        let tcp = crate::proxy::Proxy::to(&b.local_addresses()[1]);
        // Only until there is an early session: which of the two comes first is not what this looks at.
        tcp.set_door(crate::proxy::Door::Swallow);
        let a = dialling("a").await;
        let link = a.link(LinkConfig::new(id("b"), [way.address(), tcp.address()]));
        let early = soon(link.early_session()).await.expect("an early session");
        assert!(!early.is_connected());
        let (_send, mut recv) = soon(early.open_bi()).await.expect("a stream");
        tcp.set_door(crate::proxy::Door::Open);
        let session = soon(link.session()).await.expect("the other address");
        assert!(session.is_connected() && session.id() != early.id());
        assert!(link.status().early_session.is_none());
        soon(early.closed()).await;
        assert!(soon(recv.read_chunk(1)).await.is_err());
        eventually("only the link's session is left", || a.session_count() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_the_peer_does_not_speak_costs_the_early_session_only() {
    for scheme in WITH_TLS {
        let (a, b) = (dialling("a").await, listening("b", &format!("{scheme}://127.0.0.1:0")).await);
        let way = Way::to(&b.local_addresses()[0]).await;
        let mut config = LinkConfig::new(id("b"), [way.address()]);
        let spoken = config.session.versions[0];
        config.session.versions = vec![spoken + 1, spoken];
        let link = a.link(config);
        let early = soon(link.early_session()).await.expect("an early session");
        way.let_answers_through();
        let error = soon(early.connected()).await.expect_err("another version");
        assert_eq!(error, SessionError::Closed(CloseReason::NotAccepted));
        let next = soon(link.early_session()).await.expect("another one");
        assert_ne!(next.id(), early.id());
        soon(next.connected()).await.expect("a version that is spoken");
        assert_eq!(soon(link.session()).await.expect("a session").id(), next.id());
        let session_b = soon(b.accept()).await.expect("the other end");
        assert_eq!(session_b.id(), next.id(), "the first one was none");
        both_ways(&next, &session_b, 5, 1 << 20).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_does_not_wait_for_the_answer() {
    for scheme in SCHEMES {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target_address = format!("tcp://{}", target.local_addr().unwrap()).parse::<Address>().unwrap();
        let b = listening("b", &format!("{scheme}://127.0.0.1:0")).await;
        let way = Way::to(&b.local_addresses()[0]).await;
        let service = ServiceConfig::new("echo", target_address, Allow::Everyone);
        let _b = Gateway::start(b, Services::new([service]));
        let a = Gateway::start(dialling("a").await, Services::new([]));
        let listen: Address = "tcp://127.0.0.1:0".parse().unwrap();
        let forward = a.forward(ForwardConfig::new(listen, id("b"), "echo")).await.expect("a forward");
        // It waits for the link, which is not there yet.
        let forward_address = forward.local_address().to_string();
        let mut client = TcpStream::connect(forward_address.trim_start_matches("tcp://")).await.unwrap();
        client.write_all(b"early").await.unwrap();
        a.add_link(a.node().link(LinkConfig::new(id("b"), [way.address()])));
        let (mut served, _) = soon(target.accept()).await.expect("a connection");
        let mut bytes = [0; 5];
        soon(served.read_exact(&mut bytes)).await.expect("its bytes");
        assert_eq!(&bytes, b"early");
        let sessions = a.peers().all();
        assert!(sessions.len() == 1 && !sessions[0].is_connected());
        served.write_all(b"answer").await.unwrap();
        way.let_answers_through();
        let mut answer = [0; 6];
        soon(client.read_exact(&mut answer)).await.expect("the answer");
        assert_eq!(&answer, b"answer", "{scheme}");
        let session = soon(a.links()[0].session()).await.expect("a session");
        let mut another = TcpStream::connect(forward_address.trim_start_matches("tcp://")).await.unwrap();
        another.write_all(b"later").await.unwrap();
        let (mut served, _) = soon(target.accept()).await.expect("another connection");
        soon(served.read_exact(&mut bytes)).await.expect("its bytes");
        let sessions = a.peers().all();
        assert!(sessions.len() == 1 && sessions[0].id() == session.id(), "the same one, and once");
    }
}
