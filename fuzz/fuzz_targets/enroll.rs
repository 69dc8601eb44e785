//! Everything that enrolment and renewal read: tokens as people paste them, messages as strangers send them, certificate
//! requests, denylists.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longhaul::base::{Secret, limits};
use longhaul::crypto::token::{EnrollProof, JoinToken, TokenId};
use longhaul::issue::CertificateRequest;
use longhaul::wire::{DenylistBody, EnrollAnswer, EnrollRequest, RenewAnswer, RenewRequest, SignedDenylist};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        token(text);
    }
    request(data);
    answer(data);
    renewal(data);
    denylist(data);
    if let Ok(request) = CertificateRequest::from_der(data) {
        assert!(data.len() <= limits::CERTIFICATE_REQUEST_BYTES_MAX);
        assert_ne!(request.sha256(), request.spki_sha256());
    }
});

fn token(text: &str) {
    match JoinToken::parse(text) {
        Ok(token) => assert_eq!(token.to_text().as_str(), text.trim()),
        Err(error) => {
            let shown = format!("{error} {error:?}");
            // Words of this length are in no message of ours.
            let mut words = text.split_whitespace().filter(|word| word.len() >= 16);
            assert!(words.all(|word| !shown.contains(word)));
        }
    }
}

fn request(bytes: &[u8]) {
    if let Ok(Some((request, size))) = EnrollRequest::decode(bytes) {
        assert!(size <= bytes.len() && size <= limits::CONTROL_MESSAGE_BYTES_MAX);
        assert!(request.certificate_request.len() <= limits::CERTIFICATE_REQUEST_BYTES_MAX);
        // Whatever the key: nobody proves a token by chance.
        let asked = EnrollProof {
            exporter: &Secret::new([0; 32]),
            token_id: TokenId::from_bytes(request.token_id),
            request_sha256: &[0; 32],
            name: &request.name,
        };
        assert!(!asked.verify(&[0x66; 32], &request.proof));
        let encoded = request.encode();
        assert_eq!(EnrollRequest::decode(&encoded), Ok(Some((request, encoded.len()))));
    }
}

fn answer(bytes: &[u8]) {
    if let Ok(Some((answer, size))) = EnrollAnswer::decode(bytes) {
        assert!(size <= bytes.len() && size <= limits::ENROLL_ANSWER_BYTES_MAX);
        if let EnrollAnswer::Issued { addresses, .. } = &answer {
            assert!(addresses.len() <= limits::HUB_ADDRESSES_MAX);
        }
        let encoded = answer.encode();
        assert_eq!(EnrollAnswer::decode(&encoded), Ok(Some((answer, encoded.len()))));
    }
}

fn renewal(bytes: &[u8]) {
    if let Ok(Some((request, size))) = RenewRequest::decode(bytes) {
        assert!(size <= bytes.len() && size <= limits::CONTROL_MESSAGE_BYTES_MAX);
        let encoded = request.encode();
        assert_eq!(RenewRequest::decode(&encoded), Ok(Some((request, encoded.len()))));
    }
    if let Ok(Some((answer, size))) = RenewAnswer::decode(bytes) {
        assert!(size <= bytes.len() && size <= limits::RENEW_ANSWER_BYTES_MAX);
        let encoded = answer.encode();
        assert_eq!(RenewAnswer::decode(&encoded), Ok(Some((answer, encoded.len()))));
    }
}

fn denylist(bytes: &[u8]) {
    if let Ok(Some((signed, size))) = SignedDenylist::decode(bytes) {
        assert!(size <= bytes.len() && size <= limits::SIGNED_DENYLIST_BYTES_MAX);
        let encoded = signed.encode();
        assert_eq!(SignedDenylist::decode(&encoded), Ok(Some((signed, encoded.len()))));
    }
    if let Ok(body) = DenylistBody::decode(bytes) {
        assert!(body.names.len() + body.keys.len() <= limits::DENYLIST_ENTRIES_MAX);
        assert_eq!(DenylistBody::decode(&body.encode()), Ok(body));
    }
}
