//! Messages that nobody should write, field by field, and the readers that they are given to.

use bytes::BytesMut;

use super::strategies::delimited;
use crate::wire::varint::put_varint;
use crate::wire::{Body, Frame, FrameMessage, WireError, decode_message, decode_packet};

pub(super) fn message(fields: &[u8]) -> Result<FrameMessage, WireError> {
    let mut buffer = BytesMut::from(&delimited(fields)[..]);
    decode_message(&mut buffer, usize::MAX).map(|message| message.expect("the message is complete"))
}

/// A packet as its channel would bring it, so that its bytes pass the whole reader.
pub(super) fn packet(content: &[u8]) -> Result<Vec<Frame>, WireError> {
    let Body::Plain(content) = message(&bytes(11, content))?.body else { panic!("not a packet") };
    let mut frames = vec![Frame::Ping { sequence: 1 }];
    let result = decode_packet(&content, &mut frames);
    assert!(result.is_ok() || frames.is_empty());
    result.map(|()| frames)
}

pub(super) fn frame(kind: u64, body: &[u8]) -> Vec<u8> {
    bytes(1, &bytes(kind, body))
}

pub(super) fn bytes(number: u64, value: &[u8]) -> Vec<u8> {
    [key(number, 2), delimited(value)].concat()
}

pub(super) fn varint(number: u64, value: u64) -> Vec<u8> {
    [key(number, 0), delimiter(value)].concat()
}

pub(super) fn key(number: u64, wire_type: u64) -> Vec<u8> {
    delimiter(number << 3 | wire_type)
}

pub(super) fn delimiter(value: u64) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_varint(&mut out, value);
    out.to_vec()
}

pub(super) fn head_fields() -> [(u64, Vec<u8>); 5] {
    [(1, varint(1, 1)), (2, bytes(2, &[0; 16])), (3, varint(3, 0)), (4, varint(4, 1)), (5, varint(5, 1))]
}

/// Kind of frame and number of every varint field.
pub(super) fn varint_fields() -> impl Iterator<Item = (u64, u64)> {
    const COUNTS: [u64; 21] = [3, 2, 3, 2, 3, 1, 2, 2, 1, 2, 2, 1, 2, 1, 2, 0, 1, 2, 1, 1, 0];
    (1..).zip(COUNTS).flat_map(|(kind, count)| (1..=count).map(move |number| (kind, number)))
}

/// Number of the body, number of the field, and the field, for those in the clear that may come once and need not be
/// last.
pub(super) fn clear_fields() -> Vec<(u64, u64, Vec<u8>)> {
    let mut fields = vec![(8, 1, varint(1, 1)), (8, 2, varint(2, 0)), (12, 1, varint(1, 1)), (12, 4, varint(4, 1))];
    for (kind, number) in [(12, 2), (12, 3), (12, 5), (13, 1), (13, 2), (14, 1), (15, 1), (18, 1)] {
        fields.push((kind, number, bytes(number, &[0; 16])));
    }
    fields
}
