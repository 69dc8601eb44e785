//! Metrics by OTLP, to a collector that may be slow or dead: what is sent is collected when it is sent, so that nothing
//! queues up; an export that takes too long is given up, and counted.

mod connect;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{MetricExporter, Protocol as WireProtocol, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tonic::metadata::MetadataMap;

use self::connect::{Connector, Http};
use self::plan::{Plan, Signal, Variables};
use super::Shared;
use super::output::Output;
use super::points::Collected;
use super::settings::{Histograms, Protocol, Settings};

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
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// The last export did not arrive, which was logged.
    is_failing: AtomicBool,
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
        Ok(Some(Self {
            output,
            exporter,
            plan,
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
        }))
    }

    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    /// Adds what became of exports.
    pub(super) fn add_to(&self, collected: &mut Collected) {
        for (outcome, counter) in [("ok", &self.succeeded), ("failed", &self.failed)] {
            let signal = KeyValue::new("signal", Signal::Metrics.as_str());
            let attributes = [signal, KeyValue::new("outcome", outcome)];
            collected.add("longhaul.telemetry.export", counter.load(Ordering::Relaxed) as f64, &attributes);
        }
    }

    async fn export(&self, metrics: &ResourceMetrics, timeout: Duration) {
        let outcome = match tokio::time::timeout(timeout, self.exporter.export(metrics)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", timeout.as_secs_f32())),
        };
        match outcome {
            Ok(()) => {
                self.succeeded.fetch_add(1, Ordering::Relaxed);
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(endpoint = %self.plan.endpoint, "metrics arrive again");
                }
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                // Once, not each time: a collector may be gone for days.
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(endpoint = %self.plan.endpoint, %error, "metrics cannot be sent");
                }
            }
        }
    }
}

/// Sends metrics at intervals. One export at a time: the next one says all that the last one could not.
pub(super) async fn run(shared: Arc<Shared>) {
    let Some(exporting) = &shared.otlp else { return };
    let period = exporting.plan.interval;
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if let Some(metrics) = shared.collect(&exporting.output) {
            exporting.export(&metrics, exporting.plan.timeout).await;
        }
    }
}

/// Sends the last values, within a moment.
pub(super) async fn flush(shared: &Shared) {
    let Some(exporting) = &shared.otlp else { return };
    if let Some(metrics) = shared.collect(&exporting.output) {
        exporting.export(&metrics, FLUSH_TIMEOUT.min(exporting.plan.timeout)).await;
    }
}

fn exporter(plan: &Plan) -> Result<MetricExporter, OtlpError> {
    let failed = |error: opentelemetry_otlp::ExporterBuildError| OtlpError::Exporter(error.to_string());
    let builder = MetricExporter::builder().with_temporality(plan.temporality);
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

/// A node that ends waits for its last word no longer than this.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
