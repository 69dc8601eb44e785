//! The command line: what can be asked, one file a subcommand, and the exit code of each outcome.
//!
//! Data goes to stdout, logs and errors to stderr. Nothing secret is ever an argument.

mod admin;
mod audit;
mod authority;
mod bench;
mod cert;
mod check_config;
mod clock;
mod completions;
mod demo;
mod dissect;
mod error;
mod hub;
mod join;
mod log;
mod man;
mod new_files;
mod node;
mod pem;
mod renewal;
mod run;
mod token;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::error::CliError;

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("the command line needs a TLS provider: enable the feature `aws-lc-rs` or `ring`");

/// One encrypted link between datacenters that stays up.
#[derive(Debug, Parser)]
#[command(name = "longhaul", version, about, after_long_help = AFTER_LONG_HELP, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    log: log::LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Run(run::Args),
    /// Check a configuration file and everything that it names
    CheckConfig(check_config::Args),
    /// Make and show certificates
    Cert(cert::Args),
    /// Make a hub: the node that lets others join
    Hub(hub::Args),
    /// Make, list and revoke the tokens by which nodes join
    Token(token::Args),
    /// List the nodes that were let in, and take them out
    Node(node::Args),
    /// Print the audit log of a hub
    Audit(audit::Args),
    /// Make this machine a node, with a token of a hub
    Join(join::Args),
    /// Show how a running node is doing
    Status(admin::status::Args),
    /// Show how a running node is doing, live, on the whole terminal
    Top(admin::top::Args),
    /// Have a running node read its configuration again
    Reload(admin::reload::Args),
    /// Show the round-trip times of each channel to a peer
    Ping(admin::ping::Args),
    /// Write down what a bug report needs, without secrets
    Diag(admin::diag::Args),
    /// Show what is inside recorded packets, with the keys of a key log
    Dissect(dissect::Args),
    /// Print a script that completes commands and options
    Completions(completions::Args),
    /// Write manual pages
    Man(man::Args),
    /// Measure a link
    Bench(bench::Args),
    /// Show two nodes at work on this machine
    Demo(demo::Args),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = log::start(&cli.log).and_then(|filter| match cli.command {
        Command::Run(args) => run::run(args, filter),
        Command::CheckConfig(args) => check_config::run(args),
        Command::Cert(args) => cert::run(args),
        Command::Hub(args) => hub::run(args),
        Command::Token(args) => token::run(args),
        Command::Node(args) => node::run(args),
        Command::Audit(args) => audit::run(&args),
        Command::Join(args) => join::run(args),
        Command::Status(args) => admin::status::run(args),
        Command::Top(args) => admin::top::run(args),
        Command::Reload(args) => admin::reload::run(args),
        Command::Ping(args) => admin::ping::run(args),
        Command::Diag(args) => admin::diag::run(args),
        Command::Dissect(args) => dissect::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Demo(args) => demo::run(args),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            // That stderr is gone leaves the exit code to tell.
            let _ = error.write(&mut io::stderr().lock()).and_then(|()| io::stderr().flush());
            error.exit_code()
        }
    }
}

const AFTER_LONG_HELP: &str = "\
Exit codes:
  0  success, or an orderly end after SIGTERM
  1  failed while running
  2  the command line is wrong
  3  the configuration is wrong
  4  the peer refused, or was refused: certificates or permissions
  5  the peer could not be reached

Examples:
  longhaul hub init --domain example --out hub
  longhaul token create --state hub --name dc-b --out token
  longhaul join --token-file token --out node hub.example:7443
  longhaul cert ca --domain example --out pki
  longhaul cert node dc-a --ca pki --out pki
  longhaul check-config -c dc-a.toml
  longhaul run -c dc-a.toml";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
