//! `longhaul check-config`: the checks of `longhaul run`, without running.

use std::io::{self, Write};
use std::path::PathBuf;

use super::CliError;
use crate::config::{Config, text};
use crate::crypto::identity::default_provider;

/// Arguments of `longhaul check-config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command.
#[expect(clippy::needless_pass_by_value, reason = "commands own their arguments")]
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let config = Config::load(&args.config, &default_provider())?;
    summarise(&config, &mut io::stdout().lock())?;
    Ok(())
}

fn summarise(config: &Config, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "ok: {}", config.path.display())?;
    match &config.identity.guest {
        Some(guest) => writeln!(out, "guest    {} (token {})", config.node.id, guest.token.id())?,
        None => {
            let end = text::date(config.identity.identity.not_after_unix());
            writeln!(out, "node     {} (certificate until {end})", config.node.id)?;
        }
    }
    if let Some(enroll) = &config.enroll {
        let place = enroll.listen.as_ref().map_or("beside channels".to_owned(), ToString::to_string);
        writeln!(out, "enroll   {place} with {}", enroll.directory.display())?;
    }
    if let Some(renew) = &config.renew {
        writeln!(out, "renew    at {}:{} by {}", renew.host, renew.port, renew.hub.name())?;
    }
    for listener in &config.listeners {
        let guests = if listener.options.takes_guests { " (guests too)" } else { "" };
        writeln!(out, "listen   {}{guests}", listener.address)?;
    }
    for link in &config.links {
        let addresses: Vec<_> = link.addresses.iter().map(|a| format!("{} x{}", a.address, a.count)).collect();
        writeln!(out, "link     {} at {}", link.peer.name(), addresses.join(", "))?;
    }
    for service in &config.services {
        writeln!(out, "service  {} -> {}", service.name, service.target)?;
    }
    for forward in &config.forwards {
        writeln!(out, "forward  {} -> {} at {}", forward.listen, forward.service, forward.peer.name())?;
    }
    config.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}
