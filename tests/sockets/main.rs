//! Nodes over real sockets: every channel kind, faults in the middle, hostile peers, many of everything.

mod channels;
mod common;
mod faults;
mod identities;
mod outages;
mod proxy;
mod rogue;
mod tampering;
mod transfer;
