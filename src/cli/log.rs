//! Logs of the program: on stderr, as text for people at a terminal and as JSON for everything else.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::CliError;

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// How log lines look; text on a terminal, otherwise JSON, if not given
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug or trace, also by module: info,longhaul::channel=debug
    #[arg(long, global = true, env = "LONGHAUL_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum LogFormat {
    /// One line of text an event
    Text,
    /// One JSON object an event
    Json,
}

/// Sends log events to stderr from here on.
pub(super) fn start(args: &LogArgs) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| {
        CliError::Usage(format!("--log {:?}: {error}; expected such as info or info,longhaul::channel=debug", args.log))
    })?;
    let is_terminal = io::stderr().is_terminal();
    let format = args.log_format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json });
    let has_colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(has_colour);
    let started = match format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| CliError::Runtime(anyhow::anyhow!("logging cannot be set up: {error}")))
}
