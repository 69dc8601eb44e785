//! A collector that is dead, or says nothing, costs a link nothing, and is counted.

use std::time::Duration;

use longhaul::telemetry::{OtlpSettings, Protocol, Settings};
use tokio::net::TcpListener;

use crate::pair::{Pair, until};

fn settings(endpoint: String, protocol: Protocol) -> Settings {
    let otlp = OtlpSettings {
        endpoint: Some(endpoint),
        protocol: Some(protocol),
        interval: Some(Duration::from_millis(100)),
        timeout: Some(Duration::from_millis(200)),
        ..OtlpSettings::default()
    };
    Settings { otlp: Some(otlp), ..Settings::default() }
}

/// Failed exports, as the text has them.
fn failed(pair: &Pair) -> Option<u64> {
    let text = pair.telemetry.render_prometheus();
    let line = text
        .lines()
        .find(|line| line.starts_with("longhaul_telemetry_export_total{outcome=\"failed\",signal=\"metrics\"}"));
    line?.rsplit_once(' ')?.1.parse().ok()
}

async fn check(endpoint: String, protocol: Protocol) {
    let pair = Pair::new("tcp", &settings(endpoint, protocol)).await;
    pair.exchange(1 << 20).await;
    until("failed exports", || failed(&pair).filter(|count| *count >= 3)).await;
    pair.exchange(1 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_is_counted() {
    // Bound and closed again: nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    check(endpoint.clone(), Protocol::Grpc).await;
    check(endpoint, Protocol::HttpProtobuf).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    check(endpoint.clone(), Protocol::Grpc).await;
    check(endpoint, Protocol::HttpProtobuf).await;
}
