//! The node's own identity: a certificate chain and the key that belongs to it.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::leaf::Leaf;
use super::{IdentityError, NodeId};

/// A certificate chain with its private key, checked to be usable as a node's. Cheap to clone; `Debug` shows no key.
#[derive(Clone)]
pub struct Identity {
    certified_key: Arc<CertifiedKey>,
    leaf: Arc<Leaf>,
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
        let certified_key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => IdentityError::KeyMismatch,
            other => IdentityError::BadKey { reason: other.to_string() },
        })?;
        Ok(Self { certified_key: Arc::new(certified_key), leaf: Arc::new(leaf) })
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

    /// The certificates, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified_key.cert
    }

    /// Chain and key as rustls takes them.
    #[must_use]
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified_key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node_id", self.node_id()).finish_non_exhaustive()
    }
}

/// All certificates of a PEM text; other blocks are skipped.
pub(super) fn read_certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| IdentityError::BadPem { what, reason: error.to_string() })
}
