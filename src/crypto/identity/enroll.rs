//! TLS for enrolment: the hub shows its authority, and a machine without any anchors knows it by the token's pin.
//!
//! The pin alone would prove nothing, as an authority's certificate is public: anybody can staple it to a chain. So the
//! pinned certificate is taken out of the chain and made the only trust anchor of the usual path check, which a foreign
//! leaf does not pass.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::leaf::{Leaf, sha256};
use super::verify::{explain, handshake_schemes};
use super::{ALPN_ENROLL, IdentityError, KeyResolver, NodeId, TrustAnchors, VerifyFailure};

/// For a machine that has nothing but a token: accepts a node under the authority whose DER SubjectPublicKeyInfo has the
/// SHA-256 `authority_pin`, and shows no certificate.
///
/// # Errors
/// If rustls refuses the provider.
pub fn enroll_client_config(
    authority_pin: [u8; 32],
    provider: Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let verifier = PinnedAuthority::new(authority_pin, Arc::clone(&provider));
    let mut config = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| IdentityError::Tls { reason: error.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_ENROLL.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Checks what an enrolment gave: the node that a new certificate names.
///
/// # Errors
/// If the authority is not the pinned one, the certificate is not from it, not for a node, or not for the key.
pub fn issued_node(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
    authority_pin: &[u8; 32],
    spki_sha256: &[u8; 32],
    provider: &CryptoProvider,
    now: UnixTime,
) -> Result<NodeId, VerifyFailure> {
    let leaf = verify_under_pin(certificate, std::slice::from_ref(authority), authority_pin, provider, now)?;
    if leaf.spki_sha256 != *spki_sha256 {
        return Err(VerifyFailure::Other { reason: "the certificate is for another key".to_owned() });
    }
    Ok(leaf.node_id)
}

/// Finds the pinned authority in the chain, and verifies the leaf under it and nothing else.
fn verify_under_pin(
    end_entity: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    authority_pin: &[u8; 32],
    provider: &CryptoProvider,
    now: UnixTime,
) -> Result<Leaf, VerifyFailure> {
    let leaf = Leaf::parse(end_entity).map_err(VerifyFailure::NoSpiffeName)?;
    let is_pinned = |certificate: &&CertificateDer<'_>| {
        X509Certificate::from_der(certificate)
            .is_ok_and(|(_, parsed)| sha256(parsed.public_key().raw) == *authority_pin)
    };
    let other = |reason: String| VerifyFailure::Other { reason };
    let authority = chain
        .iter()
        .find(is_pinned)
        .ok_or_else(|| other(format!("{} does not show the authority that the token was made by", leaf.node_id)))?;
    let anchors = TrustAnchors::from_certificates(vec![authority.clone()]).map_err(|error| other(error.to_string()))?;
    if anchors.not_after_unix() < now.as_secs() {
        return Err(VerifyFailure::Expired {
            peer: leaf.node_id,
            not_after: anchors.not_after_unix(),
            now: now.as_secs(),
        });
    }
    let intermediates: Vec<_> = chain.iter().filter(|certificate| *certificate != authority).cloned().collect();
    let algorithms = provider.signature_verification_algorithms.all;
    ParsedCertificate::try_from(end_entity)
        .and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(&parsed, anchors.roots(), &intermediates, now, algorithms)
        })
        .map_err(|error| explain(error, &leaf, now))?;
    match leaf.misuse {
        Some(reason) => Err(VerifyFailure::WrongUsage { peer: leaf.node_id, reason: reason.to_owned() }),
        None => Ok(leaf),
    }
}

/// Accepts servers under one authority, which is known by its key alone.
#[derive(Debug)]
pub(super) struct PinnedAuthority {
    authority_pin: [u8; 32],
    provider: Arc<CryptoProvider>,
    expected: Option<NodeId>,
}

impl PinnedAuthority {
    /// Any node under the authority.
    pub(super) fn new(authority_pin: [u8; 32], provider: Arc<CryptoProvider>) -> Self {
        Self { authority_pin, provider, expected: None }
    }

    /// Only this node, if one is given.
    pub(super) fn expecting(self, expected: Option<NodeId>) -> Self {
        Self { expected, ..self }
    }
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = verify_under_pin(end_entity, intermediates, &self.authority_pin, &self.provider, now)?;
        match &self.expected {
            Some(expected) if *expected != leaf.node_id => {
                Err(VerifyFailure::OtherNode { expected: expected.clone(), found: leaf.node_id }.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        handshake_schemes(&self.provider.signature_verification_algorithms)
    }
}

/// Presents the identity in use with the authority's certificate behind it.
#[derive(Debug)]
pub(super) struct WithAuthority {
    resolver: Arc<KeyResolver>,
    authority: CertificateDer<'static>,
}

impl WithAuthority {
    pub(super) fn new(resolver: Arc<KeyResolver>, authority: CertificateDer<'static>) -> Self {
        Self { resolver, authority }
    }
}

impl ResolvesServerCert for WithAuthority {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = self.resolver.identity().certified_key()?;
        let chain = own.cert.iter().filter(|certificate| **certificate != self.authority).cloned();
        let chain = chain.chain([self.authority.clone()]).collect();
        Some(Arc::new(CertifiedKey::new(chain, Arc::clone(&own.key))))
    }
}

#[cfg(all(test, feature = "issue", any(feature = "aws-lc-rs", feature = "ring")))]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::pem::PemObject;

    use super::super::default_provider;
    use super::*;
    use crate::issue::{CertificateAuthority, KeyType, Validity};

    const DAY: Duration = Duration::from_secs(86_400);

    fn authority(domain: &str) -> CertificateAuthority {
        CertificateAuthority::generate(domain, KeyType::P256, Validity::from_now(10 * DAY)).expect("valid")
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")
    }

    fn leaf(authority: &CertificateAuthority) -> CertificateDer<'static> {
        let node = authority.issue_node("hub", KeyType::P256, Validity::from_now(DAY)).expect("valid");
        der(&node.certificate_pem)
    }

    fn verify(
        end_entity: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        pin: [u8; 32],
    ) -> Result<(), VerifyFailure> {
        verify_under_pin(end_entity, chain, &pin, &default_provider(), UnixTime::now()).map(|_| ())
    }

    #[test]
    fn the_pinned_authority_vouches_for_its_own_nodes_alone() {
        let (ours, foreign) = (authority("example"), authority("example"));
        let (ours_der, foreign_der) = (der(ours.certificate_pem()), der(foreign.certificate_pem()));
        let pin = ours.spki_sha256();
        assert_eq!(verify(&leaf(&ours), std::slice::from_ref(&ours_der), pin), Ok(()));
        // Another authority; none; and ours stapled to a foreign node, in either order.
        assert!(verify(&leaf(&foreign), std::slice::from_ref(&foreign_der), pin).is_err());
        assert!(verify(&leaf(&ours), &[], pin).is_err());
        let stapled = [ours_der.clone(), foreign_der.clone()];
        let failure = verify(&leaf(&foreign), &stapled, pin).unwrap_err();
        assert!(matches!(failure, VerifyFailure::UnknownIssuer { .. }), "{failure}");
        assert!(verify(&leaf(&foreign), &[foreign_der, ours_der.clone()], pin).is_err());
        // An authority is no node, not even its own.
        assert!(verify(&ours_der, std::slice::from_ref(&ours_der), pin).is_err());
    }

    #[test]
    fn what_has_expired_is_refused() {
        let ours = authority("example");
        let chain = [der(ours.certificate_pem())];
        let leaf = leaf(&ours);
        let at = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + days * 86_400));
        let verify = |now| verify_under_pin(&leaf, &chain, &ours.spki_sha256(), &default_provider(), now).map(|_| ());
        assert!(matches!(verify(at(2)), Err(VerifyFailure::Expired { .. })));
        assert!(matches!(verify(at(20)), Err(VerifyFailure::Expired { .. })));
        let long_ago = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() - 365 * 86_400));
        assert!(matches!(verify(long_ago), Err(VerifyFailure::NotYetValid { .. })));
    }

    #[test]
    fn a_certificate_for_another_key_is_refused() {
        let ours = authority("example");
        let node = ours.issue_node("dc-b", KeyType::P256, Validity::from_now(DAY)).unwrap();
        let check = |spki: &[u8; 32]| {
            let (certificate, authority) = (der(&node.certificate_pem), der(ours.certificate_pem()));
            issued_node(&certificate, &authority, &ours.spki_sha256(), spki, &default_provider(), UnixTime::now())
        };
        assert_eq!(check(&node.spki_sha256).unwrap().to_string(), "spiffe://example/node/dc-b");
        assert!(check(&[0; 32]).is_err());
    }
}
