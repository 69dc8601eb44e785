//! The authority of a trust domain, and the nodes that it names.

use std::fmt;
use std::str::FromStr;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::{CertificateRequest, IssueError, Validity};
use crate::base::{Entropy, SystemEntropy};
use crate::crypto::identity::{IdentityError, NodeId, ROLES_OID, Roles};

/// Issues the certificates of one trust domain's nodes.
pub struct CertificateAuthority {
    trust_domain: String,
    certificate_pem: String,
    certificate_der: CertificateDer<'static>,
    not_after: i64,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Makes an authority for `trust_domain` with a new key. It signs nodes only, no further authorities.
    ///
    /// # Errors
    /// If the trust domain or the validity is not valid.
    pub fn generate(trust_domain: &str, key_type: KeyType, validity: Validity) -> Result<Self, IssueError> {
        NodeId::new(trust_domain, "node")?;
        let key = key_type.generate()?;
        let mut params = params(&format!("spiffe://{trust_domain}"), SerialNumbers::draw(), validity)?;
        params.distinguished_name.push(DnType::CommonName, format!("{trust_domain} longhaul CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed("authority's certificate"))?;
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            certificate_pem: certificate.pem(),
            certificate_der: certificate.der().clone(),
            not_after: validity.not_after_unix(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads an authority's certificate and key, both PEM, as `generate` made them or another tool did with the URI
    /// SAN `spiffe://<trust-domain>`.
    ///
    /// # Errors
    /// If one cannot be read, they do not belong together, or no trust domain is named.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, IssueError> {
        let key = KeyPair::from_pem(key_pem).map_err(failed("authority's key"))?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| IdentityError::BadPem { what: "authority's certificate", reason: error.to_string() })?;
        let (_, parsed) = X509Certificate::from_der(&der)
            .map_err(|error| IdentityError::BadCertificate { reason: error.to_string() })?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(IssueError::KeyMismatch);
        }
        Ok(Self {
            trust_domain: trust_domain(&parsed).ok_or(IssueError::NoTrustDomain)?,
            certificate_pem: certificate_pem.to_owned(),
            not_after: parsed.validity().not_after.timestamp(),
            issuer: Issuer::from_ca_cert_der(&der, key).map_err(failed("authority's certificate"))?,
            certificate_der: der,
        })
    }

    /// The domain whose nodes it names.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Its certificate: the trust anchor of every node.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The same, DER.
    #[must_use]
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate_der
    }

    /// Its private key, PKCS#8. Whoever has it can name nodes: it belongs on no node.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Makes a key and a certificate for the node `name`. The certificate ends with the authority's, if that is first.
    ///
    /// # Errors
    /// If the name or the validity is not valid, or the authority ends before the certificate would begin.
    pub fn issue_node(&self, name: &str, key_type: KeyType, validity: Validity) -> Result<IssuedNode, IssueError> {
        self.issue_node_with(name, &Roles::none(), key_type, validity)
    }

    /// The same, with roles.
    ///
    /// # Errors
    /// As [`CertificateAuthority::issue_node`].
    pub fn issue_node_with(
        &self,
        name: &str,
        roles: &Roles,
        key_type: KeyType,
        validity: Validity,
    ) -> Result<IssuedNode, IssueError> {
        let node_id = NodeId::new(&self.trust_domain, name)?;
        let validity = self.fit(validity)?;
        let key = key_type.generate()?;
        let serial = SerialNumbers::draw();
        let certificate = self.sign(&node_id, roles, &key, serial, validity)?;
        Ok(IssuedNode {
            node_id,
            certificate_pem: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
            key_pem: Zeroizing::new(key.serialize_pem()),
            serial,
            spki_sha256: sha256(&key.subject_public_key_info()),
            validity,
        })
    }

    /// Makes a certificate for the node `name` with these roles and the key of a request, and gives it as DER. Nothing
    /// but the key is taken from the request.
    ///
    /// # Errors
    /// As [`CertificateAuthority::issue_node`].
    pub fn issue_requested(
        &self,
        name: &str,
        roles: &Roles,
        request: &CertificateRequest,
        serial: [u8; 16],
        validity: Validity,
    ) -> Result<Vec<u8>, IssueError> {
        let node_id = NodeId::new(&self.trust_domain, name)?;
        let validity = self.fit(validity)?;
        Ok(self.sign(&node_id, roles, request.public_key(), serial, validity)?.der().to_vec())
    }

    /// The part of a validity within the authority's own.
    ///
    /// # Errors
    /// If there is none.
    pub fn fit(&self, validity: Validity) -> Result<Validity, IssueError> {
        if validity.not_before_unix() >= self.not_after {
            return Err(IssueError::AuthorityExpired);
        }
        Ok(validity.until_at_most(self.not_after))
    }

    /// SHA-256 of its DER SubjectPublicKeyInfo, by which tokens name it.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        sha256(&self.issuer.key().subject_public_key_info())
    }

    fn sign(
        &self,
        node_id: &NodeId,
        roles: &Roles,
        key: &impl PublicKeyData,
        serial: [u8; 16],
        validity: Validity,
    ) -> Result<Certificate, IssueError> {
        let mut params = params(&node_id.to_string(), serial, validity)?;
        params.distinguished_name.push(DnType::CommonName, node_id.name());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        if !roles.is_empty() {
            params.custom_extensions = vec![CustomExtension::from_oid_content(&ROLES_OID, roles.to_der())];
        }
        params.signed_by(key, &self.issuer).map_err(failed("node's certificate"))
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// A node's new certificate and key.
pub struct IssuedNode {
    /// Who it names.
    pub node_id: NodeId,
    /// The leaf alone; the authority's certificate is the peers' trust anchor and is not sent.
    pub certificate_pem: String,
    /// The same, DER.
    pub certificate_der: Vec<u8>,
    /// The private key, PKCS#8.
    pub key_pem: Zeroizing<String>,
    /// Serial number.
    pub serial: [u8; 16],
    /// SHA-256 of the DER SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// From when to when it holds.
    pub validity: Validity,
}

impl fmt::Debug for IssuedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedNode").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

/// Kinds of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA on P-256: understood by everything.
    #[default]
    P256,
    /// Ed25519.
    Ed25519,
}

impl KeyType {
    pub(super) fn generate(self) -> Result<KeyPair, IssueError> {
        let algorithm = match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
        };
        KeyPair::generate_for(algorithm).map_err(failed("key"))
    }
}

impl FromStr for KeyType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "p256" => Ok(Self::P256),
            "ed25519" => Ok(Self::Ed25519),
            other => Err(format!("\"{other}\" is no key type; expected p256 or ed25519")),
        }
    }
}

/// Serial numbers: random, so that nobody has to remember which were used.
#[derive(Debug)]
pub struct SerialNumbers;

impl SerialNumbers {
    /// A new one: positive and of full length, whatever was drawn (RFC 5280 §4.1.2.2).
    #[must_use]
    pub fn draw() -> [u8; 16] {
        let mut serial = [0; 16];
        SystemEntropy::new().fill(&mut serial);
        serial[0] = serial[0] & 0x7f | 0x40;
        serial
    }
}

/// What both kinds of certificates have in common.
fn params(uri: &str, serial: [u8; 16], validity: Validity) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = validity.to_dates()?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let uri = uri.try_into().map_err(failed("name"))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// The trust domain in the one URI SAN of an authority (X.509-SVID §2).
fn trust_domain(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })?;
    NodeId::trust_domain_of_uri(uri).map(str::to_owned)
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

pub(super) fn failed(what: &'static str) -> impl FnOnce(rcgen::Error) -> IssueError {
    move |reason| IssueError::Certificate { what, reason }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    use crate::crypto::identity::{Identity, TrustAnchors, default_provider};

    fn day() -> Validity {
        Validity::from_now(Duration::from_secs(86_400))
    }

    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    #[test]
    fn an_issued_node_is_an_identity() {
        for key_type in [KeyType::P256, KeyType::Ed25519] {
            let authority = CertificateAuthority::generate("example", key_type, day()).unwrap();
            let node = authority.issue_node("dc-a", key_type, day()).unwrap();
            let identity =
                Identity::from_pem(node.certificate_pem.as_bytes(), node.key_pem.as_bytes(), &default_provider());
            assert_eq!(identity.unwrap().node_id().to_string(), "spiffe://example/node/dc-a");
            assert_eq!(TrustAnchors::from_pem(authority.certificate_pem().as_bytes()).unwrap().count(), 1);
        }
    }

    #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
    #[test]
    fn roles_are_in_the_certificate_and_others_pass_over_them() {
        use crate::crypto::identity::{PeerIdentity, PeerVerifier, Trust};
        let authority = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
        let roles = Roles::new(["edge", "backup"].map(|role| role.parse().unwrap())).unwrap();
        let node = authority.issue_node_with("dc-a", &roles, KeyType::P256, day()).unwrap();
        let chain = [CertificateDer::from(node.certificate_der.clone())];
        let anchors = TrustAnchors::from_certificates(vec![authority.certificate_der().clone()]).unwrap();
        let trust = Trust::new("example", anchors, default_provider()).unwrap();
        let now = rustls::pki_types::UnixTime::now();
        assert!(PeerVerifier::new(std::sync::Arc::new(trust), None).verify_chain(&chain, now).is_ok());
        assert_eq!(PeerIdentity::from_chain(&chain).unwrap().roles, roles);
        let plain = authority.issue_node("dc-a", KeyType::P256, day()).unwrap();
        let chain = [CertificateDer::from(plain.certificate_der)];
        assert_eq!(PeerIdentity::from_chain(&chain).unwrap().roles, Roles::none());
    }

    #[test]
    fn an_authority_survives_its_files() {
        let made = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
        let read = CertificateAuthority::from_pem(made.certificate_pem(), &made.key_pem()).unwrap();
        assert_eq!(read.trust_domain(), "example");
        assert!(read.issue_node("dc-a", KeyType::P256, day()).is_ok());
    }

    #[test]
    fn a_foreign_key_is_refused() {
        let made = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
        let other = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
        let read = CertificateAuthority::from_pem(made.certificate_pem(), &other.key_pem());
        assert!(matches!(read, Err(IssueError::KeyMismatch)));
    }

    #[test]
    fn a_node_does_not_outlive_its_authority() {
        let authority = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
        let long = Validity::from_now(Duration::from_secs(365 * 86_400));
        let node = authority.issue_node("dc-a", KeyType::P256, long).unwrap();
        assert!(node.validity.not_after_unix() < long.not_after_unix());
        let old = CertificateAuthority::generate("example", KeyType::P256, Validity::between(0, 86_400)).unwrap();
        assert!(matches!(old.issue_node("a", KeyType::P256, day()), Err(IssueError::AuthorityExpired)));
    }

    #[test]
    fn bad_names_and_times_are_refused() {
        assert!(CertificateAuthority::generate("Example", KeyType::P256, day()).is_err());
        assert!(CertificateAuthority::generate("example", KeyType::P256, Validity::between(2, 1)).is_err());
        assert!(CertificateAuthority::generate("example", KeyType::P256, Validity::between(0, i64::MAX)).is_err());
        let authority = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
        assert!(authority.issue_node("..", KeyType::P256, day()).is_err());
    }

    #[test]
    fn no_key_is_printed() {
        let authority = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
        let node = authority.issue_node("dc-a", KeyType::P256, day()).unwrap();
        assert!(!format!("{authority:?}{node:?}").contains("PRIVATE"));
    }
}
