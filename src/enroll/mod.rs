//! How machines get into a trust domain: the authority's state, the enrolment point, the joining side.
//!
//! A token that an operator made lets a machine ask for one certificate. What the certificate says comes from the token's
//! row in the [store]; of the machine's request only the key is taken. With its certificate a node gets the next one. The store is written before anything is acted
//! on, so that a crash at any point loses nothing and gives nothing twice.

mod audit;
mod guests;
mod hub_address;
mod join;
mod name_pattern;
mod overview;
mod point;
mod records;
mod registrar;
mod renew;
mod renewing;
pub mod store;
mod throttle;
mod visit;

pub use crate::channel::AddressRange;
pub use audit::{AuditEvent, AuditLog};
pub use join::{Join, JoinError, Joined};
pub use name_pattern::NamePattern;
pub use overview::{AuthorityCounts, AuthorityState, NodeState, Overview, TokenState};
pub use point::EnrollPoint;
pub use records::{Denial, Denied, Issuance, Refusal, Role, TokenRecord, newest_of_each};
pub use registrar::{Registrar, RegistrarSettings, Visit};
pub use renew::{RenewError, Renewal, Renewed};
pub use renewing::RenewVisit;
pub use visit::Enrolment;

/// Names of the files in an authority's directory.
pub mod files {
    /// Its certificate.
    pub const AUTHORITY_CERTIFICATE: &str = "ca.crt";
    /// Its key.
    pub const AUTHORITY_KEY: &str = "ca.key";
    /// Its state, a [`RedbStore`](super::store::RedbStore).
    pub const STATE: &str = "state.redb";
    /// Its [`AuditLog`](super::AuditLog).
    pub const AUDIT: &str = "audit.jsonl";
}
