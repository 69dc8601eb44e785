//! A node ends in order: nothing new, and time for what runs.

use std::time::Duration;

use longhaul::service::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{
    Net, PATIENCE, client, connect, echo, exchange, id, is_reset, open_service, pattern, soon, target, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_may_end_and_nothing_new_is_taken() {
    let (listener, address) = target().await;
    let net = Net::new([open_service("service", address)]).await;
    let forward = net.forward("service").await;
    let mut running = client(&forward).await;
    running.write_all(b"x").await.unwrap();
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    assert_eq!(soon(server.read_u8()).await.unwrap(), b'x');
    let (services, peers, forwards) = (net.b.services().clone(), net.a.peers().clone(), net.a.forwards());
    let Net { b, .. } = &net;
    let shutdown = b.shutdown(PATIENCE);
    let rest = async {
        // The peer learns that no new stream is taken, and looks for another session.
        let mut late = Vec::new();
        while peers.newest(&id("b")).is_some() {
            // It may be refused before it knows that it is connected.
            late.extend(connect(&forward).await);
            tokio::task::yield_now().await;
        }
        let answer = pattern(1 << 20, 3);
        server.write_all(&answer).await.unwrap();
        server.shutdown().await.unwrap();
        drop(server);
        let mut received = Vec::new();
        running.read_to_end(&mut received).await.unwrap();
        assert!(received == answer);
        running.shutdown().await.unwrap();
        drop(running);
        late
    };
    let (is_drained, late) = soon(async { tokio::join!(shutdown, rest) }).await;
    assert!(is_drained);
    assert_eq!(services.open_connections(), 0);
    drop(late);
    assert_eq!(forwards.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_end_is_cut_off() {
    let net = Net::new([open_service("echo", echo().await)]).await;
    let forward = net.forward("echo").await;
    let mut client = client(&forward).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(soon(client.read_u8()).await.unwrap(), b'x');
    assert!(!soon(net.b.shutdown(Duration::from_millis(50))).await);
    assert!(is_reset(&mut client).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_that_stops_frees_its_address() {
    let net = Net::new([open_service("echo", echo().await)]).await;
    let forward = net.forward("echo").await;
    let running = client(&forward).await;
    until(|| forward.open_connections() == 1).await;
    let address = running.peer_addr().unwrap();
    forward.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(soon(exchange(running, b"goes on")).await.unwrap(), b"goes on");
    assert_eq!(forward.counters().refused(Refusal::NoSession), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_dropped_ends_its_sessions() {
    let net = Net::new([open_service("echo", echo().await)]).await;
    let forward = net.forward("echo").await;
    assert_eq!(soon(exchange(client(&forward).await, b"hello")).await.unwrap(), b"hello");
    let Net { a, b, .. } = net;
    let session = b.peers().newest(&id("a")).unwrap();
    drop(a);
    soon(session.closed()).await;
    until(|| b.peers().all().is_empty()).await;
}
