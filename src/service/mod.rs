//! Services and forwards: sockets of applications on one side, streams of sessions on the other.
//!
//! A [`Forward`] listens locally and leads each connection to a service of a peer; [`Services`] are what this node's
//! peers may reach, by name and policy. [`Peers`] knows which session leads to whom, and a [`Gateway`] holds all of it
//! together for one node. `datagrams` are the same for UDP. Sessions are the business of [`crate::node`], files of configuration that of the command
//! line. Each connection is one task, which holds no buffer while nothing moves.

mod allow;
pub mod bench;
mod connections;
mod copy;
mod counters;
mod datagrams;
mod denylists;
mod endpoint;
mod forward;
mod gateway;
mod logged;
mod peers;
pub mod proxy_protocol;
mod refusal;
mod request;
mod services;
mod signal;
mod socket;
mod target;
mod throttle;

pub use allow::{Allow, Who};
pub use counters::{Counters, ServicesCounters};
pub use datagrams::{DatagramLoss, DatagramOptions};
pub use denylists::Denylists;
pub use endpoint::{Endpoint, UdpAddress};
pub use forward::{Forward, ForwardConfig};
pub use gateway::Gateway;
pub use peers::{PeerEvent, Peers};
pub use refusal::Refusal;
pub use services::Services;
pub use target::{Service, ServiceConfig, Target};
