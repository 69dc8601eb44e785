//! Joins: proofs, credits, repetitions, limits; and resets of sessions that a server has forgotten.

use longhaul::base::{CloseCode, LaneId, limits};
use longhaul::session::{CloseReason, JoinRefused, JoinRequest, LaneEnd, LaneKind, LaneSetup};
use longhaul::wire::{Head, Join};

use crate::arrival::RESET_TOKEN;
use crate::link::Path;
use crate::random::Random;
use crate::seeds::milliseconds;
use crate::world::{CLIENT, SERVER, World};

const TCP: LaneSetup = LaneSetup::new(LaneKind::Tcp);
const TLS: LaneSetup = LaneSetup::new(LaneKind::Tls);

fn connected() -> World {
    World::connected(1, 1, Path::default())
}

fn request(world: &mut World, setup: LaneSetup, binding: &[u8]) -> JoinRequest {
    let now = world.now;
    world.nodes[CLIENT].session().begin_join(setup, binding, &mut Random::new(9), now).unwrap()
}

fn answer(
    world: &mut World,
    head: &Head,
    join: &Join,
    setup: LaneSetup,
    binding: &[u8],
) -> Result<longhaul::wire::Joined, JoinRefused> {
    let now = world.now;
    world.nodes[SERVER].session().handle_join(head, join, setup, binding, &mut Random::new(8), now)
}

#[test]
fn join_with_anything_changed_is_refused_and_changes_nothing() {
    let mut world = connected();
    let JoinRequest { head, join, .. } = request(&mut world, TCP, &[]);
    let other_lane = Head { lane_id: LaneId(77), ..head };
    let other_version = Head { version: 9, ..head };
    let mut other_mac = join.clone();
    other_mac.mac[31] ^= 1;
    let mut other_nonce = join.clone();
    other_nonce.nonce[0] ^= 1;
    let other_count = Join { lane_count: 2, ..join.clone() };
    let other_kind = Join { kind: LaneKind::Unix as u32, ..join.clone() };
    let wrong = [
        (other_lane, join.clone()),
        (other_version, join.clone()),
        (head, other_mac),
        (head, other_nonce),
        (head, other_count),
        (head, other_kind),
    ];
    for (head, join) in wrong {
        assert_eq!(answer(&mut world, &head, &join, TCP, &[]), Err(JoinRefused::WrongProof), "{head:?} {join:?}");
    }
    assert_eq!(world.nodes[SERVER].session().lane_count(), 1);
    assert!(answer(&mut world, &head, &join, TCP, &[]).is_ok(), "the right one is not spoilt by wrong ones");
}

#[test]
fn join_that_is_replayed_is_refused() {
    let mut world = connected();
    let JoinRequest { head, join, .. } = request(&mut world, TCP, &[]);
    assert!(answer(&mut world, &head, &join, TCP, &[]).is_ok());
    assert_eq!(answer(&mut world, &head, &join, TCP, &[]), Err(JoinRefused::LaneNotFree(head.lane_id)));
    // Not after the lane's end either: its id is part of nonces that were used.
    let now = world.now;
    world.nodes[SERVER].session().remove_lane(head.lane_id, LaneEnd::ChannelClosed, now);
    assert_eq!(answer(&mut world, &head, &join, TCP, &[]), Err(JoinRefused::LaneNotFree(head.lane_id)));
    world.run_for(limits::DEAD_LANE_MEMORY * 2);
    assert_eq!(answer(&mut world, &head, &join, TCP, &[]), Err(JoinRefused::LaneNotFree(head.lane_id)));
}

#[test]
fn join_of_another_channel_is_refused() {
    let mut world = connected();
    let JoinRequest { head, join, .. } = request(&mut world, TLS, &[1; 32]);
    assert_eq!(answer(&mut world, &head, &join, TLS, &[2; 32]), Err(JoinRefused::WrongProof));
    assert_eq!(answer(&mut world, &head, &join, TCP, &[1; 32]), Err(JoinRefused::WrongKind));
    assert!(answer(&mut world, &head, &join, TLS, &[1; 32]).is_ok());
}

#[test]
fn lane_ids_are_used_once_by_the_client_too() {
    let mut world = connected();
    let mut seen = std::collections::BTreeSet::from([LaneId::FIRST]);
    for _ in 0..100 {
        let request = request(&mut world, TCP, &[]);
        assert!(seen.insert(request.head.lane_id));
        let now = world.now;
        world.nodes[CLIENT].session().remove_lane(request.head.lane_id, LaneEnd::NotConfirmed, now);
    }
}

#[test]
fn credit_ends_and_is_renewed() {
    let mut world = connected();
    let now = world.now;
    let mut joins = 0;
    loop {
        let session = world.nodes[CLIENT].session();
        let Some(request) = session.begin_join(TCP, &[], &mut Random::new(joins), now) else { break };
        session.remove_lane(request.head.lane_id, LaneEnd::NotConfirmed, now);
        joins += 1;
    }
    assert_eq!(joins, u64::from(limits::LANE_CREDIT) - 1);
    // With a join that the server sees, new credit comes.
    let mut world = connected();
    for _ in 0..limits::LANE_CREDIT / 2 {
        let lane = request(&mut world, TCP, &[]).head.lane_id;
        let now = world.now;
        world.nodes[CLIENT].session().remove_lane(lane, LaneEnd::NotConfirmed, now);
    }
    // The server has heard of all these ends.
    world.run_for(milliseconds(500));
    let link = world.join(LaneKind::Tcp, Path::default()).unwrap();
    world.run_for(milliseconds(500));
    assert!(world.links[link].is_open());
    for _ in 0..limits::LANE_CREDIT / 2 + 100 {
        let lane = request(&mut world, TCP, &[]).head.lane_id;
        let now = world.now;
        world.nodes[CLIENT].session().remove_lane(lane, LaneEnd::NotConfirmed, now);
    }
}

#[test]
fn lanes_are_limited() {
    let mut world = World::connected(1, limits::LANES_MAX as usize, Path::default());
    assert!(world.join(LaneKind::Tcp, Path::default()).is_none());
    // A client that does not keep to it: its request comes from a time with fewer lanes.
    let mut world = World::connected(1, 1, Path::default());
    let late = request(&mut world, TCP, &[]);
    let now = world.now;
    world.nodes[CLIENT].session().remove_lane(late.head.lane_id, LaneEnd::NotConfirmed, now);
    for _ in 1..limits::LANES_MAX {
        world.join(LaneKind::Tcp, Path::default()).unwrap();
    }
    world.run_for(milliseconds(500));
    assert_eq!(answer(&mut world, &late.head, &late.join, TCP, &[]), Err(JoinRefused::TooManyLanes));
}

#[test]
fn server_does_not_join_and_client_is_not_joined() {
    let mut world = connected();
    let now = world.now;
    assert!(world.nodes[SERVER].session().begin_join(TCP, &[], &mut Random::new(1), now).is_none());
    let JoinRequest { head, join, .. } = request(&mut world, TCP, &[]);
    let refused = world.nodes[CLIENT].session().handle_join(&head, &join, TCP, &[], &mut Random::new(1), now);
    assert_eq!(refused, Err(JoinRefused::WrongSide));
}

#[test]
fn closing_session_takes_no_lanes() {
    let mut world = connected();
    let JoinRequest { head, join, .. } = request(&mut world, TCP, &[]);
    let now = world.now;
    world.nodes[SERVER].session().close(CloseCode::NO_ERROR, "", now);
    assert_eq!(answer(&mut world, &head, &join, TCP, &[]), Err(JoinRefused::NotOpen));
}

#[test]
fn wrong_answer_of_a_server_is_refused() {
    let mut world = connected();
    let request = request(&mut world, TCP, &[]);
    let mut joined = answer(&mut world, &request.head, &request.join, TCP, &[]).unwrap();
    joined.mac[0] ^= 1;
    assert!(!world.nodes[CLIENT].session().complete_join(&request, &joined));
    joined.mac[0] ^= 1;
    assert!(world.nodes[CLIENT].session().complete_join(&request, &joined));
}

#[test]
fn answer_for_a_lane_that_was_given_up_comes_too_late() {
    let mut world = connected();
    let request = request(&mut world, TCP, &[]);
    let joined = answer(&mut world, &request.head, &request.join, TCP, &[]).unwrap();
    let now = world.now;
    world.nodes[CLIENT].session().remove_lane(request.head.lane_id, LaneEnd::NotConfirmed, now);
    assert!(!world.nodes[CLIENT].session().complete_join(&request, &joined));
}

#[test]
fn unconfirmed_lane_is_given_up() {
    let mut world = connected();
    let JoinRequest { head, join, .. } = request(&mut world, TCP, &[]);
    answer(&mut world, &head, &join, TCP, &[]).unwrap();
    world.run_for(limits::JOIN_TIMEOUT + milliseconds(10));
    assert_eq!(world.nodes[SERVER].lane_end(head.lane_id), Some(&LaneEnd::NotConfirmed));
}

#[test]
fn data_leaves_with_the_join() {
    let slow = Path { delay: milliseconds(200), ..Path::default() };
    let mut world = World::connected(1, 1, slow);
    world.kill(0, &[CLIENT, SERVER]);
    let node = &mut world.nodes[CLIENT];
    let session = node.session.as_mut().unwrap();
    let uni = longhaul::base::Direction::Uni;
    node.app.open(session, &mut world.oracle, uni, longhaul::stream::Priority::Normal, 1000).unwrap();
    world.join(LaneKind::Tcp, slow).unwrap();
    world.run_for(milliseconds(210));
    assert_eq!(world.oracle.read_bytes(), 1000, "one way, not three");
}

#[test]
fn reset_needs_the_token() {
    let mut world = connected();
    let now = world.now;
    let client = world.nodes[CLIENT].session();
    assert!(!client.handle_reset(&[0; 16], now));
    let mut wrong = RESET_TOKEN;
    wrong[15] ^= 1;
    assert!(!client.handle_reset(&wrong, now));
    assert!(client.is_connected());
    assert!(client.handle_reset(&RESET_TOKEN, now));
    assert_eq!(client.close_reason(), Some(&CloseReason::Reset));
    let server = world.nodes[SERVER].session();
    assert!(!server.handle_reset(&RESET_TOKEN, now), "only a client can be told");
}
