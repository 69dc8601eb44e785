//! Paths of different delays and rates under one session: their sum, and what they must not do to one another.

use std::time::{Duration, Instant};

use longhaul::base::{Direction, Entropy, Side, StreamId};
use longhaul::session::scheduler::Policy;
use longhaul::session::{LaneKind, SessionConfig};
use longhaul::stream::Priority;

use crate::app::Answer;
use crate::link::Path;
use crate::random::Random;
use crate::seeds::{for_each_seed, milliseconds};
use crate::world::{CLIENT, SERVER, World};

/// Megabits a second, and milliseconds there and back. What waits is as much as sockets are told to take.
const fn path(megabits: u64, round_trip_ms: u64) -> Path {
    let bytes_per_second = megabits * 125_000;
    Path { delay: milliseconds(round_trip_ms / 2), bytes_per_second, buffer_bytes: 128 * 1024 }
}

const MEGABIT: f64 = 125_000.0;

fn open(world: &mut World, direction: Direction, priority: Priority, bytes: u64) -> StreamId {
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    let id = node.app.open(session, &mut world.oracle, direction, priority, bytes).unwrap();
    node.app.writers.get_mut(&id).unwrap().chunk_bytes = 128 * 1024;
    id
}

fn bulk(world: &mut World) -> StreamId {
    open(world, Direction::Uni, Priority::Normal, 4_000_000_000)
}

/// Bytes a second that arrive during `time`.
fn rate(world: &mut World, time: Duration) -> f64 {
    let before = world.oracle.read_bytes();
    world.run_for(time);
    (world.oracle.read_bytes() - before) as f64 / time.as_secs_f64()
}

/// A session over the first path, with the others beside it.
fn over(paths: &[Path]) -> World {
    let kinds = [LaneKind::Tcp, LaneKind::Quic, LaneKind::Tls, LaneKind::Unix];
    let mut world = World::connected(1, 1, paths[0]);
    for (path, kind) in paths.iter().zip(kinds).skip(1) {
        world.join(kind, *path).unwrap();
    }
    world
}

/// What a bulk transfer reaches in its first seconds, the start included, and after that.
fn reached(paths: &[Path], seconds: u64) -> (f64, f64) {
    let mut world = over(paths);
    bulk(&mut world);
    let start = rate(&mut world, Duration::from_secs(seconds));
    (start, rate(&mut world, Duration::from_secs(seconds)))
}

#[test]
fn two_unequal_paths_give_their_sum() {
    let paths = [path(200, 20), path(100, 60)];
    for paths in [paths, [paths[1], paths[0]]] {
        let (start, later) = reached(&paths, 3);
        assert!(start >= 0.9 * 300.0 * MEGABIT, "{:.1} Mbit/s at first", start / MEGABIT);
        assert!(later >= 0.95 * 300.0 * MEGABIT, "{:.1} Mbit/s later", later / MEGABIT);
    }
}

/// A transport that begins has shown little of its path when those of a shorter one have shown theirs.
#[test]
fn paths_whose_transports_begin_give_their_sum_soon() {
    for window in (10..=40).step_by(3) {
        let mut world = over(&[path(100, 20), path(50, 60), path(100, 20), path(50, 60)]);
        world.run_for(milliseconds(500));
        world.links.iter_mut().flat_map(|link| &mut link.pipes).for_each(|pipe| pipe.begin_slowly(window * 1448));
        bulk(&mut world);
        let start = rate(&mut world, Duration::from_secs(3));
        assert!(start >= 0.9 * 300.0 * MEGABIT, "{window} packets: {:.1} Mbit/s", start / MEGABIT);
    }
}

#[test]
fn a_path_that_would_only_delay_the_others_is_left_out() {
    let (good, bad) = (path(500, 10), path(5, 300));
    let (alone_start, alone_later) = reached(&[good], 2);
    for paths in [[good, bad], [bad, good]] {
        let (start, later) = reached(&paths, 2);
        let is_first = paths[0].delay == good.delay;
        // A session that begins on the bad path has to get off it first.
        let least = if is_first { 0.98 } else { 0.7 };
        assert!(start >= least * alone_start, "{:.1} of {:.1} Mbit/s", start / MEGABIT, alone_start / MEGABIT);
        assert!(later >= 0.98 * alone_later, "{:.1} of {:.1} Mbit/s", later / MEGABIT, alone_later / MEGABIT);
    }
}

/// Below the cut by the round trip, too, a slow lane must not cost more than it brings.
#[test]
fn the_sum_is_never_slower_than_the_best_path_alone() {
    let good = path(200, 20);
    let (alone_start, alone_later) = reached(&[good], 2);
    for other in [path(1, 20), path(3, 40), path(3, 90), path(20, 60), path(50, 90), path(200, 20), path(1, 400)] {
        let (start, later) = reached(&[good, other], 2);
        assert!(start >= 0.95 * alone_start, "{other:?}: {:.1} of {:.1}", start / MEGABIT, alone_start / MEGABIT);
        assert!(later >= 0.98 * alone_later, "{other:?}: {:.1} of {:.1}", later / MEGABIT, alone_later / MEGABIT);
    }
}

/// Several times the delay, and less than what is left out.
#[test]
fn a_long_path_that_brings_something_is_used() {
    for other in [path(50, 90), path(50, 40), path(200, 90)] {
        let (_, later) = reached(&[path(200, 20), other], 3);
        let sum = 25e6 + other.bytes_per_second as f64;
        assert!(later >= 0.9 * sum, "{other:?}: {:.1} Mbit/s", later / MEGABIT);
    }
}

/// The longest time without a byte for the reader.
fn longest_pause(world: &mut World, time: Duration) -> Duration {
    let (end, mut longest) = (world.now + time, Duration::ZERO);
    let (mut before, mut since) = (world.oracle.read_bytes(), world.now);
    while world.now < end {
        world.run_until(milliseconds(200), |world| world.oracle.read_bytes() > before);
        if world.oracle.read_bytes() > before {
            longest = longest.max(world.now - since);
            (before, since) = (world.oracle.read_bytes(), world.now);
        } else {
            assert!(world.now - since < Duration::from_secs(5), "stuck: {}", world.describe());
        }
        let step = milliseconds(1);
        world.run_for(step);
    }
    longest
}

#[test]
fn a_path_that_is_cut_stops_nothing_for_long() {
    for (victim, told) in [(0, true), (1, true), (0, false), (1, false)] {
        let mut world = over(&[path(200, 20), path(100, 60)]);
        bulk(&mut world);
        world.run_for(Duration::from_secs(2));
        let sides: &[usize] = if told { &[CLIENT, SERVER] } else { &[] };
        world.kill(victim, sides);
        let pause = longest_pause(&mut world, Duration::from_secs(3));
        assert!(pause < Duration::from_secs(1), "path {victim}, told {told}: {pause:?}");
        let left = [100.0, 200.0][victim];
        let rate = rate(&mut world, Duration::from_secs(1));
        assert!(rate >= 0.9 * left * MEGABIT, "{:.1} of {left} Mbit/s", rate / MEGABIT);
        assert!(world.nodes.iter().all(|node| node.closed().is_none()));
    }
}

#[test]
fn a_path_that_gets_better_is_used_again() {
    let mut world = over(&[path(100, 10), path(100, 200)]);
    bulk(&mut world);
    world.run_for(Duration::from_secs(2));
    let before = rate(&mut world, Duration::from_secs(2));
    assert!(before < 1.1 * 100.0 * MEGABIT, "the long path is left out");
    for pipe in &mut world.links[1].pipes {
        pipe.path.delay = milliseconds(6);
    }
    world.run_for(Duration::from_secs(2));
    let after = rate(&mut world, Duration::from_secs(2));
    assert!(after >= 0.9 * 200.0 * MEGABIT, "{:.1} Mbit/s", after / MEGABIT);
}

#[test]
fn a_path_that_gets_worse_is_left_out() {
    let mut world = over(&[path(300, 10), path(100, 10)]);
    bulk(&mut world);
    world.run_for(Duration::from_secs(2));
    for pipe in &mut world.links[1].pipes {
        pipe.path = path(2, 400);
    }
    for _ in 0..10 {
        world.run_for(milliseconds(2500));
    }
    let rate = rate(&mut world, Duration::from_secs(2));
    assert!(rate >= 0.98 * 300.0 * MEGABIT, "{:.1} Mbit/s", rate / MEGABIT);
}

/// Requests of 200 bytes, each answered by as many, one after the other: how long each took.
fn requests(world: &mut World, count: usize) -> Vec<Duration> {
    world.nodes[SERVER].app.answer = Answer { bytes: 200, chunk_bytes: 200 };
    (0..count)
        .map(|_| {
            let id = open(world, Direction::Bi, Priority::Interactive, 200);
            let since = world.now;
            let is_answered =
                world.run_until(Duration::from_secs(5), |world| world.oracle.flow(id, Side::Server).end_was_read);
            assert!(is_answered, "{}", world.describe());
            let taken = world.now - since;
            world.run_for(milliseconds(7));
            taken
        })
        .collect()
}

#[test]
fn small_requests_beside_a_bulk_transfer_take_two_round_trips() {
    for paths in [vec![path(200, 20), path(100, 60)], vec![path(200, 20)], vec![path(500, 20), path(5, 300)]] {
        let mut world = over(&paths);
        bulk(&mut world);
        world.run_for(Duration::from_secs(2));
        let mut taken = requests(&mut world, 51);
        taken.sort();
        assert!(taken[25] <= milliseconds(40), "{paths:?}: {:?}", taken[25]);
    }
}

#[test]
fn nothing_starves_beside_requests_on_unequal_paths() {
    let mut world = over(&[path(50, 20), path(20, 60)]);
    let ids = Priority::ALL.map(|priority| open(&mut world, Direction::Uni, priority, 400_000_000));
    world.run_for(Duration::from_secs(6));
    let read = ids.map(|id| world.oracle.flow(id, Side::Client).read);
    assert!(read.iter().all(|bytes| *bytes > 1_000_000), "{read:?}");
}

/// How long an urgent message takes when the lane that is the best stands still just then.
fn urgent_message(policy: Policy) -> Duration {
    let config = SessionConfig { scheduler: policy, ..SessionConfig::default() };
    let mut world = World::connected_with(1, 1, path(100, 20), config);
    world.join(LaneKind::Tcp, path(100, 60)).unwrap();
    world.run_for(Duration::from_secs(1));
    let now = world.now;
    world.links[0].pipes[CLIENT].stall(now, Duration::from_secs(2));
    let id = open(&mut world, Direction::Uni, Priority::Urgent, 100);
    world.run_until(Duration::from_secs(5), |world| world.oracle.flow(id, Side::Client).end_was_read);
    let taken = world.now - now;
    world.run_for(Duration::from_secs(5));
    assert!(world.nodes.iter().all(|node| node.closed().is_none()));
    assert_eq!(world.nodes[SERVER].session().held_bytes(), 0);
    taken
}

#[test]
fn an_urgent_message_does_not_wait_for_a_lane_that_stands_still() {
    assert!(urgent_message(Policy::LowestLatency) >= milliseconds(200), "it is found out first");
    let taken = urgent_message(Policy::Redundant);
    assert!(taken <= milliseconds(40), "{taken:?}");
}

/// Under `redundant`, too, what is not urgent goes out once.
#[test]
fn bulk_is_not_copied() {
    let config = SessionConfig { scheduler: Policy::Redundant, ..SessionConfig::default() };
    let mut world = World::connected_with(1, 2, path(100, 20), config);
    open(&mut world, Direction::Uni, Priority::Normal, 10_000_000);
    world.run_until_all_read(Duration::from_secs(10));
    let sent = world.nodes[CLIENT].session().stats().bytes_sent;
    assert!(sent < 10_300_000, "{sent}");
    open(&mut world, Direction::Uni, Priority::Urgent, 1_000_000);
    world.run_until_all_read(Duration::from_secs(10));
    let sent = world.nodes[CLIENT].session().stats().bytes_sent - sent;
    assert!(sent > 1_500_000, "{sent}");
}

/// Links of all kinds that die, told or not, and come back, until every combination of them was up.
fn every_combination(seed: u64) {
    const KINDS: [LaneKind; 4] = [LaneKind::Tcp, LaneKind::Unix, LaneKind::Tls, LaneKind::Quic];
    let mut random = Random::new(seed);
    let paths = KINDS.map(|_| Path {
        delay: milliseconds(random.between(1, 80)),
        bytes_per_second: random.pick(&[200_000, 500_000, 1_000_000]),
        buffer_bytes: random.pick(&[16_000, 64_000]),
    });
    let config = SessionConfig { scheduler: random.pick(&Policy::ALL), ..SessionConfig::default() };
    let mut world = World::new(random.next_u64(), config.clone(), config);
    let first = random.below(4) as usize;
    world.connect(KINDS[first], paths[first]);
    let mut links = [None; 4];
    links[first] = Some(0);
    let (bulk, urgent) = (Priority::Background, Priority::Urgent);
    let ids = [bulk, urgent].map(|priority| open(&mut world, Direction::Uni, priority, 200_000_000));
    let mut combinations: Vec<u32> = (1..16).collect();
    for index in (1..combinations.len()).rev() {
        combinations.swap(index, random.below(index as u64 + 1) as usize);
    }
    for up in combinations {
        let changed_at: Instant = world.now;
        let wanted = |kind: usize| up & 1 << kind != 0;
        for kind in (0..4).filter(|&kind| wanted(kind)) {
            let is_up = links[kind].is_some_and(|link: usize| world.links[link].is_open());
            if !is_up {
                links[kind] = world.join(KINDS[kind], paths[kind]);
                assert!(links[kind].is_some(), "{}", world.describe());
            }
        }
        for kind in (0..4).filter(|&kind| !wanted(kind)) {
            if let Some(link) = links[kind].take() {
                let told: &[usize] = random.pick(&[&[CLIENT, SERVER], &[CLIENT], &[SERVER], &[]]);
                world.kill(link, told);
            }
        }
        let before = ids.map(|id| world.oracle.flow(id, Side::Client).read);
        // A second for a lane that was never measured to be suspect, and what a slow one has in its buffers.
        let moves = |world: &mut World| world.oracle.flow(ids[1], Side::Client).read > before[1];
        assert!(world.run_until(Duration::from_secs(4), moves), "{up:04b} since {changed_at:?}: {}", world.describe());
        world.run_for(milliseconds(random.between(50, 1500)));
        assert!(world.nodes.iter().all(|node| node.closed().is_none()), "{}", world.describe());
    }
    world.run_for(Duration::from_secs(10));
    let read = ids.map(|id| world.oracle.flow(id, Side::Client).read);
    assert!(read.iter().all(|bytes| *bytes > 200_000), "{read:?} {}", world.describe());
}

#[test]
fn every_combination_of_kinds_that_die_and_return_carries_on() {
    for_each_seed("every_combination_of_kinds_that_die_and_return_carries_on", every_combination);
}

/// Copies of full size once kept a lane from confirming its join.
#[test]
fn a_lane_full_of_copies_confirms_its_join() {
    every_combination(1693);
}
