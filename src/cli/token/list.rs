//! `longhaul token list`.

use std::io::{self, Write};

use super::super::CliError;
use super::super::clock::now_unix;
use super::row::Row;
use super::state::StateArgs;
use crate::enroll::store::Store;

/// Arguments of `longhaul token list`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    state: StateArgs,
    /// Print one JSON array, an object a token
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let mut tokens = args.state.open()?.tokens().map_err(anyhow::Error::new)?;
    tokens.sort_by_key(|token| token.created_unix);
    let rows: Vec<_> = tokens.iter().map(|token| Row::new(token, now_unix())).collect();
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&rows).map_err(anyhow::Error::new)?)?;
        return Ok(());
    }
    Ok(rows.iter().try_for_each(|row| row.write_line(&mut out))?)
}
