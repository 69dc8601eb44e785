//! The node's own identity: a certificate chain and the key that belongs to it.

use std::fmt;
use std::sync::Arc;

use ring::hmac;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::leaf::Leaf;
use super::{IdentityError, NodeId};
use crate::base::{Entropy, Secret, SystemEntropy};

/// A certificate chain with its private key, checked to be usable as a node's. Cheap to clone; `Debug` shows no key.
#[derive(Clone)]
pub struct Identity {
    /// `None` for a guest's.
    certified_key: Option<Arc<CertifiedKey>>,
    leaf: Arc<Leaf>,
    reset_secret: Secret<32>,
}

impl Identity {
    /// Reads a chain (leaf first) and its private key (PKCS#8, SEC1 or PKCS#1), both PEM.
    ///
    /// # Errors
    /// If one cannot be read, the key is not the leaf's, or the leaf is not a node's: exactly one URI SAN, which
    /// names a node; usable for clients and servers; key usage digitalSignature; no authority. Validity in time is
    /// for the caller to compare, who has the clock.
    pub fn from_pem(chain: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Self, IdentityError> {
        let chain = read_certificates(chain, "certificate")?;
        let leaf = Leaf::parse(chain.first().ok_or(IdentityError::NoCertificate)?)?;
        if let Some(reason) = leaf.misuse {
            return Err(IdentityError::WrongUsage { reason });
        }
        if !(leaf.is_for_clients && leaf.is_for_servers) {
            return Err(IdentityError::WrongUsage { reason: "extended key usage needs clientAuth and serverAuth" });
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| IdentityError::BadPem { what: "private key", reason: error.to_string() })?;
        let reset_secret = Secret::new(derive_reset_secret(key.secret_der()));
        let certified_key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => IdentityError::KeyMismatch,
            other => IdentityError::BadKey { reason: other.to_string() },
        })?;
        Ok(Self { certified_key: Some(Arc::new(certified_key)), leaf: Arc::new(leaf), reset_secret })
    }

    /// That of a guest, which has a token in place of a certificate.
    pub(crate) fn without_certificate(node_id: NodeId) -> Self {
        let leaf = Leaf::without_certificate(node_id);
        let mut reset_secret = [0; 32];
        SystemEntropy::new().fill(&mut reset_secret);
        Self { certified_key: None, leaf: Arc::new(leaf), reset_secret: Secret::new(reset_secret) }
    }

    /// The node's name.
    #[must_use]
    pub fn node_id(&self) -> &NodeId {
        &self.leaf.node_id
    }

    /// Beginning of the leaf's validity, in seconds since 1970.
    #[must_use]
    pub fn not_before_unix(&self) -> u64 {
        self.leaf.not_before_unix
    }

    /// End of the leaf's validity, in seconds since 1970.
    #[must_use]
    pub fn not_after_unix(&self) -> u64 {
        self.leaf.not_after_unix
    }

    /// SHA-256 of the leaf's DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.leaf.spki_sha256
    }

    /// The certificates, leaf first; none for a guest.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        self.certified_key.as_ref().map_or(&[], |key| &key.cert)
    }

    /// A secret that a restarted node has again, for the tokens by which it proves that it does not know a session.
    #[must_use]
    pub fn reset_secret(&self) -> &Secret<32> {
        &self.reset_secret
    }

    /// Chain and key as rustls takes them; `None` for a guest.
    #[must_use]
    pub fn certified_key(&self) -> Option<Arc<CertifiedKey>> {
        self.certified_key.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node_id", self.node_id()).finish_non_exhaustive()
    }
}

/// The private key is the one secret that outlives a restart. (A signature with it would not do: ECDSA's are random.)
fn derive_reset_secret(key: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, b"longhaul session reset v1").as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
}

/// All certificates of a PEM text; other blocks are skipped.
pub(super) fn read_certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| IdentityError::BadPem { what, reason: error.to_string() })
}

#[cfg(all(test, feature = "issue", any(feature = "aws-lc-rs", feature = "ring")))]
impl Identity {
    /// What [`Identity::from_pem`] reads, without its checks, as an attacker would use it.
    pub(super) fn unchecked(chain: &[u8], key: &[u8], provider: &CryptoProvider) -> Self {
        let chain = read_certificates(chain, "certificate").expect("a test's PEM");
        let nobody = || Leaf::without_certificate(NodeId::new("rogue", "rogue").expect("valid"));
        let leaf = Leaf::parse(&chain[0]).unwrap_or_else(|_| nobody());
        let key = PrivateKeyDer::from_pem_slice(key).expect("a test's key");
        let certified_key = CertifiedKey::from_der(chain, key, provider).expect("a test's pair");
        Self { certified_key: Some(Arc::new(certified_key)), leaf: Arc::new(leaf), reset_secret: Secret::new([0; 32]) }
    }
}
