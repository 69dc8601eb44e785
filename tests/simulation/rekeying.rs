//! Keys that change while data flows.

use std::time::Duration;

use longhaul::base::{CloseCode, Direction, Epoch};
use longhaul::session::scheduler::Policy;
use longhaul::session::{LaneEnd, LaneKind, SessionConfig};
use longhaul::stream::Priority;

use crate::link::Path;
use crate::seeds::milliseconds;
use crate::world::{CLIENT, SERVER, World};

fn transfer(world: &mut World, bytes: u64) {
    for side in [CLIENT, SERVER] {
        let node = &mut world.nodes[side];
        let session = node.session.as_mut().unwrap();
        node.app.open(session, &mut world.oracle, Direction::Uni, Priority::Normal, bytes).unwrap();
    }
    world.run_until_all_read(Duration::from_secs(60));
}

fn epochs(world: &mut World) -> [u32; 2] {
    [CLIENT, SERVER].map(|side| world.nodes[side].session().stats().epoch.0)
}

fn no_lane_was_lost(world: &mut World) {
    for node in &mut world.nodes {
        assert_eq!(node.session().stats().lanes_lost, 0, "{:?}", node.events);
        assert_eq!(node.closed(), None);
    }
}

#[test]
fn keys_change_after_so_many_packets() {
    let config = SessionConfig { key_packets_max: 50, ..SessionConfig::default() };
    let mut world = World::connected_with(1, 3, Path::default(), config);
    transfer(&mut world, 20_000_000);
    let [client, server] = epochs(&mut world);
    assert!(client >= 3 && client.abs_diff(server) <= 1, "{client} {server}");
    no_lane_was_lost(&mut world);
}

#[test]
fn keys_change_after_so_many_bytes() {
    let config = SessionConfig { key_bytes_max: 1_000_000, ..SessionConfig::default() };
    let mut world = World::connected_with(1, 3, Path::default(), config);
    transfer(&mut world, 20_000_000);
    assert!(epochs(&mut world)[0] >= 3);
    no_lane_was_lost(&mut world);
}

#[test]
fn keys_change_after_some_time() {
    let config = SessionConfig { key_age_max: Duration::from_secs(60), ..SessionConfig::default() };
    let mut world = World::connected_with(1, 2, Path::default(), config);
    for _ in 0..5 {
        world.run_for(Duration::from_secs(61));
        transfer(&mut world, 1000);
    }
    assert!(epochs(&mut world)[0] >= 5, "{:?}", epochs(&mut world));
    no_lane_was_lost(&mut world);
}

#[test]
fn both_sides_may_change_keys_at_once() {
    let mut world = World::connected(1, 3, Path::default());
    let now = world.now;
    for side in [CLIENT, SERVER] {
        world.nodes[side].session().update_keys(now);
    }
    transfer(&mut world, 1_000_000);
    assert_eq!(epochs(&mut world), [1, 1]);
    no_lane_was_lost(&mut world);
}

#[test]
fn lane_that_lags_an_epoch_keeps_its_packets() {
    let config = SessionConfig { key_packets_max: 30, ..SessionConfig::default() };
    let mut world = World::connected_with(1, 2, Path::default(), config);
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    node.app.open(session, &mut world.oracle, Direction::Uni, Priority::Normal, 2_000_000).unwrap();
    // Packets of the first epoch wait in the link while the other lane goes on.
    world.settle();
    let now = world.now;
    assert!(world.links[1].pipes[CLIENT].next_arrival(now).is_some());
    world.links[1].pipes[CLIENT].stall(now, Duration::from_secs(5));
    transfer(&mut world, 20_000_000);
    let [client, server] = epochs(&mut world);
    assert!(client <= 1 && server <= 1, "no second step while a lane has packets under the first keys");
    world.run_for(Duration::from_secs(6));
    no_lane_was_lost(&mut world);
    transfer(&mut world, 20_000_000);
    assert!(epochs(&mut world)[0] >= 2);
    no_lane_was_lost(&mut world);
}

#[test]
fn packet_of_an_old_epoch_is_refused() {
    let mut world = World::connected(1, 2, Path { delay: milliseconds(1), ..Path::default() });
    let lane = world.lane_of(1).unwrap();
    // A packet of epoch 0 that arrives twenty seconds later than everything else.
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    node.app.open(session, &mut world.oracle, Direction::Uni, Priority::Normal, 500_000).unwrap();
    world.settle();
    assert!(!world.links[1].pipes[CLIENT].writes.is_empty());
    let now = world.now;
    world.links[1].pipes[CLIENT].stall(now, Duration::from_secs(5));
    world.run_for(milliseconds(100));
    let now = world.now;
    world.nodes[SERVER].session().update_keys(now);
    world.run_for(Duration::from_secs(1));
    assert_eq!(epochs(&mut world), [1, 1]);
    // The keys are gone after ten seconds, whoever lags.
    world.links[1].pipes[CLIENT].stall(now, Duration::from_secs(20));
    world.nodes[CLIENT].config.dead_timeout = Duration::from_secs(60);
    world.run_for(Duration::from_secs(12));
    let keys = world.nodes[SERVER].session().opening_keys();
    assert!(keys.key(Epoch(0)).is_none() && keys.key(Epoch(1)).is_some() && keys.key(Epoch(2)).is_some());
    assert!(world.nodes[SERVER].lane_end(lane).is_some() || world.nodes[SERVER].session().lane_count() == 2);
    world.run_until_all_read(Duration::from_secs(60));
    if let Some(LaneEnd::Closed(code)) = world.nodes[SERVER].lane_end(lane) {
        assert_eq!(*code, CloseCode::SEAL_ERROR);
    }
}

#[test]
fn sessions_without_seals_need_no_new_keys() {
    let config = SessionConfig { key_packets_max: 20, ..SessionConfig::default() };
    let mut world = World::new(1, config.clone(), config);
    world.connect(LaneKind::Quic, Path::default());
    transfer(&mut world, 10_000_000);
    assert_eq!(epochs(&mut world), [0, 0]);
}

/// An announcement on a lane without seals could arrive in front of the first packet under the new keys.
#[test]
fn keys_change_with_sealed_and_other_lanes() {
    let config = SessionConfig { key_packets_max: 20, scheduler: Policy::RoundRobin, ..SessionConfig::default() };
    let mut world = World::new(1, config.clone(), config);
    world.connect(LaneKind::Tcp, Path { delay: milliseconds(80), ..Path::default() });
    world.join(LaneKind::Tls, Path { delay: milliseconds(1), ..Path::default() }).unwrap();
    world.join(LaneKind::Tcp, Path { delay: milliseconds(30), ..Path::default() }).unwrap();
    transfer(&mut world, 60_000_000);
    assert!(epochs(&mut world)[0] >= 2);
    no_lane_was_lost(&mut world);
}
