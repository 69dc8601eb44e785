//! Telemetry: makes statistics of what nodes tell, and gives them out as OpenTelemetry metrics, as text for Prometheus,
//! and as a [`Snapshot`] for JSON.
//!
//! Only reads: events come from an [`Observer`], readings of sessions are taken each second, and nothing here can slow the
//! data path. `table` lists every instrument; `windows` and `state` are pure and know no OpenTelemetry.
//!
//! ```no_run
//! # async fn example(settings: longhaul::crypto::identity::TlsSettings) -> Result<(), Box<dyn std::error::Error>> {
//! use longhaul::node::Node;
//! use longhaul::telemetry::{Settings, Telemetry};
//!
//! let telemetry = Telemetry::new("spiffe://example/node/dc-a", &Settings::default())?;
//! let node = Node::builder(settings).observer(telemetry.observer()).build().await?;
//! telemetry.watch(&node);
//! println!("{}", telemetry.render_prometheus());
//! println!("{:?}", telemetry.snapshot().links);
//! # Ok(()) }
//! ```

pub mod histogram;
mod authority;
mod otlp;
mod output;
mod points;
mod process;
mod prometheus;
mod recorder;
mod settings;
mod snapshot;
mod state;
pub mod table;
pub mod windows;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector};
use tokio::task::JoinHandle;

pub use authority::Authority;
pub use otlp::{LogLayer, LogTap, OtlpError};
pub use process::ProcessSnapshot;
pub use prometheus::CONTENT_TYPE as PROMETHEUS_CONTENT_TYPE;
pub use settings::{Histograms, OtlpSettings, Protocol, Settings};
pub use snapshot::{ChannelSnapshot, LinkSnapshot, Snapshot, VERSION as SNAPSHOT_VERSION};

use self::output::Output;
use self::points::Collected;
use self::recorder::Recording;
use self::state::{Ended, State};
use self::windows::TICK;
use crate::node::{Node, NodeEvent, NodeMeter, Observer};
use crate::service::Gateway;
use crate::wire::TraceContext;

/// A node's telemetry. Clones are the same; it ends with the last one.
#[derive(Clone)]
pub struct Telemetry(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
    }
}

/// What the tasks, the observer and whoever asks share.
struct Shared {
    state: Mutex<State>,
    /// For the text of Prometheus, and for OTLP if it is on.
    text: Output,
    otlp: Option<otlp::Exporting>,
    tracing: Option<otlp::Tracing>,
    logging: Option<otlp::Logging>,
    node: OnceLock<Watched>,
    gateway: Mutex<Weak<Gateway>>,
    authority: OnceLock<AuthoritySource>,
    errors: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// Held for reading while something is exported, which has been taken from where it waited.
    exports: tokio::sync::RwLock<()>,
}

/// Tells what an authority has, once that is known.
type AuthoritySource = Box<dyn Fn() -> Option<Authority> + Send + Sync>;

/// The node that is watched.
struct Watched {
    meter: NodeMeter,
    /// When its certificate ends, in seconds since 1970.
    certificate_end: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Telemetry {
    /// Begins, for a node of this name. Has to be called within a tokio runtime when metrics are to be sent.
    ///
    /// # Errors
    /// [`OtlpError`] when metrics are to be sent, and cannot be as they should.
    pub fn new(node: &str, settings: &Settings) -> Result<Self, OtlpError> {
        let resource = resource(node, settings);
        let text = match &settings.histograms {
            Histograms::Exponential => Histograms::default(),
            explicit @ Histograms::Explicit(_) => explicit.clone(),
        };
        let text = Output::new(resource.clone(), Temporality::Cumulative, &text);
        let otlp = otlp::Exporting::new(resource.clone(), settings)?;
        let tracing = otlp::Tracing::new(resource.clone(), settings)?;
        let logging = otlp::Logging::new(resource, settings)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(Instant::now())),
            text,
            otlp,
            tracing,
            logging,
            node: OnceLock::new(),
            gateway: Mutex::new(Weak::new()),
            authority: OnceLock::new(),
            errors: Mutex::default(),
            exports: tokio::sync::RwLock::default(),
        });
        Ok(Self(Arc::new(Running { shared, tasks: Mutex::default() })))
    }

    /// What hears the events of the node: for [`NodeBuilder::observer`](crate::node::NodeBuilder::observer).
    #[must_use]
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(Listening(Arc::downgrade(&self.0.shared)))
    }

    /// Reads the sessions of a node from now on, and sends metrics if that is asked for. Only the first node is watched.
    /// Has to be called within a tokio runtime.
    pub fn watch(&self, node: &Node) {
        let tls = node.tls().clone();
        let certificate_end = Box::new(move || tls.identity().not_after_unix());
        if self.0.shared.node.set(Watched { meter: node.meter(), certificate_end }).is_err() {
            return;
        }
        let mut tasks = lock(&self.0.tasks);
        tasks.push(tokio::spawn(tick(Arc::clone(&self.0.shared))));
        if self.0.shared.otlp.is_some() {
            tasks.push(tokio::spawn(otlp::run(Arc::clone(&self.0.shared))));
        }
        if self.0.shared.tracing.is_some() {
            tasks.push(tokio::spawn(otlp::run_spans(Arc::clone(&self.0.shared))));
        }
        if self.0.shared.logging.is_some() {
            tasks.push(tokio::spawn(otlp::run_logs(Arc::clone(&self.0.shared))));
        }
    }

    /// Sends the log events that a tap hands over from now on, if logs are to be sent.
    pub fn take_logs(&self, tap: &LogTap) {
        if let Some(logging) = &self.0.shared.logging {
            logging.take(tap);
        }
    }

    /// Counts what services and forwards do, as long as the gateway lives.
    pub fn watch_gateway(&self, gateway: &Arc<Gateway>) {
        *lock(&self.0.shared.gateway) = Arc::downgrade(gateway);
    }

    /// Asks `read` for what the node's authority has, whenever metrics are read: it has to answer at once. Only the first
    /// authority is watched.
    pub fn watch_authority(&self, read: impl Fn() -> Option<Authority> + Send + Sync + 'static) {
        let _ = self.0.shared.authority.set(Box::new(read));
    }

    /// Everything that is known now, for JSON.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.shared.read_node();
        Snapshot::of(&lock(&self.0.shared.state), SystemTime::now())
    }

    /// All metrics as Prometheus reads them, with the content type [`PROMETHEUS_CONTENT_TYPE`].
    #[must_use]
    pub fn render_prometheus(&self) -> String {
        let metrics = self.0.shared.collect(&self.0.shared.text);
        metrics.map(|metrics| prometheus::render(&metrics)).unwrap_or_default()
    }

    /// Sends what was not sent yet, within a moment. To be called when the node has ended.
    pub async fn shutdown(&self) {
        let no_export = otlp::wait_for_exports(&self.0.shared).await;
        lock(&self.0.tasks).drain(..).for_each(|task| task.abort());
        drop(no_export);
        otlp::flush(&self.0.shared).await;
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}

impl Shared {
    /// Reads the sessions. Never under the lock of the state: events come under those of sessions.
    fn read_node(&self) {
        let Some(node) = self.node.get() else { return };
        let readings = node.meter.read();
        lock(&self.state).on_readings(readings, Instant::now(), &mut Recording::of(self));
    }

    /// Everything that there is now.
    fn collect(&self, output: &Output) -> Option<ResourceMetrics> {
        self.read_node();
        let mut collected = Collected::default();
        collected.add_state(&lock(&self.state));
        for ((operation, kind), count) in &*lock(&self.errors) {
            let attributes = [KeyValue::new("operation", *operation), KeyValue::new("kind", *kind)];
            collected.add("longhaul.error", *count as f64, &attributes);
        }
        if let Some(node) = self.node.get() {
            collected.add_node(&node.meter);
            let certificate = [KeyValue::new("certificate", "node")];
            collected.add("longhaul.certificate.expiry", (node.certificate_end)() as f64, &certificate);
        }
        if let Some(gateway) = lock(&self.gateway).upgrade() {
            collected.add_gateway(&gateway);
        }
        if let Some(authority) = self.authority.get().and_then(|read| read()) {
            collected.add_authority(&authority);
        }
        if let Some(process) = ProcessSnapshot::read() {
            collected.add_process(&process);
        }
        otlp::add_outcomes(self, &mut collected);
        output.collect(collected.0).map_err(|error| tracing::debug!(%error, "metrics cannot be collected")).ok()
    }

    /// Adds a value to a histogram, wherever it is given out.
    fn record(&self, name: &'static str, value: f64, attributes: &[KeyValue]) {
        debug_assert!(points::has_attributes(name, attributes), "{name} has other attributes in the table");
        self.text.record(name, value, attributes);
        if let Some(otlp) = &self.otlp {
            otlp.output().record(name, value, attributes);
        }
    }

    fn on_event(&self, event: &NodeEvent<'_>) {
        let now = Instant::now();
        match event {
            NodeEvent::Handshake { side, kind, time, error } => {
                self.on_attempt("handshake", "longhaul.handshake.duration", *side, *kind, *time, *error);
            }
            NodeEvent::Join { side, kind, time, error } => {
                self.on_attempt("join", "longhaul.join.duration", *side, *kind, *time, *error);
            }
            NodeEvent::LaneEnded { peer, kind, end } => {
                lock(&self.state).on_lane_ended(peer, *kind, words::lane_end(*end), now);
            }
            NodeEvent::SessionEnded { peer, id, reason, reading, outage } => {
                let ended = Ended { id: *id, peer, reading, reason: words::close_reason(reason), outage: *outage };
                lock(&self.state).on_session_ended(&ended, now, &mut Recording::of(self));
            }
            NodeEvent::StreamOpened { peer, time, is_open, trace } => {
                let outcome = if *is_open { "ok" } else { "failed" };
                let attributes = [self.peer(peer), KeyValue::new("outcome", outcome)];
                self.record("longhaul.stream.open.duration", time.as_secs_f64(), &attributes);
                if let (Some(tracing), Some(trace)) = (&self.tracing, trace) {
                    let error = (!is_open).then(|| "no session in time".to_owned());
                    tracing.add_begun("stream open", trace, *time, &attributes[..1], error);
                }
            }
            NodeEvent::ServiceConnected { peer, service, time, trace, error } => {
                if let Some(tracing) = &self.tracing {
                    let attributes = [self.peer(peer), KeyValue::new("service", (*service).to_owned())];
                    tracing.add_below("service connect", trace, *time, &attributes, error.clone());
                }
            }
            NodeEvent::FirstByte { peer, service, time } => {
                let attributes = [self.peer(peer), KeyValue::new("service", (*service).to_owned())];
                self.record("longhaul.forward.first_byte.duration", time.as_secs_f64(), &attributes);
            }
        }
    }

    fn peer(&self, peer: &crate::crypto::identity::NodeId) -> KeyValue {
        KeyValue::new("peer", lock(&self.state).peer_name(peer))
    }

    fn on_attempt(
        &self,
        operation: &'static str,
        name: &'static str,
        side: crate::base::Side,
        kind: Option<crate::session::LaneKind>,
        time: Duration,
        error: Option<&crate::node::ConnectError>,
    ) {
        let attributes = [
            KeyValue::new("side", words::side(side)),
            KeyValue::new("transport", kind.map_or("unknown", crate::session::LaneKind::as_str)),
            KeyValue::new("outcome", if error.is_none() { "ok" } else { "failed" }),
        ];
        self.record(name, time.as_secs_f64(), &attributes);
        if let Some(tracing) = &self.tracing {
            let kind = match side {
                crate::base::Side::Client => SpanKind::Client,
                crate::base::Side::Server => SpanKind::Server,
            };
            let error = error.map(|error| error.as_str().to_owned());
            tracing.add(operation, kind, time, &attributes[1..2], error);
        }
        if let Some(error) = error {
            *lock(&self.errors).entry((operation, error.as_str())).or_default() += 1;
        }
    }
}

/// Hears the events of a node, which does not keep the telemetry alive.
struct Listening(Weak<Shared>);

impl Observer for Listening {
    fn on_event(&self, event: &NodeEvent<'_>) {
        if let Some(shared) = self.0.upgrade() {
            shared.on_event(event);
        }
    }

    fn begin_trace(&self) -> Option<TraceContext> {
        self.0.upgrade()?.tracing.as_ref()?.begin()
    }
}

/// Reads the sessions each second, and notes how late that was.
async fn tick(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let due = interval.tick().await;
        let lateness = tokio::time::Instant::now().saturating_duration_since(due);
        shared.record("longhaul.event_loop.delay", lateness.as_secs_f64(), &[]);
        shared.read_node();
        lock(&shared.state).on_tick(Instant::now(), &mut Recording::of(&shared));
    }
}

/// What is said of the node as a whole: its own facts, then what variables say, then what the settings say.
fn resource(node: &str, settings: &Settings) -> Resource {
    let own = [
        KeyValue::new("service.name", "longhaul"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node.to_owned()),
    ];
    let variables = EnvResourceDetector::new().detect();
    let variables = variables.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let name = name.map(|name| KeyValue::new("service.name", name));
    let chosen = settings.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    // The later ones win.
    let mut attributes = BTreeMap::new();
    for attribute in own.into_iter().chain(variables).chain(name).chain(chosen) {
        attributes.insert(attribute.key, attribute.value);
    }
    let attributes = attributes.into_iter().map(|(key, value)| KeyValue::new(key, value));
    Resource::builder_empty().with_attributes(attributes).build()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
