//! Logs of the program: on stderr, as text for people at a terminal and as JSON for everything else.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::prelude::*;

use super::CliError;
use crate::config::log::filter;
use crate::telemetry::LogTap;

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// How log lines look; text on a terminal, otherwise JSON, if not given
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug or trace, also by module: info,longhaul::channel=debug; without it what
    /// the configuration says, or info
    #[arg(long, global = true, env = "LONGHAUL_LOG", value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum LogFormat {
    /// One line of text an event
    Text,
    /// One JSON object an event
    Json,
}

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Changes what is logged.
pub(super) struct LogFilter {
    set: SetFilter,
    /// The command line says what is logged, and no configuration changes it.
    is_given: bool,
    /// Where telemetry gets the events.
    tap: LogTap,
}

impl LogFilter {
    /// Where telemetry gets the events.
    pub(super) fn tap(&self) -> &LogTap {
        &self.tap
    }

    /// Logs what a configuration says, unless the command line said something.
    pub(super) fn follow(&self, configured: Option<&str>) {
        if self.is_given {
            return;
        }
        let changed = filter(configured.unwrap_or(USUAL)).and_then(|filter| (self.set)(filter));
        if let Err(error) = changed {
            tracing::error!(error, "log filter stays as it was");
        }
    }
}

/// Sends log events to stderr from here on.
pub(super) fn start(args: &LogArgs) -> Result<LogFilter, CliError> {
    let text = args.log.as_deref().unwrap_or(USUAL);
    let filter = filter(text).map_err(|reason| {
        let expected = "expected such as info or info,longhaul::channel=debug";
        CliError::Usage(format!("--log {text:?}: {reason}; {expected}"))
    })?;
    let is_terminal = io::stderr().is_terminal();
    let format = args.log_format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json });
    let has_colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(has_colour);
    let tap = LogTap::default();
    let (set, started): (SetFilter, _) = match format {
        LogFormat::Text => {
            let subscriber = subscriber.with_filter_reloading();
            let handle = subscriber.reload_handle();
            (
                Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string())),
                subscriber.finish().with(tap.layer()).try_init(),
            )
        }
        LogFormat::Json => {
            let subscriber = subscriber.json().flatten_event(true).with_filter_reloading();
            let handle = subscriber.reload_handle();
            (
                Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string())),
                subscriber.finish().with(tap.layer()).try_init(),
            )
        }
    };
    started.map_err(|error| CliError::Runtime(anyhow::anyhow!("logging cannot be set up: {error}")))?;
    Ok(LogFilter { set, is_given: args.log.is_some(), tap })
}

/// What is logged when nobody says anything.
const USUAL: &str = "info";
