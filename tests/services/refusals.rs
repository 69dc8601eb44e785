//! Why a connection was not carried is told apart, and the client is told at once.

use std::time::{Duration, Instant};

use longhaul::base::StreamCode;
use longhaul::channel::{Address, UnixOptions};
use longhaul::node::{LinkConfig, Node, ReadError};
use longhaul::service::{Allow, ForwardConfig, Gateway, Refusal, ServiceConfig, Services};
use longhaul::wire::ServiceRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{
    Net, client, connect_unix, echo, id, is_reset, next_is_reset, open_service, settings, soon, target, tcp, until,
};

/// The next client of the forward is reset, for this reason.
async fn is_refused(net: &Net, service: &str, refusal: Refusal) {
    let forward = net.forward(service).await;
    assert!(next_is_reset(&forward).await, "{refusal}");
    soon(forward.ended()).await;
    for other in Refusal::ALL {
        assert_eq!(forward.counters().refused(other), u64::from(other == refusal), "{refusal}: {other}");
    }
}

/// A socket that is bound and does not listen: its address refuses connections, and nobody else gets it.
fn refusing() -> (socket2::Socket, Address) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, tcp(port))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reason_reaches_the_forward() {
    let nobody = Allow::nodes([id("c")]);
    let (_socket, refusing) = refusing();
    let gone = Address::Unix { path: "/nonexistent/longhaul.sock".into() };
    let net = Net::new([
        ServiceConfig::new("private", echo().await, nobody),
        open_service("refusing", refusing),
        open_service("gone", gone),
    ])
    .await;
    is_refused(&net, "unheard-of", Refusal::UnknownService).await;
    is_refused(&net, "private", Refusal::NotAllowed).await;
    is_refused(&net, "refusing", Refusal::TargetRefused).await;
    is_refused(&net, "gone", Refusal::TargetUnreachable).await;
    let services = net.b.services();
    assert_eq!(services.counters().unknown_service(), 1);
    assert_eq!(services.get("private").unwrap().counters().refused(Refusal::NotAllowed), 1);
    assert_eq!(services.get("refusing").unwrap().counters().refused(Refusal::TargetRefused), 1);
    services.close();
    is_refused(&net, "private", Refusal::ShuttingDown).await;
    assert_eq!(services.counters().shutting_down(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_target_is_given_up_in_time() {
    // A listener whose backlog is full answers no further connection.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let fillers: Vec<_> = (0..3).map(|_| tokio::spawn(tokio::net::TcpStream::connect(address))).collect();
    let service =
        ServiceConfig { connect_timeout: Duration::from_millis(200), ..open_service("silent", tcp(address.port())) };
    let net = Net::new([service]).await;
    is_refused(&net, "silent", Refusal::TargetUnreachable).await;
    fillers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_takes_no_more_connections_than_it_may() {
    let service = ServiceConfig { connections_max: 2, ..open_service("echo", echo().await) };
    let net = Net::new([service]).await;
    let forward = net.forward("echo").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = client(&forward).await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(soon(client.read_u8()).await.unwrap(), b'x');
        held.push(client);
    }
    is_refused(&net, "echo", Refusal::TooManyConnections).await;
    held.pop();
    let service = net.b.services().get("echo").unwrap();
    until(|| service.open_connections() < 2).await;
    let mut client = client(&forward).await;
    client.write_all(b"y").await.unwrap();
    assert_eq!(soon(client.read_u8()).await.unwrap(), b'y');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_takes_no_more_connections_than_it_may() {
    let net = Net::new([open_service("echo", echo().await)]).await;
    let config = ForwardConfig { connections_max: 1, ..ForwardConfig::new(tcp(0), id("b"), "echo") };
    let forward = net.a.forward(config).await.unwrap();
    let mut first = client(&forward).await;
    first.write_all(b"x").await.unwrap();
    assert_eq!(soon(first.read_u8()).await.unwrap(), b'x');
    assert!(next_is_reset(&forward).await);
    assert_eq!(forward.counters().refused(Refusal::TooManyConnections), 1);
    drop(first);
    soon(forward.ended()).await;
    let mut next = client(&forward).await;
    next.write_all(b"y").await.unwrap();
    assert_eq!(soon(next.read_u8()).await.unwrap(), b'y');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_on_a_unix_socket_lets_only_those_in_who_are_listed() {
    let net = Net::new([open_service("echo", echo().await)]).await;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let others = UnixOptions { allow_uids: vec![uid + 1], allow_gids: vec![gid + 1], ..UnixOptions::default() };
    let ours = UnixOptions { allow_uids: vec![uid + 1], allow_gids: vec![gid], ..UnixOptions::default() };
    for (name, unix, answer) in [("others", others, &b""[..]), ("ours", ours, b"x")] {
        let path = net.path(name);
        let config = ForwardConfig::new(Address::Unix { path: path.clone() }, id("b"), "echo");
        let forward = net.a.forward(ForwardConfig { unix, ..config }).await.unwrap();
        let mut client = connect_unix(&path).await;
        // Who is not let in may find the socket closed already.
        let _ = client.write_all(b"x").await;
        let _ = client.shutdown().await;
        let mut read = Vec::new();
        let _ = soon(client.read_to_end(&mut read)).await;
        assert_eq!((name, &read[..]), (name, answer));
        assert_eq!(forward.counters().connections(), u64::from(!answer.is_empty()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_without_a_request_are_refused() {
    let net = Net::new([]).await;
    let session = soon(net.a.links()[0].session()).await.unwrap();
    let too_long = [vec![0xff, 0x7f], vec![0; 100]].concat();
    for (index, bytes) in [&b""[..], b"\x00", b"\x02\xff\xff", &too_long].into_iter().enumerate() {
        let (mut send, mut recv) = session.open_bi().await.unwrap();
        // The refusal may be quicker than the end.
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        let error = soon(recv.read_chunk(1)).await.unwrap_err();
        assert_eq!(error, ReadError::Reset(StreamCode::BAD_REQUEST), "{bytes:?}");
        until(|| net.b.services().counters().bad_request() == index as u64 + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_may_come_in_pieces() {
    let net = Net::new([open_service("echo", echo().await)]).await;
    let session = soon(net.a.links()[0].session()).await.unwrap();
    let (mut send, mut recv) = session.open_bi().await.unwrap();
    let request = ServiceRequest { service: "echo".to_owned(), ..ServiceRequest::default() };
    for byte in [&request.encode()[..], b"hello"].concat() {
        send.write_all(&[byte]).await.unwrap();
    }
    send.finish().unwrap();
    assert_eq!(soon(recv.read_to_end(100)).await.unwrap(), b"hello");
}

#[tokio::test]
async fn without_a_session_a_client_waits_and_is_then_closed() {
    let gateway = Gateway::start(Node::builder(settings("a")).build().await.unwrap(), Services::new([]));
    let config =
        ForwardConfig { session_timeout: Duration::from_millis(100), ..ForwardConfig::new(tcp(0), id("b"), "echo") };
    let forward = gateway.forward(config).await.unwrap();
    let (mut client, start) = (client(&forward).await, Instant::now());
    assert!(is_reset(&mut client).await);
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(forward.counters().refused(Refusal::NoSession), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_came_before_the_session_is_served() {
    let node = Node::builder(settings("b"));
    let b = node.listen(tcp(0), longhaul::channel::ListenOptions::default()).build().await.unwrap();
    let address = b.local_addresses()[0].clone();
    let _b = Gateway::start(b, Services::new([open_service("echo", echo().await)]));
    let a = Gateway::start(Node::builder(settings("a")).build().await.unwrap(), Services::new([]));
    let forward = a.forward(ForwardConfig::new(tcp(0), id("b"), "echo")).await.unwrap();
    let mut client = client(&forward).await;
    client.write_all(b"x").await.unwrap();
    until(|| forward.open_connections() == 1).await;
    a.add_link(a.node().link(LinkConfig::new(id("b"), [address])));
    assert_eq!(soon(client.read_u8()).await.unwrap(), b'x');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_services_are_the_ones_that_count() {
    let (listener, address) = target().await;
    let net = Net::new([open_service("old", address.clone())]).await;
    let forward = net.forward("old").await;
    let mut held = client(&forward).await;
    held.write_all(b"x").await.unwrap();
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    net.b.services().replace([open_service("new", address)]);
    is_refused(&net, "old", Refusal::UnknownService).await;
    assert_eq!(soon(server.read_u8()).await.unwrap(), b'x', "what was carried goes on");
}
