//! Joining by token, with the program itself at both ends: what works, what is refused, what an attacker tries, and
//! crashes on either side.

#![cfg(all(feature = "cli", unix, any(feature = "aws-lc-rs", feature = "ring")))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod audited;
mod clocks;
mod common;
mod crashes;
mod entrances;
mod guesses;
mod guests;
mod joining;
mod passphrase;
mod refusals;
mod renewal;
mod revocation;
mod rotation;
