//! Who does not get in, what the user hears of it, and what the audit log does.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use longhaul::base::{Secret, SystemEntropy};
use longhaul::crypto::token::{JoinToken, TokenId};
use longhaul::enroll::TokenRecord;
use longhaul::enroll::store::Store;

use crate::common::{Hub, ended, stderr, stdout};

fn write_token(hub: &Hub, text: &str) {
    fs::write(hub.path("token"), text).unwrap();
    fs::set_permissions(hub.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn every_refusal_reads_the_same_and_the_audit_log_has_the_reason() {
    let hub = Hub::start();
    let mut texts = Vec::new();
    let mut refused = |reason: &str, out: &str, options: &[&str]| {
        let output = hub.join(out, options);
        ended(&output, 4);
        texts.push(stderr(&output));
        let audit = hub.audit();
        let last = audit.lines().last().unwrap();
        assert!(last.contains(&format!("\"reason\":\"{reason}\"")), "{reason}: {last}");
        assert!(!hub.path(out).join("node.crt").exists());
    };

    let token = hub.token(&["--name", "dc-b"]);
    refused("wrong-name", "a", &["--name", "dc-c"]);
    ended(&hub.join("first", &[]), 0);
    refused("used-up", "b", &[]);
    let revoke = hub.run(&["token", "revoke", "--state", "hub", &token.id().to_string()]);
    ended(&revoke, 0);
    refused("revoked", "c", &[]);
    hub.token(&["--name", "dc-b", "--cidr", "192.0.2.0/24"]);
    refused("wrong-address", "d", &[]);
    hub.token(&["--name", "edge-*", "--uses", "2"]);
    refused("wrong-name", "e", &[]);
    refused("wrong-name", "f", &["--name", "hub"]);

    let pin = *token.authority_pin();
    let expired = JoinToken::generate(pin, &mut SystemEntropy::new());
    let record = TokenRecord {
        id: expired.id(),
        public_key: expired.public_key(),
        is_for_guests: false,
        name: "dc-b".parse().unwrap(),
        created_unix: 1000,
        not_after_unix: 2000,
        use_count: 0,
        revoked_unix: None,
        ..hub.record(&token)
    };
    hub.store().add_token(&record).unwrap();
    write_token(&hub, &expired.to_text());
    refused("expired", "g", &[]);

    // Never made by this hub; and one whose id is right and whose seed is guessed.
    write_token(&hub, &JoinToken::generate(pin, &mut SystemEntropy::new()).to_text());
    refused("unknown-token", "h", &[]);
    let good = hub.token(&["--name", "dc-b"]);
    write_token(&hub, &JoinToken::from_parts(good.id(), Secret::new([7; 32]), pin).to_text());
    refused("wrong-proof", "i", &[]);
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[test]
fn a_token_that_is_none_is_told_before_anything_is_sent() {
    let hub = Hub::start();
    let text = hub.token(&["--name", "dc-b"]).to_text();
    let before = hub.audit();
    for (bad, word) in [
        (&text[..90], "cut"),
        (&text.replace("lhjoin_", "lhjoin-"), "not a token"),
        (&text.replacen(|c: char| c == text.as_bytes()[30].into(), "_", 99), "mistyped"),
        (&format!("{}X", *text), "too many"),
        ("", "not a token"),
    ] {
        write_token(&hub, bad);
        let output = hub.join("node", &[]);
        ended(&output, 2);
        let error = stderr(&output);
        assert!(error.contains(word) && !error.contains(&text[24..40]) && error.lines().count() == 1, "{error}");
    }
    assert_eq!(hub.audit(), before);
    assert!(!hub.path("node").exists());
}

#[test]
fn who_is_not_the_hub_or_not_there_is_told_apart() {
    let (hub, mut other) = (Hub::start(), Hub::start());
    hub.token(&["--name", "dc-b"]);
    // Another hub, with an authority of its own.
    let address = format!("127.0.0.1:{}", other.enroll_port);
    let output = hub.run(&["join", "--token-file", "token", "--out", "node", &address]);
    ended(&output, 4);
    assert!(stderr(&output).contains("does not show the authority"), "{}", stderr(&output));
    other.kill();
    let output = hub.run(&["join", "--token-file", "token", "--out", "node", &address]);
    ended(&output, 5);
    assert!(stderr(&output).contains("cannot be reached"), "{}", stderr(&output));
    ended(&hub.run(&["join", "--token-file", "token", "--out", "node", "no-port"]), 2);
}

#[test]
fn tokens_that_are_not_there_and_options_that_are_wrong_are_told() {
    let hub = Hub::start();
    let unknown = TokenId::from_bytes([1; 10]).to_string();
    for command in ["show", "revoke"] {
        let output = hub.run(&["token", command, "--state", "hub", &unknown]);
        ended(&output, 1);
        assert!(stderr(&output).contains(&unknown), "{}", stderr(&output));
        ended(&hub.run(&["token", command, "--state", "hub", "no-id"]), 2);
    }
    for bad in [["--ttl", "31d"], ["--ttl", "0s"], ["--uses", "0"], ["--cidr", "x"], ["--name", "a b"], ["--role", ""]]
    {
        ended(&hub.run(&[&["token", "create", "--state", "hub", "--name", "x"][..], &bad].concat()), 2);
    }
    fs::write(hub.path("there"), "").unwrap();
    let there = hub.run(&["token", "create", "--state", "hub", "--name", "x", "--out", "there"]);
    ended(&there, 2);
    assert!(stderr(&there).contains("there already"), "{}", stderr(&there));
    let missing = hub.run(&["token", "list", "--state", "nowhere"]);
    ended(&missing, 1);
    assert!(stderr(&missing).contains("hub init"), "{}", stderr(&missing));
    let again = hub.run(&["hub", "init", "--domain", "example", "--out", "hub"]);
    ended(&again, 1);
    assert!(stderr(&again).contains("there already"), "{}", stderr(&again));
    assert!(stdout(&hub.run(&["token", "list", "--state", "hub"])).is_empty());
}
