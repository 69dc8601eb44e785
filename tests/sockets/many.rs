//! Many sessions, streams and connections: they work at once, and leave nothing behind.

use std::collections::HashMap;
use std::time::Duration;

use longhaul::node::{LinkConfig, Node, Session};
use tokio::task::JoinSet;

use crate::alone::{self, Usage};
use crate::common::{dialling, id, listening, pair};
use crate::transfer::{both_ways, eventually, soon};

/// So many times more of everything, for machines that have the time.
fn scale() -> f64 {
    std::env::var("LONGHAUL_SCALE").map_or(1.0, |text| text.parse().expect("LONGHAUL_SCALE is a number"))
}

fn scaled(count: usize) -> usize {
    (count as f64 * scale()) as usize
}

/// Answers every stream with what came on it.
fn echo(session: Session) {
    tokio::spawn(async move {
        while let Ok((mut send, mut recv)) = session.accept_bi().await {
            tokio::spawn(async move {
                while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX).await {
                    if send.write_chunk(chunk).await.is_err() {
                        return;
                    }
                }
                let _ = send.finish();
            });
        }
    });
}

/// Sends a few bytes on a stream of their own, and waits for them to come back.
async fn ask(session: &Session, number: u64) {
    let (mut send, mut recv) = session.open_bi().await.expect("a stream");
    let data = [number.to_le_bytes(); 13].concat();
    send.write_chunk(data.clone().into()).await.expect("room");
    send.finish().expect("an open stream");
    assert!(recv.read_to_end(data.len()).await.expect("the echo") == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sessions_carry_data_at_once() {
    let b = listening("b", "tcp://127.0.0.1:0").await;
    let a = dialling("a").await;
    let count = scaled(200);
    let mut links = Vec::new();
    for _ in 0..count {
        let mut config = LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]);
        config.addresses[0].count = 1;
        links.push(a.link(config));
    }
    let mut dialled = HashMap::new();
    for link in &links {
        let session = soon(link.session()).await.expect("a session");
        dialled.insert(session.id(), session);
    }
    let mut transfers = JoinSet::new();
    for _ in 0..count {
        let session_b = soon(b.accept()).await.expect("another session");
        let session_a = dialled.remove(&session_b.id()).expect("a session of ours");
        transfers.spawn(async move { both_ways(&session_a, &session_b, 1, 64 * 1024).await });
    }
    assert_eq!((a.session_count(), b.session_count()), (count, count));
    while let Some(outcome) = soon(transfers.join_next()).await {
        outcome.expect("a transfer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_streams_are_open_at_once() {
    let pair = pair("tcp://127.0.0.1:0", 4).await;
    let count = 2000;
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(soon(pair.session_a.open_bi()).await.expect("a stream"));
    }
    assert_eq!(pair.session_a.stream_count(), count);
    echo(pair.session_b.clone());
    let mut asking = JoinSet::new();
    for (seed, (mut send, mut recv)) in streams.into_iter().enumerate() {
        asking.spawn(async move {
            let data = crate::common::pattern(4096, seed as u64);
            send.write_chunk(data.clone().into()).await.expect("room");
            send.finish().expect("an open stream");
            assert!(recv.read_to_end(data.len()).await.expect("the echo") == data);
        });
    }
    while let Some(outcome) = soon(asking.join_next()).await {
        outcome.expect("an echo");
    }
    eventually("no stream is left", || pair.session_a.stream_count() + pair.session_b.stream_count() == 0).await;
}

async fn short_streams(session: &Session, count: usize) {
    let mut workers = JoinSet::new();
    for worker in 0..64 {
        let session = session.clone();
        workers.spawn(async move {
            for turn in 0..count / 64 {
                ask(&session, (worker * turn) as u64).await;
            }
        });
    }
    while let Some(outcome) = workers.join_next().await {
        outcome.expect("an echo");
    }
}

#[test]
fn short_streams_leave_nothing() {
    alone::run("many::short_streams_leave_nothing", async {
        let pair = pair("tcp://127.0.0.1:0", 4).await;
        echo(pair.session_b.clone());
        eventually("four channels", || pair.session_b.stats().lanes.len() == 4).await;
        short_streams(&pair.session_a, 4000).await;
        let before = Usage::now();
        short_streams(&pair.session_a, scaled(50_000)).await;
        eventually("no stream is left", || pair.session_a.stream_count() + pair.session_b.stream_count() == 0).await;
        before.expect_no_growth(8 << 20, 0);
    });
}

/// Makes a session, uses it and closes it.
async fn short_session(a: &Node, b: &Node) {
    let (link, session_a) =
        soon(a.connect(LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]))).await.expect("a session");
    let session_b = soon(b.accept()).await.expect("the other end");
    soon(both_ways(&session_a, &session_b, 1, 1000)).await;
    drop((link, session_a));
    soon(session_b.closed()).await;
}

#[test]
fn short_sessions_leave_nothing() {
    alone::run("many::short_sessions_leave_nothing", async {
        let b = listening("b", "tcp://127.0.0.1:0").await;
        let a = dialling("a").await;
        for _ in 0..30 {
            short_session(&a, &b).await;
        }
        eventually("no session is left", || a.session_count() + b.session_count() == 0).await;
        let before = Usage::now();
        for _ in 0..scaled(100) {
            short_session(&a, &b).await;
        }
        eventually("no session is left", || a.session_count() + b.session_count() == 0).await;
        eventually("no socket is left", || Usage::now().descriptors <= before.descriptors).await;
        before.expect_no_growth(8 << 20, 0);
    });
}

#[test]
fn silent_handshakes_hold_little_memory() {
    alone::run("many::silent_handshakes_hold_little_memory", async {
        let b = listening("b", "tcp://127.0.0.1:0").await;
        let address = crate::rogue::socket_address(&b.local_addresses()[0]);
        let before = Usage::now();
        let mut silent = Vec::new();
        for _ in 0..800 {
            let mut stream = tokio::net::TcpStream::connect(&address).await.expect("a connection");
            // As long as may be declared, and never completed.
            let mut start = vec![0xfc, 0x7f];
            start.resize(12 * 1024, 0x42);
            tokio::io::AsyncWriteExt::write_all(&mut stream, &start).await.expect("room in the kernel");
            silent.push(stream);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Each has a buffer for the message that it declared, and a task.
        before.expect_no_growth(800 * 40 * 1024, 1600);
        eventually("the deadline ends them", || Usage::now().descriptors <= before.descriptors + 800).await;
    });
}
