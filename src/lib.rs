//! Longhaul: one encrypted link between datacenters that stays up.
//!
//! Two nodes share a *session*: mutually authenticated, TLS 1.3, carried by many *channels* at once, whose *streams*
//! outlive every one of them. This file is the map; each module's header says what it owns.
//!
//! The lower half is the sans-IO core: time, randomness and bytes come in as arguments, and it compiles without the
//! `node` feature. The upper half holds tokio, sockets, clocks and files.

// The core, lowest first.
pub mod base;
pub mod wire;
pub mod crypto;
pub mod stream;
pub mod session;
pub mod congestion;

// The shell, lowest first.
#[cfg(feature = "node")]
pub mod channel;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "node")]
pub mod service;
#[cfg(feature = "telemetry")]
pub mod telemetry;
#[cfg(feature = "issue")]
pub mod issue;
#[cfg(feature = "enroll")]
pub mod enroll;
#[cfg(feature = "cli")]
pub mod dissect;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "cli")]
pub mod admin;
#[cfg(feature = "cli")]
pub mod cli;
