//! `longhaul diag`: one JSON document with what a bug report needs. Nothing secret is in what a node answers; names and
//! addresses are, and the file says so.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use super::{Node, NodeArgs, block_on};
use crate::cli::CliError;

/// Arguments of `longhaul diag`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// File for the document, which must not be there yet; without it, stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(in crate::cli) fn run(args: Args) -> Result<(), CliError> {
    let node = args.node.node()?;
    let document = block_on(async { Ok(document(&node).await) })?;
    let text = format!("{document:#}\n");
    let Some(path) = args.out else {
        io::stdout().lock().write_all(text.as_bytes())?;
        return Ok(());
    };
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("{} cannot be written", path.display()))?;
    writeln!(io::stdout().lock(), "wrote {}: look through it before you send it", path.display())?;
    Ok(())
}

/// What does not answer is told as such: a node in trouble is what this is for.
async fn document(node: &Node) -> Value {
    let mut answers = serde_json::Map::new();
    for path in ["/status", "/config", "/history"] {
        let answer = match node.get(path).await {
            Ok(answer) => answer,
            Err(error) => {
                let mut text = Vec::new();
                // Into memory: it cannot fail.
                let _ = error.write(&mut text);
                json!({ "failed": String::from_utf8_lossy(&text).trim() })
            }
        };
        answers.insert(path.trim_start_matches('/').to_owned(), answer);
    }
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    json!({
        "note": "names of nodes and services, addresses and paths of files are in here; keys, tokens and data are not",
        "program": env!("CARGO_PKG_VERSION"),
        "system": {
            "os": std::env::consts::OS,
            "architecture": std::env::consts::ARCH,
            "kernel": read("/proc/sys/kernel/osrelease"),
            "release": read("/etc/os-release"),
            "tcp_congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control"),
            "tcp_available_congestion_control": read("/proc/sys/net/ipv4/tcp_available_congestion_control"),
            "rmem_max": read("/proc/sys/net/core/rmem_max"),
            "wmem_max": read("/proc/sys/net/core/wmem_max"),
            "somaxconn": read("/proc/sys/net/core/somaxconn"),
        },
        "node": answers,
    })
}
