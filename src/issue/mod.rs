//! Makes certificates: an authority for a trust domain, and the certificates of its nodes.
//!
//! What comes out is an X.509-SVID: one URI SAN, `spiffe://<trust-domain>/node/<name>`. Files, their modes and names
//! are left to the command line; who may have a certificate is left to the operator and to enrolment.

mod at_rest;
mod authority;
mod error;
mod request;
mod validity;

pub use authority::{CertificateAuthority, IssuedNode, KeyType, SerialNumbers};
pub use error::IssueError;
pub use request::{CertificateRequest, NodeKey};
pub use validity::Validity;
