//! The content of a packet: refused as a whole or read, and what was read is written to bytes that read the same.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use longhaul::base::limits;
use longhaul::wire::{
    Body, Frame, Head, PaddingPolicy, SealedKind, decode_message, decode_packet, encode_packet_message,
    packet_overhead_max,
};

const POLICIES: [PaddingPolicy; 6] = [
    PaddingPolicy::None,
    PaddingPolicy::Block32,
    PaddingPolicy::Block48,
    PaddingPolicy::Block64,
    PaddingPolicy::Padme,
    PaddingPolicy::Constant(1400),
];

fuzz_target!(|data: &[u8]| {
    let mut frames = vec![Frame::Ping { sequence: 1 }];
    let content = Bytes::copy_from_slice(data);
    if decode_packet(&content, &mut frames).is_err() {
        assert!(frames.is_empty(), "a refused packet has no effect");
        return;
    }
    assert!(frames.len() <= limits::FRAMES_PER_PACKET_MAX);
    if content.len() > limits::FRAME_MESSAGE_BYTES_MAX - packet_overhead_max() {
        return;
    }
    // The writer is minimal, so what it writes of the same frames is not longer.
    let frames_len: usize = frames.iter().map(Frame::encoded_len).sum();
    assert!(frames_len <= content.len());
    for policy in POLICIES {
        let mut out = BytesMut::new();
        let size_max = limits::FRAME_MESSAGE_BYTES_MAX;
        encode_packet_message(&mut out, &Head::default(), SealedKind::Plain, &frames, policy, size_max);
        let message = decode_message(&mut out, limits::FRAME_MESSAGE_BYTES_MAX);
        let Ok(Some(message)) = message else { panic!("{message:?}") };
        let Body::Plain(content) = message.body else { panic!("{message:?}") };
        let mut read = Vec::new();
        assert_eq!(decode_packet(&content, &mut read), Ok(()));
        assert_eq!(read, frames);
    }
});
