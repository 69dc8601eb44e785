//! Streams that fill their path, and share it.

use std::time::Duration;

use longhaul::base::{Direction, Side, limits};
use longhaul::session::scheduler::Policy;
use longhaul::session::{Event, LaneKind, SessionConfig};
use longhaul::stream::Priority;

use crate::app::Reading;
use crate::link::Path;
use crate::seeds::milliseconds;
use crate::world::{CLIENT, SERVER, World};

fn open(world: &mut World, priority: Priority, bytes: u64) -> longhaul::base::StreamId {
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    let id = node.app.open(session, &mut world.oracle, Direction::Uni, priority, bytes).unwrap();
    node.app.writers.get_mut(&id).unwrap().chunk_bytes = 256 * 1024;
    id
}

/// Bytes a second that arrive during `time`.
fn rate(world: &mut World, time: Duration) -> f64 {
    let before = world.oracle.read_bytes();
    world.run_for(time);
    (world.oracle.read_bytes() - before) as f64 / time.as_secs_f64()
}

/// 150 ms round trip × 1 Gbit/s: 18.75 MB have to be on their way.
#[test]
fn window_grows_until_one_stream_fills_a_long_fat_path() {
    let path = Path { delay: milliseconds(75), bytes_per_second: 125_000_000, buffer_bytes: 512 * 1024 };
    let mut world = World::connected(1, 1, path);
    open(&mut world, Priority::Normal, 3_000_000_000);
    world.run_for(Duration::from_secs(3));
    let rate = rate(&mut world, Duration::from_secs(3));
    assert!(rate >= 0.95 * 125e6, "{:.1} MB/s", rate / 1e6);
}

#[test]
fn four_lanes_together_fill_a_path() {
    for policy in [Policy::LowestLatency, Policy::RoundRobin, Policy::Weighted, Policy::LeastLoaded] {
        let path = Path { delay: milliseconds(20), bytes_per_second: 10_000_000, buffer_bytes: 256 * 1024 };
        let config = SessionConfig { scheduler: policy, ..SessionConfig::default() };
        let mut world = World::connected_with(1, 4, path, config);
        open(&mut world, Priority::Normal, 1_000_000_000);
        world.run_for(Duration::from_secs(2));
        let rate = rate(&mut world, Duration::from_secs(2));
        assert!(rate >= 0.95 * 40e6, "{policy}: {:.1} MB/s", rate / 1e6);
    }
}

/// A slow lane beside a fast one must not make things slower than the fast one alone.
#[test]
fn slow_lane_does_not_hold_up_a_fast_one() {
    let fast = Path { delay: milliseconds(10), bytes_per_second: 20_000_000, buffer_bytes: 256 * 1024 };
    let slow = Path { delay: milliseconds(150), bytes_per_second: 300_000, buffer_bytes: 256 * 1024 };
    let mut world = World::connected(1, 1, fast);
    world.join(LaneKind::Tcp, slow).unwrap();
    world.run_for(Duration::from_secs(1));
    open(&mut world, Priority::Normal, 1_000_000_000);
    world.run_for(Duration::from_secs(2));
    let rate = rate(&mut world, Duration::from_secs(3));
    assert!(rate >= 0.95 * 20e6, "{:.1} MB/s", rate / 1e6);
}

#[test]
fn no_priority_starves() {
    let path = Path { delay: milliseconds(10), bytes_per_second: 10_000_000, buffer_bytes: 128 * 1024 };
    let mut world = World::connected(1, 1, path);
    let ids = Priority::ALL.map(|priority| open(&mut world, priority, 100_000_000));
    world.run_for(Duration::from_secs(5));
    let read = ids.map(|id| world.oracle.flow(id, Side::Client).read);
    assert!(read[0] > read[3], "{read:?}");
    assert!(read.iter().all(|bytes| *bytes > 1_000_000), "{read:?}");
}

#[test]
fn streams_of_a_class_share_evenly() {
    let path = Path { delay: milliseconds(10), bytes_per_second: 10_000_000, buffer_bytes: 128 * 1024 };
    let mut world = World::connected(1, 2, path);
    let ids = [(); 4].map(|()| open(&mut world, Priority::Normal, 100_000_000));
    world.run_for(Duration::from_secs(4));
    let read = ids.map(|id| world.oracle.flow(id, Side::Client).read);
    let (least, most) = (read.iter().min().unwrap(), read.iter().max().unwrap());
    assert!(*least as f64 > *most as f64 * 0.8, "{read:?}");
}

/// An urgent message does not wait behind what the windows hold.
#[test]
fn urgent_message_overtakes_a_bulk_transfer() {
    let path = Path { delay: milliseconds(10), bytes_per_second: 10_000_000, buffer_bytes: 64 * 1024 };
    let mut world = World::connected(1, 1, path);
    open(&mut world, Priority::Background, 100_000_000);
    world.run_for(Duration::from_secs(1));
    let id = open(&mut world, Priority::Urgent, 100);
    let begin = world.now;
    world.run_until(Duration::from_secs(1), |world| world.oracle.flow(id, Side::Client).read == 100);
    assert!(world.now - begin < milliseconds(50), "{:?}", world.now - begin);
    assert!(world.nodes[SERVER].closed().is_none());
}

/// What nobody reads waits at the writer, and costs a window for each stream, and the session's at most.
fn reader_that_never_reads(streams: u64, held_bytes: u64) {
    let path = Path { delay: milliseconds(10), bytes_per_second: 100_000_000, buffer_bytes: 128 * 1024 };
    let mut world = World::connected(1, 2, path);
    world.nodes[SERVER].app.reading = Reading::Never;
    for _ in 0..streams {
        open(&mut world, Priority::Normal, 2_000_000);
    }
    world.run_for(Duration::from_secs(20));
    let held = world.nodes[SERVER].session().held_bytes();
    assert_eq!(held, held_bytes, "the whole window and no more");
    // Nothing is left to be said: an idle link with a stopped reader is quiet.
    let before = world.nodes[CLIENT].session().stats().packets_sent;
    world.run_for(Duration::from_secs(60));
    assert!(world.nodes[CLIENT].session().stats().packets_sent - before < 20);
    world.nodes[SERVER].app.reading = Reading::AtOnce;
    world.run_until_all_read(Duration::from_secs(10));
}

#[test]
fn reader_that_never_reads_stops_its_writer() {
    // More than the session's window at first: streams that nobody reads do not hold up the others.
    reader_that_never_reads(30, 30 * limits::STREAM_WINDOW_BYTES);
}

#[test]
fn readers_that_never_read_hold_the_sessions_window_and_no_more() {
    reader_that_never_reads(250, limits::SESSION_WINDOW_BYTES_MAX);
}

/// 300 kbit/s: a packet of full size alone would take longer than a lane may be silent.
#[test]
fn a_slow_path_is_filled_and_not_suspected() {
    for kind in [LaneKind::Tcp, LaneKind::Quic] {
        let path = Path { delay: milliseconds(25), bytes_per_second: 37_500, buffer_bytes: 128 * 1024 };
        let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
        world.connect(kind, path);
        open(&mut world, Priority::Normal, 1_000_000);
        world.run_for(Duration::from_secs(10));
        // What is short and urgent does not wait behind all that a socket would take.
        let (begin, id) = (world.now, open(&mut world, Priority::Urgent, 100));
        world.run_until(Duration::from_secs(10), |world| world.oracle.flow(id, Side::Client).read == 100);
        assert!(world.now - begin < Duration::from_secs(1), "{kind:?}: {:?}", world.now - begin);
        // 26.7 s at the least.
        world.run_until_all_read(Duration::from_secs(28) - (world.now - begin) - Duration::from_secs(10));
        let suspected = |(_, event): &(_, Event)| matches!(event, Event::LaneSuspect(_));
        assert!(!world.nodes[CLIENT].events.iter().any(suspected), "{kind:?}: {}", world.describe());
    }
}
