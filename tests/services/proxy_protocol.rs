//! Who the client is, told to the target and by a load balancer.

use std::net::SocketAddr;

use longhaul::service::proxy_protocol::{ProxyHeader, ProxyVersion, decode};
use longhaul::service::{ForwardConfig, Refusal, ServiceConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{Net, client, id, is_reset, open_service, soon, target, tcp};

const SAID: &[u8] = b"the client's own bytes";

/// What a target gets from a client that sends `hello` and [`SAID`] after it.
async fn received(version: ProxyVersion, accepts: bool, hello: &[u8]) -> (ProxyHeader, ProxyHeader) {
    let (listener, address) = target().await;
    let service = ServiceConfig { proxy_protocol: Some(version), ..open_service("web", address) };
    let net = Net::new([service]).await;
    let config = ForwardConfig { accepts_proxy_protocol: accepts, ..ForwardConfig::new(tcp(0), id("b"), "web") };
    let forward = net.a.forward(config).await.unwrap();
    let mut client = client(&forward).await;
    let own = ProxyHeader::Tcp { source: client.local_addr().unwrap(), destination: client.peer_addr().unwrap() };
    let (first, second) = hello.split_at(hello.len() / 2);
    client.write_all(first).await.unwrap();
    client.write_all(&[second, SAID].concat()).await.unwrap();
    client.shutdown().await.unwrap();
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    let mut bytes = Vec::new();
    soon(server.read_to_end(&mut bytes)).await.unwrap();
    let (header, size) = decode(&bytes).unwrap().unwrap();
    assert_eq!(&bytes[size..], SAID);
    (header, own)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_target_learns_the_client() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let (header, own) = received(version, false, b"").await;
        assert_eq!(header, own, "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_header_of_a_load_balancer_is_passed_on() {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let told = ProxyHeader::Tcp { source: address("[2001:db8::7]:4711"), destination: address("[2001:db8::1]:443") };
    for (out, by) in [(ProxyVersion::V1, ProxyVersion::V2), (ProxyVersion::V2, ProxyVersion::V1)] {
        let (header, _) = received(out, true, &told.encode(by)).await;
        assert_eq!(header, told, "{by:?} in, {out:?} out");
        let (header, own) = received(out, true, &ProxyHeader::Unknown.encode(by)).await;
        assert_eq!(header, own, "the balancer speaks for itself");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_the_header_is_closed() {
    let (_listener, address) = target().await;
    let net = Net::new([open_service("web", address)]).await;
    let config = ForwardConfig { accepts_proxy_protocol: true, ..ForwardConfig::new(tcp(0), id("b"), "web") };
    let forward = net.a.forward(config).await.unwrap();
    let mut client = client(&forward).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(is_reset(&mut client).await);
    assert_eq!(forward.counters().refused(Refusal::BadRequest), 1);
}
