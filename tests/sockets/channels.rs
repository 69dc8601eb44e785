//! Sessions over each kind of channel carry streams both ways.

use tokio::io::AsyncWriteExt;

use crate::common::{Pair, pair, pattern};

const LIMIT: usize = 64 << 20;

async fn exchange(pair: &Pair) {
    let data = pattern(3 << 20, 7);
    let echo = {
        let session = pair.session_b.clone();
        tokio::spawn(async move {
            let (mut send, mut recv) = session.accept_bi().await.expect("a stream");
            while let Some(chunk) = recv.read_chunk(usize::MAX).await.expect("data") {
                send.write_chunk(chunk).await.expect("room");
            }
            send.finish().expect("an open stream");
            send.finished().await.expect("everything acknowledged");
        })
    };
    let (mut send, mut recv) = pair.session_a.open_bi().await.expect("a stream");
    let (sent, received) = tokio::join!(
        async {
            send.write_all(&data).await.expect("room");
            send.finish().expect("an open stream");
        },
        recv.read_to_end(LIMIT)
    );
    let () = sent;
    assert!(received.expect("the echo") == data);
    echo.await.expect("the echo task");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_carries_streams() {
    exchange(&pair("tcp://127.0.0.1:0", 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_tcp_channels_carry_streams() {
    let pair = pair("tcp://127.0.0.1:0", 4).await;
    for _ in 0..4 {
        exchange(&pair).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_carries_streams_sealed_once() {
    let pair = pair("tls://127.0.0.1:0", 2).await;
    exchange(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv6_carries_streams() {
    exchange(&pair("tcp://[::1]:0", 2).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unix_carries_streams() {
    let folder = tempfile::tempdir().expect("a folder");
    exchange(&pair(&format!("unix://{}/b.sock", folder.path().display()), 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_carries_streams_on_several_lanes() {
    let pair = pair("quic://127.0.0.1:0", 1).await;
    for _ in 0..4 {
        exchange(&pair).await;
    }
    let stats = pair.session_a.stats();
    assert!(stats.lanes.len() >= 2, "{:?}", stats.lanes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_quic_channels_over_ipv6_carry_streams() {
    exchange(&pair("quic://[::1]:0", 3).await).await;
}
