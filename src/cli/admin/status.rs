//! `longhaul status`: how a running node is doing.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::{NodeArgs, block_on, table};
use crate::cli::CliError;

/// Arguments of `longhaul status`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// Everything, as JSON
    #[arg(long)]
    json: bool,
    /// Again and again, every second; with --json an object a line
    #[arg(long)]
    watch: bool,
}

/// Runs the command.
#[expect(clippy::needless_pass_by_value, reason = "commands own their arguments")]
pub(in crate::cli) fn run(args: Args) -> Result<(), CliError> {
    let node = args.node.node()?;
    block_on(async {
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            interval.tick().await;
            let status = node.get("/status").await?;
            let text = match (args.json, args.watch) {
                (true, true) => format!("{status}\n"),
                (true, false) => format!("{status:#}\n"),
                (false, _) => table::status(&status),
            };
            let mut out = io::stdout().lock();
            if args.watch && !args.json && out.is_terminal() {
                out.write_all(CLEAR)?;
            }
            out.write_all(text.as_bytes())?;
            out.flush()?;
            if !args.watch {
                return Ok(());
            }
        }
    })
}

/// How often --watch looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// To the upper left, and everything behind it away.
const CLEAR: &[u8] = b"\x1b[H\x1b[J";
