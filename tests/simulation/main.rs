//! Two sessions in virtual time, with everything between them made to fail: the sans-IO core as a whole.
//!
//! [`world`] drives both nodes as sockets would, [`link`] harms what is between them, [`app`] reads and writes,
//! [`oracle`] knows what has to come out. The other modules are tests, by behaviour.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "nothing outside uses a test binary")]

mod app;
mod arrival;
mod channels;
mod chaos;
mod comebacks;
mod datagrams;
mod early;
mod establishing;
mod express;
mod faults;
mod hostile;
mod identities;
mod joining;
mod lanes;
mod lies;
mod limits;
mod link;
mod node;
mod oracle;
mod paths;
mod pitfalls;
mod random;
mod rekeying;
mod replays;
mod returning;
mod seeds;
mod stalls;
mod throughput;
mod tiers;
mod transfer;
mod world;
