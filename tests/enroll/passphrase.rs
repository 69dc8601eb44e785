//! A hub whose authority's key is encrypted at rest.

use std::fs;

use crate::common::{Hub, Running, ended, stderr, write_private};

#[test]
fn a_hub_with_an_encrypted_key_lets_machines_join() {
    let hub = Hub::start_with_passphrase("correct horse\n");
    let key = fs::read_to_string(hub.path("hub/ca.key")).unwrap();
    assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{key}");
    // Tokens need the certificate alone.
    hub.token(&["--name", "dc-b"]);
    ended(&hub.join("node", &[]), 0);
    let mut node = Running::start(&hub.path("node/node.toml"));
    assert_eq!(node.logged("session connected")["peer"], "spiffe://example/node/hub");
    // Making certificates by hand needs the passphrase.
    let cert = ["cert", "node", "dc-c", "--ca", "hub", "--out", "pki"];
    let without = hub.run(&cert);
    ended(&without, 1);
    assert!(stderr(&without).contains("key is encrypted"), "{}", stderr(&without));
    ended(&hub.run(&[&cert[..], &["--passphrase-file", "passphrase"]].concat()), 0);
}

#[test]
fn a_wrong_passphrase_is_told_at_its_place() {
    let mut hub = Hub::start_with_passphrase("correct horse");
    hub.kill();
    let config = fs::read_to_string(hub.path("hub/hub.toml")).unwrap();
    let check = |hub: &Hub| stderr(&hub.run(&["check-config", "-c", "hub/hub.toml"]));
    write_private(&hub.path("passphrase"), "battery staple");
    assert!(check(&hub).contains("the passphrase is not that of the authority's key"), "{}", check(&hub));
    write_private(&hub.path("passphrase"), "\n");
    assert!(check(&hub).contains("the passphrase is empty"), "{}", check(&hub));
    // By a credential of the service manager.
    let line = config.lines().find(|line| line.starts_with("passphrase_file")).unwrap();
    fs::write(hub.path("hub/hub.toml"), config.replace(line, "passphrase_file = \"credential:ca\"")).unwrap();
    assert!(check(&hub).contains("LoadCredential=ca:FILE"), "{}", check(&hub));
    fs::create_dir(hub.path("credentials")).unwrap();
    fs::write(hub.path("credentials/ca"), "correct horse").unwrap();
    let mut command = hub.command(&["check-config", "-c", "hub/hub.toml"]);
    ended(&command.env("CREDENTIALS_DIRECTORY", hub.path("credentials")).output().unwrap(), 0);
    // Without any.
    fs::write(hub.path("hub/hub.toml"), config.replace(line, "")).unwrap();
    assert!(check(&hub).contains("passphrase_file of [enroll]"), "{}", check(&hub));
}
