//! `longhaul run`: runs a node until it is told to stop.
//!
//! The first SIGTERM or SIGINT ends it in order: nothing new is taken, what runs may end within `shutdown_timeout`.
//! The second ends it at once. SIGHUP makes it read its configuration again (`reload`).

mod authority;
mod denylist;
mod enrolment;
mod identity;
mod key_log;
mod manager;
mod reload;
mod renewal;
pub(super) mod settings;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::authority::Followed;
use self::key_log::KeyLogFile;
use self::manager::Manager;
use self::reload::Running;
use super::CliError;
use super::log::LogFilter;
use crate::admin::{AdminServer, AdminSettings, Control};
use crate::channel::InheritedSockets;
use crate::config::Config;
use crate::crypto::identity::{TlsSettings, default_provider};
use crate::enroll::{EnrollPoint, Registrar};
use crate::node::{GuestAdmission, Node, Observer};
use crate::service::{Forward, Gateway, Services};
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
pub(super) fn run(args: Args, filter: LogFilter) -> Result<(), CliError> {
    InheritedSockets::take_over();
    let config = Config::load(&args.config, &default_provider())?;
    filter.follow(config.log_filter.as_deref());
    for warning in &config.warnings {
        tracing::warn!(%warning, "configuration");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(config, filter));
    // A name that is still being looked up is not worth waiting for.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config, filter: LogFilter) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    let manager = Manager::new();
    let telemetry = Telemetry::new(&config.node.id.to_string(), &config.telemetry);
    let telemetry = telemetry.context("telemetry cannot be set up")?;
    telemetry.take_logs(filter.tap());
    let started = signals.unless_told(start(config.clone(), telemetry.observer())).await;
    let Started { gateway, enrolment, registrar, tls } = started.ok_or_else(stopped_early)??;
    let gateway = Arc::new(gateway);
    telemetry.watch(gateway.node());
    telemetry.watch_gateway(&gateway);
    let authority = registrar
        .zip(config.enroll.as_ref())
        .map(|(registrar, enroll)| authority::follow(registrar, enroll.directory.join(crate::enroll::files::STATE)));
    if let Some(authority) = authority.clone() {
        telemetry.watch_authority(move || authority.counts());
    }
    let settings = admin_settings(&telemetry, authority.as_ref());
    let running = Running::new(config, Arc::clone(&gateway), tls, filter, manager.clone());
    let admin = AdminServer::start(Arc::clone(&running), settings).await;
    let _admin = admin.context("[admin] cannot be started")?;
    tell_unused_sockets();
    tracing::info!("ready");
    manager.ready();
    let name = signals.until_told(&running).await;
    running.stop();
    let shutdown_timeout = running.config().node.shutdown_timeout;
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

/// What the operator is shown of the measurements, and of the authority if there is one.
fn admin_settings(telemetry: &Telemetry, authority: Option<&Followed>) -> AdminSettings {
    let (metrics, measurements) = (telemetry.clone(), telemetry.clone());
    AdminSettings {
        metrics: Some(Arc::new(move || Some(metrics.render_prometheus()))),
        measurements: Some(Arc::new(move || serde_json::json!(measurements.snapshot()))),
        authority: authority.map(Followed::shown),
    }
}

/// What runs.
struct Started {
    gateway: Gateway,
    /// Where machines join, if that is a port of its own.
    enrolment: Option<EnrollPoint>,
    /// Judges who joins, at a hub.
    registrar: Option<Arc<Registrar>>,
    tls: TlsSettings,
}

/// Starts everything that the configuration names.
async fn start(config: Config, observer: Arc<dyn Observer>) -> Result<Started, CliError> {
    let Config { node, limits, identity, enroll, renew, listeners, links, services, forwards, key_log_file, .. } =
        config;
    let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let files = identity.files.clone();
    let is_guest = identity.guest.is_some();
    let tls = identity.tls_settings(default_provider(), time).context("TLS cannot be set up")?;
    let tls = match key_log_file {
        Some(path) => tls.with_key_log(Arc::new(KeyLogFile::open(&path)?)),
        None => tls,
    };
    if !is_guest {
        tokio::spawn(identity::watch(files.clone(), tls.clone()));
        denylist::recall(&denylist::path(&files), &tls);
    }
    let registrar = enroll.as_ref().and_then(|enroll| enrolment::registrar(enroll, &tls));
    tracing::info!(node = %node.id, version = env!("CARGO_PKG_VERSION"), "starting");
    let door = enroll.as_ref().zip(registrar.as_ref());
    let door = door.map(|(enroll, registrar)| enrolment::door(enroll, registrar, &tls)).transpose()?;
    let mut builder = Node::builder(tls.clone()).config(settings::node(&node)).observer(observer);
    for listener in listeners {
        builder = builder.listen(listener.address, listener.options);
    }
    if let Some(registrar) = &registrar {
        builder = builder.guests(Arc::clone(registrar) as Arc<dyn GuestAdmission>);
    }
    if let Some(door) = &door {
        builder = builder.enrolment(Arc::new(door.clone()));
    }
    let running = builder.build().await.context("node cannot be started")?;
    for service in &services {
        tracing::info!(service = %service.name, targets = %service.targets, "service offered");
    }
    running.set_bandwidth_limits(settings::bandwidth_limits(&limits, &links));
    let services = Services::new(services);
    services.set_connections_per_peer_max(limits.connections_per_peer_max);
    let gateway = Gateway::start(running, services);
    for forward in forwards {
        let forward = gateway.forward(forward).await.context("forward cannot be started")?;
        tell_forward(&forward);
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
    let enrolment = match enroll.zip(registrar.clone()).zip(door) {
        Some(((enroll, registrar), door)) => {
            enrolment::keep(&enroll, registrar, files, &tls, &gateway);
            enrolment::open(&enroll, door, &gateway).await?
        }
        None => None,
    };
    Ok(Started { gateway, enrolment, registrar, tls })
}

/// Whoever connects to a socket that nobody accepts on waits for ever.
fn tell_unused_sockets() {
    let sockets = InheritedSockets::of_process().into_iter().flat_map(InheritedSockets::iter);
    for socket in sockets.filter(|socket| !socket.is_used()) {
        let (name, place) = (socket.name(), socket.place());
        tracing::warn!(name, %place, "socket of the service manager that the configuration does not name");
    }
}

fn tell_forward(forward: &Forward) {
    let (address, config) = (forward.local_address(), forward.config());
    tracing::info!(%address, service = %config.service, peer = %config.peer, "forwarding");
}

fn open_connections(gateway: &Gateway) -> u32 {
    let of_forwards: u32 = gateway.forwards().iter().map(|forward| forward.open_connections()).sum();
    of_forwards + gateway.services().open_connections()
}

fn stopped_early() -> CliError {
    CliError::Runtime(anyhow!("stopped by a signal before the end"))
}

/// The signals that ask for an end, or for the configuration to be read again.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let [terminate, interrupt, hangup] = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)?, hangup: signal(hangup)? })
    }

    /// Reloads whenever that is asked for, until an end is: the name of that signal.
    async fn until_told(&mut self, running: &Arc<Running>) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    let running = Arc::clone(running);
                    // Of its own, so that an end need not wait for it. The log tells how it went.
                    tokio::spawn(async move { drop(running.reload().await) });
                }
            }
        }
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
