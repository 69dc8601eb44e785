//! Frames: the typed items inside a packet. `proto/longhaul.proto` says what each means and who may send it.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::WireError;
use super::fields::{FieldReader, Fields, Schema, Value, bit};
use super::guest::GuestCredential;
use super::payload::Payload;
use super::varint::{bytes_field_len, put_varint, uint_field_len, varint_len};
use crate::base::{CloseCode, Direction, Epoch, LaneId, PacketNumber, Secret, StreamCode, StreamId, limits};

/// The most that a [`StreamData`] adds to its data: keys, sizes, and numbers below 2^62.
pub const STREAM_DATA_OVERHEAD_MAX: usize = 2 * (1 + 4) + (1 + 4) + (1 + 9) + (1 + 9) + 2 + (1 + 4);

/// The most that a [`Datagram`] in pieces adds to the data of each: keys, sizes, and numbers below their bounds. A whole
/// one adds less.
pub const DATAGRAM_OVERHEAD_MAX: usize = (1 + 4) + (2 + 4) + (1 + 9) + (1 + 9) + 2 * (1 + 3) + (1 + 4);

/// Numbers among the kinds of frames.
const STREAM_KIND: u32 = 1;
const ACK_KIND: u32 = 5;
const DATAGRAM_KIND: u32 = 22;

/// Classes of priority on the wire.
const PRIORITY_MAX: u64 = 7;

/// Ids, offsets and numbers are below this.
const NUMBER_END: u64 = 1 << 62;

/// The protection level of handshake bytes (RFC 9001 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HandshakeLevel {
    /// In the clear.
    Initial = 0,
    /// Sealed by the handshake keys.
    Handshake = 1,
    /// Sealed by the traffic keys.
    Traffic = 2,
}

/// TLS handshake messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeData {
    /// Which keys protect them.
    pub level: HandshakeLevel,
    /// Position among the bytes of the level.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
}

/// Bytes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamData {
    /// The stream.
    pub stream_id: StreamId,
    /// Position of the first byte.
    pub offset: u64,
    /// The stream ends after these bytes.
    pub fin: bool,
    /// The bytes.
    pub data: Payload,
}

/// A datagram, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The stream that it belongs to.
    pub stream_id: StreamId,
    /// Where the piece belongs; `None` for a whole datagram.
    pub piece: Option<DatagramPiece>,
    /// The bytes.
    pub data: Bytes,
}

impl Datagram {
    /// Size of the frame of a whole datagram of `size` bytes inside a packet, key and length included.
    #[must_use]
    pub fn whole_len(stream_id: StreamId, size: usize) -> usize {
        field_len(DATAGRAM_KIND, uint_field_len(stream_id.0) + bytes_field_len(size))
    }
}

/// Where a piece of a datagram belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramPiece {
    /// Which of the datagrams that the sender has cut.
    pub number: u64,
    /// Size of the whole, in bytes.
    pub size: u32,
    /// Position of the piece's first byte.
    pub offset: u32,
}

/// Packets of one lane that were received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The lane.
    pub lane_id: LaneId,
    /// All packets below were received.
    pub next_packet_number: PacketNumber,
    /// How long the newest was held back, in microseconds.
    pub delay_us: u64,
    /// Above that: packets missing, then packets received.
    pub ranges: Vec<(u64, u64)>,
}

/// An item inside a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are documented in proto/longhaul.proto")]
pub enum Frame {
    Stream(StreamData),
    StreamOpen { stream_id: StreamId, priority: u8, replay_safe: bool },
    StreamReset { stream_id: StreamId, code: StreamCode, final_size: u64 },
    StreamStop { stream_id: StreamId, code: StreamCode },
    Ack(Ack),
    MaxData { maximum: u64 },
    MaxStreamData { stream_id: StreamId, maximum: u64 },
    MaxStreams { direction: Direction, maximum: u64 },
    DataBlocked { limit: u64 },
    StreamDataBlocked { stream_id: StreamId, limit: u64 },
    StreamsBlocked { direction: Direction, limit: u64 },
    Ping { sequence: u64 },
    Pong { sequence: u64, delay_us: u64 },
    KeyUpdate { epoch: Epoch },
    Handshake(HandshakeData),
    Accepted { reset_token: Secret<16> },
    MaxLanes { maximum: u32 },
    LaneClose { lane_id: LaneId, code: CloseCode },
    Close { code: CloseCode, reason: String },
    GoAway { code: CloseCode, reason: String },
    JoinConfirm { nonce: [u8; 16] },
    Datagram(Datagram),
    Guest(GuestCredential),
}

/// A frame seen as protobuf fields: up to four varints, then at most one byte string.
struct Parts<'a> {
    kind: u32,
    varints: [(u32, u64); 4],
    bytes: Option<(u32, ByteString<'a>)>,
}

/// A byte string in one piece or more.
#[derive(Clone, Copy)]
enum ByteString<'a> {
    One(&'a [u8]),
    Many(&'a Payload),
}

impl ByteString<'_> {
    fn len(self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Many(payload) => payload.len(),
        }
    }

    fn put(self, out: &mut BytesMut) {
        match self {
            Self::One(bytes) => out.extend_from_slice(bytes),
            Self::Many(payload) => payload.pieces().for_each(|piece| out.extend_from_slice(piece)),
        }
    }
}

impl Frame {
    /// Size inside a packet, key and length included.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let body = self.body_len();
        field_len(self.kind(), body)
    }

    /// Appends the frame as a field of a packet.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let body = self.body_len();
        out.put_u8(1 << 3 | 2);
        put_varint(out, (varint_len(u64::from(self.kind()) << 3) + varint_len(body as u64) + body) as u64);
        put_varint(out, u64::from(self.kind() << 3 | 2));
        put_varint(out, body as u64);
        let parts = self.parts();
        for (number, value) in parts.varints {
            if value != 0 {
                put_varint(out, u64::from(number << 3));
                put_varint(out, value);
            }
        }
        if let Frame::Ack(ack) = self {
            for &(gap, length) in &ack.ranges {
                out.put_u8(4 << 3 | 2);
                put_varint(out, range_len(gap, length) as u64);
                for (number, value) in [(1, gap), (2, length)] {
                    put_varint(out, number << 3);
                    put_varint(out, value);
                }
            }
        }
        if let Some((number, bytes)) = parts.bytes
            && bytes.len() > 0
        {
            put_varint(out, u64::from(number << 3 | 2));
            put_varint(out, bytes.len() as u64);
            bytes.put(out);
        }
    }

    fn kind(&self) -> u32 {
        match self {
            Self::Stream(_) => STREAM_KIND,
            Self::Ack(_) => ACK_KIND,
            other => other.parts().kind,
        }
    }

    fn body_len(&self) -> usize {
        // Most packets have these and no others, and are measured twice.
        match self {
            Self::Stream(StreamData { stream_id, offset, fin, data }) => {
                let position = uint_field_len(stream_id.0) + uint_field_len(*offset);
                return position + uint_field_len(u64::from(*fin)) + bytes_field_len(data.len());
            }
            Self::Ack(Ack { lane_id, next_packet_number, delay_us, ranges }) if ranges.is_empty() => {
                let what = uint_field_len(u64::from(lane_id.0)) + uint_field_len(next_packet_number.0);
                return what + uint_field_len(*delay_us);
            }
            _ => {}
        }
        let parts = self.parts();
        let varints: usize = parts.varints.iter().map(|(_, value)| uint_field_len(*value)).sum();
        let bytes = parts.bytes.map_or(0, |(_, bytes)| bytes_field_len(bytes.len()));
        let ranges: usize = match self {
            Frame::Ack(ack) => ack.ranges.iter().map(|&(gap, length)| 2 + range_len(gap, length)).sum(),
            _ => 0,
        };
        varints + bytes + ranges
    }

    #[inline]
    fn parts(&self) -> Parts<'_> {
        const NONE: (u32, u64) = (0, 0);
        let varints = |kind, [a, b, c]: [_; 3]| Parts { kind, varints: [a, b, c, NONE], bytes: None };
        let one = |number, bytes| Some((number, ByteString::One(bytes)));
        match self {
            Self::Stream(frame) => Parts {
                kind: STREAM_KIND,
                varints: [(1, frame.stream_id.0), (2, frame.offset), (3, u64::from(frame.fin)), NONE],
                bytes: Some((4, ByteString::Many(&frame.data))),
            },
            Self::StreamOpen { stream_id, priority, replay_safe } => {
                varints(2, [(1, stream_id.0), (2, u64::from(*priority)), (3, u64::from(*replay_safe))])
            }
            Self::StreamReset { stream_id, code, final_size } => {
                varints(3, [(1, stream_id.0), (2, code.0), (3, *final_size)])
            }
            Self::StreamStop { stream_id, code } => varints(4, [(1, stream_id.0), (2, code.0), NONE]),
            Self::Ack(ack) => {
                varints(ACK_KIND, [(1, u64::from(ack.lane_id.0)), (2, ack.next_packet_number.0), (3, ack.delay_us)])
            }
            Self::MaxData { maximum } => varints(6, [(1, *maximum), NONE, NONE]),
            Self::MaxStreamData { stream_id, maximum } => varints(7, [(1, stream_id.0), (2, *maximum), NONE]),
            Self::MaxStreams { direction, maximum } => {
                varints(8, [(1, u64::from(*direction == Direction::Uni)), (2, *maximum), NONE])
            }
            Self::DataBlocked { limit } => varints(9, [(1, *limit), NONE, NONE]),
            Self::StreamDataBlocked { stream_id, limit } => varints(10, [(1, stream_id.0), (2, *limit), NONE]),
            Self::StreamsBlocked { direction, limit } => {
                varints(11, [(1, u64::from(*direction == Direction::Uni)), (2, *limit), NONE])
            }
            Self::Ping { sequence } => varints(12, [(1, *sequence), NONE, NONE]),
            Self::Pong { sequence, delay_us } => varints(13, [(1, *sequence), (2, *delay_us), NONE]),
            Self::KeyUpdate { epoch } => varints(14, [(1, u64::from(epoch.0)), NONE, NONE]),
            Self::Handshake(frame) => Parts {
                kind: 15,
                varints: [(1, frame.level as u64), (2, frame.offset), NONE, NONE],
                bytes: one(3, &frame.data),
            },
            Self::Accepted { reset_token } => {
                Parts { kind: 16, varints: [NONE; 4], bytes: one(1, reset_token.expose()) }
            }
            Self::MaxLanes { maximum } => varints(17, [(1, u64::from(*maximum)), NONE, NONE]),
            Self::LaneClose { lane_id, code } => varints(18, [(1, u64::from(lane_id.0)), (2, code.0), NONE]),
            Self::Close { code, reason } => {
                Parts { kind: 19, varints: [(1, code.0), NONE, NONE, NONE], bytes: one(2, reason.as_bytes()) }
            }
            Self::GoAway { code, reason } => {
                Parts { kind: 20, varints: [(1, code.0), NONE, NONE, NONE], bytes: one(2, reason.as_bytes()) }
            }
            Self::JoinConfirm { nonce } => Parts { kind: 21, varints: [NONE; 4], bytes: one(1, nonce) },
            Self::Guest(credential) => Parts { kind: 26, varints: [NONE; 4], bytes: one(1, credential.as_bytes()) },
            Self::Datagram(Datagram { stream_id, piece, data }) => {
                let (number, size, offset) = piece.map_or((0, 0, 0), |piece| (piece.number, piece.size, piece.offset));
                Parts {
                    kind: DATAGRAM_KIND,
                    varints: [(1, stream_id.0), (2, number), (3, u64::from(size)), (4, u64::from(offset))],
                    bytes: one(5, data),
                }
            }
        }
    }

    /// Reads a frame: the content of the field `frame` of a packet. Byte strings are slices of `packet`, in which the
    /// frame begins at `start`.
    pub(super) fn decode(packet: &Bytes, start: usize, end: usize) -> Result<Self, WireError> {
        let mut reader = FieldReader::new(&packet[start..end]);
        let Some((kind, value)) = reader.next()? else { return Err(WireError::Missing("kind of a frame")) };
        let Value::Bytes(body) = value else { return Err(WireError::WireType(kind)) };
        if reader.next()?.is_some() {
            return Err(WireError::TooMany("kinds of a frame"));
        }
        let start = start + body.start;
        let body = packet.slice(start..start + body.len());
        Self::decode_body(kind, &body)
    }

    fn decode_body(kind: u64, body: &Bytes) -> Result<Self, WireError> {
        const ONE: Schema = Schema::varints(bit(1));
        const TWO: Schema = Schema::varints(bit(1) | bit(2));
        const THREE: Schema = Schema::varints(bit(1) | bit(2) | bit(3));
        const TOKEN: Schema = Schema { bytes: bit(1), ..Schema::varints(0) };
        const REASON: Schema = Schema { bytes: bit(2), ..Schema::varints(bit(1)) };
        let read = |schema| Fields::read(body, schema);
        Ok(match kind {
            1 => {
                let fields = read(Schema { bytes: bit(4), last: bit(4), ..THREE })?;
                let data = body.slice(fields.range(4));
                let offset = bounded(fields.varint(2), "offset")?;
                bounded(offset + data.len() as u64, "offset")?;
                let (stream_id, fin) = (stream_id(&fields)?, fields.flag(3, "fin")?);
                Self::Stream(StreamData { stream_id, offset, fin, data: data.into() })
            }
            2 => {
                let fields = read(THREE)?;
                let priority = fields.varint(2);
                if priority > PRIORITY_MAX {
                    return Err(WireError::Range("priority"));
                }
                let replay_safe = fields.flag(3, "replay safe")?;
                Self::StreamOpen { stream_id: stream_id(&fields)?, priority: priority as u8, replay_safe }
            }
            3 => {
                let fields = read(THREE)?;
                let final_size = bounded(fields.varint(3), "final size")?;
                Self::StreamReset { stream_id: stream_id(&fields)?, code: StreamCode(fields.varint(2)), final_size }
            }
            4 => {
                let fields = read(TWO)?;
                Self::StreamStop { stream_id: stream_id(&fields)?, code: StreamCode(fields.varint(2)) }
            }
            5 => Self::Ack(decode_ack(body)?),
            6 => Self::MaxData { maximum: bounded(read(ONE)?.varint(1), "maximum")? },
            7 => {
                let fields = read(TWO)?;
                Self::MaxStreamData { stream_id: stream_id(&fields)?, maximum: bounded(fields.varint(2), "maximum")? }
            }
            8 => {
                let fields = read(TWO)?;
                Self::MaxStreams { direction: direction(&fields)?, maximum: streams(fields.varint(2))? }
            }
            9 => Self::DataBlocked { limit: bounded(read(ONE)?.varint(1), "limit")? },
            10 => {
                let fields = read(TWO)?;
                Self::StreamDataBlocked { stream_id: stream_id(&fields)?, limit: bounded(fields.varint(2), "limit")? }
            }
            11 => {
                let fields = read(TWO)?;
                Self::StreamsBlocked { direction: direction(&fields)?, limit: streams(fields.varint(2))? }
            }
            12 => Self::Ping { sequence: read(ONE)?.varint(1) },
            13 => {
                let fields = read(TWO)?;
                Self::Pong { sequence: fields.varint(1), delay_us: fields.varint(2) }
            }
            14 => Self::KeyUpdate { epoch: Epoch(read(ONE)?.varint_u32(1, "epoch")?) },
            15 => Self::Handshake(decode_handshake(body, true)?),
            16 => Self::Accepted { reset_token: Secret::new(array(body, &read(TOKEN)?, 1, "reset token")?) },
            17 => Self::MaxLanes { maximum: read(ONE)?.varint_u32(1, "maximum")? },
            18 => {
                let fields = read(TWO)?;
                let lane_id = LaneId(fields.varint_u32(1, "lane id")?);
                Self::LaneClose { lane_id, code: CloseCode(fields.varint(2)) }
            }
            19 => {
                let fields = read(REASON)?;
                Self::Close { code: CloseCode(fields.varint(1)), reason: reason(body, &fields)? }
            }
            20 => {
                let fields = read(REASON)?;
                Self::GoAway { code: CloseCode(fields.varint(1)), reason: reason(body, &fields)? }
            }
            21 => Self::JoinConfirm { nonce: array(body, &read(TOKEN)?, 1, "nonce")? },
            22 => Self::Datagram(decode_datagram(body)?),
            26 => Self::Guest(GuestCredential::decode(&body[read(TOKEN)?.range(1)])?),
            other => return Err(WireError::UnknownField(other)),
        })
    }
}

fn decode_datagram(body: &Bytes) -> Result<Datagram, WireError> {
    const SCHEMA: Schema = Schema { bytes: bit(5), last: bit(5), ..Schema::varints(bit(1) | bit(2) | bit(3) | bit(4)) };
    let fields = Fields::read(body, SCHEMA)?;
    let data = body.slice(fields.range(5));
    let number = bounded(fields.varint(2), "number of a datagram")?;
    let (size, offset) = (fields.varint(3), fields.varint(4));
    let stream_id = stream_id(&fields)?;
    if size == 0 {
        if data.len() > limits::DATAGRAM_BYTES_MAX || number != 0 || offset != 0 {
            return Err(WireError::Range("datagram"));
        }
        return Ok(Datagram { stream_id, piece: None, data });
    }
    let len = data.len() as u64;
    let end = offset.saturating_add(len);
    // Pieces of any size would cost far more to keep than what they carry.
    let is_small = len < limits::DATAGRAM_PIECE_BYTES_MIN as u64 && end != size;
    if size > limits::DATAGRAM_BYTES_MAX as u64 || end > size || len == 0 || len == size || is_small {
        return Err(WireError::Range("piece of a datagram"));
    }
    // Both are below the bound.
    let piece = DatagramPiece { number, size: size as u32, offset: offset as u32 };
    Ok(Datagram { stream_id, piece: Some(piece), data })
}

/// Reads handshake bytes, in a frame (`is_open`) or in the clear, where everything has to be known.
pub(super) fn decode_handshake(body: &Bytes, is_open: bool) -> Result<HandshakeData, WireError> {
    let schema = Schema { bytes: bit(3), last: bit(3), is_open, ..Schema::varints(bit(1) | bit(2)) };
    let fields = Fields::read(body, schema)?;
    let level = match fields.varint(1) {
        0 => HandshakeLevel::Initial,
        1 => HandshakeLevel::Handshake,
        2 => HandshakeLevel::Traffic,
        _ => return Err(WireError::Range("handshake level")),
    };
    let offset = fields.varint(2);
    let data = body.slice(fields.range(3));
    let offset_max = (limits::HANDSHAKE_BYTES_PER_LEVEL_MAX as u64).saturating_sub(data.len() as u64);
    if offset > offset_max {
        return Err(WireError::Range("offset"));
    }
    Ok(HandshakeData { level, offset, data })
}

/// The size of the body of handshake bytes.
pub(super) fn handshake_len(frame: &HandshakeData) -> usize {
    Frame::Handshake(frame.clone()).body_len()
}

/// A byte string of a fixed size.
pub(super) fn array<const N: usize>(
    body: &[u8],
    fields: &Fields,
    number: u32,
    name: &'static str,
) -> Result<[u8; N], WireError> {
    body[fields.range(number)].try_into().map_err(|_| WireError::Range(name))
}

fn decode_ack(body: &Bytes) -> Result<Ack, WireError> {
    // The ranges are the one repeated field among the frames, so an ack reads its fields itself.
    let mut reader = FieldReader::new(body);
    let mut varints = [None; 4];
    let mut ranges = Vec::new();
    let mut unknown_count = 0;
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1..=3, Value::Varint(value)) => {
                if varints[number as usize].replace(value).is_some() {
                    return Err(WireError::Duplicate(number));
                }
            }
            (4, Value::Bytes(range)) => {
                if ranges.len() == limits::ACK_RANGES_MAX {
                    return Err(WireError::TooMany("ranges"));
                }
                let fields = Fields::read(&body[range], Schema::varints(bit(1) | bit(2)))?;
                let (gap, length) = (bounded(fields.varint(1), "gap")?, bounded(fields.varint(2), "length")?);
                if gap == 0 || length == 0 {
                    return Err(WireError::Range("gap or length"));
                }
                ranges.push((gap, length));
            }
            (1..=4, _) => return Err(WireError::WireType(number)),
            _ => {
                unknown_count += 1;
                if unknown_count > limits::UNKNOWN_FIELDS_MAX {
                    return Err(WireError::TooManyUnknown);
                }
            }
        }
    }
    let next_packet_number = varints[2].unwrap_or(0);
    if next_packet_number > NUMBER_END {
        return Err(WireError::Range("packet number"));
    }
    let total =
        ranges.iter().try_fold(next_packet_number, |at: u64, (gap, length)| at.checked_add(*gap)?.checked_add(*length));
    if total.is_none_or(|total| total > NUMBER_END) {
        return Err(WireError::Range("ranges"));
    }
    Ok(Ack {
        lane_id: LaneId(u32::try_from(varints[1].unwrap_or(0)).map_err(|_| WireError::Range("lane id"))?),
        next_packet_number: PacketNumber(next_packet_number),
        delay_us: varints[3].unwrap_or(0),
        ranges,
    })
}

/// Size of a frame as a field of a packet, by the size of its body.
fn field_len(kind: u32, body: usize) -> usize {
    varint_len(u64::from(kind) << 3) + varint_len(body as u64) + body + frame_key_len(kind, body)
}

fn frame_key_len(kind: u32, body: usize) -> usize {
    1 + varint_len((varint_len(u64::from(kind) << 3) + varint_len(body as u64) + body) as u64)
}

fn range_len(gap: u64, length: u64) -> usize {
    2 + varint_len(gap) + varint_len(length)
}

fn bounded(value: u64, name: &'static str) -> Result<u64, WireError> {
    if value < NUMBER_END { Ok(value) } else { Err(WireError::Range(name)) }
}

/// Stream ids are below 2^62, so there are at most 2^60 streams of a kind.
fn streams(count: u64) -> Result<u64, WireError> {
    if count <= NUMBER_END >> 2 { Ok(count) } else { Err(WireError::Range("count of streams")) }
}

fn stream_id(fields: &Fields) -> Result<StreamId, WireError> {
    bounded(fields.varint(1), "stream id").map(StreamId)
}

fn direction(fields: &Fields) -> Result<Direction, WireError> {
    Ok(if fields.flag(1, "unidirectional")? { Direction::Uni } else { Direction::Bi })
}

fn reason(body: &[u8], fields: &Fields) -> Result<String, WireError> {
    if fields.range(2).len() > limits::REASON_BYTES_MAX {
        return Err(WireError::Range("reason"));
    }
    fields.text(body, 2, "reason")
}
