//! `longhaul token show`.

use std::io::{self, Write};

use super::super::CliError;
use super::super::clock::now_unix;
use super::row::{Row, Use};
use super::state::{StateArgs, no_such_token};
use crate::crypto::token::TokenId;
use crate::enroll::store::Store;

/// Arguments of `longhaul token show`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    state: StateArgs,
    /// Id of the token, as `longhaul token list` shows it
    #[arg(value_parser = str::parse::<TokenId>)]
    id: TokenId,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, serde::Serialize)]
struct Shown {
    #[serde(flatten)]
    token: Row,
    uses: Vec<Use>,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let store = args.state.open()?;
    let token = store.token(args.id).map_err(anyhow::Error::new)?.ok_or_else(|| no_such_token(args.id))?;
    let issuances = store.issuances().map_err(anyhow::Error::new)?;
    let uses = issuances.iter().filter(|issuance| issuance.token_id == Some(args.id)).map(Use::new).collect();
    let shown = Shown { token: Row::new(&token, now_unix()), uses };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&shown).map_err(anyhow::Error::new)?)?;
        return Ok(());
    }
    shown.token.write(&mut out)?;
    Ok(shown.uses.iter().try_for_each(|one| one.write(&mut out))?)
}
