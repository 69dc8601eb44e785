//! The text that Prometheus reads (exposition format 0.0.4), from what OpenTelemetry's SDK collected.
//!
//! Names are those of OpenTelemetry's compatibility specification: dots become underscores, units are spelled out,
//! counters end in `_total`, and the resource is in `target_info`.

use std::fmt::Write;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics, ScopeMetrics};

/// The `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes everything that was collected.
#[must_use]
pub(super) fn render(metrics: &ResourceMetrics) -> String {
    let mut text = String::new();
    write_target(&mut text, metrics.resource());
    for metric in metrics.scope_metrics().flat_map(ScopeMetrics::metrics) {
        match metric.data() {
            AggregatedMetrics::F64(data) => write_metric(&mut text, metric, data),
            AggregatedMetrics::U64(data) => write_metric(&mut text, metric, data),
            AggregatedMetrics::I64(data) => write_metric(&mut text, metric, data),
        }
    }
    text
}

fn write_target(text: &mut String, resource: &Resource) {
    let mut attributes: Vec<_> =
        resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    attributes.sort_by(|one, other| one.key.cmp(&other.key));
    write_head(text, "target_info", "gauge", "What the node is");
    write_line(text, "target_info", &labels(attributes.iter(), None), 1);
}

fn write_metric<T: Copy + std::fmt::Display>(text: &mut String, metric: &Metric, data: &MetricData<T>) {
    let base = base_name(metric.name(), metric.unit());
    match data {
        MetricData::Gauge(gauge) => {
            let name = if metric.unit() == "1" { with_suffix(&base, "_ratio") } else { base };
            write_head(text, &name, "gauge", metric.description());
            for point in gauge.data_points() {
                write_line(text, &name, &labels(point.attributes(), None), point.value());
            }
        }
        MetricData::Sum(sum) => {
            let (name, kind) =
                if sum.is_monotonic() { (with_suffix(&base, "_total"), "counter") } else { (base, "gauge") };
            write_head(text, &name, kind, metric.description());
            for point in sum.data_points() {
                write_line(text, &name, &labels(point.attributes(), None), point.value());
            }
        }
        MetricData::Histogram(histogram) => {
            write_head(text, &base, "histogram", metric.description());
            let bucket = format!("{base}_bucket");
            for point in histogram.data_points() {
                let mut total = 0;
                for (count, bound) in point.bucket_counts().zip(point.bounds()) {
                    total += count;
                    write_line(text, &bucket, &labels(point.attributes(), Some(&bound.to_string())), total);
                }
                write_line(text, &bucket, &labels(point.attributes(), Some("+Inf")), point.count());
                write_line(text, &format!("{base}_sum"), &labels(point.attributes(), None), point.sum());
                write_line(text, &format!("{base}_count"), &labels(point.attributes(), None), point.count());
            }
        }
        // Their buckets change as they grow, for which the text has no form. The reader of the text makes none.
        MetricData::ExponentialHistogram(_) => {}
    }
}

fn write_head(text: &mut String, name: &str, kind: &str, help: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn write_line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name}{labels} {value}");
}

fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>, boundary: Option<&str>) -> String {
    let mut pairs: Vec<_> = attributes
        .map(|attribute| format!("{}=\"{}\"", legal(attribute.key.as_str()), escaped(&attribute.value.as_str())))
        .collect();
    // The SDK gives them in whatever order; a series should look the same each time.
    pairs.sort();
    pairs.extend(boundary.map(|boundary| format!("le=\"{boundary}\"")));
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The name with its unit, without what depends on the kind.
pub(super) fn base_name(name: &str, unit: &str) -> String {
    let name = legal(name);
    match unit_suffix(unit) {
        Some(suffix) => with_suffix(&name, suffix),
        None => name,
    }
}

fn unit_suffix(unit: &str) -> Option<&'static str> {
    match unit {
        "s" => Some("_seconds"),
        "By" => Some("_bytes"),
        "By/s" => Some("_bytes_per_second"),
        _ => None,
    }
}

fn with_suffix(name: &str, suffix: &str) -> String {
    if name.ends_with(suffix) { name.to_owned() } else { format!("{name}{suffix}") }
}

/// Letters, digits and underscores, no digit first.
fn legal(name: &str) -> String {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name: String = name.chars().map(|c| if is_legal(c) { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::metrics::Temporality;

    use super::super::output::{Output, Point, Points};
    use super::super::settings::Histograms;
    use super::*;

    fn text(points: Points, record: impl FnOnce(&Output)) -> String {
        let resource = Resource::builder_empty().with_attribute(KeyValue::new("service.name", "longhaul")).build();
        let output = Output::new(resource, Temporality::Cumulative, &Histograms::default());
        record(&output);
        render(&output.collect(points).unwrap())
    }

    #[test]
    fn names_have_their_units_and_kinds() {
        assert_eq!(base_name("longhaul.channel.io", "By"), "longhaul_channel_io_bytes");
        assert_eq!(base_name("longhaul.channel.packet", "{packet}"), "longhaul_channel_packet");
        assert_eq!(base_name("longhaul.link.bandwidth", "By/s"), "longhaul_link_bandwidth_bytes_per_second");
        assert_eq!(base_name("1st.thing", "1"), "_1st_thing");
    }

    #[test]
    fn values_are_written_with_escaped_labels() {
        let attributes = vec![KeyValue::new("peer", "a\"b\\c\nd"), KeyValue::new("direction", "transmit")];
        let points = Points::from([
            ("longhaul.channel.io", vec![Point { attributes: attributes.clone(), value: 12.0 }]),
            ("longhaul.link.padding", vec![Point { attributes: vec![], value: 0.25 }]),
            ("longhaul.link.session", vec![Point { attributes: vec![], value: 2.0 }]),
        ]);
        let text = text(points, |_| {});
        for line in [
            "target_info{service_name=\"longhaul\"} 1",
            "# TYPE longhaul_channel_io_bytes_total counter",
            "longhaul_channel_io_bytes_total{direction=\"transmit\",peer=\"a\\\"b\\\\c\\nd\"} 12",
            "# TYPE longhaul_link_padding_ratio gauge",
            "longhaul_link_padding_ratio 0.25",
            "# TYPE longhaul_link_session gauge",
            "longhaul_link_session 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn histograms_are_cumulative_and_have_the_boundaries() {
        let text = text(Points::default(), |output| {
            for value in [0.0004, 0.015, 0.016, 7.0] {
                output.record("longhaul.channel.rtt", value, &[KeyValue::new("peer", "b")]);
            }
        });
        let name = "longhaul_channel_rtt_seconds";
        for line in [
            format!("# TYPE {name} histogram"),
            format!("{name}_bucket{{peer=\"b\",le=\"0.0005\"}} 1"),
            format!("{name}_bucket{{peer=\"b\",le=\"0.015\"}} 2"),
            format!("{name}_bucket{{peer=\"b\",le=\"0.03\"}} 3"),
            format!("{name}_bucket{{peer=\"b\",le=\"2\"}} 3"),
            format!("{name}_bucket{{peer=\"b\",le=\"+Inf\"}} 4"),
            format!("{name}_count{{peer=\"b\"}} 4"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert_eq!(text.matches("_bucket{peer=\"b\"").count(), 25);
    }

    #[test]
    fn what_is_not_observed_any_more_is_gone() {
        let output = Output::new(Resource::builder_empty().build(), Temporality::Cumulative, &Histograms::default());
        let point = Point { attributes: vec![], value: 1.0 };
        let points = Points::from([("longhaul.link.latency", vec![point])]);
        assert!(render(&output.collect(points).unwrap()).contains("longhaul_link_latency_seconds 1"));
        assert!(!render(&output.collect(Points::default()).unwrap()).contains("longhaul_link_latency_seconds 1"));
    }
}
