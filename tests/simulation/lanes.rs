//! Lanes that die, get suspect, lie half open, and come back.

use std::time::Duration;

use longhaul::base::{CloseCode, Direction, Epoch, LaneId, PacketNumber, StreamId, limits};
use longhaul::session::scheduler::Policy;
use longhaul::session::{CloseReason, Event, LaneEnd, LaneKind, LaneSetup, LaneState, SessionConfig};
use longhaul::stream::{Priority, StreamsConfig};
use longhaul::wire::{Ack, Frame, Head};

use crate::link::Path;
use crate::random::Random;
use crate::seeds::milliseconds;
use crate::world::{CLIENT, SERVER, World};

const MEGABYTE: u64 = 1_000_000;

/// 2 MB/s a lane: slow enough that much is on its way when something happens.
const SLOW: Path = Path { delay: milliseconds(20), bytes_per_second: 2_000_000, buffer_bytes: 128 * 1024 };

fn send(world: &mut World, bytes: u64) -> StreamId {
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    node.app.open(session, &mut world.oracle, Direction::Uni, Priority::Normal, bytes).unwrap()
}

#[test]
fn dead_lane_is_resent_on_the_others() {
    let mut world = World::connected(1, 3, SLOW);
    send(&mut world, 3 * MEGABYTE);
    world.run_for(milliseconds(300));
    let lane = world.lane_of(1).unwrap();
    world.kill(1, &[CLIENT, SERVER]);
    world.run_until_all_read(Duration::from_secs(3));
    let client = &mut world.nodes[CLIENT];
    assert!(client.session().stats().reinjected_bytes > 0);
    assert_eq!(client.session().stats().lanes_lost, 1);
    assert_eq!(client.lane_end(lane), Some(&LaneEnd::ChannelClosed));
    assert!(!client.events.iter().any(|(_, event)| matches!(event, Event::LaneSuspect(_))));
}

#[test]
fn half_open_lane_is_suspected_then_dead_and_holds_nothing_up() {
    let mut world = World::connected(1, 3, SLOW);
    send(&mut world, 6 * MEGABYTE);
    world.run_for(milliseconds(500));
    let (lane, harmed_at) = (world.lane_of(1).unwrap(), world.now);
    world.kill(1, &[]);
    world.run_until_all_read(Duration::from_secs(4));
    world.run_for(Duration::from_secs(10));
    let client = &world.nodes[CLIENT];
    let suspected = client.time_of(|event| *event == Event::LaneSuspect(lane)).unwrap() - harmed_at;
    assert!(suspected < milliseconds(800), "{suspected:?}");
    let dead = client.time_of(|event| matches!(event, Event::LaneDown(id, _) if *id == lane)).unwrap() - harmed_at;
    assert!(dead < Duration::from_secs(8), "{dead:?}");
    assert_eq!(client.lane_end(lane), Some(&LaneEnd::Unacknowledged));
    // The peer learns of it by another lane.
    assert!(matches!(world.nodes[SERVER].lane_end(lane), Some(LaneEnd::ClosedByPeer(_) | LaneEnd::ChannelClosed)));
}

#[test]
fn suspect_lane_that_acknowledges_again_recovers() {
    let mut world = World::connected(1, 2, SLOW);
    send(&mut world, 6 * MEGABYTE);
    world.run_for(milliseconds(500));
    let lane = world.lane_of(1).unwrap();
    let now = world.now;
    world.links[1].pipes[CLIENT].stall(now, Duration::from_secs(3));
    world.run_until_all_read(Duration::from_secs(8));
    world.run_for(Duration::from_secs(4));
    let client = &world.nodes[CLIENT];
    assert!(client.has_seen(&Event::LaneSuspect(lane)), "{}", world.describe());
    assert!(client.has_seen(&Event::LaneRecovered(lane)), "{}", world.describe());
    assert_eq!(client.lane_end(lane), None);
}

#[test]
fn late_acknowledgement_of_a_dead_lane_saves_a_repetition() {
    let mut world = World::connected(1, 1, Path { delay: milliseconds(100), ..SLOW });
    world.run_for(Duration::from_secs(1));
    send(&mut world, 60_000);
    // Everything arrives, and the acknowledgements are on their way back when the client's end fails.
    world.run_for(milliseconds(190));
    assert_eq!(world.oracle.read_bytes(), 60_000);
    world.kill(0, &[CLIENT, SERVER]);
    world.join(LaneKind::Tcp, SLOW).unwrap();
    world.run_for(Duration::from_secs(1));
    let client = world.nodes[CLIENT].session();
    assert!(!client.has_outstanding_data());
    assert_eq!(client.stream_count(), 0);
    let (sent, reinjected) = (client.stats().bytes_sent, client.stats().reinjected_bytes);
    assert!(reinjected > 0, "the lane died with data on its way");
    assert!(sent < 230_000, "{sent} bytes for 100 000");
}

#[test]
fn late_acknowledgement_comes_before_the_repetition_when_it_can() {
    let mut world = World::connected(1, 2, Path { delay: milliseconds(100), ..SLOW });
    world.run_for(Duration::from_secs(1));
    let stream = send(&mut world, 100_000);
    world.run_for(milliseconds(190));
    assert_eq!(world.oracle.read_bytes(), 100_000);
    let (now, client) = (world.now, world.nodes[CLIENT].session());
    let lanes: Vec<_> = client.stats().lanes.iter().filter(|lane| lane.in_flight_bytes > 0).cloned().collect();
    // The client gives the lanes up, and hears of what arrived before it sends anything.
    for lane in &lanes {
        client.remove_lane(lane.id, LaneEnd::ChannelClosed, now);
        let ack =
            Ack { lane_id: lane.id, next_packet_number: PacketNumber(lane.packets_sent), delay_us: 0, ranges: vec![] };
        let other = if lane.id == LaneId(0) { LaneId(1) } else { LaneId(0) };
        let head = Head { lane_id: other, epoch: Epoch(0), ..Head::default() };
        client.handle_packet(now, &head, true, &mut vec![Frame::Ack(ack)], 100);
    }
    assert!(client.streams().is_finished(stream));
    assert_eq!(client.stats().unsent_bytes, 0);
}

/// A client whose only lane fell silent with a stream on its way, and another lane, which begins to join.
fn rescued() -> (World, StreamId, LaneId) {
    let mut world = World::connected(1, 1, SLOW);
    let stream = send(&mut world, 60_000);
    world.kill(0, &[]);
    world.run_for(Duration::from_secs(2));
    let now = world.now;
    let client = world.nodes[CLIENT].session();
    assert_eq!(client.lane_state(LaneId::FIRST), Some(LaneState::Suspect));
    let setup = LaneSetup::new(LaneKind::Tcp);
    let request = client.begin_join(setup, &[], &mut Random::new(1), now).unwrap();
    (world, stream, request.head.lane_id)
}

/// Of what a lane sent, all up to `next` has arrived: this comes by another lane, or by the same one.
fn acknowledge(world: &mut World, lane_id: LaneId, next: u64, by: LaneId) {
    let now = world.now;
    let ack = Ack { lane_id, next_packet_number: PacketNumber(next), delay_us: 0, ranges: vec![] };
    let head = Head { lane_id: by, epoch: Epoch(0), ..Head::default() };
    world.nodes[CLIENT].session().handle_packet(now, &head, true, &mut vec![Frame::Ack(ack)], 100);
}

#[test]
fn fresh_lane_says_what_arrived_before_all_fell_silent() {
    let (mut world, _, lane) = rescued();
    let now = world.now;
    let client = world.nodes[CLIENT].session();
    let is_repeated = |frame: &Frame| matches!(frame, Frame::Ack(ack) if ack.lane_id == LaneId::FIRST);
    assert!(client.poll_transmit(now, lane).unwrap().frames().iter().any(is_repeated));
    assert!(!client.poll_transmit(now, lane).unwrap().frames().iter().any(is_repeated), "once is enough");
}

#[test]
fn what_arrived_before_an_outage_is_known_at_its_end() {
    let mut world = World::connected(1, 1, SLOW);
    let stream = send(&mut world, 60_000);
    // Everything arrives, and nobody hears of it.
    let now = world.now;
    world.links[0].pipes[SERVER].stall(now, Duration::from_secs(1000));
    world.run_for(milliseconds(500));
    assert_eq!(world.oracle.read_bytes(), 60_000);
    world.kill(0, &[CLIENT, SERVER]);
    world.run_for(Duration::from_secs(100));
    let before = world.nodes[CLIENT].session().stats().bytes_sent;
    // A path on which the answer comes before much was sent.
    world.join(LaneKind::Tcp, Path { buffer_bytes: 8 * 1024, bytes_per_second: 500_000, ..SLOW }).unwrap();
    world.run_for(Duration::from_secs(1));
    let client = world.nodes[CLIENT].session();
    assert!(client.streams().is_finished(stream));
    let sent = client.stats().bytes_sent - before;
    assert!(sent < 60_000, "{sent} bytes were sent again");
}

#[test]
fn acknowledgement_by_another_lane_saves_a_repetition_and_revives_nothing() {
    let (mut world, stream, lane) = rescued();
    let sent = world.nodes[CLIENT].session().stats().lanes[0].packets_sent;
    acknowledge(&mut world, LaneId::FIRST, sent, lane);
    let client = world.nodes[CLIENT].session();
    assert!(client.streams().is_finished(stream));
    assert_eq!(client.lane_state(LaneId::FIRST), Some(LaneState::Suspect));
}

#[test]
fn packets_of_a_fresh_lane_fit_its_first_flight() {
    let (mut world, _, lane) = rescued();
    let now = world.now;
    let packet = world.nodes[CLIENT].session().poll_transmit(now, lane).unwrap();
    let size: usize = packet.frames().iter().map(Frame::encoded_len).sum();
    assert!(size > 4096 && size < 10 * 1200, "{size}");
}

#[test]
fn streams_go_on_after_ten_seconds_without_any_lane() {
    let mut world = World::connected(1, 3, SLOW);
    world.nodes[SERVER].app.answer.bytes = MEGABYTE;
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    node.app.open(session, &mut world.oracle, Direction::Bi, Priority::Normal, 4 * MEGABYTE).unwrap();
    world.run_for(milliseconds(300));
    for link in 0..3 {
        world.kill(link, &[CLIENT, SERVER]);
    }
    let before = world.oracle.read_bytes();
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.oracle.read_bytes(), before);
    assert!(world.nodes.iter().all(crate::node::Node::is_connected));
    world.join(LaneKind::Tcp, SLOW).unwrap();
    world.run_until_all_read(Duration::from_secs(5));
}

#[test]
fn session_without_lanes_ends_after_its_time() {
    let config = SessionConfig { survive: Duration::from_secs(30), ..SessionConfig::default() };
    let mut world = World::connected_with(1, 2, SLOW, config);
    send(&mut world, 4 * MEGABYTE);
    world.kill(0, &[CLIENT, SERVER]);
    world.kill(1, &[CLIENT, SERVER]);
    world.run_for(Duration::from_secs(29));
    assert!(world.nodes.iter().all(|node| node.closed().is_none()));
    world.run_for(Duration::from_secs(2));
    for node in &world.nodes {
        assert_eq!(node.closed(), Some(&CloseReason::ChannelsLost { after: Duration::from_secs(30) }));
    }
}

/// Something in front of the peer takes connections, and closes them: nobody has been heard by that.
#[test]
fn session_ends_after_its_time_although_joins_begin() {
    let config = SessionConfig { survive: Duration::from_secs(10), ..SessionConfig::default() };
    let mut world = World::connected_with(1, 1, SLOW, config);
    send(&mut world, 4 * MEGABYTE);
    world.kill(0, &[CLIENT, SERVER]);
    let begun = world.now;
    while world.nodes[CLIENT].closed().is_none() {
        let joined = world.join(LaneKind::Tcp, SLOW).expect("a session that goes on has lanes left");
        world.run_for(milliseconds(1));
        world.kill(joined, &[CLIENT]);
        world.run_for(milliseconds(500));
        assert!(world.now < begun + Duration::from_secs(12), "{}", world.describe());
    }
    assert_eq!(world.nodes[CLIENT].closed(), Some(&CloseReason::ChannelsLost { after: Duration::from_secs(10) }));
}

#[test]
fn idle_lane_is_pinged_and_a_silent_one_given_up() {
    let mut world = World::connected(1, 2, SLOW);
    let lane = world.lane_of(1).unwrap();
    world.run_for(Duration::from_secs(120));
    assert!(world.nodes.iter_mut().all(|node| node.session().healthy_lane_count() == 2));
    world.kill(1, &[]);
    world.run_for(Duration::from_secs(60));
    for node in &world.nodes {
        assert!(node.lane_end(lane).is_some(), "{:?}", node.side);
    }
    assert!(world.nodes.iter_mut().all(|node| node.session().healthy_lane_count() == 1));
}

#[test]
fn damaged_packet_costs_only_its_lane() {
    for fault in [crate::faults::Fault::Corrupt, crate::faults::Fault::Replay, crate::faults::Fault::Swap] {
        let mut world = World::connected(7, 2, SLOW);
        send(&mut world, 2 * MEGABYTE);
        world.run_for(milliseconds(200));
        while !world.harm(1, fault) {}
        world.run_until_all_read(Duration::from_secs(12));
        assert!(world.nodes.iter_mut().all(|node| node.session().lane_count() == 1), "{fault:?}");
        assert!(world.nodes.iter().all(|node| node.closed().is_none()));
    }
}

#[test]
fn client_that_loses_its_lane_in_front_of_the_accept_ends_at_once() {
    let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
    world.dial(LaneKind::Tcp, SLOW);
    world.run_until(Duration::from_secs(5), |world| world.nodes[CLIENT].session.is_some());
    world.kill(0, &[CLIENT, SERVER]);
    assert_eq!(world.nodes[CLIENT].closed(), Some(&CloseReason::NotAccepted));
}

/// What the server keeps is of no use to anybody once the client has begun another session.
#[test]
fn server_whose_client_never_had_the_accept_and_began_anew_does_not_wait_for_long() {
    for is_lost_first in [true, false] {
        let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
        world.dial(LaneKind::Tcp, SLOW);
        world.run_until(Duration::from_secs(5), |world| world.nodes[SERVER].is_connected());
        assert!(!world.nodes[CLIENT].is_connected());
        if !is_lost_first {
            begin_anew(&mut world);
        }
        world.kill(0, &[CLIENT, SERVER]);
        let lost_at = world.now;
        if is_lost_first {
            world.run_for(Duration::from_secs(2));
            begin_anew(&mut world);
        }
        let after = world.now + limits::SURVIVE_UNCONFIRMED - lost_at;
        world.run_for(limits::SURVIVE_UNCONFIRMED / 2);
        // One more prolongs nothing.
        begin_anew(&mut world);
        world.run_for(limits::SURVIVE_UNCONFIRMED / 2 - milliseconds(100));
        assert_eq!(world.nodes[SERVER].closed(), None);
        world.run_for(milliseconds(200));
        assert_eq!(world.nodes[SERVER].closed(), Some(&CloseReason::ChannelsLost { after }));
    }
}

fn begin_anew(world: &mut World) {
    let now = world.now;
    world.nodes[SERVER].session().handle_newer_session(now);
}

/// The accept has arrived, its acknowledgement has not, and the path is down for a minute: the client was promised more.
#[test]
fn client_with_an_accept_that_it_could_not_acknowledge_comes_back_after_a_long_outage() {
    let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
    world.connect(LaneKind::Tcp, SLOW);
    world.kill(0, &[CLIENT, SERVER]);
    send(&mut world, MEGABYTE);
    world.run_for(limits::SURVIVE / 2);
    world.join(LaneKind::Tcp, SLOW).unwrap();
    world.run_until_all_read(Duration::from_secs(12));
}

/// A client that has acknowledged the accept, or comes back, has all of `survive`, however many sessions it begins.
#[test]
fn server_waits_for_a_client_that_has_the_accept() {
    for is_acknowledged in [false, true] {
        let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
        world.connect(LaneKind::Tcp, SLOW);
        if is_acknowledged {
            world.run_for(SLOW.delay * 4);
        }
        begin_anew(&mut world);
        world.kill(0, &[CLIENT, SERVER]);
        if !is_acknowledged {
            world.run_for(limits::SURVIVE_UNCONFIRMED / 2);
            let joined = world.join(LaneKind::Tcp, SLOW).unwrap();
            world.run_for(SLOW.delay * 4);
            world.kill(joined, &[CLIENT, SERVER]);
        }
        world.run_for(limits::SURVIVE - Duration::from_secs(1));
        assert!(world.nodes.iter().all(|node| node.closed().is_none()), "{is_acknowledged}");
    }
}

/// The first lane may die with the accept delivered but not acknowledged: a repetition would be a second accept.
#[test]
fn accept_is_not_repeated_on_another_lane() {
    let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
    world.connect(LaneKind::Tcp, SLOW);
    world.links[0].pipes[CLIENT].black_hole(world.now);
    world.join(LaneKind::Tcp, SLOW).unwrap();
    world.run_for(Duration::from_secs(20));
    assert!(world.nodes.iter().all(crate::node::Node::is_connected), "{}", world.describe());
    assert_eq!(world.nodes[SERVER].session().lane_count(), 1);
}

#[test]
fn lane_close_of_one_side_ends_it_on_the_other() {
    let mut world = World::connected(1, 2, SLOW);
    let (now, lane) = (world.now, world.lane_of(1).unwrap());
    world.nodes[SERVER].session().remove_lane(lane, LaneEnd::Closed(CloseCode::LANE_SURPLUS), now);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.nodes[SERVER].lane_end(lane), Some(&LaneEnd::Closed(CloseCode::LANE_SURPLUS)));
    assert!(world.nodes[CLIENT].lane_end(lane).is_some());
}

/// Frames that any lane may carry must not wait in one that acknowledges nothing.
#[test]
fn tied_streams_leave_a_suspect_lane_together_with_their_credits() {
    let windows = StreamsConfig { stream_window: 64_000, stream_window_max: 64_000, ..StreamsConfig::default() };
    let config = SessionConfig { scheduler: Policy::Hash, streams: windows, ..SessionConfig::default() };
    let mut world = World::connected_with(1, 2, SLOW, config);
    let now = world.now;
    for _ in 0..8 {
        send(&mut world, MEGABYTE / 4);
    }
    world.links[0].pipes[SERVER].black_hole(now);
    world.run_until_all_read(Duration::from_secs(5));
}

/// Each stream that finds its credit used up says so: with many of them in one packet, that has to fit, too.
#[test]
fn blocked_signals_of_many_streams_fit_into_packets() {
    let windows = StreamsConfig { stream_window: 10, stream_window_max: 20, ..StreamsConfig::default() };
    let config = SessionConfig { packet_bytes_max: 2048, streams: windows, ..SessionConfig::default() };
    let mut world = World::connected_with(1, 1, SLOW, config);
    for _ in 0..300 {
        send(&mut world, 100);
    }
    world.run_until_all_read(Duration::from_secs(20));
}

/// When the only other lane comes back to life, it takes over what a stalled one holds.
#[test]
fn lane_that_recovers_takes_over_from_one_that_does_not() {
    let mut world = World::connected(1, 2, SLOW);
    send(&mut world, MEGABYTE / 2);
    world.run_for(milliseconds(50));
    let now = world.now;
    world.links[0].pipes[CLIENT].stall(now, milliseconds(1500));
    world.links[1].pipes[CLIENT].stall(now, milliseconds(5500));
    world.run_until_all_read(milliseconds(2500));
}

/// A transfer over three lanes of which one stalls: bytes read and sent again within 150 ms, in which no lane is suspect.
fn stall_one_of_three(stream_window: u64) -> (u64, u64) {
    let streams = StreamsConfig { stream_window, stream_window_max: stream_window, ..StreamsConfig::default() };
    let config = SessionConfig { streams, ..SessionConfig::default() };
    let path = Path { delay: milliseconds(5), bytes_per_second: 8_000_000, buffer_bytes: 128 * 1024 };
    let mut world = World::connected_with(1, 3, path, config);
    send(&mut world, 20 * MEGABYTE);
    world.run_for(milliseconds(300));
    let before = world.oracle.read_bytes();
    let sent_twice = world.nodes[CLIENT].session().stats().reinjected_bytes;
    let now = world.now;
    world.links[1].pipes[CLIENT].stall(now, Duration::from_secs(3));
    world.run_for(milliseconds(150));
    let read = world.oracle.read_bytes() - before;
    let client = &mut world.nodes[CLIENT];
    assert!(!client.events.iter().any(|(_, event)| matches!(event, Event::LaneSuspect(_))));
    let reinjected = client.session().stats().reinjected_bytes - sent_twice;
    world.run_until_all_read(Duration::from_secs(4));
    (read, reinjected)
}

#[test]
fn window_that_is_full_behind_a_stalled_lane_is_opened_by_the_others() {
    let window = 256 * 1024;
    let (read, reinjected) = stall_one_of_three(window);
    assert!(read > window, "{read} bytes were read");
    assert!(reinjected > 0);
    // Where the window is not what holds the sender up, nothing is sent twice.
    let (_, reinjected) = stall_one_of_three(12 * MEGABYTE);
    assert_eq!(reinjected, 0);
}

#[test]
fn window_grows_while_lanes_repair_their_losses() {
    let path = Path { delay: milliseconds(50), bytes_per_second: 4_000_000, buffer_bytes: 128 * 1024 };
    let mut world = World::connected(1, 4, path);
    send(&mut world, 40 * MEGABYTE);
    // Each lane stands still for a while, in turn, as TCP does that sends again what was lost.
    let mut grown = None;
    for turn in 0..40 {
        let now = world.now;
        world.links[turn % 4].pipes[CLIENT].stall(now, milliseconds(300));
        world.run_for(milliseconds(100));
        let read = world.oracle.read_bytes();
        if turn == 19 {
            grown = Some(read);
        }
    }
    let second_half = world.oracle.read_bytes() - grown.unwrap();
    // A quarter of the time lanes stand still; without larger windows the others wait for them most of the rest.
    assert!(second_half > 7 * MEGABYTE, "{second_half}");
    world.run_until_all_read(Duration::from_secs(20));
}

#[test]
fn a_loss_at_the_beginning_does_not_use_up_the_window() {
    let path = Path { delay: milliseconds(75), bytes_per_second: 1_000_000, buffer_bytes: 128 * 1024 };
    let mut world = World::connected(1, 4, path);
    send(&mut world, 20 * MEGABYTE);
    // What a lane repairs for two round trips holds up what the others bring.
    world.run_for(milliseconds(100));
    let now = world.now;
    world.links[0].pipes[CLIENT].stall(now, milliseconds(300));
    world.run_for(milliseconds(1500));
    let read = world.oracle.read_bytes();
    assert!(read > 4 * MEGABYTE, "{read}");
    world.run_until_all_read(Duration::from_secs(20));
}
