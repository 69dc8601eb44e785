//! Datagrams: whole and unaltered or not there, new rather than all, and neither in the way of streams nor of memory.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use longhaul::base::{CloseCode, Direction, Epoch, LaneId, PacketNumber, Side, StreamId, limits};
use longhaul::session::scheduler::Policy;
use longhaul::session::{Event, LaneKind, LaneState, SessionConfig};
use longhaul::stream::{DatagramDrop, DatagramError, DatagramStats, Priority, StreamsConfig};
use longhaul::wire::{Datagram, DatagramPiece, Frame, Head, decode_packet};

use crate::link::Path;
use crate::random::Random;
use crate::seeds::{for_each_seed, milliseconds};
use crate::world::{CLIENT, SERVER, World};

const AGE: Duration = milliseconds(500);
const MAX: usize = limits::DATAGRAM_BYTES_MAX;

/// Head of a datagram of these tests: its number, and when it was sent.
const HEAD_BYTES: usize = 16;

/// A datagram that tells when it was altered.
fn content(world: &World, id: StreamId, number: u64, size: usize) -> Bytes {
    let mut data = BytesMut::with_capacity(size);
    data.put_u64(number);
    data.put_u64((world.now - world.start).as_micros() as u64);
    data.extend((HEAD_BYTES..size).map(|at| filler(id, number, at)));
    data.freeze()
}

fn filler(id: StreamId, number: u64, at: usize) -> u8 {
    (id.0 ^ number.wrapping_mul(31) ^ at as u64) as u8
}

/// The number of a datagram, and how old it was.
fn check(world: &World, (at, id, data): &(Instant, StreamId, Bytes)) -> (u64, Duration) {
    let number = u64::from_be_bytes(data[..8].try_into().unwrap());
    let sent = Duration::from_micros(u64::from_be_bytes(data[8..16].try_into().unwrap()));
    let is_right = data[HEAD_BYTES..].iter().zip(HEAD_BYTES..).all(|(byte, at)| *byte == filler(*id, number, at));
    assert!(is_right, "{id}: datagram {number} of {} bytes was altered", data.len());
    (number, *at - world.start - sent)
}

fn connected(lanes: usize, path: Path) -> World {
    connected_with(lanes, path, SessionConfig::default())
}

fn connected_with(lanes: usize, path: Path, config: SessionConfig) -> World {
    let mut world = World::connected_with(1, lanes, path, config);
    world.nodes.iter_mut().for_each(|node| node.app.takes_datagrams = true);
    world
}

fn open(world: &mut World) -> StreamId {
    let id = world.nodes[CLIENT].session().open(Direction::Bi, Priority::Normal).unwrap();
    world.run_for(milliseconds(100));
    id
}

fn send(world: &mut World, id: StreamId, number: u64, size: usize) {
    let data = content(world, id, number, size);
    let now = world.now;
    world.nodes[CLIENT].session().send_datagram(id, data, AGE, now).unwrap();
}

fn stats(world: &mut World, side: usize) -> DatagramStats {
    world.nodes[side].session().stats().datagrams
}

/// Streams of the client to the server, as many bytes as will never be sent.
fn send_bulk(world: &mut World) {
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    let id = node.app.open(session, &mut world.oracle, Direction::Uni, Priority::Normal, 3_000_000_000).unwrap();
    node.app.writers.get_mut(&id).unwrap().chunk_bytes = 256 * 1024;
}

#[test]
fn datagrams_of_all_sizes_arrive_whole() {
    let sizes = [HEAD_BYTES, 1200, 1500, 9000, 40_000, 65_000, MAX];
    let policies = [Policy::LowestLatency, Policy::RoundRobin, Policy::Weighted, Policy::LeastLoaded, Policy::Hash];
    for policy in policies {
        for packet_bytes_max in [2048, 16_384, 65_536] {
            let config = SessionConfig { scheduler: policy, packet_bytes_max, ..SessionConfig::default() };
            let mut world = connected_with(3, Path::default(), config);
            let id = open(&mut world);
            for (number, size) in sizes.into_iter().enumerate() {
                send(&mut world, id, number as u64, size);
            }
            world.run_for(milliseconds(200));
            let datagrams = world.nodes[SERVER].app.datagrams.clone();
            let mut got: Vec<_> = datagrams.iter().map(|one| (check(&world, one).0, one.2.len())).collect();
            got.sort_unstable();
            let expected: Vec<_> = sizes.into_iter().enumerate().map(|(at, size)| (at as u64, size)).collect();
            assert_eq!(got, expected, "{policy} {packet_bytes_max}");
            let (sent, received) = (stats(&mut world, CLIENT), stats(&mut world, SERVER));
            assert_eq!((sent.sent, received.received), (sizes.len() as u64, sizes.len() as u64));
            assert_eq!((sent.dropped_in_all(), received.dropped_in_all()), (0, 0));
            assert_eq!(world.nodes.each_mut().map(|node| node.session().held_bytes()), [0, 0]);
        }
    }
}

#[test]
fn empty_datagrams_are_datagrams() {
    let mut world = connected(1, Path::default());
    let (id, now) = (open(&mut world), world.now);
    for _ in 0..3 {
        world.nodes[CLIENT].session().send_datagram(id, Bytes::new(), AGE, now).unwrap();
    }
    world.run_for(milliseconds(100));
    assert_eq!(world.nodes[SERVER].app.datagrams.len(), 3);
}

#[test]
fn answers_come_back_on_the_stream_of_the_peer() {
    let mut world = connected(1, Path::default());
    let id = open(&mut world);
    world.nodes[CLIENT].session().take_datagrams(id);
    let now = world.now;
    world.nodes[SERVER].session().send_datagram(id, Bytes::from_static(b"answer"), AGE, now).unwrap();
    world.run_for(milliseconds(100));
    assert_eq!(world.nodes[CLIENT].app.datagrams[0].2, "answer");
}

/// A line that takes a tenth of what is offered: what comes out is new, and the rest is counted.
#[test]
fn old_datagrams_are_dropped_and_not_queued() {
    let path = Path { delay: milliseconds(20), bytes_per_second: 100_000, buffer_bytes: 16 * 1024 };
    let mut world = connected(1, path);
    let id = open(&mut world);
    for number in 0..3000 {
        send(&mut world, id, number, 1000);
        world.run_for(milliseconds(1));
        assert!(world.nodes[CLIENT].session().held_bytes() < 700_000);
    }
    world.run_for(Duration::from_secs(2));
    let datagrams = world.nodes[SERVER].app.datagrams.clone();
    let ages: Vec<_> = datagrams.iter().map(|datagram| check(&world, datagram).1).collect();
    let (sent, received) = (stats(&mut world, CLIENT), stats(&mut world, SERVER));
    // What the channel itself holds comes on top: its buffer, and one packet.
    let oldest = ages.iter().max().unwrap();
    assert!(*oldest <= AGE + Duration::from_millis(20 + 160 + 700), "{oldest:?}");
    assert!(ages.len() > 200, "{}", ages.len());
    assert_eq!(sent.sent + sent.dropped(DatagramDrop::Expired), 3000);
    assert_eq!((sent.sent, sent.dropped_in_all()), (received.received, sent.dropped(DatagramDrop::Expired)));
}

#[test]
fn datagrams_and_streams_leave_each_other_room() {
    let path = Path { delay: milliseconds(10), bytes_per_second: 2_000_000, buffer_bytes: 64 * 1024 };
    for (lanes, size) in [(1, 1000), (3, 1000), (1, MAX), (3, MAX)] {
        let mut world = connected(lanes, path);
        let id = open(&mut world);
        send_bulk(&mut world);
        world.run_for(milliseconds(500));
        let (bytes, datagrams) = (world.oracle.read_bytes(), stats(&mut world, SERVER).bytes_received);
        let time = 1000;
        let line = 2_000_000 * lanes as u64 * time / 1000;
        for step in 0..time {
            // Three times what the line takes.
            let count = (3 * line / time).div_ceil(size as u64);
            let is_turn = size < MAX || step % 10 == 0;
            for number in 0..if size < MAX { count } else { 10 * 3 * line / time / MAX as u64 + 1 } {
                if is_turn {
                    send(&mut world, id, step * 1000 + number, size);
                }
            }
            world.run_for(milliseconds(1));
        }
        let bytes = world.oracle.read_bytes() - bytes;
        let datagrams = stats(&mut world, SERVER).bytes_received - datagrams;
        let case = format!("{lanes} lanes, datagrams of {size}: {bytes} and {datagrams} of {line}");
        assert!(bytes > line * 3 / 10, "{case}");
        assert!(datagrams > line * 3 / 10, "{case}");
        assert!(
            world.nodes[SERVER].app.datagrams.iter().all(|datagram| check(&world, datagram).1 < Duration::from_secs(2))
        );
    }
}

/// A few datagrams beside a stream that fills the line are not behind it in a queue of ours.
#[test]
fn datagrams_go_in_front_of_streams() {
    let path = Path { delay: milliseconds(10), bytes_per_second: 2_000_000, buffer_bytes: 64 * 1024 };
    let mut world = connected(1, path);
    let id = open(&mut world);
    send_bulk(&mut world);
    world.run_for(milliseconds(500));
    for number in 0..50 {
        send(&mut world, id, number, 200);
        world.run_for(milliseconds(20));
    }
    world.run_for(milliseconds(200));
    let datagrams = world.nodes[SERVER].app.datagrams.clone();
    let oldest = datagrams.iter().map(|datagram| check(&world, datagram).1).max().unwrap();
    // The channel's own buffer, and two packets of 64 KiB.
    assert!(datagrams.len() == 50 && oldest < milliseconds(10 + 32 + 66 + 10), "{} {oldest:?}", datagrams.len());
}

#[test]
fn lane_that_carries_only_datagrams_is_measured_and_watched() {
    let mut world = connected(1, Path::default());
    let id = open(&mut world);
    for number in 0..200 {
        send(&mut world, id, number, 1000);
        world.run_for(milliseconds(2));
    }
    let lane = world.nodes[CLIENT].session().stats().lanes[0].clone();
    // A rate is not known of a lane that could have taken more.
    assert!(lane.round_trip.is_some() && lane.in_flight_bytes < 64_000, "{lane:?}");
    // One acknowledgement for what arrives in 25 ms.
    let acks = world.nodes[SERVER].session().stats().packets_sent;
    assert!(acks < 40, "{acks} packets back for 200");
    world.kill(0, &[]);
    for number in 200..400 {
        send(&mut world, id, number, 1000);
        world.run_for(milliseconds(2));
    }
    assert_eq!(world.nodes[CLIENT].session().lane_state(LaneId::FIRST), Some(LaneState::Suspect));
    world.run_for(Duration::from_secs(10));
    assert!(world.nodes[CLIENT].lane_end(LaneId::FIRST).is_some());
}

#[test]
fn what_a_dead_lane_carried_is_not_sent_again() {
    let mut world = connected(2, Path { delay: milliseconds(50), ..Path::default() });
    let id = open(&mut world);
    for number in 0..100 {
        send(&mut world, id, number, 5000);
    }
    world.kill(0, &[CLIENT, SERVER]);
    for number in 100..200 {
        send(&mut world, id, number, 5000);
    }
    world.run_for(Duration::from_secs(1));
    let datagrams = world.nodes[SERVER].app.datagrams.clone();
    let numbers: Vec<_> = datagrams.iter().map(|datagram| check(&world, datagram).0).collect();
    let distinct: HashSet<_> = numbers.iter().collect();
    assert_eq!(distinct.len(), numbers.len(), "none comes twice");
    assert!((100..200).all(|number| distinct.contains(&number)));
    let session = world.nodes[CLIENT].session().stats();
    assert_eq!((session.datagrams.sent, session.reinjected_bytes), (200, 0));
    assert!(numbers.len() < 200 || session.lanes.len() == 1);
}

#[test]
fn without_a_lane_datagrams_grow_old_and_go() {
    let mut world = connected(1, Path::default());
    let id = open(&mut world);
    world.kill(0, &[CLIENT]);
    for number in 0..100 {
        send(&mut world, id, number, 10_000);
    }
    assert!(world.nodes[CLIENT].session().held_bytes() > 1_000_000);
    world.run_for(AGE);
    assert_eq!(world.nodes[CLIENT].session().held_bytes(), 0);
    assert_eq!(stats(&mut world, CLIENT).dropped(DatagramDrop::Expired), 100);
    for number in 100..10_000 {
        send(&mut world, id, number, 10_000);
        assert!(world.nodes[CLIENT].session().held_bytes() <= limits::DATAGRAM_FLOW_BYTES_MAX as u64);
    }
    assert!(stats(&mut world, CLIENT).dropped(DatagramDrop::QueueFull) > 9000);
}

#[test]
fn datagrams_that_nobody_takes_are_few() {
    let mut world = connected(1, Path::default());
    world.nodes[SERVER].app.takes_datagrams = false;
    let id = open(&mut world);
    for number in 0..1000 {
        send(&mut world, id, number, 10_000);
        world.run_for(milliseconds(1));
        assert!(world.nodes[SERVER].session().held_bytes() <= limits::DATAGRAM_EARLY_BYTES_MAX as u64);
    }
    world.run_for(milliseconds(100));
    let received = stats(&mut world, SERVER);
    assert!(received.dropped(DatagramDrop::NotTaken) > 980 && received.received == 1000);
    // The newest are still there for an application that asks.
    let session = world.nodes[SERVER].session();
    session.take_datagrams(id);
    let first = session.read_datagram(id).unwrap();
    assert!(u64::from_be_bytes(first[..8].try_into().unwrap()) > 980);
    session.release_datagrams(id);
    assert_eq!(session.held_bytes(), 0);
}

#[test]
fn flow_ends_with_its_stream() {
    let mut world = connected(1, Path::default());
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    let id = node.app.open(session, &mut world.oracle, Direction::Bi, Priority::Normal, 0).unwrap();
    let now = world.now;
    assert_eq!(session.send_datagram(id, Bytes::from_static(b"in time"), AGE, now), Ok(()));
    // Both applications end their halves.
    world.run_until_all_read(Duration::from_secs(1));
    world.run_for(milliseconds(100));
    let session = world.nodes[CLIENT].session();
    assert_eq!(session.stream_count(), 0);
    assert_eq!(session.send_datagram(id, Bytes::from_static(b"late"), AGE, now), Err(DatagramError::Closed));
    assert_eq!(world.nodes[SERVER].app.datagrams.len(), 1);
    assert_eq!(stats(&mut world, CLIENT).dropped(DatagramDrop::FlowOver), 1);
}

#[test]
fn peer_that_takes_none_or_small_ones_gets_no_others() {
    for (max, size) in [(0, 0), (1000, 1001)] {
        let streams = StreamsConfig { datagram_bytes_max: max, ..StreamsConfig::default() };
        let mut world = World::new(1, SessionConfig::default(), SessionConfig { streams, ..SessionConfig::default() });
        world.connect(LaneKind::Tcp, Path::default());
        let (id, now) = (open(&mut world), world.now);
        let session = world.nodes[CLIENT].session();
        assert_eq!(session.datagram_bytes_max(), max);
        let outcome = session.send_datagram(id, Bytes::from(vec![1; size]), AGE, now);
        assert_eq!(outcome, Err(DatagramError::TooLarge { size, size_max: max }));
        if max > 0 {
            assert_eq!(session.send_datagram(id, Bytes::from(vec![1; max]), AGE, now), Ok(()));
        }
        world.run_for(milliseconds(100));
        assert_eq!(stats(&mut world, SERVER).received, u64::from(max > 0));
    }
}

// ---- Carriers that lose what they carry -----------------------------------------------------------------------------

/// Takes what the client's carrier has, and gives it to the server.
fn carry(world: &mut World, size_max: usize) -> usize {
    let (now, mut count) = (world.now, 0);
    while let Some(packet) = world.nodes[CLIENT].session().poll_datagram_transmit(now, LaneId::FIRST, size_max) {
        let (mut out, mut frames) = (BytesMut::new(), Vec::new());
        packet.encode(&mut out);
        assert!(out.len() <= size_max);
        let size = out.len();
        decode_packet(&out.freeze(), &mut frames).unwrap();
        count += frames.len();
        world.nodes[SERVER].session().handle_datagram_packet(now, LaneId::FIRST, &mut frames, size);
    }
    count
}

fn connected_by_tls() -> (World, StreamId) {
    let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
    world.connect(LaneKind::Tls, Path::default());
    world.nodes.iter_mut().for_each(|node| node.app.takes_datagrams = true);
    let id = open(&mut world);
    (world, id)
}

#[test]
fn what_fits_goes_over_a_carrier_that_loses_and_the_rest_over_lanes() {
    let (mut world, id) = connected_by_tls();
    assert_eq!(carry(&mut world, 1200), 0);
    assert_eq!(world.nodes[CLIENT].session().poll_datagram_wake(), None);
    let whole = 1200 - (Datagram::whole_len(id, 1000) - 1000);
    for (number, size) in [16, whole, whole + 1, 9000, 300].into_iter().enumerate() {
        send(&mut world, id, number as u64, size);
    }
    assert_eq!(world.nodes[CLIENT].session().poll_datagram_wake(), Some(LaneId::FIRST));
    assert_eq!(carry(&mut world, 1200), 2, "what is behind a larger one waits for it");
    world.run_for(milliseconds(1));
    assert_eq!(carry(&mut world, 1200), 1);
    world.run_for(milliseconds(100));
    let datagrams = world.nodes[SERVER].app.datagrams.clone();
    let mut numbers: Vec<_> = datagrams.iter().map(|datagram| check(&world, datagram).0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    let sent = stats(&mut world, CLIENT);
    assert_eq!((sent.sent, sent.sent_unreliably), (5, 3));
}

#[test]
fn small_datagrams_share_a_packet_of_a_carrier() {
    let (mut world, id) = connected_by_tls();
    (0..30).for_each(|number| send(&mut world, id, number, 100));
    let now = world.now;
    // Before the carrier is known they are a lane's.
    world.run_for(milliseconds(100));
    assert_eq!(carry(&mut world, 1200), 0);
    (30..60).for_each(|number| send(&mut world, id, number, 100));
    let packet = world.nodes[CLIENT].session().poll_datagram_transmit(now, LaneId::FIRST, 1200).unwrap();
    assert!(packet.frames().len() >= 9);
}

#[test]
fn carrier_that_went_or_is_suspect_leaves_datagrams_to_lanes() {
    let (mut world, id) = connected_by_tls();
    world.join(LaneKind::Tls, Path::default()).unwrap();
    world.run_for(milliseconds(100));
    assert_eq!(carry(&mut world, 1200), 0);
    send(&mut world, id, 0, 500);
    world.run_for(milliseconds(50));
    assert_eq!(stats(&mut world, SERVER).received, 0, "it waits for the carrier");
    world.nodes[CLIENT].session().remove_datagram_carrier(LaneId::FIRST);
    world.run_for(milliseconds(50));
    assert_eq!(stats(&mut world, SERVER).received, 1);
    // With its lane it is suspect, and over.
    assert_eq!(carry(&mut world, 1200), 0);
    world.kill(0, &[CLIENT]);
    send(&mut world, id, 1, 500);
    assert_eq!(carry(&mut world, 1200), 0);
    world.run_for(milliseconds(50));
    assert_eq!(stats(&mut world, SERVER).received, 2);
}

#[test]
fn only_whole_datagrams_come_over_a_carrier() {
    let stream_id = StreamId::new(Side::Client, Direction::Bi, 0);
    let piece = Some(DatagramPiece { number: 1, size: 4000, offset: 0 });
    let wrong = [
        Frame::Ping { sequence: 1 },
        Frame::Datagram(Datagram { stream_id, piece, data: vec![0; 2000].into() }),
        Frame::StreamOpen { stream_id, priority: 1, replay_safe: false },
    ];
    for frame in wrong {
        let (mut world, _) = connected_by_tls();
        let now = world.now;
        let session = world.nodes[SERVER].session();
        session.handle_datagram_packet(now, LaneId::FIRST, &mut vec![frame], 100);
        assert!(session.is_ending());
    }
    // A lane that the session seals has no such carrier: what is said to come over one was written by anybody.
    let mut world = connected(1, Path::default());
    let (id, now) = (open(&mut world), world.now);
    let session = world.nodes[SERVER].session();
    let datagram = Datagram { stream_id: id, piece: None, data: Bytes::from_static(b"forged") };
    session.handle_datagram_packet(now, LaneId::FIRST, &mut vec![Frame::Datagram(datagram)], 100);
    assert!(!session.is_ending() && session.stats().datagrams.received == 0);
}

// ---- A peer that lies -----------------------------------------------------------------------------------------------

fn inject(world: &mut World, frames: Vec<Frame>) {
    let head = Head { lane_id: LaneId::FIRST, epoch: Epoch(0), packet_number: PacketNumber(100), ..Head::default() };
    let (now, mut frames) = (world.now, frames);
    world.nodes[SERVER].session().handle_packet(now, &head, true, &mut frames, 1000);
}

fn datagram(stream_id: StreamId, size: usize) -> Frame {
    Frame::Datagram(Datagram { stream_id, piece: None, data: vec![7; size].into() })
}

fn bidirectional(side: Side, index: u64) -> StreamId {
    StreamId::new(side, Direction::Bi, index)
}

#[test]
fn datagrams_on_streams_that_forbid_them_end_the_session() {
    let wrong = [
        (datagram(StreamId::new(Side::Client, Direction::Uni, 0), 10), CloseCode::STREAM_STATE_ERROR),
        (datagram(bidirectional(Side::Server, 0), 10), CloseCode::STREAM_STATE_ERROR),
        (datagram(bidirectional(Side::Client, limits::STREAMS_MAX), 10), CloseCode::FLOW_CONTROL_ERROR),
    ];
    for (frame, code) in wrong {
        let mut world = connected(1, Path::default());
        inject(&mut world, vec![frame]);
        let reason = world.nodes[SERVER].session().close_reason().cloned();
        let Some(longhaul::session::CloseReason::Fault(fault)) = reason else { panic!("{reason:?}") };
        assert_eq!(fault.close_code(), code);
    }
    let streams = StreamsConfig { datagram_bytes_max: 1000, ..StreamsConfig::default() };
    for size in [1000, 1001] {
        let mut world =
            connected_with(1, Path::default(), SessionConfig { streams: streams.clone(), ..Default::default() });
        inject(&mut world, vec![datagram(bidirectional(Side::Client, 0), size)]);
        assert_eq!(world.nodes[SERVER].session().is_ending(), size > 1000);
    }
}

/// They may overtake the frame that opens the stream, as any frame about it may.
#[test]
fn datagram_that_overtakes_the_opening_is_kept() {
    let mut world = connected(1, Path::default());
    inject(&mut world, vec![datagram(bidirectional(Side::Client, 0), 10)]);
    world.settle();
    assert_eq!(world.nodes[SERVER].app.datagrams.len(), 1);
    assert_eq!(world.nodes[SERVER].app.accepted, [bidirectional(Side::Client, 0)]);
}

#[test]
fn datagrams_of_ended_streams_are_counted_and_nothing_else() {
    let mut world = connected(1, Path::default());
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    let id = node.app.open(session, &mut world.oracle, Direction::Bi, Priority::Normal, 0).unwrap();
    world.run_until_all_read(Duration::from_secs(1));
    world.run_for(milliseconds(200));
    assert_eq!(world.nodes[SERVER].session().stream_count(), 0);
    let piece = |offset, len: usize| {
        let piece = Some(DatagramPiece { number: 1, size: 4000, offset });
        Frame::Datagram(Datagram { stream_id: id, piece, data: vec![0; len].into() })
    };
    for _ in 0..100_000 / 250 {
        inject(&mut world, vec![datagram(id, 10); 250]);
    }
    inject(&mut world, vec![piece(0, 2000), piece(2000, 2000)]);
    let received = stats(&mut world, SERVER);
    assert_eq!((received.dropped(DatagramDrop::UnknownFlow), received.received), (100_001, 0));
    assert_eq!(world.nodes[SERVER].session().held_bytes(), 0);
    assert!(!world.nodes[SERVER].session().is_ending());
}

#[test]
fn floods_of_datagrams_and_pieces_stay_within_their_bounds() {
    let mut world = connected(1, Path::default());
    world.nodes[SERVER].app.takes_datagrams = false;
    let bound = (limits::DATAGRAM_SESSION_BYTES_MAX + limits::DATAGRAM_PIECES_BYTES_MAX) as u64;
    for round in 0..100_u64 {
        // A hundred streams at once, whole ones and beginnings of others.
        for index in 0..100 {
            let stream_id = bidirectional(Side::Client, index);
            let piece = Some(DatagramPiece { number: round, size: MAX as u32, offset: 0 });
            let piece = Frame::Datagram(Datagram { stream_id, piece, data: vec![0; 20_000].into() });
            inject(&mut world, vec![datagram(stream_id, 20_000), piece]);
        }
        assert!(world.nodes[SERVER].session().held_bytes() <= bound);
    }
    assert!(!world.nodes[SERVER].session().is_ending());
    assert!(world.nodes[SERVER].session().held_bytes() > bound / 2);
    // Incomplete ones go by themselves.
    let late = world.now + limits::DATAGRAM_INCOMPLETE_AGE_MAX;
    world.nodes[SERVER].session().handle_timeout(late);
    let received = stats(&mut world, SERVER);
    assert_eq!(received.dropped(DatagramDrop::Incomplete), 10_000);
    assert!(world.nodes[SERVER].session().held_bytes() <= limits::DATAGRAM_SESSION_BYTES_MAX as u64);
}

// ---- Everything at once ---------------------------------------------------------------------------------------------

fn draw_path(random: &mut Random) -> Path {
    Path {
        delay: milliseconds(random.sized(6)),
        bytes_per_second: random.pick(&[500_000, 5_000_000, 50_000_000]),
        buffer_bytes: random.pick(&[16_000, 64_000, 400_000]),
    }
}

/// Flows beside streams, over lanes that stall and die: each datagram arrives once or never, as it was sent, and the
/// books balance.
fn run(seed: u64) {
    let mut random = Random::new(seed);
    let policies = [Policy::LowestLatency, Policy::RoundRobin, Policy::Weighted, Policy::LeastLoaded, Policy::Hash];
    let config = SessionConfig {
        scheduler: random.pick(&policies),
        packet_bytes_max: random.pick(&[2048, 16_384, 65_536]),
        ..SessionConfig::default()
    };
    let mut world = World::connected_with(seed, random.between(1, 4) as usize, draw_path(&mut random), config);
    world.nodes.iter_mut().for_each(|node| node.app.takes_datagrams = true);
    let flows: Vec<_> = (0..random.between(1, 5)).map(|_| open(&mut world)).collect();
    let node = &mut world.nodes[CLIENT];
    let bytes = random.sized(22);
    node.app.open(node.session.as_mut().unwrap(), &mut world.oracle, Direction::Uni, Priority::Normal, bytes).unwrap();
    let mut offered = 0;
    for _ in 0..random.between(10, 60) {
        for _ in 0..random.sized(5) {
            let (id, size) = (random.pick(&flows), (HEAD_BYTES as u64 + random.sized(17)).min(MAX as u64) as usize);
            let data = content(&world, id, offered, size);
            let (now, age) = (world.now, milliseconds(random.between(1, 600)));
            world.nodes[CLIENT].session().send_datagram(id, data, age, now).unwrap();
            offered += 1;
        }
        match random.below(8) {
            0 => {
                let (link, time, now) = (random.below(world.links.len() as u64), random.sized(10), world.now);
                world.links[link as usize].pipes.iter_mut().for_each(|pipe| pipe.stall(now, milliseconds(time)));
            }
            1 => {
                let told = random.pick(&[&[][..], &[CLIENT], &[SERVER], &[CLIENT, SERVER]]);
                world.kill(random.below(world.links.len() as u64) as usize, told);
                world.join(LaneKind::Tcp, draw_path(&mut random));
            }
            _ => {}
        }
        world.run_for(milliseconds(random.sized(7)));
        for node in &mut world.nodes {
            assert!(node.session().held_bytes() <= limits::DATAGRAM_SESSION_BYTES_MAX as u64 + bytes * 2);
        }
    }
    world.join(LaneKind::Tcp, Path::default());
    let is_read = world.run_until(Duration::from_secs(60), |world| world.oracle.read_bytes() == bytes);
    assert!(is_read, "{}", world.describe());
    // A lane that nobody was told of has to be found dead before the last byte is acknowledged.
    world.run_for(Duration::from_secs(15));
    let datagrams = world.nodes[SERVER].app.datagrams.clone();
    let numbers: HashSet<_> = datagrams.iter().map(|datagram| check(&world, datagram).0).collect();
    assert_eq!(numbers.len(), datagrams.len(), "none comes twice");
    let (sent, received) = (stats(&mut world, CLIENT), stats(&mut world, SERVER));
    assert_eq!(sent.sent + sent.dropped_in_all(), offered, "{sent:?}");
    assert_eq!(received.received, datagrams.len() as u64);
    assert!(received.received <= sent.sent, "{received:?} {sent:?}");
    // A piece that comes after its datagram was given up counts again.
    assert!(received.dropped(DatagramDrop::Incomplete) == 0 || sent.cut + sent.dropped_in_all() > 0);
    assert_eq!(received.dropped(DatagramDrop::Contradictory), 0);
    for node in &mut world.nodes {
        assert_eq!(node.session().held_bytes(), 0, "{}", node.session().id());
        assert!(!node.events.iter().any(|(_, event)| matches!(event, Event::Closed(_))));
    }
}

#[test]
fn datagrams_arrive_once_or_never_whatever_happens_to_lanes() {
    for_each_seed("datagrams_arrive_once_or_never_whatever_happens_to_lanes", run);
}
