//! What is shown without a collector: the text for Prometheus, and the snapshot.

use longhaul::base::CloseCode;
use longhaul::telemetry::{Settings, Snapshot, table};

use crate::pair::{PEER, Pair, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_has_only_metrics_of_the_table() {
    let pair = Pair::new("tcp", &Settings::default()).await;
    pair.exchange(1 << 20).await;
    pair.busy_until("round trips", || {
        pair.telemetry.render_prometheus().contains("longhaul_channel_rtt_seconds_count{").then_some(())
    })
    .await;
    let text = pair.telemetry.render_prometheus();
    let mut names = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, _) = line.split_once(' ').unwrap();
        let is_known = name == "target_info"
            || table::INSTRUMENTS.iter().any(|instrument| name.starts_with(&instrument.name.replace('.', "_")));
        assert!(is_known, "{name}");
        names += 1;
    }
    assert!(names > 20, "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(!line.contains("127.0.0.1"), "no address of anybody: {line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_snapshot_shows_links_channels_and_windows() {
    let pair = Pair::new("tcp", &Settings::default()).await;
    pair.exchange(1 << 20).await;
    let find = |snapshot: Snapshot| {
        let link = snapshot.links.into_iter().find(|link| link.peer == PEER)?;
        // What moved is in a window when its tick has ended.
        let is_measured = link.latency.counts.iter().sum::<u64>() > 0;
        (link.channels.len() == 2 && link.windows[3].packets_sent > 0 && is_measured).then_some(link)
    };
    let link = pair.busy_until("a link", || find(pair.telemetry.snapshot())).await;
    assert_eq!(link.session_count, 1);
    assert!(link.totals.bytes_sent >= 1 << 20 && link.totals.fragments_sent > 0);
    assert!(link.windows[3].sent_bytes_per_second > 0.0);
    assert!(link.channels.iter().all(|channel| channel.transport == "tcp"));
    let json = serde_json::to_value(pair.telemetry.snapshot()).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["links"][0]["windows"][0]["window_seconds"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_do_not_go_back_when_a_session_ends() {
    let pair = Pair::new("tcp", &Settings::default()).await;
    pair.exchange(1 << 20).await;
    pair.b.node().close(CloseCode::NO_ERROR, "test").await;
    let link = until("the end", || {
        let snapshot = pair.telemetry.snapshot();
        snapshot.links.into_iter().find(|link| link.peer == PEER && link.session_count == 0)
    })
    .await;
    assert!(link.totals.bytes_sent >= 1 << 20 && link.totals.bytes_received >= 1 << 20, "{:?}", link.totals);
    assert_eq!(link.sessions_ended.values().sum::<u64>(), 1);
    assert!(link.channels.is_empty());
}
