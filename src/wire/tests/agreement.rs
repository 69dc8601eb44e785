//! Our bytes are prost's bytes, and what we write we read.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message;

use super::{reference, strategies};
use crate::base::{Epoch, LaneId, PacketNumber, SessionId, StreamId, limits};
use crate::wire::padding::zeroes_for;
use crate::wire::proto::{self, frame_message};
use crate::wire::{
    Body, DATAGRAM_OVERHEAD_MAX, Datagram, DatagramPiece, EnrollAnswer, EnrollRequest, Frame, FrameMessage, Head,
    PaddingPolicy, STREAM_DATA_OVERHEAD_MAX, SealedKind, SealedLayout, ServiceRequest, StreamData, TransportParameters,
    WireError, decode_message, decode_packet, encode_clear, encode_packet, encode_packet_message, message_size,
    packet_overhead_max,
};

const MAX: usize = limits::FRAME_MESSAGE_BYTES_MAX;
const KINDS: [SealedKind; 4] = [SealedKind::Early, SealedKind::Handshake, SealedKind::Traffic, SealedKind::Plain];
const POLICIES: [PaddingPolicy; 7] = [
    PaddingPolicy::None,
    PaddingPolicy::Block32,
    PaddingPolicy::Block48,
    PaddingPolicy::Block64,
    PaddingPolicy::Padme,
    PaddingPolicy::Constant(1400),
    PaddingPolicy::Constant(u16::MAX),
];

proptest! {
    #[test]
    fn frames_have_prosts_bytes_and_the_promised_size(frames in strategies::frames()) {
        let mut content = BytesMut::new();
        for frame in &frames {
            let before = content.len();
            frame.encode(&mut content);
            prop_assert_eq!(content.len() - before, frame.encoded_len());
        }
        prop_assert_eq!(&content[..], reference::packet(&frames, 0).encode_to_vec());
        let mut read = Vec::new();
        prop_assert_eq!(decode_packet(&content.freeze(), &mut read), Ok(()));
        prop_assert_eq!(read, frames);
    }

    #[test]
    fn clear_messages_have_prosts_bytes(head in strategies::head(), message in strategies::clear_message()) {
        let mut out = BytesMut::from(&b"before"[..]);
        encode_clear(&mut out, &head, &message);
        let mut out = out.split_off(6);
        let prosts = reference::with_head(&head, reference::clear(&message)).encode_length_delimited_to_vec();
        prop_assert_eq!(&out[..], &prosts);
        only_whole_messages_are_read(&prosts);
        out.extend_from_slice(b"after");
        let read = decode_message(&mut out, MAX).unwrap().unwrap();
        prop_assert_eq!(&out[..], b"after");
        prop_assert_eq!(&read.head, &head);
        prop_assert_eq!(reference::as_clear(&read.body), Some(message));
    }

    #[test]
    fn packets_have_prosts_bytes_under_every_padding(
        head in strategies::head(),
        frames in strategies::frames(),
        policy in strategies::padding(),
        kind in prop::sample::select(&KINDS[..]),
    ) {
        packet_is_prosts_and_reads_back(&head, kind, &frames, policy);
    }

    #[test]
    fn transport_parameters_read_back(parameters in strategies::transport_parameters()) {
        prop_assert_eq!(TransportParameters::decode(&parameters.encode()), Ok(parameters));
    }

    #[test]
    fn service_requests_read_back_and_only_when_whole(request in strategies::service_request()) {
        let encoded = request.encode();
        for size in 0..encoded.len() {
            prop_assert_eq!(ServiceRequest::decode(&encoded[..size]), Ok(None));
        }
        let longer = [&encoded[..], b"data of the stream"].concat();
        prop_assert_eq!(ServiceRequest::decode(&longer), Ok(Some((request, encoded.len()))));
    }

    #[test]
    fn enrolment_messages_read_back_and_only_when_whole(
        request in strategies::enroll_request(),
        answer in strategies::enroll_answer(),
    ) {
        let encoded = request.encode();
        prop_assert_eq!(EnrollRequest::decode(&encoded[..encoded.len() - 1]), Ok(None));
        prop_assert_eq!(EnrollRequest::decode(&encoded), Ok(Some((request, encoded.len()))));
        let encoded = answer.encode();
        prop_assert_eq!(EnrollAnswer::decode(&encoded[..encoded.len() - 1]), Ok(None));
        prop_assert_eq!(EnrollAnswer::decode(&encoded), Ok(Some((answer, encoded.len()))));
    }
}

#[test]
fn packets_of_every_size_read_back_under_every_padding() {
    let room = MAX - packet_overhead_max();
    let around = |size: usize| size.saturating_sub(6)..size + 6;
    let sizes = (0..700).chain([1400, 2800, 16_384, 32_768].into_iter().flat_map(around)).chain(room - 140..room - 41);
    let head = head_of_the_largest_size();
    for size in sizes {
        let frames = [stream_data(Bytes::from(vec![1; size]))];
        for policy in POLICIES {
            packet_is_prosts_and_reads_back(&head, SealedKind::Traffic, &frames, policy);
        }
    }
}

#[test]
fn a_full_packet_is_not_padded_past_its_room() {
    let room = MAX - packet_overhead_max();
    for spare in 0..140 {
        let frames = [stream_data(Bytes::from(vec![1; room - spare - stream_overhead(room - spare)]))];
        assert!(frames[0].encoded_len() <= room);
        for policy in POLICIES {
            packet_is_prosts_and_reads_back(&head_of_the_largest_size(), SealedKind::Traffic, &frames, policy);
        }
    }
}

#[test]
fn stream_data_adds_at_most_the_promised_overhead() {
    for size in (0..300).chain(16_300..16_500).chain(MAX - 100..MAX) {
        assert!(stream_overhead(size) <= STREAM_DATA_OVERHEAD_MAX, "{size}");
    }
}

#[test]
fn datagrams_add_at_most_the_promised_overhead() {
    let stream_id = StreamId((1 << 62) - 1);
    for size in [0, 1, 127, 128, 1023, 1024, 16_383, 16_384, limits::DATAGRAM_BYTES_MAX - 1] {
        let piece = DatagramPiece { number: (1 << 62) - 1, size: limits::DATAGRAM_BYTES_MAX as u32, offset: 65_000 };
        for piece in [None, Some(piece)] {
            for stream_id in [stream_id, StreamId(0), StreamId(4)] {
                let frame = Frame::Datagram(Datagram { stream_id, piece, data: Bytes::from(vec![1; size]) });
                assert!(frame.encoded_len() - size <= DATAGRAM_OVERHEAD_MAX, "{size}");
                if piece.is_none() {
                    assert_eq!(frame.encoded_len(), Datagram::whole_len(stream_id, size), "{size}");
                }
            }
        }
    }
}

#[test]
fn a_packet_alone_is_the_content_of_one_in_a_message() {
    let frames = [Frame::Ping { sequence: 7 }, stream_data(Bytes::from_static(b"data"))];
    for policy in POLICIES {
        let (mut alone, mut message) = (BytesMut::new(), BytesMut::new());
        let padding_bytes = encode_packet(&mut alone, &frames, policy, 1200);
        let size_max = 1200 + packet_overhead_max();
        let layout =
            encode_packet_message(&mut message, &Head::default(), SealedKind::Plain, &frames, policy, size_max);
        assert_eq!((&message[layout.header_len..], layout.padding_bytes), (&alone[..], padding_bytes), "{policy}");
        assert!(alone.len() <= 1200);
    }
}

#[test]
fn packets_add_at_most_the_promised_overhead() {
    let head = head_of_the_largest_size();
    for kind in KINDS {
        for size in (0..300).chain(16_300..16_500).chain(MAX - 300..MAX - 120) {
            let frames = [stream_data(Bytes::from(vec![1; size]))];
            let mut out = BytesMut::new();
            encode_packet_message(&mut out, &head, kind, &frames, PaddingPolicy::None, limits::FRAME_MESSAGE_BYTES_MAX);
            assert!(out.len() - frames[0].encoded_len() <= packet_overhead_max(), "{size}");
        }
    }
}

/// Encodes a packet and compares everything that is known about it.
fn packet_is_prosts_and_reads_back(head: &Head, kind: SealedKind, frames: &[Frame], policy: PaddingPolicy) {
    let mut out = BytesMut::from(&b"before"[..]);
    let layout = encode_packet_message(&mut out, head, kind, frames, policy, limits::FRAME_MESSAGE_BYTES_MAX);
    assert_eq!(layout.message, 6..out.len());
    let mut out = out.split_off(6);
    assert!(out.len() <= MAX, "{policy} {}", out.len());
    assert_eq!(&out[..], &prosts_packet(head, kind, frames, &layout), "{policy} {frames:?}");
    only_whole_messages_are_read(&out);

    let FrameMessage { head: head_read, body } = decode_message(&mut out, MAX).unwrap().unwrap();
    assert_eq!(&head_read, head);
    let content = match (body, kind) {
        (Body::Plain(content), SealedKind::Plain) => content,
        (Body::SealedEarly(mut sealed), SealedKind::Early)
        | (Body::SealedHandshake(mut sealed), SealedKind::Handshake)
        | (Body::Sealed(mut sealed), SealedKind::Traffic) => {
            assert_eq!(sealed.parts_mut().0.len(), layout.header_len);
            let len = sealed.ciphertext_len() - limits::SEAL_TAG_BYTES;
            sealed.into_plaintext(len).freeze()
        }
        (body, _) => panic!("{body:?}"),
    };
    let mut read = vec![Frame::Ping { sequence: 1 }];
    assert_eq!(decode_packet(&content, &mut read), Ok(()));
    assert_eq!(read, frames);
}

fn prosts_packet(head: &Head, kind: SealedKind, frames: &[Frame], layout: &SealedLayout) -> Vec<u8> {
    let mut content = reference::packet(frames, zeroes_for(layout.padding_bytes)).encode_to_vec();
    if layout.padding_bytes == 2 {
        // prost leaves out an empty field; as padding it has to take its two bytes.
        content.extend_from_slice(&[2 << 3 | 2, 0]);
    }
    content.resize(content.len() + kind.tag_len(), 0);
    let body = match kind {
        SealedKind::Early => frame_message::Body::SealedEarly(content.into()),
        SealedKind::Handshake => frame_message::Body::SealedHandshake(content.into()),
        SealedKind::Traffic => frame_message::Body::Sealed(content.into()),
        SealedKind::Plain => frame_message::Body::Plain(content.into()),
    };
    reference::with_head(head, body).encode_length_delimited_to_vec()
}

/// A part of the message is no message, wherever it ends.
fn only_whole_messages_are_read(message: &[u8]) {
    let len = message.len();
    assert_eq!(message_size(message, len), Ok(Some(len)));
    assert!(matches!(message_size(message, len - 1), Err(WireError::TooLong { .. })));
    // Every position, but in long messages not those in the middle: they differ in nothing.
    for size in (0..len).filter(|size| *size < 200 || len - size < 20) {
        let mut part = BytesMut::from(&message[..size]);
        assert_eq!(decode_message(&mut part, MAX), Ok(None), "{size} of {len}");
        assert_eq!(part.len(), size);
    }
    let prosts = proto::FrameMessage::decode_length_delimited(message).unwrap();
    let read = decode_message(&mut BytesMut::from(message), MAX).unwrap().unwrap();
    assert_eq!(reference::decoded(read), prosts);
}

fn head_of_the_largest_size() -> Head {
    Head {
        version: u32::MAX,
        session_id: Some(SessionId([1; 16])),
        lane_id: LaneId(u32::MAX),
        epoch: Epoch(u32::MAX),
        packet_number: PacketNumber::MAX,
    }
}

fn stream_data(data: Bytes) -> Frame {
    let offset = (1 << 62) - 1 - data.len() as u64;
    Frame::Stream(StreamData { stream_id: StreamId::MAX, offset, fin: true, data: data.into() })
}

fn stream_overhead(size: usize) -> usize {
    stream_data(Bytes::from(vec![1; size])).encoded_len() - size
}
