//! What a client sends before the server has answered its start: within what every server grants, and only to a server
//! that does.

use longhaul::base::{Direction, Side, limits};
use longhaul::session::{CloseReason, EstablishError, Event, LaneKind, OpenError, SessionConfig};
use longhaul::stream::Priority;
use longhaul::wire::TransportParameters;

use crate::arrival::SESSION_ID;
use crate::link::Path;
use crate::node::Node;
use crate::seeds::milliseconds;
use crate::world::{CLIENT, SERVER, World};

const KINDS: [LaneKind; 2] = [LaneKind::Tls, LaneKind::Quic];

/// One way. What leaves at once has arrived a little later, and the answer after twice that.
const DELAY_MS: u64 = 50;

fn dialled(kind: LaneKind) -> World {
    let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
    world.dial(kind, Path { delay: milliseconds(DELAY_MS), ..Path::default() });
    world
}

/// Runs until everything that leaves early has arrived, and the answer has not.
fn run_until_the_answer_is_on_its_way(world: &mut World) {
    world.run_for(milliseconds(2 * DELAY_MS - 5));
    assert!(world.nodes[SERVER].is_connected() && !world.nodes[CLIENT].is_connected());
}

/// Opens client's streams of so many bytes, as many of `count` as it may now.
fn open(world: &mut World, direction: Direction, count: usize, bytes: u64) -> usize {
    let World { nodes, oracle, .. } = world;
    let Node { session, app, .. } = &mut nodes[CLIENT];
    let session = session.as_mut().expect("a client that begins over TLS has a session");
    (0..count).take_while(|_| app.open(session, oracle, direction, Priority::default(), bytes).is_some()).count()
}

/// Bytes that the server's application has read.
fn arrived(world: &World) -> u64 {
    world.oracle.flows.iter().filter(|((_, writer), _)| *writer == Side::Client).map(|(_, flow)| flow.read).sum()
}

#[test]
fn bytes_beyond_the_early_window_wait_for_the_answer() {
    for kind in KINDS {
        let mut world = dialled(kind);
        assert_eq!(open(&mut world, Direction::Uni, 5, 300_000), 5);
        run_until_the_answer_is_on_its_way(&mut world);
        assert_eq!(arrived(&world), limits::EARLY_WINDOW_BYTES, "all of the window, and no more");
        world.run_until_all_read(milliseconds(5000));
        assert_eq!(arrived(&world), 5 * 300_000);
    }
}

#[test]
fn one_stream_may_use_the_early_window_alone() {
    for kind in KINDS {
        let mut world = dialled(kind);
        open(&mut world, Direction::Bi, 1, 300_000);
        run_until_the_answer_is_on_its_way(&mut world);
        assert_eq!(arrived(&world), limits::EARLY_WINDOW_BYTES);
        world.run_until_all_read(milliseconds(5000));
    }
}

#[test]
fn streams_beyond_the_early_limit_wait_for_the_answer() {
    for (kind, direction) in KINDS.into_iter().flat_map(|kind| [(kind, Direction::Bi), (kind, Direction::Uni)]) {
        let (mut world, count) = (dialled(kind), 40);
        let mut opened = open(&mut world, direction, count, 100);
        assert_eq!(opened as u64, limits::EARLY_STREAMS);
        let another = world.nodes[CLIENT].session().open(direction, Priority::default());
        assert_eq!(another, Err(OpenError::Blocked));
        run_until_the_answer_is_on_its_way(&mut world);
        assert_eq!(open(&mut world, direction, count - opened, 100), 0, "nothing has changed");
        assert_eq!(world.nodes[SERVER].app.accepted.len() as u64, limits::EARLY_STREAMS);
        assert_eq!(arrived(&world), 100 * limits::EARLY_STREAMS);
        let are_open = world.run_until(milliseconds(1000), |world| {
            opened += open(world, direction, count - opened, 100);
            opened == count
        });
        assert!(are_open, "{}", world.describe());
        world.run_until_all_read(milliseconds(5000));
        assert_eq!(world.nodes[SERVER].app.accepted.len(), count);
    }
}

/// What the server says is checked against what the client has used already.
#[test]
fn server_that_grants_less_than_every_one_does_is_refused() {
    let parameters = SessionConfig::default().granting_early().parameters(SESSION_ID);
    let less: [fn(&mut TransportParameters); 4] = [
        |parameters| parameters.max_data = limits::EARLY_WINDOW_BYTES - 1,
        |parameters| parameters.max_stream_data = limits::EARLY_WINDOW_BYTES - 1,
        |parameters| parameters.max_streams_bi = limits::EARLY_STREAMS - 1,
        |parameters| parameters.max_streams_uni = limits::EARLY_STREAMS - 1,
    ];
    for (kind, less) in KINDS.into_iter().flat_map(|kind| less.map(|less| (kind, less))) {
        let mut world = dialled(kind);
        let mut granted = parameters.clone();
        less(&mut granted);
        world.started = Some(granted);
        open(&mut world, Direction::Bi, 3, 1000);
        world.run_for(milliseconds(500));
        assert!(matches!(world.nodes[CLIENT].failure, Some(EstablishError::Violation(_))));
        assert!(!world.nodes[CLIENT].has_seen(&Event::Connected));
        assert_eq!(world.nodes[CLIENT].closed(), Some(&CloseReason::NotAccepted));
    }
}

#[test]
fn server_that_grants_just_as_much_is_taken() {
    for kind in KINDS {
        let mut world = dialled(kind);
        let versions = SessionConfig::default().versions;
        world.started = Some(TransportParameters::early(versions, SESSION_ID));
        assert_eq!(open(&mut world, Direction::Bi, 16, 1000), 16);
        world.run_until_all_read(milliseconds(5000));
        assert!(world.nodes.iter().all(Node::is_connected));
    }
}

/// What was sent in a version that the server does not speak is nothing to it.
#[test]
fn unknown_version_gets_the_list_and_another_session_begins() {
    for kind in KINDS {
        let with = |versions: &[u32]| SessionConfig { versions: versions.to_vec(), ..SessionConfig::default() };
        let mut world = World::new(1, with(&[3, 2, 1]), with(&[2, 1]));
        world.dial(kind, Path::default());
        let session = world.nodes[CLIENT].session();
        let lost = session.open(Direction::Uni, Priority::default()).expect("an early stream");
        session.write(lost, b"in version 3").expect("room");
        world.run_for(milliseconds(500));
        assert!(world.nodes.iter().all(Node::is_connected), "{}", world.describe());
        assert_eq!(world.links.len(), 2, "two attempts");
        assert!(world.nodes[SERVER].app.accepted.is_empty(), "the first session's stream");
        assert_eq!(world.nodes[CLIENT].session().peer_parameters().versions, [2, 1]);
    }
}

#[test]
fn no_common_version_is_said() {
    for kind in KINDS {
        let with = |versions: &[u32]| SessionConfig { versions: versions.to_vec(), ..SessionConfig::default() };
        let mut world = World::new(1, with(&[3]), with(&[2, 1]));
        world.dial(kind, Path::default());
        world.run_for(milliseconds(500));
        let failure = world.nodes[CLIENT].failure.take().expect("no common version");
        assert!(matches!(failure, EstablishError::NoCommonVersion { .. }), "{failure}");
        assert_eq!(world.nodes[CLIENT].closed(), Some(&CloseReason::NotAccepted));
    }
}
