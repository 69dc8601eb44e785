//! What a running node answers to its operator: whether it lives, whether it is ready, how everything is doing.
//!
//! HTTP on loopback addresses and Unix sockets (`server`), which routes lead to what (`routes`), who may ask what
//! (`guard`), the answers (`status`, `effective`), what happened lately (`monitor`), and the live page (`page`).
//! `client` asks. The node itself is behind [`Control`]; nothing here knows how it was started or how a change is
//! applied. The route table and the JSON are documented in `docs/reference/admin.md`.

pub(crate) mod client;
mod effective;
mod guard;
mod monitor;
mod page;
mod routes;
mod server;
mod status;
mod targets;

use std::future::Future;
use std::sync::Arc;

pub use self::server::{AdminServer, AdminSettings, Source};
use crate::config::Config;
use crate::service::Gateway;

/// A node that runs.
pub trait Control: Send + Sync + 'static {
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;

    /// What it does for applications.
    fn gateway(&self) -> &Arc<Gateway>;

    /// Whether it was told to end, and takes nothing new.
    fn is_stopping(&self) -> bool;

    /// Reads the configuration again, and applies all of it or nothing: a line for each change.
    fn reload(&self) -> impl Future<Output = Result<Vec<String>, ReloadError>> + Send;
}

/// Why a configuration was not applied. Everything is as it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReloadError {
    /// It is wrong, or cannot be applied while the node runs.
    #[error("{0}")]
    Refused(String),
    /// It could not be tried.
    #[error("reload failed: {0}")]
    Failed(String),
}
