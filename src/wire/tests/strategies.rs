//! Values as a peer that keeps the rules could send them, and bytes as one that does not could.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::base::{CloseCode, Direction, Epoch, LaneId, PacketNumber, Secret, SessionId, StreamCode, StreamId, limits};
use crate::wire::varint::put_varint;
use crate::wire::{
    Ack, ClearMessage, Datagram, DatagramPiece, DenylistBody, EnrollAnswer, EnrollRequest, Frame, GuestCredential,
    HandshakeData, HandshakeLevel, Head, Join, Joined, LaneRole, LaneUsage, PaddingPolicy, Payload, RenewAnswer,
    RenewRequest, ServiceRequest, StreamData, TraceContext, TransportParameters,
};

/// Numbers of all sizes: uniform ones would nearly all need nine or ten bytes.
pub(super) fn number(bits: u32) -> impl Strategy<Value = u64> {
    (any::<u64>(), 64 - bits..=64).prop_map(|(value, shift)| value.checked_shr(shift).unwrap_or(0))
}

fn number_u32() -> impl Strategy<Value = u32> {
    number(32).prop_map(|value| value as u32)
}

fn stream_id() -> impl Strategy<Value = StreamId> {
    number(62).prop_map(StreamId)
}

fn direction() -> impl Strategy<Value = Direction> {
    any::<bool>().prop_map(|is_uni| if is_uni { Direction::Uni } else { Direction::Bi })
}

/// Byte strings, often where their length takes one byte more.
fn data() -> impl Strategy<Value = Bytes> {
    prop_oneof![6 => 0..40usize, 2 => 100..140usize, 1 => 16_350..16_400usize]
        .prop_flat_map(|len| any::<u8>().prop_map(move |byte| Bytes::from(vec![byte; len])))
}

/// As a sender gathers them: pieces that may be empty.
fn payload() -> impl Strategy<Value = Payload> {
    vec(data(), 1..4).prop_map(|pieces| {
        let mut payload = Payload::default();
        pieces.into_iter().for_each(|piece| payload.push(piece));
        payload
    })
}

fn reason() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=limits::REASON_BYTES_MAX / 4).prop_map(String::from_iter)
}

pub(super) fn handshake() -> impl Strategy<Value = HandshakeData> {
    let level =
        prop_oneof![Just(HandshakeLevel::Initial), Just(HandshakeLevel::Handshake), Just(HandshakeLevel::Traffic)];
    (level, number(15), data()).prop_map(|(level, offset, data)| HandshakeData { level, offset, data })
}

fn ack() -> impl Strategy<Value = Ack> {
    let ranges = vec((number(40), number(40)), 0..=limits::ACK_RANGES_MAX);
    (number_u32(), number(61), number(64), ranges).prop_map(|(lane_id, next, delay_us, ranges)| Ack {
        lane_id: LaneId(lane_id),
        next_packet_number: PacketNumber(next),
        delay_us,
        ranges: ranges.into_iter().map(|(gap, length)| (gap + 1, length + 1)).collect(),
    })
}

pub(super) fn frame() -> impl Strategy<Value = Frame> {
    let stream = (stream_id(), number(61), any::<bool>(), payload())
        .prop_map(|(stream_id, offset, fin, data)| Frame::Stream(StreamData { stream_id, offset, fin, data }));
    let streams = || number(60);
    prop_oneof![
        stream,
        (stream_id(), 0..8u8, any::<bool>()).prop_map(|(stream_id, priority, replay_safe)| Frame::StreamOpen {
            stream_id,
            priority,
            replay_safe
        }),
        (stream_id(), number(64), number(62)).prop_map(|(stream_id, code, final_size)| Frame::StreamReset {
            stream_id,
            code: StreamCode(code),
            final_size
        }),
        (stream_id(), number(64)).prop_map(|(stream_id, code)| Frame::StreamStop { stream_id, code: StreamCode(code) }),
        ack().prop_map(Frame::Ack),
        number(62).prop_map(|maximum| Frame::MaxData { maximum }),
        (stream_id(), number(62)).prop_map(|(stream_id, maximum)| Frame::MaxStreamData { stream_id, maximum }),
        (direction(), streams()).prop_map(|(direction, maximum)| Frame::MaxStreams { direction, maximum }),
        number(62).prop_map(|limit| Frame::DataBlocked { limit }),
        (stream_id(), number(62)).prop_map(|(stream_id, limit)| Frame::StreamDataBlocked { stream_id, limit }),
        (direction(), streams()).prop_map(|(direction, limit)| Frame::StreamsBlocked { direction, limit }),
        number(64).prop_map(|sequence| Frame::Ping { sequence }),
        (number(64), number(64)).prop_map(|(sequence, delay_us)| Frame::Pong { sequence, delay_us }),
        number_u32().prop_map(|epoch| Frame::KeyUpdate { epoch: Epoch(epoch) }),
        handshake().prop_map(Frame::Handshake),
        any::<[u8; 16]>().prop_map(|token| Frame::Accepted { reset_token: Secret::new(token) }),
        number_u32().prop_map(|maximum| Frame::MaxLanes { maximum }),
        (number_u32(), number(64))
            .prop_map(|(lane_id, code)| Frame::LaneClose { lane_id: LaneId(lane_id), code: CloseCode(code) }),
        (number(64), reason()).prop_map(|(code, reason)| Frame::Close { code: CloseCode(code), reason }),
        (number(64), reason()).prop_map(|(code, reason)| Frame::GoAway { code: CloseCode(code), reason }),
        any::<[u8; 16]>().prop_map(|nonce| Frame::JoinConfirm { nonce }),
        datagram().prop_map(Frame::Datagram),
        (any::<[u8; 10]>(), any::<[u8; 32]>(), "[!-~]{0,64}")
            .prop_map(|(id, half, name)| GuestCredential::new(&id, &[half, half].concat().try_into().unwrap(), &name))
            .prop_map(Frame::Guest),
    ]
}

/// Whole ones, and pieces from anywhere in a larger one.
fn datagram() -> impl Strategy<Value = Datagram> {
    let whole = (stream_id(), data()).prop_map(|(stream_id, data)| Datagram { stream_id, piece: None, data });
    let middle = (limits::DATAGRAM_PIECE_BYTES_MIN..1100, number(15), 1..1000u32)
        .prop_map(|(len, offset, rest)| (len, offset as u32, rest));
    let last = (1..40usize, 1..60_000u32).prop_map(|(len, offset)| (len, offset, 0));
    let piece = (stream_id(), number(62), prop_oneof![middle, last]).prop_map(|(stream_id, number, place)| {
        let (len, offset, rest) = place;
        let piece = DatagramPiece { number, size: offset + len as u32 + rest, offset };
        Datagram { stream_id, piece: Some(piece), data: Bytes::from(vec![5; len]) }
    });
    prop_oneof![whole, piece]
}

/// Frames that have room in one packet.
pub(super) fn frames() -> impl Strategy<Value = Vec<Frame>> {
    vec(frame(), 0..12).prop_map(|mut frames| {
        let mut room = limits::FRAME_MESSAGE_BYTES_MAX - crate::wire::packet_overhead_max();
        frames.retain(|frame| match room.checked_sub(frame.encoded_len()) {
            Some(rest) => {
                room = rest;
                true
            }
            None => false,
        });
        frames
    })
}

pub(super) fn head() -> impl Strategy<Value = Head> {
    let session_id = proptest::option::of(any::<[u8; 16]>().prop_map(SessionId));
    (number_u32(), session_id, number_u32(), number_u32(), number(62)).prop_map(
        |(version, session_id, lane_id, epoch, packet_number)| Head {
            version,
            session_id,
            lane_id: LaneId(lane_id),
            epoch: Epoch(epoch),
            packet_number: PacketNumber(packet_number),
        },
    )
}

pub(super) fn clear_message() -> impl Strategy<Value = ClearMessage> {
    let join = (
        number_u32(),
        any::<[u8; 16]>(),
        vec(any::<u8>(), 0..=64),
        1..=limits::LANES_MAX,
        any::<[u8; 32]>(),
        lane_usage(),
    )
        .prop_map(|(kind, nonce, binding, lane_count, mac, usage)| Join {
            kind,
            nonce,
            channel_binding: binding.into(),
            lane_count,
            mac,
            usage,
        });
    let parameters = || vec(any::<u8>(), 0..=limits::CONTROL_MESSAGE_BYTES_MAX).prop_map(Bytes::from);
    prop_oneof![
        handshake().prop_map(ClearMessage::Handshake),
        join.prop_map(ClearMessage::Join),
        (any::<[u8; 16]>(), any::<[u8; 32]>()).prop_map(|(nonce, mac)| ClearMessage::Joined(Joined { nonce, mac })),
        parameters().prop_map(ClearMessage::Start),
        parameters().prop_map(ClearMessage::Started),
        vec(number_u32(), 0..=limits::VERSIONS_MAX).prop_map(ClearMessage::VersionList),
        Just(ClearMessage::Refused),
        any::<[u8; 16]>().prop_map(ClearMessage::SessionReset),
    ]
}

fn lane_usage() -> impl Strategy<Value = LaneUsage> {
    let roles = prop_oneof![Just(LaneRole::Active), Just(LaneRole::Standby)];
    (1..=limits::LANE_WEIGHT_MAX, 0..=limits::LANE_PRIORITY_MAX, roles).prop_map(|(weight, priority, role)| LaneUsage {
        weight,
        priority,
        role,
    })
}

pub(super) fn padding() -> impl Strategy<Value = PaddingPolicy> {
    prop_oneof![
        Just(PaddingPolicy::None),
        Just(PaddingPolicy::Block32),
        Just(PaddingPolicy::Block48),
        Just(PaddingPolicy::Block64),
        Just(PaddingPolicy::Padme),
        any::<u16>().prop_map(PaddingPolicy::Constant),
    ]
}

pub(super) fn transport_parameters() -> impl Strategy<Value = TransportParameters> {
    let credits = (number(60), number(60), number(60), number(60));
    let sizes = (
        1..=u32::MAX,
        limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX as u32..=limits::FRAME_MESSAGE_BYTES_MAX as u32,
    );
    let times = (number(64), number(64), number(64));
    let versions = vec(number_u32(), 0..=limits::VERSIONS_MAX);
    let last = (lane_usage(), number_u32());
    (versions, any::<[u8; 16]>(), credits, sizes, times, "[ -~]{0,64}", last).prop_map(
        |(versions, session_id, credits, sizes, times, software, last)| TransportParameters {
            versions,
            session_id: SessionId(session_id),
            max_data: credits.0,
            max_stream_data: credits.1,
            max_streams_bi: credits.2,
            max_streams_uni: credits.3,
            max_lanes: sizes.0,
            packet_bytes_max: sizes.1,
            ack_delay_max: Duration::from_micros(times.0),
            idle_timeout: Duration::from_millis(times.1),
            survive: Duration::from_millis(times.2),
            software,
            first_lane: last.0,
            datagram_bytes_max: last.1,
        },
    )
}

pub(super) fn service_request() -> impl Strategy<Value = ServiceRequest> {
    let trace = (1..=u128::MAX, 1..=u64::MAX, any::<u8>()).prop_map(|(trace_id, span_id, flags)| TraceContext {
        trace_id: trace_id.to_be_bytes(),
        span_id: span_id.to_be_bytes(),
        flags,
    });
    ("[ -~]{1,64}", "[ -~]{0,64}", "[ -~]{0,64}", any::<bool>(), prop::option::of(trace)).prop_map(
        |(service, source, destination, datagrams, trace)| ServiceRequest {
            service,
            source,
            destination,
            datagrams,
            trace,
        },
    )
}

pub(super) fn enroll_request() -> impl Strategy<Value = EnrollRequest> {
    (any::<[u8; 10]>(), "[ -~]{0,64}", vec(any::<u8>(), 1..=2048), any::<[u8; 32]>()).prop_map(
        |(token_id, name, certificate_request, half)| {
            let proof = std::array::from_fn(|index| half[index % 32]);
            EnrollRequest { token_id, name, certificate_request, proof }
        },
    )
}

pub(super) fn enroll_answer() -> impl Strategy<Value = EnrollAnswer> {
    let der = || vec(any::<u8>(), 1..2000);
    let issued = (der(), der(), vec("[ -~]{0,300}", 0..=limits::HUB_ADDRESSES_MAX))
        .prop_map(|(certificate, authority, addresses)| EnrollAnswer::Issued { certificate, authority, addresses });
    prop_oneof![4 => issued, 1 => Just(EnrollAnswer::Refused), 1 => Just(EnrollAnswer::Unavailable)]
}

pub(super) fn renew_request() -> impl Strategy<Value = RenewRequest> {
    (vec(any::<u8>(), 1..=2048), any::<u64>())
        .prop_map(|(certificate_request, denylist_version)| RenewRequest { certificate_request, denylist_version })
}

pub(super) fn renew_answer() -> impl Strategy<Value = RenewAnswer> {
    let der = || vec(any::<u8>(), 1..2000);
    let issued = (der(), vec(der(), 1..=limits::TRUST_ANCHORS_MAX), vec(any::<u8>(), 0..3000))
        .prop_map(|(certificate, anchors, denylist)| RenewAnswer::Issued { certificate, anchors, denylist });
    prop_oneof![4 => issued, 1 => Just(RenewAnswer::Refused), 1 => Just(RenewAnswer::Unavailable)]
}

pub(super) fn denylist() -> impl Strategy<Value = DenylistBody> {
    let names = proptest::collection::btree_set("[a-z]{1,64}", 0..20);
    let keys = proptest::collection::btree_set(any::<[u8; 32]>(), 0..20);
    ("[a-z.]{0,255}", any::<u64>(), names, keys).prop_map(|(trust_domain, version, names, keys)| DenylistBody {
        trust_domain,
        version,
        names: names.into_iter().collect(),
        keys: keys.into_iter().collect(),
    })
}

/// Bytes that are nearly a message: fields of any number and type, some within others.
pub(super) fn protobuf_like() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        4 => number(64).prop_map(|value| {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            (0u8, out.to_vec())
        }),
        1 => any::<[u8; 8]>().prop_map(|bytes| (1, bytes.to_vec())),
        4 => prop_oneof![vec(any::<u8>(), 0..20), Just(vec![7; 16]), Just(vec![7; 32])]
            .prop_map(|bytes| (2, delimited(&bytes))),
        1 => any::<[u8; 4]>().prop_map(|bytes| (5, bytes.to_vec())),
        1 => (3..8u8).prop_map(|wire_type| (wire_type, Vec::new())),
    ];
    let field = |value: BoxedStrategy<(u8, Vec<u8>)>| {
        (0..24u64, value).prop_map(|(number, (wire_type, value))| {
            let mut out = BytesMut::new();
            put_varint(&mut out, number << 3 | u64::from(wire_type));
            out.extend_from_slice(&value);
            out.to_vec()
        })
    };
    vec(field(value.boxed()), 0..6).prop_map(|fields| fields.concat()).prop_recursive(3, 40, 4, move |inner| {
        vec(field(inner.prop_map(|bytes| (2, delimited(&bytes))).boxed()), 0..4).prop_map(|fields| fields.concat())
    })
}

/// Changes to bytes that were right: where, what, and how.
pub(super) fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..4)
}

/// Applies [`mutations`].
pub(super) fn mutate(bytes: &mut Vec<u8>, mutations: &[(prop::sample::Index, u8, u8)]) {
    for (index, value, how) in mutations {
        if bytes.is_empty() {
            return;
        }
        let index = index.index(bytes.len());
        match how {
            0 => bytes[index] = *value,
            1 => bytes[index] ^= 1 << (value % 8),
            2 => bytes.insert(index, *value),
            _ => drop(bytes.remove(index)),
        }
    }
}

/// The bytes with their length in front.
pub(super) fn delimited(bytes: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_varint(&mut out, bytes.len() as u64);
    out.put_slice(bytes);
    out.to_vec()
}
