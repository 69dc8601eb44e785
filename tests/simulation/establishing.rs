//! Handshakes message by message: versions, refusals, and what somebody on the way can do to them.

use bytes::BytesMut;
use longhaul::base::{SessionId, limits};
use longhaul::crypto::identity::{ALPN_ENROLL, ALPN_SESSION};
use longhaul::session::{CloseReason, EstablishError, Establishing, LaneKind, Progress, SessionConfig};
use longhaul::wire::{FrameMessage, decode_message};

use crate::identities::{Authority, IDENTITIES};
use crate::link::Path;
use crate::node::Node;
use crate::seeds::milliseconds;
use crate::world::{CLIENT, SERVER, World};

pub const SESSION: SessionId = SessionId([3; 16]);

pub fn client() -> Establishing {
    Establishing::client(IDENTITIES.client.clone(), &SessionConfig::default(), SESSION, 1).unwrap()
}

/// A server that has got the head of a client's first message.
pub fn server_for(first: &FrameMessage) -> Establishing {
    Establishing::server(IDENTITIES.server.clone(), &SessionConfig::default(), &first.head).unwrap()
}

pub fn parse(mut bytes: BytesMut) -> FrameMessage {
    decode_message(&mut bytes, limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX).unwrap().unwrap()
}

/// All messages that are ready to be sent.
pub fn flight(from: &mut Establishing) -> Vec<BytesMut> {
    std::iter::from_fn(|| from.poll_output()).collect()
}

fn with_versions(versions: &[u32]) -> SessionConfig {
    SessionConfig { versions: versions.to_vec(), ..SessionConfig::default() }
}

#[test]
fn unknown_version_gets_the_list_and_the_retry_works() {
    let mut world = World::new(1, with_versions(&[3, 2, 1]), with_versions(&[2, 1]));
    world.dial(LaneKind::Tcp, Path::default());
    world.run_for(milliseconds(500));
    assert!(world.nodes.iter().all(Node::is_connected), "{}", world.describe());
    assert_eq!(world.links.len(), 2, "two attempts");
    assert_eq!(world.nodes[CLIENT].session().peer_parameters().versions, [2, 1]);
    let joined = world.join(LaneKind::Tcp, Path::default()).expect("a lane");
    world.run_for(milliseconds(500));
    assert!(world.links[joined].is_open(), "a channel joins in the version of the session");
}

#[test]
fn no_common_version_is_said() {
    let mut world = World::new(1, with_versions(&[3]), with_versions(&[2, 1]));
    world.dial(LaneKind::Tcp, Path::default());
    world.run_for(milliseconds(500));
    let failure = world.nodes[CLIENT].failure.take().unwrap();
    assert!(matches!(failure, EstablishError::NoCommonVersion { .. }), "{failure}");
    assert!(failure.to_string().contains("[2, 1]"), "{failure}");
}

/// Whoever forges a version list makes both use a lesser version; the parameters, which the transcript covers, tell.
#[test]
fn downgrade_is_detected_by_both_sides() {
    let mut world = World::new(1, with_versions(&[2, 1]), with_versions(&[2, 1]));
    world.dial_version(LaneKind::Tcp, Path::default(), 1);
    world.run_for(milliseconds(500));
    for node in &world.nodes {
        assert!(matches!(node.failure, Some(EstablishError::Downgrade { used: 1, best: 2 })), "{:?}", node.failure);
        assert!(node.session.is_none());
    }
}

#[test]
fn version_list_is_ignored_once_the_server_has_spoken() {
    let mut client = client();
    let first = parse(flight(&mut client).remove(0));
    let list = Establishing::unsupported_version(&with_versions(&[1]), &first.head);
    let mut server = server_for(&first);
    server.handle_message(first).unwrap();
    let hello = flight(&mut server).remove(0);
    assert_eq!(client.handle_message(parse(hello)).unwrap(), Progress::Continue);
    assert!(matches!(client.handle_message(parse(list)), Err(EstablishError::Violation(_))));
}

#[test]
fn first_message_without_a_session_is_refused() {
    let mut first = parse(flight(&mut client()).remove(0));
    first.head.session_id = None;
    let refused = Establishing::server(IDENTITIES.server.clone(), &SessionConfig::default(), &first.head);
    assert!(matches!(refused, Err(EstablishError::Violation(_))));
}

/// The client's parameters name the session: another name in the clear does not go through.
#[test]
fn session_id_in_the_clear_has_to_be_the_authenticated_one() {
    let mut client = client();
    let mut first = parse(flight(&mut client).remove(0));
    first.head.session_id = Some(SessionId([4; 16]));
    let mut server = server_for(&first);
    server.handle_message(first).unwrap();
    for message in flight(&mut server) {
        client.handle_message(parse(message)).unwrap();
    }
    for message in flight(&mut client) {
        server.handle_message(parse(message)).unwrap();
    }
    let setup = longhaul::session::LaneSetup::new(LaneKind::Tcp);
    let now = std::time::Instant::now();
    let finished = server.finish(SessionConfig::default(), setup, [0; 16], now);
    assert!(matches!(finished, Err(EstablishError::Violation(_))));
}

/// Any changed byte of any message: no session, no panic, and never one that only one side believes in for long.
#[test]
fn any_damage_to_a_handshake_ends_it() {
    let mut clean = World::new(1, SessionConfig::default(), SessionConfig::default());
    clean.transcript = Some(Vec::new());
    clean.connect(LaneKind::Tcp, Path::default());
    let size = clean.transcript.take().unwrap().len();
    for at in (0..size).step_by(37) {
        let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
        world.damage_at = Some(at);
        world.dial(LaneKind::Tcp, Path::default());
        world.run_for(milliseconds(300));
        let connected = world.nodes.iter().filter(|node| node.is_connected()).count();
        let sessions = world.nodes.iter().filter(|node| node.session.is_some()).count();
        // After the handshake itself damage costs the lane, and a client that was not accepted its session.
        assert!(connected < 2 || sessions == 2, "byte {at}");
        assert!(!world.nodes[CLIENT].is_connected() || world.nodes[SERVER].session.is_some(), "byte {at}");
        if world.nodes[CLIENT].session.is_none() {
            assert!(world.nodes.iter().all(|node| !node.is_connected() || node.side as usize == SERVER), "byte {at}");
        }
    }
}

#[test]
fn client_that_is_not_trusted_is_never_connected() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
    world.server_tls = Some(ours.settings("server").server_config(ALPN_SESSION).unwrap());
    world.client_tls = Some(theirs.settings_that_trust("client", &ours).client_config(None, ALPN_SESSION).unwrap());
    world.dial(LaneKind::Tcp, Path::default());
    world.run_for(milliseconds(500));
    assert!(world.nodes[SERVER].session.is_none());
    assert!(world.nodes[SERVER].failure.is_some());
    // The client's own handshake is complete before the server looks at its certificate: that is no connection yet.
    assert!(!world.nodes[CLIENT].events.iter().any(|(_, event)| *event == longhaul::session::Event::Connected));
    assert!(matches!(world.nodes[CLIENT].closed(), Some(CloseReason::NotAccepted)));
}

#[test]
fn server_that_is_not_trusted_gets_no_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
    world.server_tls = Some(theirs.settings_that_trust("server", &ours).server_config(ALPN_SESSION).unwrap());
    world.client_tls = Some(ours.settings("client").client_config(None, ALPN_SESSION).unwrap());
    world.dial(LaneKind::Tcp, Path::default());
    world.run_for(milliseconds(500));
    assert!(matches!(world.nodes[CLIENT].failure, Some(EstablishError::Handshake(_))));
    assert!(world.nodes[CLIENT].session.is_none() && world.nodes[SERVER].session.is_none());
}

#[test]
fn other_alpn_is_refused() {
    let authority = Authority::new();
    let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
    world.server_tls = Some(authority.settings("server").server_config(ALPN_SESSION).unwrap());
    world.client_tls = Some(authority.settings("client").client_config(None, ALPN_ENROLL).unwrap());
    world.dial(LaneKind::Tcp, Path::default());
    world.run_for(milliseconds(500));
    assert!(world.nodes.iter().all(|node| node.session.is_none()));
    assert!(matches!(world.nodes[SERVER].failure, Some(EstablishError::Handshake(_))));
}
