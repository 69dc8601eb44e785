//! Nodes over real sockets: every channel kind, faults in the middle, hostile peers, many of everything.

mod channels;
mod common;
mod faults;
mod proxy;
mod tampering;
mod transfer;
