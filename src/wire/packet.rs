//! The content of a packet: its frames.

use bytes::Bytes;

use super::error::WireError;
use super::fields::{FieldReader, Value};
use super::frame::Frame;
use crate::base::limits;

/// Reads the frames of a packet into `frames`, which is emptied first. Byte strings are slices of `content`.
///
/// # Errors
/// [`WireError`]; `frames` is empty then: a packet takes effect as a whole or not at all.
pub fn decode_packet(content: &Bytes, frames: &mut Vec<Frame>) -> Result<(), WireError> {
    frames.clear();
    let result = decode_frames(content, frames);
    if result.is_err() {
        frames.clear();
    }
    result
}

fn decode_frames(content: &Bytes, frames: &mut Vec<Frame>) -> Result<(), WireError> {
    let mut reader = FieldReader::new(content);
    let mut is_padded = false;
    let mut unknown_count = 0;
    while let Some((number, value)) = reader.next()? {
        if is_padded {
            return Err(WireError::NotLast(2));
        }
        match (number, value) {
            (1, Value::Bytes(range)) => {
                if frames.len() == limits::FRAMES_PER_PACKET_MAX {
                    return Err(WireError::TooMany("frames"));
                }
                frames.push(Frame::decode(content, range.start, range.end)?);
            }
            (2, Value::Bytes(_)) => is_padded = true,
            (1 | 2, _) => return Err(WireError::WireType(number)),
            _ => {
                unknown_count += 1;
                if unknown_count > limits::UNKNOWN_FIELDS_MAX {
                    return Err(WireError::TooManyUnknown);
                }
            }
        }
    }
    Ok(())
}
