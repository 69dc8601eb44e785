//! `longhaul run`: Runs a node.

use super::CliError;

/// Arguments of `longhaul run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: std::path::PathBuf,
}

/// Runs the command.
#[expect(clippy::needless_pass_by_value, reason = "commands own their arguments")]
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let _ = &args.config;
    Err(CliError::Runtime(anyhow::anyhow!("longhaul run is not there yet")))
}
