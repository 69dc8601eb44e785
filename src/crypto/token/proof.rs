//! The proof that the holder of a token asks for a certificate, bound to one TLS connection.

use ring::signature::{ED25519, UnparsedPublicKey};

use super::TokenId;
use crate::base::Secret;

/// The label under which both ends draw the exporter (RFC 8446 §7.5) of the connection; its context is the token's id as
/// text.
pub const ENROLL_EXPORTER_LABEL: &[u8] = b"EXPORTER-longhaul-enroll-v1";

/// Size of a proof.
pub const PROOF_BYTES: usize = 64;

/// What a proof covers. The exporter differs for every connection, so that a proof is worth nothing on another one.
#[derive(Clone, Copy, Debug)]
pub struct EnrollProof<'a> {
    /// The connection's exporter under [`ENROLL_EXPORTER_LABEL`].
    pub exporter: &'a Secret<32>,
    /// The token.
    pub token_id: TokenId,
    /// SHA-256 of the certificate request, DER.
    pub request_sha256: &'a [u8; 32],
    /// The name that is asked for; empty when the token says it.
    pub name: &'a str,
}

impl EnrollProof<'_> {
    /// Whether `proof` was made for this by the token with `public_key`.
    #[must_use]
    pub fn verify(&self, public_key: &[u8; 32], proof: &[u8; PROOF_BYTES]) -> bool {
        UnparsedPublicKey::new(&ED25519, public_key).verify(&self.message(), proof).is_ok()
    }

    /// Everything but the name has a fixed size, so that no two proofs read the same.
    pub(super) fn message(&self) -> Vec<u8> {
        let parts: [&[u8]; 5] =
            [LABEL, self.exporter.expose(), self.token_id.as_bytes(), self.request_sha256, self.name.as_bytes()];
        parts.concat()
    }
}

/// What the proof of a guest covers: the session in which it is shown, and the name that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct GuestProof<'a> {
    /// What the session's handshake gave for this ([`SessionSecrets::guest_exporter`](crate::crypto::SessionSecrets)).
    pub exporter: &'a Secret<32>,
    /// The token.
    pub token_id: TokenId,
    /// The name that is asked for; empty when the token says it.
    pub name: &'a str,
}

impl GuestProof<'_> {
    /// Whether `proof` was made for this by the token with `public_key`.
    #[must_use]
    pub fn verify(&self, public_key: &[u8; 32], proof: &[u8; PROOF_BYTES]) -> bool {
        UnparsedPublicKey::new(&ED25519, public_key).verify(&self.message(), proof).is_ok()
    }

    pub(super) fn message(&self) -> Vec<u8> {
        [GUEST_LABEL, self.exporter.expose(), self.token_id.as_bytes(), self.name.as_bytes()].concat()
    }
}

const LABEL: &[u8] = b"longhaul enroll v1";

/// Of another length and content than the one above: no signature can be taken for one of the other kind.
const GUEST_LABEL: &[u8] = b"longhaul guest v1";

#[cfg(test)]
mod tests {
    use super::super::JoinToken;
    use super::*;

    fn token(seed: u8) -> JoinToken {
        JoinToken::from_parts(TokenId::from_bytes([1; 10]), Secret::new([seed; 32]), [3; 32])
    }

    #[test]
    fn everything_that_is_asked_for_changes_the_proof() {
        let (exporter, other_exporter) = (Secret::new([4; 32]), Secret::new([5; 32]));
        let asked =
            EnrollProof { exporter: &exporter, token_id: token(2).id(), request_sha256: &[6; 32], name: "dc-b" };
        let proof = token(2).prove(&asked);
        assert!(asked.verify(&token(2).public_key(), &proof));
        assert!(!asked.verify(&token(3).public_key(), &proof));
        let others = [
            EnrollProof { exporter: &other_exporter, ..asked },
            EnrollProof { token_id: TokenId::from_bytes([2; 10]), ..asked },
            EnrollProof { request_sha256: &[7; 32], ..asked },
            EnrollProof { name: "dc-c", ..asked },
            EnrollProof { name: "", ..asked },
        ];
        for other in others {
            assert!(!other.verify(&token(2).public_key(), &proof), "{other:?}");
        }
        let mut broken = proof;
        broken[0] ^= 1;
        assert!(!asked.verify(&token(2).public_key(), &broken));
    }

    #[test]
    fn everything_that_a_guest_asks_for_changes_the_proof() {
        let (exporter, other_exporter) = (Secret::new([4; 32]), Secret::new([5; 32]));
        let asked = GuestProof { exporter: &exporter, token_id: token(2).id(), name: "laptop" };
        let proof = token(2).prove_guest(&asked);
        assert!(asked.verify(&token(2).public_key(), &proof) && !asked.verify(&token(3).public_key(), &proof));
        for other in [
            GuestProof { exporter: &other_exporter, ..asked },
            GuestProof { token_id: TokenId::from_bytes([2; 10]), ..asked },
            GuestProof { name: "", ..asked },
        ] {
            assert!(!other.verify(&token(2).public_key(), &proof), "{other:?}");
        }
        // A proof for enrolment is none for a guest, whatever the request is called.
        let enroll =
            EnrollProof { exporter: &exporter, token_id: token(2).id(), request_sha256: &[b'x'; 32], name: "" };
        let proof = token(2).prove(&enroll);
        let name = "x".repeat(32);
        assert!(!GuestProof { name: &name, ..asked }.verify(&token(2).public_key(), &proof));
    }

    /// `tests/golden/enroll-proof.hex`: what every version of the program has to sign.
    #[test]
    fn the_golden_proof_is_made() {
        let golden = include_str!("../../../tests/golden/enroll-proof.hex");
        let golden: String = golden.lines().filter(|line| !line.starts_with('#')).collect();
        let exporter = Secret::new([4; 32]);
        let asked =
            EnrollProof { exporter: &exporter, token_id: token(2).id(), request_sha256: &[6; 32], name: "dc-b" };
        let hex: String = token(2).prove(&asked).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.replace(' ', ""));
    }
}
