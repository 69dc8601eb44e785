//! Nodes over real sockets: every channel kind, faults in the middle, hostile peers, many of everything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod channels;
mod common;
mod faults;
mod identities;
mod outages;
mod proxy;
mod rogue;
mod tampering;
mod transfer;
