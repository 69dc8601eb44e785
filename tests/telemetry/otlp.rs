//! What arrives at a collector: names, units, boundaries, and values that are those of the link.

use std::collections::BTreeMap;
use std::time::Duration;

use longhaul::telemetry::table::{self, Kind};
use longhaul::telemetry::{Histograms, OtlpSettings, Protocol, Settings, Telemetry};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::collector::{self, Received};
use crate::pair::{PEER, Pair, until};

fn settings(endpoint: String, protocol: Protocol) -> Settings {
    let otlp = OtlpSettings {
        endpoint: Some(endpoint),
        protocol: Some(protocol),
        headers: vec![("x-tenant".to_owned(), "seven".to_owned())],
        interval: Some(Duration::from_millis(200)),
        ..OtlpSettings::default()
    };
    let resource = BTreeMap::from([("deployment.environment.name".to_owned(), "test".to_owned())]);
    Settings { resource, otlp: Some(otlp), ..Settings::default() }
}

const BYTES: usize = 3 << 20;

/// Exchanges some data and checks everything that can be said of it.
async fn check(scheme: &str, settings: &Settings, received: &Received) {
    let pair = Pair::new(scheme, settings).await;
    pair.exchange(BYTES).await;
    let peer = [("peer", PEER)];
    let sent = [("peer", PEER), ("direction", "transmit")];
    until("bytes", || received.value("longhaul.channel.io", &sent).filter(|bytes| *bytes >= BYTES as f64)).await;
    let got = [("peer", PEER), ("direction", "receive")];
    until("answers", || received.value("longhaul.channel.io", &got).filter(|bytes| *bytes >= BYTES as f64)).await;
    until("forward", || {
        let bytes = received.value("longhaul.forward.io", &[("service", "echo"), ("direction", "transmit")]);
        bytes.filter(|bytes| *bytes >= BYTES as f64)
    })
    .await;
    until("both channels", || received.value("longhaul.link.channel", &[("state", "active")]).filter(|n| *n == 2.0))
        .await;
    for name in ["longhaul.channel.rtt", "longhaul.stream.open.duration", "longhaul.forward.first_byte.duration"] {
        pair.busy_until(name, || received.histogram(name, &peer).iter().find(|point| point.count > 0).map(|_| ()))
            .await;
    }
    pair.busy_until("queueing", || received.histogram("longhaul.link.queue.delay", &peer).first().map(|_| ())).await;
    let handshake = [("side", "client"), ("transport", scheme), ("outcome", "ok")];
    until("handshake", || received.histogram("longhaul.handshake.duration", &handshake).first().map(|_| ())).await;
    until("join", || received.histogram("longhaul.join.duration", &handshake).first().map(|_| ())).await;
    assert_eq!(received.value("longhaul.link.session", &peer), Some(1.0));
    assert!(received.value("longhaul.channel.fragment", &sent).unwrap() >= 1.0);
    assert!(received.value("longhaul.certificate.expiry", &[]).unwrap() > 1.7e9);
    assert!(received.value("process.memory.usage", &[]).unwrap() > 1e6);
    check_form(received);
    assert_eq!(received.resource("service.name").as_deref(), Some("longhaul"));
    assert_eq!(received.resource("service.instance.id").as_deref(), Some("spiffe://test/node/a"));
    assert_eq!(received.resource("deployment.environment.name").as_deref(), Some("test"));
    assert_eq!(received.header("x-tenant").as_deref(), Some("seven"));
}

/// Every metric is in the table, as the table has it.
fn check_form(received: &Received) {
    for metric in received.metrics() {
        let instrument = table::find(&metric.name).unwrap_or_else(|| panic!("{} is not in the table", metric.name));
        assert_eq!(metric.unit, instrument.unit, "{}", metric.name);
        match metric.data.unwrap() {
            Data::Sum(sum) => {
                let is_counter = instrument.kind == Kind::Counter;
                assert!(is_counter || instrument.kind == Kind::UpDownCounter, "{}", metric.name);
                assert_eq!(sum.is_monotonic, is_counter, "{}", metric.name);
            }
            Data::Gauge(_) => assert_eq!(instrument.kind, Kind::Gauge, "{}", metric.name),
            Data::Histogram(histogram) => {
                for point in histogram.data_points {
                    assert_eq!(Some(&point.explicit_bounds[..]), instrument.kind.boundaries(), "{}", metric.name);
                    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count, "{}", metric.name);
                }
            }
            _ => panic!("{} has another form", metric.name),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_arrive_over_grpc() {
    let (endpoint, received) = collector::grpc().await;
    check("tcp", &settings(endpoint, Protocol::Grpc), &received).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_arrive_over_http() {
    let (endpoint, received) = collector::http().await;
    check("quic", &settings(endpoint, Protocol::HttpProtobuf), &received).await;
    let sent = [("transport", "quic")];
    until("QUIC's own round trips", || {
        received.histogram("longhaul.channel.transport.rtt", &sent).iter().find(|point| point.count > 0).map(|_| ())
    })
    .await;
    until("QUIC's packets", || received.value("longhaul.channel.transport.packet", &sent).filter(|n| *n > 0.0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histograms_find_their_own_buckets_when_asked_to() {
    let (endpoint, received) = collector::grpc().await;
    let settings = Settings { histograms: Histograms::Exponential, ..settings(endpoint, Protocol::Grpc) };
    let pair = Pair::new("tcp", &settings).await;
    pair.busy_until("an exponential histogram", || {
        let rtt = received.metrics().into_iter().find(|metric| metric.name == "longhaul.channel.rtt")?;
        assert!(matches!(rtt.data, Some(Data::ExponentialHistogram(_))), "{rtt:?}");
        Some(())
    })
    .await;
    let text = pair.telemetry.render_prometheus();
    assert!(text.contains("longhaul_channel_rtt_seconds_bucket{"), "the text has buckets all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boundaries_can_be_chosen() {
    let (endpoint, received) = collector::grpc().await;
    let histograms = Histograms::Explicit(Some(vec![0.001, 0.1]));
    let pair = Pair::new("tcp", &Settings { histograms, ..settings(endpoint, Protocol::Grpc) }).await;
    let point =
        pair.busy_until("round trips", || received.histogram("longhaul.channel.rtt", &[]).into_iter().next()).await;
    assert_eq!(point.explicit_bounds, [0.001, 0.1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_arrive_of_what_is_sampled() {
    let (endpoint, received) = collector::grpc().await;
    let settings = Settings { trace_ratio: Some(1.0), ..settings(endpoint.clone(), Protocol::Grpc) };
    let pair = Pair::new("tcp", &settings).await;
    pair.exchange(1000).await;
    // A second channel joins by itself.
    until("the join", || pair.telemetry.snapshot().links.first().filter(|link| link.channels.len() == 2).map(|_| ()))
        .await;
    assert!(pair.a.shutdown(Duration::from_secs(30)).await);
    pair.telemetry.shutdown().await;
    for name in ["handshake", "join", "stream open"] {
        let span = received.span(name).unwrap_or_else(|| panic!("there is no span {name}"));
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0, "{span:?}");
        assert_eq!(span.parent_span_id, b"", "a trace of its own");
    }
    let silent = Settings { trace_ratio: None, ..settings };
    let (endpoint, received) = collector::grpc().await;
    let otlp = silent.otlp.map(|otlp| OtlpSettings { endpoint: Some(endpoint), ..otlp });
    let pair = Pair::new("tcp", &Settings { otlp, ..Settings::default() }).await;
    pair.exchange(1000).await;
    assert!(pair.a.shutdown(Duration::from_secs(30)).await);
    pair.telemetry.shutdown().await;
    assert!(received.count() > 0 && received.span("handshake").is_none(), "nothing is sampled unless asked for");
}

/// The spans of a connection at both ends: those of the forward, and those of the service.
async fn spans_of_both(ratio_of_a: Option<f64>, ratio_of_b: Option<f64>) -> (Vec<Span>, Vec<Span>) {
    let (endpoint, at_a) = collector::grpc().await;
    let of_a = Settings { trace_ratio: ratio_of_a, ..settings(endpoint, Protocol::Grpc) };
    let (endpoint, at_b) = collector::grpc().await;
    let of_b = Settings { trace_ratio: ratio_of_b, ..settings(endpoint, Protocol::Grpc) };
    let telemetry = Telemetry::new("spiffe://test/node/b", &of_b).unwrap();
    let pair = Pair::with_peer("tcp", &of_a, Some(&telemetry)).await;
    pair.exchange(1000).await;
    pair.exchange(1000).await;
    assert!(pair.a.shutdown(Duration::from_secs(30)).await);
    pair.telemetry.shutdown().await;
    telemetry.shutdown().await;
    (at_a.spans("stream open"), at_b.spans("service connect"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_one_trace_at_both_ends() {
    let (opened, connected) = spans_of_both(Some(1.0), Some(1.0)).await;
    assert_eq!((opened.len(), connected.len()), (2, 2));
    assert_ne!(opened[0].trace_id, opened[1].trace_id, "each connection is a trace of its own");
    for span in opened {
        assert_eq!((span.trace_id.len(), span.span_id.len(), span.parent_span_id.len()), (16, 8, 0), "{span:?}");
        let below: Vec<_> = connected.iter().filter(|other| other.trace_id == span.trace_id).collect();
        assert_eq!(below.len(), 1, "{connected:?}");
        assert_eq!(below[0].parent_span_id, span.span_id, "the service's span is below the forward's");
        assert_ne!(below[0].span_id, span.span_id);
        assert!(below[0].end_time_unix_nano >= below[0].start_time_unix_nano);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_end_may_keep_out_of_a_trace() {
    let (opened, connected) = spans_of_both(None, Some(1.0)).await;
    assert!(opened.is_empty() && connected.is_empty(), "the forward's node decides what is sampled");
    let (opened, connected) = spans_of_both(Some(1.0), None).await;
    assert!(opened.len() == 2 && connected.is_empty(), "a node that sends no spans sends none for others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_values_arrive_when_a_node_ends() {
    let (endpoint, received) = collector::grpc().await;
    let mut settings = settings(endpoint, Protocol::Grpc);
    if let Some(otlp) = &mut settings.otlp {
        otlp.interval = Some(Duration::from_secs(3600));
    }
    let pair = Pair::new("tcp", &settings).await;
    pair.exchange(BYTES).await;
    assert!(pair.a.shutdown(Duration::from_secs(30)).await);
    pair.telemetry.shutdown().await;
    assert_eq!(received.count(), 1);
    let sent = [("peer", PEER), ("direction", "transmit")];
    let bytes = received.value("longhaul.channel.io", &sent).unwrap();
    assert!(bytes >= BYTES as f64, "{bytes}: what sessions sent until their end is counted");
    assert_eq!(received.value("longhaul.link.session.ended", &[("reason", "local")]), Some(1.0));
}
