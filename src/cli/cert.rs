//! `longhaul cert`: makes and shows certificates, one file a subcommand.

mod ca;
mod node;
mod renew;
mod show;

use std::time::Duration;

use clap::Subcommand;

use super::CliError;

/// Arguments of `longhaul cert`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a certificate authority for a trust domain
    Ca(ca::Args),
    /// Make a key and a certificate for a node
    Node(node::Args),
    /// Renew the certificate of a node at its hub
    Renew(renew::Args),
    /// Show what a certificate says
    Show(show::Args),
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<(), CliError> {
    match args.command {
        Command::Ca(args) => ca::run(&args),
        Command::Node(args) => node::run(&args),
        Command::Renew(args) => renew::run(&args),
        Command::Show(args) => show::run(&args),
    }
}

pub(super) fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}
