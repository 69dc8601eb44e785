//! Two sessions in the simulator's world: the input says what the applications do and what happens to the links. Or,
//! when its first byte is odd, what a peer that lies puts into packets.

#![no_main]
#![expect(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]
#![allow(dead_code, reason = "the world is made for more than this target")]

#[path = "../../tests/simulation/app.rs"]
mod app;
#[path = "../../tests/simulation/arrival.rs"]
mod arrival;
#[path = "../../tests/simulation/faults.rs"]
mod faults;
#[path = "../../tests/simulation/identities.rs"]
mod identities;
#[path = "../../tests/simulation/link.rs"]
mod link;
#[path = "../../tests/simulation/node.rs"]
mod node;
#[path = "../../tests/simulation/oracle.rs"]
mod oracle;
#[path = "../../tests/simulation/random.rs"]
mod random;
#[path = "../../tests/simulation/returning.rs"]
mod returning;
#[path = "../../tests/simulation/world.rs"]
mod world;

use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use longhaul::base::{Direction, Epoch, LaneId, PacketNumber, StreamCode, limits};
use longhaul::session::{LaneKind, SessionConfig};
use longhaul::stream::{Priority, StreamsConfig};
use longhaul::wire::{Head, decode_packet};

use faults::Fault;
use link::Path;
use world::{CLIENT, SERVER, World};

/// Operations of one run: longer inputs find nothing that shorter ones do not.
const OPERATIONS_MAX: usize = 200;

/// Streams that each side may open in each direction.
const STREAMS_MAX: u64 = 6;

/// Small windows and limits, so that few operations reach them. The first lane is a channel that is TLS itself: a
/// handshake for each input would take most of the time.
fn connected() -> World {
    let config = SessionConfig {
        streams: StreamsConfig {
            stream_window: 20_000,
            stream_window_max: 100_000,
            session_window: 50_000,
            session_window_max: 200_000,
            streams_max: STREAMS_MAX,
            ..StreamsConfig::default()
        },
        packet_bytes_max: 4096,
        key_packets_max: 20,
        seal_always: true,
        // An input may leave the session without lanes for as long as it likes.
        survive: Duration::from_secs(1_000_000),
        ..SessionConfig::default()
    };
    let mut world = World::new(1, config.clone(), config);
    let path = Path { delay: Duration::from_millis(5), bytes_per_second: 2_000_000, buffer_bytes: 16_000 };
    world.connect(LaneKind::Tls, path);
    world.nodes.iter_mut().for_each(|node| node.app.takes_datagrams = true);
    world
}

fn operate(world: &mut World, operation: [u8; 3]) {
    let [what, first, second] = operation;
    let (side, now) = (usize::from(what & 1), world.now);
    let node = &mut world.nodes[side];
    let session = node.session.as_mut().unwrap();
    let oracle = &mut world.oracle;
    let own: Vec<_> = oracle.flows.keys().map(|(id, _)| *id).filter(|id| id.is_writable_by(session.side())).collect();
    let some = own.get(usize::from(first) % own.len().max(1)).copied();
    match what >> 1 & 7 {
        0 => {
            let direction = if first & 1 == 0 { Direction::Bi } else { Direction::Uni };
            let priority = Priority::from_wire(first >> 1 & 3);
            node.app.open(session, oracle, direction, priority, u64::from(second) * u64::from(second) * 4);
        }
        1 => {
            if let Some(id) = some {
                node.app.reset(session, oracle, id, StreamCode(u64::from(second)));
            }
        }
        2 => {
            let readable = node.app.readable_streams();
            if let Some(id) = readable.get(usize::from(first) % readable.len().max(1)).copied() {
                node.app.stop(session, oracle, id, StreamCode(u64::from(second)), now);
            }
        }
        3 => session.update_keys(now),
        4 => {
            let path = Path { delay: Duration::from_millis(u64::from(second)), ..Path::default() };
            let kind = [LaneKind::Tcp, LaneKind::Unix, LaneKind::Tls, LaneKind::Quic][usize::from(first & 3)];
            world.join(kind, path);
        }
        5 => {
            let link = usize::from(second) % world.links.len();
            world.harm(link, Fault::ALL[usize::from(first) % Fault::ALL.len()]);
        }
        6 => {
            if let Some(id) = some {
                let (data, age) =
                    (vec![second; usize::from(first) * 200], Duration::from_millis(u64::from(second) * 4));
                // To a stream that is over, or has one direction.
                let _ = session.send_datagram(id, data.into(), age, now);
            }
        }
        _ => world.run_for(Duration::from_millis(u64::from(first) * u64::from(second) / 8)),
    }
}

fn honest(input: &[u8]) {
    let mut world = connected();
    for operation in input.chunks_exact(3).take(OPERATIONS_MAX) {
        operate(&mut world, [operation[0], operation[1], operation[2]]);
        assert!(world.nodes.iter().all(|node| node.closed().is_none()), "{}", world.describe());
    }
    for _ in 0..400 {
        if world.is_all_read() {
            return;
        }
        if world.nodes[CLIENT].session().healthy_lane_count() == 0 {
            world.join(LaneKind::Tcp, Path::default());
        }
        world.run_for(Duration::from_millis(500));
    }
    panic!("stuck: {}", world.describe());
}

/// Packets of the peer, each with its length in front: they may end the session, and do nothing else.
fn hostile(mut input: &[u8]) {
    let mut world = connected();
    // Nobody takes datagrams here: few of each stream are kept, and pieces, which are no longer than the input lets them.
    let datagrams = STREAMS_MAX * limits::DATAGRAM_EARLY_BYTES_MAX as u64;
    let pieces = (limits::DATAGRAMS_INCOMPLETE_MAX * (limits::DATAGRAM_OVERHEAD_BYTES + 256)) as u64;
    let limit = 2 * (200_000 + 200_000) + datagrams + pieces;
    let mut frames = Vec::new();
    let mut number = 1000;
    while let [what, size, rest @ ..] = input {
        let (content, after) = rest.split_at(rest.len().min(usize::from(*size)));
        input = after;
        let side = if what & 1 == 0 { CLIENT } else { SERVER };
        if decode_packet(&Bytes::copy_from_slice(content), &mut frames).is_err() {
            continue;
        }
        number += 1;
        let epoch = Epoch(u32::from(what >> 1 & 1));
        let head = Head { lane_id: LaneId::FIRST, epoch, packet_number: PacketNumber(number), ..Head::default() };
        let now = world.now;
        let session = world.nodes[side].session();
        session.handle_packet(now, &head, what & 4 == 0, &mut frames, content.len());
        while session.poll_event().is_some() {}
        while session.poll_wake().is_some() {}
        drop(session.poll_transmit(now, LaneId::FIRST));
        assert!(session.held_bytes() <= limit, "{} bytes held", session.held_bytes());
        if session.next_timeout().is_some_and(|at| at <= now) {
            session.handle_timeout(now);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    match input {
        [first, rest @ ..] if first & 1 == 1 => hostile(rest),
        [_, rest @ ..] => honest(rest),
        [] => {}
    }
});
