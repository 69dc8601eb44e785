//! Forwards and services over real sockets: applications on both sides, two nodes in this process between them.

#![cfg(all(feature = "cli", any(feature = "aws-lc-rs", feature = "ring")))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "nothing outside uses a test binary")]

mod checks;
mod common;
mod dissect;
mod early;
mod ends;
mod limits;
mod many;
mod mortal;
mod program;
mod proxy_protocol;
mod refusals;
mod roles;
mod shutdown;
mod targets;
mod transfer;
mod udp;
