//! A node that does not run for a while, as a stopped process or a paused machine: its lanes are not to blame, and those
//! that died meanwhile are found all the same.

use std::time::Duration;

use longhaul::base::{CloseCode, Direction};
use longhaul::session::{CloseReason, Event, LaneEnd, LaneKind, SessionConfig};
use longhaul::stream::Priority;

use crate::link::Path;
use crate::seeds::milliseconds;
use crate::world::{CLIENT, SERVER, World};

const SLOW: Path = Path { delay: milliseconds(20), bytes_per_second: 2_000_000, buffer_bytes: 128 * 1024 };

/// Fewer bytes than a window update is sent for: the server waits for no acknowledgement.
const BYTES: u64 = 200_000;

/// What a node does first when it runs again.
#[derive(Clone, Copy, Debug)]
enum First {
    Timers,
    Writers,
    OneReader,
}

/// The client does not run for `time`; the server and the links go on.
fn stop(world: &mut World, time: Duration, first: First) {
    world.nodes[CLIENT].is_stopped = true;
    world.run_for(time);
    world.nodes[CLIENT].is_stopped = false;
    match first {
        First::Timers => world.expire(),
        First::Writers => world.settle(),
        First::OneReader => {
            world.deliver_to(0, CLIENT);
            world.expire();
        }
    }
}

fn send(world: &mut World, bytes: u64) {
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    node.app.open(session, &mut world.oracle, Direction::Uni, Priority::Normal, bytes).unwrap();
}

fn suspected(world: &World) -> usize {
    world.nodes[CLIENT].events.iter().filter(|(_, event)| matches!(event, Event::LaneSuspect(_))).count()
}

#[test]
fn side_that_stood_still_keeps_its_lanes() {
    for first in [First::Timers, First::Writers, First::OneReader] {
        for stall in [100, 280, 1000, 10_000, 60_000] {
            for running in [0, 15, 45, 70] {
                let mut world = World::connected(1, 3, SLOW);
                send(&mut world, BYTES);
                world.run_for(milliseconds(running));
                // The server would rightly give up a client that answers nothing for so long.
                world.nodes[SERVER].is_stopped = stall > 10_000;
                stop(&mut world, milliseconds(stall), first);
                world.nodes[SERVER].is_stopped = false;
                world.run_until_all_read(Duration::from_secs(2));
                world.run_for(Duration::from_secs(10));
                let case = format!("{first:?} {stall} {running}: {}", world.describe());
                assert_eq!(suspected(&world), 0, "{case}");
                for node in &mut world.nodes {
                    assert_eq!(node.session().stats().lanes_lost, 0, "{case}");
                    assert_eq!(node.session().healthy_lane_count(), 3, "{case}");
                }
                assert_eq!(world.nodes[CLIENT].session().stats().reinjected_bytes, 0, "{case}");
            }
        }
    }
}

#[test]
fn lane_that_waits_for_its_confirmation_outlives_a_stall_of_the_server() {
    let mut world = World::connected(1, 1, SLOW);
    let link = world.join(LaneKind::Tcp, SLOW).unwrap();
    world.run_for(milliseconds(30));
    let lane = world.lane_of(link).unwrap();
    assert_eq!(world.nodes[SERVER].session().lane_count(), 2, "the server has taken the join");
    world.nodes[SERVER].is_stopped = true;
    world.run_for(Duration::from_secs(5));
    world.nodes[SERVER].is_stopped = false;
    world.expire();
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.nodes[SERVER].lane_end(lane), None);
}

#[test]
fn lane_that_died_while_its_side_stood_still_is_found() {
    for first in [First::Timers, First::Writers, First::OneReader] {
        let mut world = World::connected(1, 3, SLOW);
        send(&mut world, 20 * BYTES);
        world.run_for(milliseconds(50));
        let lane = world.lane_of(1).unwrap();
        world.kill(1, &[]);
        stop(&mut world, Duration::from_secs(5), first);
        let resumed_at = world.now;
        world.run_for(Duration::from_secs(10));
        let client = &world.nodes[CLIENT];
        let suspected = client.time_of(|event| *event == Event::LaneSuspect(lane)).unwrap() - resumed_at;
        assert!(suspected < milliseconds(500), "{first:?} {suspected:?}");
        let dead = client.time_of(|event| matches!(event, Event::LaneDown(id, _) if *id == lane)).unwrap() - resumed_at;
        assert!(dead < milliseconds(6500), "{first:?} {dead:?}");
        // The server, which waits for the acknowledgement of a credit, may be the first to say so.
        let ends = [LaneEnd::Unacknowledged, LaneEnd::ClosedByPeer(CloseCode::ACK_TIMEOUT)];
        assert!(client.lane_end(lane).is_some_and(|end| ends.contains(end)), "{:?}", client.lane_end(lane));
        assert!(world.is_all_read(), "{}", world.describe());
    }
}

/// The acknowledgements that waited tell nothing about the path: a lane that dies later is suspect as soon as before.
#[test]
fn stall_does_not_lengthen_the_patience_with_lanes() {
    let mut world = World::connected(1, 2, SLOW);
    send(&mut world, BYTES);
    world.run_for(milliseconds(15));
    stop(&mut world, Duration::from_secs(8), First::Timers);
    world.run_until_all_read(Duration::from_secs(2));
    send(&mut world, 10 * BYTES);
    world.run_for(milliseconds(100));
    let (lane, harmed_at) = (world.lane_of(1).unwrap(), world.now);
    world.kill(1, &[]);
    world.run_until_all_read(Duration::from_secs(4));
    let client = &world.nodes[CLIENT];
    let suspected = client.time_of(|event| *event == Event::LaneSuspect(lane)).unwrap() - harmed_at;
    assert!(suspected < milliseconds(800), "{suspected:?}");
}

/// A side that runs for moments only has to come to an end with a dead lane, too: what it runs adds up.
#[test]
fn dead_lane_is_found_by_a_side_that_often_stands_still() {
    for (stall, running) in [(1000, 100), (60, 60), (300, 40)] {
        let mut world = World::connected(1, 3, SLOW);
        send(&mut world, 10 * BYTES);
        world.run_for(milliseconds(50));
        let lane = world.lane_of(1).unwrap();
        world.kill(1, &[]);
        let mut ran = Duration::ZERO;
        while world.nodes[CLIENT].lane_end(lane).is_none() {
            stop(&mut world, milliseconds(stall), First::Timers);
            world.run_for(milliseconds(running));
            ran += milliseconds(running);
            assert!(ran < Duration::from_secs(8), "{stall} {running}: {}", world.describe());
        }
    }
}

#[test]
fn time_without_any_lane_counts_whether_the_side_runs_or_not() {
    let config = SessionConfig { survive: Duration::from_secs(30), ..SessionConfig::default() };
    let mut world = World::connected_with(1, 2, SLOW, config);
    send(&mut world, BYTES);
    for link in 0..2 {
        world.kill(link, &[CLIENT, SERVER]);
    }
    stop(&mut world, Duration::from_secs(31), First::Timers);
    world.settle();
    assert_eq!(world.nodes[CLIENT].closed(), Some(&CloseReason::ChannelsLost { after: Duration::from_secs(30) }));
}
