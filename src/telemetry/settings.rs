//! What can be chosen. What is not chosen here is taken from OpenTelemetry's `OTEL_*` variables, and is as usual when
//! those say nothing either.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry_sdk::metrics::Temporality;

use super::table::Kind;

/// What can be chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Attributes of the node that all metrics have.
    pub resource: BTreeMap<String, String>,
    /// Sort and boundaries of histograms.
    pub histograms: Histograms,
    /// Where metrics and traces are sent, if anywhere. Variables may say so, too.
    pub otlp: Option<OtlpSettings>,
    /// Share of handshakes, joins and streams that are traced, 0 to 1. Variables may say so, too; else none are.
    pub trace_ratio: Option<f64>,
    /// Whether log events are sent, too. The variable `OTEL_LOGS_EXPORTER` may say so; else they are not.
    pub logs: bool,
}

/// Sort and boundaries of histograms.
#[derive(Clone, Debug, PartialEq)]
pub enum Histograms {
    /// Buckets with these boundaries of times, in seconds; the usual ones when there are none.
    Explicit(Option<Vec<f64>>),
    /// Buckets that find their own size, where they can be sent: by OTLP. `/metrics` has the usual ones.
    Exponential,
}

impl Default for Histograms {
    fn default() -> Self {
        Self::Explicit(None)
    }
}

impl Histograms {
    /// The boundaries for a kind of histogram, if they were chosen.
    pub(super) fn boundaries(&self, kind: Kind) -> Option<&[f64]> {
        match self {
            Self::Explicit(Some(boundaries)) if kind == Kind::Seconds => Some(boundaries),
            Self::Explicit(_) | Self::Exponential => None,
        }
    }
}

/// How an exporter talks to its collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP as protobuf over HTTP.
    HttpProtobuf,
}

/// Where metrics and traces are sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OtlpSettings {
    /// The collector: `http://` or `https://`, host and port.
    pub endpoint: Option<String>,
    /// How to talk to it.
    pub protocol: Option<Protocol>,
    /// Headers of each request, as for a token.
    pub headers: Vec<(String, String)>,
    /// PEM of the authorities that may have issued the collector's certificate, in place of the system's.
    pub certificate_authorities: Option<Vec<u8>>,
    /// PEM of a certificate and its key by which the collector knows the node.
    pub client_identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Time between two exports.
    pub interval: Option<Duration>,
    /// Time for an export.
    pub timeout: Option<Duration>,
    /// Whether counts are those since the start, or those since the last export.
    pub temporality: Option<Temporality>,
}
