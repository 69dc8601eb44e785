//! The facts of an end-entity certificate that matter to us, read with `x509-parser`. No trust is decided here.

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::{IdentityError, NodeId, Roles};

/// What a leaf certificate says about itself.
#[derive(Debug)]
pub(super) struct Leaf {
    /// The node that it names.
    pub(super) node_id: NodeId,
    /// The roles that it gives.
    pub(super) roles: Roles,
    /// SHA-256 of the DER SubjectPublicKeyInfo.
    pub(super) spki_sha256: [u8; 32],
    /// Beginning of validity, in seconds since 1970.
    pub(super) not_before_unix: u64,
    /// End of validity, in seconds since 1970.
    pub(super) not_after_unix: u64,
    /// What keeps it from being a node's certificate in any role, if anything.
    pub(super) misuse: Option<&'static str>,
    /// Whether it may be used by the dialling side.
    pub(super) is_for_clients: bool,
    /// Whether it may be used by the accepting side.
    pub(super) is_for_servers: bool,
}

impl Leaf {
    /// Of somebody who has none: the name alone.
    pub(super) fn without_certificate(node_id: NodeId) -> Self {
        Self {
            node_id,
            roles: Roles::none(),
            spki_sha256: [0; 32],
            not_before_unix: 0,
            not_after_unix: u64::MAX,
            misuse: None,
            is_for_clients: true,
            is_for_servers: true,
        }
    }

    /// Reads a certificate.
    pub(super) fn parse(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|error| bad(&error))?;
        if !rest.is_empty() {
            return Err(IdentityError::BadCertificate { reason: "bytes after its end".to_owned() });
        }
        let (is_for_clients, is_for_servers) = extended_usages(&parsed)?;
        Ok(Self {
            node_id: node_id(&parsed)?,
            roles: Roles::of(&parsed)?,
            spki_sha256: sha256(parsed.public_key().raw),
            not_before_unix: unix(parsed.validity().not_before.timestamp()),
            not_after_unix: unix(parsed.validity().not_after.timestamp()),
            misuse: misuse(&parsed)?,
            is_for_clients,
            is_for_servers,
        })
    }
}

/// The one URI SAN (X.509-SVID §2), as a node's name.
fn node_id(certificate: &X509Certificate<'_>) -> Result<NodeId, IdentityError> {
    let names = certificate.subject_alternative_name().map_err(|error| bad(&error))?;
    let mut uris = names.iter().flat_map(|san| &san.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().ok_or(IdentityError::NoSpiffeName)?;
    match uris.count() {
        0 => uri.parse(),
        more => Err(IdentityError::SeveralNames { count: more + 1 }),
    }
}

/// Whether the extended key usage allows (client, server); absent means that both are allowed (RFC 5280 §4.2.1.12).
fn extended_usages(certificate: &X509Certificate<'_>) -> Result<(bool, bool), IdentityError> {
    let usage = certificate.extended_key_usage().map_err(|error| bad(&error))?;
    Ok(usage.map_or((true, true), |usage| (usage.value.client_auth, usage.value.server_auth)))
}

/// What X.509-SVID §4 forbids in a leaf, or misses in it.
fn misuse(certificate: &X509Certificate<'_>) -> Result<Option<&'static str>, IdentityError> {
    let constraints = certificate.basic_constraints().map_err(|error| bad(&error))?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Ok(Some("it is a certificate authority's, not a node's"));
    }
    let usage = certificate.key_usage().map_err(|error| bad(&error))?;
    Ok(match usage.map(|usage| usage.value) {
        None => Some("key usage digitalSignature is missing"),
        Some(usage) if !usage.digital_signature() => Some("key usage digitalSignature is missing"),
        Some(usage) if usage.key_cert_sign() || usage.crl_sign() => {
            Some("key usage keyCertSign or cRLSign is for certificate authorities")
        }
        Some(_) => None,
    })
}

pub(super) fn bad(error: &impl ToString) -> IdentityError {
    IdentityError::BadCertificate { reason: error.to_string() }
}

pub(super) fn unix(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or(0)
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}
