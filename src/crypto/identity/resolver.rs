//! The key that TLS presents, replaceable while it is in use.
//!
//! rustls binds tickets to the resolver's address, so a renewed certificate is swapped inside one resolver, and
//! configurations are not rebuilt.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Identity, IdentityError};

/// Answers rustls's question for a certificate in both roles with the identity in use.
#[derive(Debug)]
pub struct KeyResolver {
    identity: RwLock<Identity>,
}

impl KeyResolver {
    /// Starts with `identity`.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self { identity: RwLock::new(identity) }
    }

    /// The identity in use.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a renewed identity for all later handshakes.
    ///
    /// # Errors
    /// If it names another node.
    pub fn replace(&self, identity: Identity) -> Result<(), IdentityError> {
        let mut current = self.identity.write().unwrap_or_else(PoisonError::into_inner);
        if current.node_id() != identity.node_id() {
            return Err(IdentityError::OtherNode {
                expected: current.node_id().clone(),
                found: identity.node_id().clone(),
            });
        }
        *current = identity;
        Ok(())
    }
}

impl ResolvesClientCert for KeyResolver {
    /// Presents the one certificate there is. Hints and schemes are not looked at: a peer that cannot use it refuses
    /// it with a reason, which says more than to have sent none.
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.identity().certified_key()
    }

    fn has_certs(&self) -> bool {
        self.identity().certified_key().is_some()
    }
}

impl ResolvesServerCert for KeyResolver {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.identity().certified_key()
    }
}
