//! Spans by OTLP: of handshakes, joins, and connections of forwards. Each is a trace of its own, except that the service at the
//! other node adds what it does for a connection to the trace of that.
//!
//! They are made when they are over, from the times that a node tells. Those that are sampled wait in a bounded queue for
//! the next export; what finds no room is dropped and counted, and nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, Sampler, SamplingDecision, SdkTracer, SdkTracerProvider, ShouldSample as _,
    Span, SpanData, SpanEvents, SpanExporter as _, SpanLinks, SpanProcessor,
};

use super::plan::{Plan, Signal, Variables};
use super::{OtlpError, Outcomes};
use crate::telemetry::settings::Settings;
use crate::wire::TraceContext;

/// The spans that are sent.
pub(in crate::telemetry) struct Tracing {
    tracer: SdkTracer,
    /// For the traces that another node goes on with, whose ids have to be known before their spans are over.
    sampler: Sampler,
    ids: RandomIdGenerator,
    exporter: SpanExporter,
    queue: Arc<Queue>,
    pub(super) plan: Plan,
    pub(super) outcomes: Outcomes,
    _provider: SdkTracerProvider,
}

/// Spans that wait for the next export.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Vec<SpanData>>,
    dropped: AtomicU64,
}

impl Queue {
    fn push(&self, span: SpanData) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < SPANS_MAX {
            waiting.push(span);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Puts spans into the queue.
#[derive(Debug)]
struct Collecting(Arc<Queue>);

impl SpanProcessor for Collecting {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.push(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Tracing {
    /// `None` when nothing is sampled, which is so unless it is asked for, or nothing is to be sent.
    pub(in crate::telemetry) fn new(resource: Resource, settings: &Settings) -> Result<Option<Self>, OtlpError> {
        let variables: Variables<'_> = &|name| std::env::var(name).ok();
        let Some(sampler) = sampler(settings.trace_ratio, variables)? else { return Ok(None) };
        let Some(plan) = Plan::new(Signal::Traces, settings.otlp.as_ref(), variables)? else { return Ok(None) };
        let mut exporter = super::span_exporter(&plan)?;
        exporter.set_resource(&resource);
        let queue = Arc::<Queue>::default();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(sampler.clone())
            .with_span_processor(Collecting(Arc::clone(&queue)))
            .build();
        let tracer = provider.tracer("longhaul");
        tracing::info!(endpoint = %plan.endpoint, "sending spans");
        let (ids, outcomes) = (RandomIdGenerator::default(), Outcomes::new(Signal::Traces));
        Ok(Some(Self { tracer, sampler, ids, exporter, queue, plan, outcomes, _provider: provider }))
    }

    /// A new trace and its first span, if it is one that is sampled.
    pub(in crate::telemetry) fn begin(&self) -> Option<TraceContext> {
        let (trace_id, kind) = (self.ids.new_trace_id(), SpanKind::Client);
        let sampled = self.sampler.should_sample(None, trace_id, "stream open", &kind, &[], &[]).decision;
        (sampled == SamplingDecision::RecordAndSample).then(|| TraceContext {
            trace_id: trace_id.to_bytes(),
            span_id: self.ids.new_span_id().to_bytes(),
            flags: TraceFlags::SAMPLED.to_u8(),
        })
    }

    /// Adds the first span of a trace that was [begun](Self::begin), which ends now.
    pub(in crate::telemetry) fn add_begun(
        &self,
        name: &'static str,
        trace: &TraceContext,
        time: Duration,
        attributes: &[KeyValue],
        error: Option<String>,
    ) {
        let span_id = SpanId::from_bytes(trace.span_id);
        self.add_with_ids(name, trace, (span_id, SpanId::INVALID), time, attributes, error);
    }

    /// Adds a span below that of another node, which ends now. Whether it is sampled was decided there.
    pub(in crate::telemetry) fn add_below(
        &self,
        name: &'static str,
        trace: &TraceContext,
        time: Duration,
        attributes: &[KeyValue],
        error: Option<String>,
    ) {
        if trace.is_sampled() {
            let parent = SpanId::from_bytes(trace.span_id);
            self.add_with_ids(name, trace, (self.ids.new_span_id(), parent), time, attributes, error);
        }
    }

    fn add_with_ids(
        &self,
        name: &'static str,
        trace: &TraceContext,
        (span_id, parent_span_id): (SpanId, SpanId),
        time: Duration,
        attributes: &[KeyValue],
        error: Option<String>,
    ) {
        let end_time = SystemTime::now();
        let is_remote = parent_span_id != SpanId::INVALID;
        let trace_id = TraceId::from_bytes(trace.trace_id);
        self.queue.push(SpanData {
            span_context: SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id,
            parent_span_is_remote: is_remote,
            span_kind: if is_remote { SpanKind::Server } else { SpanKind::Client },
            name: name.into(),
            start_time: end_time.checked_sub(time).unwrap_or(end_time),
            end_time,
            attributes: attributes.to_vec(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: error.map_or(Status::Unset, Status::error),
            instrumentation_scope: InstrumentationScope::builder("longhaul").build(),
        });
    }

    /// Adds a span that ends now.
    pub(in crate::telemetry) fn add(
        &self,
        name: &'static str,
        kind: SpanKind,
        time: Duration,
        attributes: &[KeyValue],
        error: Option<String>,
    ) {
        let end = SystemTime::now();
        let builder = SpanBuilder::from_name(name)
            .with_kind(kind)
            .with_start_time(end.checked_sub(time).unwrap_or(end))
            .with_attributes(attributes.to_vec());
        let mut span = self.tracer.build_with_context(builder, &Context::new());
        if let Some(error) = error {
            span.set_status(Status::error(error));
        }
        span.end_with_timestamp(end);
    }

    /// Spans that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }

    /// Sends what waits. What does not arrive is given up.
    pub(super) async fn export(&self, timeout: Duration) {
        loop {
            let batch = {
                let mut waiting = self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let count = waiting.len().min(BATCH_SPANS_MAX);
                waiting.drain(..count).collect::<Vec<_>>()
            };
            if batch.is_empty() {
                return;
            }
            let exporting = tokio::time::timeout(timeout, self.exporter.export(batch));
            if !self.outcomes.note(exporting.await, timeout, &self.plan) {
                return;
            }
        }
    }
}

/// Which are sampled: what the settings say, then what variables say, then none.
fn sampler(ratio: Option<f64>, variables: Variables<'_>) -> Result<Option<Sampler>, OtlpError> {
    if let Some(ratio) = ratio {
        return Ok((ratio > 0.0).then_some(Sampler::TraceIdRatioBased(ratio)));
    }
    let read = |name: &str| variables(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let Some(name) = read("OTEL_TRACES_SAMPLER") else { return Ok(None) };
    match name.as_str() {
        "always_on" | "parentbased_always_on" => Ok(Some(Sampler::AlwaysOn)),
        "always_off" | "parentbased_always_off" => Ok(None),
        "traceidratio" | "parentbased_traceidratio" => {
            let text = read("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned());
            let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            let name = "OTEL_TRACES_SAMPLER_ARG";
            let ratio = ratio.ok_or(OtlpError::Variable { name, value: text })?;
            Ok((ratio > 0.0).then_some(Sampler::TraceIdRatioBased(ratio)))
        }
        _ => Err(OtlpError::Variable { name: "OTEL_TRACES_SAMPLER", value: name }),
    }
}

/// Spans that wait; the specification's own choice for batches.
const SPANS_MAX: usize = 2048;

/// Spans of one request; the specification's own choice.
const BATCH_SPANS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(ratio: Option<f64>, variables: &[(&str, &str)]) -> Result<Option<f64>, OtlpError> {
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        sampler(ratio, &value).map(|sampler| {
            sampler.map(|sampler| match sampler {
                Sampler::AlwaysOn => 1.0,
                Sampler::TraceIdRatioBased(ratio) => ratio,
                other => panic!("{other:?}"),
            })
        })
    }

    #[test]
    fn nothing_is_sampled_unless_somebody_asks_for_it() {
        assert_eq!(sampled(None, &[]).unwrap(), None);
        assert_eq!(sampled(Some(0.0), &[("OTEL_TRACES_SAMPLER", "always_on")]).unwrap(), None);
        assert_eq!(sampled(None, &[("OTEL_TRACES_SAMPLER", "always_on")]).unwrap(), Some(1.0));
        let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
        assert_eq!(sampled(None, &ratio).unwrap(), Some(0.25));
        assert_eq!(sampled(Some(0.5), &ratio).unwrap(), Some(0.5));
        assert!(sampled(None, &[ratio[0], ("OTEL_TRACES_SAMPLER_ARG", "7")]).is_err());
        assert!(sampled(None, &[("OTEL_TRACES_SAMPLER", "now_and_then")]).is_err());
    }
}
