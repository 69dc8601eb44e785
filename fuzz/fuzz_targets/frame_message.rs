//! A lane's bytes: any message is refused or read, and what was read is written to bytes that read the same.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use longhaul::base::limits;
use longhaul::wire::{Body, ClearMessage, FrameMessage, begins_tls, decode_message, encode_clear, message_size};

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    loop {
        let before = buffer.len();
        let is_tls = begins_tls(&buffer);
        let size = message_size(&buffer, limits::FRAME_MESSAGE_BYTES_MAX);
        match decode_message(&mut buffer, limits::FRAME_MESSAGE_BYTES_MAX) {
            Ok(Some(message)) => {
                assert_eq!(is_tls, Some(false), "what is a message is never taken for TLS");
                assert_eq!(size, Ok(Some(before - buffer.len())));
                assert!(before - buffer.len() <= limits::FRAME_MESSAGE_BYTES_MAX);
                written_reads_the_same(message);
            }
            Ok(None) => {
                assert_eq!(buffer.len(), before, "an incomplete message stays in the buffer");
                return;
            }
            Err(_) => return,
        }
    }
});

fn written_reads_the_same(mut message: FrameMessage) {
    let Some(clear) = clear(&message.body) else {
        if let Body::SealedEarly(sealed) | Body::SealedHandshake(sealed) | Body::Sealed(sealed) = &mut message.body {
            let (header, ciphertext) = sealed.parts_mut();
            assert!(!header.is_empty() && ciphertext.len() >= limits::SEAL_TAG_BYTES);
        }
        return;
    };
    let mut out = BytesMut::new();
    encode_clear(&mut out, &message.head, &clear);
    assert_eq!(decode_message(&mut out, usize::MAX), Ok(Some(message)));
    assert!(out.is_empty());
}

fn clear(body: &Body) -> Option<ClearMessage> {
    Some(match body {
        Body::Handshake(data) => ClearMessage::Handshake(data.clone()),
        Body::Join(join) => ClearMessage::Join(join.clone()),
        Body::Joined(joined) => ClearMessage::Joined(*joined),
        Body::Start(parameters) => ClearMessage::Start(Bytes::clone(parameters)),
        Body::Started(parameters) => ClearMessage::Started(Bytes::clone(parameters)),
        Body::VersionList(versions) => ClearMessage::VersionList(versions.clone()),
        Body::Refused => ClearMessage::Refused,
        Body::SessionReset(token) => ClearMessage::SessionReset(*token),
        Body::SealedEarly(_) | Body::SealedHandshake(_) | Body::Sealed(_) | Body::Plain(_) => return None,
    })
}
