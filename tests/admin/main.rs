//! A node that runs, and its operator: reloads, questions over HTTP, commands.

#![cfg(all(feature = "cli", unix, any(feature = "aws-lc-rs", feature = "ring")))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "nothing outside uses a test binary")]

mod activation;
mod authority;
mod commands;
mod common;
mod http;
mod limits;
mod reload;
mod targets;
