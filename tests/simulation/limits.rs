//! Bandwidth limits: the rate is held, urgent bytes and control pass, nothing gets stuck, and shares are even.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use longhaul::base::{Bandwidth, Direction, FairShare, LaneId, Member, Pacer, Side, StreamId};
use longhaul::session::{Event, Held, LaneKind, LimitedBy, SendLimit, SessionConfig};
use longhaul::stream::{DatagramDrop, Priority};
use longhaul::wire::PaddingPolicy;

use crate::link::Path;
use crate::seeds::milliseconds;
use crate::world::{CLIENT, SERVER, World};

/// A limit of one session.
#[derive(Debug)]
struct Own(Mutex<Pacer>);

impl SendLimit for Own {
    fn ask(&self, now: Instant) -> Result<usize, Held> {
        self.0.lock().unwrap().ask(now).map_err(|until| Held { until, by: LimitedBy::Link })
    }

    fn spend(&self, now: Instant, bytes: i64) {
        self.0.lock().unwrap().spend(now, bytes);
    }
}

/// A member's part of a limit that several sessions share.
#[derive(Debug)]
struct Part(Arc<Mutex<FairShare>>, Member);

impl SendLimit for Part {
    fn ask(&self, now: Instant) -> Result<usize, Held> {
        self.0.lock().unwrap().ask(now, self.1).map_err(|until| Held { until, by: LimitedBy::Node })
    }

    fn spend(&self, now: Instant, bytes: i64) {
        self.0.lock().unwrap().spend(now, self.1, bytes);
    }
}

/// A path that carries far more than the limits of these tests.
const WIDE: Path = Path { delay: milliseconds(10), bytes_per_second: 100_000_000, buffer_bytes: 256 * 1024 };

fn limit(world: &mut World, side: usize, bandwidth: &str) -> Arc<Own> {
    let limit = Arc::new(Own(Mutex::new(Pacer::new(bandwidth.parse().unwrap()))));
    world.nodes[side].session().set_send_limit(Arc::clone(&limit) as _);
    limit
}

fn open_at(world: &mut World, side: usize, priority: Priority, bytes: u64) -> StreamId {
    let node = &mut world.nodes[side];
    let session = node.session.as_mut().unwrap();
    let id = node.app.open(session, &mut world.oracle, Direction::Uni, priority, bytes).unwrap();
    node.app.writers.get_mut(&id).unwrap().chunk_bytes = 256 * 1024;
    id
}

fn open(world: &mut World, priority: Priority, bytes: u64) -> StreamId {
    open_at(world, CLIENT, priority, bytes)
}

const ENDLESS: u64 = 3_000_000_000;

/// Bytes of messages a second that a side sends during `time`.
fn sent_rate(world: &mut World, side: usize, time: Duration) -> f64 {
    let before = world.nodes[side].session().stats().bytes_sent;
    world.run_for(time);
    (world.nodes[side].session().stats().bytes_sent - before) as f64 / time.as_secs_f64()
}

#[test]
fn the_rate_is_held_over_any_number_of_lanes_and_with_any_padding() {
    let paddings = [PaddingPolicy::default(), "padme".parse().unwrap(), "constant:30000".parse().unwrap()];
    for (bandwidth, lanes) in [("1Mbit/s", 1), ("10Mbit/s", 3), ("200Mbit/s", 2)] {
        for padding in paddings {
            let config = SessionConfig { padding, ..SessionConfig::default() };
            let mut world = World::connected_with(1, lanes, WIDE, config);
            limit(&mut world, CLIENT, bandwidth);
            for _ in 0..3 {
                open(&mut world, Priority::Normal, ENDLESS);
            }
            world.run_for(Duration::from_secs(1));
            let wanted = bandwidth.parse::<Bandwidth>().unwrap().bytes_per_second() as f64;
            let share = sent_rate(&mut world, CLIENT, Duration::from_secs(4)) / wanted;
            assert!((0.98..1.02).contains(&share), "{bandwidth}, {lanes} lanes, {padding}: {share:.3} of it");
            assert_eq!(world.nodes[CLIENT].session().lane_count(), lanes);
            let suspected = |(_, event): &(_, Event)| matches!(event, Event::LaneSuspect(_));
            assert!(!world.nodes[CLIENT].events.iter().any(suspected), "{bandwidth}: {}", world.describe());
        }
    }
}

#[test]
fn nothing_is_held_beyond_what_writers_may_leave_unsent() {
    let mut world = World::connected(1, 2, WIDE);
    limit(&mut world, CLIENT, "1Mbit/s");
    for _ in 0..4 {
        open(&mut world, Priority::Normal, ENDLESS);
    }
    world.run_for(Duration::from_secs(5));
    // Half a megabyte of each stream and a chunk, as without a limit.
    assert!(world.nodes[CLIENT].session().held_bytes() <= 4 * (512 + 256) * 1024);
    assert!(world.nodes[SERVER].session().held_bytes() < 64 * 1024);
}

#[test]
fn urgent_bytes_wait_for_one_packet_at_most() {
    for (bandwidth, most) in [("1Mbit/s", 60), ("10Mbit/s", 35), ("100Mbit/s", 35)] {
        let mut world = World::connected(1, 1, WIDE);
        limit(&mut world, CLIENT, bandwidth);
        open(&mut world, Priority::Background, ENDLESS);
        open(&mut world, Priority::Normal, ENDLESS);
        world.run_for(Duration::from_secs(1));
        for _ in 0..20 {
            let (id, begin) = (open(&mut world, Priority::Urgent, 100), world.now);
            world.run_until(Duration::from_secs(1), |world| world.oracle.flow(id, Side::Client).read == 100);
            assert!(world.now - begin < milliseconds(most), "{bandwidth}: {:?}", world.now - begin);
            world.run_for(milliseconds(37));
        }
    }
}

#[test]
fn the_other_direction_is_not_held_up_by_acknowledgements_that_wait() {
    let mut world = World::connected(1, 1, WIDE);
    limit(&mut world, SERVER, "64kbit/s");
    open_at(&mut world, SERVER, Priority::Normal, ENDLESS);
    open(&mut world, Priority::Normal, ENDLESS);
    world.run_for(Duration::from_secs(3));
    let rate = sent_rate(&mut world, CLIENT, Duration::from_secs(2));
    assert!(rate >= 0.95 * 1e8, "{:.1} MB/s", rate / 1e6);
}

#[test]
fn keys_step_and_pings_pass_while_data_waits() {
    let mut world = World::connected(1, 1, WIDE);
    limit(&mut world, CLIENT, "64kbit/s");
    open(&mut world, Priority::Normal, ENDLESS);
    world.run_for(Duration::from_secs(2));
    let (before, now) = (world.nodes[CLIENT].session().stats().epoch, world.now);
    world.nodes[CLIENT].session().update_keys(now);
    world.run_for(Duration::from_secs(2));
    assert!(world.nodes.iter_mut().all(|node| node.session().stats().epoch > before));
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.nodes[CLIENT].session().lane_count(), 1, "no lane is given up for silence");
}

#[test]
fn what_dead_lanes_lost_is_sent_again_below_the_limit() {
    let mut world = World::connected(1, 3, WIDE);
    limit(&mut world, CLIENT, "20Mbit/s");
    for _ in 0..3 {
        open(&mut world, Priority::Normal, 2_500_000);
    }
    world.run_for(Duration::from_secs(1));
    world.kill(0, &[CLIENT, SERVER]);
    world.run_for(milliseconds(300));
    world.kill(1, &[CLIENT, SERVER]);
    let begin = world.start;
    world.run_until_all_read(Duration::from_secs(5));
    let least = Duration::from_secs_f64(7_500_000.0 / 2_500_000.0 - 0.1);
    assert!(world.now - begin >= least, "{:?}", world.now - begin);
}

#[test]
fn another_limit_holds_for_streams_that_are_open() {
    let mut world = World::connected(1, 1, WIDE);
    let own = limit(&mut world, CLIENT, "1Mbit/s");
    let id = open(&mut world, Priority::Normal, ENDLESS);
    world.run_for(Duration::from_secs(1));
    own.0.lock().unwrap().set_bandwidth(world.now, "80Mbit/s".parse().unwrap());
    world.run_for(milliseconds(100));
    let share = sent_rate(&mut world, CLIENT, Duration::from_secs(2)) / 1e7;
    assert!((0.98..1.02).contains(&share), "{share:.3}");
    own.0.lock().unwrap().set_bandwidth(world.now, "1Mbit/s".parse().unwrap());
    world.run_for(milliseconds(100));
    let share = sent_rate(&mut world, CLIENT, Duration::from_secs(4)) / 125_000.0;
    assert!((0.98..1.02).contains(&share), "{share:.3}");
    assert!(world.oracle.flow(id, Side::Client).read > 20_000_000);
    let throttled = world.nodes[CLIENT].session().stats().throttled;
    assert!(throttled[LimitedBy::Link as usize] > Duration::from_secs(4), "{throttled:?}");
    assert_eq!(throttled[LimitedBy::Node as usize], Duration::ZERO);
}

#[test]
fn time_without_data_does_not_count_as_throttled() {
    let mut world = World::connected(1, 1, WIDE);
    limit(&mut world, CLIENT, "10Mbit/s");
    open(&mut world, Priority::Normal, 10_000);
    world.run_until_all_read(Duration::from_secs(1));
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.nodes[CLIENT].session().stats().throttled, [Duration::ZERO; 3]);
}

#[test]
fn two_sessions_share_evenly_whatever_they_have() {
    // One lane and one stream on one side; four lanes and thirty streams on the other.
    let mut worlds = [World::connected(1, 1, WIDE), World::connected(2, 4, WIDE)];
    let newest = worlds.iter().map(|world| world.now).max().unwrap();
    for world in &mut worlds {
        world.run_for(newest - world.now);
    }
    let share = Arc::new(Mutex::new(FairShare::new("40Mbit/s".parse().unwrap())));
    for world in &mut worlds {
        let member = share.lock().unwrap().add();
        world.nodes[CLIENT].session().set_send_limit(Arc::new(Part(Arc::clone(&share), member)));
    }
    open(&mut worlds[0], Priority::Normal, ENDLESS);
    for _ in 0..30 {
        open(&mut worlds[1], Priority::Normal, ENDLESS);
    }
    let run = |worlds: &mut [World; 2], time: Duration| {
        let sent =
            |worlds: &mut [World; 2]| worlds.each_mut().map(|world| world.nodes[CLIENT].session().stats().bytes_sent);
        let before = sent(worlds);
        for _ in 0..time.as_millis() {
            worlds.iter_mut().for_each(|world| world.run_for(milliseconds(1)));
        }
        let after = sent(worlds);
        [0, 1].map(|at| (after[at] - before[at]) as f64 / time.as_secs_f64())
    };
    run(&mut worlds, Duration::from_secs(1));
    let [one, many] = run(&mut worlds, Duration::from_secs(3));
    assert!((0.9..1.1).contains(&(one / many)), "{one} and {many} bytes a second");
    assert!((0.98..1.02).contains(&((one + many) / 5e6)), "{one} and {many} bytes a second");
    // What one leaves is the other's.
    let ids: Vec<_> = worlds[1].nodes[CLIENT].app.writers.keys().copied().collect();
    for id in ids {
        let World { nodes, oracle, .. } = &mut worlds[1];
        let node = &mut nodes[CLIENT];
        node.app.reset(node.session.as_mut().unwrap(), oracle, id, longhaul::base::StreamCode::CANCELLED);
    }
    run(&mut worlds, Duration::from_secs(1));
    let [alone, gone] = run(&mut worlds, Duration::from_secs(3));
    assert!((0.97..1.02).contains(&(alone / 5e6)) && gone < 5000.0, "{alone} and {gone} bytes a second");
}

/// Datagrams every millisecond, 1 MB a second; more than the limit, and bulk data beside it.
#[test]
fn datagrams_are_limited_and_those_that_wait_too_long_dropped() {
    for with_streams in [false, true] {
        let mut world = World::connected(1, 1, WIDE);
        world.nodes.iter_mut().for_each(|node| node.app.takes_datagrams = true);
        let id = world.nodes[CLIENT].session().open(Direction::Bi, Priority::Normal).unwrap();
        world.run_for(milliseconds(100));
        limit(&mut world, CLIENT, "4Mbit/s");
        let bulk = with_streams.then(|| open(&mut world, Priority::Normal, ENDLESS));
        let before = world.nodes[CLIENT].session().stats().bytes_sent;
        for _ in 0..3000 {
            let now = world.now;
            let data = Bytes::from_static(&[7; 1000]);
            world.nodes[CLIENT].session().send_datagram(id, data, milliseconds(500), now).unwrap();
            world.run_for(milliseconds(1));
        }
        let stats = world.nodes[CLIENT].session().stats();
        let share = (stats.bytes_sent - before) as f64 / 1_500_000.0;
        assert!((0.97..1.05).contains(&share), "{share:.3}");
        assert!(stats.datagrams.dropped(DatagramDrop::Expired) > 500, "{:?}", stats.datagrams);
        assert!(world.nodes[CLIENT].session().held_bytes() < 2_000_000);
        let arrived = world.nodes[SERVER].app.datagrams.len();
        match bulk {
            None => assert!(arrived > 1250, "{arrived}"),
            Some(bulk) => {
                let read = world.oracle.flow(bulk, Side::Client).read;
                assert!(arrived > 400 && read > 400_000, "{arrived} datagrams, {read} bytes of the stream");
            }
        }
    }
}

/// Beside the lanes of a QUIC connection, datagrams have a carrier of their own.
#[test]
fn carriers_and_lanes_share_a_limit() {
    let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
    world.connect(LaneKind::Quic, WIDE);
    world.nodes[SERVER].app.takes_datagrams = true;
    let id = world.nodes[CLIENT].session().open(Direction::Bi, Priority::Normal).unwrap();
    world.run_for(milliseconds(100));
    limit(&mut world, CLIENT, "4Mbit/s");
    let bulk = open(&mut world, Priority::Normal, ENDLESS);
    let (mut by_carrier, before) = (0, world.nodes[CLIENT].session().stats().bytes_sent);
    for _ in 0..3000 {
        let now = world.now;
        let session = world.nodes[CLIENT].session();
        session.send_datagram(id, Bytes::from_static(&[7; 1000]), milliseconds(500), now).unwrap();
        while let Some(packet) = session.poll_datagram_transmit(now, LaneId::FIRST, 1200) {
            let mut out = bytes::BytesMut::new();
            packet.encode(&mut out);
            by_carrier += out.len() as u64;
        }
        world.run_for(milliseconds(1));
    }
    let by_lanes = world.nodes[CLIENT].session().stats().bytes_sent - before;
    let share = (by_carrier + by_lanes) as f64 / 1_500_000.0;
    assert!((0.95..1.06).contains(&share), "{share:.3}");
    let read = world.oracle.flow(bulk, Side::Client).read;
    assert!(by_carrier > 400_000 && read > 400_000, "{by_carrier} of datagrams, {read} of the stream");
}
