//! Peers that come back: what is replay-safe arrives with the first flight, once, whoever repeats it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use longhaul::base::{CloseCode, Direction, StreamId, limits};
use longhaul::channel::{Address, ListenOptions};
use longhaul::crypto::identity::{TlsSettings, TrustAnchors};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::node::{Link, LinkConfig, Node, NodeConfig, Session};
use longhaul::service::{Allow, ForwardConfig, Gateway, ServiceConfig, Services};
use longhaul::session::CloseReason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

use crate::common::{dialling, id, settings};
use crate::exchange::denying;
use crate::liar::Liar;
use crate::rogue::socket_address;
use crate::transfer::{eventually, soon};
use crate::udp_path::UdpPath;

/// A way to a listener, whose answers can be held back from the first one on. What is said to it is recorded.
enum Way {
    Quic(UdpPath),
    Stream { address: Address, target: watch::Sender<Address>, hears: watch::Sender<bool>, said: Said },
}

impl Way {
    async fn to(to: &Address) -> Self {
        if let Address::Quic { .. } = to {
            return Self::Quic(UdpPath::to(to).await);
        }
        let (target, hears) = (watch::Sender::new(to.clone()), watch::Sender::new(true));
        let said = Said::default();
        let relay = Relay { target: target.clone(), hears: hears.clone(), said: Arc::clone(&said) };
        let address = if let Address::Unix { path } = to {
            let path = path.with_extension("way");
            let listener = UnixListener::bind(&path).unwrap();
            tokio::spawn(async move {
                while let Ok((dialler, _)) = listener.accept().await {
                    tokio::spawn(relay.clone().carry(dialler));
                }
            });
            Address::Unix { path }
        } else {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("{}://{}", to.kind(), listener.local_addr().unwrap()).parse().unwrap();
            tokio::spawn(async move {
                while let Ok((dialler, _)) = listener.accept().await {
                    tokio::spawn(relay.clone().carry(dialler));
                }
            });
            address
        };
        Self::Stream { address, target, hears, said }
    }

    fn address(&self) -> Address {
        match self {
            Self::Quic(path) => path.address(),
            Self::Stream { address, .. } => address.clone(),
        }
    }

    fn hold_answers(&self, are_held: bool) {
        match self {
            Self::Quic(path) => path.mute_listener(are_held),
            Self::Stream { hears, .. } => drop(hears.send_replace(!are_held)),
        }
    }

    fn lead_to(&self, address: &Address) {
        match self {
            Self::Quic(path) => path.lead_to(address),
            Self::Stream { target, .. } => drop(target.send_replace(address.clone())),
        }
    }

    /// What the last connection said.
    fn said(&self) -> Vec<u8> {
        match self {
            Self::Quic(_) => Vec::new(),
            Self::Stream { said, .. } => said.lock().unwrap().last().cloned().unwrap_or_default(),
        }
    }
}

/// What each connection has said.
type Said = Arc<Mutex<Vec<Vec<u8>>>>;

#[derive(Clone)]
struct Relay {
    target: watch::Sender<Address>,
    hears: watch::Sender<bool>,
    said: Said,
}

impl Relay {
    async fn carry(self, dialler: impl AsyncRead + AsyncWrite + Send + 'static) {
        let target = self.target.borrow().clone();
        match &target {
            Address::Unix { path } => self.between(dialler, UnixStream::connect(path).await.unwrap()).await,
            address => self.between(dialler, TcpStream::connect(socket_address(address)).await.unwrap()).await,
        }
    }

    async fn between(
        self,
        dialler: impl AsyncRead + AsyncWrite + Send + 'static,
        listener: impl AsyncRead + AsyncWrite + Send + 'static,
    ) {
        let (mut from_dialler, mut to_dialler) = tokio::io::split(dialler);
        let (mut from_listener, mut to_listener) = tokio::io::split(listener);
        let said = Arc::clone(&self.said);
        let number = said.lock().unwrap().len();
        said.lock().unwrap().push(Vec::new());
        let there = async move {
            let mut buffer = vec![0; 65_536];
            loop {
                let size = from_dialler.read(&mut buffer).await.unwrap_or(0);
                said.lock().unwrap()[number].extend_from_slice(&buffer[..size]);
                if size == 0 || to_listener.write_all(&buffer[..size]).await.is_err() {
                    return;
                }
            }
        };
        let mut hears = self.hears.subscribe();
        let back = async move {
            let mut buffer = vec![0; 65_536];
            loop {
                let size = from_listener.read(&mut buffer).await.unwrap_or(0);
                if hears.wait_for(|hears| *hears).await.is_err() || size == 0 {
                    return;
                }
                if to_dialler.write_all(&buffer[..size]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! { () = there => {}, () = back => {} }
    }
}

/// Node b, listening with or without early data.
async fn listening(tls: TlsSettings, address: &Address, early_data: bool) -> Node {
    let options = ListenOptions { early_data, ..ListenOptions::default() };
    // The second one is for those that do not take the way.
    let second = "tcp://127.0.0.1:0".parse().unwrap();
    let node = Node::builder(tls).listen(address.clone(), options.clone()).listen(second, options);
    node.build().await.expect("a listening node")
}

/// A link that has had a session, and has tickets.
struct Returning {
    _a: Node,
    b: Node,
    b_tls: TlsSettings,
    way: Way,
    link: Link,
    session: Session,
    /// When it is dropped, it ends.
    _accepted: Session,
    _directory: tempfile::TempDir,
}

fn address_of(kind: &str, directory: &tempfile::TempDir) -> Address {
    match kind {
        "unix" => Address::Unix { path: PathBuf::from(directory.path()).join("b.sock") },
        kind => format!("{kind}://127.0.0.1:0").parse().unwrap(),
    }
}

async fn returning(kind: &str, early_data: bool) -> Returning {
    let directory = tempfile::tempdir().unwrap();
    let b_tls = settings("b");
    let b = listening(b_tls.clone(), &address_of(kind, &directory), early_data).await;
    let way = Way::to(&b.local_addresses()[0]).await;
    let a = dialling("a").await;
    let mut config = LinkConfig::new(id("b"), [way.address()]);
    config.addresses[0].count = 1;
    config.early_data = true;
    config.backoff_max = std::time::Duration::from_millis(200);
    let link = a.link(config);
    let session = soon(link.session()).await.expect("a session");
    let accepted = soon(b.accept()).await.expect("its other end");
    echo(&session, &accepted, b"hello").await;
    Returning { _a: a, b, b_tls, way, link, session, _accepted: accepted, _directory: directory }
}

/// Bytes there and back: the tickets, which are sent before, have arrived.
async fn echo(session: &Session, accepted: &Session, bytes: &[u8]) {
    let (mut send, mut recv) = soon(session.open_bi()).await.unwrap();
    soon(send.write_all(bytes)).await.unwrap();
    send.finish().unwrap();
    let (mut back, mut there) = soon(accepted.accept_bi()).await.unwrap();
    let heard = soon(there.read_to_end(1 << 20)).await.unwrap();
    soon(back.write_all(&heard)).await.unwrap();
    back.finish().unwrap();
    assert_eq!(soon(recv.read_to_end(1 << 20)).await.unwrap(), bytes);
}

impl Returning {
    /// Ends the session; the link makes another one, whose answers are held back.
    async fn come_back(&self) -> Session {
        self.way.hold_answers(true);
        self.session.close(CloseCode::NO_ERROR, "");
        let old = self.session.id();
        loop {
            let session = soon(self.link.early_session()).await.expect("the link lives");
            if session.id() != old {
                return session;
            }
            tokio::task::yield_now().await;
        }
    }
}

const KINDS: [&str; 3] = ["tcp", "unix", "quic"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_replay_safe_arrives_before_anything_was_answered() {
    for kind in KINDS {
        let returning = returning(kind, true).await;
        let session = returning.come_back().await;
        // This waits for the handshake.
        let (mut plain, _recv) = soon(session.open_bi()).await.unwrap();
        soon(plain.write_all(b"once only")).await.unwrap();
        plain.finish().unwrap();
        let (mut send, mut recv) = soon(session.stream().replay_safe().open_bi()).await.unwrap();
        soon(send.write_all(b"early")).await.unwrap();
        send.finish().unwrap();

        let accepted = soon(returning.b.accept()).await.expect("a session");
        assert!(accepted.is_early() && !accepted.is_connected() && !session.is_connected(), "{kind}");
        assert_eq!(accepted.peer().node_id, id("a"));
        // The stream below it is opened with it, and tells nothing yet.
        let (_, mut first) = soon(accepted.accept_bi()).await.unwrap();
        let (mut back, mut early) = soon(accepted.accept_bi()).await.unwrap();
        assert_eq!((first.id().index(), early.id()), (0, StreamId::new(session.side(), Direction::Bi, 1)));
        assert_eq!(soon(early.read_to_end(100)).await.unwrap(), b"early", "{kind}");
        assert!(early.is_early() && accepted.is_early(), "{kind}");
        soon(back.write_all(b"answer")).await.unwrap();
        back.finish().unwrap();

        returning.way.hold_answers(false);
        soon(session.connected()).await.expect("it is accepted");
        soon(accepted.connected()).await.expect("the client is there");
        assert!(!early.is_early());
        assert_eq!(soon(recv.read_to_end(100)).await.unwrap(), b"answer", "{kind}");
        assert_eq!(soon(first.read_to_end(100)).await.unwrap(), b"once only", "{kind}");
        echo(&session, &accepted, b"and so on").await;
        assert!(returning.b_tls.tickets().counters().used.load(std::sync::atomic::Ordering::Relaxed) > 0, "{kind}");
    }
}

/// A session of the same client, of which it never heard that it was accepted, ends soon after the handshake of the early one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_session_ends_those_that_its_client_may_not_know_of() {
    futures_util::future::join_all(KINDS.map(async |kind| {
        let returning = returning(kind, true).await;
        let liar = soon(Liar::dial("a", &returning.b.local_addresses()[1])).await;
        let abandoned = soon(returning.b.accept()).await.expect("its session");
        assert_eq!(abandoned.id(), liar.id, "{kind}");
        drop(liar);
        eventually("its channel is gone", || abandoned.stats().lanes.is_empty()).await;

        let session = returning.come_back().await;
        let (mut send, _recv) = soon(session.stream().replay_safe().open_bi()).await.unwrap();
        soon(send.write_all(b"early")).await.unwrap();
        let accepted = soon(returning.b.accept()).await.expect("a session");
        assert!(accepted.is_early(), "{kind}");
        returning.way.hold_answers(false);
        soon(session.connected()).await.expect("it is accepted");

        let CloseReason::ChannelsLost { after } = soon(abandoned.closed()).await else { panic!("another reason") };
        assert!(after >= limits::SURVIVE_UNCONFIRMED && after < limits::SURVIVE, "{kind}: {after:?}");
        assert_eq!(accepted.close_reason(), None, "{kind}");
    }))
    .await;
}

/// The listener takes no early data: it is sent again, in order and once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_that_is_not_taken_is_sent_again() {
    for kind in KINDS {
        let mut returning = returning(kind, true).await;
        // As after a restart: nothing is known of the ticket.
        let directory = tempfile::tempdir().unwrap();
        let after = listening(settings("b"), &address_of(kind, &directory), true).await;
        let _before = std::mem::replace(&mut returning.b, after);
        returning.way.lead_to(&returning.b.local_addresses()[0]);
        let session = returning.come_back().await;
        let bytes = crate::common::pattern(50_000, 7);
        let (mut send, _recv) = soon(session.stream().replay_safe().open_bi()).await.unwrap();
        soon(send.write_all(&bytes)).await.unwrap();
        send.finish().unwrap();
        returning.way.hold_answers(false);
        let accepted = soon(returning.b.accept()).await.expect("a session");
        assert!(!accepted.is_early());
        let (_send, mut recv) = soon(accepted.accept_bi()).await.unwrap();
        assert_eq!(soon(recv.read_to_end(1 << 20)).await.unwrap(), bytes, "{kind}");
        soon(session.connected()).await.unwrap();
        echo(&session, &accepted, b"and so on").await;
    }
}

/// The client's ticket is from a time when the listener took early data; now it takes none, and its windows are smaller than
/// what the client has sent by then. Nothing fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listener_that_takes_none_any_more_grants_what_was_sent_early() {
    for kind in KINDS {
        let mut returning = returning(kind, true).await;
        let directory = tempfile::tempdir().unwrap();
        let mut config = NodeConfig::default();
        let streams = &mut config.session.streams;
        (streams.stream_window, streams.session_window, streams.streams_max) = (1000, 1000, 1);
        let builder = Node::builder(returning.b_tls.clone()).config(config);
        let listener = builder.listen(address_of(kind, &directory), ListenOptions::default());
        let _before = std::mem::replace(&mut returning.b, listener.build().await.unwrap());
        returning.way.lead_to(&returning.b.local_addresses()[0]);
        let session = returning.come_back().await;
        let bytes = crate::common::pattern(60_000, 7);
        for _ in 0..2 {
            let (mut send, _recv) = soon(session.stream().replay_safe().open_bi()).await.unwrap();
            soon(send.write_all(&bytes)).await.unwrap();
            send.finish().unwrap();
        }
        returning.way.hold_answers(false);
        let accepted = soon(returning.b.accept()).await.expect("a session");
        for _ in 0..2 {
            let (_send, mut recv) = soon(accepted.accept_bi()).await.unwrap();
            assert_eq!(soon(recv.read_to_end(1 << 20)).await.unwrap(), bytes, "{kind}");
        }
        soon(session.connected()).await.unwrap();
        assert_eq!(returning.link.status().failure_count, 0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listener_that_takes_none_still_resumes() {
    for kind in ["tcp", "unix", "quic", "tls"] {
        let returning = returning(kind, false).await;
        let used = || returning.b_tls.tickets().counters().used.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(used(), 0);
        let mut last = returning.session.clone();
        // Tickets come a moment after the session: who is told to go before that has none to show yet.
        for _ in 0..10 {
            last.close(CloseCode::NO_ERROR, "");
            eventually("another session", || {
                returning.link.status().session.is_some_and(|session| session.id() != last.id())
            })
            .await;
            let session = soon(returning.link.session()).await.unwrap();
            let accepted = soon(returning.b.accept()).await.unwrap();
            assert!(!accepted.is_early());
            echo(&session, &accepted, b"again").await;
            if used() > 0 {
                break;
            }
            last = session;
        }
        assert!(used() > 0, "{kind}");
    }
}

/// The same flight, a hundred times, to the node that it was for, to that node restarted, and to another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_flight_has_no_further_effect() {
    let returning = returning("tcp", true).await;
    let session = returning.come_back().await;
    let (mut send, _recv) = soon(session.stream().replay_safe().open_bi()).await.unwrap();
    soon(send.write_all(b"transfer one coin")).await.unwrap();
    send.finish().unwrap();
    let accepted = soon(returning.b.accept()).await.expect("a session");
    let (_back, mut recv) = soon(accepted.accept_bi()).await.unwrap();
    assert_eq!(soon(recv.read_to_end(100)).await.unwrap(), b"transfer one coin");
    let flight = returning.way.said();
    let flight_text = String::from_utf8_lossy(&flight);
    assert!(!flight_text.contains("coin") && !flight_text.contains("spiffe"), "it is sealed, and names nobody");
    returning.way.hold_answers(false);
    soon(session.connected()).await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let restarted = listening(settings("b"), &address_of("tcp", &directory), true).await;
    let another = listening(settings("c"), &address_of("tcp", &directory), true).await;
    for node in [&returning.b, &restarted, &another] {
        let target = socket_address(&node.local_addresses()[0]);
        for _ in 0..100 {
            let mut thief = TcpStream::connect(&target).await.unwrap();
            thief.write_all(&flight).await.unwrap();
            // A full handshake is what is offered; the thief cannot go on with it.
            let mut answer = [0; 1];
            assert_eq!(soon(thief.read(&mut answer)).await.unwrap(), 1);
        }
        let further = tokio::select! {
            biased;
            further = node.accept() => further,
            () = std::future::ready(()) => None,
        };
        assert!(further.is_none(), "a repetition began a session");
    }
    assert_eq!(returning.b.session_count(), 1);
    let unknown = returning.b_tls.tickets().counters().unknown.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(unknown, 100, "a ticket is used once");
    assert!(!session.is_early() && session.is_connected());
}

/// What is trusted no more, or was purged, resumes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_end_with_what_they_came_from() {
    let returning = returning("tcp", true).await;
    assert!(returning.b_tls.tickets().count() > 0);
    // Another authority takes the place of the one behind the ticket: the full handshake that follows fails, too.
    let validity = Validity::from_now(std::time::Duration::from_secs(600));
    let other = CertificateAuthority::generate("test", KeyType::P256, validity).unwrap();
    let anchors = TrustAnchors::from_pem(other.certificate_pem().as_bytes()).unwrap();
    returning.b_tls.trust().set("test", anchors).unwrap();
    returning.session.close(CloseCode::NO_ERROR, "");
    eventually("a refusal", || returning.link.status().last_error.is_some()).await;
    let counters = returning.b_tls.tickets().counters();
    assert_eq!(counters.untrusted.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(counters.used.load(std::sync::atomic::Ordering::Relaxed), 0);

    let returning = self::returning("tcp", true).await;
    assert!(returning.b_tls.tickets().purge(|peer| peer.node_id == id("a")) > 0);
    assert_eq!(returning.b_tls.tickets().count(), 0);
    returning.session.close(CloseCode::NO_ERROR, "");
    let accepted = soon(returning.b.accept()).await.unwrap();
    assert!(!accepted.is_early());
    assert_eq!(returning.b_tls.tickets().counters().unknown.load(std::sync::atomic::Ordering::Relaxed), 1);
}

/// Who was revoked has a ticket, and the proof by which its session's channels join.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_peer_gets_nothing_by_its_ticket() {
    for kind in KINDS {
        let returning = returning(kind, true).await;
        assert!(returning.b_tls.tickets().count() > 0);
        assert!(returning.b.revoker().deny(denying(1, "a")).unwrap());
        let refused = |link: &Link| link.status().last_error.is_some_and(|error| error.to_string().contains("refused"));
        eventually("its ticket is tried, and it is refused", || refused(&returning.link)).await;
        assert_eq!(returning.b.session_count(), 0, "{kind}");
        let counters = returning.b_tls.tickets().counters();
        assert_eq!(counters.used.load(std::sync::atomic::Ordering::Relaxed), 0, "{kind}");
        // What was given to it before is gone as well.
        eventually("its tickets are purged", || returning.b_tls.tickets().count() == 0).await;
        // On the next list it is not: it comes back, by its certificate.
        assert!(returning.b.revoker().deny(denying(2, "c")).unwrap());
        let accepted = soon(returning.b.accept()).await.unwrap();
        assert!(!accepted.is_early() && accepted.peer().node_id == id("a"), "{kind}");
    }
}

/// A session that comes of age is replaced; its last stream ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_is_replaced_before_its_end() {
    let b = crate::common::listening("b", "tcp://127.0.0.1:0").await;
    let a = dialling("a").await;
    let mut config = LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]);
    config.session.age_max = std::time::Duration::from_secs(2);
    let link = a.link(config);
    let old = soon(link.session()).await.unwrap();
    let old_at_b = soon(b.accept()).await.unwrap();
    echo(&old, &old_at_b, b"hello").await;
    eventually("another session", || {
        assert_eq!(link.status().failure_count, 0);
        link.status().session.is_some_and(|session| session.id() != old.id())
    })
    .await;
    let new = soon(link.session()).await.unwrap();
    let new_at_b = soon(b.accept()).await.unwrap();
    echo(&new, &new_at_b, b"hello again").await;
    // No stream is left on it.
    assert_eq!(soon(old.closed()).await, CloseReason::Local { code: CloseCode::SESSION_EXPIRED });
    let reason = soon(old_at_b.closed()).await;
    assert!(matches!(reason, CloseReason::Peer { code: CloseCode::SESSION_EXPIRED, .. }), "{reason:?}");
}

/// A target that tells what it hears.
async fn target() -> (Address, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    let (tell, heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut bytes = vec![0; 5];
                stream.read_exact(&mut bytes).await.unwrap();
                tell.send(bytes).unwrap();
                stream.write_all(b"there").await.unwrap();
            });
        }
    });
    (address, heard)
}

/// The service that is replay-safe hears of its client at once, the other one when the client has shown that it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_services_that_are_replay_safe_get_early_data() {
    for kind in ["tcp", "quic"] {
        let directory = tempfile::tempdir().unwrap();
        let b = listening(settings("b"), &address_of(kind, &directory), true).await;
        let way = Way::to(&b.local_addresses()[0]).await;
        let (safe_target, mut safe) = target().await;
        let (held_target, mut held) = target().await;
        let everyone = || Allow::Everyone;
        let safe_service = ServiceConfig { replay_safe: true, ..ServiceConfig::new("safe", safe_target, everyone()) };
        let held_service = ServiceConfig::new("held", held_target, everyone());
        let _b = Gateway::start(b, Services::new([safe_service, held_service]));
        let a = Gateway::start(dialling("a").await, Services::new([]));
        let mut config = LinkConfig::new(id("b"), [way.address()]);
        config.addresses[0].count = 1;
        config.early_data = true;
        let link = a.node().link(config);
        a.add_link(link.clone());
        let mut clients = Vec::new();
        let mut forwards = Vec::new();
        for service in ["safe", "held"] {
            let listen: Address = "tcp://127.0.0.1:0".parse().unwrap();
            let forward = ForwardConfig { replay_safe: true, ..ForwardConfig::new(listen, id("b"), service) };
            let forward = a.forward(forward).await.unwrap();
            // Its answer says that the tickets are here.
            exchange(&forward.local_address().to_string()).await;
            forwards.push(forward);
        }
        assert_eq!(
            (soon(safe.recv()).await.unwrap(), soon(held.recv()).await.unwrap()),
            (b"hello".into(), b"hello".into())
        );
        way.hold_answers(true);
        let session = soon(link.session()).await.unwrap();
        session.close(CloseCode::NO_ERROR, "");
        drop(soon(session.closed()).await);
        for forward in &forwards {
            let address = forward.local_address().to_string();
            clients.push(tokio::spawn(async move { exchange(&address).await }));
        }
        assert_eq!(soon(safe.recv()).await.unwrap(), b"hello", "{kind}");
        assert!(!link.status().session.is_some_and(|session| session.is_connected()));
        assert!(held.try_recv().is_err(), "{kind}: it was not held");
        way.hold_answers(false);
        assert_eq!(soon(held.recv()).await.unwrap(), b"hello", "{kind}");
        for client in clients {
            soon(client).await.unwrap();
        }
        assert!(safe.try_recv().is_err() && held.try_recv().is_err(), "{kind}: something came twice");
    }
}

/// A client of a forward: asks and gets an answer.
async fn exchange(forward: &str) {
    let address = forward.strip_prefix("tcp://").unwrap();
    let mut stream = soon(TcpStream::connect(address)).await.unwrap();
    soon(stream.write_all(b"hello")).await.unwrap();
    let mut answer = [0; 5];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"there");
}
