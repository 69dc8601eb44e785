//! Channels with several lanes, as QUIC connections have: a lane is held up by what it lost, and the others are not.

use std::time::Duration;

use longhaul::base::{Direction, LaneId, limits};
use longhaul::session::{Event, LaneKind, SessionConfig};
use longhaul::stream::{Priority, StreamsConfig};

use crate::link::Path;
use crate::seeds::milliseconds;
use crate::world::{CLIENT, SERVER, World};

const PATH: Path = Path { delay: milliseconds(20), bytes_per_second: 2_000_000, buffer_bytes: 128 * 1024 };

/// A session over one channel of four lanes.
fn connected(path: Path, config: SessionConfig) -> World {
    let mut world = World::new(1, config.clone(), config);
    world.connect(LaneKind::Quic, path);
    for _ in 1..4 {
        world.join_beside(0, path).expect("a fresh session has lanes left");
    }
    world.run_for(path.delay * 4 + milliseconds(50));
    for node in &mut world.nodes {
        let lanes = node.session().stats().lanes;
        assert_eq!(lanes.len(), 4);
        assert!(lanes.iter().all(|lane| lane.channel == LaneId::FIRST), "they are of one channel");
    }
    world
}

fn upload(world: &mut World, bytes: u64) {
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    node.app.open(session, &mut world.oracle, Direction::Uni, Priority::Normal, bytes).unwrap();
}

/// From now on nothing that the client sends arrives.
fn silence(world: &mut World) {
    let now = world.now;
    (0..4).for_each(|link| world.links[link].pipes[CLIENT].black_hole(now));
}

/// What the client has sent and will send arrives so much later.
fn stall(world: &mut World, time: Duration) {
    let now = world.now;
    (0..4).for_each(|link| world.links[link].pipes[CLIENT].stall(now, time));
}

/// Lanes that the client has suspected.
fn suspected(world: &World) -> Vec<LaneId> {
    let suspect = |event: &Event| if let Event::LaneSuspect(lane) = event { Some(*lane) } else { None };
    world.nodes[CLIENT].events.iter().filter_map(|(_, event)| suspect(event)).collect()
}

#[test]
fn a_lane_that_waits_for_a_repair_is_not_suspect_while_its_channel_works() {
    let mut world = connected(PATH, SessionConfig::default());
    upload(&mut world, 20_000_000);
    world.run_for(milliseconds(500));
    let now = world.now;
    world.links[2].pipes[CLIENT].stall(now, milliseconds(2500));
    world.run_until_all_read(Duration::from_secs(10));
    assert_eq!(suspected(&world), []);
    assert_eq!(world.nodes[CLIENT].session().stats().lanes_lost, 0);
}

#[test]
fn a_lane_that_is_never_repaired_is_found_although_its_channel_works() {
    let mut world = connected(PATH, SessionConfig::default());
    upload(&mut world, 40_000_000);
    world.run_for(milliseconds(500));
    let (start, lane) = (world.now, world.lane_of(2).unwrap());
    world.links[2].pipes[CLIENT].black_hole(start);
    assert!(world.run_until(Duration::from_secs(20), |world| !suspected(world).is_empty()));
    assert_eq!(suspected(&world), [lane]);
    let time = world.now - start;
    assert!(time >= limits::LANE_REPAIR_TIMEOUT && time < limits::LANE_REPAIR_TIMEOUT * 2, "{time:?}");
    world.run_until_all_read(Duration::from_secs(20));
}

#[test]
fn a_channel_that_falls_silent_is_found_soon() {
    let mut world = connected(PATH, SessionConfig::default());
    upload(&mut world, 40_000_000);
    world.run_for(milliseconds(500));
    let start = world.now;
    silence(&mut world);
    assert!(world.run_until(Duration::from_secs(20), |world| suspected(world).len() == 4));
    let time = world.now - start;
    assert!(time < limits::QUIC_SUSPECT_TIMEOUT_MIN * 2, "{time:?}");
    world.join(LaneKind::Tcp, PATH).expect("there is room");
    world.run_until_all_read(Duration::from_secs(30));
}

/// Lets the world run while both transports say that their peers acknowledge packets; returns for how long that was so until
/// all lanes were suspect.
fn run_with_transport_word(world: &mut World, time: Duration) -> Option<Duration> {
    let start = world.now;
    while world.now < start + time {
        let now = world.now;
        for node in &mut world.nodes {
            node.session.as_mut().unwrap().handle_transport_word(LaneId::FIRST, now);
        }
        world.run_for(milliseconds(100));
        if suspected(world).len() == 4 {
            return Some(world.now - start);
        }
    }
    None
}

/// A burst that a slow line has lost is repaired in seconds. What is dialled meanwhile would only slow it down further.
#[test]
fn a_channel_whose_transport_repairs_what_was_lost_is_neither_suspect_nor_dead() {
    let mut world = connected(PATH, SessionConfig::default());
    upload(&mut world, 2_000_000);
    world.run_for(milliseconds(100));
    stall(&mut world, Duration::from_secs(15));
    assert_eq!(run_with_transport_word(&mut world, Duration::from_secs(17)), None);
    world.run_until_all_read(Duration::from_secs(10));
    assert_eq!(suspected(&world), []);
    assert_eq!(world.nodes[CLIENT].session().stats().lanes_lost, 0);
}

#[test]
fn a_channel_of_which_only_the_transport_works_is_found_nevertheless() {
    let mut world = connected(PATH, SessionConfig::default());
    upload(&mut world, 40_000_000);
    world.run_for(milliseconds(500));
    silence(&mut world);
    let time = run_with_transport_word(&mut world, Duration::from_secs(60)).expect("it is found");
    assert!(
        time >= limits::TRANSPORT_WORD_MAX && time < limits::TRANSPORT_WORD_MAX + Duration::from_secs(3),
        "{time:?}"
    );
    world.join(LaneKind::Tcp, PATH).expect("there is room");
    world.run_until_all_read(Duration::from_secs(30));
}

/// The lane waits for a repair, and the client's process is stopped meanwhile.
#[test]
fn a_lane_has_not_waited_alone_while_its_side_did_not_run() {
    let mut world = connected(PATH, SessionConfig::default());
    upload(&mut world, 20_000_000);
    world.run_for(milliseconds(500));
    let now = world.now;
    world.links[2].pipes[CLIENT].stall(now, Duration::from_secs(5));
    world.run_for(milliseconds(500));
    world.nodes[CLIENT].is_stopped = true;
    world.run_for(Duration::from_secs(4));
    world.nodes[CLIENT].is_stopped = false;
    world.expire();
    world.run_until_all_read(Duration::from_secs(20));
    assert_eq!(suspected(&world), []);
    assert_eq!(world.nodes[CLIENT].session().stats().lanes_lost, 0);
}

/// What is known of the channel's rate outlives the lane that it is kept with.
#[test]
fn the_rate_of_a_channel_is_known_without_its_first_lane() {
    let mut world = connected(PATH, SessionConfig::default());
    upload(&mut world, 20_000_000);
    world.run_for(milliseconds(500));
    let rate = |world: &mut World| world.nodes[CLIENT].session().stats().lanes[0].bytes_per_second;
    let before = rate(&mut world);
    assert!(before.is_some());
    world.kill(0, &[CLIENT, SERVER]);
    assert_eq!(world.nodes[CLIENT].session().stats().lanes.len(), 3);
    assert_eq!(rate(&mut world), before);
    world.run_until_all_read(Duration::from_secs(10));
}

/// Lanes that the client has trusted again.
fn recovered(world: &World) -> usize {
    world.nodes[CLIENT].events.iter().filter(|(_, event)| matches!(event, Event::LaneRecovered(_))).count()
}

/// Else each message would be sent on another lane of the same dead connection, and wait there again.
#[test]
fn one_message_finds_out_that_a_channel_is_silent() {
    let mut world = connected(PATH, SessionConfig::default());
    world.run_for(Duration::from_secs(1));
    let start = world.now;
    silence(&mut world);
    upload(&mut world, 100);
    assert!(world.run_until(Duration::from_secs(20), |world| suspected(world).len() == 4));
    let time = world.now - start;
    assert!(time < limits::QUIC_SUSPECT_TIMEOUT_MIN * 3 / 2, "{time:?}");
    world.join(LaneKind::Tcp, PATH).expect("there is room");
    upload(&mut world, 100);
    world.run_until_all_read(milliseconds(500));
}

#[test]
fn lanes_that_were_suspected_for_their_channel_recover_with_it() {
    let mut world = connected(PATH, SessionConfig::default());
    world.run_for(Duration::from_secs(1));
    let start = world.now;
    stall(&mut world, milliseconds(1200));
    upload(&mut world, 100);
    assert!(world.run_until(Duration::from_secs(20), |world| recovered(world) == 4));
    let time = world.now - start;
    assert!(time < milliseconds(1200) + PATH.delay * 4, "{time:?}");
    world.run_until_all_read(milliseconds(500));
    assert_eq!(world.nodes[CLIENT].session().stats().lanes_lost, 0);
}

/// What is on its way on a connection may all have to wait behind one lost datagram, at the receiver.
#[test]
fn a_connection_has_no_more_on_its_way_than_its_receiver_holds() {
    let path = Path { delay: milliseconds(500), bytes_per_second: 200_000_000, buffer_bytes: 64 << 20 };
    let streams = StreamsConfig { stream_window: 128 << 20, session_window: 192 << 20, ..StreamsConfig::default() };
    let mut world = connected(path, SessionConfig { streams, ..SessionConfig::default() });
    upload(&mut world, 100_000_000);
    let mut highest = 0;
    let all_read = world.run_until(Duration::from_secs(60), |world| {
        let lanes = world.nodes[CLIENT].session().stats().lanes;
        highest = highest.max(lanes.iter().map(|lane| lane.in_flight_bytes).sum::<u64>());
        world.is_all_read()
    });
    assert!(all_read, "{}", world.describe());
    let packets = 4 * limits::FRAME_MESSAGE_BYTES_MAX as u64;
    assert!(highest < limits::QUIC_IN_FLIGHT_BYTES_MAX + packets, "{highest}");
    assert!(highest > limits::QUIC_IN_FLIGHT_BYTES_MAX / 2, "the bound matters: {highest}");
    assert_eq!(world.nodes[SERVER].session().stats().lanes_lost, 0);
}
