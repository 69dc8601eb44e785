//! Everything that an auditor is promised is in the audit log, and no secret is.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use longhaul::base::{Secret, SystemEntropy, limits};
use longhaul::crypto::token::JoinToken;
use longhaul::enroll::TokenRecord;
use longhaul::enroll::store::Store;

use crate::common::{Hub, Running, ended, stdout, write_private};
use crate::guests;

/// Every event, with the fields that it always has besides its time.
const EVENTS: &[(&str, &[&str])] = &[
    ("hub-made", &["trust_domain", "name"]),
    ("token-created", &["token", "name", "uses", "not_after"]),
    ("token-revoked", &["token"]),
    ("token-locked", &["token", "address"]),
    ("certificate-issued", &["token", "name", "address", "serial", "not_after"]),
    ("certificate-renewed", &["name", "serial", "not_after"]),
    ("enrolment-refused", &["address", "reason"]),
    ("renewal-refused", &["name", "reason"]),
    ("guest-admitted", &["token", "name", "address"]),
    ("guest-refused", &["token", "address", "reason"]),
    ("session-up", &["name", "session"]),
    ("session-down", &["name", "session", "reason"]),
    ("tickets-declined", &["reason", "count"]),
    ("revoked", &["denied"]),
    ("unrevoked", &["denied"]),
    ("authority-rotated", &["step"]),
];

fn count(hub: &Hub, event: &str) -> usize {
    hub.audit().matches(&format!("\"event\":\"{event}\"")).count()
}

/// What the hub writes behind what a command or a peer has seen.
fn written(hub: &Hub, event: &str, count_min: usize) {
    while count(hub, event) < count_min {
        std::thread::yield_now();
    }
}

/// A token with the id of another one, and a secret that is guessed.
fn guess(hub: &Hub, token: &JoinToken) {
    let guessed = JoinToken::from_parts(token.id(), Secret::new([7; 32]), *token.authority_pin());
    write_private(&hub.path("token"), &guessed.to_text());
}

/// A listener that takes guests gives no tickets.
fn take_no_guests(hub: &mut Hub) {
    hub.reconfigure(|text| text.replace("guests = true\n", ""));
}

/// Early data that was taken is told with the session that it began.
#[test]
fn early_data_that_was_taken_is_told() {
    let mut hub = Hub::start();
    // Sessions are replaced while they work; the second one begins with a ticket.
    hub.reconfigure(|text| {
        let text = text.replace("[[listen]]\n", "[[listen]]\nearly_data = true\n");
        format!("[node]\nmax_session_age = \"4s\"\n{text}")
    });
    hub.token(&["--name", "dc-b"]);
    ended(&hub.join("node", &[]), 0);
    let config = hub.path("node/node.toml");
    let text = fs::read_to_string(&config).unwrap().replace("[[link]]\n", "[[link]]\nearly_data = true\n");
    fs::write(&config, text).unwrap();
    let _node = Running::start(&config);
    let is_told = |line: &str| line.contains("\"session-up\"") && line.contains("\"early_data\":\"accepted\"");
    while !hub.audit().lines().any(is_told) {
        std::thread::yield_now();
    }
    let audit = hub.audit();
    let first = audit.lines().find(|line| line.contains("\"session-up\"")).unwrap();
    assert!(!first.contains("early_data"), "without a ticket there is none: {first}");
}

#[test]
fn every_event_is_told_with_its_fields_and_without_secrets() {
    let mut hub = guests::hub();
    let mut secrets = Vec::new();
    let mut made = |token: JoinToken| {
        // By length, as the secret may have the character that parts are separated with.
        let text = token.to_text();
        let secret = text.strip_prefix(&format!("lhjoin_{}_", token.id())).unwrap();
        secrets.push(secret[..43].to_owned());
        token
    };
    // A node joins, has a session, renews, and is taken out.
    made(hub.token(&["--name", "dc-b"]));
    ended(&hub.join("node", &[]), 0);
    let mut node = Running::start(&hub.path("node/node.toml"));
    node.logged("session connected");
    written(&hub, "session-up", 1);
    ended(&hub.run(&["cert", "renew", "-c", "node/node.toml"]), 0);
    ended(&hub.run(&["node", "revoke", "--state", "hub", "dc-b"]), 0);
    node.logged("session ended");
    written(&hub, "session-down", 1);
    ended(&hub.run(&["cert", "renew", "-c", "node/node.toml"]), 4);
    written(&hub, "renewal-refused", 1);
    ended(&hub.run(&["node", "unrevoke", "--state", "hub", "dc-b"]), 0);
    drop(node);
    // A node whose ticket is worth nothing any more.
    hub.token(&["--name", "dc-d"]);
    ended(&hub.join("returning", &[]), 0);
    take_no_guests(&mut hub);
    let mut node = Running::start(&hub.path("returning/node.toml"));
    // What the hub tells of the denylist makes its first tickets void at the node itself. It may come first.
    node.logged_all(&["session connected", "denylist in effect"]);
    for _ in 0..20 {
        hub.restart();
        node.logged("session ended");
        node.logged("session connected");
        // A ticket may not have arrived when its hub was killed; what was declined is written within a second.
        let until = Instant::now() + Duration::from_secs(3);
        while count(&hub, "tickets-declined") == 0 && Instant::now() < until {
            std::thread::yield_now();
        }
        if count(&hub, "tickets-declined") > 0 {
            break;
        }
    }
    drop(node);
    hub.reconfigure(|text| text.replace("[[listen]]\n", "[[listen]]\nguests = true\n"));
    // A token that is guessed, one that has expired, one that is taken back.
    let token = made(hub.token(&["--name", "dc-c"]));
    guess(&hub, &token);
    for _ in 0..limits::WRONG_PROOFS_MAX {
        ended(&hub.join("guess", &[]), 4);
    }
    let expired = made(JoinToken::generate(*token.authority_pin(), &mut SystemEntropy::new()));
    let record = TokenRecord {
        id: expired.id(),
        public_key: expired.public_key(),
        created_unix: 1000,
        not_after_unix: 2000,
        ..hub.record(&token)
    };
    hub.store().add_token(&record).unwrap();
    write_private(&hub.path("token"), &expired.to_text());
    ended(&hub.join("expired", &[]), 4);
    ended(&hub.run(&["token", "revoke", "--state", "hub", &token.id().to_string()]), 0);
    // A guest, and one with a secret that is guessed.
    let token = made(hub.token(&["--guest", "--name", "laptop"]));
    guests::configure(&hub, "guest");
    guests::run(&hub, "guest").logged("session connected");
    guess(&hub, &token);
    guests::configure(&hub, "guessing");
    guests::run(&hub, "guessing").logged("peer cannot be reached");
    ended(&hub.run(&["hub", "rotate", "--state", "hub", "begin"]), 0);

    let audit = hub.audit();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for line in audit.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let event = line["event"].as_str().unwrap();
        let (_, fields) = EVENTS.iter().find(|(name, _)| *name == event).unwrap_or_else(|| panic!("{event} is new"));
        for field in ["time"].iter().chain(*fields) {
            assert!(!line[field].is_null(), "{event} has no {field}: {line}");
        }
        *seen.entry(event.to_owned()).or_default() += 1;
    }
    let documented = include_str!("../../docs/reference/cli.md");
    for (event, _) in EVENTS {
        assert!(documented.contains(&format!("`{event}`")), "{event} is in no document");
        assert!(seen.contains_key(*event), "{event} is missing:\n{audit}");
    }
    for reason in ["wrong-proof", "expired", "denied"] {
        assert!(audit.contains(&format!("\"reason\":\"{reason}\"")), "{reason}:\n{audit}");
    }
    assert!(!audit.contains("lhjoin_") && !audit.contains("PRIVATE KEY"), "{audit}");
    assert!(secrets.iter().all(|secret| !audit.contains(secret)), "{audit}");
    // And the command prints all of it.
    let printed = hub.run(&["audit", "--state", "hub", "-n", "10000"]);
    ended(&printed, 0);
    assert!(stdout(&printed).lines().count() >= audit.lines().count());
    assert!(!fs::read_to_string(hub.path("hub/audit.jsonl")).unwrap().is_empty());
}
