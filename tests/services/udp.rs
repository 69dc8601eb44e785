//! Datagrams through forwards and services: each client has a flow, and what cannot be carried is counted.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use longhaul::base::CloseCode;
use longhaul::channel::{Address, ListenOptions};
use longhaul::node::{DatagramDrop, LinkConfig, Node};
use longhaul::service::{
    Allow, DatagramLoss, DatagramOptions, Endpoint, Forward, ForwardConfig, Gateway, Refusal, ServiceConfig, Services,
    UdpAddress,
};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};

use crate::common::{Net, echo, id, next_is_reset, open_service, pattern, settings, soon, tcp, until};

fn udp(port: u16) -> UdpAddress {
    UdpAddress { host: "127.0.0.1".to_owned(), port }
}

/// A target that sends back what it gets, and remembers from whom.
struct Echo {
    address: UdpAddress,
    seen: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl Echo {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Self::on(socket)
    }

    fn on(socket: UdpSocket) -> Self {
        let address = udp(socket.local_addr().unwrap().port());
        let seen = Arc::<Mutex<HashSet<_>>>::default();
        let clients = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let Ok((size, from)) = socket.recv_from(&mut buffer).await else { continue };
                clients.lock().unwrap().insert(from);
                let _ = socket.send_to(&buffer[..size], from).await;
            }
        });
        Self { address, seen }
    }

    fn clients(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn service(name: &str, target: UdpAddress) -> ServiceConfig {
    ServiceConfig::new(name, target, Allow::Everyone)
}

async fn forward(gateway: &Gateway, service: &str, datagrams: DatagramOptions) -> Arc<Forward> {
    let config = ForwardConfig { datagrams, ..ForwardConfig::new(udp(0), id("b"), service) };
    gateway.forward(config).await.unwrap()
}

/// A socket of a client, connected to where a forward listens.
async fn client(forward: &Forward) -> UdpSocket {
    let Endpoint::Datagrams(UdpAddress { host, port }) = forward.local_address() else {
        panic!("the forward gets datagrams")
    };
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect((host.as_str(), *port)).await.unwrap();
    socket
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    let size = soon(socket.recv(&mut buffer)).await.unwrap();
    buffer.truncate(size);
    buffer
}

async fn exchange(socket: &UdpSocket, data: &[u8]) -> Vec<u8> {
    socket.send(data).await.unwrap();
    receive(socket).await
}

/// Connected sockets take datagrams from where they send to alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn udp_answers_come_from_where_the_client_sent_to() {
    let target = Echo::start().await;
    let net = Net::new([service("echo", target.address.clone())]).await;
    let any = UdpAddress { host: "0.0.0.0".to_owned(), port: 0 };
    let forward = net.a.forward(ForwardConfig::new(any, id("b"), "echo")).await.unwrap();
    let Endpoint::Datagrams(UdpAddress { port, .. }) = *forward.local_address() else { panic!("a UDP address") };
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for address in ["127.0.0.1", "127.0.0.2", "127.3.4.5"] {
        client.connect((address, port)).await.unwrap();
        for size in [0, 100, 65_507] {
            let data = pattern(size, 1);
            assert!(exchange(&client, &data).await == data, "{address} {size}");
        }
    }
    assert_eq!(forward.counters().connections(), 3);
}

/// Asks until there is an answer, as clients of UDP do. Late answers to earlier questions may come first.
async fn exchange_with_patience(socket: &UdpSocket, data: &[u8]) {
    soon(async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            socket.send(data).await.unwrap();
            let answer = tokio::time::timeout(Duration::from_millis(100), async {
                loop {
                    if socket.recv(&mut buffer).await.is_ok_and(|size| &buffer[..size] == data) {
                        return;
                    }
                }
            });
            if answer.await.is_ok() {
                return;
            }
        }
    })
    .await;
}

fn losses(forward: &Forward) -> u64 {
    DatagramLoss::ALL.into_iter().map(|loss| forward.counters().datagrams_lost(loss)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_datagrams_of_all_sizes_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = [tcp(0), Address::Unix { path: folder.path().join("b.sock") }];
    for address in addresses {
        let target = Echo::start().await;
        let b = Node::builder(settings("b")).listen(address, ListenOptions::default()).build().await.unwrap();
        let a = Node::builder(settings("a")).build().await.unwrap();
        let link = a.link(LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]));
        let b = Gateway::start(b, Services::new([service("echo", target.address.clone())]));
        let a = Gateway::start(a, Services::new([]));
        a.add_link(link);
        let forward = forward(&a, "echo", DatagramOptions::default()).await;
        let client = client(&forward).await;
        let sizes = [1, 0, 16, 1200, 1500, 9000, 40_000, 65_000, 65_507];
        for (seed, size) in sizes.into_iter().enumerate() {
            let data = pattern(size, seed as u64);
            assert!(exchange(&client, &data).await == data, "{size}");
        }
        let (at_forward, at_service) = (forward.counters(), Arc::clone(b.services().get("echo").unwrap().counters()));
        let count = sizes.len() as u64;
        for counters in [at_forward, &at_service] {
            // What a client has got is counted a moment later.
            until(|| (counters.datagrams_to_peer(), counters.datagrams_from_peer()) == (count, count)).await;
            assert_eq!(counters.bytes_to_peer(), sizes.iter().sum::<usize>() as u64);
            assert_eq!(counters.connections(), 1);
        }
        assert_eq!((losses(&forward), target.clients()), (0, 1));
        let stats = a.peers().newest(&id("b")).unwrap().stats().datagrams;
        assert_eq!((stats.sent, stats.received, stats.dropped_in_all()), (count, count, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_clients_have_flows_of_their_own() {
    let target = Echo::start().await;
    let net = Net::new([service("echo", target.address.clone())]).await;
    let forward = forward(&net.a, "echo", DatagramOptions::default()).await;
    let mut clients = JoinSet::new();
    for index in 0..100_u64 {
        let forward = Arc::clone(&forward);
        clients.spawn(async move {
            let client = client(&forward).await;
            for round in 0..10 {
                let data = pattern(100 + index as usize, index * 100 + round);
                assert_eq!(exchange(&client, &data).await, data);
            }
            client
        });
    }
    let clients = soon(clients.join_all()).await;
    assert_eq!((target.clients(), forward.counters().connections(), clients.len()), (100, 100, 100));
    assert_eq!((forward.open_connections(), net.b.services().open_connections()), (100, 100));
    // What a client has got is counted a moment later.
    until(|| forward.counters().datagrams_from_peer() == 1000).await;
    assert_eq!(losses(&forward), 0);
}

/// As resolvers ask: each question from a port of its own, many at once, some before there is a session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_questions_find_their_answers() {
    let target = Echo::start().await;
    let net = Net::new([service("dns", target.address.clone())]).await;
    let options = DatagramOptions { idle_timeout: Duration::from_millis(300), ..DatagramOptions::default() };
    let forward = forward(&net.a, "dns", options).await;
    let mut questions = JoinSet::new();
    for number in 0..200_u64 {
        let forward = Arc::clone(&forward);
        questions.spawn(async move { exchange_with_patience(&client(&forward).await, &pattern(60, number)).await });
    }
    soon(questions.join_all()).await;
    soon(forward.ended()).await;
    until(|| net.b.services().open_connections() == 0).await;
    assert!(forward.counters().connections() >= 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_burst_before_the_flow_is_open_is_carried() {
    let target = Echo::start().await;
    let net = Net::new([service("echo", target.address.clone())]).await;
    let options = DatagramOptions { age_max: Duration::from_secs(10), ..DatagramOptions::default() };
    let forward = forward(&net.a, "echo", options).await;
    let client = client(&forward).await;
    for number in 0..20_u8 {
        client.send(&[number; 100]).await.unwrap();
    }
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(receive(&client).await[0]);
    }
    answers.sort_unstable();
    assert_eq!(answers, (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_flow_ends_when_it_is_idle_at_either_side() {
    let target = Echo::start().await;
    let short = DatagramOptions { idle_timeout: Duration::from_millis(200), ..DatagramOptions::default() };
    let impatient = ServiceConfig { datagrams: short.clone(), ..service("impatient", target.address.clone()) };
    let net = Net::new([service("echo", target.address.clone()), impatient]).await;
    for (name, options) in [("echo", short), ("impatient", DatagramOptions::default())] {
        let forward = forward(&net.a, name, options).await;
        let client = client(&forward).await;
        let begin = Instant::now();
        for round in 1..3 {
            let before = target.clients();
            exchange_with_patience(&client, b"hello").await;
            assert_eq!(forward.open_connections(), 1);
            until(|| forward.open_connections() == 0 && net.b.services().open_connections() == 0).await;
            assert_eq!(target.clients(), before + 1, "a new flow has a port of its own");
            assert!(begin.elapsed() >= round * Duration::from_millis(200));
        }
        assert!(forward.counters().connections() >= 2);
    }
    // Both ends of each stream are over.
    until(|| net.a.peers().all().iter().all(|session| session.stream_count() == 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_flow_that_is_used_does_not_end() {
    let target = Echo::start().await;
    let net = Net::new([service("echo", target.address.clone())]).await;
    let options = DatagramOptions { idle_timeout: Duration::from_secs(1), ..DatagramOptions::default() };
    let forward = forward(&net.a, "echo", options).await;
    let client = client(&forward).await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2500) {
        assert_eq!(exchange(&client, b"still here").await, b"still here");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((forward.counters().connections(), target.clients()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_limits_of_flows_refuse_and_count() {
    let target = Echo::start().await;
    let few = DatagramOptions { flow_count_max: 2, ..DatagramOptions::default() };
    let narrow = ServiceConfig { datagrams: few.clone(), ..service("narrow", target.address.clone()) };
    let net = Net::new([service("echo", target.address.clone()), narrow]).await;

    let limited = forward(&net.a, "echo", few).await;
    let clients = [client(&limited).await, client(&limited).await, client(&limited).await];
    for client in &clients[..2] {
        exchange_with_patience(client, b"hello").await;
    }
    clients[2].send(b"one too many").await.unwrap();
    until(|| limited.counters().datagrams_lost(DatagramLoss::TooManyFlows) == 1).await;
    assert_eq!(limited.counters().refused(Refusal::TooManyConnections), 1);
    exchange_with_patience(&clients[0], b"the others go on").await;

    let refused = forward(&net.a, "narrow", DatagramOptions::default()).await;
    let clients = [client(&refused).await, client(&refused).await, client(&refused).await];
    for client in &clients[..2] {
        exchange_with_patience(client, b"hello").await;
    }
    clients[2].send(b"one too many").await.unwrap();
    until(|| refused.counters().refused(Refusal::TooManyConnections) == 1).await;
    let narrow = net.b.services().get("narrow").unwrap();
    assert_eq!(narrow.counters().refused(Refusal::TooManyConnections), 1);
}

/// A client that goes on sending to what refuses it does not open a stream with each datagram.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_refusals_reach_the_forward_and_are_not_asked_for_again_at_once() {
    let target = Echo::start().await;
    let net = Net::new([
        ServiceConfig::new("private", target.address.clone(), Allow::nodes([id("c")])),
        open_service("connections", echo().await),
        service("datagrams", target.address.clone()),
    ])
    .await;
    let reasons = [
        ("unheard-of", Refusal::UnknownService),
        ("private", Refusal::NotAllowed),
        ("connections", Refusal::WrongKind),
    ];
    for (name, refusal) in reasons {
        let forward = forward(&net.a, name, DatagramOptions::default()).await;
        let client = client(&forward).await;
        client.send(b"please").await.unwrap();
        until(|| forward.counters().refused(refusal) == 1).await;
        let begin = Instant::now();
        for _ in 0..100 {
            client.send(b"please").await.unwrap();
        }
        until(|| forward.counters().datagrams_lost(DatagramLoss::FlowOver) >= 100).await;
        let asked = forward.counters().refused(refusal);
        assert!(asked <= 1 + begin.elapsed().as_secs() + 1, "{name}: {asked}");
    }
    let wrong = net.forward("datagrams").await;
    assert!(next_is_reset(&wrong).await);
    soon(wrong.ended()).await;
    assert_eq!(wrong.counters().refused(Refusal::WrongKind), 1);
    assert_eq!(target.clients(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_target_that_is_down_is_counted_and_used_when_it_is_up() {
    // Bound and closed: nobody else gets it soon.
    let port = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let net = Net::new([service("late", udp(port))]).await;
    let forward = forward(&net.a, "late", DatagramOptions::default()).await;
    let client = client(&forward).await;
    let late = net.b.services().get("late").unwrap();
    let refused = || late.counters().datagrams_lost(DatagramLoss::TargetRefused);
    soon(async {
        while refused() < 3 {
            client.send(b"anybody there?").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!((forward.open_connections(), net.b.services().open_connections()), (1, 1), "the flow goes on");
    let target = Echo::on(UdpSocket::bind(("127.0.0.1", port)).await.unwrap());
    exchange_with_patience(&client, b"now").await;
    assert_eq!((target.clients(), forward.counters().connections()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_datagrams_without_a_session_are_dropped_and_counted() {
    let a = Gateway::start(Node::builder(settings("a")).build().await.unwrap(), Services::new([]));
    let config = ForwardConfig {
        session_timeout: Duration::from_millis(200),
        ..ForwardConfig::new(udp(0), id("nobody"), "service")
    };
    let forward = a.forward(config).await.unwrap();
    let client = client(&forward).await;
    for _ in 0..10 {
        client.send(&[7; 40_000]).await.unwrap();
    }
    until(|| forward.counters().datagrams_lost(DatagramLoss::NotOpen) >= 10).await;
    until(|| forward.open_connections() == 0).await;
    assert!(forward.counters().refused(Refusal::NoSession) >= 1);
    assert_eq!(forward.counters().datagrams_to_peer(), 0);
}

/// Passes connections on until it is told to kill them.
struct Relay {
    address: Address,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Relay {
    async fn start(to: Address) -> Self {
        let Address::Tcp { port, .. } = to else { panic!("a TCP address") };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp(listener.local_addr().unwrap().port());
        let connections = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let carried = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let task = tokio::spawn(async move {
                    let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
                carried.lock().unwrap().push(task.abort_handle());
            }
        });
        Self { address, connections }
    }

    fn kill_all(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_flows_outlive_their_channels_and_begin_anew_with_the_session() {
    let target = Echo::start().await;
    let b = Node::builder(settings("b")).listen(tcp(0), ListenOptions::default()).build().await.unwrap();
    let relay = Relay::start(b.local_addresses()[0].clone()).await;
    let a = Node::builder(settings("a")).build().await.unwrap();
    let link = a.link(LinkConfig::new(id("b"), [relay.address.clone()]));
    let _b = Gateway::start(b, Services::new([service("echo", target.address.clone())]));
    let a = Gateway::start(a, Services::new([]));
    a.add_link(link);
    let forward = forward(&a, "echo", DatagramOptions::default()).await;
    let client = client(&forward).await;
    exchange_with_patience(&client, b"begin").await;
    for _ in 0..5 {
        relay.kill_all();
        exchange_with_patience(&client, b"and on").await;
    }
    assert_eq!((forward.counters().connections(), target.clients()), (1, 1), "one flow over all channels");
    let session = a.peers().newest(&id("b")).unwrap();
    assert!(session.stats().lanes_lost >= 5);
    assert_eq!(session.stats().datagrams.dropped(DatagramDrop::TooLarge), 0);
    session.close(CloseCode(0x100), "over");
    drop(session);
    exchange_with_patience(&client, b"anew").await;
    assert_eq!(target.clients(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_flows_do_not_hold_up_a_shutdown() {
    for which in 0..2 {
        let target = Echo::start().await;
        let net = Net::new([service("echo", target.address.clone())]).await;
        let forward = forward(&net.a, "echo", DatagramOptions::default()).await;
        let client = client(&forward).await;
        exchange_with_patience(&client, b"hello").await;
        let gateway = [&net.a, &net.b][which];
        assert!(soon(gateway.shutdown(Duration::from_secs(20))).await, "{which}");
        until(|| forward.open_connections() == 0).await;
    }
}
