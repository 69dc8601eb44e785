//! Certificate requests (PKCS#10, RFC 2986): made by a node that keeps its key, read by the authority.

use std::fmt;

use rcgen::{CertificateParams, KeyPair, PublicKey, PublicKeyData};
use rustls::pki_types::CertificateSigningRequestDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::authority::{failed, sha256};
use super::{IssueError, KeyType};
use crate::base::limits;

/// A node's private key before it has a certificate.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// If the key cannot be made.
    pub fn generate(key_type: KeyType) -> Result<Self, IssueError> {
        key_type.generate().map(Self)
    }

    /// Reads a key, PEM, as [`NodeKey::to_pem`] wrote it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn from_pem(pem: &str) -> Result<Self, IssueError> {
        KeyPair::from_pem(pem).map(Self).map_err(failed("node's key"))
    }

    /// The key, PKCS#8.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// SHA-256 of its DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        sha256(&self.0.subject_public_key_info())
    }

    /// A request for a certificate with this key, DER. It asks for no name: the authority knows it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn request(&self) -> Result<Vec<u8>, IssueError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(failed("certificate request"))?;
        Ok(request.der().to_vec())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey([redacted])")
    }
}

/// A request that is signed by the key in it: whoever made it has the private key.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    public_key: PublicKey,
    sha256: [u8; 32],
    spki_sha256: [u8; 32],
}

impl CertificateRequest {
    /// Reads a request, DER, and checks its signature.
    ///
    /// # Errors
    /// If it is none, is larger than needed, is not signed by its own key, or has another key than ECDSA on P-256 or
    /// P-384, or Ed25519.
    pub fn from_der(der: &[u8]) -> Result<Self, IssueError> {
        let bad = |reason: String| IssueError::BadRequest { reason };
        if der.len() > limits::CERTIFICATE_REQUEST_BYTES_MAX {
            return Err(bad(format!("it has more than {} bytes", limits::CERTIFICATE_REQUEST_BYTES_MAX)));
        }
        let (rest, parsed) = X509CertificationRequest::from_der(der).map_err(|error| bad(error.to_string()))?;
        if !rest.is_empty() {
            return Err(bad("bytes after its end".to_owned()));
        }
        let spki = parsed.certification_request_info.subject_pki.raw;
        let request = rcgen::CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|error| bad(error.to_string()))?;
        let public_key = request.public_key;
        if !KEY_ALGORITHMS.contains(&public_key.algorithm()) {
            return Err(bad("its key is neither ECDSA on P-256 or P-384 nor Ed25519".to_owned()));
        }
        // rcgen takes the kind of key from the signature's, which says less: ECDSA with SHA-384 goes with any curve.
        if public_key.subject_public_key_info() != spki {
            return Err(bad("its key and its signature are of different kinds".to_owned()));
        }
        Ok(Self { public_key, sha256: sha256(der), spki_sha256: sha256(spki) })
    }

    /// SHA-256 of the whole request.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// SHA-256 of the DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self) -> &[u8; 32] {
        &self.spki_sha256
    }

    pub(super) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

/// Keys that rustls can sign handshakes with, of a size that nobody has to think about.
static KEY_ALGORITHMS: [&rcgen::SignatureAlgorithm; 3] =
    [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{DnType, SanType};
    use x509_parser::certificate::X509Certificate;

    use super::*;
    use crate::crypto::identity::Roles;
    use crate::issue::{CertificateAuthority, SerialNumbers, Validity};

    fn day() -> Validity {
        Validity::from_now(Duration::from_secs(86_400))
    }

    #[test]
    fn a_request_becomes_a_certificate_of_its_key() {
        let authority = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
        for key_type in [KeyType::P256, KeyType::Ed25519] {
            let key = NodeKey::from_pem(&NodeKey::generate(key_type).unwrap().to_pem()).unwrap();
            let request = CertificateRequest::from_der(&key.request().unwrap()).unwrap();
            assert_eq!(*request.spki_sha256(), key.spki_sha256());
            let der =
                authority.issue_requested("dc-b", &Roles::none(), &request, SerialNumbers::draw(), day()).unwrap();
            let (_, certificate) = X509Certificate::from_der(&der).unwrap();
            assert_eq!(sha256(certificate.public_key().raw), key.spki_sha256());
        }
    }

    #[test]
    fn nothing_but_the_key_is_taken_from_a_request() {
        let authority = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "admin");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI("spiffe://example/node/admin".try_into().unwrap())];
        let wish = params.serialize_request(&key).unwrap();
        let request = CertificateRequest::from_der(wish.der()).unwrap();
        let serial = SerialNumbers::draw();
        let der =
            authority.issue_requested("dc-b", &Roles::none(), &request, serial, Validity::between(1000, 2000)).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=dc-b");
        assert!(!certificate.basic_constraints().unwrap().unwrap().value.ca);
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
        assert!(format!("{:?}", names.value.general_names).contains("spiffe://example/node/dc-b"));
        assert_eq!(certificate.raw_serial(), serial);
        assert_eq!(certificate.validity().not_after.timestamp(), 2000);
    }

    #[test]
    fn a_request_that_is_not_its_keys_is_refused() {
        let der = NodeKey::generate(KeyType::P256).unwrap().request().unwrap();
        assert!(CertificateRequest::from_der(&der).is_ok());
        let spki_sha256 = *CertificateRequest::from_der(&der).unwrap().spki_sha256();
        let mut taken_count = 0;
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 1;
            // What is behind the signed part can be written in other ways; the key cannot.
            if let Ok(request) = CertificateRequest::from_der(&changed) {
                assert_eq!(*request.spki_sha256(), spki_sha256, "{at}");
                taken_count += 1;
            }
        }
        assert!(taken_count < 4, "{taken_count}");
        assert!(CertificateRequest::from_der(&der[..der.len() - 1]).is_err());
        assert!(CertificateRequest::from_der(&[&der[..], b"x"].concat()).is_err());
        assert!(CertificateRequest::from_der(&vec![0x30; 5000]).is_err());
    }

    #[test]
    fn no_key_is_printed() {
        let key = NodeKey::generate(KeyType::P256).unwrap();
        assert_eq!(format!("{key:?}"), "NodeKey([redacted])");
    }
}
