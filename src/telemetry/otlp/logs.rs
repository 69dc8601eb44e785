//! Log events by OTLP, on request: those that the filter of the log lets through, without those of the exporters themselves,
//! which would never end.
//!
//! An event becomes a record at once and waits in a bounded queue for the next export; what finds no room is dropped and
//! counted, and nobody waits.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry_otlp::LogExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, LogProcessor, SdkLogRecord, SdkLogger, SdkLoggerProvider};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::plan::{Plan, Signal, Variables};
use super::{OtlpError, Outcomes};
use crate::telemetry::settings::Settings;

/// Where log events are handed over: a layer of the subscriber at one end, telemetry at the other, once there is one. Clones
/// are the same.
#[derive(Clone, Debug, Default)]
pub struct LogTap(Arc<OnceLock<Recorder>>);

/// Makes records of events.
#[derive(Debug)]
struct Recorder {
    logger: SdkLogger,
    _provider: SdkLoggerProvider,
}

/// The layer of a [`LogTap`].
#[derive(Debug)]
pub struct LogLayer(LogTap);

/// The logs that are sent.
pub(in crate::telemetry) struct Logging {
    exporter: LogExporter,
    queue: Arc<Queue>,
    resource: Resource,
    pub(super) plan: Plan,
    pub(super) outcomes: Outcomes,
}

/// Records that wait for the next export.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Vec<(SdkLogRecord, InstrumentationScope)>>,
    dropped: AtomicU64,
}

/// Puts records into the queue.
#[derive(Debug)]
struct Collecting(Arc<Queue>);

impl LogProcessor for Collecting {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < RECORDS_MAX {
            waiting.push((record.clone(), scope.clone()));
        } else {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Logging {
    /// `None` unless it is asked for by name: a log says more than metrics do, so that an address of a collector is not
    /// enough.
    pub(in crate::telemetry) fn new(resource: Resource, settings: &Settings) -> Result<Option<Self>, OtlpError> {
        let variables: Variables<'_> = &|name| std::env::var(name).ok();
        if !settings.logs && variables("OTEL_LOGS_EXPORTER").as_deref() != Some("otlp") {
            return Ok(None);
        }
        let Some(plan) = Plan::new(Signal::Logs, settings.otlp.as_ref(), variables)? else {
            tracing::warn!("logs are to be sent, and nothing says where to");
            return Ok(None);
        };
        let mut exporter = super::log_exporter(&plan)?;
        exporter.set_resource(&resource);
        tracing::info!(endpoint = %plan.endpoint, "sending logs");
        let outcomes = Outcomes::new(Signal::Logs);
        Ok(Some(Self { exporter, queue: Arc::default(), resource, plan, outcomes }))
    }

    /// Takes the events of a tap from now on, unless somebody does.
    pub(in crate::telemetry) fn take(&self, tap: &LogTap) {
        let provider = SdkLoggerProvider::builder()
            .with_resource(self.resource.clone())
            .with_log_processor(Collecting(Arc::clone(&self.queue)))
            .build();
        let logger = provider.logger("longhaul");
        // A second one would be another node's.
        let _ = tap.0.set(Recorder { logger, _provider: provider });
    }

    /// Records that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }

    /// Sends what waits. What does not arrive is given up.
    pub(super) async fn export(&self, timeout: Duration) {
        loop {
            let batch = {
                let mut waiting = self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let count = waiting.len().min(BATCH_RECORDS_MAX);
                waiting.drain(..count).collect::<Vec<_>>()
            };
            if batch.is_empty() {
                return;
            }
            let batch: Vec<_> = batch.iter().map(|(record, scope)| (record, scope)).collect();
            let exporting = tokio::time::timeout(timeout, self.exporter.export(LogBatch::new(&batch)));
            if !self.outcomes.note(exporting.await, timeout, &self.plan) {
                return;
            }
        }
    }
}

impl LogTap {
    /// What hands the events over, for a subscriber.
    #[must_use]
    pub fn layer(&self) -> LogLayer {
        LogLayer(self.clone())
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let Some(Recorder { logger, .. }) = self.0.0.get() else { return };
        let metadata = event.metadata();
        if is_of_exporters(metadata.target()) {
            return;
        }
        let mut record = logger.create_log_record();
        let now = SystemTime::now();
        record.set_timestamp(now);
        record.set_observed_timestamp(now);
        record.set_target(metadata.target());
        record.set_severity_text(metadata.level().as_str());
        record.set_severity_number(severity(*metadata.level()));
        event.record(&mut Fields(&mut record));
        logger.emit(record);
    }
}

/// Whether events of this target come about by exporting, or may.
fn is_of_exporters(target: &str) -> bool {
    let is_in =
        |module: &str| target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    EXPORTERS.into_iter().any(is_in) || target.starts_with("opentelemetry")
}

fn severity(level: Level) -> Severity {
    match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Info,
        Level::DEBUG => Severity::Debug,
        Level::TRACE => Severity::Trace,
    }
}

/// Puts the fields of an event into a record.
struct Fields<'a>(&'a mut SdkLogRecord);

impl Fields<'_> {
    fn text(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.0.set_body(AnyValue::from(text)),
            "traceparent" => {
                if let Some((trace_id, span_id, flags)) = parse_traceparent(&text) {
                    self.0.set_trace_context(trace_id, span_id, Some(flags));
                }
            }
            name => self.0.add_attribute(name, text),
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.add_attribute(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.add_attribute(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.add_attribute(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.0.add_attribute(field.name(), value),
            Err(_) => self.text(field, value.to_string()),
        }
    }
}

/// As [`TraceContext`](crate::wire::TraceContext) writes itself.
fn parse_traceparent(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let mut parts = text.split('-').skip(1);
    let trace_id = TraceId::from_hex(parts.next()?).ok()?;
    let span_id = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    Some((trace_id, span_id, TraceFlags::new(flags)))
}

/// Whose events are left out.
const EXPORTERS: [&str; 7] = ["longhaul::telemetry", "h2", "hyper", "hyper_util", "tonic", "tower", "rustls"];

/// Records that wait; the specification's own choice for batches.
const RECORDS_MAX: usize = 2048;

/// Records of one request; the specification's own choice.
const BATCH_RECORDS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::run_logs;
    use super::*;
    use crate::telemetry::{OtlpSettings, Protocol, Telemetry, lock};
    use crate::wire::TraceContext;

    /// Answers requests, and notes what they say.
    async fn collect(mut stream: TcpStream, received: Arc<Mutex<Vec<u8>>>) {
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            received.lock().unwrap().extend_from_slice(&buffer[..count]);
            // Requests this short come at once, or as head and body, of which the second is answered.
            if !buffer[..count].starts_with(b"POST") || !buffer[..count].ends_with(b"\r\n\r\n") {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn what_is_on_its_way_when_a_node_ends_arrives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let otlp = OtlpSettings {
            endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
            protocol: Some(Protocol::HttpProtobuf),
            interval: Some(Duration::ZERO),
            ..OtlpSettings::default()
        };
        let tap = LogTap::default();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(tap.layer()));
        let settings = Settings { otlp: Some(otlp), logs: true, ..Settings::default() };
        let telemetry = Telemetry::new("spiffe://test/node/a", &settings).unwrap();
        telemetry.take_logs(&tap);
        tracing::warn!(target: "application", "last words");
        let shared = Arc::clone(&telemetry.0.shared);
        lock(&telemetry.0.tasks).push(tokio::spawn(run_logs(shared)));
        let queue = Arc::clone(&telemetry.0.shared.logging.as_ref().unwrap().queue);
        // Taken, and not yet sent: nobody has answered the connection.
        let taken = async {
            while !queue.waiting.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), taken).await.expect("an export begins");
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(collect(stream, Arc::clone(&kept)));
            }
        });
        telemetry.shutdown().await;
        let received = String::from_utf8_lossy(&received.lock().unwrap()).into_owned();
        assert!(received.contains("last words"), "{received:.200}");
    }

    #[test]
    fn events_of_exporters_are_told_from_others() {
        for target in ["h2::client", "hyper", "tonic::transport", "longhaul::telemetry::otlp", "opentelemetry_sdk"] {
            assert!(is_of_exporters(target), "{target}");
        }
        for target in ["longhaul::node::lane", "longhaul::telemetryless", "h2o"] {
            assert!(!is_of_exporters(target), "{target}");
        }
    }

    #[test]
    fn a_trace_is_read_as_it_is_written() {
        let trace = TraceContext { trace_id: [0xab; 16], span_id: [0x01; 8], flags: 1 };
        let (trace_id, span_id, flags) = parse_traceparent(&trace.to_string()).unwrap();
        assert_eq!((trace_id.to_bytes(), span_id.to_bytes(), flags.to_u8()), (trace.trace_id, trace.span_id, 1));
        assert!(parse_traceparent("none").is_none());
    }
}
