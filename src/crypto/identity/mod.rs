//! Node identities: who a certificate says that a node is, which peers are trusted, and TLS configured accordingly.
//!
//! A node is named by the one URI SAN of its leaf certificate, `spiffe://<trust-domain>/node/<name>` (SPIFFE ID and
//! X.509-SVID specifications); DNS names play no part. Certificates and keys come in as PEM, the time as a
//! [`rustls::time_provider::TimeProvider`]: nothing here opens a file or reads a clock. Who may do what is left to
//! the services. Who comes back resumes with a ticket of the [`TicketStore`].

mod anchors;
mod client_tickets;
mod enroll;
mod error;
mod guest;
mod leaf;
mod node_id;
mod own;
mod peer;
mod provider;
mod resolver;
mod role;
mod tickets;
mod tls;
mod verify;

#[cfg(all(test, feature = "issue", any(feature = "aws-lc-rs", feature = "ring")))]
mod test_ca;
#[cfg(all(test, feature = "issue", any(feature = "aws-lc-rs", feature = "ring")))]
mod tests;
#[cfg(all(test, feature = "issue", any(feature = "aws-lc-rs", feature = "ring")))]
mod ticket_tests;

pub use anchors::TrustAnchors;
pub use client_tickets::ClientTickets;
pub use enroll::{enroll_client_config, issued_node};
pub use error::{IdentityError, VerifyFailure};
pub use guest::GuestToken;
pub use node_id::NodeId;
pub use own::Identity;
pub use peer::PeerIdentity;
pub use provider::restrict;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub use provider::{default_provider, quic_initial_suite};
pub use resolver::KeyResolver;
pub use role::{GUEST, ROLES_MAX, ROLES_OID, Role, Roles};
pub use tickets::{TicketCounters, TicketStore};
pub use tls::{ALPN_ENROLL, ALPN_QUIC, ALPN_SESSION, ALPN_TLS, ResumingClient, TlsSettings, server_name};
pub use verify::{PeerVerifier, Trust};
