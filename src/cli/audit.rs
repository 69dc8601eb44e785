//! `longhaul audit`: prints the audit log, and finds lines in it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};

use anyhow::{Context, anyhow};
use serde_json::Value;

use super::CliError;
use super::token::StateArgs;
use crate::enroll::{AuditLog, files};

/// Arguments of `longhaul audit`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    state: StateArgs,
    /// Only these events, such as certificate-issued or revoked
    #[arg(long, value_name = "EVENT")]
    event: Vec<String>,
    /// Only lines about the node of this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only lines about the token of this id
    #[arg(long, value_name = "ID")]
    token: Option<String>,
    /// Only lines from this time on, as the log writes times: 2027-01-15T08:00:00Z, or the beginning of one
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last N of the lines that are left
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Print JSON, a line an object, on a terminal too
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let path = args.state.state.join(files::AUDIT);
    let parts = AuditLog::parts(&path);
    if parts.is_empty() {
        return Err(anyhow!("{} is not there; `longhaul hub init` makes it", path.display()).into());
    }
    let mut found = std::collections::VecDeque::new();
    let mut out = io::stdout().lock();
    let is_text = !args.json && out.is_terminal();
    for part in parts {
        let file = File::open(&part).with_context(|| format!("{} cannot be read", part.display()))?;
        for line in BufReader::new(file).lines() {
            let line = line.with_context(|| format!("{} cannot be read", part.display()))?;
            // A line that an end cut off says nothing.
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            if !args.wants(&event) {
                continue;
            }
            let shown = if is_text { text(&event) } else { line };
            match args.lines {
                None => writeln!(out, "{shown}")?,
                Some(count) => {
                    found.push_back(shown);
                    if found.len() > count {
                        found.pop_front();
                    }
                }
            }
        }
    }
    Ok(found.iter().try_for_each(|line| writeln!(out, "{line}"))?)
}

impl Args {
    fn wants(&self, event: &Value) -> bool {
        let is = |field: &str, wanted: &str| event[field].as_str() == Some(wanted);
        let denied = |kind: &str, wanted: &str| is("denied", &format!("{kind}:{wanted}"));
        (self.event.is_empty() || self.event.iter().any(|wanted| is("event", wanted)))
            && self.name.as_ref().is_none_or(|name| is("name", name) || denied("node", name))
            && self.token.as_ref().is_none_or(|id| is("token", id) || denied("token", id))
            && self.since.as_ref().is_none_or(|since| event["time"].as_str().is_some_and(|time| time >= since.as_str()))
    }
}

/// For people: the time, the event, and what else it says.
fn text(event: &Value) -> String {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut line = format!("{}  {}", plain(&event["time"]), plain(&event["event"]));
    let fields = event.as_object().into_iter().flatten();
    for (name, value) in fields.filter(|(name, _)| !matches!(name.as_str(), "time" | "event")) {
        line.push_str(&format!("  {name}={}", plain(value)));
    }
    // The log may have been written by anybody who could: nothing of it commands the terminal.
    line.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
