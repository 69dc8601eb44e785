//! `longhaul run`: runs a node until it is told to stop.
//!
//! The first SIGTERM or SIGINT ends it in order: nothing new is taken, what runs may end within `shutdown_timeout`.
//! The second ends it at once.

mod denylist;
mod enrolment;
mod identity;
mod renewal;
pub(super) mod settings;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;
use crate::config::Config;
use crate::crypto::identity::default_provider;
use crate::enroll::EnrollPoint;
use crate::node::{GuestAdmission, Node, Observer};
use crate::service::{Gateway, Services};
use crate::telemetry::Telemetry;

/// Arguments of `longhaul run`.
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
    for warning in &config.warnings {
        tracing::warn!(%warning, "configuration");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(config));
    // A name that is still being looked up is not worth waiting for.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    let shutdown_timeout = config.node.shutdown_timeout;
    let telemetry = Telemetry::new(&config.node.id.to_string(), &config.telemetry);
    let telemetry = telemetry.context("telemetry cannot be set up")?;
    let started = signals.unless_told(start(config, telemetry.observer())).await;
    let (gateway, enrolment) = started.ok_or_else(stopped_early)??;
    let gateway = Arc::new(gateway);
    telemetry.watch(gateway.node());
    telemetry.watch_gateway(&gateway);
    tracing::info!("ready");
    let name = signals.next().await;
    tracing::info!(
        signal = name,
        open_connections = open_connections(&gateway),
        timeout_s = shutdown_timeout.as_secs_f32(),
        "shutting down"
    );
    drop(enrolment);
    let is_drained = signals.unless_told(gateway.shutdown(shutdown_timeout)).await.ok_or_else(stopped_early)?;
    telemetry.shutdown().await;
    if is_drained {
        tracing::info!("stopped");
    } else {
        tracing::warn!("stopped, connections were still open");
    }
    Ok(())
}

/// Starts everything that the configuration names.
async fn start(config: Config, observer: Arc<dyn Observer>) -> Result<(Gateway, Option<EnrollPoint>), CliError> {
    let Config { node, identity, enroll, renew, listeners, links, services, forwards, .. } = config;
    let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let files = identity.files.clone();
    let is_guest = identity.guest.is_some();
    let tls = identity.tls_settings(default_provider(), time).context("TLS cannot be set up")?;
    if !is_guest {
        tokio::spawn(identity::watch(files.clone(), tls.clone()));
        denylist::recall(&denylist::path(&files), &tls);
    }
    let registrar = enroll.as_ref().and_then(|enroll| enrolment::registrar(enroll, &tls));
    tracing::info!(node = %node.id, version = env!("CARGO_PKG_VERSION"), "starting");
    let mut builder = Node::builder(tls.clone()).config(settings::node(&node)).observer(observer);
    for listener in listeners {
        builder = builder.listen(listener.address, listener.options);
    }
    if let Some(registrar) = &registrar {
        builder = builder.guests(Arc::clone(registrar) as Arc<dyn GuestAdmission>);
    }
    let running = builder.build().await.context("node cannot be started")?;
    for service in &services {
        tracing::info!(service = %service.name, target = %service.target, "service offered");
    }
    let gateway = Gateway::start(running, Services::new(services));
    for forward in forwards {
        let forward = gateway.forward(forward).await.context("forward cannot be started")?;
        let (address, config) = (forward.local_address(), forward.config());
        tracing::info!(%address, service = %config.service, peer = %config.peer, "forwarding");
    }
    for link in links {
        let link = settings::link(link);
        let addresses: Vec<_> = link.addresses.iter().map(|wanted| wanted.address.to_string()).collect();
        tracing::info!(peer = %link.peer, addresses = addresses.join(" "), "linking");
        gateway.add_link(gateway.node().link(link));
    }
    if !is_guest {
        tokio::spawn(denylist::keep(denylist::path(&files), gateway.denylists().clone()));
    }
    if let Some(renew) = renew {
        tokio::spawn(renewal::keep(renew, files.clone(), tls.clone(), gateway.denylists().clone()));
    }
    let enrolment = match enroll.zip(registrar) {
        Some((enroll, registrar)) => Some(enrolment::start(enroll, registrar, files, &tls, &gateway).await?),
        None => None,
    };
    Ok((gateway, enrolment))
}

fn open_connections(gateway: &Gateway) -> u32 {
    let of_forwards: u32 = gateway.forwards().iter().map(|forward| forward.open_connections()).sum();
    of_forwards + gateway.services().open_connections()
}

fn stopped_early() -> CliError {
    CliError::Runtime(anyhow!("stopped by a signal before the end"))
}

/// The signals that ask for an end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one: its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Awaits something; `None` when a signal comes first.
    async fn unless_told<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            result = work => Some(result),
            _ = self.next() => None,
        }
    }
}
