//! `longhaul node`: lists the nodes that were let in, takes them out and lets them back in, one file a subcommand.

mod list;
mod revoke;
mod unrevoke;
mod whom;

use clap::Subcommand;

use super::CliError;

/// Arguments of `longhaul node`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the nodes that have certificates, and who is revoked
    List(list::Args),
    /// Take a node out: its sessions end, and it gets no others
    Revoke(revoke::Args),
    /// Let a revoked node in again
    Unrevoke(unrevoke::Args),
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<(), CliError> {
    match args.command {
        Command::List(args) => list::run(&args),
        Command::Revoke(args) => revoke::run(&args),
        Command::Unrevoke(args) => unrevoke::run(&args),
    }
}
