//! Bytes from anywhere: nothing panics, nothing is read in two ways, and what is read takes no more than its input.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::{reference, strategies};
use crate::base::limits;
use crate::wire::{
    DenylistBody, EnrollAnswer, EnrollRequest, Frame, PaddingPolicy, RenewAnswer, RenewRequest, SealedKind,
    ServiceRequest, SignedDenylist, TransportParameters, decode_message, decode_packet, encode_clear,
    encode_packet_message, message_size, proto,
};

const MAX: usize = limits::FRAME_MESSAGE_BYTES_MAX;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_are_read_as_prost_reads_them(bytes in vec(any::<u8>(), 0..300)) {
        everything_agrees_with_prost(&bytes);
    }

    #[test]
    fn nearly_right_bytes_are_read_as_prost_reads_them(bytes in strategies::protobuf_like()) {
        everything_agrees_with_prost(&bytes);
        everything_agrees_with_prost(&strategies::delimited(&bytes));
    }
}

proptest! {
    #[test]
    fn mutated_clear_messages_are_read_as_prost_reads_them(
        head in strategies::head(),
        message in strategies::clear_message(),
        mutations in strategies::mutations(),
    ) {
        let mut out = BytesMut::new();
        encode_clear(&mut out, &head, &message);
        let mut bytes = out.to_vec();
        strategies::mutate(&mut bytes, &mutations);
        message_agrees_with_prost(&bytes);
    }

    #[test]
    fn mutated_packets_are_read_as_prost_reads_them(
        head in strategies::head(),
        frames in strategies::frames(),
        mutations in strategies::mutations(),
    ) {
        let mut out = BytesMut::new();
        encode_packet_message(&mut out, &head, SealedKind::Traffic, &frames, PaddingPolicy::Block32, limits::FRAME_MESSAGE_BYTES_MAX);
        let mut bytes = out.to_vec();
        strategies::mutate(&mut bytes, &mutations);
        message_agrees_with_prost(&bytes);
        let mut content = reference::packet(&frames, 3).encode_to_vec();
        strategies::mutate(&mut content, &mutations);
        packet_agrees_with_prost(&content);
    }

    #[test]
    fn mutated_control_messages_are_read_as_prost_reads_them(
        parameters in strategies::transport_parameters(),
        request in strategies::service_request(),
        mutations in strategies::mutations(),
    ) {
        for mut bytes in [parameters.encode(), request.encode()] {
            strategies::mutate(&mut bytes, &mutations);
            everything_agrees_with_prost(&bytes);
        }
    }
}

fn everything_agrees_with_prost(bytes: &[u8]) {
    message_agrees_with_prost(bytes);
    packet_agrees_with_prost(bytes);
    if let Ok(parameters) = TransportParameters::decode(bytes) {
        let prosts = proto::TransportParameters::decode(bytes).unwrap();
        assert_eq!(parameters.encode(), prosts.encode_to_vec());
        assert_eq!(TransportParameters::decode(&parameters.encode()), Ok(parameters));
    }
    if let Ok(Some((request, size))) = ServiceRequest::decode(bytes) {
        let prosts = proto::ServiceRequest::decode_length_delimited(&bytes[..size]).unwrap();
        assert_eq!(request.encode(), prosts.encode_length_delimited_to_vec());
    }
    if let Ok(Some((request, size))) = EnrollRequest::decode(bytes) {
        let prosts = proto::EnrollRequest::decode_length_delimited(&bytes[..size]).unwrap();
        assert_eq!(request.encode(), prosts.encode_length_delimited_to_vec());
    }
    if let Ok(Some((request, size))) = RenewRequest::decode(bytes) {
        let prosts = proto::RenewRequest::decode_length_delimited(&bytes[..size]).unwrap();
        assert_eq!(request.encode(), prosts.encode_length_delimited_to_vec());
    }
    if let Ok(Some((answer @ RenewAnswer::Issued { .. }, size))) = RenewAnswer::decode(bytes) {
        let prosts = proto::RenewAnswer::decode_length_delimited(&bytes[..size]).unwrap();
        assert_eq!(answer.encode(), prosts.encode_length_delimited_to_vec());
    }
    if let Ok(Some((signed, size))) = SignedDenylist::decode(bytes) {
        let prosts = proto::SignedDenylist::decode_length_delimited(&bytes[..size]).unwrap();
        assert_eq!(signed.encode(), prosts.encode_length_delimited_to_vec());
    }
    if let Ok(list) = DenylistBody::decode(bytes) {
        assert_eq!(list.encode(), proto::Denylist::decode(bytes).unwrap().encode_to_vec());
    }
    if let Ok(Some((answer @ EnrollAnswer::Issued { .. }, size))) = EnrollAnswer::decode(bytes) {
        let prosts = proto::EnrollAnswer::decode_length_delimited(&bytes[..size]).unwrap();
        assert_eq!(answer.encode(), prosts.encode_length_delimited_to_vec());
    }
}

fn message_agrees_with_prost(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    let Ok(Some(size)) = message_size(&buffer, MAX) else { return };
    if let Ok(Some(message)) = decode_message(&mut buffer, MAX) {
        assert_eq!(buffer, bytes[size..]);
        let prosts = proto::FrameMessage::decode_length_delimited(&bytes[..size]).unwrap();
        assert_eq!(reference::decoded(message), prosts);
    }
}

fn packet_agrees_with_prost(bytes: &[u8]) {
    let mut frames = vec![Frame::Ping { sequence: 1 }];
    let result = decode_packet(&Bytes::copy_from_slice(bytes), &mut frames);
    if result.is_err() {
        assert_eq!(frames, [], "a refused packet has no effect");
        return;
    }
    let prosts = proto::Packet::decode(bytes).unwrap();
    assert_eq!(reference::packet(&frames, 0).frame, prosts.frame);
    let encoded_len: usize = frames.iter().map(Frame::encoded_len).sum();
    assert!(encoded_len <= bytes.len(), "values are not larger than what they were read from");
}
