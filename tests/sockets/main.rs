//! Nodes over real sockets: every channel kind, faults in the middle, hostile peers, many of everything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod allowed;
mod alone;
mod captured;
mod channels;
mod clocks;
mod common;
mod datagrams;
mod dropping;
mod early;
mod entrances;
mod exchange;
mod faults;
mod guests;
mod hostile;
mod identities;
mod keys;
mod liar;
mod lies;
mod limits;
mod many;
mod mixed;
mod outages;
mod proxy;
mod quic;
mod resumption;
mod rogue;
mod tampering;
mod transfer;
mod udp_path;
