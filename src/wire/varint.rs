//! Protobuf's base-128 varints, minimal on both sides.

use bytes::{BufMut, BytesMut};

use super::error::WireError;

/// Longest varint of 64 bits.
const VARINT_BYTES_MAX: usize = 10;

/// Size of a varint, in bytes.
#[inline]
pub(super) const fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Size of a varint field with a number below 16; one of 0 is left out.
#[inline]
pub(super) const fn uint_field_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// Size of a byte string of `size` bytes as a field with a number below 16; an empty one is left out.
#[inline]
pub(super) const fn bytes_field_len(size: usize) -> usize {
    if size == 0 { 0 } else { 1 + varint_len(size as u64) + size }
}

/// Appends a varint.
#[inline]
pub(super) fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Reads a varint off the front: its value and its size, or `None` when more bytes are needed.
#[inline]
pub(super) fn read_varint(data: &[u8]) -> Result<Option<(u64, usize)>, WireError> {
    match data {
        [first, ..] if *first < 0x80 => return Ok(Some((u64::from(*first), 1))),
        _ => {}
    }
    let mut value = 0;
    for (index, byte) in data.iter().take(VARINT_BYTES_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            let is_minimal = index == 0 || *byte != 0;
            let fits = index + 1 < VARINT_BYTES_MAX || *byte == 1;
            return if is_minimal && fits { Ok(Some((value, index + 1))) } else { Err(WireError::Varint) };
        }
    }
    if data.len() >= VARINT_BYTES_MAX { Err(WireError::Varint) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_prost(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut ours = BytesMut::new();
            put_varint(&mut ours, value);
            let mut theirs = BytesMut::new();
            prost::encoding::encode_varint(value, &mut theirs);
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(varint_len(value), ours.len());
            prop_assert_eq!(read_varint(&ours), Ok(Some((value, ours.len()))));
            prop_assert_eq!(read_varint(&ours[..ours.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn overlong_and_endless_varints_are_refused() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0xff, 0x80, 0x00],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert_eq!(read_varint(bytes), Err(WireError::Varint), "{bytes:?}");
        }
    }
}
