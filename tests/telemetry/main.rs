//! Telemetry of a running pair of nodes: as OTLP at a real receiver over both protocols, as text for Prometheus, and as
//! a snapshot.

#![cfg(all(feature = "cli", any(feature = "aws-lc-rs", feature = "ring")))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "nothing outside uses a test binary")]

mod collector;
mod dead;
mod logs;
mod otlp;
mod pair;
mod shown;
