//! Roles and priorities: which lanes carry data, what happens when they fail, and the way back.

use std::collections::BTreeSet;
use std::time::Duration;

use longhaul::base::{Direction, LaneId, StreamId};
use longhaul::session::{LaneKind, SessionConfig};
use longhaul::stream::Priority;
use longhaul::wire::{LaneRole, LaneUsage};

use crate::app::Answer;
use crate::link::Path;
use crate::random::Random;
use crate::seeds::{for_each_seed, milliseconds};
use crate::world::{CLIENT, SERVER, World};

const PATH: Path = Path { delay: milliseconds(10), bytes_per_second: 5_000_000, buffer_bytes: 64 * 1024 };

const STANDBY: LaneUsage = LaneUsage { role: LaneRole::Standby, ..LaneUsage::PLAIN };
const SECOND: LaneUsage = LaneUsage { priority: 1, ..LaneUsage::PLAIN };

/// Data in both directions, for as long as a test takes.
fn both_ways(world: &mut World) -> StreamId {
    world.nodes[SERVER].app.answer = Answer { bytes: 1_000_000_000, chunk_bytes: 64 * 1024 };
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    node.app.open(session, &mut world.oracle, Direction::Bi, Priority::Normal, 1_000_000_000).unwrap()
}

/// Bytes that a lane carries in each direction during `time`.
fn carried(world: &mut World, lane: LaneId, time: Duration) -> [u64; 2] {
    let sent = |world: &mut World| {
        [CLIENT, SERVER].map(|side| {
            let stats = world.nodes[side].session().stats();
            stats.lanes.iter().find(|stats| stats.id == lane).map_or(0, |stats| stats.bytes_sent)
        })
    };
    let before = sent(world);
    world.run_for(time);
    let after = sent(world);
    [after[0] - before[0], after[1] - before[1]]
}

fn is_quiet(bytes: [u64; 2]) -> bool {
    bytes.iter().all(|bytes| *bytes < 2_000)
}

fn is_busy(bytes: [u64; 2]) -> bool {
    bytes.iter().all(|bytes| *bytes > 500_000)
}

/// A session over a lane of one usage, and another one beside it: the world and the two links.
fn two(first: LaneUsage, second: LaneUsage) -> World {
    let config = SessionConfig { first_lane: first, ..SessionConfig::default() };
    let mut world = World::connected_with(1, 1, PATH, config);
    world.join_as(LaneKind::Tls, PATH, second).unwrap();
    world.run_for(Duration::from_secs(1));
    world
}

const SECOND_TIME: Duration = Duration::from_secs(1);

#[test]
fn a_standby_lane_carries_nothing_while_an_active_one_works() {
    for usage in [STANDBY, SECOND] {
        let mut world = two(LaneUsage::PLAIN, usage);
        both_ways(&mut world);
        world.run_for(SECOND_TIME);
        assert!(is_quiet(carried(&mut world, LaneId(1), Duration::from_secs(3))), "{usage:?}");
        assert!(is_busy(carried(&mut world, LaneId(0), SECOND_TIME)));
    }
}

#[test]
fn the_role_of_the_first_lane_counts_at_both_ends() {
    let mut world = two(STANDBY, LaneUsage::PLAIN);
    both_ways(&mut world);
    world.run_for(SECOND_TIME);
    assert!(is_quiet(carried(&mut world, LaneId(0), SECOND_TIME)));
    assert!(is_busy(carried(&mut world, LaneId(1), SECOND_TIME)));
}

#[test]
fn a_standby_lane_takes_over_with_what_was_on_its_way() {
    for told in [&[CLIENT, SERVER][..], &[CLIENT], &[]] {
        let mut world = two(LaneUsage::PLAIN, STANDBY);
        both_ways(&mut world);
        world.run_for(SECOND_TIME);
        world.kill(0, told);
        let (before, since) = (world.oracle.flows.values().map(|flow| flow.read).collect::<Vec<_>>(), world.now);
        let moves = |world: &mut World| {
            let now: Vec<_> = world.oracle.flows.values().map(|flow| flow.read).collect();
            now.iter().zip(&before).all(|(now, before)| now > before)
        };
        assert!(world.run_until(Duration::from_secs(5), moves), "{}", world.describe());
        let stall = world.now - since;
        assert!(stall < milliseconds(if told.len() == 2 { 100 } else { 800 }), "{told:?}: {stall:?}");
        assert!(is_busy(carried(&mut world, LaneId(1), SECOND_TIME)));
    }
}

#[test]
fn data_returns_to_a_lane_that_has_worked_for_a_while() {
    let mut world = two(LaneUsage::PLAIN, STANDBY);
    both_ways(&mut world);
    world.run_for(SECOND_TIME);
    world.kill(0, &[CLIENT, SERVER]);
    world.run_for(SECOND_TIME);
    world.join(LaneKind::Tcp, PATH).unwrap();
    // It has to show first that it lives.
    assert!(is_quiet(carried(&mut world, LaneId(2), milliseconds(900))));
    world.run_for(milliseconds(500));
    assert!(is_busy(carried(&mut world, LaneId(2), SECOND_TIME)), "{}", world.describe());
    assert!(is_quiet(carried(&mut world, LaneId(1), SECOND_TIME)));
}

#[test]
fn a_better_lane_that_comes_later_is_used_at_once() {
    let mut world = two(SECOND, SECOND);
    both_ways(&mut world);
    world.run_for(SECOND_TIME);
    world.join(LaneKind::Unix, PATH).unwrap();
    world.run_for(milliseconds(200));
    assert!(is_busy(carried(&mut world, LaneId(2), SECOND_TIME)));
    assert!([0, 1].iter().all(|lane| is_quiet(carried(&mut world, LaneId(*lane), milliseconds(300)))));
}

/// Joins that lead nowhere must not take the data of a lane that works.
#[test]
fn a_better_lane_that_is_not_answered_carries_nothing() {
    let mut world = two(SECOND, SECOND);
    both_ways(&mut world);
    world.run_for(SECOND_TIME);
    let link = world.join(LaneKind::Tcp, PATH).unwrap();
    world.links[link].pipes[SERVER].black_hole(world.now);
    let before = world.oracle.read_bytes();
    world.run_for(Duration::from_secs(2));
    assert!(world.oracle.read_bytes() - before > 15_000_000, "{}", world.describe());
}

#[test]
fn a_lane_that_comes_and_goes_does_not_move_the_data_each_time() {
    let mut world = two(LaneUsage::PLAIN, STANDBY);
    both_ways(&mut world);
    world.run_for(SECOND_TIME);
    let mut link = 0;
    let mut moves = 0;
    for _ in 0..30 {
        world.kill(link, &[CLIENT, SERVER]);
        world.run_for(milliseconds(500));
        link = world.join(LaneKind::Tcp, PATH).unwrap();
        world.run_for(milliseconds(1500));
        let lane = world.lane_of(link).unwrap();
        moves += u32::from(world.nodes[CLIENT].session().carries(lane));
    }
    assert!((1..=3).contains(&moves), "{moves} times in a minute");
    // In the end it is trusted again.
    world.run_for(Duration::from_secs(31));
    let lane = world.lane_of(link).unwrap();
    assert!(is_busy(carried(&mut world, lane, SECOND_TIME)));
}

#[test]
fn lower_numbers_come_first_and_standby_last() {
    let usage = |priority, role| LaneUsage { priority, role, ..LaneUsage::PLAIN };
    let (active, standby) = (LaneRole::Active, LaneRole::Standby);
    let order = [usage(0, active), usage(7, active), usage(255, active), usage(0, standby), usage(3, standby)];
    let config = SessionConfig { first_lane: order[0], ..SessionConfig::default() };
    let mut world = World::connected_with(1, 1, PATH, config);
    for usage in order.iter().skip(1).rev() {
        world.join_as(LaneKind::Tcp, PATH, *usage).unwrap();
    }
    world.run_for(SECOND_TIME);
    both_ways(&mut world);
    // Link 0 is the best one, then from the last to the second.
    for link in [0, 4, 3, 2, 1] {
        world.run_for(milliseconds(500));
        let lane = world.lane_of(link).unwrap();
        assert!(is_busy(carried(&mut world, lane, SECOND_TIME)), "link {link}");
        world.kill(link, &[CLIENT, SERVER]);
    }
    // After all of them were gone, whichever comes is used.
    world.join_as(LaneKind::Tcp, PATH, order[4]).unwrap();
    world.run_for(milliseconds(300));
    assert!(is_busy(carried(&mut world, LaneId(5), SECOND_TIME)));
}

/// Lanes of all usages that die, stall and return: both ends agree in the end, and nothing is lost meanwhile.
fn tiers_at_random(seed: u64) {
    let mut random = Random::new(seed);
    let draw = |random: &mut Random| LaneUsage {
        weight: 1,
        priority: random.below(3) as u32,
        role: random.pick(&[LaneRole::Active, LaneRole::Active, LaneRole::Standby]),
    };
    let path = |random: &mut Random| Path {
        delay: milliseconds(random.between(1, 60)),
        bytes_per_second: random.pick(&[500_000, 2_000_000]),
        buffer_bytes: 64_000,
    };
    let config = SessionConfig { first_lane: draw(&mut random), ..SessionConfig::default() };
    let first = path(&mut random);
    let mut world = World::connected_with(seed, 1, first, config);
    world.nodes[SERVER].app.answer = Answer { bytes: 3_000_000, chunk_bytes: 20_000 };
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    node.app.open(session, &mut world.oracle, Direction::Bi, Priority::Normal, 3_000_000).unwrap();
    for _ in 0..40 {
        let link = random.below(world.links.len() as u64) as usize;
        let (now, side) = (world.now, random.below(2) as usize);
        match random.below(4) {
            0 if world.links[link].is_open() => {
                let told: &[usize] = random.pick(&[&[CLIENT, SERVER], &[CLIENT], &[SERVER], &[]]);
                world.kill(link, told);
            }
            1 => world.links[link].pipes[side].stall(now, milliseconds(random.sized(11))),
            2 | 3 if world.nodes[CLIENT].session().healthy_lane_count() < 4 => {
                let (path, usage) = (path(&mut random), draw(&mut random));
                let kind = random.pick(&[LaneKind::Tcp, LaneKind::Unix, LaneKind::Tls, LaneKind::Quic]);
                world.join_as(kind, path, usage);
            }
            _ => {}
        }
        world.run_for(milliseconds(random.sized(9)));
        assert!(world.nodes.iter().all(|node| node.closed().is_none()), "{}", world.describe());
    }
    // Those that seem healthy may be dead without having told.
    let deadline = world.now + Duration::from_secs(90);
    while !world.is_all_read() {
        if world.nodes[CLIENT].session().healthy_lane_count() < 1 {
            let path = path(&mut random);
            world.join_as(LaneKind::Tcp, path, LaneUsage::PLAIN);
        }
        world.run_for(Duration::from_secs(1));
        assert!(world.now < deadline, "{}", world.describe());
    }
    // What was silent is found out, and every hold is over.
    world.run_for(Duration::from_secs(90));
    let lanes = |world: &mut World, side: usize| {
        let session = world.nodes[side].session();
        let ids: Vec<_> = session.stats().lanes.iter().map(|lane| lane.id).collect();
        ids.into_iter().filter(|id| session.carries(*id)).collect::<BTreeSet<_>>()
    };
    assert_eq!(lanes(&mut world, CLIENT), lanes(&mut world, SERVER), "{}", world.describe());
}

#[test]
fn both_ends_carry_on_the_same_lanes_whatever_happened() {
    for_each_seed("both_ends_carry_on_the_same_lanes_whatever_happened", tiers_at_random);
}
