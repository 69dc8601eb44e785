//! Where machines come in: at the port of the channels, told apart by what they begin with and what their TLS offers, or at
//! a port of its own. Whoever offers something else, or nothing, gets nothing.

use std::io::{Read, Write};
use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul::base::limits;
use longhaul::crypto::identity::{default_provider, enroll_client_config, server_name};
use longhaul::crypto::token::JoinToken;
use rustls::time_provider::DefaultTimeProvider;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::attacks::connect;
use crate::common::{Hub, Running, ended, free_port, stderr, stdout};
use crate::renewal::{Net, talk};

const SCHEMES: [&str; 2] = ["tcp", "tls"];

/// A hub whose listener, of this kind, is for channels and for machines.
fn sharing(scheme: &str) -> Hub {
    let mut hub = Hub::start();
    if scheme != "tcp" {
        hub.reconfigure(|text| text.replace("tcp://127", &format!("{scheme}://127")));
    }
    hub
}

#[test]
fn machines_join_and_renew_where_nodes_dial_in() {
    for scheme in SCHEMES {
        let hub = sharing(scheme);
        hub.token(&["--name", "dc-b"]);
        let output = hub.join("node", &[]);
        ended(&output, 0);
        let config = std::fs::read_to_string(hub.path("node/node.toml")).unwrap();
        assert!(config.contains(&format!("{scheme}://127.0.0.1:{}", hub.channel_port)), "{config}");
        let mut node = Running::start(&hub.path("node/node.toml"));
        assert_eq!(node.logged("session connected")["peer"], "spiffe://example/node/hub");
        ended(&hub.run(&["cert", "renew", "-c", "node/node.toml"]), 0);
        node.logged("identity exchanged");
        let shown = stdout(&hub.run(&["check-config", "-c", "hub/hub.toml"]));
        assert!(shown.contains("enroll   beside channels"), "{shown}");
    }
}

#[test]
fn a_port_of_its_own_takes_machines_and_the_channels_port_none() {
    for (scheme, code, said) in
        [("tcp", 5, "machines may not be let in at this port"), ("tls", 4, "machines do not join at this port")]
    {
        let mut hub = sharing(scheme);
        hub.enroll_port = free_port();
        let listen = format!("[enroll]\nlisten = \"127.0.0.1:{}\"\n", hub.enroll_port);
        hub.reconfigure(|text| text.replace("[enroll]\n", &listen));
        hub.token(&["--name", "dc-b"]);
        let channels = format!("127.0.0.1:{}", hub.channel_port);
        let output = hub.run(&["join", "--token-file", "token", "--out", "node", &channels]);
        ended(&output, code);
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
        ended(&hub.join("node", &[]), 0);
        Running::start(&hub.path("node/node.toml")).logged("session connected");
    }
}

/// A handshake that offers these protocols, without a certificate.
async fn offer(hub: &Hub, token: &JoinToken, protocols: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
    let time = Arc::new(DefaultTimeProvider);
    let mut config = (*enroll_client_config(*token.authority_pin(), default_provider(), time).unwrap()).clone();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let socket = TcpStream::connect(("127.0.0.1", hub.channel_port)).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(server_name(), socket).await
}

const ENROLL: &[u8] = b"longhaul-enroll/1";
const CHANNEL: &[u8] = b"longhaul-tls/1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_offers_decides_and_nothing_else_is_answered() {
    for scheme in SCHEMES {
        let hub = sharing(scheme);
        let token = hub.token(&["--name", "dc-b"]);
        let foreign: &[&[&[u8]]] = &[&[b"h2"], &[b"longhaul/1"], &[b"longhaul-quic/1"], &[b"http/1.1", b"h2"]];
        let channel: &[&[&[u8]]] = &[&[CHANNEL]];
        for protocols in foreign.iter().chain(channel.iter().filter(|_| scheme == "tcp")) {
            let error = offer(&hub, &token, protocols).await.expect_err("not offered here").to_string();
            assert!(error.contains("NoApplicationProtocol"), "{scheme} {protocols:?}: {error}");
        }
        let enrolling = offer(&hub, &token, &[ENROLL]).await.unwrap();
        assert_eq!(enrolling.get_ref().1.alpn_protocol(), Some(ENROLL));
        // Somebody who offers both gets what the listener is for, and without a certificate nothing of that.
        if let Ok(mut both) = offer(&hub, &token, &[ENROLL, CHANNEL]).await {
            let expected = if scheme == "tls" { CHANNEL } else { ENROLL };
            assert_eq!(both.get_ref().1.alpn_protocol(), Some(expected));
            if scheme == "tls" {
                let mut bytes = Vec::new();
                let end = tokio::io::AsyncReadExt::read_to_end(&mut both, &mut bytes).await;
                assert!(end.is_err() && bytes.is_empty(), "{end:?} {bytes:?}");
            }
        }
        // Who offers nothing could mean anything.
        match offer(&hub, &token, &[]).await {
            Ok(mut stream) => {
                assert_eq!(scheme, "tls", "at a tcp:// address it is not even answered");
                let mut bytes = Vec::new();
                let end = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await;
                assert!(end.is_err() && bytes.is_empty(), "{end:?} {bytes:?}");
            }
            Err(error) if scheme == "tcp" => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}"),
            Err(_) => {}
        }
        assert_eq!(hub.record(&token).use_count, 0);
        ended(&hub.join("node", &[]), 0);
    }
}

/// TLS of enrolment gives nothing by which somebody could come back, as the channels' does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolment_gives_no_tickets() {
    for scheme in SCHEMES {
        let hub = sharing(scheme);
        let token = hub.token(&["--name", "dc-b"]);
        let mut stream = connect(hub.enroll_port, &token).await;
        let mut bytes = Vec::new();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &[0xff; 64]).await.unwrap();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await.unwrap();
        assert!(!bytes.is_empty(), "it was answered");
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0, "{scheme}");
    }
}

/// Waits until the hub ends a connection on which nothing more is said: how long that took.
fn ends(mut stream: StdTcpStream) -> Duration {
    let begun = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return begun.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return begun.elapsed(),
            Err(error) => panic!("it is still there: {error}"),
        }
    }
}

#[test]
fn who_says_nothing_or_not_all_of_it_is_not_waited_for() {
    for scheme in SCHEMES {
        let hub = sharing(scheme);
        hub.token(&["--name", "dc-b"]);
        // Nothing; a byte that could be both; the head of a hello; a hello that is cut.
        let hello = [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03][..], &[7; 100]].concat();
        let waiting: Vec<_> = [&hello[..0], &hello[..1], &hello[..2], &hello[..5], &hello]
            .into_iter()
            .map(|said| {
                let mut stream = StdTcpStream::connect(("127.0.0.1", hub.channel_port)).unwrap();
                stream.write_all(said).unwrap();
                std::thread::spawn(move || ends(stream))
            })
            .collect();
        // Others come in meanwhile.
        ended(&hub.join("node", &[]), 0);
        for one in waiting {
            let waited = one.join().unwrap();
            assert!(waited < limits::HANDSHAKE_TIMEOUT * 5, "{scheme}: {waited:?}");
        }
    }
}

/// After the handshake the time for the request is bounded, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_nothing_is_not_waited_for() {
    let hub = sharing("tcp");
    let token = hub.token(&["--name", "dc-b"]);
    let mut silent = connect(hub.enroll_port, &token).await;
    let mut bytes = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut bytes);
    let end = tokio::time::timeout(limits::ENROLL_TIMEOUT * 5, reading).await.expect("it ends in time");
    assert!(end.is_err() && bytes.is_empty(), "{end:?} {bytes:?}");
}

/// What nodes have goes on beside everything that strangers try at the same port.
#[test]
fn a_session_does_not_notice_what_strangers_try() {
    let net = Net::new();
    let _node = net.node();
    let mut connection = net.connection();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 0x03, 0xff, 0xff, 0xff, 0xff], &[0x16, 0x04], &[0; 40]] {
        let mut stream = StdTcpStream::connect(("127.0.0.1", net.hub.channel_port)).unwrap();
        stream.write_all(garbage).unwrap();
        ends(stream);
        talk(&mut connection);
    }
}

#[test]
fn an_enrolment_point_needs_a_port_over_tcp() {
    let mut hub = Hub::start();
    hub.kill();
    let config = hub.path("hub/hub.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("tcp://127", "quic://127")).unwrap();
    let output = hub.run(&["check-config", "-c", "hub/hub.toml"]);
    ended(&output, 3);
    assert!(stderr(&output).contains("there is no port at which machines could join"), "{}", stderr(&output));
}
