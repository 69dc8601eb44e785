//! Trust anchors: the certificate authorities of one trust domain.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::IdentityError;
use super::leaf::{bad, unix};
use super::own::read_certificates;

/// The authorities that may name nodes of one trust domain. Several are normal while one replaces another.
#[derive(Clone)]
pub struct TrustAnchors {
    roots: Arc<RootCertStore>,
    not_after_unix: u64,
}

impl TrustAnchors {
    /// Reads one or more authority certificates, PEM.
    ///
    /// # Errors
    /// If there is none, or one cannot be read or is no authority's.
    pub fn from_pem(pem: &[u8]) -> Result<Self, IdentityError> {
        Self::from_certificates(read_certificates(pem, "trust anchor file")?)
    }

    /// Takes one or more authority certificates.
    ///
    /// # Errors
    /// As [`TrustAnchors::from_pem`].
    pub fn from_certificates(certificates: Vec<CertificateDer<'_>>) -> Result<Self, IdentityError> {
        if certificates.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        let mut roots = RootCertStore::empty();
        let mut not_after_unix = 0;
        for certificate in certificates {
            let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|error| bad(&error))?;
            let constraints = parsed.basic_constraints().map_err(|error| bad(&error))?;
            if !constraints.is_some_and(|constraints| constraints.value.ca) {
                return Err(IdentityError::AnchorIsNoAuthority { subject: parsed.subject().to_string() });
            }
            not_after_unix = not_after_unix.max(unix(parsed.validity().not_after.timestamp()));
            roots.add(certificate).map_err(|error| bad(&error))?;
        }
        Ok(Self { roots: Arc::new(roots), not_after_unix })
    }

    /// None: for a guest, which knows its peer by a token.
    pub(crate) fn nobody() -> Self {
        Self { roots: Arc::new(RootCertStore::empty()), not_after_unix: u64::MAX }
    }

    /// The authorities as rustls takes them.
    #[must_use]
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// How many authorities there are; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.roots.len()
    }

    /// End of validity of the authority that lasts longest, in seconds since 1970. Verification does not look at it
    /// (RFC 5280 §6.1.1 leaves anchors to the user): whoever loads anchors compares it with the clock.
    #[must_use]
    pub fn not_after_unix(&self) -> u64 {
        self.not_after_unix
    }
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustAnchors").field("count", &self.count()).finish_non_exhaustive()
    }
}
