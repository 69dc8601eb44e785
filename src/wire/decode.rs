//! Splits messages off a lane's bytes and reads them.

use bytes::{Bytes, BytesMut};

use super::error::WireError;
use super::fields::{FieldReader, Fields, Schema, Value, bit};
use super::frame::{array, decode_handshake};
use super::message::{Body, FrameMessage, Head, Join, Joined, LaneRole, LaneUsage, Sealed};
use super::varint::{read_varint, varint_len};
use crate::base::{Epoch, LaneId, PacketNumber, SessionId, limits};

/// A lane's consecutive lanes, and its channel binding: bounds of a join.
const LANE_COUNT_MAX: u32 = limits::LANES_MAX;
const CHANNEL_BINDING_BYTES_MAX: usize = 64;

/// The size of the first message, delimiter included, once its delimiter is there.
///
/// # Errors
/// [`WireError`] when no message can begin so; it is known before more bytes are read.
pub fn message_size(buffer: &[u8], size_max: usize) -> Result<Option<usize>, WireError> {
    // A size that is allowed needs no more bytes than this: one that goes on is not waited for.
    let delimiter_max = varint_len(size_max.saturating_sub(1) as u64);
    if let Some(start) = buffer.get(..delimiter_max)
        && start.iter().all(|byte| *byte >= 0x80)
    {
        let size_min = 1u64.checked_shl(7 * delimiter_max as u32).ok_or(WireError::Varint)?;
        return Err(WireError::TooLong { size: size_min, size_max });
    }
    let Some((size, delimiter_len)) = read_varint(buffer)? else { return Ok(None) };
    if size > (size_max - delimiter_len.min(size_max)) as u64 {
        return Err(WireError::TooLong { size, size_max });
    }
    if size == 0 {
        return Err(WireError::Missing("body"));
    }
    Ok(Some(delimiter_len + size as usize))
}

/// Splits the first message off the front, without copying. `None` when it is not complete yet.
///
/// # Errors
/// [`WireError`]; the lane cannot be read on.
pub fn decode_message(buffer: &mut BytesMut, size_max: usize) -> Result<Option<FrameMessage>, WireError> {
    match message_size(buffer, size_max)? {
        Some(size) if size <= buffer.len() => decode(buffer.split_to(size)).map(Some),
        _ => Ok(None),
    }
}

fn decode(message: BytesMut) -> Result<FrameMessage, WireError> {
    let (_, delimiter_len) = read_varint(&message)?.ok_or(WireError::Truncated)?;
    let (head, kind, body) = decode_head(&message[delimiter_len..])?;
    let (start, end) = (delimiter_len + body.start, delimiter_len + body.end);
    let sealed = |message| Sealed { message, header_len: start };
    let body = match kind {
        7 | 9 | 10 if end - start < limits::SEAL_TAG_BYTES => return Err(WireError::Missing("tag")),
        7 => Body::SealedEarly(sealed(message)),
        9 => Body::SealedHandshake(sealed(message)),
        10 => Body::Sealed(sealed(message)),
        _ => decode_clear(kind, &message.freeze().slice(start..end))?,
    };
    Ok(FrameMessage { head, body })
}

/// Reads the fields in front of the body, which has to be the last one: its kind and where it lies.
fn decode_head(message: &[u8]) -> Result<(Head, u64, std::ops::Range<usize>), WireError> {
    let mut reader = FieldReader::new(message);
    let mut head = Head::default();
    let mut seen = 0u32;
    while let Some((number, value)) = reader.next()? {
        if (7..=18).contains(&number) {
            let Value::Bytes(range) = value else { return Err(WireError::WireType(number)) };
            return if range.end == message.len() {
                Ok((head, number, range))
            } else {
                Err(WireError::NotLast(number))
            };
        }
        if !(1..=5).contains(&number) {
            return Err(WireError::UnknownField(number));
        }
        if seen & bit(number as u32) != 0 {
            return Err(WireError::Duplicate(number));
        }
        seen |= bit(number as u32);
        match (number, value) {
            (1, Value::Varint(value)) => head.version = narrow(value, "version")?,
            (2, Value::Bytes(range)) => {
                head.session_id =
                    Some(SessionId(message[range].try_into().map_err(|_| WireError::Range("session id"))?));
            }
            (3, Value::Varint(value)) => head.lane_id = LaneId(narrow(value, "lane id")?),
            (4, Value::Varint(value)) => head.epoch = Epoch(narrow(value, "epoch")?),
            (5, Value::Varint(value)) if value <= PacketNumber::MAX.0 => head.packet_number = PacketNumber(value),
            (5, Value::Varint(_)) => return Err(WireError::Range("packet number")),
            _ => return Err(WireError::WireType(number)),
        }
    }
    Err(WireError::Missing("body"))
}

fn decode_clear(kind: u64, body: &Bytes) -> Result<Body, WireError> {
    let closed = |varints, bytes| Fields::read(body, Schema { bytes, is_open: false, ..Schema::varints(varints) });
    Ok(match kind {
        8 => Body::Handshake(decode_handshake(body, false)?),
        11 => Body::Plain(body.clone()),
        12 => {
            let fields = closed(bit(1) | bit(4) | bit(6) | bit(7) | bit(8), bit(2) | bit(3) | bit(5))?;
            let lane_count = fields.varint_u32(4, "lane count")?;
            if !(1..=LANE_COUNT_MAX).contains(&lane_count) {
                return Err(WireError::Range("lane count"));
            }
            let channel_binding = body.slice(fields.range(3));
            if channel_binding.len() > CHANNEL_BINDING_BYTES_MAX {
                return Err(WireError::Range("channel binding"));
            }
            Body::Join(Join {
                kind: fields.varint_u32(1, "kind")?,
                nonce: array(body, &fields, 2, "nonce")?,
                channel_binding,
                lane_count,
                mac: array(body, &fields, 5, "mac")?,
                usage: usage(&fields, [6, 7, 8])?,
            })
        }
        13 => {
            let fields = closed(0, bit(1) | bit(2))?;
            Body::Joined(Joined { nonce: array(body, &fields, 1, "nonce")?, mac: array(body, &fields, 2, "mac")? })
        }
        14 | 15 => {
            let fields = closed(0, bit(1))?;
            let parameters = body.slice(fields.range(1));
            if parameters.len() > limits::CONTROL_MESSAGE_BYTES_MAX {
                return Err(WireError::Range("parameters"));
            }
            if kind == 14 { Body::Start(parameters) } else { Body::Started(parameters) }
        }
        16 => {
            Fields::read(body, Schema { repeated: bit(1), is_open: false, ..Schema::varints(0) })?;
            Body::VersionList(versions(body)?)
        }
        17 => {
            closed(0, 0)?;
            Body::Refused
        }
        _ => Body::SessionReset(array(body, &closed(0, bit(1))?, 1, "token")?),
    })
}

/// How a lane is used: the fields with its weight, priority and role.
pub(super) fn usage(fields: &Fields, [weight, priority, role]: [u32; 3]) -> Result<LaneUsage, WireError> {
    let weight = fields.varint_u32(weight, "weight")?;
    if !(1..=limits::LANE_WEIGHT_MAX).contains(&weight) {
        return Err(WireError::Range("weight"));
    }
    let priority = fields.varint_u32(priority, "priority")?;
    if priority > limits::LANE_PRIORITY_MAX {
        return Err(WireError::Range("priority"));
    }
    let role = LaneRole::from_wire(fields.varint(role)).ok_or(WireError::Range("role"))?;
    Ok(LaneUsage { weight, priority, role })
}

/// The versions in a message's field 1: packed, or a field each, as protobuf allows. Other fields are left alone.
pub(super) fn versions(body: &[u8]) -> Result<Vec<u32>, WireError> {
    let mut versions = Vec::new();
    let mut reader = FieldReader::new(body);
    while let Some((number, value)) = reader.next()? {
        match value {
            _ if number != 1 => {}
            Value::Varint(value) => push_version(&mut versions, value)?,
            Value::Bytes(range) => {
                let mut packed = &body[range];
                while let Some((value, size)) = read_varint(packed)? {
                    push_version(&mut versions, value)?;
                    packed = &packed[size..];
                }
                if !packed.is_empty() {
                    return Err(WireError::Truncated);
                }
            }
            Value::Fixed => return Err(WireError::WireType(number)),
        }
    }
    Ok(versions)
}

fn push_version(versions: &mut Vec<u32>, value: u64) -> Result<(), WireError> {
    if versions.len() == limits::VERSIONS_MAX {
        return Err(WireError::TooMany("versions"));
    }
    versions.push(narrow(value, "version")?);
    Ok(())
}

fn narrow(value: u64, name: &'static str) -> Result<u32, WireError> {
    u32::try_from(value).map_err(|_| WireError::Range(name))
}
