//! Forwards and services over real sockets: applications on both sides, two nodes in this process between them.

#![cfg(all(feature = "cli", any(feature = "aws-lc-rs", feature = "ring")))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "nothing outside uses a test binary")]

mod common;
mod dissect;
mod ends;
mod many;
mod program;
mod proxy_protocol;
mod refusals;
mod roles;
mod shutdown;
mod transfer;
mod udp;
