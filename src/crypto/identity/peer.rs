//! Who a verified peer is: what the session keeps of its certificate.

use rustls::pki_types::CertificateDer;

use super::leaf::Leaf;
use super::{IdentityError, NodeId};

/// The identity of a peer, read from a chain that a [`super::PeerVerifier`] accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node's name.
    pub node_id: NodeId,
    /// SHA-256 of the leaf's DER SubjectPublicKeyInfo: what a denylist names.
    pub spki_sha256: [u8; 32],
    /// End of the leaf's validity, in seconds since 1970: the session ends before it.
    pub not_after_unix: u64,
}

impl PeerIdentity {
    /// Reads the leaf, which is first in `chain` (`rustls::CommonState::peer_certificates`). Verifies nothing: TLS
    /// has done that when the handshake is complete.
    ///
    /// # Errors
    /// If the chain is empty, or its first certificate does not name a node.
    pub fn from_chain(chain: &[CertificateDer<'_>]) -> Result<Self, IdentityError> {
        let leaf = Leaf::parse(chain.first().ok_or(IdentityError::NoCertificate)?)?;
        Ok(Self { node_id: leaf.node_id, spki_sha256: leaf.spki_sha256, not_after_unix: leaf.not_after_unix })
    }
}
