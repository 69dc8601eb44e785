//! Handshakes a second, full and resumed, of sessions in memory beside rustls's own (`rustls::quic` with the same
//! certificates, suites and verifiers, its own stores of tickets). Both ends run on one core, the two in turns. Linux only.
//!
//! `cargo bench --bench handshake`

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use longhaul::base::{SessionId, limits};
use longhaul::crypto::identity::{
    ALPN_SESSION, Identity, NodeId, TlsSettings, TrustAnchors, default_provider, server_name,
};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::session::{Establishing, LaneKind, LaneSetup, Progress, Session, SessionConfig};
use longhaul::wire::decode_message;
use rustls::client::Resumption;
use rustls::quic::{ClientConnection, Connection, ServerConnection, Version};
use rustls::server::ServerSessionMemoryCache;
use rustls::{ClientConfig, ServerConfig};

fn settings(authority: &CertificateAuthority, name: &str) -> TlsSettings {
    let validity = Validity::from_now(Duration::from_secs(3600));
    let issued = authority.issue_node(name, KeyType::P256, validity).expect("a certificate");
    let provider = default_provider();
    let identity = Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes(), &provider);
    let anchors = TrustAnchors::from_pem(authority.certificate_pem().as_bytes()).expect("anchors");
    let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
    TlsSettings::new(identity.expect("an identity"), anchors, provider, time).expect("settings")
}

/// Messages of one side to the other one. Returns whether that is complete.
fn deliver(from: &mut Establishing, to: &mut Establishing) -> bool {
    let mut is_complete = false;
    while let Some(mut bytes) = from.poll_output() {
        let message = decode_message(&mut bytes, limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX);
        let progress = to.handle_message(message.expect("bytes of ours").expect("a whole message"));
        is_complete |= progress.expect("a peer that is trusted") == Progress::Complete;
    }
    is_complete
}

/// A handshake of ours: the two sessions.
fn establish(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> [Session; 2] {
    let (config, setup, now) = (SessionConfig::default(), LaneSetup::new(LaneKind::Tcp), Instant::now());
    let mut client =
        Establishing::client(client, &config, SessionId([7; 16]), longhaul::wire::VERSION).expect("it begins");
    let mut first = client.poll_output().expect("its first message");
    let first = decode_message(&mut first, limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX);
    let first = first.expect("bytes of ours").expect("a whole message");
    let mut server = Establishing::server(server, &config, &first.head).expect("it begins");
    server.handle_message(first).expect("a hello");
    while !deliver(&mut server, &mut client) {}
    while !deliver(&mut client, &mut server) {}
    let finish = |side: Establishing| side.finish(config.clone(), setup, [1; 16], now).expect("a session").session;
    [finish(client), finish(server)]
}

/// The server's first packet: its word, and the client's tickets.
fn give_tickets([client, server]: &mut [Session; 2]) {
    let now = Instant::now();
    let lane = longhaul::base::LaneId::FIRST;
    let packet = server.poll_transmit(now, lane).expect("the accept");
    let mut encoded = BytesMut::new();
    packet.encode(&mut encoded).expect("it is sealed");
    let head = longhaul::wire::Head::default();
    client.handle_packet(now, &head, true, &mut packet.frames().to_vec(), encoded.len());
}

/// A handshake of rustls alone, with the tickets that follow.
fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) {
    let client = ClientConnection::new(client, Version::V1, server_name(), vec![0; 64]).expect("it begins");
    let mut client = Connection::Client(client);
    let mut server = Connection::Server(ServerConnection::new(server, Version::V1, vec![0; 64]).expect("it begins"));
    for _ in 0..3 {
        carry(&mut client, &mut server);
        carry(&mut server, &mut client);
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
}

fn carry(from: &mut Connection, to: &mut Connection) {
    loop {
        let mut bytes = Vec::new();
        let change = from.write_hs(&mut bytes);
        if bytes.is_empty() && change.is_none() {
            return;
        }
        to.read_hs(&bytes).expect("a peer that is trusted");
    }
}

/// Time that this thread has spent on a core, so that others on the machine do not count.
fn time_on_core() -> Duration {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts");
    let nanoseconds = schedule.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first field is the time on a core"))
}

/// Handshakes a second and core, of both in turns: the medians, and that of the ratios.
fn compare(name: &str, mut ours: impl FnMut(), mut alone: impl FnMut()) {
    let rate = |work: &mut dyn FnMut()| {
        let begun = time_on_core();
        (0..HANDSHAKES_IN_TURN).for_each(|_| work());
        f64::from(HANDSHAKES_IN_TURN) / (time_on_core() - begun).as_secs_f64()
    };
    // Not counted: caches and clocks are as they will be.
    rate(&mut ours);
    rate(&mut alone);
    let turns: Vec<_> = (0..turns()).map(|_| (rate(&mut ours), rate(&mut alone))).collect();
    let median = |of: &dyn Fn(&(f64, f64)) -> f64| {
        let mut values: Vec<_> = turns.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (ours, alone) = (median(&|turn| turn.0), median(&|turn| turn.1));
    report(&format!("{name}: {ours:.0}/s, rustls alone {alone:.0}/s, ratio {:.3}", median(&|turn| turn.0 / turn.1)));
}

#[expect(clippy::print_stdout, reason = "the program's output")]
fn report(line: &str) {
    println!("{line}");
}

fn main() {
    let validity = Validity::from_now(Duration::from_secs(3600));
    let authority = CertificateAuthority::generate("bench", KeyType::P256, validity).expect("an authority");
    let (a, b) = (settings(&authority, "a"), settings(&authority, "b"));
    let expected = NodeId::new("bench", "b").expect("a name");

    let client = a.resuming_client(&expected, ALPN_SESSION, false).expect("a configuration");
    let meet = || {
        let server = b.resuming_server_config(ALPN_SESSION, false).expect("a configuration");
        let mut sessions = establish(Arc::clone(&client.config), server);
        give_tickets(&mut sessions);
    };
    let own_client = |resumption| {
        let mut config = (*a.client_config(Some(&expected), ALPN_SESSION).expect("a configuration")).clone();
        config.resumption = resumption;
        Arc::new(config)
    };
    let mut server = (*b.server_config(ALPN_SESSION).expect("a configuration")).clone();
    server.session_storage = ServerSessionMemoryCache::new(1024);
    server.send_tls13_tickets = limits::TICKETS_PER_HANDSHAKE as usize;
    let server = Arc::new(server);
    let (fresh, returning) = (own_client(Resumption::disabled()), own_client(Resumption::in_memory_sessions(8)));

    let full = || {
        client.tickets.purge();
        meet();
    };
    compare("full", full, || shake(Arc::clone(&fresh), Arc::clone(&server)));
    // The first one of each brings the tickets.
    compare("resumed", meet, || shake(Arc::clone(&returning), Arc::clone(&server)));
    let used = b.tickets().counters().used.load(std::sync::atomic::Ordering::Relaxed);
    assert!(used >= u64::from(HANDSHAKES_IN_TURN * turns()), "{used} were resumed");
}

/// As a test one is enough.
fn turns() -> u32 {
    if std::env::args().any(|argument| argument == "--bench") { TURNS } else { 1 }
}

/// Long enough for the kernel's account of time, which some keep in steps of 4 ms; short enough for both to meet the same
/// machine.
const HANDSHAKES_IN_TURN: u32 = 200;

const TURNS: u32 = 31;
