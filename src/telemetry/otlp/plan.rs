//! Where metrics and traces go and how, from the settings and from OpenTelemetry's variables.
//!
//! What the settings say counts; what they leave open is taken from the variables of the signal, then from those of all
//! signals, then it is as the specification has it.

use std::time::Duration;

use opentelemetry_otlp::Compression;
use opentelemetry_sdk::metrics::Temporality;

use super::OtlpError;
use crate::telemetry::settings::{OtlpSettings, Protocol};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Signal {
    Metrics,
    Traces,
    Logs,
}

impl Signal {
    /// The word for it in metrics.
    pub(in crate::telemetry) fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Traces => "traces",
            Self::Logs => "logs",
        }
    }

    fn variable_part(self) -> &'static str {
        match self {
            Self::Metrics => "METRICS",
            Self::Traces => "TRACES",
            Self::Logs => "LOGS",
        }
    }
}

/// Gives the values of variables.
pub(in crate::telemetry) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where a signal goes, and how.
#[derive(Clone, PartialEq)]
pub(in crate::telemetry) struct Plan {
    pub(super) protocol: Protocol,
    /// With the signal's path for HTTP.
    pub(super) endpoint: http::Uri,
    pub(super) headers: Vec<(String, String)>,
    pub(super) compression: Option<Compression>,
    pub(super) timeout: Duration,
    /// PEM of authorities in place of the system's.
    pub(super) certificate_authorities: Option<Vec<u8>>,
    pub(super) client_identity: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) interval: Duration,
    pub(super) temporality: Temporality,
    /// Histograms find their own buckets.
    pub(in crate::telemetry) is_exponential: bool,
}

impl Plan {
    /// `None`: the signal is not sent.
    pub(in crate::telemetry) fn new(
        signal: Signal,
        settings: Option<&OtlpSettings>,
        variables: Variables<'_>,
    ) -> Result<Option<Self>, OtlpError> {
        let read = |name: &str| variables(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let of_signal = |what: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.variable_part());
            read(&own).or_else(|| read(&format!("OTEL_EXPORTER_OTLP_{what}")))
        };
        let exporter = read(&format!("OTEL_{}_EXPORTER", signal.variable_part()));
        let is_disabled = read("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let is_wanted = settings.is_some() || of_signal("ENDPOINT").is_some() || exporter.as_deref() == Some("otlp");
        if is_disabled || !is_wanted || exporter.as_deref() == Some("none") {
            return Ok(None);
        }
        let unset = OtlpSettings::default();
        let settings = settings.unwrap_or(&unset);
        let protocol = match (settings.protocol, of_signal("PROTOCOL").as_deref()) {
            (Some(protocol), _) => protocol,
            (None, Some("grpc")) => Protocol::Grpc,
            (None, Some("http/protobuf") | None) => Protocol::HttpProtobuf,
            (None, Some(other)) => {
                return Err(OtlpError::Variable { name: "OTEL_EXPORTER_OTLP_PROTOCOL", value: other.to_owned() });
            }
        };
        let insecure = of_signal("INSECURE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let own_endpoint = read(&format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.variable_part()));
        let endpoint =
            endpoint(signal, protocol, settings.endpoint.clone(), own_endpoint, of_signal("ENDPOINT"), insecure)?;
        let mut headers = settings.headers.clone();
        if headers.is_empty() {
            headers = of_signal("HEADERS").map(|text| parse_headers(&text)).unwrap_or_default();
        }
        let compression = match of_signal("COMPRESSION").as_deref() {
            Some("gzip") => Some(Compression::Gzip),
            None | Some("none") => None,
            Some(other) => {
                return Err(OtlpError::Variable { name: "OTEL_EXPORTER_OTLP_COMPRESSION", value: other.to_owned() });
            }
        };
        let file = |what: &str| of_signal(what).map(read_file).transpose();
        let client_identity = match &settings.client_identity {
            Some(identity) => Some(identity.clone()),
            None => file("CLIENT_CERTIFICATE")?.zip(file("CLIENT_KEY")?),
        };
        let certificate_authorities = match &settings.certificate_authorities {
            Some(pem) => Some(pem.clone()),
            None => file("CERTIFICATE")?,
        };
        let milliseconds = |name: &'static str| read(name).map(|value| parse_milliseconds(name, &value)).transpose();
        let export_timeout = match signal {
            Signal::Metrics => milliseconds("OTEL_METRIC_EXPORT_TIMEOUT")?,
            Signal::Traces => milliseconds("OTEL_BSP_EXPORT_TIMEOUT")?,
            Signal::Logs => milliseconds("OTEL_BLRP_EXPORT_TIMEOUT")?,
        };
        let of_exporter = of_signal("TIMEOUT");
        let of_exporter =
            of_exporter.map(|value| parse_milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT", &value)).transpose()?;
        let timeout = settings.timeout.or(of_exporter).or(export_timeout).unwrap_or(TIMEOUT);
        let interval = match signal {
            Signal::Metrics => settings.interval.or(milliseconds("OTEL_METRIC_EXPORT_INTERVAL")?).unwrap_or(INTERVAL),
            Signal::Traces => milliseconds("OTEL_BSP_SCHEDULE_DELAY")?.unwrap_or(SPAN_INTERVAL),
            Signal::Logs => milliseconds("OTEL_BLRP_SCHEDULE_DELAY")?.unwrap_or(LOG_INTERVAL),
        };
        let temporality = match (settings.temporality, read("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE")) {
            (Some(temporality), _) => temporality,
            (None, Some(value)) => {
                let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
                value.parse().map_err(|_| OtlpError::Variable { name, value })?
            }
            (None, None) => Temporality::Cumulative,
        };
        let aggregation = read("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION");
        Ok(Some(Self {
            protocol,
            endpoint,
            headers,
            compression,
            timeout,
            certificate_authorities,
            client_identity,
            interval: interval.max(INTERVAL_MIN),
            temporality,
            is_exponential: aggregation.as_deref() == Some("base2_exponential_bucket_histogram"),
        }))
    }

    /// Whether the way there is encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.endpoint.scheme_str() == Some("https")
    }
}

/// The whole address of the collector, with the path of the signal where the protocol has one.
fn endpoint(
    signal: Signal,
    protocol: Protocol,
    chosen: Option<String>,
    own: Option<String>,
    common: Option<String>,
    is_insecure: bool,
) -> Result<http::Uri, OtlpError> {
    // The variable of the signal is taken as it is (specification of the exporter, "Endpoint URLs for OTLP/HTTP").
    let is_whole = chosen.is_none() && own.is_some();
    let usual = match protocol {
        Protocol::Grpc => "http://localhost:4317",
        Protocol::HttpProtobuf => "http://localhost:4318",
    };
    let mut text = chosen.or(own).or(common).unwrap_or_else(|| usual.to_owned());
    if !text.contains("://") && protocol == Protocol::Grpc {
        text.insert_str(0, if is_insecure { "http://" } else { "https://" });
    }
    let wrong = || OtlpError::Endpoint(text.clone());
    let parsed: http::Uri = text.parse().map_err(|_| wrong())?;
    if !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.host().is_none() {
        return Err(wrong());
    }
    if is_whole || protocol == Protocol::Grpc {
        return Ok(parsed);
    }
    let path = match signal {
        Signal::Metrics => "v1/metrics",
        Signal::Traces => "v1/traces",
        Signal::Logs => "v1/logs",
    };
    format!("{}/{path}", text.trim_end_matches('/')).parse().map_err(|_| wrong())
}

/// `key=value` pairs with commas between, values percent-encoded (W3C Baggage).
fn parse_headers(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let pair = |(name, value): (&str, &str)| (name.trim().to_lowercase(), decode(value.trim()));
    pairs.map(pair).filter(|(name, _)| !name.is_empty()).collect()
}

/// Undoes percent-encoding; what is none stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn parse_milliseconds(name: &'static str, value: &str) -> Result<Duration, OtlpError> {
    let milliseconds = value.parse().map_err(|_| OtlpError::Variable { name, value: value.to_owned() })?;
    Ok(Duration::from_millis(milliseconds))
}

fn read_file(path: String) -> Result<Vec<u8>, OtlpError> {
    std::fs::read(&path).map_err(|error| OtlpError::File { path, reason: error.to_string() })
}

/// Specification of the exporter.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Specification of the periodic reader.
const INTERVAL: Duration = Duration::from_secs(60);

/// Collecting takes about a millisecond: below this it would be felt.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Specification of the batch span processor.
const SPAN_INTERVAL: Duration = Duration::from_secs(5);

/// Specification of the batch log record processor.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(settings: Option<&OtlpSettings>, variables: &[(&str, &str)]) -> Result<Option<Plan>, OtlpError> {
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Plan::new(Signal::Metrics, settings, &value)
    }

    fn planned(settings: Option<&OtlpSettings>, variables: &[(&str, &str)]) -> Plan {
        plan(settings, variables).ok().flatten().expect("it is sent")
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    #[test]
    fn nothing_is_sent_unless_somebody_asks_for_it() {
        assert!(plan(None, &[]).unwrap().is_none());
        assert!(plan(None, &[ENDPOINT]).unwrap().is_some());
        assert!(plan(None, &[("OTEL_METRICS_EXPORTER", "otlp")]).unwrap().is_some());
        assert!(plan(Some(&OtlpSettings::default()), &[]).unwrap().is_some());
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_METRICS_EXPORTER", "none")] {
            assert!(plan(Some(&OtlpSettings::default()), &[ENDPOINT, off]).unwrap().is_none(), "{off:?}");
        }
    }

    #[test]
    fn http_has_a_path_for_each_signal_and_grpc_none() {
        assert_eq!(planned(None, &[ENDPOINT]).endpoint, "http://collector:4318/v1/metrics");
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        assert_eq!(planned(None, &[ENDPOINT, grpc]).endpoint, "http://collector:4318");
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://other/as/it/is");
        assert_eq!(planned(None, &[ENDPOINT, own]).endpoint, "https://other/as/it/is");
        assert!(planned(None, &[ENDPOINT, own]).is_tls());
        let settings = OtlpSettings { endpoint: Some("http://chosen:1/".to_owned()), ..OtlpSettings::default() };
        assert_eq!(planned(Some(&settings), &[ENDPOINT, own]).endpoint, "http://chosen:1/v1/metrics");
        let otlp = ("OTEL_METRICS_EXPORTER", "otlp");
        assert_eq!(planned(None, &[otlp]).endpoint, "http://localhost:4318/v1/metrics");
        assert_eq!(planned(None, &[otlp, grpc]).endpoint, "http://localhost:4317");
    }

    #[test]
    fn grpc_without_a_scheme_is_encrypted_unless_told_otherwise() {
        let bare = [("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        assert!(planned(None, &bare).is_tls());
        let insecure = [bare[0], bare[1], ("OTEL_EXPORTER_OTLP_INSECURE", "true")];
        assert!(!planned(None, &insecure).is_tls());
    }

    #[test]
    fn settings_come_before_variables_and_these_before_what_is_usual() {
        let variables = [
            ENDPOINT,
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "7000"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=se%2Ccret, X-Other = b"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"),
        ];
        let found = planned(None, &variables);
        assert_eq!((found.interval, found.timeout), (Duration::from_secs(5), Duration::from_secs(7)));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(found.headers, [pair("api-key", "se,cret"), pair("x-other", "b")]);
        assert_eq!((found.compression, found.temporality), (Some(Compression::Gzip), Temporality::Delta));
        assert!(found.is_exponential);
        let settings = OtlpSettings {
            interval: Some(Duration::from_secs(9)),
            headers: vec![pair("mine", "1")],
            temporality: Some(Temporality::Cumulative),
            protocol: Some(Protocol::Grpc),
            ..OtlpSettings::default()
        };
        let found = planned(Some(&settings), &variables);
        assert_eq!((found.interval, found.headers), (Duration::from_secs(9), vec![pair("mine", "1")]));
        assert_eq!((found.temporality, found.protocol), (Temporality::Cumulative, Protocol::Grpc));
        let usual = planned(None, &[ENDPOINT]);
        assert_eq!((usual.interval, usual.timeout), (Duration::from_secs(60), Duration::from_secs(10)));
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        for wrong in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sometimes"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "ftp://collector"),
        ] {
            assert!(plan(None, &[ENDPOINT, wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn percent_signs_that_encode_nothing_stay() {
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%41%4"), "%zzA%4");
        assert_eq!(decode("ä%20ö"), "ä ö");
    }
}
