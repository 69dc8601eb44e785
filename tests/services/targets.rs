//! Services with several targets: who gets what, what happens when targets die and come back, and reloads.

use std::time::{Duration, Instant};

use longhaul::channel::Address;
use longhaul::service::{
    Allow, Forward, ForwardConfig, Refusal, ServiceConfig, Target, TargetConfig, TargetState, Targets,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::{Net, client, echo_unix, exchange, id, next_is_reset, soon, tcp, until};
use crate::mortal::{mortals, report, services, states};

/// What so many clients at once were told by their targets, sorted. None of them may fail.
async fn told(forward: &Forward, count: usize) -> String {
    let clients = (0..count).map(|_| async { exchange(client(forward).await, b"").await.unwrap() });
    let answers = soon(futures_util::future::join_all(clients)).await;
    let mut names: Vec<_> = answers.concat().into_iter().map(char::from).collect();
    names.sort_unstable();
    names.into_iter().collect()
}

/// A connection that stays: it, and who answered.
async fn hold(forward: &Forward) -> (TcpStream, char) {
    let mut stream = client(forward).await;
    let name = soon(stream.read_u8()).await.unwrap();
    (stream, char::from(name))
}

async fn answers(stream: &mut TcpStream) -> bool {
    stream.write_all(b"?").await.is_ok() && soon(stream.read_u8()).await.is_ok_and(|byte| byte == b'?')
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_notices_targets_that_die_one_by_one() {
    let [mut x, mut y, mut z] = mortals(["x", "y", "z"]).await;
    let net = Net::new(services(&format!("targets = [{x}, {y}, {z}]"))).await;
    let forward = net.forward("pool").await;
    assert_eq!(told(&forward, 12).await, "xxxxyyyyzzzz", "in turns");
    x.kill().await;
    assert_eq!(told(&forward, 12).await.replace(['y', 'z'], ""), "");
    y.kill().await;
    assert_eq!(told(&forward, 12).await, "zzzzzzzzzzzz");
    // All but one are left out by now. The one that lives is one of those.
    until(|| states(&net, "pool")[..2] == [TargetState::Ejected; 2]).await;
    x.revive().await;
    z.kill().await;
    assert_eq!(told(&forward, 12).await, "xxxxxxxxxxxx");
    assert_eq!(forward.counters().refused(Refusal::TargetRefused), 0);
    x.kill().await;
    assert!(next_is_reset(&forward).await);
    until(|| forward.counters().refused(Refusal::TargetRefused) == 1).await;
    y.revive().await;
    assert_eq!(told(&forward, 12).await, "yyyyyyyyyyyy");
    let report = report(&net, "pool", 0);
    assert_eq!((report.open, report.reason.as_deref()), (0, Some("connection refused")));
    assert!(report.failures >= 3 && report.ejections >= 1 && report.connections == 16, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_left_out_comes_back() {
    let [mut x, y] = mortals(["x", "y"]).await;
    let options = "eject_after = 2\neject_time = '100ms'\neject_time_max = '200ms'";
    let net = Net::new(services(&format!("targets = [{x}, {y}]\n{options}"))).await;
    let forward = net.forward("pool").await;
    x.kill().await;
    soon(async {
        while report(&net, "pool", 0).ejections < 3 {
            assert_eq!(told(&forward, 2).await, "yy");
        }
    })
    .await;
    x.revive().await;
    soon(async {
        while told(&forward, 2).await != "xy" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let report = report(&net, "pool", 0);
    assert_eq!((report.state, report.reason), (TargetState::Unchecked, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_target_costs_the_time_to_connect_and_no_client() {
    // A listener whose backlog is full answers no further connection.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let fillers: Vec<_> = (0..3).map(|_| tokio::spawn(TcpStream::connect(address))).collect();
    let [y] = mortals(["y"]).await;
    let options = "connect_timeout = '300ms'\nconnect_attempts = 2";
    let net = Net::new(services(&format!("targets = ['tcp://{address}', {y}]\n{options}"))).await;
    let forward = net.forward("pool").await;
    let begun = Instant::now();
    assert_eq!(told(&forward, 1).await, "y");
    assert!(begun.elapsed() >= Duration::from_millis(300), "the silent one was tried");
    assert_eq!(report(&net, "pool", 0).failures, 1);
    fillers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_bounded() {
    let [mut x, mut y, z] = mortals(["x", "y", "z"]).await;
    x.kill().await;
    y.kill().await;
    let net = Net::new(services(&format!("targets = [{x}, {y}, {z}]\nconnect_attempts = 2\neject_after = 0"))).await;
    let forward = net.forward("pool").await;
    assert!(next_is_reset(&forward).await, "x and y were tried, z was not");
    until(|| forward.counters().refused(Refusal::TargetRefused) == 1).await;
    assert_eq!(told(&forward, 1).await, "z", "it is its turn");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_say_who_gets_how_much() {
    let [x, y] = mortals(["x", "y"]).await;
    let weighted = format!("targets = [{{ url = {x}, weight = 3 }}, {y}]\nstrategy = 'weighted'");
    let net = Net::new(services(&weighted)).await;
    assert_eq!(told(&*net.forward("pool").await, 12).await, "xxxxxxxxxyyy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_with_the_fewest_connections_gets_the_next() {
    let [x, y] = mortals(["x", "y"]).await;
    let net = Net::new(services(&format!("targets = [{x}, {y}]\nstrategy = 'least-connections'"))).await;
    let forward = net.forward("pool").await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(hold(&forward).await);
    }
    assert_eq!(held.iter().filter(|(_, name)| *name == 'x').count(), 3);
    held.retain(|(_, name)| *name == 'x');
    until(|| report(&net, "pool", 1).open == 0).await;
    for _ in 0..3 {
        let next = hold(&forward).await;
        assert_eq!(next.1, 'y');
        held.push(next);
    }
    drop(held);
    until(|| (0..2).all(|index| report(&net, "pool", index).open == 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_target_gets_little() {
    let [fast, slow] = mortals(["f", "s"]).await;
    slow.delay(Duration::from_millis(700));
    let net = Net::new(services(&format!("targets = [{fast}, {slow}]\nstrategy = 'response-time'"))).await;
    let forward = net.forward("pool").await;
    let mut seen = String::new();
    for _ in 0..20 {
        seen.push_str(&told(&forward, 1).await);
    }
    // One to find out, and some for a machine that stumbles.
    assert!(seen.matches('s').count() <= 5, "{seen}");
    let response = |index| report(&net, "pool", index).response;
    assert!(response(0) < Some(Duration::from_millis(700)) && response(0).is_some(), "{:?}", response(0));
}

/// A client at one of the addresses of this machine: who answers.
async fn from(forward: &Forward, last: u8) -> char {
    let longhaul::service::Endpoint::Stream(Address::Tcp { port, .. }) = forward.local_address() else { panic!("TCP") };
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    let stream = socket.connect(([127, 0, 0, 1], *port).into()).await.unwrap();
    char::from(exchange(stream, b"").await.unwrap()[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_keeps_its_target() {
    let [mut x, y, z] = mortals(["x", "y", "z"]).await;
    let options = "strategy = 'hash'\neject_after = 0";
    let net = Net::new(services(&format!("targets = [{x}, {y}, {z}]\n{options}"))).await;
    let forward = net.forward("pool").await;
    let mut before = Vec::new();
    for last in 2..40 {
        let name = from(&forward, last).await;
        assert_eq!(from(&forward, last).await, name, "from another port");
        before.push(name);
    }
    assert!(['x', 'y', 'z'].iter().all(|name| before.contains(name)), "{before:?}");
    x.kill().await;
    for (last, name) in (2..).zip(&before) {
        let now = from(&forward, last).await;
        assert!(if *name == 'x' { now != 'x' } else { now == *name }, "only clients of x move");
    }
    x.revive().await;
    for (last, name) in (2..).zip(&before) {
        assert_eq!(from(&forward, last).await, *name, "and come back with it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_go_on_when_targets_change() {
    let [x, y, z] = mortals(["x", "y", "z"]).await;
    let net = Net::new(services(&format!("targets = [{x}, {y}]"))).await;
    let forward = net.forward("pool").await;
    let mut held = [hold(&forward).await, hold(&forward).await];
    held.sort_by_key(|(_, name)| *name);
    net.b.services().replace(services(&format!("targets = [{y}, {z}]\nstrategy = 'least-connections'")));
    assert_eq!(report(&net, "pool", 0).open, 1, "what y has counts still");
    assert_eq!(told(&forward, 1).await, "z");
    assert!(answers(&mut held[0].0).await && answers(&mut held[1].0).await, "what is open goes on");
    let report = |index| report(&net, "pool", index);
    assert_eq!((report(0).connections, report(1).connections), (1, 1));
    // To one target, and without the service.
    net.b.services().replace([ServiceConfig::new("pool", Target::Address(z.address()), Allow::Everyone)]);
    assert_eq!(told(&forward, 3).await, "zzz");
    net.b.services().replace([]);
    assert!(answers(&mut held[0].0).await && answers(&mut held[1].0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unix_sockets_and_tcp_share_a_service() {
    let [x] = mortals(["x"]).await;
    let net = Net::new([]).await;
    let path = net.path("echo.sock");
    let targets = Targets::new([TargetConfig::new(echo_unix(path.clone())), TargetConfig::new(x.address())]).unwrap();
    net.b.services().replace([ServiceConfig::new("pool", targets, Allow::Everyone)]);
    let forward = net.a.forward(ForwardConfig::new(tcp(0), id("b"), "pool")).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(soon(exchange(client(&forward).await, b"e")).await.unwrap());
    }
    seen.sort();
    assert_eq!(seen, [&b"e"[..], b"xe"]);
    // A socket file that is gone is one more target that cannot be connected to.
    std::fs::remove_file(path).unwrap();
    for _ in 0..4 {
        assert_eq!(soon(exchange(client(&forward).await, b"e")).await.unwrap(), b"xe");
    }
}
