//! What can go wrong when certificates are made.

use crate::crypto::identity::IdentityError;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The node's name or the trust domain is not valid.
    #[error(transparent)]
    Name(#[from] IdentityError),
    /// The authority's certificate has no URI SAN `spiffe://<trust-domain>`.
    #[error(
        "the authority's certificate names no trust domain; expected the URI SAN spiffe://<trust-domain>, as \
         `longhaul cert ca` writes it"
    )]
    NoTrustDomain,
    /// The authority's key is encrypted, and no passphrase was given.
    #[error("the authority's key is encrypted; give the file with its passphrase")]
    KeyEncrypted,
    /// The passphrase is not the one that the key was encrypted with.
    #[error("the passphrase is not that of the authority's key")]
    WrongPassphrase,
    /// The authority's key cannot be encrypted, or what is encrypted is no key.
    #[error("the authority's encrypted key cannot be used: {reason}")]
    AtRest {
        /// What is wrong.
        reason: String,
    },
    /// The authority's key belongs to another certificate.
    #[error("the authority's key does not belong to its certificate")]
    KeyMismatch,
    /// The authority has expired.
    #[error("the authority's certificate ends before the new one would begin; make a new authority")]
    AuthorityExpired,
    /// A validity that ends before it begins, or at a time that no certificate can express.
    #[error("validity from {not_before} to {not_after} (seconds since 1970) cannot be expressed")]
    Validity {
        /// Beginning, in seconds since 1970.
        not_before: i64,
        /// End, in seconds since 1970.
        not_after: i64,
    },
    /// A certificate request that is none, is not signed by its own key, or has a key of another kind.
    #[error("the certificate request cannot be used: {reason}")]
    BadRequest {
        /// What is wrong.
        reason: String,
    },
    /// The certificate or key could not be made or read.
    #[error("the {what} cannot be made or read: {reason}")]
    Certificate {
        /// Which one.
        what: &'static str,
        /// What rcgen says.
        reason: rcgen::Error,
    },
}
