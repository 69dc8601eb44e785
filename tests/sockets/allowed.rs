//! Listeners that take peers from certain addresses alone.

use std::sync::atomic::Ordering;

use longhaul::channel::{
    Address, AdmissionLimits, DialOptions, Gate, ListenOptions, Listener, QuicListener, dial_quic,
};
use longhaul::crypto::identity::{ALPN_QUIC, quic_initial_suite};
use longhaul::node::{LinkConfig, Node};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::common::{dialling, id, settings};
use crate::transfer::{eventually, soon};

fn allowing(ranges: &[&str]) -> ListenOptions {
    let allow_addresses = ranges.iter().map(|range| range.parse().unwrap()).collect();
    ListenOptions {
        admission: AdmissionLimits { allow_addresses, ..AdmissionLimits::default() },
        ..ListenOptions::default()
    }
}

async fn is_refused(gate: &Gate) {
    eventually("a refusal is counted", || gate.counters().refused_address.load(Ordering::Relaxed) > 0).await;
    assert_eq!(gate.counters().admitted.load(Ordering::Relaxed), 0);
    assert_eq!(gate.pending(), 0);
}

#[tokio::test]
async fn peers_from_elsewhere_are_closed_before_any_handshake() {
    for scheme in ["tcp", "tls"] {
        let address: Address = format!("{scheme}://127.0.0.1:0").parse().unwrap();
        let mut listener = Listener::bind(&address, &allowing(&["192.0.2.0/24", "2001:db8::/32"])).await.unwrap();
        let (Address::Tcp { port, .. } | Address::Tls { port, .. }) = *listener.local_address() else {
            panic!("an address with a port")
        };
        let gate = listener.gate().clone();
        let dialled = async {
            // The reset may be quicker than the end of the connecting.
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
                let mut buffer = [0; 16];
                assert!(!matches!(stream.read(&mut buffer).await, Ok(1..)), "nothing is said");
            }
            is_refused(&gate).await;
        };
        tokio::select! {
            _ = listener.accept() => panic!("{scheme}: nobody may come"),
            () = soon(dialled) => {}
        }
    }
}

#[tokio::test]
async fn quic_peers_from_elsewhere_get_no_answer() {
    let (server, client) = (settings("b"), settings("a"));
    let tls = server.server_config(ALPN_QUIC).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[7; 32]);
    let address = "quic://127.0.0.1:0".parse().unwrap();
    let mut listener =
        QuicListener::bind(&address, &allowing(&["192.0.2.0/24"]), tls, quic_initial_suite(), key).await.unwrap();
    let (gate, address) = (listener.gate().clone(), listener.local_address().clone());
    let config = client.client_config(Some(&id("b")), ALPN_QUIC).unwrap();
    let options = DialOptions::default();
    tokio::select! {
        _ = listener.accept() => panic!("nobody may come"),
        dialled = dial_quic(&address, &options, config, quic_initial_suite()) => panic!("an answer: {dialled:?}"),
        () = soon(is_refused(&gate)) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_from_allowed_addresses_are_taken() {
    for scheme in ["tcp", "tls", "quic"] {
        let address = format!("{scheme}://127.0.0.1:0").parse().unwrap();
        let builder = Node::builder(settings("b")).listen(address, allowing(&["2001:db8::/32", "127.0.0.1"]));
        let b = builder.build().await.unwrap();
        let a = dialling("a").await;
        let connected = a.connect(LinkConfig::new(id("b"), [b.local_addresses()[0].clone()]));
        assert!(soon(connected).await.is_ok(), "{scheme}");
    }
}
