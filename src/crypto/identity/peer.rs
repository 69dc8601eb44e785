//! Who a verified peer is: what the session keeps of its certificate.

use rustls::pki_types::CertificateDer;

use super::leaf::Leaf;
use super::{IdentityError, NodeId, Roles};
use crate::crypto::token::TokenId;

/// The identity of a peer, read from a chain that a [`super::PeerVerifier`] accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node's name.
    pub node_id: NodeId,
    /// The roles that its authority gave it.
    pub roles: Roles,
    /// SHA-256 of the leaf's DER SubjectPublicKeyInfo: what a denylist names.
    pub spki_sha256: [u8; 32],
    /// The token by which a guest was let in.
    pub token_id: Option<TokenId>,
    /// End of the leaf's or the token's validity, in seconds since 1970: the session ends before it.
    pub not_after_unix: u64,
}

impl PeerIdentity {
    /// A peer of this name, of which nothing else is known: no roles, no key, no end.
    #[must_use]
    pub fn unverified(node_id: NodeId) -> Self {
        Self { node_id, roles: Roles::none(), spki_sha256: [0; 32], token_id: None, not_after_unix: u64::MAX }
    }

    /// Whether it has no certificate and proved a token.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        self.node_id.is_guest()
    }

    /// Reads the leaf, which is first in `chain` (`rustls::CommonState::peer_certificates`). Verifies nothing: TLS
    /// has done that when the handshake is complete.
    ///
    /// # Errors
    /// If the chain is empty, or its first certificate does not name a node.
    pub fn from_chain(chain: &[CertificateDer<'_>]) -> Result<Self, IdentityError> {
        Leaf::parse(chain.first().ok_or(IdentityError::NoCertificate)?).map(Self::of)
    }

    /// What a leaf says.
    pub(super) fn of(leaf: Leaf) -> Self {
        let Leaf { node_id, roles, spki_sha256, not_after_unix, .. } = leaf;
        Self { node_id, roles, spki_sha256, token_id: None, not_after_unix }
    }
}
