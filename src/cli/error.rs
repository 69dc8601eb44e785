//! How a command ends when it fails, and with which exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::ConfigError;

/// Why a command failed. One variant an exit code, except that all that is unforeseen is [`CliError::Runtime`].
#[derive(Debug)]
pub(super) enum CliError {
    /// Exit code 1.
    Runtime(anyhow::Error),
    /// Exit code 2: an argument that clap could not judge.
    Usage(String),
    /// Exit code 3.
    Config(Box<ConfigError>),
    /// Exit code 4.
    Refused(String),
    /// Exit code 5.
    Unreachable(String),
}

impl CliError {
    /// The documented exit code.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Runtime(_) => 1,
            Self::Usage(_) => 2,
            Self::Config(_) => 3,
            Self::Refused(_) => 4,
            Self::Unreachable(_) => 5,
        })
    }

    /// Whether whoever read the output has gone, as `head` does: no failure.
    pub(super) fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Runtime(error) => {
                error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
            }
            _ => false,
        }
    }

    /// Says what happened, for people.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Runtime(error) => writeln!(out, "error: {error:#}"),
            Self::Usage(message) | Self::Refused(message) | Self::Unreachable(message) => {
                writeln!(out, "error: {message}")
            }
            Self::Config(error) => write!(out, "{error}"),
        }
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::Runtime(error)
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Runtime(error.into())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}
