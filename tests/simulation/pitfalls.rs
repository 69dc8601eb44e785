//! The seventeen pitfalls of `rustls::quic` as session handshake (`docs/`, security rules §1.3), a test each. Those about
//! tickets and early data assert that there are none: resumption comes with a ticket store that re-checks identities.

use bytes::Bytes;
use longhaul::base::{CloseCode, Epoch, LaneId, PacketNumber, Side, limits};
use longhaul::crypto::identity::{ALPN_ENROLL, ALPN_QUIC, ALPN_SESSION, ALPN_TLS};
use longhaul::crypto::{HandshakeError, KeySchedule, LaneOpener, OpenError, SealedKeys};
use longhaul::session::{CloseReason, EstablishError, Establishing, Event, LaneKind, SessionConfig, SessionFault};
use longhaul::wire::{
    Body, Frame, FrameMessage, HandshakeData, HandshakeLevel, Head, PaddingPolicy, SealedKind, decode_message,
    encode_packet_message,
};

use crate::arrival::{shared_secrets, suite};
use crate::establishing::{client, flight, parse, server_for};
use crate::identities::IDENTITIES;
use crate::link::Path;
use crate::world::{CLIENT, World};

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// Identifiers of TLS extensions (RFC 8446 §4.2).
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn initial_data(message: &FrameMessage) -> &Bytes {
    match &message.body {
        Body::Handshake(data) if data.level == HandshakeLevel::Initial => &data.data,
        other => panic!("expected handshake bytes in the clear, not {other:?}"),
    }
}

/// The extensions of a ClientHello (RFC 8446 §4.1.2).
fn client_hello_extensions(hello: &[u8]) -> Vec<u16> {
    let u16_at = |at: usize| u16::from_be_bytes([hello[at], hello[at + 1]]);
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16_at(at));
    at += 1 + usize::from(hello[at]);
    let end = at + 2 + usize::from(u16_at(at));
    at += 2;
    let mut extensions = Vec::new();
    while at < end {
        extensions.push(u16_at(at));
        at += 4 + usize::from(u16_at(at + 2));
    }
    extensions
}

fn first_client_hello() -> Bytes {
    initial_data(&parse(flight(&mut client()).remove(0))).clone()
}

/// The whole handshake, then what the client says next.
fn connected_with_transcript() -> World {
    let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
    world.transcript = Some(Vec::new());
    world.connect(LaneKind::Tcp, Path::default());
    world
}

#[test]
fn pitfall_01_certificates_are_never_in_the_clear() {
    let world = connected_with_transcript();
    let transcript = world.transcript.unwrap();
    assert!(!contains(&transcript, b"spiffe://"), "a certificate can be read on the wire");
    // The search would find one: that is how names stand in certificates.
    let certificate = IDENTITIES.client_certificate.as_ref();
    assert!(contains(certificate, b"spiffe://"));
}

#[test]
fn pitfall_02_each_flight_travels_at_the_level_in_front_of_its_key_change() {
    let mut from = client();
    let first = parse(flight(&mut from).remove(0));
    assert_eq!(initial_data(&first)[0], CLIENT_HELLO);
    let mut to = server_for(&first);
    to.handle_message(first).unwrap();
    let answer: Vec<_> = flight(&mut to).into_iter().map(parse).collect();
    let hello = initial_data(&answer[0]);
    let hello_len = 4 + u32::from_be_bytes([0, hello[1], hello[2], hello[3]]) as usize;
    assert_eq!((hello[0], hello.len()), (SERVER_HELLO, hello_len), "the ServerHello and nothing else");
    assert!(answer.len() > 1 && answer[1..].iter().all(|m| matches!(m.body, Body::SealedHandshake(_))));
    for message in answer {
        from.handle_message(message).unwrap();
    }
    let last: Vec<_> = flight(&mut from).into_iter().map(parse).collect();
    assert!(!last.is_empty() && last.iter().all(|message| matches!(message.body, Body::SealedHandshake(_))));
}

#[test]
fn pitfall_03_traffic_packets_in_front_of_the_clients_finished_are_refused() {
    let mut from = client();
    let first = parse(flight(&mut from).remove(0));
    let mut to = server_for(&first);
    to.handle_message(first).unwrap();
    let schedule = KeySchedule::new(suite(), Side::Client, &shared_secrets());
    let early = sealed(&schedule, 0, 0, Epoch(0), &[Frame::Ping { sequence: 1 }]);
    assert!(matches!(to.handle_message(early), Err(EstablishError::Violation(_))));
}

#[test]
fn pitfall_04_the_client_is_connected_by_the_accept_only() {
    let mut world = World::new(1, SessionConfig::default(), SessionConfig::default());
    world.dial(LaneKind::Tcp, Path::default());
    world.run_until(crate::seeds::milliseconds(5000), |world| world.nodes[CLIENT].session.is_some());
    assert!(!world.nodes[CLIENT].is_connected(), "its own handshake is complete, the server's is not");
    world.run_for(crate::seeds::milliseconds(200));
    assert!(world.nodes[CLIENT].is_connected());
    assert!(world.nodes[CLIENT].has_seen(&Event::Connected));
}

#[test]
fn pitfall_05_nothing_is_resumed_since_resumption_checks_nothing_again() {
    assert_eq!(IDENTITIES.server.send_tls13_tickets, 0);
    assert!(!IDENTITIES.server.ticketer.enabled());
    assert!(!client_hello_extensions(&first_client_hello()).contains(&PRE_SHARED_KEY));
}

#[test]
fn pitfall_06_no_application_data_is_kept_in_tickets() {
    // `set_resumption_data` does not exist here, so that nothing may rely on it: the store takes nothing at all.
    assert!(!IDENTITIES.server.session_storage.put(vec![1], vec![2]));
    assert!(IDENTITIES.server.session_storage.get(&[1]).is_none());
}

#[test]
fn pitfall_07_early_data_is_off_before_the_first_byte_is_read() {
    assert_eq!(IDENTITIES.server.max_early_data_size, 0);
    assert!(!IDENTITIES.client.enable_early_data);
}

#[test]
fn pitfall_08_a_second_handshake_uses_no_ticket_up() {
    for _ in 0..2 {
        // The same configurations, as a node keeps them.
        drop(connected_with_transcript());
        assert!(!client_hello_extensions(&first_client_hello()).contains(&PRE_SHARED_KEY));
    }
}

#[test]
fn pitfall_09_no_early_data_after_a_restart_or_before_one() {
    assert!(!client_hello_extensions(&first_client_hello()).contains(&EARLY_DATA));
}

#[test]
fn pitfall_10_there_is_no_ticket_that_could_be_burnt() {
    let mut from = client();
    let first = parse(flight(&mut from).remove(0));
    let mut to = server_for(&first);
    to.handle_message(first).unwrap();
    for message in flight(&mut to) {
        from.handle_message(parse(message)).unwrap();
    }
    for message in flight(&mut from) {
        to.handle_message(parse(message)).unwrap();
    }
    assert!(to.poll_output().is_none(), "a server has nothing to say after the client's Finished");
}

#[test]
fn pitfall_11_errors_without_an_alert_look_like_all_others() {
    // A handshake message of an unknown type, and one that never ends: for one of them rustls has no alert.
    for bytes in [&[99, 0, 0, 1, 0][..], &[CLIENT_HELLO, 0xff, 0xff, 0xff, 1]] {
        let first = parse(flight(&mut client()).remove(0));
        let mut to = server_for(&first);
        let data = HandshakeData { level: HandshakeLevel::Initial, offset: 0, data: Bytes::copy_from_slice(bytes) };
        let result = to.handle_message(FrameMessage { head: first.head, body: Body::Handshake(data) });
        assert!(matches!(result, Err(EstablishError::Handshake(HandshakeError::Tls { .. }))), "{result:?}");
    }
    let mut strangers = Establishing::refusal();
    let answer = decode_message(&mut strangers, 100).unwrap().unwrap();
    assert_eq!((answer.head, answer.body), (Head::default(), Body::Refused));
}

fn sealed(schedule: &KeySchedule, lane: u32, number: u64, epoch: Epoch, frames: &[Frame]) -> FrameMessage {
    let head = Head { lane_id: LaneId(lane), epoch, packet_number: PacketNumber(number), ..Head::default() };
    let mut out = bytes::BytesMut::new();
    let layout = encode_packet_message(&mut out, &head, SealedKind::Traffic, frames, PaddingPolicy::None, 16_384);
    let key = SealedKeys(schedule.current().local.clone());
    key.seal(&head, &mut out[layout.message], layout.header_len).unwrap();
    parse(out)
}

#[test]
fn pitfall_12_the_epoch_is_explicit_and_nothing_is_tried() {
    let mut sender = KeySchedule::new(suite(), Side::Client, &shared_secrets());
    let receiver = KeySchedule::new(suite(), Side::Server, &shared_secrets());
    let mut opener = LaneOpener::new(LaneId(0), receiver.opening_keys());
    let open = |opener: &mut LaneOpener, message: FrameMessage| match message.body {
        Body::Sealed(sealed) => opener.open(&message.head, sealed),
        other => panic!("{other:?}"),
    };
    let frames = [Frame::Ping { sequence: 1 }];
    // Keys of epoch 0 under the name of epoch 1 are not tried as anything else.
    assert_eq!(open(&mut opener, sealed(&sender, 0, 0, Epoch(1), &frames)), Err(OpenError::Forged));
    assert_eq!(open(&mut opener, sealed(&sender, 0, 0, Epoch(2), &frames)), Err(OpenError::WrongEpoch(Epoch(2))));
    // A failure has changed nothing: number and epoch are those that were expected before.
    assert!(open(&mut opener, sealed(&sender, 0, 0, Epoch(0), &frames)).is_ok());
    let repeated = open(&mut opener, sealed(&sender, 0, 0, Epoch(0), &frames));
    assert!(matches!(repeated, Err(OpenError::WrongPacketNumber { .. })));
    let other_lane = open(&mut opener, sealed(&sender, 1, 1, Epoch(0), &frames));
    assert!(matches!(other_lane, Err(OpenError::WrongLane { .. })));
    sender.advance();
    assert!(open(&mut opener, sealed(&sender, 0, 1, Epoch(1), &frames)).is_ok());
    let old = KeySchedule::new(suite(), Side::Client, &shared_secrets());
    assert_eq!(open(&mut opener, sealed(&old, 0, 2, Epoch(0), &frames)), Err(OpenError::WrongEpoch(Epoch(0))));
}

#[test]
fn pitfall_13_handshake_bytes_come_once_and_in_order() {
    let first = parse(flight(&mut client()).remove(0));
    let hello = initial_data(&first).clone();
    let send = |to: &mut Establishing, level, offset, data: Bytes| {
        let body = Body::Handshake(HandshakeData { level, offset, data });
        to.handle_message(FrameMessage { head: Head::default(), body })
    };
    let mut to = server_for(&first);
    send(&mut to, HandshakeLevel::Initial, 0, hello.clone()).unwrap();
    let twice = send(&mut to, HandshakeLevel::Initial, 0, hello.clone());
    assert!(matches!(twice, Err(EstablishError::Handshake(_))), "{twice:?}");
    let mut to = server_for(&first);
    let gap = send(&mut to, HandshakeLevel::Initial, 1, hello.slice(1..));
    assert!(matches!(gap, Err(EstablishError::Handshake(HandshakeError::OutOfOrder { expected: 0, got: 1 }))));
    // In parts it is fine; of another level in the clear it is not.
    let mut to = server_for(&first);
    send(&mut to, HandshakeLevel::Initial, 0, hello.slice(..50)).unwrap();
    send(&mut to, HandshakeLevel::Initial, 50, hello.slice(50..)).unwrap();
    for level in [HandshakeLevel::Handshake, HandshakeLevel::Traffic] {
        let mut to = server_for(&first);
        assert!(matches!(send(&mut to, level, 0, hello.clone()), Err(EstablishError::Violation(_))));
    }
    // A message without end stops at the limit of a level.
    let mut to = server_for(&first);
    let endless = Bytes::from([&[CLIENT_HELLO, 0, 0xff, 0xff][..], &[0; 8000]].concat());
    let error = (0..20)
        .find_map(|part| send(&mut to, HandshakeLevel::Initial, part * endless.len() as u64, endless.clone()).err());
    assert!(error.is_some(), "more than {} bytes were taken", limits::HANDSHAKE_BYTES_PER_LEVEL_MAX);
}

#[test]
fn pitfall_14_handshake_messages_after_the_handshake_are_refused() {
    // NewSessionTicket (4) and KeyUpdate (24): the first was not asked for, the second is not used in QUIC mode.
    for kind in [4, 24] {
        let mut world = World::connected(1, 1, Path::default());
        let head = Head { packet_number: PacketNumber(9), ..Head::default() };
        let data = HandshakeData {
            level: HandshakeLevel::Traffic,
            offset: 0,
            data: Bytes::copy_from_slice(&[kind, 0, 0, 1, 0]),
        };
        let now = world.now;
        let session = world.nodes[CLIENT].session();
        session.handle_packet(now, &head, true, &mut vec![Frame::Handshake(data)], 100);
        let Some(CloseReason::Fault(fault)) = session.close_reason() else { panic!("{:?}", session.close_reason()) };
        assert!(matches!(fault, SessionFault::Violation(_)));
        assert_eq!(fault.close_code(), CloseCode::PROTOCOL_VIOLATION);
    }
}

#[test]
fn pitfall_15_every_use_of_the_key_has_an_alpn_of_its_own() {
    // That a wrong one is refused is tested in `establishing`.
    let all = [ALPN_SESSION, ALPN_TLS, ALPN_QUIC, ALPN_ENROLL];
    assert_eq!(std::collections::BTreeSet::from(all).len(), all.len());
    assert_eq!(IDENTITIES.server.alpn_protocols, [ALPN_SESSION.to_vec()]);
    assert_eq!(IDENTITIES.client.alpn_protocols, [ALPN_SESSION.to_vec()]);
}

#[test]
fn pitfall_16_a_packet_without_room_for_a_tag_is_refused() {
    for (kind, size) in [(9, 15), (10, 15), (10, 0)] {
        // Delimiter, key and length of the body, then too little.
        let mut bytes = bytes::BytesMut::from(&[size + 2, kind << 3 | 2, size][..]);
        bytes.resize(3 + usize::from(size), 0);
        assert!(decode_message(&mut bytes, 100).is_err());
    }
    let mut opener =
        LaneOpener::new(LaneId(0), KeySchedule::new(suite(), Side::Server, &shared_secrets()).opening_keys());
    let mut bytes = bytes::BytesMut::from(&[18, 10 << 3 | 2, 16][..]);
    bytes.resize(19, 0);
    let Body::Sealed(sealed) = parse(bytes).body else { panic!("a tag of nothing") };
    assert_eq!(opener.open(&Head::default(), sealed), Err(OpenError::Forged));
}

#[test]
fn pitfall_17_the_servers_default_ticket_store_is_replaced() {
    assert!(!IDENTITIES.server.session_storage.can_cache());
}
