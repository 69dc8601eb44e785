//! Which protocol a client begins with, where TLS and messages share a port.
//!
//! A TLS client begins with a record of the type *handshake* (22) and the version 3.x (RFC 8446 §5.1): the bytes 0x16 0x03.
//! As a message that would be one of 22 bytes whose first field has the key 0x03, which is field 0 as a group. No message
//! of protobuf has a field 0, and ours have no groups, so that the decoder refuses every message that begins so, whatever
//! follows, and no version of the protocol can come to begin so.

/// Whether what begins with `bytes` is TLS; `None` while both are possible.
#[must_use]
pub fn begins_tls(bytes: &[u8]) -> Option<bool> {
    match bytes {
        [] | [RECORD_HANDSHAKE] => None,
        [first, second, ..] => Some([*first, *second] == [RECORD_HANDSHAKE, RECORD_VERSION_MAJOR]),
        [_] => Some(false),
    }
}

/// The content type of a record with handshake messages (RFC 8446 §5.1).
const RECORD_HANDSHAKE: u8 = 22;

/// The first byte of a record's version: 3.1 in a first ClientHello, 3.3 in others (RFC 8446 §5.1).
const RECORD_VERSION_MAJOR: u8 = 3;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::base::{SessionId, limits};
    use crate::wire::{ClearMessage, Head, WireError, decode_message, encode_clear};

    #[test]
    fn two_bytes_tell_tls_from_messages() {
        assert_eq!(begins_tls(&[]), None);
        assert_eq!(begins_tls(&[0x16]), None);
        assert_eq!(begins_tls(&[0x16, 0x03]), Some(true));
        assert_eq!(begins_tls(&[0x16, 0x03, 0x01, 0x00]), Some(true));
        for first in (0..=u8::MAX).filter(|first| *first != 0x16) {
            assert_eq!(begins_tls(&[first]), Some(false), "{first}");
        }
        for second in (0..=u8::MAX).filter(|second| *second != 0x03) {
            assert_eq!(begins_tls(&[0x16, second]), Some(false), "{second}");
        }
    }

    #[test]
    fn nothing_that_begins_like_tls_is_a_message() {
        for third in 0..=u8::MAX {
            for fill in [0x00, 0x01, 0x03, 0x04, 0x0a, 0x52, 0x7f, 0xff] {
                let mut bytes = BytesMut::from(&[0x16, 0x03, third][..]);
                bytes.resize(64, fill);
                let outcome = decode_message(&mut bytes, limits::FRAME_MESSAGE_BYTES_MAX);
                assert!(outcome.is_err(), "{third} {fill}");
            }
        }
        let mut hello = BytesMut::from(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00][..]);
        hello.resize(600, 0);
        assert!(matches!(decode_message(&mut hello, limits::FRAME_MESSAGE_BYTES_MAX), Err(WireError::WireType(0))));
    }

    /// Messages of 22 bytes, which begin with the same first byte.
    #[test]
    fn a_message_as_long_as_the_first_byte_of_tls_is_one() {
        let head = Head { session_id: Some(SessionId([7; 16])), ..Head::default() };
        let mut message = BytesMut::new();
        encode_clear(&mut message, &Head { version: 1, ..head }, &ClearMessage::Refused);
        assert_eq!(message[0], 0x16, "{message:?}");
        assert_eq!(begins_tls(&message), Some(false));
    }
}
