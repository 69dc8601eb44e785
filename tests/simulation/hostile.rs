//! An authenticated peer that lies: the session ends with the right code, and nothing else happens.

use longhaul::base::{CloseCode, Direction, Epoch, LaneId, PacketNumber, Secret, Side, StreamCode, StreamId, limits};
use longhaul::session::{LaneEnd, LaneKind, SessionConfig};
use longhaul::stream::Priority;
use longhaul::wire::{Ack, Frame, HandshakeData, HandshakeLevel, Head, StreamData};

use crate::link::Path;
use crate::world::{CLIENT, SERVER, World};

fn connected() -> World {
    World::connected(1, 1, Path::default())
}

/// Gives a session a packet of the current epoch on its first lane.
fn inject(world: &mut World, side: usize, frames: Vec<Frame>) {
    inject_at(world, side, LaneId::FIRST, Epoch(0), true, frames);
}

fn inject_at(world: &mut World, side: usize, lane_id: LaneId, epoch: Epoch, is_sealed: bool, mut frames: Vec<Frame>) {
    let head = Head { lane_id, epoch, packet_number: PacketNumber(100), ..Head::default() };
    let now = world.now;
    world.nodes[side].session().handle_packet(now, &head, is_sealed, &mut frames, 1000);
}

/// Whether the session goes on.
fn is_well(world: &mut World, side: usize) -> bool {
    !world.nodes[side].session().is_ending()
}

/// The code that a session tells its peer.
fn code_sent(world: &mut World, side: usize) -> Option<CloseCode> {
    let now = world.now;
    let session = world.nodes[side].session();
    if !session.is_ending() {
        return None;
    }
    let transmission = session.poll_transmit(now, LaneId::FIRST)?;
    transmission.frames().iter().find_map(|frame| match frame {
        Frame::Close { code, .. } => Some(*code),
        _ => None,
    })
}

fn check(side: usize, frames: Vec<Frame>, expected: CloseCode) {
    let mut world = connected();
    let text = format!("{frames:?}");
    inject(&mut world, side, frames);
    assert_eq!(code_sent(&mut world, side), Some(expected), "{text:.200}");
}

fn client_stream(index: u64) -> StreamId {
    StreamId::new(Side::Client, Direction::Uni, index)
}

fn data(stream_id: StreamId, offset: u64, size: usize, fin: bool) -> Frame {
    Frame::Stream(StreamData { stream_id, offset, fin, data: vec![7; size].into() })
}

fn repeated(frame: &Frame, count: usize) -> Vec<Frame> {
    vec![frame.clone(); count]
}

#[test]
fn data_past_the_window_of_a_stream() {
    let window = limits::STREAM_WINDOW_BYTES;
    let mut world = connected();
    // A gap would have the window grow.
    inject(&mut world, SERVER, vec![data(client_stream(0), 0, window as usize, false)]);
    assert!(is_well(&mut world, SERVER), "the last byte of the window may come");
    inject(&mut world, SERVER, vec![data(client_stream(0), window, 1, false)]);
    assert_eq!(code_sent(&mut world, SERVER), Some(CloseCode::FLOW_CONTROL_ERROR));
}

/// Nothing arrives in order, and the window grows for what seems to wait behind a loss, but not beyond what the path needs:
/// nobody takes anything.
#[test]
fn gaps_open_no_larger_window_than_the_path_needs() {
    let mut world = connected();
    let mut last = limits::STREAM_WINDOW_BYTES - 1;
    while last < limits::STREAM_WINDOW_BYTES_MAX && is_well(&mut world, SERVER) {
        inject(&mut world, SERVER, vec![data(client_stream(0), last, 1, false)]);
        last = last * 2 + 1;
    }
    assert!(last > limits::STREAM_WINDOW_BYTES * 2, "it has grown");
    assert!(last < limits::STREAM_WINDOW_BYTES_MAX / 4, "{last}");
    assert_eq!(code_sent(&mut world, SERVER), Some(CloseCode::FLOW_CONTROL_ERROR));
}

#[test]
fn data_past_the_window_of_the_session() {
    let streams = limits::SESSION_WINDOW_BYTES / limits::STREAM_WINDOW_BYTES;
    let full = |index| data(client_stream(index), limits::STREAM_WINDOW_BYTES - 1, 1, false);
    let mut world = connected();
    inject(&mut world, SERVER, (0..streams).map(full).collect());
    assert!(is_well(&mut world, SERVER), "the last byte of the window may come");
    inject(&mut world, SERVER, vec![data(client_stream(streams), 0, 1, false)]);
    assert_eq!(code_sent(&mut world, SERVER), Some(CloseCode::FLOW_CONTROL_ERROR));
}

#[test]
fn final_size_past_the_window() {
    let reset = |final_size| Frame::StreamReset { stream_id: client_stream(0), code: StreamCode(1), final_size };
    check(SERVER, vec![reset(limits::STREAM_WINDOW_BYTES + 1)], CloseCode::FLOW_CONTROL_ERROR);
    // A repetition of a reset is no new bytes, however often it comes.
    let mut world = connected();
    inject(&mut world, SERVER, repeated(&reset(limits::STREAM_WINDOW_BYTES), 200));
    assert!(is_well(&mut world, SERVER));
}

#[test]
fn more_streams_than_allowed() {
    let mut world = connected();
    inject(&mut world, SERVER, vec![data(client_stream(limits::STREAMS_MAX - 1), 0, 1, false)]);
    assert!(is_well(&mut world, SERVER));
    inject(&mut world, SERVER, vec![data(client_stream(limits::STREAMS_MAX), 0, 1, false)]);
    assert_eq!(code_sent(&mut world, SERVER), Some(CloseCode::FLOW_CONTROL_ERROR));
}

#[test]
fn frames_on_streams_that_forbid_them() {
    let server_uni = StreamId::new(Side::Server, Direction::Uni, 0);
    let server_bi = StreamId::new(Side::Server, Direction::Bi, 0);
    let uni = client_stream(0);
    let wrong = [
        data(server_uni, 0, 1, false),
        data(server_bi, 0, 1, false),
        Frame::StreamReset { stream_id: server_uni, code: StreamCode(0), final_size: 0 },
        Frame::StreamStop { stream_id: uni, code: StreamCode(0) },
        Frame::StreamStop { stream_id: server_bi, code: StreamCode(0) },
        Frame::MaxStreamData { stream_id: uni, maximum: 10 },
        Frame::MaxStreamData { stream_id: server_bi, maximum: 10 },
        Frame::StreamOpen { stream_id: server_bi, priority: 0, replay_safe: false },
    ];
    for frame in wrong {
        check(SERVER, vec![frame], CloseCode::STREAM_STATE_ERROR);
    }
}

#[test]
fn final_sizes_that_contradict() {
    let id = client_stream(0);
    let reset = |final_size| Frame::StreamReset { stream_id: id, code: StreamCode(0), final_size };
    let wrong = [
        vec![data(id, 0, 10, true), data(id, 5, 10, false)],
        vec![data(id, 0, 10, true), data(id, 0, 9, true)],
        vec![data(id, 0, 10, false), data(id, 0, 9, true)],
        vec![data(id, 0, 10, false), reset(9)],
        vec![data(id, 0, 10, true), reset(11)],
        vec![reset(10), reset(11)],
        vec![reset(10), data(id, 8, 10, false)],
    ];
    for frames in wrong {
        check(SERVER, frames, CloseCode::FINAL_SIZE_ERROR);
    }
}

#[test]
fn gaps_without_end() {
    let pieces = (0..2000).map(|index| data(client_stream(0), 1 + index * 2, 1, false)).collect();
    check(SERVER, pieces, CloseCode::EXCESSIVE_LOAD);
}

#[test]
fn work_without_data() {
    let id = client_stream(0);
    let count = limits::LOAD_BURST as usize + 10;
    let stale_ack = Frame::Ack(Ack {
        lane_id: LaneId::FIRST,
        next_packet_number: PacketNumber(0),
        delay_us: 0,
        ranges: Vec::new(),
    });
    let floods = [
        Frame::Ping { sequence: 1 },
        data(id, 0, 0, false),
        Frame::StreamReset { stream_id: id, code: StreamCode(0), final_size: 0 },
        Frame::StreamStop { stream_id: StreamId::new(Side::Client, Direction::Bi, 0), code: StreamCode(0) },
        Frame::MaxData { maximum: 1 },
        Frame::MaxStreamData { stream_id: StreamId::new(Side::Client, Direction::Bi, 0), maximum: 1 },
        Frame::MaxStreams { direction: Direction::Bi, maximum: 1 },
        Frame::DataBlocked { limit: 1 },
        Frame::StreamDataBlocked { stream_id: id, limit: 1 },
        Frame::StreamsBlocked { direction: Direction::Uni, limit: 1 },
        Frame::KeyUpdate { epoch: Epoch(0) },
        Frame::LaneClose { lane_id: LaneId(9), code: CloseCode::NO_ERROR },
        Frame::GoAway { code: CloseCode::NO_ERROR, reason: String::new() },
        stale_ack,
    ];
    for frame in floods {
        let mut world = connected();
        inject(&mut world, SERVER, repeated(&frame, 1000));
        assert!(is_well(&mut world, SERVER), "{frame:?}: a burst is no flood");
        inject(&mut world, SERVER, repeated(&frame, count));
        assert_eq!(code_sent(&mut world, SERVER), Some(CloseCode::EXCESSIVE_LOAD), "{frame:?}");
    }
}

#[test]
fn new_keys_without_end() {
    let mut world = connected();
    for epoch in 1..limits::LOAD_BURST + 100 {
        let nothing = Frame::Pong { sequence: 1, delay_us: 0 };
        inject_at(&mut world, SERVER, LaneId::FIRST, Epoch(epoch), true, vec![nothing]);
    }
    assert_eq!(code_sent(&mut world, SERVER), Some(CloseCode::EXCESSIVE_LOAD));
}

#[test]
fn pongs_are_not_queued_without_end() {
    let mut world = connected();
    inject(&mut world, SERVER, repeated(&Frame::Ping { sequence: 1 }, 1000));
    let now = world.now;
    let transmission = world.nodes[SERVER].session().poll_transmit(now, LaneId::FIRST).unwrap();
    let pongs = transmission.frames().iter().filter(|frame| matches!(frame, Frame::Pong { .. })).count();
    assert!((1..=limits::PONGS_QUEUED_MAX).contains(&pongs), "{pongs}");
}

#[test]
fn frames_that_are_lies() {
    let ack = |lane, next, ranges| {
        Frame::Ack(Ack { lane_id: LaneId(lane), next_packet_number: PacketNumber(next), delay_us: 0, ranges })
    };
    let handshake = HandshakeData { level: HandshakeLevel::Traffic, offset: 0, data: vec![4, 0, 0, 0].into() };
    let lies = [
        (SERVER, ack(0, 1000, Vec::new())),
        (SERVER, ack(5, 0, Vec::new())),
        (SERVER, ack(0, 0, vec![(1, 1)])),
        (SERVER, Frame::KeyUpdate { epoch: Epoch(1) }),
        (SERVER, Frame::Accepted { reset_token: Secret::new([0; 16]) }),
        (SERVER, Frame::MaxLanes { maximum: 1 << 20 }),
        (SERVER, Frame::JoinConfirm { nonce: [0; 16] }),
        (SERVER, Frame::Handshake(handshake.clone())),
        (CLIENT, Frame::Accepted { reset_token: Secret::new([0; 16]) }),
        (CLIENT, Frame::JoinConfirm { nonce: [0; 16] }),
        (CLIENT, Frame::Handshake(handshake)),
    ];
    for (side, frame) in lies {
        check(side, vec![frame], CloseCode::PROTOCOL_VIOLATION);
    }
}

#[test]
fn nothing_comes_in_front_of_the_accept() {
    let frames = [
        data(StreamId::new(Side::Server, Direction::Uni, 0), 0, 1, false),
        Frame::Ping { sequence: 1 },
        Frame::MaxLanes { maximum: 1 << 20 },
        Frame::GoAway { code: CloseCode::NO_ERROR, reason: String::new() },
    ];
    for frame in frames {
        let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
        world.dial(LaneKind::Tcp, Path::default());
        world.run_until(crate::seeds::milliseconds(5000), |world| world.nodes[CLIENT].session.is_some());
        inject(&mut world, CLIENT, vec![frame, Frame::Accepted { reset_token: Secret::new([0; 16]) }]);
        assert_eq!(code_sent(&mut world, CLIENT), Some(CloseCode::PROTOCOL_VIOLATION));
        assert!(!world.nodes[CLIENT].session().is_connected());
        assert_eq!(world.nodes[CLIENT].session().accept(Direction::Uni), None);
    }
}

/// Without a seal anybody on the way may have written the packet.
#[test]
fn unsealed_packet_on_a_raw_lane_costs_the_lane_and_has_no_effect() {
    let mut world = World::connected(1, 2, Path::default());
    let frames = vec![data(client_stream(0), 0, 5, true), Frame::Close { code: CloseCode(1), reason: String::new() }];
    inject_at(&mut world, SERVER, LaneId(1), Epoch(0), false, frames);
    world.run_for(crate::seeds::milliseconds(500));
    assert!(is_well(&mut world, SERVER));
    assert_eq!(world.nodes[SERVER].session().stream_count(), 0);
    let end = LaneEnd::Closed(CloseCode::PROTOCOL_VIOLATION);
    assert_eq!(world.nodes[SERVER].lane_end(LaneId(1)), Some(&end));
}

/// Blocked signals of a link that carries much are no flood.
#[test]
fn blocked_signals_of_a_busy_link_are_welcome() {
    let mut world = connected();
    let id = client_stream(0);
    let mut offset = 0;
    for _ in 0..limits::LOAD_BURST + 1000 {
        let frames =
            vec![data(id, offset, 16 * 1024, false), Frame::StreamDataBlocked { stream_id: id, limit: offset }];
        inject(&mut world, SERVER, frames);
        offset += 16 * 1024;
        let now = world.now;
        let session = world.nodes[SERVER].session();
        session.accept(Direction::Uni);
        let _ = session.read(id, usize::MAX, now);
    }
    assert!(is_well(&mut world, SERVER), "{:?}", world.nodes[SERVER].session().close_reason());
}

#[test]
fn closing_session_does_not_answer_lies() {
    let mut world = connected();
    let now = world.now;
    world.nodes[SERVER].session().close(CloseCode(0x111), "bye", now);
    inject(
        &mut world,
        SERVER,
        vec![Frame::Handshake(HandshakeData { level: HandshakeLevel::Traffic, offset: 0, data: vec![1].into() })],
    );
    assert_eq!(code_sent(&mut world, SERVER), Some(CloseCode(0x111)));
    let session = world.nodes[SERVER].session();
    assert!(session.open(Direction::Bi, Priority::Normal).is_err());
}
