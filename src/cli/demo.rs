//! `longhaul demo`: Shows two nodes at work.

use super::CliError;

/// Arguments of `longhaul demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Runs the command.
#[expect(clippy::needless_pass_by_value, reason = "commands own their arguments")]
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let Args {} = args;
    Err(CliError::Runtime(anyhow::anyhow!("longhaul demo is not there yet")))
}
