//! Bandwidth limits by configuration: what is sent, what is shown of it, and a reload that changes both.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::commands::longhaul;
use crate::common::{Pair, Place, connect_to, soon};

async fn status(place: &Place, node: &str) -> serde_json::Value {
    let (code, out, error) = longhaul(place, &["status", "--json", "-c", &format!("{node}.toml")]).await;
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&out).unwrap()
}

/// Sends so many bytes to an echo and reads them again: the time that it took.
async fn there_and_back(stream: &mut TcpStream, bytes: usize) -> Duration {
    let begun = Instant::now();
    let (mut read, mut write) = stream.split();
    let sent = vec![7; bytes];
    let mut got = vec![0; bytes];
    let (sent_all, read_all) = soon(async { tokio::join!(write.write_all(&sent), read.read_exact(&mut got)) }).await;
    sent_all.unwrap();
    read_all.unwrap();
    assert!(sent == got);
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_links_limit_holds_is_shown_and_changes_while_a_stream_runs() {
    let place = Place::new();
    let mut pair = Pair::start(&place).await;
    let of_link = |limit: &str| pair.sections_of_a.replace("[[forward]]", &format!("{limit}\n[[forward]]"));
    let (slow, fast) = (of_link("bandwidth_limit = \"1Mbit/s\""), of_link("bandwidth_limit = \"800Mbit/s\""));
    place.configure("a", &slow);
    assert_eq!(pair.a.reload().await, ["link b: bandwidth_limit changed"]);
    let session = status(&place, "a").await["sessions"][0]["id"].clone();
    let mut stream = connect_to(pair.front, b'x').await;
    let time = there_and_back(&mut stream, 300_000).await;
    // A burst of 50 ms and a packet go at once; the rest takes its time.
    assert!(time >= Duration::from_secs_f64((300_000.0 - 6250.0 - 65_536.0) / 125_000.0), "{time:?}");
    let seen = status(&place, "a").await;
    assert_eq!(seen["links"][0]["bandwidth_limit"], 125_000);
    assert!(seen["sessions"][0]["throttled_seconds"]["link"].as_f64().unwrap() > 0.5, "{}", seen["sessions"][0]);
    let (_, shown, _) = longhaul(&place, &["status", "-c", "a.toml"]).await;
    assert!(shown.contains("link b") && shown.contains("1 Mbit/s"), "{shown}");
    place.configure("a", &fast);
    assert_eq!(pair.a.reload().await, ["link b: bandwidth_limit changed"]);
    let time = there_and_back(&mut stream, 3_000_000).await;
    assert!(time < Duration::from_secs(20), "at the old limit it would take 24 s: {time:?}");
    let seen = status(&place, "a").await;
    assert_eq!((&seen["sessions"][0]["id"], &seen["links"][0]["bandwidth_limit"]), (&session, &100_000_000.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_for_peers_and_services_are_taken_by_a_reload() {
    let place = Place::new();
    let mut pair = Pair::start(&place).await;
    let text = std::fs::read_to_string(place.path("b.toml")).unwrap();
    let (_, sections) = text.split_once("trust_anchors = \"ca.crt\"\n").unwrap();
    let limits = "[limits]\npeer_bandwidth_limit = \"1Mbit/s\"\nconnections_per_peer_max = 2\n";
    place.configure("b", &format!("{limits}{sections}bandwidth_limit = \"100Mbit/s\"\n"));
    let changes = pair.b.reload().await;
    let expected =
        ["limits: peer_bandwidth_limit, connections_per_peer_max changed", "service one: bandwidth_limit changed"];
    assert_eq!(changes, expected);
    let mut stream = connect_to(pair.front, b'x').await;
    let _second = connect_to(pair.front, b'x').await;
    assert!(crate::common::connect(pair.front).await.is_none(), "a third connection is one too many");
    assert_eq!(pair.a.logged("connection refused").await["reason"], "too-many-connections-of-peer");
    // The answers are what the peer's limit is for.
    let time = there_and_back(&mut stream, 300_000).await;
    assert!(time >= Duration::from_secs_f64((300_000.0 - 6250.0 - 65_536.0) / 125_000.0), "{time:?}");
    let seen = status(&place, "b").await;
    assert_eq!(seen["bandwidth_limits"]["each_peer"], 125_000);
    assert_eq!(seen["sessions"][0]["peer_bandwidth_limit"], 125_000);
    assert_eq!(seen["services"][0]["bandwidth_limit"], 12_500_000);
    assert!(seen["sessions"][0]["throttled_seconds"]["peer"].as_f64().unwrap() > 0.5, "{}", seen["sessions"][0]);
}
