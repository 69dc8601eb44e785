//! Metrics, spans and logs by OTLP, to a collector that may be slow or dead: metrics are collected when they are sent, so that
//! nothing queues up, and spans and logs wait in queues that are bounded. An export that takes too long is given up, and counted.

mod connect;
mod logs;
mod plan;
mod spans;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    LogExporter, MetricExporter, Protocol as WireProtocol, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tokio::sync::RwLockWriteGuard;
use tokio::time::error::Elapsed;
use tonic::metadata::MetadataMap;

use self::connect::{Connector, Http};
use self::plan::{Plan, Signal, Variables};
use super::Shared;
use super::output::Output;
use super::points::Collected;
use super::settings::{Histograms, Protocol, Settings};
pub(super) use logs::Logging;
pub use logs::{LogLayer, LogTap};
pub(super) use spans::Tracing;

/// Why metrics cannot be sent as they should.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// No URL of a collector.
    #[error("{0:?} is no address of a collector; expected such as http://collector.example:4317")]
    Endpoint(String),
    /// A variable has a value that means nothing.
    #[error("{name} cannot be {value:?}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What it is.
        value: String,
    },
    /// A file that a variable names cannot be read.
    #[error("{path} cannot be read: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS to the collector: {0}")]
    Tls(String),
    /// A header that cannot be sent.
    #[error("{0:?} is no header")]
    Header(String),
    /// The exporter cannot be made.
    #[error("exporter: {0}")]
    Exporter(String),
}

/// The metrics that are sent.
pub(super) struct Exporting {
    output: Output,
    exporter: MetricExporter,
    plan: Plan,
    outcomes: Outcomes,
}

/// What became of the exports of a signal.
struct Outcomes {
    signal: Signal,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// The last export did not arrive, which was logged.
    is_failing: AtomicBool,
}

impl Outcomes {
    fn new(signal: Signal) -> Self {
        let (succeeded, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { signal, succeeded, failed, is_failing: AtomicBool::new(false) }
    }

    /// Notes what became of an export: whether it arrived.
    fn note(&self, outcome: Result<OTelSdkResult, Elapsed>, timeout: Duration, plan: &Plan) -> bool {
        let outcome = match outcome {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", timeout.as_secs_f32())),
        };
        let (endpoint, signal) = (&plan.endpoint, self.signal.as_str());
        match outcome {
            Ok(()) => {
                self.succeeded.fetch_add(1, Ordering::Relaxed);
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(%endpoint, signal, "telemetry arrives again");
                }
                true
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                // Once, not each time: a collector may be gone for days.
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%endpoint, signal, %error, "telemetry cannot be sent");
                }
                false
            }
        }
    }

    fn add_to(&self, collected: &mut Collected) {
        for (outcome, counter) in [("ok", &self.succeeded), ("failed", &self.failed)] {
            let signal = KeyValue::new("signal", self.signal.as_str());
            let attributes = [signal, KeyValue::new("outcome", outcome)];
            collected.add("longhaul.telemetry.export", counter.load(Ordering::Relaxed) as f64, &attributes);
        }
    }
}

impl Exporting {
    /// `None` when nothing is to be sent.
    pub(super) fn new(resource: Resource, settings: &Settings) -> Result<Option<Self>, OtlpError> {
        let variables: Variables<'_> = &|name| std::env::var(name).ok();
        let Some(plan) = Plan::new(Signal::Metrics, settings.otlp.as_ref(), variables)? else { return Ok(None) };
        let histograms = if plan.is_exponential { &Histograms::Exponential } else { &settings.histograms };
        let output = Output::new(resource, plan.temporality, histograms);
        let exporter = exporter(&plan)?;
        tracing::info!(endpoint = %plan.endpoint, interval_ms = plan.interval.as_millis() as u64, "sending metrics");
        Ok(Some(Self { output, exporter, plan, outcomes: Outcomes::new(Signal::Metrics) }))
    }

    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    async fn export(&self, metrics: &ResourceMetrics, timeout: Duration) {
        let exporting = tokio::time::timeout(timeout, self.exporter.export(metrics));
        self.outcomes.note(exporting.await, timeout, &self.plan);
    }
}

/// Adds what became of exports.
pub(super) fn add_outcomes(shared: &Shared, collected: &mut Collected) {
    if let Some(exporting) = &shared.otlp {
        exporting.outcomes.add_to(collected);
    }
    if let Some(tracing) = &shared.tracing {
        tracing.outcomes.add_to(collected);
        collected.add("longhaul.telemetry.span.dropped", tracing.dropped() as f64, &[]);
    }
    if let Some(logging) = &shared.logging {
        logging.outcomes.add_to(collected);
        collected.add("longhaul.telemetry.log.dropped", logging.dropped() as f64, &[]);
    }
}

/// Sends metrics at intervals. One export at a time: the next one says all that the last one could not.
pub(super) async fn run(shared: Arc<Shared>) {
    let Some(exporting) = &shared.otlp else { return };
    let mut interval = interval(exporting.plan.interval);
    loop {
        interval.tick().await;
        let _export = shared.exports.read().await;
        if let Some(metrics) = shared.collect(&exporting.output) {
            exporting.export(&metrics, exporting.plan.timeout).await;
        }
    }
}

/// Sends spans at intervals.
pub(super) async fn run_spans(shared: Arc<Shared>) {
    let Some(tracing) = &shared.tracing else { return };
    let mut interval = interval(tracing.plan.interval);
    loop {
        interval.tick().await;
        let _export = shared.exports.read().await;
        tracing.export(tracing.plan.timeout).await;
    }
}

/// Sends logs at intervals.
pub(super) async fn run_logs(shared: Arc<Shared>) {
    let Some(logging) = &shared.logging else { return };
    let mut interval = interval(logging.plan.interval);
    loop {
        interval.tick().await;
        let _export = shared.exports.read().await;
        logging.export(logging.plan.timeout).await;
    }
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

/// Waits for a moment until nothing is being exported, and lets nothing begin: an export that is ended takes along what it
/// has taken from where it waited.
pub(super) async fn wait_for_exports(shared: &Shared) -> Option<RwLockWriteGuard<'_, ()>> {
    tokio::time::timeout(FLUSH_TIMEOUT, shared.exports.write()).await.ok()
}

/// Sends what is left, within a moment.
pub(super) async fn flush(shared: &Shared) {
    if let Some(logging) = &shared.logging {
        logging.export(FLUSH_TIMEOUT.min(logging.plan.timeout)).await;
    }
    if let Some(tracing) = &shared.tracing {
        tracing.export(FLUSH_TIMEOUT.min(tracing.plan.timeout)).await;
    }
    let Some(exporting) = &shared.otlp else { return };
    if let Some(metrics) = shared.collect(&exporting.output) {
        exporting.export(&metrics, FLUSH_TIMEOUT.min(exporting.plan.timeout)).await;
    }
}

/// An exporter of one signal: all kinds are built alike, and have no type in common.
macro_rules! build_exporter {
    ($builder:expr, $plan:expr) => {{
        let (builder, plan) = ($builder, $plan);
        let failed = |error: opentelemetry_otlp::ExporterBuildError| OtlpError::Exporter(error.to_string());
        match plan.protocol {
            Protocol::Grpc => {
                let mut builder = builder
                    .with_tonic()
                    .with_channel(connect::channel(plan)?)
                    .with_timeout(plan.timeout)
                    .with_metadata(metadata(&plan.headers)?);
                if let Some(compression) = plan.compression {
                    builder = builder.with_compression(compression);
                }
                builder.build().map_err(failed)
            }
            Protocol::HttpProtobuf => {
                let headers: HashMap<_, _> = plan.headers.iter().cloned().collect();
                let mut builder = builder
                    .with_http()
                    .with_protocol(WireProtocol::HttpBinary)
                    .with_endpoint(plan.endpoint.to_string())
                    .with_http_client(Http(Connector::new(plan, b"http/1.1")?))
                    .with_timeout(plan.timeout)
                    .with_headers(headers);
                if let Some(compression) = plan.compression {
                    builder = builder.with_compression(compression);
                }
                builder.build().map_err(failed)
            }
        }
    }};
}

fn exporter(plan: &Plan) -> Result<MetricExporter, OtlpError> {
    build_exporter!(MetricExporter::builder().with_temporality(plan.temporality), plan)
}

fn span_exporter(plan: &Plan) -> Result<SpanExporter, OtlpError> {
    build_exporter!(SpanExporter::builder(), plan)
}

fn log_exporter(plan: &Plan) -> Result<LogExporter, OtlpError> {
    build_exporter!(LogExporter::builder(), plan)
}

fn metadata(headers: &[(String, String)]) -> Result<MetadataMap, OtlpError> {
    let mut map = http::HeaderMap::new();
    for (name, value) in headers {
        let wrong = || OtlpError::Header(name.clone());
        let key: http::HeaderName = name.parse().map_err(|_| wrong())?;
        let mut value: http::HeaderValue = value.parse().map_err(|_| wrong())?;
        value.set_sensitive(true);
        map.insert(key, value);
    }
    Ok(MetadataMap::from_headers(map))
}

/// A node that ends waits no longer than this for what is being exported, and for the last word of each signal.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
