//! Where the authority's state is: an option of every subcommand.

use std::path::PathBuf;

use anyhow::Context;

use super::super::CliError;
use super::super::clock::now_unix;
use crate::crypto::token::TokenId;
use crate::enroll::store::RedbStore;
use crate::enroll::{AuditEvent, AuditLog, files};

/// Which state.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StateArgs {
    /// Directory that `longhaul hub init` made
    #[arg(long, env = "LONGHAUL_STATE", default_value = ".", value_name = "DIR")]
    pub(in crate::cli) state: PathBuf,
}

impl StateArgs {
    pub(in crate::cli) fn open(&self) -> Result<RedbStore, CliError> {
        Ok(RedbStore::open(&self.state.join(files::STATE)).map_err(anyhow::Error::new)?)
    }

    /// Tells the audit log.
    pub(in crate::cli) fn audit(&self, event: &AuditEvent<'_>) -> Result<(), CliError> {
        let path = self.state.join(files::AUDIT);
        let written = AuditLog::new(&path).append(now_unix(), event);
        Ok(written.with_context(|| format!("{} cannot be written", path.display()))?)
    }
}

pub(in crate::cli) fn no_such_token(id: TokenId) -> CliError {
    CliError::Runtime(anyhow::anyhow!("there is no token {id}; `longhaul token list` shows which there are"))
}
