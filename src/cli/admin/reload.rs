//! `longhaul reload`: returns when the node has applied its configuration, or says why it has not.

use std::io::{self, Write};

use anyhow::{Context, anyhow};
use hyper::StatusCode;
use serde_json::Value;

use super::{NodeArgs, block_on, refused};
use crate::cli::CliError;

/// Arguments of `longhaul reload`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
#[expect(clippy::needless_pass_by_value, reason = "commands own their arguments")]
pub(in crate::cli) fn run(args: Args) -> Result<(), CliError> {
    let node = args.node.node()?;
    let answer = block_on(node.post("/reload"))?;
    if !matches!(answer.status, StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY) {
        return Err(refused(&answer));
    }
    let said: Value = serde_json::from_slice(&answer.body).context("the node's answer is no JSON")?;
    if let Some(error) = said["error"].as_str() {
        return Err(CliError::Runtime(anyhow!("not reloaded, everything stays as it was: {}", error.trim_end())));
    }
    let mut out = io::stdout().lock();
    let changes = said["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    for change in changes.iter().filter_map(Value::as_str) {
        writeln!(out, "{change}")?;
    }
    match changes.len() {
        0 => writeln!(out, "reloaded: nothing has changed")?,
        1 => writeln!(out, "reloaded: 1 change")?,
        count => writeln!(out, "reloaded: {count} changes")?,
    }
    Ok(())
}
