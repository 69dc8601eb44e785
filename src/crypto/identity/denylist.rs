//! Who is denied although the certificate holds: a list that an authority of the trust domain signed.
//!
//! It does not matter who hands a list on, and an old one cannot take the place of a newer one. Entries are names and keys,
//! never certificates by their hash: of those one key can have any number (ECDSA signatures are malleable).

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{NodeId, TrustAnchors};
use crate::wire::{DenylistBody, SignedDenylist, WireError};

/// A verified denylist. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Denylist {
    body: Arc<DenylistBody>,
    signed: Arc<SignedDenylist>,
}

/// Why a list does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DenylistError {
    /// It cannot be read.
    #[error("the denylist cannot be read: {0}")]
    Wire(#[from] WireError),
    /// It is about nodes of another trust domain.
    #[error("the denylist is about nodes of {found:?}, which is no trust domain of this node")]
    ForeignTrustDomain {
        /// Which.
        found: String,
    },
    /// None of the trust anchors signed it.
    #[error("the denylist is signed by none of the trust anchors")]
    BadSignature,
}

impl Denylist {
    /// Takes a list that one of `anchors` signed.
    ///
    /// # Errors
    /// [`DenylistError`].
    pub fn verify(
        signed: SignedDenylist,
        anchors: &TrustAnchors,
        provider: &CryptoProvider,
    ) -> Result<Self, DenylistError> {
        let message = signed_bytes(&signed.denylist);
        if !anchors.certificates().iter().any(|anchor| is_signed_by(anchor, &message, &signed.signature, provider)) {
            return Err(DenylistError::BadSignature);
        }
        let body = DenylistBody::decode(&signed.denylist)?;
        Ok(Self { body: Arc::new(body), signed: Arc::new(signed) })
    }

    /// Whether a node is on it, by its name or its key.
    #[must_use]
    pub fn denies(&self, node: &NodeId, spki_sha256: &[u8; 32]) -> bool {
        let is_named = || self.body.names.binary_search_by(|name| name.as_str().cmp(node.name())).is_ok();
        node.trust_domain() == self.body.trust_domain
            && (self.body.keys.binary_search(spki_sha256).is_ok() || is_named())
    }

    /// The domain whose nodes it is about.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.body.trust_domain
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.body.version
    }

    /// How many names and keys are on it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.body.names.len() + self.body.keys.len()
    }

    /// The list as it came, to be handed on.
    #[must_use]
    pub fn signed(&self) -> &SignedDenylist {
        &self.signed
    }
}

/// What is signed for a list: nothing else that an authority signs begins so.
#[must_use]
pub fn signed_bytes(denylist: &[u8]) -> Vec<u8> {
    [b"longhaul denylist v1\0", denylist].concat()
}

fn is_signed_by(anchor: &[u8], message: &[u8], signature: &[u8], provider: &CryptoProvider) -> bool {
    let Ok((_, certificate)) = x509_parser::certificate::X509Certificate::from_der(anchor) else { return false };
    let spki: &SubjectPublicKeyInfo<'_> = certificate.public_key();
    let algorithm = algorithm_contents(spki.raw);
    let key = &spki.subject_public_key.data;
    let algorithms = provider.signature_verification_algorithms.all.iter();
    let mut fitting = algorithms.filter(|known| Some(known.public_key_alg_id().as_ref()) == algorithm);
    fitting.any(|known| known.verify_signature(key, message, signature).is_ok())
}

/// The contents of the AlgorithmIdentifier, which is the first item in a SubjectPublicKeyInfo, DER.
fn algorithm_contents(spki: &[u8]) -> Option<&[u8]> {
    let (_, outer) = x509_parser::der_parser::asn1_rs::Sequence::from_der(spki).ok()?;
    let (rest, _) = x509_parser::der_parser::asn1_rs::Sequence::from_der(&outer.content).ok()?;
    let start = spki.len() - outer.content.len();
    let item = &spki[start..spki.len() - rest.len()];
    // The head of an item this short has two bytes.
    item.get(2..)
}
