//! Denied peers: their sessions end, and nothing of theirs is taken any more.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::registry::Registry;
use super::shared::Shared;
use crate::base::CloseCode;
use crate::crypto::identity::{DenylistError, Trust};
use crate::crypto::token::TokenId;
use crate::wire::SignedDenylist;

/// Puts denylists into effect at a node, without keeping the node alive.
#[derive(Clone)]
pub struct Revoker {
    registry: Arc<Registry>,
    trust: Arc<Trust>,
}

impl Revoker {
    pub(super) fn new(registry: Arc<Registry>, trust: Arc<Trust>) -> Self {
        Self { registry, trust }
    }

    /// Denies whom a list names, and closes their sessions. Whether the list was newer than the one before; otherwise
    /// nothing changes.
    ///
    /// # Errors
    /// If no trust anchor signed it.
    pub fn deny(&self, signed: SignedDenylist) -> Result<bool, DenylistError> {
        let is_newer = self.trust.deny(signed)?;
        if is_newer {
            close_revoked(&self.registry, &self.trust);
        }
        Ok(is_newer)
    }

    /// Denies the guests that came by these tokens, and no others any more, and closes their sessions.
    pub fn deny_guests(&self, tokens: HashSet<TokenId>) {
        self.registry.deny_tokens(tokens);
        close_revoked(&self.registry, &self.trust);
    }

    /// Who is trusted, and who is denied.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }
}

impl fmt::Debug for Revoker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoker").field("sessions", &self.registry.all().len()).finish_non_exhaustive()
    }
}

/// Closes the sessions with denied peers.
pub(super) fn close_revoked(registry: &Registry, trust: &Trust) {
    for shared in registry.all().iter().filter(|shared| is_revoked(shared, registry, trust)) {
        tracing::warn!(peer = %shared.peer.node_id, "peer was revoked, closing its session");
        close(shared);
    }
}

/// Whether the peer of a session is denied. To be asked when the session is where [`close_revoked`] finds it: a denylist
/// may have come between the handshake and then.
pub(super) fn is_revoked(shared: &Shared, registry: &Registry, trust: &Trust) -> bool {
    let peer = &shared.peer;
    trust.is_denied(&peer.node_id, &peer.spki_sha256) || peer.token_id.is_some_and(|id| registry.is_token_denied(id))
}

/// Closes the session of a denied peer.
pub(super) fn close(shared: &Shared) {
    let reason = if shared.peer.is_guest() { "the token was revoked" } else { "the node was revoked" };
    shared.with_timer(|inner| inner.session.close(CloseCode::REVOKED, reason, Instant::now()));
}
