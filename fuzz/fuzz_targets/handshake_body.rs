//! What strangers send first, without the framing that would stop most inputs: the body of handshake bytes, transport
//! parameters, and the request of a service.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use longhaul::base::limits;
use longhaul::wire::{Body, ServiceRequest, TransportParameters, decode_message};

fuzz_target!(|data: &[u8]| {
    handshake(data);
    parameters(data);
    service_request(data);
});

fn handshake(body: &[u8]) {
    let mut inner = vec![8 << 3 | 2];
    put_varint(&mut inner, body.len());
    inner.extend_from_slice(body);
    let mut message = Vec::new();
    put_varint(&mut message, inner.len());
    message.extend_from_slice(&inner);
    let size_max = limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX;
    let is_long = message.len() > size_max;
    match decode_message(&mut BytesMut::from(&message[..]), size_max) {
        Ok(Some(message)) => {
            let Body::Handshake(data) = message.body else { panic!("{message:?}") };
            let end = data.offset + data.data.len() as u64;
            assert!(!is_long && end <= limits::HANDSHAKE_BYTES_PER_LEVEL_MAX as u64);
        }
        Ok(None) => panic!("the message is complete"),
        Err(_) => {}
    }
}

fn parameters(bytes: &[u8]) {
    if let Ok(parameters) = TransportParameters::decode(bytes) {
        assert!(parameters.versions.len() <= limits::VERSIONS_MAX);
        assert_eq!(TransportParameters::decode(&parameters.encode()), Ok(parameters));
    }
}

fn service_request(bytes: &[u8]) {
    if let Ok(Some((request, size))) = ServiceRequest::decode(bytes) {
        assert!(size <= bytes.len());
        let encoded = request.encode();
        assert_eq!(ServiceRequest::decode(&encoded), Ok(Some((request, encoded.len()))));
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
