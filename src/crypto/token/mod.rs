//! Join tokens: the one string by which a machine is let in, and the proof that its holder has it.
//!
//! A token authenticates both directions. Its seed is an Ed25519 private key: the hub keeps the public one and gets a
//! signature, never the seed. Its pin is the hash of the authority's key: the holder knows the hub by it. What a token
//! is for (names, uses, times) is not in it but in the hub's state, and none of this module's business.

mod alphabet;
mod join_token;
mod proof;
mod token_id;

pub use join_token::{JoinToken, TokenError};
pub use proof::{ENROLL_EXPORTER_LABEL, EnrollProof, GuestProof, PROOF_BYTES};
pub use token_id::TokenId;
