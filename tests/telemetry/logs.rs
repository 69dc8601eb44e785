//! Log events at a collector: those of the real program, and those that belong to a trace. Those of exporters never.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::telemetry::{LogTap, OtlpSettings, Protocol, Settings, Telemetry};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use tokio::process::Command;
use tracing_subscriber::prelude::*;

use crate::collector::{self, Received, attribute};
use crate::pair::{Pair, soon, until};

fn message(record: &LogRecord) -> Option<&str> {
    match record.body.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn found(received: &Received, wanted: &str) -> Option<LogRecord> {
    received.logs().into_iter().map(|(_, record)| record).find(|record| message(record) == Some(wanted))
}

fn settings(endpoint: &str, protocol: Protocol) -> Settings {
    let otlp = OtlpSettings {
        endpoint: Some(endpoint.to_owned()),
        protocol: Some(protocol),
        interval: Some(Duration::from_secs(3600)),
        ..OtlpSettings::default()
    };
    Settings { otlp: Some(otlp), logs: true, ..Settings::default() }
}

#[tokio::test]
async fn events_arrive_with_their_fields_and_their_trace() {
    for is_grpc in [true, false] {
        let (endpoint, received) = if is_grpc { collector::grpc().await } else { collector::http().await };
        let protocol = if is_grpc { Protocol::Grpc } else { Protocol::HttpProtobuf };
        let tap = LogTap::default();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(tap.layer()));
        tracing::warn!("nobody listens yet");
        let telemetry = Telemetry::new("spiffe://test/node/a", &settings(&endpoint, protocol)).unwrap();
        telemetry.take_logs(&tap);
        let traceparent = "00-000102030405060708090a0b0c0d0e0f-1011121314151617-01";
        tracing::warn!(answer = 42, is_odd = false, traceparent, "it happened");
        tracing::error!(target: "h2::client", "an exporter's own");
        telemetry.shutdown().await;
        let record = found(&received, "it happened").unwrap();
        assert_eq!((record.severity_text.as_str(), record.severity_number), ("WARN", 13));
        assert_eq!(attribute(&record.attributes, "answer").as_deref(), Some("42"));
        assert_eq!(attribute(&record.attributes, "is_odd").as_deref(), Some("false"));
        assert_eq!(record.trace_id, (0..16).collect::<Vec<u8>>());
        assert_eq!((record.span_id, record.flags), ((16..24).collect::<Vec<u8>>(), 1));
        assert!(record.time_unix_nano > 0);
        assert!(found(&received, "nobody listens yet").is_none() && found(&received, "an exporter's own").is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_sends_its_log_and_nothing_about_the_sending() {
    let folder = tempfile::tempdir().unwrap();
    let validity = Validity::from_now(Duration::from_secs(600));
    let authority = CertificateAuthority::generate("test", KeyType::P256, validity).unwrap();
    let issued = authority.issue_node("a", KeyType::P256, Validity::from_now(Duration::from_secs(300))).unwrap();
    let write = |name: &str, text: &str| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.path().join(name));
        std::io::Write::write_all(file.as_mut().unwrap(), text.as_bytes()).unwrap();
    };
    write("ca.crt", authority.certificate_pem());
    write("a.crt", &issued.certificate_pem);
    write("a.key", &issued.key_pem);
    let (endpoint, received) = collector::grpc().await;
    let identity = "certificate = \"a.crt\"\nkey = \"a.key\"\ntrust_anchors = \"ca.crt\"\n";
    let telemetry = format!("otlp_endpoint = \"{endpoint}\"\notlp_protocol = \"grpc\"\nlogs = true\n");
    let listen = "[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n";
    write("a.toml", &format!("[log]\nfilter = \"trace\"\n[identity]\n{identity}[telemetry]\n{telemetry}{listen}"));
    let mut program = Command::new(env!("CARGO_BIN_EXE_longhaul"))
        .args(["run", "-c"])
        .arg(folder.path().join("a.toml"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("the log", || found(&received, "ready")).await;
    // What sending the first events has caused would be in the next ones.
    let id = rustix::process::Pid::from_raw(program.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(soon(program.wait()).await.unwrap().code(), Some(0));
    assert!(found(&received, "shutting down").is_some(), "what was logged to the end arrives");
    let logs = received.logs();
    let wrong =
        logs.iter().find(|(target, _)| ["h2", "hyper", "tonic", "tower"].iter().any(|of| target.starts_with(of)));
    assert!(wrong.is_none() && logs.len() < 500, "{} events: {wrong:?}", logs.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_stay_here_unless_somebody_asks_for_them() {
    let (endpoint, received) = collector::grpc().await;
    let tap = LogTap::default();
    let settings = Settings { logs: false, ..settings(&endpoint, Protocol::Grpc) };
    let pair = Pair::new("tcp", &settings).await;
    pair.telemetry.take_logs(&tap);
    let subscriber = tracing_subscriber::registry().with(tap.layer());
    tracing::subscriber::with_default(subscriber, || tracing::error!("it happened"));
    assert!(pair.a.shutdown(Duration::from_secs(30)).await);
    pair.telemetry.shutdown().await;
    assert!(received.count() > 0 && received.logs().is_empty());
}
