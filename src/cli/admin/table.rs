//! The node's status as lines for people, and numbers as people read them.

use std::fmt::Write;

use serde_json::Value;

use crate::base::Bandwidth;
use crate::config::text::date;

/// Rows in columns as wide as they have to be.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(ToString::to_string).collect()] }
    }

    pub(super) fn push(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// The lines, without white space at their ends.
    pub(super) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

/// A node's status.
pub(super) fn status(status: &Value) -> String {
    let mut out = String::new();
    let node = &status["node"];
    let ready = if status["ready"] == true {
        "ready".to_owned()
    } else {
        format!("NOT READY: {}", texts(&status["not_ready"]))
    };
    let uptime = span(node["uptime_seconds"].as_u64().unwrap_or_default());
    let end = date(status["certificate"]["not_after_unix"].as_u64().unwrap_or_default());
    let _ = writeln!(out, "{} ({}) up {uptime}, {ready}", text(&node["name"]), text(&node["software"]));
    let _ = writeln!(out, "certificate until {end}");
    if node["key_log"] == true {
        let _ = writeln!(out, "KEY LOG IS ON: whoever reads the file can read everything that sessions carry");
    }
    if let Some(authority) = status["authority"].as_object() {
        let [issued, denied] = ["certificates_issued", "denied_count"].map(|key| authority[key].to_string());
        let _ = writeln!(out, "authority: {issued} certificates issued, {denied} on the denylist");
    }
    let of_traffic = [links(status), channels(status), services(status), targets(status), forwards(status)];
    for table in of_traffic.into_iter().chain([limits(status), tokens(status), nodes(status)]) {
        if !table.is_empty() {
            let _ = write!(out, "\n{}", table.text());
        }
    }
    out
}

fn links(status: &Value) -> Table {
    let mut table = Table::new(&["LINK", "STATE", "CHANNELS", "LAST ERROR"]);
    for link in list(&status["links"]) {
        let channels = format!("{}/{}", link["channels_up"], link["channels_wanted"]);
        table.push([text(&link["peer"]), text(&link["state"]), channels, text(&link["last_error"])]);
    }
    table
}

fn channels(status: &Value) -> Table {
    let mut table = Table::new(&["PEER", "CHANNEL", "KIND", "STATE", "RTT", "MIN", "SENT", "RECEIVED", "RESENT"]);
    for session in list(&status["sessions"]) {
        for channel in list(&session["channels"]) {
            table.push(channel_row(&text(&session["peer"]), channel));
        }
    }
    for channel in list(&status["dead_channels"]) {
        table.push(channel_row(&text(&channel["peer"]), channel));
    }
    table
}

fn channel_row(peer: &str, channel: &Value) -> [String; 9] {
    [
        peer.to_owned(),
        channel["id"].to_string(),
        text(&channel["kind"]),
        text(&channel["state"]),
        milliseconds(&channel["round_trip_ms"]),
        milliseconds(&channel["round_trip_min_ms"]),
        bytes(channel["bytes_sent"].as_f64()),
        bytes(channel["bytes_received"].as_f64()),
        bytes(channel["reinjected_bytes"].as_f64()),
    ]
}

fn services(status: &Value) -> Table {
    let mut table = Table::new(&["SERVICE", "TARGET", "OPEN", "CONNECTIONS", "TO PEERS", "FROM PEERS", "REFUSED"]);
    for service in list(&status["services"]) {
        let [name, target] = ["name", "target"].map(|key| text(&service[key]));
        table.push([name, target].into_iter().chain(counters(service)));
    }
    table
}

/// Of services with several, and those of which something is known.
fn targets(status: &Value) -> Table {
    let mut table = Table::new(&["TARGET", "OF", "STATE", "FOR", "OPEN", "CONNECTIONS", "FAILED", "WHY"]);
    let now = status["time_unix_ms"].as_u64().unwrap_or_default();
    for service in list(&status["services"]) {
        let targets = list(&service["targets"]);
        for target in targets.iter().filter(|target| targets.len() > 1 || target["state"] != "unchecked") {
            let since = now.saturating_sub(target["since_unix_ms"].as_u64().unwrap_or(now));
            let [url, state, why] = ["target", "state", "reason"].map(|key| text(&target[key]));
            let [open, connections, failures] = ["open", "connections", "failures"].map(|key| target[key].to_string());
            table.push([url, text(&service["name"]), state, span(since / 1000), open, connections, failures, why]);
        }
    }
    table
}

fn forwards(status: &Value) -> Table {
    let mut table = Table::new(&["FORWARD", "TO", "OPEN", "CONNECTIONS", "TO PEER", "FROM PEER", "REFUSED"]);
    for forward in list(&status["forwards"]) {
        let to = format!("{} at {}", text(&forward["service"]), text(&forward["peer"]));
        table.push([text(&forward["listen"]), to].into_iter().chain(counters(forward)));
    }
    table
}

/// What is limited, and how long it was held up by that.
fn limits(status: &Value) -> Table {
    let mut table = Table::new(&["LIMIT", "BANDWIDTH", "WAITED"]);
    let mut push = |what: String, limit: &Value, waited: f64| {
        if let Some(limit) = limit.as_u64() {
            table.push([what, Bandwidth::from_bytes_per_second(limit).to_string(), format!("{waited:.1} s")]);
        }
    };
    // Of all sessions, or of those with one peer.
    let waited = |peer: Option<&Value>, by: &str| {
        let sessions = list(&status["sessions"]).iter().filter(|one| peer.is_none_or(|peer| one["peer"] == *peer));
        sessions.filter_map(|one| one["throttled_seconds"][by].as_f64()).sum::<f64>()
    };
    push("node".to_owned(), &status["bandwidth_limits"]["node"], waited(None, "node"));
    for link in list(&status["links"]) {
        push(format!("link {}", text(&link["peer"])), &link["bandwidth_limit"], waited(Some(&link["peer"]), "link"));
    }
    let mut seen = Vec::new();
    for session in list(&status["sessions"]) {
        let peer = &session["peer"];
        if !seen.contains(&peer) {
            seen.push(peer);
            push(format!("peer {}", text(peer)), &session["peer_bandwidth_limit"], waited(Some(peer), "peer"));
        }
    }
    for (kind, key, list_key) in [("service", "name", "services"), ("forward", "listen", "forwards")] {
        for one in list(&status[list_key]) {
            let waited = list(&one["throttled_seconds"]).iter().filter_map(Value::as_f64).sum();
            push(format!("{kind} {}", text(&one[key])), &one["bandwidth_limit"], waited);
        }
    }
    table
}

/// Tokens of a hub; none elsewhere.
fn tokens(status: &Value) -> Table {
    let mut table = Table::new(&["TOKEN", "STATE", "NAME", "USED", "UNTIL"]);
    for token in list(&status["authority"]["tokens"]) {
        table.push(token_row(token));
    }
    table
}

/// A token: id, state, name, how often it was used, its end.
pub(super) fn token_row(token: &Value) -> [String; 5] {
    let used = format!("{}/{}", token["use_count"], token["uses_max"]);
    let [id, state, name] = ["id", "state", "name"].map(|key| text(&token[key]));
    [id, state, name, used, until(token)]
}

/// Nodes with certificates of a hub.
fn nodes(status: &Value) -> Table {
    let mut table = Table::new(&["NODE", "STATE", "UNTIL"]);
    for node in list(&status["authority"]["nodes"]) {
        table.push(node_row(node));
    }
    table
}

/// A node by its newest certificate: name, state, its end.
pub(super) fn node_row(node: &Value) -> [String; 3] {
    [text(&node["name"]), text(&node["state"]), until(node)]
}

fn until(of: &Value) -> String {
    date(of["not_after_unix"].as_u64().unwrap_or_default())
}

fn counters(of: &Value) -> [String; 5] {
    let refused = of["refused"].as_object().into_iter().flatten().map(|(reason, count)| format!("{reason} {count}"));
    [
        of["open"].to_string(),
        of["connections"].to_string(),
        bytes(of["bytes_to_peer"].as_f64()),
        bytes(of["bytes_from_peer"].as_f64()),
        refused.collect::<Vec<_>>().join(", "),
    ]
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text of the node, fit for a terminal; nothing for nothing.
pub(super) fn text(value: &Value) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    value.as_str().unwrap_or_default().chars().map(shown).collect()
}

fn texts(value: &Value) -> String {
    list(value).iter().map(text).collect::<Vec<_>>().join("; ")
}

pub(super) fn milliseconds(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"))
}

/// `1.5 MB` and the like.
pub(super) fn bytes(bytes: Option<f64>) -> String {
    let Some(mut value) = bytes else { return "-".to_owned() };
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} PB")
}

/// `3 h 5 min` and the like.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [Some(0.0), Some(999.0), Some(1500.0), Some(2.5e9), None].map(bytes),
            ["0 B", "999 B", "1.5 kB", "2.5 GB", "-"]
        );
        assert_eq!([59, 61, 7261, 90_000].map(span), ["59 s", "1 min", "2 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn limits_are_shown_where_there_are_some() {
        let session = |seconds: f64| {
            serde_json::json!({
                "peer": "b", "peer_bandwidth_limit": null, "throttled_seconds": { "link": seconds, "node": 1.0 },
            })
        };
        let status = serde_json::json!({
            "bandwidth_limits": { "node": null, "each_peer": null },
            "links": [{ "peer": "b", "bandwidth_limit": 12_500_000 }, { "peer": "c", "bandwidth_limit": null }],
            "sessions": [session(1.5), session(2.0)],
            "services": [{ "name": "web", "bandwidth_limit": 12 << 20, "throttled_seconds": [0.25, 0.5] }],
            "forwards": [{ "listen": "tcp://x:1", "bandwidth_limit": null, "throttled_seconds": [0.0, 0.0] }],
        });
        let shown = limits(&status).text();
        let rows: Vec<_> =
            shown.lines().skip(1).map(|line| line.split("  ").map(str::trim).collect::<String>()).collect();
        assert_eq!(rows, ["link b100 Mbit/s3.5 s", "service web12 MiB/s0.8 s"], "{shown}");
    }

    #[test]
    fn what_a_node_says_does_not_steer_the_terminal() {
        assert_eq!(text(&Value::from("a\u{1b}[2Jb")), "a [2Jb");
    }
}
