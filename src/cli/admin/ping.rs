//! `longhaul ping`: round-trip times to a peer, channel by channel, as the session's own pings and acknowledgements
//! have it.

use std::io::{self, Write};
use std::time::Duration;

use super::table::{Table, list, milliseconds, text};
use super::{NodeArgs, block_on};
use crate::cli::CliError;

/// Arguments of `longhaul ping`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Name of the peer
    #[arg(value_name = "PEER")]
    peer: String,
    #[command(flatten)]
    node: NodeArgs,
    /// How often to look
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

/// Runs the command.
#[expect(clippy::needless_pass_by_value, reason = "commands own their arguments")]
pub(in crate::cli) fn run(args: Args) -> Result<(), CliError> {
    let node = args.node.node()?;
    block_on(async {
        let mut interval = tokio::time::interval(INTERVAL);
        for _ in 0..args.count {
            interval.tick().await;
            let status = node.get("/status").await?;
            let of_peer = list(&status["sessions"]).iter().filter(|session| session["peer"] == args.peer.as_str());
            let mut table = Table::new(&["CHANNEL", "KIND", "STATE", "LATEST", "SMOOTHED", "MINIMUM"]);
            for channel in of_peer.flat_map(|session| list(&session["channels"])) {
                let times = ["round_trip_latest_ms", "round_trip_ms", "round_trip_min_ms"];
                let times = times.map(|key| milliseconds(&channel[key]));
                let names = [channel["id"].to_string(), text(&channel["kind"]), text(&channel["state"])];
                table.push(names.into_iter().chain(times));
            }
            if table.is_empty() {
                return Err(CliError::Unreachable(format!("no channel to {} works", args.peer)));
            }
            io::stdout().lock().write_all(table.text().as_bytes())?;
        }
        Ok(())
    })
}

/// A measurement comes with every acknowledgement, and with a ping when there is none.
const INTERVAL: Duration = Duration::from_secs(1);
