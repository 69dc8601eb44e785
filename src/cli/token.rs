//! `longhaul token`: makes, lists and revokes the tokens by which nodes join, one file a subcommand.

mod create;
mod list;
mod revoke;
mod row;
mod show;
mod state;

use clap::Subcommand;

pub(super) use self::state::{StateArgs, no_such_token};
use super::CliError;

/// Arguments of `longhaul token`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token and print it: this is the only time that it can be seen
    Create(create::Args),
    /// List all tokens
    List(list::Args),
    /// Show a token, and what it was used for
    Show(show::Args),
    /// Make a token worthless; certificates that came by it stay valid
    Revoke(revoke::Args),
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<(), CliError> {
    match args.command {
        Command::Create(args) => create::run(&args),
        Command::List(args) => list::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Revoke(args) => revoke::run(&args),
    }
}
