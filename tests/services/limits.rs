//! Bandwidth and connection limits with real sockets. Rates are held against what a limit allows for the time that passed,
//! so that a machine that is busy can only make them lower.

use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul::base::limits;
use longhaul::node::{Bandwidth, BandwidthLimits, LimitedBy};
use longhaul::service::{
    Allow, DatagramLoss, DatagramOptions, Endpoint, ForwardConfig, Refusal, ServiceConfig, UdpAddress,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use crate::common::{Net, client, echo, exchange, id, next_is_reset, open_service, pattern, soon, target, tcp, until};

fn bandwidth(text: &str) -> Bandwidth {
    text.parse().unwrap()
}

/// A target that takes all it gets, and one that sends without an end.
async fn endless_target() -> longhaul::channel::Address {
    let (listener, address) = target().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { while stream.write_all(&[7; 16 * 1024]).await.is_ok() {} });
        }
    });
    address
}

/// Sends without an end.
fn send_endlessly(mut stream: TcpStream) -> JoinHandle<()> {
    tokio::spawn(async move { while stream.write_all(&[7; 16 * 1024]).await.is_ok() {} })
}

/// Sinks what it gets.
async fn sink() -> longhaul::channel::Address {
    let (listener, address) = target().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    address
}

/// What a limit lets through in a time: a burst, what time brings, and a packet that is owed.
fn allowed(limit: Bandwidth, time: Duration) -> u64 {
    let burst = limit.burst_bytes() + limits::FRAME_MESSAGE_BYTES_MAX as f64;
    (limit.bytes_per_second() as f64 * time.as_secs_f64() + burst) as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_sends_over_a_link_is_limited_and_changes_while_streams_run() {
    let net = Net::new([open_service("sink", sink().await)]).await;
    let forward = net.forward("sink").await;
    let set = |text: &str| {
        let links = [(id("b"), bandwidth(text))].into();
        net.a.node().set_bandwidth_limits(BandwidthLimits { links, ..BandwidthLimits::default() });
    };
    set("4Mbit/s");
    let begun = Instant::now();
    let sending = send_endlessly(client(&forward).await);
    let service = net.b.services().get("sink").unwrap();
    let arrived = || service.counters().bytes_from_peer();
    until(|| arrived() > 1_000_000).await;
    let time = begun.elapsed();
    assert!(arrived() <= allowed(bandwidth("4Mbit/s"), time), "{} bytes in {time:?}", arrived());
    let session = net.a.peers().newest(&id("b")).unwrap();
    assert!(session.stats().throttled[LimitedBy::Link as usize] > Duration::from_millis(500));
    // The same stream at another rate: as much as took two seconds is there at once.
    set("800Mbit/s");
    let (before, changed) = (arrived(), Instant::now());
    until(|| arrived() > before + 3_000_000).await;
    assert!(changed.elapsed() < Duration::from_secs(6), "at the old rate it would take as long");
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_dial_in_have_a_limit_each() {
    let net = Net::new([open_service("source", endless_target().await)]).await;
    let limit = bandwidth("4Mbit/s");
    net.b.node().set_bandwidth_limits(BandwidthLimits { each_peer: Some(limit), ..BandwidthLimits::default() });
    let forward = net.forward("source").await;
    let (begun, mut got) = (Instant::now(), 0);
    let mut clients = [client(&forward).await, client(&forward).await];
    let mut buffer = vec![0; 64 * 1024];
    soon(async {
        while got < 800_000 {
            let [one, two] = &mut clients;
            let mut second = vec![0; 64 * 1024];
            got += tokio::select! {
                count = one.read(&mut buffer) => count.unwrap(),
                count = two.read(&mut second) => count.unwrap(),
            } as u64;
        }
    })
    .await;
    let time = begun.elapsed();
    assert!(got <= allowed(limit, time), "{got} bytes in {time:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_limited_in_both_directions_and_nothing_gets_lost() {
    let limit = bandwidth("8Mbit/s");
    let service = ServiceConfig { bandwidth_limit: Some(limit), ..open_service("echo", echo().await) };
    let net = Net::new([service, open_service("free", echo().await)]).await;
    let (forward, free) = (net.forward("echo").await, net.forward("free").await);
    let data = pattern(700_000, 3);
    let begun = Instant::now();
    let (first, second) =
        soon(async { tokio::join!(exchange(client(&forward).await, &data), exchange(client(&forward).await, &data)) })
            .await;
    let time = begun.elapsed();
    assert!(first.unwrap() == data && second.unwrap() == data);
    assert!(2 * data.len() as u64 <= allowed(limit, time), "{time:?}");
    let service = net.b.services().get("echo").unwrap();
    let [to_peer, from_peer] = service.throttled();
    assert!(to_peer + from_peer > Duration::from_millis(300), "{to_peer:?} {from_peer:?}");
    // Another service of the same peer is not concerned.
    let begun = Instant::now();
    assert!(soon(exchange(client(&free).await, &pattern(8_000_000, 5))).await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(7), "at the limit it would take eight seconds");
}

/// What the service does not read stops the forward's client: no more than the windows is on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_go_to_a_target_stops_whoever_sends_it() {
    let limit = bandwidth("64kbit/s");
    let service = ServiceConfig { bandwidth_limit: Some(limit), ..open_service("sink", sink().await) };
    let net = Net::new([service]).await;
    let forward = net.forward("sink").await;
    let begun = Instant::now();
    let sending = send_endlessly(client(&forward).await);
    let (service, session) = (net.b.services().get("sink").unwrap(), async || {
        until(|| net.a.peers().newest(&id("b")).is_some()).await;
        net.a.peers().newest(&id("b")).unwrap()
    });
    let session = session().await;
    until(|| service.counters().bytes_from_peer() > 20_000).await;
    let taken = forward.counters().bytes_to_peer();
    // The first window of a stream, what may be unsent, and buffers of the copying on both sides.
    assert!(taken < 3 << 20, "{taken} bytes were taken of the client");
    let arrived = service.counters().bytes_from_peer();
    assert!(arrived <= allowed(limit, begun.elapsed()), "{arrived}");
    assert!(session.stats().unsent_bytes <= limits::STREAM_UNSENT_BYTES_MAX + (256 << 10));
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_is_limited_and_its_limit_can_go() {
    let net = Net::new([open_service("sink", sink().await)]).await;
    let limit = bandwidth("2Mbit/s");
    let config = ForwardConfig::new(tcp(0), id("b"), "sink");
    let limited = ForwardConfig { bandwidth_limit: Some(limit), ..config.clone() };
    let forward = net.a.forward(limited).await.unwrap();
    let begun = Instant::now();
    let sending = send_endlessly(client(&forward).await);
    let read = || forward.counters().bytes_to_peer();
    until(|| read() > 500_000).await;
    let time = begun.elapsed();
    assert!(read() <= allowed(limit, time), "{} bytes in {time:?}", read());
    assert!(forward.throttled()[0] > Duration::from_millis(500));
    forward.reconfigure(config);
    let (before, changed) = (read(), Instant::now());
    until(|| read() > before + 3_000_000).await;
    assert!(changed.elapsed() < Duration::from_secs(11), "with the limit it would take twelve seconds");
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_above_a_services_limit_are_dropped_and_counted() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = UdpAddress { host: "127.0.0.1".to_owned(), port: socket.local_addr().unwrap().port() };
    let sinking = tokio::spawn(async move {
        let mut buffer = vec![0; 2048];
        while socket.recv(&mut buffer).await.is_ok() {}
    });
    let limit = bandwidth("800kbit/s");
    let age_max = Duration::from_millis(200);
    let datagrams = DatagramOptions { age_max, ..DatagramOptions::default() };
    let service = ServiceConfig {
        bandwidth_limit: Some(limit),
        datagrams,
        ..ServiceConfig::new("sink", address, Allow::Everyone)
    };
    let net = Net::new([service]).await;
    let any = UdpAddress { host: "127.0.0.1".to_owned(), port: 0 };
    let forward = net.a.forward(ForwardConfig::new(any, id("b"), "sink")).await.unwrap();
    let Endpoint::Datagrams(UdpAddress { host, port }) = forward.local_address() else { panic!("a UDP address") };
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect((host.as_str(), *port)).await.unwrap();
    let service = net.b.services().get("sink").unwrap();
    let begun = Instant::now();
    soon(async {
        while service.counters().datagrams_lost(DatagramLoss::Limited) < 50 {
            client.send(&[7; 1000]).await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    let carried = service.counters().datagrams_from_peer() * 1000;
    let most = 100_000.0 * (begun.elapsed() + age_max).as_secs_f64() + 1000.0;
    assert!(carried > 0 && carried as f64 <= most, "{carried} bytes in {:?}", begun.elapsed());
    sinking.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_has_no_more_connections_than_one_peer_may() {
    let of_service = ServiceConfig { connections_per_peer_max: 2, ..open_service("echo", echo().await) };
    let net = Net::new([of_service, open_service("other", echo().await)]).await;
    let (forward, other) = (net.forward("echo").await, net.forward("other").await);
    let hold = async |forward: &longhaul::service::Forward| {
        let mut stream = client(forward).await;
        stream.write_all(b"x").await.unwrap();
        assert_eq!(soon(stream.read_u8()).await.unwrap(), b'x');
        stream
    };
    let mut held = vec![hold(&forward).await, hold(&forward).await];
    assert!(next_is_reset(&forward).await);
    let service = net.b.services().get("echo").unwrap();
    let refused = |service: &Arc<longhaul::service::Service>| service.counters().refused(Refusal::TooManyOfPeer);
    assert_eq!((refused(&service), service.counters().refused(Refusal::TooManyConnections)), (1, 0));
    until(|| forward.counters().refused(Refusal::TooManyOfPeer) == 1).await;
    // Another service has its own count, until there is one for all.
    held.push(hold(&other).await);
    net.b.services().set_connections_per_peer_max(3);
    assert!(next_is_reset(&other).await);
    assert_eq!(refused(&net.b.services().get("other").unwrap()), 1);
    held.clear();
    until(|| net.b.services().open_connections() == 0).await;
    drop(hold(&other).await);
}
