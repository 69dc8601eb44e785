//! `longhaul node unrevoke`.

use std::io::{self, Write};

use anyhow::anyhow;

use super::super::CliError;
use super::super::clock::now_unix;
use super::super::token::StateArgs;
use super::whom::Whom;
use crate::enroll::AuditEvent;
use crate::enroll::store::Store;

/// Arguments of `longhaul node unrevoke`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    whom: Whom,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let denied = args.whom.denied();
    if !args.state.open()?.allow(&denied, now_unix()).map_err(anyhow::Error::new)? {
        return Err(anyhow!("{denied} is not revoked; `longhaul node list` shows who is").into());
    }
    args.state.audit(&AuditEvent::Allowed(&denied))?;
    writeln!(io::stdout().lock(), "{denied} is revoked no more")?;
    Ok(())
}
