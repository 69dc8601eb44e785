//! The values that fields may have: what is out of range is refused, each with its name.

use super::crafted::{bytes, delimiter, frame, key, message, packet, varint};
use super::strategies::delimited;
use crate::base::{PacketNumber, limits};
use crate::wire::{
    DenylistBody, EnrollAnswer, EnrollRequest, RenewAnswer, RenewRequest, ServiceRequest, SignedDenylist,
    TransportParameters, WireError,
};

const OVERLONG_ZERO: [u8; 2] = [0x80, 0];
const NUMBER_END: u64 = 1 << 62;

#[test]
fn the_head_is_in_range() {
    for size in [0, 15, 17, 32] {
        let head = [bytes(2, &vec![1; size]), bytes(11, &[])].concat();
        assert_eq!(message(&head), Err(WireError::Range("session id")), "{size}");
    }
    for (number, name) in [(1, "version"), (3, "lane id"), (4, "epoch")] {
        let head = |value| message(&[varint(number, value), bytes(11, &[])].concat()).map(drop);
        assert_eq!(head(u64::from(u32::MAX)), Ok(()));
        assert_eq!(head(1 << 32), Err(WireError::Range(name)));
    }
    let head = |value| message(&[varint(5, value), bytes(11, &[])].concat()).map(|message| message.head.packet_number);
    assert_eq!(head(NUMBER_END - 1), Ok(PacketNumber::MAX));
    assert_eq!(head(NUMBER_END), Err(WireError::Range("packet number")));
}

#[test]
fn a_sealed_packet_has_its_tag() {
    for kind in [9, 10] {
        for size in [0, 1, 15] {
            assert_eq!(message(&bytes(kind, &vec![0; size])), Err(WireError::Missing("tag")), "{kind} {size}");
        }
        assert!(message(&bytes(kind, &[0; 16])).is_ok());
    }
}

#[test]
fn ids_and_numbers_end_at_two_to_the_62() {
    let packet_with = |kind, number, value| packet(&frame(kind, &varint(number, value))).map(drop);
    for (kind, number, name) in [
        (1, 1, "stream id"),
        (1, 2, "offset"),
        (2, 1, "stream id"),
        (3, 1, "stream id"),
        (3, 3, "final size"),
        (4, 1, "stream id"),
        (6, 1, "maximum"),
        (7, 1, "stream id"),
        (7, 2, "maximum"),
        (9, 1, "limit"),
        (10, 1, "stream id"),
        (10, 2, "limit"),
    ] {
        assert_eq!(packet_with(kind, number, NUMBER_END - 1), Ok(()), "{kind} {number}");
        for value in [NUMBER_END, u64::MAX] {
            assert_eq!(packet_with(kind, number, value), Err(WireError::Range(name)), "{kind} {number} {value}");
        }
    }
    for kind in [8, 11] {
        assert_eq!(packet_with(kind, 2, 1 << 60), Ok(()));
        assert_eq!(packet_with(kind, 2, (1 << 60) + 1), Err(WireError::Range("count of streams")));
    }
    for (kind, number, name) in [(5, 1, "lane id"), (14, 1, "epoch"), (17, 1, "maximum"), (18, 1, "lane id")] {
        assert_eq!(packet_with(kind, number, u64::from(u32::MAX)), Ok(()));
        assert_eq!(packet_with(kind, number, 1 << 32), Err(WireError::Range(name)), "{kind} {number}");
    }
    for (kind, number, name) in [(1, 3, "fin"), (8, 1, "unidirectional"), (11, 1, "unidirectional")] {
        assert_eq!(packet_with(kind, number, 2), Err(WireError::Range(name)), "{kind} {number}");
    }
    assert_eq!(packet_with(2, 2, 7), Ok(()));
    assert_eq!(packet_with(2, 2, 8), Err(WireError::Range("priority")));
    assert_eq!(packet_with(2, 2, 256), Err(WireError::Range("priority")));
}

#[test]
fn stream_data_ends_below_two_to_the_62() {
    let stream = |offset, data: &[u8]| packet(&frame(1, &[varint(2, offset), bytes(4, data)].concat())).map(drop);
    assert_eq!(stream(NUMBER_END - 4, b"abc"), Ok(()));
    assert_eq!(stream(NUMBER_END - 3, b"abc"), Err(WireError::Range("offset")));
    assert_eq!(stream(u64::MAX, b"abc"), Err(WireError::Range("offset")));
}

#[test]
fn handshake_bytes_end_at_their_limit() {
    let body = |offset, data: &[u8]| [varint(2, offset), bytes(3, data)].concat();
    for (offset, data, expected) in [
        (65_533, &b"abc"[..], Ok(())),
        (65_534, b"abc", Err(WireError::Range("offset"))),
        (65_537, b"", Err(WireError::Range("offset"))),
        (u64::MAX, b"abc", Err(WireError::Range("offset"))),
    ] {
        assert_eq!(packet(&frame(15, &body(offset, data))).map(drop), expected);
        assert_eq!(message(&bytes(8, &body(offset, data))).map(drop), expected);
    }
    assert_eq!(message(&bytes(8, &varint(1, 3))), Err(WireError::Range("handshake level")));
    assert_eq!(packet(&frame(15, &varint(1, u64::MAX))), Err(WireError::Range("handshake level")));
}

#[test]
fn acknowledgements_stay_among_the_numbers() {
    let ack = |next, ranges: &[(u64, u64)]| {
        let ranges = ranges.iter().map(|(gap, length)| bytes(4, &[varint(1, *gap), varint(2, *length)].concat()));
        packet(&frame(5, &[varint(2, next), ranges.collect::<Vec<_>>().concat()].concat())).map(drop)
    };
    assert_eq!(ack(NUMBER_END, &[]), Ok(()));
    assert_eq!(ack(NUMBER_END + 1, &[]), Err(WireError::Range("packet number")));
    assert_eq!(ack(NUMBER_END - 2, &[(1, 1)]), Ok(()));
    assert_eq!(ack(NUMBER_END - 1, &[(1, 1)]), Err(WireError::Range("ranges")));
    assert_eq!(ack(0, &[(NUMBER_END - 1, NUMBER_END - 1)]), Err(WireError::Range("ranges")));
    assert_eq!(ack(0, &[(NUMBER_END - 1, NUMBER_END - 1); 64]), Err(WireError::Range("ranges")));
    assert_eq!(ack(0, &[(NUMBER_END, 1)]), Err(WireError::Range("gap")));
    assert_eq!(ack(0, &[(1, u64::MAX)]), Err(WireError::Range("length")));
    assert_eq!(ack(0, &[(0, 1)]), Err(WireError::Range("gap or length")));
    assert_eq!(ack(0, &[(1, 0)]), Err(WireError::Range("gap or length")));
}

#[test]
fn reasons_are_short_text() {
    for kind in [19, 20] {
        let reason = |text: &[u8]| packet(&frame(kind, &bytes(2, text))).map(drop);
        assert_eq!(reason(&[b'a'; 256]), Ok(()));
        assert_eq!(reason(&[b'a'; 257]), Err(WireError::Range("reason")));
        for text in [&[0xff][..], &[0xc0, 0x80], &[0xed, 0xa0, 0x80], &[0xe2, 0x82]] {
            assert_eq!(reason(text), Err(WireError::Text("reason")), "{text:?}");
        }
    }
}

#[test]
fn tokens_have_their_size() {
    for (kind, name) in [(16, "reset token"), (21, "nonce")] {
        for body in [vec![], bytes(1, &[0; 15]), bytes(1, &[0; 17])] {
            assert_eq!(packet(&frame(kind, &body)), Err(WireError::Range(name)), "{kind}");
        }
    }
    for body in [vec![], bytes(1, &[0; 15]), bytes(1, &[0; 17])] {
        assert_eq!(message(&bytes(18, &body)), Err(WireError::Range("token")));
    }
}

#[test]
fn a_reset_token_does_not_print_itself() {
    let frames = packet(&frame(16, &bytes(1, &[0xab; 16]))).unwrap();
    let printed = format!("{frames:?} {frames:#?}");
    assert!(printed.contains("Accepted") && !printed.contains("171") && !printed.contains("ab"), "{printed}");
}

#[test]
fn a_join_is_in_range() {
    let join = |nonce: usize, binding: usize, lane_count: u64, mac: usize| {
        let fields = [
            bytes(2, &vec![1; nonce]),
            bytes(3, &vec![2; binding]),
            varint(4, lane_count),
            bytes(5, &vec![3; mac]),
            varint(6, 1000),
        ];
        message(&bytes(12, &fields.concat())).map(drop)
    };
    assert_eq!(join(16, 64, 16, 32), Ok(()));
    assert_eq!(join(16, 0, 1, 32), Ok(()));
    for lane_count in [0, 65, u64::from(u32::MAX), 1 << 32 | 1] {
        assert_eq!(join(16, 0, lane_count, 32), Err(WireError::Range("lane count")), "{lane_count}");
    }
    for weight in [0, 1001] {
        let fields = [bytes(2, &[1; 16]), varint(4, 1), bytes(5, &[3; 32]), varint(6, weight)];
        let read = message(&bytes(12, &fields.concat())).map(drop);
        assert_eq!(read, Err(WireError::Range("weight")), "{weight}");
    }
    for (number, most, name) in [(7, 255, "priority"), (8, 1, "role")] {
        let read = |value: u64| {
            let fields = [bytes(2, &[1; 16]), varint(4, 1), bytes(5, &[3; 32]), varint(6, 1), varint(number, value)];
            message(&bytes(12, &fields.concat())).map(drop)
        };
        assert_eq!(read(most), Ok(()));
        // A general decoder drops what is above 32 bits.
        for value in [most + 1, 1 << 32] {
            assert_eq!(read(value), Err(WireError::Range(name)), "{value}");
        }
    }
    assert_eq!(join(16, 65, 1, 32), Err(WireError::Range("channel binding")));
    assert_eq!(join(15, 0, 1, 32), Err(WireError::Range("nonce")));
    assert_eq!(join(16, 0, 1, 33), Err(WireError::Range("mac")));
    let joined = |nonce: usize, mac: usize| {
        message(&bytes(13, &[bytes(1, &vec![1; nonce]), bytes(2, &vec![2; mac])].concat())).map(drop)
    };
    assert_eq!(joined(16, 32), Ok(()));
    assert_eq!(joined(17, 32), Err(WireError::Range("nonce")));
    assert_eq!(joined(16, 0), Err(WireError::Range("mac")));
}

#[test]
fn encoded_parameters_are_short() {
    for kind in [14, 15] {
        assert!(message(&bytes(kind, &bytes(1, &[0; 4096]))).is_ok());
        assert_eq!(message(&bytes(kind, &bytes(1, &[0; 4097]))), Err(WireError::Range("parameters")));
    }
}

#[test]
fn transport_parameters_are_in_range() {
    let right = [bytes(2, &[1; 16]), varint(7, 1), varint(8, 65_536), varint(13, 1)].concat();
    let with = |more: &[u8]| TransportParameters::decode(&[&right[..], more].concat()).map(drop);
    assert_eq!(with(&[]), Ok(()));
    assert_eq!(with(&bytes(1, &[1; 16])), Ok(()));
    assert_eq!(with(&bytes(1, &[1; 17])), Err(WireError::TooMany("versions")));
    assert_eq!(with(&bytes(12, &[b'a'; 64])), Ok(()));
    assert_eq!(with(&bytes(12, &[b'a'; 65])), Err(WireError::Range("software")));
    assert_eq!(with(&bytes(12, &[0xff])), Err(WireError::Text("software")));
    for (number, name) in [(7, "lanes"), (8, "packet size"), (13, "weight")] {
        // A general decoder drops what is above 32 bits.
        let fields = [bytes(2, &[1; 16]), varint(7, 1), varint(8, 65_536), varint(13, 1)];
        let others = fields.into_iter().filter(|field| field[0] >> 3 != number as u8);
        let parameters = [others.collect::<Vec<_>>().concat(), varint(number, 1 << 32 | 65_536)].concat();
        assert_eq!(TransportParameters::decode(&parameters), Err(WireError::Range(name)), "{number}");
    }
    for (number, most, name) in [(15, 255, "priority"), (16, 1, "role")] {
        assert_eq!(with(&varint(number, most)), Ok(()));
        assert_eq!(with(&varint(number, most + 1)), Err(WireError::Range(name)));
        assert_eq!(with(&varint(number, 1 << 32)), Err(WireError::Range(name)));
    }
    for number in 3..=6 {
        assert_eq!(with(&varint(number, (1 << 60) - 1)), Ok(()));
        assert_eq!(with(&varint(number, 1 << 60)), Err(WireError::Range("credit")), "{number}");
    }
    let long = vec![0; limits::CONTROL_MESSAGE_BYTES_MAX + 1];
    assert!(matches!(TransportParameters::decode(&long), Err(WireError::TooLong { size: 4097, .. })));
    for (size, expected) in [
        (16_383, Err(WireError::Range("packet size"))),
        (16_384, Ok(())),
        (65_536, Ok(())),
        (65_537, Err(WireError::Range("packet size"))),
    ] {
        let parameters = [bytes(2, &[1; 16]), varint(7, 1), varint(8, size), varint(13, 1)].concat();
        assert_eq!(TransportParameters::decode(&parameters).map(drop), expected, "{size}");
    }
    let no_lanes = [bytes(2, &[1; 16]), varint(8, 65_536), varint(13, 1)].concat();
    assert_eq!(TransportParameters::decode(&no_lanes), Err(WireError::Range("lanes")));
    let no_session = [varint(7, 1), varint(8, 65_536), varint(13, 1)].concat();
    assert_eq!(TransportParameters::decode(&no_session), Err(WireError::Range("session id")));
}

/// The rules of all messages hold for those that come alone, too.
#[test]
fn control_messages_are_read_as_strictly_as_packets() {
    let right = [bytes(2, &[1; 16]), varint(7, 1), varint(8, 65_536), varint(13, 1)].concat();
    let parameters = |more: &[u8]| TransportParameters::decode(&[&right[..], more].concat()).map(drop);
    let request = |more: &[u8]| ServiceRequest::decode(&delimited(&[&bytes(1, b"a")[..], more].concat())).map(drop);

    for (number, field) in [(2, bytes(2, &[1; 16])), (7, varint(7, 1)), (8, varint(8, 65_536)), (13, varint(13, 1))] {
        assert_eq!(parameters(&field), Err(WireError::Duplicate(number)));
    }
    for number in [3, 4, 5, 6, 9, 10, 11, 14, 15, 16] {
        assert_eq!(parameters(&varint(number, 0).repeat(2)), Err(WireError::Duplicate(number)));
        assert_eq!(parameters(&bytes(number, &[])), Err(WireError::WireType(number)));
        assert_eq!(parameters(&[&key(number, 0)[..], &OVERLONG_ZERO].concat()), Err(WireError::Varint), "{number}");
    }
    assert_eq!(parameters(&bytes(12, b"x").repeat(2)), Err(WireError::Duplicate(12)));
    assert_eq!(parameters(&varint(12, 1)), Err(WireError::WireType(12)));
    assert_eq!(parameters(&varint(1, 1).repeat(16)), Ok(()), "versions may repeat, packed or not");
    assert_eq!(parameters(&varint(1, 1).repeat(17)), Err(WireError::TooMany("versions")));
    assert_eq!(parameters(&bytes(1, &OVERLONG_ZERO)), Err(WireError::Varint));
    assert_eq!(parameters(&varint(1, 1 << 32)), Err(WireError::Range("version")));

    assert_eq!(request(&bytes(1, b"b")), Err(WireError::Duplicate(1)));
    for number in [2, 3] {
        assert_eq!(request(&bytes(number, b"x").repeat(2)), Err(WireError::Duplicate(number)));
        assert_eq!(request(&varint(number, 1)), Err(WireError::WireType(number)));
    }

    assert_eq!(request(&varint(4, 0).repeat(2)), Err(WireError::Duplicate(4)));
    assert_eq!(request(&varint(4, 2)), Err(WireError::Range("service request")));
    assert_eq!(request(&bytes(4, &[])), Err(WireError::WireType(4)));

    // Later versions may add some fields.
    let unknown = [varint(17, 5), bytes(18, b"later"), varint(30, 1), bytes(31, &[])].concat();
    assert_eq!((parameters(&unknown.repeat(4)), request(&unknown.repeat(4))), (Ok(()), Ok(())));
    for outcome in [parameters(&unknown.repeat(5)), request(&unknown.repeat(5))] {
        assert_eq!(outcome, Err(WireError::TooManyUnknown));
    }
    for groups in [key(16, 3), key(16, 4)] {
        assert_eq!(parameters(&groups), Err(WireError::WireType(16)));
        assert_eq!(request(&groups), Err(WireError::WireType(16)));
    }
}

/// A piece has a place in its datagram, and is worth keeping.
#[test]
fn datagrams_are_in_range() {
    let datagram = |number: u64, size: u64, offset: u64, len: usize| {
        let fields = [varint(1, 4), varint(2, number), varint(3, size), varint(4, offset), bytes(5, &vec![7; len])];
        packet(&frame(22, &fields.concat())).map(|frames| frames.len())
    };
    let whole = |len: usize| packet(&frame(22, &[varint(1, 4), bytes(5, &vec![7; len])].concat())).map(drop);
    let max = limits::DATAGRAM_BYTES_MAX;
    assert_eq!((whole(0), whole(1), whole(max - 500)), (Ok(()), Ok(()), Ok(())));
    assert_eq!(whole(max + 1), Err(WireError::Range("datagram")));
    for (number, offset) in [(1, 0), (0, 1)] {
        assert_eq!(datagram(number, 0, offset, 10), Err(WireError::Range("datagram")), "a place without a size");
    }

    let min = limits::DATAGRAM_PIECE_BYTES_MIN;
    for (size, offset, len) in
        [(max, 0, min), (max, max - 1, 1), (max, max - min - 1, min), (min + 1, 0, min), (2, 1, 1), (max, 0, max - 1)]
    {
        assert_eq!(datagram(NUMBER_END - 1, size as u64, offset as u64, len), Ok(1), "{size} {offset} {len}");
    }
    for (size, offset, len) in [
        (max + 1, 0, min),
        (max, max, min),
        (max, max - min + 1, min),
        (max, 0, 0),
        (max, max, 0),
        (max, 0, min - 1),
        (max, max - min, min - 1),
        (min, 0, min),
        (1, 0, 1),
        (1, 0, 2),
        (max, u32::MAX as usize, min),
    ] {
        let outcome = datagram(1, size as u64, offset as u64, len);
        assert_eq!(outcome, Err(WireError::Range("piece of a datagram")), "{size} {offset} {len}");
    }
    for (size, offset) in [(1 << 32, 0), (max as u64, u64::MAX), (u64::MAX, u64::MAX)] {
        assert_eq!(datagram(1, size, offset, min), Err(WireError::Range("piece of a datagram")), "{size} {offset}");
    }
    assert_eq!(datagram(NUMBER_END, max as u64, 0, min), Err(WireError::Range("number of a datagram")));
    let misplaced = [bytes(5, b"data"), varint(1, 4)].concat();
    assert_eq!(packet(&frame(22, &misplaced)), Err(WireError::NotLast(5)));
    for number in 1..=4 {
        assert_eq!(packet(&frame(22, &varint(number, 0).repeat(2))), Err(WireError::Duplicate(number)));
        assert_eq!(packet(&frame(22, &bytes(number, &[]))), Err(WireError::WireType(number)));
    }
    assert_eq!(packet(&frame(22, &varint(5, 0))), Err(WireError::WireType(5)));
}

#[test]
fn service_requests_are_in_range() {
    let request = |fields: Vec<u8>| ServiceRequest::decode(&delimited(&fields)).map(drop);
    assert_eq!(request(bytes(1, &[b'a'; 64])), Ok(()));
    assert_eq!(ServiceRequest::decode(&[0]), Err(WireError::Missing("body")));
    for fields in [
        bytes(1, &[b'a'; 65]),
        bytes(2, b"192.0.2.1:1"),
        [bytes(1, b"a"), bytes(2, &[b'1'; 65])].concat(),
        [bytes(1, b"a"), bytes(3, &[b'1'; 65])].concat(),
    ] {
        assert_eq!(request(fields.clone()), Err(WireError::Range("service request")), "{fields:?}");
    }
    let zero_span = [&[1; 16][..], &[0; 8], &[1]].concat();
    let zero_trace = [&[0; 16][..], &[1; 8], &[1]].concat();
    for trace in [&[1; 24][..], &[1; 26], &zero_span, &zero_trace] {
        let fields = [bytes(1, b"a"), bytes(15, trace)].concat();
        assert_eq!(request(fields), Err(WireError::Range("trace context")), "{trace:?}");
    }
    assert_eq!(request([bytes(1, b"a"), bytes(15, &[1; 25])].concat()), Ok(()));
    // Fields of later versions are skipped, as an older node skips the trace.
    assert_eq!(request([bytes(1, b"a"), bytes(16, &[1; 25])].concat()), Ok(()));
    assert_eq!(request(bytes(1, &[0xff])), Err(WireError::Text("service request")));
    assert_eq!(request(varint(1, 1)), Err(WireError::WireType(1)));
    assert!(matches!(ServiceRequest::decode(&delimiter(4096)), Err(WireError::TooLong { size: 4096, .. })));
}

#[test]
fn enrolment_requests_are_in_range() {
    let right = |except: u64| -> Vec<u8> {
        let fields = [(1, vec![1; 10]), (2, b"dc-b".to_vec()), (3, b"csr".to_vec()), (4, vec![4; 64])];
        fields
            .iter()
            .filter(|(number, _)| *number != except)
            .flat_map(|(number, value)| bytes(*number, value))
            .collect()
    };
    let request = |fields: Vec<u8>| EnrollRequest::decode(&delimited(&fields)).map(drop);
    let with = |number: u64, field: Vec<u8>| request([right(number), field].concat());
    assert_eq!(request(right(0)), Ok(()));
    assert_eq!(request(right(2)), Ok(()), "the token's own name");
    assert_eq!(with(2, bytes(2, &[b'x'; 64])), Ok(()));
    assert_eq!(with(2, bytes(2, &[b'x'; 65])), Err(WireError::Range("name")));
    assert_eq!(with(2, bytes(2, &[0xff])), Err(WireError::Text("name")));
    assert_eq!(with(3, bytes(3, &[0; 2048])), Ok(()));
    assert_eq!(with(3, bytes(3, &[0; 2049])), Err(WireError::Range("certificate request")));
    assert_eq!(request(right(3)), Err(WireError::Range("certificate request")));
    for (number, name, size) in [(1, "token id", 10), (4, "proof", 64)] {
        assert_eq!(request(right(number)), Err(WireError::Range(name)));
        assert_eq!(with(number, bytes(number, &vec![1; size - 1])), Err(WireError::Range(name)));
        assert_eq!(with(number, bytes(number, &vec![1; size + 1])), Err(WireError::Range(name)));
    }
    for number in 1..=4 {
        assert_eq!(with(0, bytes(number, b"x")), Err(WireError::Duplicate(number)));
        assert_eq!(with(number, varint(number, 1)), Err(WireError::WireType(number)));
    }
    assert_eq!(with(0, varint(5, 1)), Ok(()), "later versions may add fields");
    assert_eq!(with(0, varint(5, 1).repeat(17)), Err(WireError::TooManyUnknown));
    assert!(matches!(EnrollRequest::decode(&delimiter(4096)), Err(WireError::TooLong { size: 4096, .. })));
}

#[test]
fn enrolment_answers_are_in_range() {
    let answer = |fields: Vec<u8>| EnrollAnswer::decode(&delimited(&fields)).map(drop);
    let right = [bytes(2, b"certificate"), bytes(3, b"authority")].concat();
    let with = |fields: Vec<u8>| answer([right.clone(), fields].concat());
    assert_eq!(answer(right.clone()), Ok(()));
    assert_eq!(answer(varint(1, 1)), Ok(()));
    assert_eq!(answer(varint(1, 3)), Err(WireError::Range("code")));
    assert_eq!(answer(bytes(2, b"certificate")), Err(WireError::Missing("authority")));
    assert_eq!(answer(bytes(3, b"authority")), Err(WireError::Missing("certificate")));
    assert_eq!(with(bytes(4, &[b'x'; 300]).repeat(8)), Ok(()));
    assert_eq!(with(bytes(4, b"x").repeat(9)), Err(WireError::TooMany("addresses")));
    assert_eq!(with(bytes(4, &[b'x'; 301])), Err(WireError::Range("address")));
    assert_eq!(with(bytes(4, &[0xff])), Err(WireError::Text("address")));
    assert_eq!(with(varint(4, 1)), Err(WireError::WireType(4)));
    assert!(matches!(EnrollAnswer::decode(&delimiter(16_384)), Err(WireError::TooLong { size: 16_384, .. })));
}

#[test]
fn renewals_and_denylists_are_in_range() {
    let request = |fields: Vec<u8>| RenewRequest::decode(&delimited(&fields)).map(drop);
    assert_eq!(request(bytes(1, b"request")), Ok(()));
    assert_eq!(request(varint(2, 1)), Err(WireError::Range("certificate request")));
    assert_eq!(request(bytes(1, &[1; 2049])), Err(WireError::Range("certificate request")));
    let answer = |fields: Vec<u8>| RenewAnswer::decode(&delimited(&fields)).map(drop);
    let right = [bytes(2, b"certificate"), bytes(4, b"anchor")].concat();
    assert_eq!(answer(right), Ok(()));
    assert_eq!(answer(varint(1, 2)), Ok(()));
    assert_eq!(answer(varint(1, 3)), Err(WireError::Range("code")));
    assert_eq!(answer(bytes(4, b"anchor")), Err(WireError::Missing("certificate")));
    assert_eq!(answer(bytes(2, b"certificate")), Err(WireError::Missing("trust anchor")));
    let with = |fields: Vec<u8>| answer([bytes(2, b"certificate"), fields].concat());
    assert_eq!(with(bytes(4, b"x").repeat(9)), Err(WireError::TooMany("trust anchors")));
    assert_eq!(with(bytes(4, &[1; 4097])), Err(WireError::Range("trust anchor")));
    let list = |fields: Vec<u8>| DenylistBody::decode(&fields).map(drop);
    assert_eq!(list(Vec::new()), Ok(()));
    assert_eq!(list([bytes(4, b"a"), bytes(4, b"b")].concat()), Ok(()));
    assert_eq!(list([bytes(4, b"b"), bytes(4, b"a")].concat()), Err(WireError::Range("names")));
    assert_eq!(list(bytes(4, &[b'x'; 65])), Err(WireError::Range("name")));
    assert_eq!(list(bytes(4, b"x").repeat(8193)), Err(WireError::TooMany("names")));
    assert_eq!(list(bytes(3, &[1; 33])), Err(WireError::Range("keys")));
    assert_eq!(list(bytes(3, &[[2; 32], [1; 32]].concat())), Err(WireError::Range("keys")));
    let many = [bytes(3, &[0; 32].repeat(8192)), bytes(4, b"x")].concat();
    assert_eq!(list(many), Err(WireError::TooMany("denied")));
    assert!(matches!(SignedDenylist::decode(&delimiter(657_409)), Err(WireError::TooLong { .. })));
}
