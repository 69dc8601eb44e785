//! Two sessions of the core in memory: what a stream costs without sockets, tasks and waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use longhaul::base::{Direction, LaneId, SessionId, StreamId, limits};
use longhaul::crypto::LaneOpener;
use longhaul::crypto::identity::{ALPN_SESSION, Identity, TlsSettings, TrustAnchors, default_provider};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::session::{Establishing, LaneKind, LaneSetup, Progress, Session, SessionConfig};
use longhaul::stream::{Priority, ReadOutcome};
use longhaul::wire::{self, Body, FrameMessage, decode_message, decode_packet};

const LANE: LaneSetup = LaneSetup::new(LaneKind::Tcp);

struct Side {
    session: Session,
    opener: LaneOpener,
}

/// Two connected sessions over one lane, and the time that they live in.
struct Pair {
    client: Side,
    server: Side,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let [client, server] = handshake(now).map(|session| {
            let opener = LaneOpener::new(LaneId::FIRST, session.opening_keys());
            Side { session, opener }
        });
        let mut pair = Self { client, server, now };
        pair.carry();
        pair
    }

    /// Moves packets until neither side has one.
    fn carry(&mut self) {
        while carry_one(&mut self.client, &mut self.server, self.now)
            | carry_one(&mut self.server, &mut self.client, self.now)
        {}
    }

    /// A stream that both sides have.
    fn open(&mut self) -> StreamId {
        let id = self.client.session.open(Direction::Bi, Priority::default()).expect("the peer allows more");
        self.carry();
        self.server.session.accept(Direction::Bi).expect("it was opened");
        id
    }

    /// Writes on one side, reads on the other. Acknowledgements that are held back are left for the next round.
    fn send(&mut self, id: StreamId, chunk: &Bytes) -> usize {
        self.now += Duration::from_micros(100);
        self.client.session.write_chunk(id, chunk.clone()).expect("there is room");
        self.carry();
        let mut count = 0;
        while let Ok(ReadOutcome::Data(data)) = self.server.session.read(id, usize::MAX, self.now) {
            count += data.len();
        }
        if self.server.session.next_timeout().is_some_and(|at| at <= self.now) {
            self.server.session.handle_timeout(self.now);
        }
        count
    }

    /// Reads both ends, and lets the acknowledgements come, so that both sides forget the stream.
    fn drain(&mut self, id: StreamId) {
        for side in [&mut self.client, &mut self.server] {
            assert_eq!(side.session.read(id, 1, self.now), Ok(ReadOutcome::End));
        }
        self.now += limits::ACK_DELAY_MAX;
        self.client.session.handle_timeout(self.now);
        self.server.session.handle_timeout(self.now);
        self.carry();
    }
}

fn carry_one(from: &mut Side, to: &mut Side, now: Instant) -> bool {
    while from.session.poll_wake().is_some() || from.session.poll_event().is_some() {}
    let Some(packet) = from.session.poll_transmit(now, LaneId::FIRST) else { return false };
    let mut bytes = BytesMut::new();
    packet.encode(&mut bytes).expect("of an allowed size");
    let size = bytes.len();
    let FrameMessage { head, body } = read(&mut bytes);
    let Body::Sealed(sealed) = body else { unreachable!("a raw lane is sealed") };
    if !to.opener.has_key(head.epoch) {
        to.opener.set_keys(to.session.opening_keys());
    }
    let content = to.opener.open(&head, sealed).expect("it is genuine");
    let mut frames = Vec::new();
    decode_packet(&content, &mut frames).expect("valid");
    to.session.handle_packet(now, &head, true, &mut frames, size);
    true
}

fn read(bytes: &mut BytesMut) -> FrameMessage {
    decode_message(bytes, limits::FRAME_MESSAGE_BYTES_MAX).expect("valid").expect("whole")
}

fn handshake(now: Instant) -> [Session; 2] {
    let validity = Validity::from_now(Duration::from_secs(3600));
    let authority = CertificateAuthority::generate("bench", KeyType::P256, validity).expect("valid");
    let [near, far] = ["near", "far"].map(|name| settings(&authority, name, validity));
    let config = SessionConfig::default();
    let tls = near.client_config(None, ALPN_SESSION).expect("usable");
    let mut client = Establishing::client(tls, &config, SessionId([1; 16]), wire::VERSION).expect("usable");
    let mut next = read(&mut client.poll_output().expect("the client begins"));
    let tls = far.server_config(ALPN_SESSION).expect("usable");
    let mut server = Establishing::server(tls, &config, &next.head).expect("it begins a session");
    loop {
        let is_done = server.handle_message(next).expect("valid") == Progress::Complete;
        while let Some(mut answer) = server.poll_output() {
            client.handle_message(read(&mut answer)).expect("valid");
        }
        match client.poll_output() {
            Some(mut message) => next = read(&mut message),
            None => {
                assert!(is_done, "the handshake got stuck");
                break;
            }
        }
    }
    [client, server].map(|side| side.finish(config.clone(), LANE, [7; 16], now).expect("complete").session)
}

fn settings(authority: &CertificateAuthority, name: &str, validity: Validity) -> TlsSettings {
    let issued = authority.issue_node(name, KeyType::P256, validity).expect("valid");
    let provider = default_provider();
    let identity = Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes(), &provider);
    let anchors = TrustAnchors::from_pem(authority.certificate_pem().as_bytes()).expect("an authority's");
    let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
    TlsSettings::new(identity.expect("a node's"), anchors, provider, time).expect("usable")
}

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    for size in [64, 4096, 262_144] {
        let mut pair = Pair::new();
        let id = pair.open();
        let chunk = Bytes::from(vec![7; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("send/{size}"), |bencher| {
            bencher.iter(|| assert_eq!(pair.send(id, &chunk), size));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("open-and-end", |bencher| {
        let mut pair = Pair::new();
        bencher.iter(|| {
            let id = pair.open();
            pair.client.session.finish(id).expect("open");
            pair.server.session.finish(id).expect("open");
            pair.carry();
            pair.drain(id);
        });
    });
    group.bench_function("handshake", |bencher| bencher.iter(|| handshake(Instant::now())));
    group.finish();
}

criterion_group!(benches, sessions);
criterion_main!(benches);
