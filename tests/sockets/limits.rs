//! What happens at the limits of a node, as its configuration documents it.

use std::time::Duration;

use futures_util::FutureExt;
use longhaul::base::CloseCode;
use longhaul::node::{LinkConfig, NodeConfig, SendStream, Session};
use longhaul::session::{CloseReason, SessionFault};
use longhaul::stream::StreamFault;

use crate::common::{Pair, dialling, id, listening_with, pair, pair_to};
use crate::transfer::{both_ways, eventually, soon};

/// Waits until a session ends by the other side's word.
async fn closed_by_peer(session: &Session) -> CloseCode {
    match soon(session.closed()).await {
        CloseReason::Peer { code, .. } => code,
        other => panic!("the peer should have closed it: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_waits_for_the_peers_credit() {
    let mut config = NodeConfig::default();
    // More than what every server grants.
    config.session.streams.streams_max = 20;
    let pair = pair_to(listening_with("b", &["tcp://127.0.0.1:0"], config).await).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(soon(pair.session_a.open_uni()).await.expect("a stream"));
    }
    let fourth = pair.session_a.open_uni();
    tokio::pin!(fourth);
    assert!(fourth.as_mut().now_or_never().is_none(), "twenty streams are allowed");
    let mut first = open.remove(0);
    first.write_chunk("1".into()).await.expect("room");
    first.finish().expect("an open stream");
    let mut received = soon(pair.session_b.accept_uni()).await.expect("the stream");
    assert_eq!(soon(received.read_to_end(10)).await.expect("data"), b"1");
    soon(fourth).await.expect("one has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_streams_that_nobody_accepts_end_the_session() {
    let mut config = NodeConfig::default();
    config.session.streams.streams_max = 10_000;
    let pair = pair_to(listening_with("b", &["tcp://127.0.0.1:0"], config).await).await;
    let opener = pair.session_a.clone();
    let opening = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok(stream) = opener.open_uni().await {
            open.push(stream);
        }
    });
    let reason = soon(pair.session_b.closed()).await;
    assert_eq!(reason, CloseReason::Fault(SessionFault::Stream(StreamFault::Unaccepted)));
    assert_eq!(closed_by_peer(&pair.session_a).await, CloseCode::EXCESSIVE_LOAD);
    soon(opening).await.expect("opening ends with the session");
}

/// Fills `count` streams that the other side does not read.
async fn fill(session: &Session, count: usize) -> Vec<SendStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = session.open_uni().await.expect("a stream");
        // The stream's window, and not a byte more: it would wait at this side and count there.
        stream.write_chunk(vec![7; 1 << 20].into()).await.expect("room");
        streams.push(stream);
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_takes_no_more_sessions_until_there_is_room() {
    let config = NodeConfig { memory_bytes_max: 4 << 20, ..NodeConfig::default() };
    let pair = pair_to(listening_with("b", &["tcp://127.0.0.1:0"], config).await).await;
    // Above the limit, and below the quarter above it that costs a session.
    let mut streams = fill(&pair.session_a, 4).await;
    let mut last = pair.session_a.open_uni().await.expect("a stream");
    last.write_chunk(vec![7; 1 << 18].into()).await.expect("room");
    streams.push(last);

    let c = dialling("c").await;
    let mut config = LinkConfig::new(id("b"), [pair.b.local_addresses()[0].clone()]);
    config.backoff_max = Duration::from_millis(200);
    let error = loop {
        // The sum is made once a second: until then, new sessions are welcome.
        match soon(c.connect(config.clone())).await {
            Ok(early) => drop(early),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("the peer refused the handshake"), "{error}");
    soon(both_ways(&pair.session_a, &pair.session_b, 1, 1 << 16)).await;

    let link = c.link(config);
    for mut stream in streams {
        stream.finish().expect("an open stream");
        let mut received = soon(pair.session_b.accept_uni()).await.expect("the stream");
        soon(received.read_to_end(1 << 20)).await.expect("data");
    }
    soon(link.session()).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_that_holds_the_most_goes_when_a_node_overflows() {
    let config = NodeConfig { memory_bytes_max: 4 << 20, ..NodeConfig::default() };
    let greedy = pair_to(listening_with("b", &["tcp://127.0.0.1:0"], config).await).await;
    let c = dialling("c").await;
    let link = LinkConfig::new(id("b"), [greedy.b.local_addresses()[0].clone()]);
    let (_link, modest) = c.connect(link).await.expect("a session");
    let modest_b = greedy.b.accept().await.expect("the other end");
    let _streams = fill(&greedy.session_a, 8).await;
    assert_eq!(closed_by_peer(&greedy.session_a).await, CloseCode::OUT_OF_MEMORY);
    assert_eq!(soon(greedy.session_b.closed()).await, CloseReason::Local { code: CloseCode::OUT_OF_MEMORY });
    soon(both_ways(&modest, &modest_b, 1, 1 << 20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_tell_what_was_sent() {
    let Pair { session_a, session_b, .. } = &pair("tcp://127.0.0.1:0", 4).await;
    const BYTES: u64 = 8 << 20;
    both_ways(session_a, session_b, 1, BYTES).await;
    eventually("both count the same", || {
        let (a, b) = (session_a.stats(), session_b.stats());
        a.bytes_sent == b.bytes_received
            && b.bytes_sent == a.bytes_received
            && a.packets_sent == b.packets_received
            && b.packets_sent == a.packets_received
            && a.lanes.iter().chain(&b.lanes).all(|lane| lane.in_flight_bytes == 0)
    })
    .await;
    for stats in [session_a.stats(), session_b.stats()] {
        let overhead = stats.bytes_sent - BYTES - stats.reinjected_bytes.min(stats.bytes_sent - BYTES);
        assert!(overhead < BYTES / 20, "{stats:?}");
        assert!(stats.padding_bytes < stats.packets_sent * 32, "{stats:?}");
        assert!(stats.packets_sent >= BYTES / (64 * 1024), "{stats:?}");
        assert_eq!((stats.stream_count, stats.unsent_bytes), (0, 0));
        let round_trip = stats.round_trip.expect("it was measured");
        assert!(round_trip < Duration::from_secs(5), "{stats:?}");
    }
}
