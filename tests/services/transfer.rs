//! Bytes arrive as they were sent, and wait where they have to.

use std::io;

use longhaul::channel::{Address, ListenOptions, UnixOptions};
use longhaul::node::{LinkConfig, Node};
use longhaul::service::{Allow, Endpoint, ForwardConfig, Gateway, ServiceConfig, Services};
use longhaul::wire::ServiceRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{
    Net, client, connect_unix, echo, echo_unix, exchange, id, open_service, pattern, settings, soon, target, tcp,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_carries_both_ways_unchanged() {
    let net = Net::new([open_service("echo", echo().await)]).await;
    let forward = net.forward("echo").await;
    for size in [0, 1, 64, 16 * 1024, 16 * 1024 + 1, 300_000, 8 << 20] {
        let data = pattern(size, size as u64);
        assert!(soon(exchange(client(&forward).await, &data)).await.unwrap() == data, "{size} bytes");
    }
    soon(forward.ended()).await;
    let service = net.b.services().get("echo").unwrap();
    soon(net.b.services().ended()).await;
    let total = forward.counters().bytes_to_peer();
    assert_eq!(forward.counters().connections(), 7);
    assert_eq!(service.counters().connections(), 7);
    assert!(total > 8 << 20);
    let counters = [
        forward.counters().bytes_from_peer(),
        service.counters().bytes_from_peer(),
        service.counters().bytes_to_peer(),
    ];
    assert_eq!(counters, [total; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unix_carries_both_ways_unchanged() {
    let net = Net::new([]).await;
    let target = echo_unix(net.path("target.sock"));
    net.b.services().replace([open_service("echo", target)]);
    let path = net.path("forward.sock");
    let config = ForwardConfig::new(Address::Unix { path: path.clone() }, id("b"), "echo");
    let forward = net.a.forward(ForwardConfig { unix: UnixOptions { mode: 0o600, ..config.unix }, ..config }).await;
    let forward = forward.unwrap();
    for size in [0, 1, 300_000, 8 << 20] {
        let data = pattern(size, size as u64);
        assert!(soon(exchange(connect_unix(&path).await, &data)).await.unwrap() == data, "{size} bytes");
    }
    forward.stop().await;
    assert!(!path.exists(), "the socket file is gone with the forward");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_may_offer_services() {
    let net = Net::with([open_service("of-a", echo().await)], [open_service("of-b", echo().await)]).await;
    let to_b = net.forward("of-b").await;
    let to_a = net.b.forward(ForwardConfig::new(tcp(0), id("a"), "of-a")).await.unwrap();
    for forward in [to_b, to_a] {
        assert_eq!(soon(exchange(client(&forward).await, b"hello")).await.unwrap(), b"hello");
    }
}

#[tokio::test]
async fn the_request_and_the_first_bytes_travel_together() {
    let b = Node::builder(settings("b")).listen(tcp(0), ListenOptions::default()).build().await.unwrap();
    let a = Gateway::start(Node::builder(settings("a")).build().await.unwrap(), Services::new([]));
    a.add_link(a.node().link(LinkConfig::new(id("b"), [b.local_addresses()[0].clone()])));
    let forward = a.forward(ForwardConfig::new(tcp(0), id("b"), "any")).await.unwrap();
    let session = soon(b.accept()).await.unwrap();
    let mut early = std::net::TcpStream::connect(address_of(&forward)).unwrap();
    // Nothing else of this runtime, which has one thread, runs before the bytes are there.
    io::Write::write_all(&mut early, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let (_send, mut recv) = soon(session.accept_bi()).await.unwrap();
    let chunk = soon(recv.read_chunk(1 << 16)).await.unwrap().unwrap();
    let (request, size) = ServiceRequest::decode(&chunk).unwrap().unwrap();
    assert_eq!(request.service, "any");
    assert_eq!(request.source, early.local_addr().unwrap().to_string());
    assert_eq!(request.destination, address_of(&forward).to_string());
    assert_eq!(&chunk[size..], b"GET / HTTP/1.1\r\n\r\n");
}

fn address_of(forward: &longhaul::service::Forward) -> std::net::SocketAddr {
    let Endpoint::Stream(Address::Tcp { host, port }) = forward.local_address() else {
        panic!("the forward listens on TCP")
    };
    (host.parse::<std::net::IpAddr>().unwrap(), *port).into()
}

/// What may be on its way when nobody reads: both sockets' buffers, the stream's window, and what each end holds.
const HELD_BYTES_MAX: usize = 32 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_stops_the_writer_and_loses_nothing() {
    let (listener, address) = target().await;
    let net = Net::new([open_service("slow", address)]).await;
    let forward = net.forward("slow").await;
    let mut client = client(&forward).await;
    client.write_all(b"x").await.unwrap();
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    let block = pattern(1 << 16, 5);
    let mut sent = 1;
    // Silence of this length means that it waits; if it only were slow, the bound would be met all the sooner.
    let stalled = std::time::Duration::from_millis(500);
    while tokio::time::timeout(stalled, client.writable()).await.is_ok() {
        match client.try_write(&block[(sent - 1) % 4096..]) {
            Ok(count) => sent += count,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert!(sent < HELD_BYTES_MAX, "the writer is not stopped");
    }
    // Another connection is not held up by this one.
    let mut other = crate::common::client(&forward).await;
    other.write_all(b"y").await.unwrap();
    let (mut second, _) = soon(listener.accept()).await.unwrap();
    assert_eq!(soon(second.read_u8()).await.unwrap(), b'y');
    client.shutdown().await.unwrap();
    let mut received = Vec::new();
    soon(server.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received.len(), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_answers_alternate() {
    let net = Net::new([ServiceConfig::new("echo", echo().await, Allow::TrustDomain("test".to_owned()))]).await;
    let mut client = client(&*net.forward("echo").await).await;
    client.set_nodelay(true).unwrap();
    for round in 0..500_usize {
        let size = 1 + (round * 997) % 40_000;
        let data = pattern(size, round as u64);
        let mut answer = vec![0; size];
        soon(client.write_all(&data)).await.unwrap();
        soon(client.read_exact(&mut answer)).await.unwrap();
        assert!(answer == data, "round {round}");
    }
}
