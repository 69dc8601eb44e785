//! What is dropped without a word: the other side learns of it.

use longhaul::base::{CloseCode, StreamCode};
use longhaul::node::{ReadError, WriteError};
use longhaul::session::CloseReason;

use crate::common::{Pair, pair};
use crate::transfer::{both_ways, eventually, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_sender_resets_the_stream() {
    let Pair { session_a, session_b, .. } = &pair("tcp://127.0.0.1:0", 1).await;
    let mut send = session_a.open_uni().await.expect("a stream");
    send.write_chunk("half".into()).await.expect("room");
    let mut recv = soon(session_b.accept_uni()).await.expect("the stream");
    drop(send);
    assert_eq!(soon(recv.read_to_end(100)).await, Err(ReadError::Reset(StreamCode::CANCELLED)));
    eventually("no stream is left", || session_a.stream_count() + session_b.stream_count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_has_finished_may_be_dropped() {
    let Pair { session_a, session_b, .. } = &pair("tcp://127.0.0.1:0", 1).await;
    let mut send = session_a.open_uni().await.expect("a stream");
    send.write_chunk("whole".into()).await.expect("room");
    send.finish().expect("an open stream");
    drop(send);
    let mut recv = soon(session_b.accept_uni()).await.expect("the stream");
    assert_eq!(soon(recv.read_to_end(100)).await.expect("everything"), b"whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_receiver_stops_the_stream() {
    let Pair { session_a, session_b, .. } = &pair("tcp://127.0.0.1:0", 1).await;
    let mut send = session_a.open_uni().await.expect("a stream");
    send.write_chunk("unwanted".into()).await.expect("room");
    drop(soon(session_b.accept_uni()).await.expect("the stream"));
    let error = soon(async {
        loop {
            if let Err(error) = send.write_chunk(vec![0; 1000].into()).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(error, WriteError::Stopped(StreamCode::CANCELLED));
    drop(send);
    eventually("no stream is left", || session_a.stream_count() + session_b.stream_count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_nobody_accepted_are_gone_with_their_session() {
    let Pair { a, b, link, session_a, session_b } = pair("tcp://127.0.0.1:0", 2).await;
    let mut send = session_a.open_uni().await.expect("a stream");
    send.write_chunk("never read".into()).await.expect("room");
    eventually("it is there", || session_b.stream_count() == 1).await;
    drop(session_b);
    let closed = CloseReason::Peer { code: CloseCode::NO_ERROR, reason: String::new() };
    assert_eq!(soon(session_a.closed()).await, closed);
    assert_eq!(soon(send.finished()).await, Err(WriteError::Session(closed)));
    // The link makes another one.
    let old = session_a.id();
    let session_b = soon(b.accept()).await.expect("the next session");
    assert_ne!(session_b.id(), old);
    let session_a = soon(link.session()).await.expect("its other end");
    soon(both_ways(&session_a, &session_b, 1, 1000)).await;
    drop((session_a, link));
    let reason = soon(session_b.closed()).await;
    assert_eq!(reason, CloseReason::Peer { code: CloseCode::NO_ERROR, reason: String::new() });
    eventually("nothing is left", || a.session_count() + b.session_count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_closes_tells_its_peers_and_stops_listening() {
    let Pair { a, b, link, session_a, session_b } = pair("tcp://127.0.0.1:0", 2).await;
    soon(b.close(CloseCode::SHUTTING_DOWN, "maintenance")).await;
    let told = CloseReason::Peer { code: CloseCode::SHUTTING_DOWN, reason: "maintenance".to_owned() };
    assert_eq!(soon(session_a.closed()).await, told);
    assert_eq!(soon(session_b.closed()).await, CloseReason::Local { code: CloseCode::SHUTTING_DOWN });
    eventually("nobody answers", || link.status().failure_count > 0).await;
    assert_eq!(a.session_count(), 0);
}
