//! `longhaul completions`: scripts by which shells complete commands and options, from the same source as `--help`.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, CliError};

/// Arguments of `longhaul completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
#[expect(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    reason = "commands own their arguments, and may fail"
)]
pub(super) fn run(args: Args) -> Result<(), CliError> {
    clap_complete::generate(args.shell, &mut Cli::command(), "longhaul", &mut io::stdout().lock());
    Ok(())
}
