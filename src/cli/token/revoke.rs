//! `longhaul token revoke`.

use std::io::{self, Write};

use super::super::CliError;
use super::super::clock::now_unix;
use super::state::{StateArgs, no_such_token};
use crate::crypto::token::TokenId;
use crate::enroll::AuditEvent;
use crate::enroll::store::Store;

/// Arguments of `longhaul token revoke`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    state: StateArgs,
    /// Id of the token, as `longhaul token list` shows it
    #[arg(value_parser = str::parse::<TokenId>)]
    id: TokenId,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let revoked = args.state.open()?.revoke_token(args.id, now_unix()).map_err(anyhow::Error::new)?;
    let token = revoked.ok_or_else(|| no_such_token(args.id))?;
    args.state.audit(&AuditEvent::TokenRevoked(args.id))?;
    let mut out = io::stdout().lock();
    if token.is_for_guests {
        writeln!(out, "revoked {}; the hub, when it runs, ends the sessions that came by it", token.id)?;
    } else {
        writeln!(out, "revoked {}; certificates that came by it: {}", token.id, token.use_count)?;
    }
    Ok(())
}
