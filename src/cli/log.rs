//! Logs of the program: on stderr, as text for people at a terminal and as JSON for everything else.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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
    let filter = filter(&args.log).map_err(|reason| {
        let expected = "expected such as info or info,longhaul::channel=debug";
        CliError::Usage(format!("--log {:?}: {reason}; {expected}", args.log))
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

/// A word alone has to be a level: as the name of a module, which it could be too, it would silence all others.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let is_bare = |directive: &&str| !directive.contains(['=', '[', ':']);
    if let Some(word) = text.split(',').filter(is_bare).find(|word| word.trim().parse::<LevelFilter>().is_err()) {
        return Err(format!("{word:?} is no level"));
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_and_modules() {
        for good in ["info", "off", "info,longhaul::channel=debug", "longhaul=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["verbose", "no such filter", "longhaul=loud", "info,quiet"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
