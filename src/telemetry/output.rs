//! The instruments of the [table](super::table) in OpenTelemetry's SDK, once for each way out: a reader of its own, so
//! that each has its temporality and its sort of histograms.
//!
//! Histograms are recorded when something is measured; everything else is observed when the reader collects, from what
//! [`Output::collect`] was given.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    Aggregation, Instrument as SdkInstrument, InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Stream,
    Temporality,
};

use super::settings::Histograms;
use super::table::{INSTRUMENTS, Instrument, Kind};

/// A value of an instrument that is observed.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) attributes: Vec<KeyValue>,
    pub(super) value: f64,
}

/// All values that are observed, by instrument.
pub(super) type Points = HashMap<&'static str, Vec<Point>>;

/// One way out.
pub(super) struct Output {
    reader: Arc<ManualReader>,
    histograms: HashMap<&'static str, Histogram<f64>>,
    observed: Arc<Mutex<Points>>,
    /// One collection at a time: they share what is observed.
    collecting: Mutex<()>,
    /// Observed instruments live as long as their provider.
    _provider: SdkMeterProvider,
}

impl Output {
    pub(super) fn new(resource: Resource, temporality: Temporality, histograms: &Histograms) -> Self {
        let reader = Arc::new(ManualReader::builder().with_temporality(temporality).build());
        let mut builder = SdkMeterProvider::builder().with_resource(resource).with_reader(Shared(Arc::clone(&reader)));
        // More attribute sets than the table can have would show as overflow, which is what the limit is for.
        let is_exponential = matches!(histograms, Histograms::Exponential);
        builder = builder.with_view(move |instrument: &SdkInstrument| stream(instrument, is_exponential));
        let provider = builder.build();
        let meter = provider.meter("longhaul");
        let observed = Arc::<Mutex<Points>>::default();
        let mut recorded = HashMap::new();
        for instrument in INSTRUMENTS {
            match instrument.kind.boundaries() {
                Some(usual) => {
                    let boundaries = histograms.boundaries(instrument.kind).unwrap_or(usual).to_vec();
                    let histogram = meter
                        .f64_histogram(instrument.name)
                        .with_unit(instrument.unit)
                        .with_description(instrument.meaning)
                        .with_boundaries(boundaries);
                    recorded.insert(instrument.name, histogram.build());
                }
                None => observe(&meter, instrument, &observed),
            }
        }
        Self { reader, histograms: recorded, observed, collecting: Mutex::default(), _provider: provider }
    }

    /// Adds a value to a histogram of the table.
    pub(super) fn record(&self, name: &'static str, value: f64, attributes: &[KeyValue]) {
        if let Some(histogram) = self.histograms.get(name) {
            histogram.record(value, attributes);
        }
    }

    /// Everything that there is now, with these values of what is observed.
    pub(super) fn collect(&self, points: Points) -> Result<ResourceMetrics, opentelemetry_sdk::error::OTelSdkError> {
        let _turn = lock(&self.collecting);
        *lock(&self.observed) = points;
        let mut metrics = ResourceMetrics::default();
        let outcome = self.reader.collect(&mut metrics);
        lock(&self.observed).clear();
        outcome.map(|()| metrics)
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

/// How values of an instrument are put together, where that is not as usual.
fn stream(instrument: &SdkInstrument, is_exponential: bool) -> Option<Stream> {
    let mut stream = Stream::builder().with_cardinality_limit(SERIES_MAX);
    if is_exponential && instrument.kind() == InstrumentKind::Histogram {
        stream = stream.with_aggregation(Aggregation::Base2ExponentialHistogram {
            max_size: EXPONENTIAL_BUCKETS_MAX,
            max_scale: EXPONENTIAL_SCALE_MAX,
            record_min_max: true,
        });
    }
    stream.build().ok()
}

/// Makes an instrument that is observed.
fn observe(meter: &Meter, instrument: &'static Instrument, observed: &Arc<Mutex<Points>>) {
    let observed = Arc::clone(observed);
    let name = instrument.name;
    macro_rules! build {
        ($builder:ident, $convert:expr) => {{
            let callback = move |observer: &dyn AsyncInstrument<_>| {
                for point in lock(&observed).get(name).into_iter().flatten() {
                    observer.observe($convert(point.value), &point.attributes);
                }
            };
            let builder = meter.$builder(name).with_unit(instrument.unit).with_description(instrument.meaning);
            builder.with_callback(callback).build();
        }};
    }
    let same = |value: f64| value;
    match (instrument.kind, instrument.is_whole()) {
        (Kind::Counter, true) => build!(u64_observable_counter, |value: f64| value as u64),
        (Kind::Counter, false) => build!(f64_observable_counter, same),
        (Kind::UpDownCounter, _) => build!(i64_observable_up_down_counter, |value: f64| value as i64),
        (Kind::Gauge, true) => build!(u64_observable_gauge, |value: f64| value as u64),
        (Kind::Gauge, false) => build!(f64_observable_gauge, same),
        (Kind::Seconds | Kind::OutageSeconds | Kind::Ratio, _) => {}
    }
}

/// A reader that stays ours when the provider has it, too.
#[derive(Debug)]
struct Shared(Arc<ManualReader>);

impl MetricReader for Shared {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attribute sets of one instrument, beyond which the SDK shows the rest as one: channels of some hundred links, in
/// both directions and all windows.
const SERIES_MAX: usize = 20_000;

/// The specification's own choice, which keeps the error below 5 % over the range of times that links have.
const EXPONENTIAL_BUCKETS_MAX: u32 = 160;

/// The specification's own choice.
const EXPONENTIAL_SCALE_MAX: i8 = 20;
