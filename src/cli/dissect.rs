//! `longhaul dissect`: shows what is inside recorded packets, with the lines of a key log.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::json;
use zeroize::Zeroizing;

use super::CliError;
use crate::crypto::RecordedKeys;
use crate::crypto::identity::default_provider;
use crate::dissect::{self, Dissector, Place, Record, Summary};

/// Arguments of `longhaul dissect`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Key log that a node wrote: `key_log_file` of `[log]`
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// The files are the bytes of one lane as they are: those of the client, and then those of the server
    #[arg(long)]
    raw: bool,
    /// Print JSON, a line an object
    #[arg(long)]
    json: bool,
    /// Captures in pcap or pcapng; - is stdin
    #[arg(required = true, value_name = "CAPTURE")]
    captures: Vec<PathBuf>,
}

/// Runs the command.
#[expect(clippy::needless_pass_by_value, reason = "commands own their arguments")]
pub(super) fn run(args: Args) -> Result<(), CliError> {
    if args.raw && args.captures.len() > 2 {
        return Err(CliError::Usage("--raw takes the bytes of the client, and then those of the server".to_owned()));
    }
    let text = args.keys.as_deref().map(read_keys).transpose()?.unwrap_or_default();
    let keys = RecordedKeys::parse(&text, &default_provider());
    if args.keys.is_some() && keys.session_count() == 0 {
        tracing::warn!("the key log has no session's keys");
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let mut origin: Option<Duration> = None;
    let mut show = |place: &Place, record: &Record| {
        origin = origin.or(place.time);
        if args.json {
            writeln!(out, "{}", dissect::json(place, record))
        } else {
            out.write_all(dissect::text(place, record, origin).as_bytes())
        }
    };
    let mut dissector = Dissector::new(keys);
    if args.raw {
        let mut files = args.captures.iter().map(|path| open(path));
        let client = files.next().transpose()?;
        dissector.streams([client, files.next().transpose()?], &mut show)?;
    } else {
        for path in &args.captures {
            // The system's own words for a reader that has gone are looked for further up.
            let shown = dissector.capture(open(path)?, &mut show).map_err(|error| match error {
                dissect::CaptureError::Io(error) => anyhow::Error::from(error),
                other => anyhow!("{}: {other}", path.display()),
            });
            shown?;
        }
    }
    let summary = dissector.finish();
    if args.json {
        writeln!(out, "{}", json!({ "summary": as_json(&summary) }))?;
    } else {
        write!(out, "{}", as_text(&summary))?;
    }
    Ok(out.flush()?)
}

fn open(path: &Path) -> Result<Box<dyn Read>, CliError> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

/// What is longer than any key log, and whoever else may have written to it, are for the operator to see to.
fn read_keys(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    file.take(KEY_LOG_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(text)
}

fn as_json(summary: &Summary) -> serde_json::Value {
    json!({
        "messages": summary.message_count, "opened": summary.opened_count, "closed": summary.closed_count,
        "damaged": summary.damaged_count, "connections": summary.connection_count,
        "other_connections": summary.other_count, "directions_with_gaps": summary.gap_count,
        "omitted_connections": summary.omitted_count, "cut": summary.is_cut,
    })
}

fn as_text(summary: &Summary) -> String {
    let Summary { message_count, opened_count, closed_count, damaged_count, .. } = summary;
    let Summary { connection_count, other_count, gap_count, omitted_count, is_cut, .. } = summary;
    let mut text = format!(
        "{message_count} messages on {connection_count} connections: {opened_count} packets opened, {closed_count} closed, \
         {damaged_count} damaged\n"
    );
    let mut add = |count: u64, what: &str| {
        if count > 0 {
            text.push_str(&format!("{count} {what}\n"));
        }
    };
    add(*gap_count, "directions have gaps: what followed cannot be read");
    add(*other_count, "connections are none of Longhaul, are TLS, or began before the capture");
    add(*omitted_count, "connections were left out");
    if *is_cut {
        text.push_str("the capture ends in the middle of a packet\n");
    }
    text
}

/// A session has three lines of a few hundred bytes.
const KEY_LOG_BYTES_MAX: u64 = 256 << 20;
