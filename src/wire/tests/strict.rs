//! What protobuf leaves open and we refuse, each with its error: there is one way to write a message, and reading one
//! costs no more than its bytes.

use bytes::{Bytes, BytesMut};

use super::crafted::{bytes, clear_fields, delimiter, frame, head_fields, key, message, packet, varint, varint_fields};
use crate::base::limits;
use crate::wire::{Frame, ServiceRequest, WireError, decode_message, decode_packet, message_size};

const MAX: usize = limits::FRAME_MESSAGE_BYTES_MAX;
const OVERLONG_ZERO: [u8; 2] = [0x80, 0];

// ---- Amplification ----------------------------------------------------------------------------------------------

#[test]
fn a_packet_of_empty_frames_ends_at_the_first() {
    let content = [0x0a, 0].repeat(32 * 1024);
    assert_eq!(content.len(), 64 * 1024);
    assert_eq!(packet(&content), Err(WireError::Missing("kind of a frame")));
}

#[test]
fn a_packet_of_the_smallest_frames_ends_at_the_limit() {
    let ping = frame(12, &[]);
    let at_limit = ping.repeat(limits::FRAMES_PER_PACKET_MAX);
    assert_eq!(packet(&at_limit).map(|frames| frames.len()), Ok(limits::FRAMES_PER_PACKET_MAX));
    assert_eq!(packet(&[at_limit, ping.clone()].concat()), Err(WireError::TooMany("frames")));

    let mut frames = Vec::new();
    let many = Bytes::from(ping.repeat(16 * 1024));
    assert_eq!(decode_packet(&many, &mut frames), Err(WireError::TooMany("frames")));
    assert!(frames.is_empty() && frames.capacity() <= limits::FRAMES_PER_PACKET_MAX);
}

#[test]
fn ranges_end_at_the_limit() {
    let range = bytes(4, &[varint(1, 1), varint(2, 1)].concat());
    let ack = |count| packet(&frame(5, &range.repeat(count)));
    assert!(matches!(&ack(64).unwrap()[0], Frame::Ack(ack) if ack.ranges.len() == limits::ACK_RANGES_MAX));
    assert_eq!(ack(65), Err(WireError::TooMany("ranges")));
    assert_eq!(packet(&frame(5, &bytes(4, &[]).repeat(10_000))), Err(WireError::Range("gap or length")));
}

#[test]
fn versions_end_at_the_limit_packed_or_not() {
    for (list, is_right) in [
        (bytes(1, &[1; 16]), true),
        (bytes(1, &[1; 17]), false),
        (varint(1, 1).repeat(16), true),
        (varint(1, 1).repeat(17), false),
        ([bytes(1, &[1; 16]), varint(1, 1)].concat(), false),
        (bytes(1, &[1; 60_000]), false),
    ] {
        let expected = if is_right { Ok(()) } else { Err(WireError::TooMany("versions")) };
        assert_eq!(message(&bytes(16, &list)).map(drop), expected);
    }
    assert_eq!(message(&bytes(16, &bytes(1, &[0x80]))), Err(WireError::Truncated));
    assert_eq!(message(&bytes(16, &bytes(1, &OVERLONG_ZERO))), Err(WireError::Varint));
    assert_eq!(message(&bytes(16, &varint(1, 1 << 32))), Err(WireError::Range("version")));
    assert_eq!(message(&bytes(16, &[1 << 3 | 5, 0, 0, 0, 0])), Err(WireError::WireType(1)));
    assert_eq!(message(&bytes(16, &varint(2, 1))), Err(WireError::UnknownField(2)));
}

#[test]
fn nesting_is_not_followed() {
    let mut nested = Vec::new();
    for _ in 0..200 {
        nested = bytes(1, &nested);
    }
    // An unknown field is skipped whole; a known one holds no messages that would be read.
    assert_eq!(packet(&bytes(3, &nested)), Ok(vec![]));
    assert_eq!(packet(&frame(6, &nested)), Err(WireError::WireType(1)));
    for number in [1, 2, 3, 19] {
        for wire_type in [3, 4, 6, 7] {
            let groups = key(number, wire_type).repeat(1000);
            assert_eq!(packet(&groups), Err(WireError::WireType(number)), "{number} {wire_type}");
            assert_eq!(packet(&frame(6, &groups)), Err(WireError::WireType(number)), "{number} {wire_type}");
            assert_eq!(message(&groups), Err(WireError::WireType(number)), "{number} {wire_type}");
        }
    }
}

// ---- Sizes ------------------------------------------------------------------------------------------------------

#[test]
fn the_delimiter_alone_refuses_a_message() {
    assert_eq!(message_size(&[], MAX), Ok(None));
    assert_eq!(message_size(&[0], MAX), Err(WireError::Missing("body")));
    assert_eq!(message_size(&OVERLONG_ZERO, MAX), Err(WireError::Varint));
    for size in [MAX as u64 - 2, MAX as u64, (1 << 21) - 1] {
        let refused = WireError::TooLong { size, size_max: MAX };
        assert_eq!(message_size(&delimiter(size), MAX), Err(refused), "{size}");
        assert_eq!(decode_message(&mut BytesMut::from(&delimiter(size)[..]), MAX), Err(refused), "{size}");
    }
    assert_eq!(message_size(&delimiter(MAX as u64 - 3), MAX), Ok(Some(MAX)));
    let before = limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX;
    // Its delimiter takes two bytes.
    assert_eq!(message_size(&delimiter(before as u64 - 2), before), Ok(Some(before)));
    assert!(matches!(message_size(&delimiter(before as u64), before), Err(WireError::TooLong { .. })));
    for size_max in 0..3 {
        assert!(matches!(message_size(&[2], size_max), Err(WireError::TooLong { size: 2, .. })));
    }
}

/// A size that is allowed has no further byte to be waited for.
#[test]
fn a_delimiter_that_goes_on_is_refused_before_its_end() {
    let before = limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX;
    for (size_max, len) in [(MAX, 3), (before, 2), (limits::CONTROL_MESSAGE_BYTES_MAX, 2), (128, 1), (129, 2)] {
        // The least that a delimiter of more bytes can say: the same, wherever the bytes that are here end.
        let refused = WireError::TooLong { size: 1 << (7 * len), size_max };
        for byte in [0x80, 0xff] {
            assert_eq!(message_size(&vec![byte; len - 1], size_max), Ok(None), "{size_max}");
            for count in len..12 {
                assert_eq!(message_size(&vec![byte; count], size_max), Err(refused), "{size_max} {count}");
            }
        }
        for size in [1 << (7 * len), 1 << 32, u64::MAX >> 1, u64::MAX] {
            assert_eq!(message_size(&delimiter(size), size_max), Err(refused), "{size_max} {size}");
        }
    }
    assert_eq!(message_size(&[0xff; 10], usize::MAX), Err(WireError::Varint));
    assert!(matches!(ServiceRequest::decode(&[0xff; 2]), Err(WireError::TooLong { .. })));
}

#[test]
fn lengths_past_the_end_are_refused() {
    for size in [1, 1 << 16, 1 << 32, u64::MAX] {
        let past = |number| [key(number, 2), delimiter(size)].concat();
        assert_eq!(message(&past(11)), Err(WireError::Truncated), "{size}");
        assert_eq!(message(&past(2)), Err(WireError::Truncated), "{size}");
        assert_eq!(message(&bytes(14, &past(1))), Err(WireError::Truncated), "{size}");
        assert_eq!(packet(&past(1)), Err(WireError::Truncated), "{size}");
        assert_eq!(packet(&past(2)), Err(WireError::Truncated), "{size}");
        assert_eq!(packet(&bytes(1, &past(1))), Err(WireError::Truncated), "{size}");
        assert_eq!(packet(&frame(1, &past(4))), Err(WireError::Truncated), "{size}");
        assert_eq!(packet(&frame(5, &past(4))), Err(WireError::Truncated), "{size}");
    }
    assert_eq!(packet(&[3 << 3 | 1, 0, 0, 0, 0, 0, 0, 0]), Err(WireError::Truncated));
    assert_eq!(packet(&[3 << 3 | 5, 0, 0, 0]), Err(WireError::Truncated));
    assert_eq!(packet(&[0x0a]), Err(WireError::Truncated));
}

#[test]
fn overlong_varints_are_refused_everywhere() {
    let overlong_key = [0x80 | 1 << 3 | 2, 0, 0];
    let overlong_length = [1 << 3 | 2, 0x80, 0];
    for part in [&overlong_key[..], &overlong_length] {
        assert_eq!(packet(part), Err(WireError::Varint), "{part:?}");
        assert_eq!(packet(&bytes(1, part)), Err(WireError::Varint), "{part:?}");
        assert_eq!(packet(&frame(16, part)), Err(WireError::Varint), "{part:?}");
        assert_eq!(message(part), Err(WireError::Varint), "{part:?}");
        assert_eq!(message(&bytes(14, part)), Err(WireError::Varint), "{part:?}");
    }
    for number in [1, 3, 4, 5] {
        assert_eq!(message(&[&key(number, 0)[..], &OVERLONG_ZERO].concat()), Err(WireError::Varint), "{number}");
    }
    for (kind, number) in varint_fields() {
        let body = [&key(number, 0)[..], &OVERLONG_ZERO].concat();
        assert_eq!(packet(&frame(kind, &body)), Err(WireError::Varint), "{kind} {number}");
    }
    // A skipped field too, as two readers could disagree where it ends.
    assert_eq!(packet(&[&key(9, 0)[..], &OVERLONG_ZERO].concat()), Err(WireError::Varint));
}

#[test]
fn field_numbers_outside_of_protobufs_are_refused() {
    for key in [vec![0 << 3], delimiter(1 << 32), delimiter(u64::MAX - 7)] {
        let number = if key == [0] {
            0
        } else if key.len() == 5 {
            1 << 29
        } else {
            (u64::MAX - 7) >> 3
        };
        let field = [key, vec![0]].concat();
        assert_eq!(packet(&field), Err(WireError::UnknownField(number)));
        assert_eq!(message(&field), Err(WireError::UnknownField(number)));
    }
}

// ---- Fields -----------------------------------------------------------------------------------------------------

#[test]
fn a_field_comes_once() {
    for (number, field) in head_fields() {
        let twice = [field.clone(), field, bytes(11, &[])].concat();
        assert_eq!(message(&twice), Err(WireError::Duplicate(number)));
    }
    for (kind, number) in varint_fields() {
        assert_eq!(
            packet(&frame(kind, &varint(number, 1).repeat(2))),
            Err(WireError::Duplicate(number)),
            "{kind} {number}"
        );
        // The same with the value that absence means.
        assert_eq!(
            packet(&frame(kind, &varint(number, 0).repeat(2))),
            Err(WireError::Duplicate(number)),
            "{kind} {number}"
        );
    }
    for (kind, number) in [(16, 1), (19, 2), (20, 2), (21, 1)] {
        assert_eq!(packet(&frame(kind, &bytes(number, &[0; 16]).repeat(2))), Err(WireError::Duplicate(number)));
    }
    for (kind, number, field) in clear_fields() {
        assert_eq!(message(&bytes(kind, &field.repeat(2))), Err(WireError::Duplicate(number)), "{kind} {number}");
    }
    let range = [varint(1, 1).repeat(2), varint(2, 1)].concat();
    assert_eq!(packet(&frame(5, &bytes(4, &range))), Err(WireError::Duplicate(1)));
}

#[test]
fn a_frame_has_one_kind() {
    let ping = bytes(12, &[]);
    assert_eq!(packet(&bytes(1, &ping.repeat(2))), Err(WireError::TooMany("kinds of a frame")));
    assert_eq!(
        packet(&bytes(1, &[ping.clone(), bytes(13, &[])].concat())),
        Err(WireError::TooMany("kinds of a frame"))
    );
    assert_eq!(packet(&bytes(1, &[])), Err(WireError::Missing("kind of a frame")));
    assert_eq!(packet(&frame(23, &[])), Err(WireError::UnknownField(23)));
    assert_eq!(packet(&bytes(1, &varint(12, 0))), Err(WireError::WireType(12)));
}

#[test]
fn a_field_has_its_own_wire_type() {
    for (number, _) in head_fields() {
        let wrong = if number == 2 { varint(2, 1) } else { bytes(number, &[]) };
        assert_eq!(message(&[wrong, bytes(11, &[])].concat()), Err(WireError::WireType(number)));
        assert_eq!(message(&[key(number, 5), vec![0; 4]].concat()), Err(WireError::WireType(number)));
    }
    for kind in 7..=18 {
        assert_eq!(message(&varint(kind, 1)), Err(WireError::WireType(kind)));
    }
    for (kind, number) in varint_fields() {
        let wrong = [bytes(number, &[]), [key(number, 5), vec![0; 4]].concat(), [key(number, 1), vec![0; 8]].concat()];
        for body in wrong {
            assert_eq!(packet(&frame(kind, &body)), Err(WireError::WireType(number)), "{kind} {number}");
        }
    }
    for (kind, number) in [(1, 4), (5, 4), (15, 3), (16, 1), (19, 2), (20, 2), (21, 1)] {
        assert_eq!(packet(&frame(kind, &varint(number, 1))), Err(WireError::WireType(number)), "{kind} {number}");
    }
    assert_eq!(packet(&varint(1, 1)), Err(WireError::WireType(1)));
    assert_eq!(packet(&varint(2, 1)), Err(WireError::WireType(2)));
}

#[test]
fn unknown_fields_are_refused_in_the_clear() {
    for number in [6, 19, 20, 1000] {
        let unknown = [varint(number, 1), bytes(11, &[])].concat();
        assert_eq!(message(&unknown), Err(WireError::UnknownField(number)));
    }
    for kind in [8, 12, 13, 14, 15, 16, 17, 18] {
        for number in [9, 21, 22, 1000] {
            assert_eq!(message(&bytes(kind, &varint(number, 1))), Err(WireError::UnknownField(number)), "{kind}");
        }
    }
}

#[test]
fn some_unknown_fields_are_skipped_inside_of_packets() {
    let unknown =
        [varint(30, 5), bytes(22, b"later"), [key(23, 5), vec![0; 4]].concat(), [key(24, 1), vec![0; 8]].concat()]
            .concat();
    let (at_limit, past) = (unknown.repeat(4), unknown.repeat(5));
    let ping = frame(12, &[]);
    let pinged = Ok(vec![Frame::Ping { sequence: 0 }]);
    assert_eq!(packet(&[ping.clone(), at_limit.clone()].concat()), pinged);
    assert_eq!(packet(&[past.clone(), ping].concat()), Err(WireError::TooManyUnknown));
    assert_eq!(packet(&frame(12, &at_limit)), pinged);
    // Those with byte strings and those that read themselves as well.
    for (kind, rest) in [(5, vec![]), (1, vec![]), (15, vec![]), (16, bytes(1, &[0; 16])), (19, vec![])] {
        assert!(packet(&frame(kind, &[&at_limit[..], &rest].concat())).is_ok(), "{kind}");
        assert_eq!(packet(&frame(kind, &[&past[..], &rest].concat())), Err(WireError::TooManyUnknown), "{kind}");
    }
    let range = [varint(1, 1), varint(2, 1), at_limit].concat();
    assert!(packet(&frame(5, &bytes(4, &range))).is_ok());
    let range = [varint(1, 1), varint(2, 1), past].concat();
    assert_eq!(packet(&frame(5, &bytes(4, &range))), Err(WireError::TooManyUnknown));
}

#[test]
fn what_has_to_be_last_is_last() {
    for (kind, body) in [(8, vec![]), (9, vec![0; 16]), (10, vec![0; 16]), (11, vec![]), (17, vec![])] {
        for after in [varint(1, 1), bytes(kind, &body), vec![0]] {
            assert_eq!(message(&[bytes(kind, &body), after].concat()), Err(WireError::NotLast(kind)), "{kind}");
        }
    }
    for after in [varint(1, 1), bytes(4, b"data"), varint(99, 1)] {
        assert_eq!(packet(&frame(1, &[bytes(4, b"data"), after].concat())), Err(WireError::NotLast(4)));
    }
    for after in [varint(1, 1), bytes(3, b"data"), varint(99, 1)] {
        let body = [bytes(3, b"data"), after].concat();
        assert_eq!(packet(&frame(15, &body)), Err(WireError::NotLast(3)));
        assert_eq!(message(&bytes(8, &body)), Err(WireError::NotLast(3)));
    }
    for after in [frame(12, &[]), bytes(2, &[0]), varint(99, 1)] {
        assert_eq!(packet(&[bytes(2, &[0; 9]), after].concat()), Err(WireError::NotLast(2)));
    }
    assert_eq!(packet(&bytes(2, b"not zero, ignored")), Ok(vec![]));
}

#[test]
fn a_message_has_a_body() {
    for head in [varint(1, 1), bytes(2, &[0; 16]), [varint(3, 1), varint(5, 1)].concat()] {
        assert_eq!(message(&head), Err(WireError::Missing("body")));
    }
}
