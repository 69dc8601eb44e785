//! Why an address could not be listened on.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::options::OptionsError;

/// Why an address could not be listened on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The name has no address, or the resolver failed.
    #[error("{address} cannot be resolved: {source}")]
    Resolve {
        /// What was to be bound.
        address: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// The system refuses to bind or to listen.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// What was to be bound.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The system refuses the socket's options.
    #[error("cannot listen on {address}: {source}")]
    Options {
        /// What was to be bound.
        address: String,
        /// The option that was refused.
        source: OptionsError,
    },
    /// The directory of the Unix socket does not exist.
    #[error("the directory of {path} does not exist: create it, writable for this process only")]
    NoDirectory {
        /// The socket's path.
        path: PathBuf,
    },
    /// What stands at the path is no socket, and stays.
    #[error("{path} exists and is no socket: remove it or choose another path")]
    NotASocket {
        /// The socket's path.
        path: PathBuf,
    },
    /// Somebody listens at the path.
    #[error("{path} is in use: another process listens there")]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// Whether somebody listens at the path cannot be found out.
    #[error("{path} exists, and whether it is in use cannot be found out: {source}")]
    Probe {
        /// The socket's path.
        path: PathBuf,
        /// The system's answer to connecting.
        source: io::Error,
    },
    /// Another process holds the lock of the socket's directory, which is held while a socket is bound.
    #[error("the directory of {path} is locked by another process")]
    Locked {
        /// The socket's path.
        path: PathBuf,
    },
    /// The wanted owner or mode could not be set.
    #[error("owner or mode of {path} cannot be set: {source}")]
    Owner {
        /// The socket's path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}
