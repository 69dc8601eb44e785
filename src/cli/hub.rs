//! `longhaul hub`: the node that lets others join.

mod init;
mod rotate;

use clap::Subcommand;

use super::CliError;

/// Arguments of `longhaul hub`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a trust domain: its authority, its state, and the hub's own certificate and configuration
    Init(init::Args),
    /// Change the authority, in three steps, without letting anybody join again
    Rotate(rotate::Args),
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<(), CliError> {
    match args.command {
        Command::Init(args) => init::run(&args),
        Command::Rotate(args) => rotate::run(&args),
    }
}
