//! Drawn frames of a peer that keeps to nothing: they end the session at worst, and memory stays within the windows.

use longhaul::base::{CloseCode, Direction, Epoch, LaneId, PacketNumber, StreamCode, StreamId, limits};
use longhaul::session::{CloseReason, SessionConfig};
use longhaul::stream::StreamsConfig;
use longhaul::wire::{Ack, Datagram, DatagramPiece, Frame, HandshakeData, HandshakeLevel, Head, StreamData};

use crate::link::Path;
use crate::random::Random;
use crate::seeds::for_each_seed;
use crate::world::World;

fn draw_frame(random: &mut Random) -> Frame {
    let stream_id = StreamId(random.below(12));
    let (offset, code) = (random.sized(16), random.below(300));
    let direction = random.pick(&[Direction::Bi, Direction::Uni]);
    match random.below(24) {
        0..6 => {
            let data = vec![1; random.sized(12) as usize];
            Frame::Stream(StreamData { stream_id, offset, fin: random.one_in(8), data: data.into() })
        }
        6 => Frame::StreamOpen { stream_id, priority: random.below(8) as u8, replay_safe: random.one_in(2) },
        7 => Frame::StreamReset { stream_id, code: StreamCode(code), final_size: offset },
        8 => Frame::StreamStop { stream_id, code: StreamCode(code) },
        9 => Frame::Ack(Ack {
            lane_id: LaneId(random.below(3) as u32),
            next_packet_number: PacketNumber(random.below(8)),
            delay_us: random.sized(62),
            ranges: Vec::new(),
        }),
        10 => Frame::MaxData { maximum: random.sized(61) },
        11 => Frame::MaxStreamData { stream_id, maximum: random.sized(61) },
        12 => Frame::MaxStreams { direction, maximum: random.sized(20) },
        13 => Frame::DataBlocked { limit: offset },
        14 => Frame::StreamDataBlocked { stream_id, limit: offset },
        15 => Frame::StreamsBlocked { direction, limit: offset },
        16 => Frame::Ping { sequence: offset },
        17 => Frame::Pong { sequence: offset, delay_us: random.sized(62) },
        18 => Frame::KeyUpdate { epoch: Epoch(random.below(3) as u32) },
        19 => Frame::LaneClose { lane_id: LaneId(1 + random.below(3) as u32), code: CloseCode(code) },
        20 => Frame::GoAway { code: CloseCode(code), reason: "go".to_owned() },
        22 | 23 => {
            let data = vec![2; random.sized(12) as usize].into();
            let piece = random.one_in(2).then(|| DatagramPiece {
                number: random.below(4),
                size: 2000 + random.below(2) as u32,
                offset: random.below(2000) as u32,
            });
            Frame::Datagram(Datagram { stream_id, piece, data })
        }
        _ if random.one_in(20) => {
            Frame::Handshake(HandshakeData { level: HandshakeLevel::Traffic, offset: 0, data: vec![4; 10].into() })
        }
        _ if random.one_in(20) => Frame::MaxLanes { maximum: random.below(u64::from(u32::MAX)) as u32 },
        _ => Frame::Ping { sequence: 0 },
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let windows = StreamsConfig {
        stream_window: 40_000,
        stream_window_max: 100_000,
        session_window: 80_000,
        session_window_max: 200_000,
        streams_max: 4,
        datagram_bytes_max: 3000,
    };
    let config = SessionConfig { streams: windows, ..SessionConfig::default() };
    let mut world = World::connected_with(seed, 2, Path::default(), config);
    let (side, mut epoch) = (random.below(2) as usize, 0);
    let (mut now, mut number) = (world.now, 100);
    let session = world.nodes[side].session();
    let mut own = Vec::new();
    for _ in 0..300 {
        epoch += u32::from(random.one_in(40));
        number += 1;
        let lane_id = LaneId(random.below(3) as u32);
        let head = Head { lane_id, epoch: Epoch(epoch), packet_number: PacketNumber(number), ..Head::default() };
        let mut frames: Vec<_> = (0..random.between(1, 4)).map(|_| draw_frame(&mut random)).collect();
        session.handle_packet(now, &head, true, &mut frames, 1000);
        while session.poll_event().is_some() {}
        while session.poll_wake().is_some() {}
        if session.is_ending() {
            break;
        }
        if let Ok(id) = session.open(random.pick(&[Direction::Bi, Direction::Uni]), Default::default()) {
            own.push(id);
        }
        if !own.is_empty() {
            let id = random.pick(&own);
            let _ = session.write(id, &[5; 3000]);
            match random.below(5) {
                0 => drop(session.finish(id)),
                1 => session.reset(id, StreamCode(1)),
                2 => session.stop(id, StreamCode(2), now),
                3 => drop(session.send_datagram(id, vec![6; 1500].into(), crate::seeds::milliseconds(50), now)),
                _ => {}
            }
        }
        if let Some(id) = session.accept(Direction::Bi).or_else(|| session.accept(Direction::Uni)) {
            let _ = session.read(id, 1000, now);
        }
        drop(session.poll_transmit(now, lane_id));
        now += crate::seeds::milliseconds(random.sized(10));
        if session.next_timeout().is_some_and(|at| at <= now) {
            session.handle_timeout(now);
        }
        // What arrived is bounded by our window, what waits to be sent by our own writing, and datagrams that nobody
        // takes by what is kept of them for each of four streams.
        let datagrams = 4 * limits::DATAGRAM_EARLY_BYTES_MAX as u64 + 300 * 4096;
        assert!(session.held_bytes() <= 200_000 + 3000 * 300 + datagrams, "{} bytes held", session.held_bytes());
    }
    if let Some(CloseReason::Fault(fault)) = session.close_reason() {
        assert!(fault.close_code().name().is_some());
    }
    for _ in 0..100 {
        let Some(next) = session.next_timeout() else { return };
        session.handle_timeout(next);
        while session.poll_wake().is_some() {}
    }
    panic!("a session without packets does not end: {:?}", session.close_reason());
}

#[test]
fn drawn_lies_end_the_session_at_worst() {
    for_each_seed("drawn_lies_end_the_session_at_worst", run);
}
