//! The configuration file: read, checked, and turned into what it means.
//!
//! Two stages: `file` holds what was typed, [`Config`] what it means, always valid. Every check that needs no other
//! machine is made here, and all problems are reported together with their places. Sockets are bound elsewhere.
//! `docs/reference/config.md` and `examples/config/full.toml` describe every option.

mod admin;
mod allow;
mod changes;
mod check;
mod datagrams;
mod enroll;
mod file;
mod files;
mod forward;
mod guest;
mod identity;
mod inherited;
mod limits;
mod link;
mod listen;
pub(crate) mod log;
pub(crate) mod passphrase;
mod problem;
mod quic;
mod renew;
mod resolve;
pub(crate) mod secret_file;
mod service;
mod targets;
mod tcp;
mod telemetry;
pub(crate) mod text;
mod unix;
pub(crate) mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;

pub(crate) use admin::AdminPlace;
pub use admin::{AdminConfig, AdminSocket, AdminToken};
pub use changes::{Changes, FixedOptions};
pub use enroll::EnrollConfig;
pub use files::{Files, SystemFiles};
pub use identity::{GuestIdentity, IdentityFiles, LoadedIdentity};
pub use limits::LimitsConfig;
pub use link::{LinkConfig, Seal};
pub use listen::ListenConfig;
pub use problem::{ConfigError, Problem};
pub use renew::RenewConfig;
pub use secret_file::FileError;

use self::problem::Problems;
use crate::crypto::identity::NodeId;

/// A node's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it came from.
    pub path: PathBuf,
    /// `[node]`.
    pub node: NodeConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[identity]`, loaded.
    pub identity: LoadedIdentity,
    /// `[enroll]`: machines with a token may join here.
    pub enroll: Option<EnrollConfig>,
    /// `[renew]`: where the certificate is renewed.
    pub renew: Option<RenewConfig>,
    /// `[telemetry]`: what is measured, and where it is sent.
    pub telemetry: crate::telemetry::Settings,
    /// `[[listen]]`: where peers may dial in. No address twice.
    pub listeners: Vec<ListenConfig>,
    /// `[[link]]`: peers that are dialled. No peer twice, never this node.
    pub links: Vec<LinkConfig>,
    /// `[[service]]`: what peers may reach here. No name twice.
    pub services: Vec<crate::service::ServiceConfig>,
    /// `[[forward]]`: local ports that lead to services of peers. No address twice.
    pub forwards: Vec<crate::service::ForwardConfig>,
    /// `[log] filter`: what is logged, unless the command line says it.
    pub log_filter: Option<String>,
    /// `[log] key_log_file`: where the keys of sessions are written.
    pub key_log_file: Option<PathBuf>,
    /// `[admin]`: where the operator asks.
    pub admin: Option<AdminConfig>,
    /// What is allowed but probably not meant, for the log.
    pub warnings: Vec<String>,
}

/// What holds for the whole node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Who the node is, by its certificate.
    pub id: NodeId,
    /// How long streams may go on after the node was told to stop.
    pub shutdown_timeout: Duration,
    /// How long streams wait without any channel; links may say otherwise.
    pub survive: Duration,
    /// The longest life of a session.
    pub session_age_max: Duration,
    /// Memory for the buffers of all sessions.
    pub memory_bytes_max: u64,
}

impl Config {
    /// Reads `path` and everything that it names, and checks it.
    ///
    /// # Errors
    /// All problems that were found. What is no TOML, or not of the expected shape, ends the search at once.
    pub fn load(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, ConfigError> {
        let failed = |problem| ConfigError::new(path, "", vec![problem]);
        let bytes = secret_file::read_public(path).map_err(|error| failed(Problem::new(error.to_string())))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| failed(Problem::new("the file is not UTF-8")))?;
        Self::parse(text, path, provider)
    }

    /// Checks `text` as if it were the contents of `path`; paths in it are relative to that of `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, ConfigError> {
        Self::parse_with(text, path, &SystemFiles, provider)
    }

    /// The same, with what `files` has in place of the system's files: nothing is opened.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse_with(
        text: &str,
        path: &Path,
        files: &dyn Files,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, ConfigError> {
        let mut file: file::File = toml::from_str(text).map_err(|error| {
            let problem = Problem::new(error.message());
            let problem = error.span().map_or(problem.clone(), |span| problem.at(span));
            ConfigError::new(path, text, vec![problem])
        })?;
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        let mut problems = Problems::default();
        let unknown = inherited::name_addresses(&mut file, files.sockets(), &mut problems);
        let identity = identity::load(file.identity.as_ref(), base, files, provider, &mut problems);
        let section = file.enroll.as_ref();
        let enroll = enroll::load(section, base, files, identity.as_ref(), provider, &mut problems);
        let renew = renew::load(file.renew.as_ref(), identity.as_ref(), &mut problems);
        let admin = admin::load(file.admin.as_ref(), base, files, &mut problems);
        let telemetry = telemetry::load(file.telemetry.as_ref(), base, files, &mut problems);
        let config = resolve::resolve(&file, path, identity, enroll, &mut problems);
        let problems = problems.into_vec();
        match config {
            Some(mut config) if problems.is_empty() => {
                config.warnings.extend(unknown);
                Ok(Self { renew, admin, telemetry, ..config })
            }
            _ => Err(ConfigError::new(path, text, problems)),
        }
    }
}
