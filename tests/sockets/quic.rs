//! Channels over QUIC: paths that lose, go silent and change addresses, restarted peers, and the handshake's bounds.

use std::time::{Duration, Instant};

use bytes::Bytes;
use longhaul::channel::{ChannelKind, ListenOptions, QuicCongestion, QuicOptions, RetryPolicy};
use longhaul::node::{DatagramFlow, LinkConfig, Node, NodeConfig};
use longhaul::session::{CloseReason, LaneKind, LaneState};
use tokio::io::AsyncWriteExt;

use crate::common::{Pair, dialling, id, listening, listening_with, pattern, settings};
use crate::transfer::{Transfer, both_ways, eventually, soon};
use crate::udp_path::UdpPath;

/// Two nodes with QUIC channels between them, on a path of the test's.
async fn over_path(change: impl FnOnce(&mut LinkConfig)) -> (Pair, UdpPath) {
    let b = listening("b", "quic://127.0.0.1:0").await;
    let path = UdpPath::to(&b.local_addresses()[0]).await;
    (pair_over(b, &path, change).await, path)
}

async fn pair_over(b: Node, path: &UdpPath, change: impl FnOnce(&mut LinkConfig)) -> Pair {
    let a = dialling("a").await;
    let mut config = LinkConfig::new(id("b"), [path.address()]);
    config.addresses[0].count = 1;
    change(&mut config);
    let (link, session_a) = a.connect(config).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    Pair { a, b, link, session_a, session_b }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_arrives_over_a_path_that_loses() {
    let (pair, path) = over_path(|_| {}).await;
    path.lose(30);
    path.delay(Duration::from_millis(5));
    both_ways(&pair.session_a, &pair.session_b, 3, 4 << 20).await;
    assert!(path.passed() > 1000, "the datagrams went this way");
}

/// A line of 300 kbit/s loses most of the first burst, and QUIC repairs it for seconds. What the link would dial meanwhile would take
/// the line from the repairs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_loses_the_first_burst_keeps_its_channel() {
    let b = listening("b", "quic://127.0.0.1:0").await;
    let path = UdpPath::to(&b.local_addresses()[0]).await;
    path.delay(Duration::from_millis(25));
    path.limit(300_000 / 8);
    let pair = pair_over(b, &path, |_| {}).await;
    let content = pattern(150_000, 9);
    let mut send = pair.session_a.open_uni().await.unwrap();
    let reading = async { pair.session_b.accept_uni().await.unwrap().read_to_end(200_000).await.unwrap() };
    let writing = async {
        send.write_all(&content).await.unwrap();
        send.finish().unwrap();
    };
    let (received, ()) = soon(async { tokio::join!(reading, writing) }).await;
    assert!(received == content);
    assert_eq!(path.senders(), 1, "nothing was dialled");
    assert_eq!(pair.session_a.stats().lanes_lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_congestion_control_carries_data() {
    for congestion in [QuicCongestion::Auto, QuicCongestion::Cubic, QuicCongestion::Bbr, QuicCongestion::NewReno] {
        let (pair, path) = over_path(|config| config.dial.quic.congestion = congestion).await;
        path.delay(Duration::from_millis(5));
        both_ways(&pair.session_a, &pair.session_b, 3, 1 << 20).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_changes_of_the_diallers_address() {
    let (pair, path) = over_path(|_| {}).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 5, 6 << 20).await;
    for _ in 0..3 {
        soon(transfer.advance(1 << 20)).await;
        path.rebind();
    }
    soon(transfer.finish()).await;
    assert!(path.senders() >= 4, "the listener saw the changes");
    assert!(pair.session_a.close_reason().is_none() && pair.session_b.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_outlives_silence() {
    let (pair, path) = over_path(|_| {}).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 7, 8 << 20).await;
    for length in [0.5, 6.0] {
        soon(transfer.advance(1 << 20)).await;
        path.block(true);
        // The outage itself.
        tokio::time::sleep(Duration::from_secs_f64(length)).await;
        path.block(false);
        soon(transfer.advance(1)).await;
    }
    soon(transfer.finish()).await;
    assert!(pair.session_a.close_reason().is_none() && pair.session_b.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_carries_on_when_datagrams_stop_and_they_are_used_again() {
    let b = listening_with("b", &["tcp://127.0.0.1:0", "quic://127.0.0.1:0"], NodeConfig::default()).await;
    let path = UdpPath::to(&b.local_addresses()[1]).await;
    let a = dialling("a").await;
    let mut config = LinkConfig::new(id("b"), [path.address(), b.local_addresses()[0].clone()]);
    config.addresses.iter_mut().for_each(|address| address.count = 1);
    let (_link, session_a) = a.connect(config).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    let has = |kind: LaneKind| {
        let lanes = session_a.stats().lanes;
        lanes.iter().any(|lane| lane.kind == kind && lane.state == LaneState::Active)
    };
    eventually("both kinds are up", || has(LaneKind::Tcp) && has(LaneKind::Quic)).await;
    path.block(true);
    both_ways(&session_a, &session_b, 11, 2 << 20).await;
    eventually("the silent channel is given up", || !has(LaneKind::Quic)).await;
    path.block(false);
    eventually("datagrams are used again", || has(LaneKind::Quic)).await;
    both_ways(&session_a, &session_b, 13, 2 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_known_at_once() {
    // The same key at another port stands for a machine that lost power and is back: nothing was said.
    let key = settings("b");
    let listen = || {
        let address = "quic://127.0.0.1:0".parse().unwrap();
        Node::builder(key.clone()).listen(address, ListenOptions::default()).build()
    };
    let (before, after) = (listen().await.expect("a node"), listen().await.expect("a node"));
    let path = UdpPath::to(&before.local_addresses()[0]).await;
    let a = dialling("a").await;
    let (link, session) = a.connect(LinkConfig::new(id("b"), [path.address()])).await.expect("a session");
    let _lost = before.accept().await.expect("the other end");
    path.lead_to(&after.local_addresses()[0]);
    let since = Instant::now();
    let reason = soon(session.closed()).await;
    assert!(matches!(reason, CloseReason::Reset), "{reason:?}");
    assert!(since.elapsed() < QuicOptions::default().idle_timeout, "noticed by the reset, not by silence");
    let session_b = soon(after.accept()).await.expect("the other end");
    both_ways(&soon(link.session()).await.expect("a new session"), &session_b, 17, 1 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_asks_for_proof_of_the_address_is_reached() {
    let options = ListenOptions {
        quic: QuicOptions { retry: RetryPolicy::Always, ..QuicOptions::default() },
        ..Default::default()
    };
    let b = Node::builder(settings("b")).listen("quic://127.0.0.1:0".parse().unwrap(), options);
    let b = b.build().await.expect("a node");
    let a = dialling("a").await;
    let (_link, session_a) =
        a.connect(LinkConfig::new(id("b"), [b.local_addresses()[0].clone()])).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    both_ways(&session_a, &session_b, 19, 1 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_sockets_on_one_port_carry_several_channels() {
    let options =
        ListenOptions { quic: QuicOptions { endpoint_count: 4, ..QuicOptions::default() }, ..Default::default() };
    let b = Node::builder(settings("b")).listen("quic://127.0.0.1:0".parse().unwrap(), options);
    let b = b.build().await.expect("a node");
    let a = dialling("a").await;
    let mut config = LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]);
    config.addresses[0].count = 3;
    let (_link, session_a) = a.connect(config).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    let active = || session_a.stats().lanes.iter().filter(|lane| lane.state == LaneState::Active).count();
    eventually("three channels with four lanes each", || active() == 12).await;
    both_ways(&session_a, &session_b, 23, 4 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_are_sealed_again_inside_when_asked() {
    let b = listening("b", "quic://127.0.0.1:0").await;
    let a = dialling("a").await;
    let mut config = LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]);
    config.session.seal_always = true;
    let (_link, session_a) = a.connect(config).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    both_ways(&session_a, &session_b, 29, 1 << 20).await;
}

/// Both ends of a flow of datagrams.
async fn flow(pair: &Pair) -> (DatagramFlow, DatagramFlow) {
    let (mut send, recv) = soon(pair.session_a.open_bi()).await.expect("a stream");
    send.write_all(b"?").await.expect("room");
    let (send_b, mut recv_b) = soon(pair.session_b.accept_bi()).await.expect("a stream");
    recv_b.read_chunk(1).await.expect("the first byte");
    (DatagramFlow::new(send, recv), DatagramFlow::new(send_b, recv_b))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_that_fit_go_as_such_and_larger_ones_over_lanes() {
    let (pair, _path) = over_path(|_| {}).await;
    let (a, mut b) = flow(&pair).await;
    let sizes = [0, 1, 500, 1000, 20_000, 65_507, 900];
    for size in sizes {
        a.send(Bytes::from(vec![size as u8; size])).expect("room");
        let datagram = soon(b.recv()).await.expect("a flow").expect("a datagram");
        assert!(datagram.len() == size && datagram.iter().all(|byte| *byte == size as u8), "{size}");
    }
    let datagrams = pair.session_a.stats().datagrams;
    assert_eq!((datagrams.sent, datagrams.sent_unreliably), (sizes.len() as u64, sizes.len() as u64 - 2));
    assert_eq!(pair.session_b.stats().datagrams.received, sizes.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_are_lost_with_the_path_and_others_follow() {
    let (pair, path) = over_path(|_| {}).await;
    let (a, mut b) = flow(&pair).await;
    path.lose(500);
    let sending = tokio::spawn(async move {
        for number in 0_u32.. {
            if a.send(Bytes::copy_from_slice(&number.to_be_bytes())).is_err() {
                return;
            }
            // The rate of a call.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let mut last = None;
    for _ in 0..200 {
        let datagram = soon(b.recv()).await.expect("a flow").expect("a datagram");
        let number = u32::from_be_bytes(datagram[..].try_into().expect("a number"));
        assert!(last != Some(number), "each comes once");
        last = Some(number);
    }
    // Fewer are lost where a busy machine sends several in a packet.
    assert!(last.expect("two hundred came") > 220, "half of them were lost, and not sent again");
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_go_over_tcp_when_there_is_nothing_else() {
    let b = listening_with("b", &["tcp://127.0.0.1:0", "quic://127.0.0.1:0"], NodeConfig::default()).await;
    let path = UdpPath::to(&b.local_addresses()[1]).await;
    let a = dialling("a").await;
    let mut config = LinkConfig::new(id("b"), [path.address(), b.local_addresses()[0].clone()]);
    config.addresses.iter_mut().for_each(|address| address.count = 1);
    let (link, session_a) = a.connect(config).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    let pair = Pair { a, b, link, session_a, session_b };
    let (a, mut b) = flow(&pair).await;
    path.block(true);
    // Those that were on their way are lost; then the channel is known to be silent.
    let mut number = 0_u32;
    eventually("datagrams arrive", || {
        number += 1;
        a.send(Bytes::copy_from_slice(&number.to_be_bytes())).expect("a flow");
        futures_util::FutureExt::now_or_never(b.recv()).is_some()
    })
    .await;
    let datagrams = pair.session_a.stats().datagrams;
    assert!(datagrams.sent > datagrams.sent_unreliably, "{datagrams:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preferred_kind_that_is_blocked_from_the_start_is_used_once_it_passes() {
    let b = listening_with("b", &["tcp://127.0.0.1:0", "quic://127.0.0.1:0"], NodeConfig::default()).await;
    let path = UdpPath::to(&b.local_addresses()[1]).await;
    path.block(true);
    let a = dialling("a").await;
    let mut config = LinkConfig::new(id("b"), [path.address(), b.local_addresses()[0].clone()]);
    config.prefer = Some(ChannelKind::Quic);
    let since = Instant::now();
    let (_link, session_a) = a.connect(config).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    both_ways(&session_a, &session_b, 31, 1 << 20).await;
    assert!(since.elapsed() < START_BUSY_MAX, "{:?}", since.elapsed());
    let sent = |kind: LaneKind| {
        let lanes = session_a.stats().lanes;
        lanes.iter().filter(|lane| lane.kind == kind).map(|lane| lane.bytes_sent).sum::<u64>()
    };
    assert!(sent(LaneKind::Tcp) > 1 << 20);
    path.block(false);
    let mut seed = 31;
    while sent(LaneKind::Quic) < 1 << 20 {
        seed += 1;
        both_ways(&session_a, &session_b, seed, 1 << 20).await;
        assert!(since.elapsed() < Duration::from_secs(60), "datagrams pass again, and are not used");
    }
}

/// From the start of a link to the end of a short transfer, where the preferred kind does not pass: two seconds are what
/// is promised, on a machine that has nothing else to do.
const START_BUSY_MAX: Duration = Duration::from_secs(5);
