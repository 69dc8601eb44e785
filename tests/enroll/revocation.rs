//! Nodes that are taken out: their sessions end, they get no others anywhere, and it stays so.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use crate::common::{Hub, Running, ended, free_port, stderr, stdout};
use crate::renewal::{Net, talk};

fn revoke(hub: &Hub, arguments: &[&str]) {
    ended(&hub.run(&[&["node", "revoke", "--state", "hub"], arguments].concat()), 0);
}

fn unrevoke(hub: &Hub, arguments: &[&str]) {
    ended(&hub.run(&[&["node", "unrevoke", "--state", "hub"], arguments].concat()), 0);
}

#[test]
fn a_revoked_node_loses_its_session_and_gets_nothing_any_more() {
    let net = Net::new();
    let mut node = net.node();
    let mut connection = net.connection();
    revoke(&net.hub, &["dc-b"]);
    let event = node.logged("session ended");
    assert!(event["reason"].as_str().unwrap().contains("revoked \"the node was revoked\""), "{event}");
    assert!(!matches!(connection.read(&mut [0; 1]), Ok(1..)), "the connection is over");
    node.logged("peer cannot be reached");
    // Neither a further certificate, nor a new one by another token.
    ended(&net.renew(), 4);
    net.hub.token(&["--name", "dc-b"]);
    ended(&net.hub.join("again", &[]), 4);
    let listed = stdout(&net.hub.run(&["node", "list", "--state", "hub"]));
    assert!(listed.contains("dc-b  revoked") && listed.contains("revoked  node:dc-b"), "{listed}");
    // The log follows the session.
    while !net.hub.audit().contains("\"event\":\"session-down\"") {
        std::thread::yield_now();
    }
    unrevoke(&net.hub, &["dc-b"]);
    node.logged("session connected");
    talk(&mut net.connection());
    ended(&net.renew(), 0);
    let audit = net.hub.audit();
    for line in [
        "\"event\":\"session-up\"",
        "\"event\":\"revoked\",\"denied\":\"node:dc-b\"",
        "\"event\":\"unrevoked\"",
        "\"reason\":\"denied\"",
    ] {
        assert!(audit.contains(line), "{line}\n{audit}");
    }
}

#[test]
fn a_key_or_all_that_came_by_a_token_can_be_revoked() {
    let net = Net::new();
    let listed = stdout(&net.hub.run(&["node", "list", "--state", "hub", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let of = |name: &str| listed["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name).unwrap().clone();
    let (key, token) = (of("dc-b")["key"].clone(), of("dc-b")["token"].clone());
    let mut node = net.node();
    for whom in [["--key", key.as_str().unwrap()], ["--token", token.as_str().unwrap()]] {
        revoke(&net.hub, &whom);
        node.logged("session ended");
        unrevoke(&net.hub, &whom);
        node.logged("session connected");
    }
    // A key that is only known, and what is nothing.
    revoke(&net.hub, &["--key", &"ab".repeat(32)]);
    ended(&net.hub.run(&["node", "unrevoke", "--state", "hub", "dc-x"]), 1);
    ended(&net.hub.run(&["node", "revoke", "--state", "hub", "--token", "aaaaaaaaaaaaaaaa"]), 1);
    ended(&net.hub.run(&["node", "revoke", "--state", "hub"]), 2);
    let own = net.hub.run(&["node", "revoke", "--state", "hub", "hub"]);
    ended(&own, 2);
    assert!(stderr(&own).contains("this is the hub itself"), "{}", stderr(&own));
}

/// dc-b and dc-c, which know each other besides the hub.
struct Three {
    net: Net,
}

impl Three {
    fn new() -> Self {
        let net = Net::new();
        let port = free_port();
        net.hub.token(&["--name", "dc-c"]);
        ended(&net.hub.join("other", &[]), 0);
        let append =
            |path: PathBuf, text: String| fs::write(&path, fs::read_to_string(&path).unwrap() + &text).unwrap();
        append(net.hub.path("node/node.toml"), format!("\n[[listen]]\naddress = \"tcp://127.0.0.1:{port}\"\n"));
        let link = format!("\n[[link]]\npeer = \"dc-b\"\naddresses = [\"tcp://127.0.0.1:{port}\"]\n");
        append(net.hub.path("other/node.toml"), link);
        Self { net }
    }

    /// dc-c, with the hub or not: a session with dc-b.
    fn other(&self) -> Running {
        let mut other = Running::start(&self.net.hub.path("other/node.toml"));
        while other.logged("session connected")["peer"] != "spiffe://example/node/dc-b" {}
        other
    }
}

#[test]
fn every_connected_node_closes_its_sessions_and_remembers() {
    let mut three = Three::new();
    let mut node = three.net.node();
    let mut other = three.other();
    revoke(&three.net.hub, &["dc-c"]);
    node.logged_all(&["peer was revoked, closing its session", "denylist in effect"]);
    for _ in ["hub", "dc-b"] {
        let event = other.logged("session ended");
        assert!(event["reason"].as_str().unwrap().contains("revoked"), "{event}");
    }
    // After a restart too, with nobody there who could tell it.
    let stored = three.net.hub.path("node/denylist");
    while !stored.exists() {
        std::thread::yield_now();
    }
    drop((node, other));
    three.net.hub.kill();
    let mut node = Running::start(&three.net.hub.path("node/node.toml"));
    node.logged("ready");
    let other = Running::start(&three.net.hub.path("other/node.toml"));
    let event = node.logged("channel refused");
    assert!(event["error"].as_str().unwrap().contains("was revoked"), "{event}");
    drop(other);
}

#[test]
fn a_node_that_was_away_is_told_when_it_comes_back() {
    let three = Three::new();
    revoke(&three.net.hub, &["dc-c"]);
    let mut node = Running::start(&three.net.hub.path("node/node.toml"));
    node.logged("denylist in effect");
    let other = Running::start(&three.net.hub.path("other/node.toml"));
    let event = node.logged("channel refused");
    assert!(event["error"].as_str().unwrap().contains("was revoked"), "{event}");
    drop(other);
}
