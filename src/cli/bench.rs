//! `longhaul bench`: what a session carries here, or to a peer.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::error::CliError;
use crate::base::CloseCode;
use crate::channel::{Address, ListenOptions};
use crate::config::Config;
use crate::crypto::identity::{Identity, NodeId, TlsSettings, TrustAnchors, default_provider};
use crate::issue::{CertificateAuthority, KeyType, Validity};
use crate::node::{Link, LinkConfig, Node, Session};
use crate::service::bench::{self, Latency, Throughput, Workload};
use crate::session::scheduler::Policy;
use crate::wire::PaddingPolicy;

/// Measures throughput, small messages, latency and new streams over a session.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// A peer of the configuration's links, which offers a service with the target "bench:"; without one, two nodes of
    /// this process
    #[arg(requires = "config")]
    peer: Option<String>,
    /// Configuration file with the identity and the link to the peer
    #[arg(short, long, value_name = "FILE", requires = "peer")]
    config: Option<std::path::PathBuf>,
    /// Name of the peer's service
    #[arg(long, default_value = "bench", requires = "peer")]
    service: String,
    /// Which channels carry the session
    #[arg(long, value_enum, default_value_t = Kind::Tcp)]
    kind: Kind,
    /// How many channels
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=15))]
    channels: u32,
    /// How many streams send at once in the throughput test
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    streams: u32,
    /// Seconds of each test
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    secs: f64,
    /// Bytes of each write in the throughput test
    #[arg(long, default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    size: u32,
    /// Bytes of the small messages
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    message_size: u32,
    /// Run these tests only
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Test>,
    /// Sizes that packets are padded to
    #[arg(long, default_value = "block-32")]
    padding: PaddingPolicy,
    /// Which channel carries the next packet
    #[arg(long, default_value = "lowest-latency")]
    scheduler: Policy,
    /// Print JSON, one object with all results
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Tcp,
    Tls,
    Quic,
    Unix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Test {
    Throughput,
    Messages,
    Latency,
    Opens,
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::Runtime(error.into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("expected 0.1 to 3600 seconds".to_owned()) }
}

pub(super) fn run(args: Args) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(measure(args))
}

async fn measure(args: Args) -> Result<(), CliError> {
    if let (Some(peer), Some(file)) = (&args.peer, &args.config) {
        let (node, link, session) = dial(peer, file).await?;
        let outcome = report(&args, &session, Workload::service(session.clone(), &args.service)).await;
        drop(link);
        node.close(CloseCode::NO_ERROR, "benchmark is over").await;
        return outcome;
    }
    let folder = std::env::temp_dir().join(format!("longhaul-bench-{}", std::process::id()));
    let address: Address = match args.kind {
        Kind::Tcp => "tcp://127.0.0.1:0".to_owned(),
        Kind::Tls => "tls://127.0.0.1:0".to_owned(),
        Kind::Quic => "quic://127.0.0.1:0".to_owned(),
        Kind::Unix => {
            std::fs::create_dir_all(&folder).map_err(failed)?;
            format!("unix://{}/bench.sock", folder.display())
        }
    }
    .parse()
    .map_err(failed)?;
    let pair = connect(&args, address).await;
    let result = match pair {
        Ok(pair) => report(&args, &pair.session, Workload::direct(pair.session.clone())).await,
        Err(error) => Err(error),
    };
    if matches!(args.kind, Kind::Unix) {
        // Only a folder of ours; what cannot be removed is not worth an error after the results.
        let _ = std::fs::remove_dir_all(&folder);
    }
    result
}

/// Dials a peer as the configuration says, as this node.
async fn dial(peer: &str, file: &std::path::Path) -> Result<(Node, Link, Session), CliError> {
    let provider = default_provider();
    let config = Config::load(file, &provider).map_err(|error| CliError::Config(Box::new(error)))?;
    let own = config.identity.identity.node_id();
    let id = own.relative(peer).map_err(|error| CliError::Usage(error.to_string()))?;
    let link = config.links.into_iter().find(|link| link.peer == id);
    let link = link.ok_or_else(|| CliError::Usage(format!("{} has no link to {id}", file.display())))?;
    let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let settings = config.identity.tls_settings(provider, time).map_err(failed)?;
    let node = Node::builder(settings).build().await.map_err(failed)?;
    let connected = node.connect(super::run::settings::link(link)).await;
    let (link, session) = connected.map_err(|error| {
        let message = format!("{id} cannot be reached: {error}");
        if error.is_refusal() { CliError::Refused(message) } else { CliError::Unreachable(message) }
    })?;
    Ok((node, link, session))
}

/// Two nodes of this process, and the session between them.
struct Local {
    session: Session,
    _link: Link,
    _nodes: [Node; 2],
}

async fn connect(args: &Args, address: Address) -> Result<Local, CliError> {
    let validity = Validity::from_now(Duration::from_secs(24 * 3600));
    let authority = CertificateAuthority::generate("bench", KeyType::P256, validity).map_err(failed)?;
    let b = Node::builder(settings(&authority, "b", validity)?)
        .listen(address, ListenOptions::default())
        .build()
        .await
        .map_err(failed)?;
    let a = Node::builder(settings(&authority, "a", validity)?).build().await.map_err(failed)?;
    let peer = NodeId::new("bench", "b").map_err(failed)?;
    let mut config = LinkConfig::new(peer, b.local_addresses().iter().cloned());
    config.addresses[0].count = args.channels;
    config.session.padding = args.padding;
    config.session.scheduler = args.scheduler;
    let (link, session) = a.connect(config).await.map_err(failed)?;
    let accepted = b.accept().await.ok_or_else(|| CliError::Runtime(anyhow::anyhow!("node stopped")))?;
    tokio::spawn(bench::serve(accepted));
    while session.stats().lanes.len() < args.channels as usize {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(Local { session, _link: link, _nodes: [a, b] })
}

fn settings(authority: &CertificateAuthority, name: &str, validity: Validity) -> Result<TlsSettings, CliError> {
    let issued = authority.issue_node(name, KeyType::P256, validity).map_err(failed)?;
    let provider = default_provider();
    let identity =
        Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes(), &provider).map_err(failed)?;
    let anchors = TrustAnchors::from_pem(authority.certificate_pem().as_bytes()).map_err(failed)?;
    TlsSettings::new(identity, anchors, provider, Arc::new(rustls::time_provider::DefaultTimeProvider)).map_err(failed)
}

async fn report(args: &Args, session: &Session, workload: Workload) -> Result<(), CliError> {
    let time = Duration::from_secs_f64(args.secs);
    let wanted = |test| args.only.is_empty() || args.only.contains(&test);
    let mut results = serde_json::Map::new();
    let shows_progress = !args.json && std::io::stderr().is_terminal();
    let begin = |name: &str| {
        if shows_progress {
            progress(&format!("{name}, {} s …", args.secs));
        }
    };
    if wanted(Test::Throughput) {
        begin("throughput");
        let before = cpu_seconds();
        let measured = bench::throughput(&workload, args.streams as usize, time, args.size as usize).await;
        let measured = measured.map_err(failed)?;
        let cpu = cpu_seconds().zip(before).map(|(after, before)| (after - before) / (measured.bytes as f64 / 1e9));
        results.insert("throughput".to_owned(), throughput_json(args, session, &measured, cpu));
    }
    if wanted(Test::Messages) {
        begin("messages");
        let measured = bench::throughput(&workload, 1, time, args.message_size as usize).await.map_err(failed)?;
        let rate = measured.bytes_per_second() / f64::from(args.message_size);
        results.insert("messages".to_owned(), json!({ "size_bytes": args.message_size, "per_second": rate.round() }));
    }
    if wanted(Test::Latency) {
        begin("latency");
        let measured = bench::latency(&workload, time, args.message_size as usize).await.map_err(failed)?;
        results.insert("latency".to_owned(), latency_json(&measured));
    }
    if wanted(Test::Opens) {
        begin("new streams");
        let measured = bench::opens(&workload, time).await.map_err(failed)?;
        results.insert("opens".to_owned(), latency_json(&measured));
    }
    if shows_progress {
        progress("");
    }
    print(args, &results);
    Ok(())
}

fn throughput_json(args: &Args, session: &Session, measured: &Throughput, cpu: Option<f64>) -> Value {
    json!({
        "streams": args.streams,
        "channels": session.stats().lanes.len(),
        "bytes": measured.bytes,
        "gbit_per_second": round(measured.bytes_per_second() * 8e-9, 2),
        "cpu_seconds_per_gb": cpu.map(|cpu| round(cpu, 3)),
    })
}

fn latency_json(measured: &Latency) -> Value {
    let us = |share| round(measured.percentile(share).as_secs_f64() * 1e6, 1);
    json!({ "count": measured.count(), "p50_us": us(0.5), "p90_us": us(0.9), "p99_us": us(0.99), "max_us": us(1.0) })
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[expect(clippy::print_stderr, reason = "progress goes to a terminal, beside the log")]
fn progress(text: &str) {
    eprint!("\r\x1b[2K{text}");
}

#[expect(clippy::print_stdout, reason = "results are this command's output")]
fn print(args: &Args, results: &serde_json::Map<String, Value>) {
    if args.json {
        println!("{}", Value::Object(results.clone()));
        return;
    }
    if let Some(found) = results.get("throughput") {
        let cpu = found["cpu_seconds_per_gb"]
            .as_f64()
            .map(|cpu| format!(", {cpu} CPU s/GB in this process"))
            .unwrap_or_default();
        println!(
            "throughput  {} Gbit/s over {} channels by {} streams{cpu}",
            found["gbit_per_second"], args.channels, args.streams
        );
    }
    if let Some(found) = results.get("messages") {
        println!("messages    {} a second of {} bytes on one stream", found["per_second"], found["size_bytes"]);
    }
    for (name, label) in [("latency", "latency    "), ("opens", "new streams")] {
        if let Some(found) = results.get(name) {
            println!(
                "{label} p50 {} µs, p90 {} µs, p99 {} µs ({} times)",
                found["p50_us"], found["p90_us"], found["p99_us"], found["count"]
            );
        }
    }
}

/// CPU seconds that this process has used, where the system tells.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // USER_HZ, which is 100 on every Linux that Rust runs on.
    Some(ticks as f64 / 100.0)
}
