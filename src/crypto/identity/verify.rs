//! Whether a peer is who it should be: the verifier for both roles of the handshake.
//!
//! The order of the checks: the name is read, its trust domain chooses the anchors (an authority cannot name nodes of
//! another domain), webpki builds the chain and checks time and extended key usage, then key usage and the expected
//! name, and the denylist. The DNS name that rustls passes is not looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};

use super::leaf::Leaf;
use super::{Denylist, DenylistError, IdentityError, NodeId, PeerIdentity, TrustAnchors, VerifyFailure};
use crate::wire::{DenylistBody, SignedDenylist};

/// The allowed trust domains with the anchors of each; shared by all verifiers of a node and replaceable.
#[derive(Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    domains: RwLock<BTreeMap<String, Domain>>,
    /// Counts changes of who is trusted.
    generation: AtomicU64,
}

/// The anchors of a domain, and webpki's verifier for clients over them.
#[derive(Clone, Debug)]
struct Domain {
    anchors: TrustAnchors,
    clients: Arc<dyn ClientCertVerifier>,
    /// Who is denied all the same.
    denylist: Option<Denylist>,
}

impl Trust {
    /// Trusts `anchors` to name nodes of `trust_domain`, and nobody else.
    ///
    /// # Errors
    /// If rustls refuses the anchors.
    pub fn new(
        trust_domain: &str,
        anchors: TrustAnchors,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, IdentityError> {
        let trust = Self { provider, domains: RwLock::default(), generation: AtomicU64::new(0) };
        trust.set(trust_domain, anchors)?;
        Ok(trust)
    }

    /// Trusts nobody yet.
    #[must_use]
    pub fn nobody(provider: Arc<CryptoProvider>) -> Self {
        Self { provider, domains: RwLock::default(), generation: AtomicU64::default() }
    }

    /// Adds a trust domain, or replaces its anchors, for all later handshakes.
    ///
    /// # Errors
    /// If rustls refuses the anchors.
    pub fn set(&self, trust_domain: &str, anchors: TrustAnchors) -> Result<(), IdentityError> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(anchors.roots()), Arc::clone(&self.provider))
                .build()
                .map_err(|error| IdentityError::Tls { reason: error.to_string() })?;
        let mut domains = self.domains.write().unwrap_or_else(PoisonError::into_inner);
        let roots = Arc::clone(anchors.roots());
        let denylist = domains.get(trust_domain).and_then(|domain| domain.denylist.clone());
        let before = domains.insert(trust_domain.to_owned(), Domain { anchors, clients, denylist });
        if before.is_none_or(|before| before.anchors.roots().roots != roots.roots) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Counts the changes, of anchors and of the denylist: what was verified under another number may be trusted no more.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Denies whom a list names from now on, in all later handshakes. Whether it did: a list that is no newer than the one
    /// in use changes nothing.
    ///
    /// # Errors
    /// If no anchor of an allowed domain signed it: nothing changes then.
    pub fn deny(&self, signed: SignedDenylist) -> Result<bool, DenylistError> {
        let DenylistBody { trust_domain: domain, version, .. } = DenylistBody::decode(&signed.denylist)?;
        // Most lists that come are the one in use: no signature has to be verified to leave them.
        let is_known = self.denylist(&domain).is_some_and(|known| known.version() >= version);
        if is_known {
            return Ok(false);
        }
        let foreign = || DenylistError::ForeignTrustDomain { found: domain.clone() };
        let anchors = self.anchors(&domain).ok_or_else(foreign)?;
        let denylist = Denylist::verify(signed, &anchors, &self.provider)?;
        let mut domains = self.domains.write().unwrap_or_else(PoisonError::into_inner);
        let place = domains.get_mut(&domain).ok_or_else(foreign)?;
        if place.denylist.as_ref().is_some_and(|known| known.version() >= denylist.version()) {
            return Ok(false);
        }
        place.denylist = Some(denylist);
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }

    /// Whether a node is denied, by its name or its key.
    #[must_use]
    pub fn is_denied(&self, node: &NodeId, spki_sha256: &[u8; 32]) -> bool {
        self.denylist(node.trust_domain()).is_some_and(|denylist| denylist.denies(node, spki_sha256))
    }

    /// The denylist of a trust domain, if there is one.
    #[must_use]
    pub fn denylist(&self, trust_domain: &str) -> Option<Denylist> {
        let domains = self.domains.read().unwrap_or_else(PoisonError::into_inner);
        domains.get(trust_domain).and_then(|domain| domain.denylist.clone())
    }

    /// The anchors of a trust domain, if it is an allowed one.
    #[must_use]
    pub fn anchors(&self, trust_domain: &str) -> Option<TrustAnchors> {
        let domains = self.domains.read().unwrap_or_else(PoisonError::into_inner);
        domains.get(trust_domain).map(|domain| domain.anchors.clone())
    }

    fn domain_of(&self, peer: &NodeId) -> Result<Domain, VerifyFailure> {
        let domains = self.domains.read().unwrap_or_else(PoisonError::into_inner);
        domains.get(peer.trust_domain()).cloned().ok_or_else(|| VerifyFailure::ForeignTrustDomain {
            peer: peer.clone(),
            allowed: domains.keys().map(|domain| format!("\"{domain}\"")).collect::<Vec<_>>().join(" or "),
        })
    }

    fn algorithms(&self) -> WebPkiSupportedAlgorithms {
        self.provider.signature_verification_algorithms
    }
}

/// Verifies peers in both roles; one a configuration, because the expected name is part of it.
#[derive(Debug)]
pub struct PeerVerifier {
    trust: Arc<Trust>,
    expected: Option<NodeId>,
    witness: Option<Arc<dyn Witness>>,
    is_mandatory: bool,
}

/// Hears of the peers that were verified in handshakes.
pub(super) trait Witness: fmt::Debug + Send + Sync {
    /// A chain was accepted, leaf first, under the anchors of this generation. That the peer has its key is shown later.
    fn on_verified(&self, peer: PeerIdentity, chain: Vec<CertificateDer<'static>>, trust_generation: u64);
}

impl PeerVerifier {
    /// Accepts nodes that `trust` allows; only `expected`, if given.
    #[must_use]
    pub fn new(trust: Arc<Trust>, expected: Option<NodeId>) -> Self {
        Self { trust, expected, witness: None, is_mandatory: true }
    }

    /// The same, of which `witness` hears.
    pub(super) fn with_witness(self, witness: Arc<dyn Witness>) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// Accepts clients without a certificate, too: whoever uses this asks them for something else.
    #[must_use]
    pub fn or_no_certificate(self) -> Self {
        Self { is_mandatory: false, ..self }
    }

    /// Verifies in a handshake.
    fn verify_for_handshake(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<(), Error> {
        // Before it is used: a change meanwhile makes what follows from it void.
        let generation = self.trust.generation();
        let leaf = self.verify(end_entity, intermediates, now, role)?;
        if let Some(witness) = &self.witness {
            let chain = [end_entity].into_iter().chain(intermediates).map(|der| der.clone().into_owned()).collect();
            witness.on_verified(PeerIdentity::of(leaf), chain, generation);
        }
        Ok(())
    }

    /// Verifies a chain outside a handshake, as an accepting side would do with a dialling node's.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn verify_chain(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<NodeId, VerifyFailure> {
        let (leaf, intermediates) = chain.split_first().ok_or(VerifyFailure::NoCertificate)?;
        self.verify(leaf, intermediates, now, Role::Client).map(|leaf| leaf.node_id)
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<Leaf, VerifyFailure> {
        let leaf = Leaf::parse(end_entity).map_err(VerifyFailure::NoSpiffeName)?;
        let domain = self.trust.domain_of(&leaf.node_id)?;
        let verified = match role {
            Role::Client => domain.clients.verify_client_cert(end_entity, intermediates, now).map(|_| ()),
            Role::Server => ParsedCertificate::try_from(end_entity).and_then(|parsed| {
                let algorithms = self.trust.algorithms().all;
                let roots = domain.anchors.roots();
                verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
            }),
        };
        verified.map_err(|error| explain(error, &leaf, now))?;
        if let Some(reason) = leaf.misuse {
            return Err(VerifyFailure::WrongUsage { peer: leaf.node_id, reason: reason.to_owned() });
        }
        if domain.denylist.is_some_and(|denylist| denylist.denies(&leaf.node_id, &leaf.spki_sha256)) {
            return Err(VerifyFailure::Denied { peer: leaf.node_id });
        }
        match &self.expected {
            Some(expected) if *expected != leaf.node_id => {
                Err(VerifyFailure::OtherNode { expected: expected.clone(), found: leaf.node_id })
            }
            _ => Ok(leaf),
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.trust.algorithms())
    }
}

/// What the peer is in the handshake.
#[derive(Clone, Copy, Debug)]
enum Role {
    Client,
    Server,
}

/// What webpki found, in our words.
pub(super) fn explain(error: Error, leaf: &Leaf, now: UnixTime) -> VerifyFailure {
    use CertificateError as E;
    let peer = leaf.node_id.clone();
    let now = now.as_secs();
    match error {
        Error::InvalidCertificate(E::UnknownIssuer | E::BadSignature) => {
            VerifyFailure::UnknownIssuer { domain: peer.trust_domain().to_owned(), peer }
        }
        Error::InvalidCertificate(E::Expired) => VerifyFailure::Expired { peer, not_after: leaf.not_after_unix, now },
        Error::InvalidCertificate(E::ExpiredContext { not_after, .. }) => {
            VerifyFailure::Expired { peer, not_after: not_after.as_secs(), now }
        }
        Error::InvalidCertificate(E::NotValidYet) => {
            VerifyFailure::NotYetValid { peer, not_before: leaf.not_before_unix, now }
        }
        Error::InvalidCertificate(E::NotValidYetContext { not_before, .. }) => {
            VerifyFailure::NotYetValid { peer, not_before: not_before.as_secs(), now }
        }
        Error::InvalidCertificate(error @ (E::InvalidPurpose | E::InvalidPurposeContext { .. })) => {
            VerifyFailure::WrongUsage { peer, reason: error.to_string() }
        }
        // webpki's own `CaUsedAsEndEntity` comes wrapped; what we read ourselves says it better.
        _ if leaf.misuse.is_some() => {
            VerifyFailure::WrongUsage { peer, reason: leaf.misuse.unwrap_or_default().to_owned() }
        }
        other => VerifyFailure::Other { reason: other.to_string() },
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_for_handshake(end_entity, intermediates, now, Role::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        handshake_schemes(&self.trust.algorithms())
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    /// Empty: strangers do not learn which authorities are trusted.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_for_handshake(end_entity, intermediates, now, Role::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        handshake_schemes(&self.trust.algorithms())
    }
}

/// Those of a provider's schemes that handshakes may use.
pub(super) fn handshake_schemes(algorithms: &WebPkiSupportedAlgorithms) -> Vec<SignatureScheme> {
    let mut schemes = algorithms.supported_schemes();
    schemes.retain(|scheme| SCHEMES.contains(scheme));
    schemes
}

/// The signature schemes of TLS 1.3 handshakes (RFC 8446 §4.2.3) without those that only certificates may use.
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];
