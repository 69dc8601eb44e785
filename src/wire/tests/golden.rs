//! The vectors in `tests/golden/`: bytes that must not change while the version of the protocol does not, checked in
//! both directions.

use bytes::{Bytes, BytesMut};

use crate::base::{CloseCode, Direction, Epoch, LaneId, PacketNumber, Secret, SessionId, StreamCode, StreamId, limits};
use crate::wire::{
    Ack, Body, ClearMessage, Datagram, DatagramPiece, DenylistBody, EnrollAnswer, EnrollRequest, Frame,
    GuestCredential, HandshakeData, HandshakeLevel, Head, Join, Joined, LaneRole, LaneUsage, PaddingPolicy,
    RenewAnswer, RenewRequest, SealedKind, ServiceRequest, SignedDenylist, StreamData, TraceContext,
    TransportParameters, VERSION, decode_message, decode_packet, encode_clear, encode_packet_message,
};

/// What the bytes of a vector mean.
#[derive(Debug)]
enum Meaning {
    /// A `frame_message` with its delimiter.
    Message(Head, ClearMessage),
    /// A `frame_message` with its delimiter, padded to blocks of 32 bytes, not sealed yet: its tag is zeroes.
    Packet(Head, SealedKind, Vec<Frame>),
    /// The content of a packet that has one frame and no padding.
    Frame(Frame),
    /// Transport parameters.
    Parameters(TransportParameters),
    /// The request of a service with its delimiter.
    Request(ServiceRequest),
    /// The request of an enrolment with its delimiter.
    Enroll(EnrollRequest),
    /// The answer of an enrolment with its delimiter.
    EnrollAnswer(EnrollAnswer),
    /// The request of a renewal with its delimiter.
    Renew(RenewRequest),
    /// The answer of a renewal with its delimiter.
    RenewAnswer(RenewAnswer),
    /// A denylist, as it is signed.
    Denylist(DenylistBody),
    /// A signed denylist with its delimiter.
    SignedDenylist(SignedDenylist),
}

macro_rules! vector {
    ($name:literal, $meaning:expr) => {
        ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/", $name, ".hex")), $meaning)
    };
}

#[test]
fn values_are_written_as_ever() {
    for (name, text, meaning) in vectors() {
        let (expected, written) = (bytes_of(text), write(&meaning));
        assert!(written == expected, "{name}: {meaning:?} is written as\n{}", hex(&written));
    }
}

#[test]
fn bytes_are_read_as_ever() {
    for (name, text, meaning) in vectors() {
        let bytes = bytes_of(text);
        match meaning {
            Meaning::Message(head, message) => {
                let read = decode_message(&mut BytesMut::from(&bytes[..]), limits::FRAME_MESSAGE_BYTES_MAX);
                let read = read.unwrap().unwrap();
                assert_eq!((read.head, super::reference::as_clear(&read.body)), (head, Some(message)), "{name}");
            }
            Meaning::Packet(head, kind, frames) => {
                let read = decode_message(&mut BytesMut::from(&bytes[..]), limits::FRAME_MESSAGE_BYTES_MAX);
                let read = read.unwrap().unwrap();
                assert_eq!(read.head, head, "{name}");
                assert_eq!(frames_of(&content(read.body, kind)), frames, "{name}");
            }
            Meaning::Frame(frame) => assert_eq!(frames_of(&bytes.into()), [frame], "{name}"),
            Meaning::Parameters(parameters) => {
                assert_eq!(TransportParameters::decode(&bytes), Ok(parameters), "{name}");
            }
            Meaning::Request(request) => {
                assert_eq!(ServiceRequest::decode(&bytes), Ok(Some((request, bytes.len()))), "{name}");
            }
            Meaning::Enroll(request) => {
                assert_eq!(EnrollRequest::decode(&bytes), Ok(Some((request, bytes.len()))), "{name}");
            }
            Meaning::EnrollAnswer(answer) => {
                assert_eq!(EnrollAnswer::decode(&bytes), Ok(Some((answer, bytes.len()))), "{name}");
            }
            Meaning::Renew(request) => {
                assert_eq!(RenewRequest::decode(&bytes), Ok(Some((request, bytes.len()))), "{name}");
            }
            Meaning::RenewAnswer(answer) => {
                assert_eq!(RenewAnswer::decode(&bytes), Ok(Some((answer, bytes.len()))), "{name}");
            }
            Meaning::Denylist(list) => assert_eq!(DenylistBody::decode(&bytes), Ok(list), "{name}"),
            Meaning::SignedDenylist(signed) => {
                assert_eq!(SignedDenylist::decode(&bytes), Ok(Some((signed, bytes.len()))), "{name}");
            }
        }
    }
}

fn write(meaning: &Meaning) -> Vec<u8> {
    let mut out = BytesMut::new();
    match meaning {
        Meaning::Message(head, message) => encode_clear(&mut out, head, message),
        Meaning::Packet(head, kind, frames) => {
            encode_packet_message(
                &mut out,
                head,
                *kind,
                frames,
                PaddingPolicy::Block32,
                limits::FRAME_MESSAGE_BYTES_MAX,
            );
        }
        Meaning::Frame(frame) => frame.encode(&mut out),
        Meaning::Parameters(parameters) => return parameters.encode(),
        Meaning::Request(request) => return request.encode(),
        Meaning::Enroll(request) => return request.encode(),
        Meaning::EnrollAnswer(answer) => return answer.encode(),
        Meaning::Renew(request) => return request.encode(),
        Meaning::RenewAnswer(answer) => return answer.encode(),
        Meaning::Denylist(list) => return list.encode(),
        Meaning::SignedDenylist(signed) => return signed.encode(),
    }
    out.to_vec()
}

fn content(body: Body, kind: SealedKind) -> Bytes {
    match (body, kind) {
        (Body::Plain(content), SealedKind::Plain) => content,
        (Body::SealedEarly(sealed), SealedKind::Early)
        | (Body::SealedHandshake(sealed), SealedKind::Handshake)
        | (Body::Sealed(sealed), SealedKind::Traffic) => {
            let len = sealed.ciphertext_len() - kind.tag_len();
            sealed.into_plaintext(len).freeze()
        }
        (body, _) => panic!("{body:?}"),
    }
}

fn frames_of(content: &Bytes) -> Vec<Frame> {
    let mut frames = Vec::new();
    decode_packet(content, &mut frames).unwrap();
    frames
}

/// The bytes of a file: lines of hexadecimal digits, and of comments that begin with `#`.
fn bytes_of(text: &str) -> Vec<u8> {
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect();
    assert!(digits.len().is_multiple_of(2));
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(32).map(line).collect::<Vec<_>>().join("\n")
}

fn vectors() -> Vec<(&'static str, &'static str, Meaning)> {
    [messages(), packets(), frames(), control_messages()].into_iter().flatten().collect()
}

fn messages() -> Vec<(&'static str, &'static str, Meaning)> {
    let opening = Head { version: VERSION, session_id: Some(SessionId(counting(0xa0))), ..Head::default() };
    let answer = Head { session_id: opening.session_id, ..Head::default() };
    let joining = Head { lane_id: LaneId(3), ..opening };
    let handshake =
        HandshakeData { level: HandshakeLevel::Initial, offset: 0, data: Bytes::from_static(b"client hello") };
    let join = Join {
        kind: 2,
        nonce: counting(0x10),
        channel_binding: Bytes::copy_from_slice(&counting::<32>(0x40)),
        lane_count: 4,
        mac: counting(0x60),
        usage: LaneUsage { weight: 5, ..LaneUsage::default() },
    };
    let standby = Join { usage: LaneUsage { weight: 1, priority: 2, role: LaneRole::Standby }, ..join.clone() };
    vec![
        vector!("message-handshake", Meaning::Message(opening, ClearMessage::Handshake(handshake))),
        vector!("message-join", Meaning::Message(joining, ClearMessage::Join(join))),
        vector!("message-join-standby", Meaning::Message(joining, ClearMessage::Join(standby))),
        vector!(
            "message-joined",
            Meaning::Message(answer, ClearMessage::Joined(Joined { nonce: counting(0x20), mac: counting(0x80) }))
        ),
        vector!("message-start", Meaning::Message(opening, ClearMessage::Start(parameters().encode().into()))),
        vector!("message-started", Meaning::Message(answer, ClearMessage::Started(parameters().encode().into()))),
        vector!("message-version-list", Meaning::Message(answer, ClearMessage::VersionList(vec![300, 1]))),
        vector!("message-refused", Meaning::Message(Head::default(), ClearMessage::Refused)),
        vector!("message-session-reset", Meaning::Message(answer, ClearMessage::SessionReset(counting(0x30)))),
    ]
}

fn packets() -> Vec<(&'static str, &'static str, Meaning)> {
    let head = |epoch, packet_number| Head {
        lane_id: LaneId(2),
        epoch: Epoch(epoch),
        packet_number: PacketNumber(packet_number),
        ..Head::default()
    };
    let finished = HandshakeData { level: HandshakeLevel::Handshake, offset: 0, data: Bytes::from_static(b"finished") };
    vec![
        vector!(
            "message-sealed-handshake",
            Meaning::Packet(Head::default(), SealedKind::Handshake, vec![Frame::Handshake(finished)])
        ),
        vector!(
            "message-sealed-early",
            Meaning::Packet(Head::default(), SealedKind::Early, vec![Frame::Ping { sequence: 9 }])
        ),
        vector!(
            "message-sealed",
            Meaning::Packet(head(1, 70_000), SealedKind::Traffic, vec![stream_data(), Frame::Ping { sequence: 9 }])
        ),
        vector!("message-plain", Meaning::Packet(head(0, 1), SealedKind::Plain, vec![Frame::Ping { sequence: 9 }])),
    ]
}

fn frames() -> Vec<(&'static str, &'static str, Meaning)> {
    let stream_id = StreamId(1001);
    let ack = Ack {
        lane_id: LaneId(2),
        next_packet_number: PacketNumber(70_000),
        delay_us: 25_000,
        ranges: vec![(1, 300), (7, 1)],
    };
    let ticket = HandshakeData { level: HandshakeLevel::Traffic, offset: 300, data: Bytes::from_static(b"ticket") };
    vec![
        vector!("frame-stream-data", Meaning::Frame(stream_data())),
        vector!("frame-stream-open", Meaning::Frame(Frame::StreamOpen { stream_id, priority: 7, replay_safe: false })),
        vector!(
            "frame-stream-open-replay-safe",
            Meaning::Frame(Frame::StreamOpen { stream_id, priority: 7, replay_safe: true })
        ),
        vector!(
            "frame-stream-reset",
            Meaning::Frame(Frame::StreamReset { stream_id, code: StreamCode::CONNECTION_RESET, final_size: 1 << 40 })
        ),
        vector!(
            "frame-stream-stop",
            Meaning::Frame(Frame::StreamStop { stream_id, code: StreamCode::UNKNOWN_SERVICE })
        ),
        vector!("frame-ack", Meaning::Frame(Frame::Ack(ack))),
        vector!("frame-max-data", Meaning::Frame(Frame::MaxData { maximum: (1 << 62) - 1 })),
        vector!("frame-max-stream-data", Meaning::Frame(Frame::MaxStreamData { stream_id, maximum: 1 << 20 })),
        vector!("frame-max-streams", Meaning::Frame(Frame::MaxStreams { direction: Direction::Uni, maximum: 1 << 60 })),
        vector!("frame-data-blocked", Meaning::Frame(Frame::DataBlocked { limit: 1 << 24 })),
        vector!("frame-stream-data-blocked", Meaning::Frame(Frame::StreamDataBlocked { stream_id, limit: 1 << 20 })),
        vector!(
            "frame-streams-blocked",
            Meaning::Frame(Frame::StreamsBlocked { direction: Direction::Bi, limit: 4096 })
        ),
        vector!("frame-ping", Meaning::Frame(Frame::Ping { sequence: u64::MAX })),
        vector!("frame-pong", Meaning::Frame(Frame::Pong { sequence: 127, delay_us: 128 })),
        vector!("frame-key-update", Meaning::Frame(Frame::KeyUpdate { epoch: Epoch(1) })),
        vector!("frame-handshake", Meaning::Frame(Frame::Handshake(ticket))),
        vector!("frame-accepted", Meaning::Frame(Frame::Accepted { reset_token: Secret::new(counting(0x30)) })),
        vector!("frame-max-lanes", Meaning::Frame(Frame::MaxLanes { maximum: 16 })),
        vector!(
            "frame-lane-close",
            Meaning::Frame(Frame::LaneClose { lane_id: LaneId(0), code: CloseCode::LANE_SURPLUS })
        ),
        vector!(
            "frame-close",
            Meaning::Frame(Frame::Close { code: CloseCode(0x100), reason: "fertig für heute".into() })
        ),
        vector!(
            "frame-go-away",
            Meaning::Frame(Frame::GoAway { code: CloseCode::SHUTTING_DOWN, reason: String::new() })
        ),
        vector!("frame-join-confirm", Meaning::Frame(Frame::JoinConfirm { nonce: counting(0x20) })),
        vector!(
            "frame-guest",
            Meaning::Frame(Frame::Guest(GuestCredential::new(&counting(0x10), &counting(0x40), "laptop")))
        ),
        vector!("frame-datagram", Meaning::Frame(Frame::Datagram(datagram(None, b"query")))),
        vector!(
            "frame-datagram-piece",
            Meaning::Frame(Frame::Datagram(datagram(
                Some(DatagramPiece { number: 300, size: 65_507, offset: 65_503 }),
                b"tail"
            )))
        ),
    ]
}

fn control_messages() -> Vec<(&'static str, &'static str, Meaning)> {
    let request = ServiceRequest {
        service: "database".into(),
        source: "192.0.2.7:40000".into(),
        destination: "[2001:db8::1]:5432".into(),
        datagrams: false,
        trace: None,
    };
    let trace = TraceContext { trace_id: counting(0x10), span_id: counting(0x40), flags: 1 };
    let traced = ServiceRequest { service: "web".into(), trace: Some(trace), ..ServiceRequest::default() };
    let flow = ServiceRequest { service: "dns".into(), datagrams: true, ..ServiceRequest::default() };
    let enroll = EnrollRequest {
        token_id: counting(0x10),
        name: "dc-b".into(),
        certificate_request: b"request".to_vec(),
        proof: counting(0x40),
    };
    let issued = EnrollAnswer::Issued {
        certificate: b"certificate".to_vec(),
        authority: b"authority".to_vec(),
        addresses: vec!["tcp://0.0.0.0:7443".into(), "quic://hub.example:7443".into()],
    };
    let renew = RenewRequest { certificate_request: b"request".to_vec(), denylist_version: 1_800_000_000 };
    let renewed = RenewAnswer::Issued {
        certificate: b"certificate".to_vec(),
        anchors: vec![b"one".to_vec(), b"two".to_vec()],
        denylist: b"denylist".to_vec(),
    };
    let denylist = DenylistBody {
        trust_domain: "example".into(),
        version: 1_800_000_000,
        names: vec!["dc-b".into(), "dc-c".into()],
        keys: vec![counting(0x10), counting(0x40)],
    };
    let signed = SignedDenylist { denylist: denylist.encode(), signature: b"signature".to_vec() };
    let with_datagrams = TransportParameters { datagram_bytes_max: 65_507, ..parameters() };
    vec![
        vector!("renew-request", Meaning::Renew(renew)),
        vector!("renew-answer", Meaning::RenewAnswer(renewed)),
        vector!("signed-denylist", Meaning::SignedDenylist(signed)),
        vector!("denylist", Meaning::Denylist(denylist)),
        vector!("enroll-request", Meaning::Enroll(enroll)),
        vector!("enroll-answer", Meaning::EnrollAnswer(issued)),
        vector!("enroll-answer-refused", Meaning::EnrollAnswer(EnrollAnswer::Refused)),
        vector!("transport-parameters-datagrams", Meaning::Parameters(with_datagrams)),
        vector!("service-request-datagrams", Meaning::Request(flow)),
        vector!("transport-parameters", Meaning::Parameters(parameters())),
        vector!(
            "transport-parameters-standby",
            Meaning::Parameters(TransportParameters {
                first_lane: LaneUsage { weight: 3, priority: 2, role: LaneRole::Standby },
                ..parameters()
            })
        ),
        vector!("service-request", Meaning::Request(request)),
        vector!("service-request-traced", Meaning::Request(traced)),
    ]
}

fn datagram(piece: Option<DatagramPiece>, data: &'static [u8]) -> Datagram {
    Datagram { stream_id: StreamId(4), piece, data: Bytes::from_static(data) }
}

fn stream_data() -> Frame {
    let data = Bytes::from_static(b"hello");
    Frame::Stream(StreamData { stream_id: StreamId(4), offset: 70_000, fin: true, data: data.into() })
}

/// Values of this test's own, so that a changed default changes no vector.
fn parameters() -> TransportParameters {
    TransportParameters {
        versions: vec![300, 1],
        session_id: SessionId(counting(0xa0)),
        max_data: 1 << 24,
        max_stream_data: 1 << 20,
        max_streams_bi: 4096,
        max_streams_uni: 0,
        max_lanes: 16,
        packet_bytes_max: 65_536,
        ack_delay_max: std::time::Duration::from_millis(25),
        idle_timeout: std::time::Duration::from_secs(45),
        survive: std::time::Duration::from_secs(120),
        software: "longhaul 0.1.0".into(),
        first_lane: LaneUsage { weight: 3, ..LaneUsage::default() },
        datagram_bytes_max: 0,
    }
}

fn counting<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|index| first + index as u8)
}
