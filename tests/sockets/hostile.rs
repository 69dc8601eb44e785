//! The edge that anybody can reach: bytes that are no protocol, too many, too slow, stolen or repeated. What costs the
//! node something is bounded, what is refused looks the same, and the peers do not notice.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use longhaul::base::{LaneId, SessionId, limits};
use longhaul::channel::{Address, AdmissionLimits, ListenOptions};
use longhaul::crypto::identity::ALPN_SESSION;
use longhaul::node::{LinkConfig, Node};
use longhaul::session::{Establishing, LaneKind, SessionConfig};
use longhaul::wire::{Body, ClearMessage, Head, Join, Joined, VERSION, encode_clear};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Pair, dialling, id, listening, pair, pattern, proxied, settings};
use crate::proxy::{Way, once};
use crate::rogue::{Raw, client_config, socket_address};
use crate::transfer::{both_ways, eventually, soon};

/// Slack for a busy machine around a deadline of the node.
const SLACK: Duration = Duration::from_secs(4);

fn clear(head: &Head, message: &ClearMessage) -> BytesMut {
    let mut out = BytesMut::new();
    encode_clear(&mut out, head, message);
    out
}

/// The first message of a handshake that is right.
fn hello(session_id: SessionId, version: u32) -> BytesMut {
    let base = settings("a");
    let config = client_config(&base, &base.identity().certified_key(), ALPN_SESSION);
    let mut establishing =
        Establishing::client(config, &SessionConfig::default(), session_id, version).expect("a configuration");
    establishing.poll_output().expect("a first message")
}

/// A join that nobody asked for.
fn join(session_id: SessionId, lane: u32) -> BytesMut {
    let join = Join {
        kind: LaneKind::Tcp as u32,
        nonce: [1; 16],
        channel_binding: Bytes::new(),
        lane_count: 1,
        usage: longhaul::wire::LaneUsage::default(),
        mac: [2; 32],
    };
    let head = Head { version: VERSION, session_id: Some(session_id), lane_id: LaneId(lane), ..Head::default() };
    clear(&head, &ClearMessage::Join(join))
}

/// The session goes on, with the lanes that it had, and nobody else has one.
async fn unharmed(pair: &Pair) {
    soon(both_ways(&pair.session_a, &pair.session_b, 1, 1 << 20)).await;
    assert!(pair.session_b.close_reason().is_none());
    assert!(pair.b.accept().now_or_never().is_none(), "a stranger has a session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_message_end_the_channel_at_once() {
    let pair = pair("tcp://127.0.0.1:0", 1).await;
    let head = Head { version: VERSION, session_id: Some(SessionId([7; 16])), ..Head::default() };
    let too_long = limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX;
    let no_opening = [
        clear(&head, &ClearMessage::Refused),
        clear(&head, &ClearMessage::Joined(Joined { nonce: [0; 16], mac: [0; 32] })),
        clear(&head, &ClearMessage::SessionReset([0; 16])),
        clear(&head, &ClearMessage::VersionList(vec![VERSION])),
        // The start of a session belongs inside TLS.
        clear(&head, &ClearMessage::Start(Bytes::from_static(b"parameters"))),
    ];
    let mut attacks = vec![
        pattern(4096, 99),
        b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0; 64],
        // Declares 2^63 bytes, 1 GiB, and one byte more than is allowed.
        vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3],
        vec![0x80, 0x80, 0x80, 0x80, 0x04, 1, 2, 3],
        vec![(too_long & 0x7f) as u8 | 0x80, (too_long >> 7 & 0x7f) as u8 | 0x80, (too_long >> 14) as u8, 0x42],
        vec![0xff; 64],
    ];
    attacks.extend(no_opening.map(|message| message.to_vec()));
    let since = Instant::now();
    for mut attack in attacks {
        // Whatever length is declared, the message is complete: nothing has to be waited for.
        attack.resize(attack.len() + 256, 0x42);
        let mut raw = Raw::dial(&pair.b.local_addresses()[0]).await;
        raw.send(&attack).await;
        let answer = raw.next().await.map(|message| message.body);
        assert!(matches!(answer, None | Some(Body::Refused)), "{attack:?} got {answer:?}");
    }
    assert!(since.elapsed() < limits::FIRST_MESSAGE_TIMEOUT, "{:?}", since.elapsed());
    unharmed(&pair).await;
}

/// How long a node bears a channel that sends `first`, then a byte of `trickle` each quarter of a second.
async fn borne(address: &Address, first: Vec<u8>, trickle: Vec<u8>) -> Duration {
    let (mut read, mut write) = TcpStream::connect(socket_address(address)).await.unwrap().into_split();
    let since = Instant::now();
    let attack = async {
        write.write_all(&first).await.unwrap();
        for byte in trickle {
            tokio::time::sleep(Duration::from_millis(250)).await;
            if write.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        _ = read.read_to_end(&mut answer) => {}
        () = attack => unreachable!("it pends"),
    }
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_channels_are_ended_at_their_deadlines() {
    let pair = pair("tcp://127.0.0.1:0", 1).await;
    let address = &pair.b.local_addresses()[0];
    let tls = listening("b", "tls://127.0.0.1:0").await;
    let hello = hello(SessionId([8; 16]), VERSION).to_vec();
    let (silent, slow, half, silent_tls) = soon(async {
        tokio::join!(
            borne(address, Vec::new(), Vec::new()),
            borne(address, Vec::new(), hello.clone()),
            // A handshake that begins, and is not gone on with.
            borne(address, hello.clone(), Vec::new()),
            borne(
                &tls.local_addresses()[0],
                Vec::new(),
                [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 100]].concat()
            ),
        )
    })
    .await;
    for (name, time, deadline) in [
        ("silent", silent, limits::FIRST_MESSAGE_TIMEOUT),
        ("slow", slow, limits::FIRST_MESSAGE_TIMEOUT),
        ("half a handshake", half, limits::HANDSHAKE_TIMEOUT),
        ("slow TLS", silent_tls, limits::HANDSHAKE_TIMEOUT),
    ] {
        assert!(time >= deadline.mul_f64(0.9) && time < deadline + SLACK, "{name}: {time:?}");
    }
    unharmed(&pair).await;
}

/// A node whose listener has at most so many handshakes pending.
async fn gated(pending_max: u32) -> Node {
    let admission = AdmissionLimits { pending_max: Some(pending_max), ..AdmissionLimits::default() };
    let options = ListenOptions { admission, ..ListenOptions::default() };
    let address = "tcp://127.0.0.1:0".parse().unwrap();
    Node::builder(settings("b")).listen(address, options).build().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_channels_leave_room_for_others() {
    let b = gated(1024).await;
    let address = b.local_addresses()[0].clone();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(socket_address(&address)).await.unwrap());
    }
    let a = dialling("a").await;
    let since = Instant::now();
    let (_link, session_a) = soon(a.connect(LinkConfig::new(id("b"), [address]))).await.expect("a session");
    assert!(since.elapsed() < limits::FIRST_MESSAGE_TIMEOUT, "{:?}", since.elapsed());
    let session_b = b.accept().await.expect("the other end");
    soon(both_ways(&session_a, &session_b, 1, 1 << 20)).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_silent_channels_than_may_be_are_reset_and_time_makes_room() {
    let b = gated(50).await;
    let address = b.local_addresses()[0].clone();
    let mut silent = Vec::new();
    for _ in 0..100 {
        // The reset may come before the dial has finished.
        silent.push(TcpStream::connect(socket_address(&address)).await.ok());
    }
    let is_open = |stream: &TcpStream| {
        stream.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let ended = |stream: &&Option<TcpStream>| !stream.as_ref().is_some_and(is_open);
    eventually("those above the limit are reset", || silent.iter().filter(ended).count() >= 50).await;
    // The link tries until those that say nothing have had their three seconds.
    let a = dialling("a").await;
    let link = a.link(LinkConfig::new(id("b"), [address]));
    let session_a = soon(link.session()).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    soon(both_ways(&session_a, &session_b, 1, 1 << 20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_nobody_speaks_is_answered_with_those_that_are_spoken() {
    let pair = pair("tcp://127.0.0.1:0", 1).await;
    let mut raw = Raw::dial(&pair.b.local_addresses()[0]).await;
    raw.send(&hello(SessionId([8; 16]), 99)).await;
    let answer = raw.next().await.expect("an answer");
    assert_eq!(answer.head.session_id, Some(SessionId([8; 16])));
    assert_eq!(answer.body, Body::VersionList(vec![VERSION]));
    assert!(raw.next().await.is_none());
    unharmed(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_hello_is_refused() {
    let pair = pair("tcp://127.0.0.1:0", 1).await;
    let mut raw = Raw::dial(&pair.b.local_addresses()[0]).await;
    let hello = hello(SessionId([8; 16]), VERSION);
    raw.send(&[&hello[..], &hello[..]].concat()).await;
    let mut last = None;
    while let Some(message) = raw.next().await {
        last = Some(message.body);
    }
    assert!(matches!(last, Some(Body::Refused)), "{last:?}");
    unharmed(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_id_in_use_is_refused_to_others() {
    let pair = pair("tcp://127.0.0.1:0", 1).await;
    let base = settings("a");
    let config = client_config(&base, &base.identity().certified_key(), ALPN_SESSION);
    let mut raw = Raw::dial(&pair.b.local_addresses()[0]).await;
    raw.establish_as(config, pair.session_a.id()).await.expect("this side is content");
    assert!(raw.is_refused().await);
    unharmed(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_to_an_unknown_session_gets_its_reset_token() {
    let pair = pair("tcp://127.0.0.1:0", 1).await;
    let mut tokens = Vec::new();
    for session in [[1; 16], [1; 16], [2; 16]] {
        let mut raw = Raw::dial(&pair.b.local_addresses()[0]).await;
        raw.send(&join(SessionId(session), 1)).await;
        let answer = raw.next().await.expect("an answer");
        let Body::SessionReset(token) = answer.body else { panic!("{answer:?}") };
        assert_eq!(answer.head.session_id, Some(SessionId(session)));
        assert!(raw.next().await.is_none());
        tokens.push(token);
    }
    assert!(tokens[0] == tokens[1] && tokens[0] != tokens[2] && tokens[0] != [0; 16]);
    unharmed(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_without_the_proof_is_refused() {
    let pair = pair("tcp://127.0.0.1:0", 1).await;
    for lane in [0, 1, 2, u32::MAX] {
        let mut raw = Raw::dial(&pair.b.local_addresses()[0]).await;
        raw.send(&join(pair.session_a.id(), lane)).await;
        assert!(raw.is_refused().await);
    }
    assert_eq!((pair.session_b.stats().lanes.len(), pair.session_b.stats().lanes_lost), (1, 0));
    unharmed(&pair).await;
}

/// What a join looks like on the way: each is put into the box, and goes on when `passes` says so.
fn tap(proxy: &crate::proxy::Proxy, passes: bool) -> Arc<Mutex<Vec<Vec<u8>>>> {
    let tapped = Arc::new(Mutex::new(Vec::new()));
    let put = Arc::clone(&tapped);
    proxy.greet(move |wire| {
        let put = Arc::clone(&put);
        wire.filter(
            Way::ToListener,
            once(0, move |message, out| {
                put.lock().unwrap().push(message.clone());
                if passes {
                    out.push(message);
                }
            }),
        );
    });
    tapped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_was_overheard_is_refused_to_others() {
    let (pair, proxy) = proxied("tcp", 2).await;
    eventually("two channels", || pair.session_b.stats().lanes.len() == 2).await;
    let overheard = tap(&proxy, true);
    proxy.wires()[1].kill();
    eventually("another join", || !overheard.lock().unwrap().is_empty()).await;
    eventually("two channels again", || pair.session_b.stats().lanes.len() == 2).await;
    let join = overheard.lock().unwrap()[0].clone();
    let mut raw = Raw::dial(&pair.b.local_addresses()[0]).await;
    raw.send(&join).await;
    assert!(raw.is_refused().await);
    unharmed(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_was_stolen_brings_nothing() {
    let (pair, proxy) = proxied("tcp", 2).await;
    eventually("two channels", || pair.session_b.stats().lanes.len() == 2).await;
    let stolen = tap(&proxy, false);
    proxy.wires()[1].kill();
    eventually("another join", || !stolen.lock().unwrap().is_empty()).await;
    let join = stolen.lock().unwrap()[0].clone();
    // Its proof is right, and it never arrived. What the thief lacks are the keys.
    let mut raw = Raw::dial(&pair.b.local_addresses()[0]).await;
    raw.send(&join).await;
    let answer = raw.next().await.expect("an answer");
    assert!(matches!(answer.body, Body::Joined(_)), "{answer:?}");
    let since = Instant::now();
    while let Some(message) = raw.next().await {
        // Sealed data may come, of which nothing can be read and which is sent again elsewhere.
        assert!(matches!(message.body, Body::Sealed(_)));
    }
    assert!(since.elapsed() < limits::JOIN_TIMEOUT + SLACK, "{:?}", since.elapsed());
    proxy.greet(|_| {});
    unharmed(&pair).await;
}
