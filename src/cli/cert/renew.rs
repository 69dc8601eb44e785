//! `longhaul cert renew`: renews a node's certificate now.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::super::CliError;
use super::super::renewal::{self, Failure};
use crate::config::{Config, text};
use crate::crypto::identity::{TlsSettings, default_provider};
use crate::enroll::RenewError;

/// Arguments of `longhaul cert renew`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file of the node, with a section [renew]
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let config = Config::load(&args.config, &default_provider())?;
    let renew = config.renew.ok_or_else(|| {
        let message = format!("{} has no section [renew], which says where to renew", args.config.display());
        CliError::Usage(message)
    })?;
    let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let identity = config.identity;
    let tls = TlsSettings::new(identity.identity, identity.anchors, default_provider(), time)
        .context("TLS cannot be set up")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (renewed, _) =
        runtime.block_on(renewal::renew(&renew, &identity.files, &tls)).map_err(|failure| failed(&failure))?;
    // The denylist reaches the node by its sessions, or when it renews by itself.
    let until = text::date(renewed.not_after_unix());
    writeln!(io::stdout().lock(), "renewed {} until {until}", renewed.node_id())?;
    Ok(())
}

fn failed(failure: &Failure) -> CliError {
    let message = failure.to_string();
    match failure {
        Failure::Hub(RenewError::Unreachable { .. }) => CliError::Unreachable(message),
        Failure::Hub(RenewError::NotTheHub { .. } | RenewError::Refused | RenewError::BadAnswer { .. }) => {
            CliError::Refused(message)
        }
        Failure::Hub(_) | Failure::Files(_) => CliError::Runtime(anyhow::anyhow!(message)),
    }
}
