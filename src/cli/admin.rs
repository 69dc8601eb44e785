//! Commands that ask a running node: where it is asked, and how its answers are read.

pub(super) mod diag;
pub(super) mod ping;
pub(super) mod reload;
pub(super) mod status;
mod table;
pub(super) mod top;

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::CliError;
use crate::admin::client::{Answer, AskError, ask};
use crate::channel::Address;
use crate::config::AdminPlace;
use crate::config::secret_file::read_private;

/// Which node.
#[derive(Debug, clap::Args)]
pub(super) struct NodeArgs {
    /// Where the node answers: unix:///path or tcp://127.0.0.1:port; without it as --config says, else
    /// unix:///run/longhaul/admin.sock
    #[arg(long, env = "LONGHAUL_ADMIN", value_name = "ADDRESS")]
    admin: Option<String>,
    /// Configuration file of the node, whose [admin] section says where it answers
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// File with the admin token, which changes over TCP need; without it as --config says
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A node that can be asked.
struct Node {
    address: Address,
    token_file: Option<PathBuf>,
}

impl NodeArgs {
    fn node(&self) -> Result<Node, CliError> {
        let place = self.config.as_deref().map(AdminPlace::load).transpose()?;
        let address = match (&self.admin, &place) {
            (Some(text), _) => text.parse::<Address>().map_err(|error| {
                CliError::Usage(format!("--admin: {error}; expected unix:///path or tcp://host:port"))
            })?,
            // There everything is allowed to whom the file lets.
            (None, Some(place)) => {
                let unix = place.listen.iter().find(|address| matches!(address, Address::Unix { .. }));
                unix.or(place.listen.first()).cloned().ok_or_else(|| {
                    anyhow!("the addresses of [admin] are known to the service manager; give one with --admin")
                })?
            }
            (None, None) => Address::Unix { path: PathBuf::from(USUAL_SOCKET) },
        };
        let token_file = self.token_file.clone().or_else(|| place?.token_file);
        Ok(Node { address, token_file })
    }
}

impl Node {
    async fn get(&self, path: &str) -> Result<Value, CliError> {
        let answer = ask(&self.address, Method::GET, path, None).await.map_err(failed)?;
        if answer.status != StatusCode::OK {
            return Err(refused(&answer));
        }
        Ok(serde_json::from_slice(&answer.body).context("the node's answer is no JSON")?)
    }

    async fn post(&self, path: &str) -> Result<Answer, CliError> {
        let token = match (&self.address, &self.token_file) {
            (Address::Tcp { .. }, Some(path)) => {
                let bytes = read_private(path).map_err(anyhow::Error::new)?;
                Some(String::from_utf8_lossy(&bytes).trim().to_owned())
            }
            _ => None,
        };
        ask(&self.address, Method::POST, path, token.as_deref()).await.map_err(failed)
    }
}

/// Exit code 5 when nobody answers.
fn failed(error: AskError) -> CliError {
    match error {
        AskError::Unreachable { .. } | AskError::TimedOut { .. } => {
            CliError::Unreachable(format!("{error}; is the node running, and does it have [admin]?"))
        }
        AskError::Broken { .. } => CliError::Runtime(error.into()),
    }
}

/// Exit code 4 when the node wants to know more of us.
fn refused(answer: &Answer) -> CliError {
    let text = String::from_utf8_lossy(&answer.body);
    let message = format!("the node answers {}: {}", answer.status, text.trim());
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CliError::Refused(message),
        _ => CliError::Runtime(anyhow!(message)),
    }
}

/// Runs what a command has to wait for.
fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Where the systemd unit of `deploy/` has it.
const USUAL_SOCKET: &str = "/run/longhaul/admin.sock";
