//! What can be wrong with certificates: our own ([`IdentityError`]) and a peer's ([`VerifyFailure`]).

use std::fmt;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use super::NodeId;

/// A certificate, key or name that cannot serve as an identity.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Not a trust domain.
    #[error("\"{found}\" is no trust domain; expected 1 to 255 of a-z, 0-9, '.', '-', '_'")]
    BadTrustDomain {
        /// What came.
        found: String,
    },
    /// Not a node's name.
    #[error("\"{found}\" is no node name; expected 1 to 64 of A-Z, a-z, 0-9, '.', '-', '_'")]
    BadNodeName {
        /// What came.
        found: String,
    },
    /// Not the SPIFFE ID of a node.
    #[error("\"{found}\" does not name a node; expected spiffe://<trust-domain>/node/<name>")]
    BadNodeUri {
        /// What came.
        found: String,
    },
    /// Not PEM.
    #[error("the {what} is not PEM: {reason}")]
    BadPem {
        /// Which input.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// PEM without a certificate.
    #[error("no certificate found; expected a PEM block BEGIN CERTIFICATE")]
    NoCertificate,
    /// A certificate that cannot be read.
    #[error("the certificate cannot be read: {reason}")]
    BadCertificate {
        /// What the parser says.
        reason: String,
    },
    /// The private key is of no supported kind.
    #[error("the private key cannot be used: {reason}")]
    BadKey {
        /// What the provider says.
        reason: String,
    },
    /// The private key belongs to another certificate.
    #[error("the private key does not belong to the certificate; give the key that the certificate was issued for")]
    KeyMismatch,
    /// The certificate has no URI SAN.
    #[error("the certificate names no node; it needs the URI SAN spiffe://<trust-domain>/node/<name>")]
    NoSpiffeName,
    /// The certificate has more than one URI SAN (X.509-SVID §2).
    #[error("the certificate has {count} URI SANs; expected exactly one")]
    SeveralNames {
        /// How many.
        count: usize,
    },
    /// The certificate may not be used as this.
    #[error("the certificate is not for this use: {reason}")]
    WrongUsage {
        /// What is missing or too much.
        reason: &'static str,
    },
    /// The certificate's roles cannot be read.
    #[error("the certificate's roles cannot be used: {reason}")]
    BadRoles {
        /// What is wrong.
        reason: String,
    },
    /// A trust anchor that is no certificate authority.
    #[error("the trust anchor \"{subject}\" is no certificate authority")]
    AnchorIsNoAuthority {
        /// Its subject.
        subject: String,
    },
    /// A new identity is another node than the old one.
    #[error("the new certificate names {found}, expected {expected}; a reload cannot rename a node")]
    OtherNode {
        /// The identity in use.
        expected: NodeId,
        /// The one that came.
        found: NodeId,
    },
    /// rustls refused the configuration.
    #[error("TLS cannot be configured: {reason}")]
    Tls {
        /// What rustls says.
        reason: String,
    },
}

/// Why an identity was not exchanged for another one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ExchangeError {
    /// The new one cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Peers with the new anchors would refuse it.
    #[error(transparent)]
    Refused(#[from] VerifyFailure),
}

/// Why a peer's certificate was refused. It travels inside [`rustls::Error`]; [`VerifyFailure::of`] takes it out.
///
/// The peer is told none of it: every refusal is the same TLS alert.
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyFailure {
    /// The peer presented no certificate.
    #[error("the peer presented no certificate; expected one from a trusted authority")]
    NoCertificate,
    /// No trust anchor signed the chain.
    #[error("the certificate of {peer} is from an unknown issuer; expected one of the trust anchors of \"{domain}\"")]
    UnknownIssuer {
        /// Who the certificate claims to be.
        peer: NodeId,
        /// The domain whose anchors were tried.
        domain: String,
    },
    /// Past its end.
    #[error(
        "the certificate of {peer} expired at {not_after} (now {now}, seconds since 1970); renew it, or check the clocks"
    )]
    Expired {
        /// Who the certificate claims to be.
        peer: NodeId,
        /// Its end, in seconds since 1970.
        not_after: u64,
        /// The time of the check.
        now: u64,
    },
    /// Before its beginning.
    #[error("the certificate of {peer} is valid from {not_before} (now {now}, seconds since 1970); check the clocks")]
    NotYetValid {
        /// Who the certificate claims to be.
        peer: NodeId,
        /// Its beginning, in seconds since 1970.
        not_before: u64,
        /// The time of the check.
        now: u64,
    },
    /// Not for this role: extended key usage, key usage, or an authority's certificate.
    #[error("the certificate of {peer} is not for this use: {reason}")]
    WrongUsage {
        /// Who the certificate claims to be.
        peer: NodeId,
        /// What is missing or too much.
        reason: String,
    },
    /// The certificate does not name a node.
    #[error("the peer's certificate does not name a node: {0}")]
    NoSpiffeName(IdentityError),
    /// The name is of a trust domain that is not allowed here.
    #[error("the peer is {peer}; expected a node of {allowed}")]
    ForeignTrustDomain {
        /// Who the certificate claims to be.
        peer: NodeId,
        /// The allowed domains, for people.
        allowed: String,
    },
    /// The name is valid, but not the one that was dialled.
    #[error("the peer is {found}; expected {expected}")]
    OtherNode {
        /// Who was dialled.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// It is on the denylist.
    #[error("{peer} was revoked: it is on the denylist of its trust domain")]
    Denied {
        /// Who the certificate names.
        peer: NodeId,
    },
    /// Anything else that certificate verification found, such as a bad signature.
    #[error("the peer's certificate was refused: {reason}")]
    Other {
        /// What was found.
        reason: String,
    },
}

impl VerifyFailure {
    /// The reason inside a handshake's error, if it was about the peer's certificate.
    #[must_use]
    pub fn of(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::NoCertificatesPresented => Some(Self::NoCertificate),
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => Some(
                other.0.downcast_ref::<Self>().cloned().unwrap_or_else(|| Self::Other { reason: other.to_string() }),
            ),
            rustls::Error::InvalidCertificate(other) => Some(Self::Other { reason: other.to_string() }),
            _ => None,
        }
    }

    /// The same for an error of which only the text is left, as quinn gives it.
    #[must_use]
    pub fn explain_text(text: &str) -> &str {
        let inner = text.split_once("OtherError(").and_then(|(_, rest)| rest.strip_suffix("))"));
        inner.unwrap_or(text)
    }

    /// A handshake's error for people: what rustls wraps around a failure of ours is left out.
    #[must_use]
    pub fn explain(error: &rustls::Error) -> String {
        Self::of(error).map_or_else(|| error.to_string(), |failure| failure.to_string())
    }
}

/// The same as `Display`: rustls shows the errors of verifiers by `Debug` only, inside its own.
impl fmt::Debug for VerifyFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<VerifyFailure> for rustls::Error {
    fn from(failure: VerifyFailure) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(failure))))
    }
}
