//! Joining as it should be.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::Arc;

use longhaul::crypto::identity::default_provider;
use longhaul::enroll::{Join, JoinError};
use longhaul::issue::{KeyType, NodeKey};
use rustls::time_provider::DefaultTimeProvider;

use crate::common::{Hub, Running, ended, stderr, stdout};

#[test]
fn a_joined_node_connects_to_the_hub() {
    let hub = Hub::start();
    let token = hub.token(&["--name", "dc-b", "--role", "edge"]);
    let output = hub.join("node", &[]);
    ended(&output, 0);
    let text = stdout(&output);
    assert!(text.contains("joined as spiffe://example/node/dc-b") && text.contains("next: longhaul run -c"), "{text}");
    for (name, mode) in [("node.key", 0o600), ("node.crt", 0o644), ("ca.crt", 0o644), ("node.toml", 0o644)] {
        let found = fs::metadata(hub.path("node").join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}");
    }
    assert_eq!(fs::read_dir(hub.path("node")).unwrap().count(), 4);
    ended(&hub.run(&["check-config", "-c", "node/node.toml"]), 0);
    let mut node = Running::start(&hub.path("node/node.toml"));
    assert_eq!(node.logged("session connected")["peer"], "spiffe://example/node/hub");
    let shown = stdout(&hub.run(&["cert", "show", "node/node.crt"]));
    assert!(shown.contains("roles        edge\n"), "{shown}");
    // What the lists say of it, and that the same command has nothing left to do.
    assert!(stdout(&hub.run(&["token", "list", "--state", "hub"])).contains("used up"));
    let shown = stdout(&hub.run(&["token", "show", "--state", "hub", "--json", &token.id().to_string()]));
    assert!(shown.contains("\"name\": \"dc-b\"") && shown.contains("\"address\": \"127.0.0.1\""), "{shown}");
    let again = hub.join("node", &[]);
    ended(&again, 0);
    assert!(stdout(&again).contains("already"), "{}", stdout(&again));
    // Anew, with a key of its own, also when what is there cannot be used.
    let (key, certificate) = (hub.path("node/node.key"), hub.path("node/node.crt"));
    let before = fs::read(&key).unwrap();
    fs::write(&certificate, "broken").unwrap();
    hub.token(&["--name", "dc-b"]);
    ended(&hub.join("node", &[]), 1);
    ended(&hub.join("node", &["--force"]), 0);
    assert_ne!(fs::read(&key).unwrap(), before);
    ended(&hub.run(&["check-config", "-c", "node/node.toml"]), 0);
    let audit = hub.audit();
    assert!(audit.contains("certificate-issued") && !audit.contains("lhjoin_"), "{audit}");
}

#[test]
fn a_token_can_come_by_environment_or_standard_input_but_not_from_an_open_file() {
    let hub = Hub::start();
    let address = format!("127.0.0.1:{}", hub.enroll_port);
    let token = hub.token(&["--name", "edge-*", "--uses", "3"]);
    let by_environment = hub
        .command(&["join", "--out", "one", "--name", "edge-1", &address])
        .env("LONGHAUL_TOKEN", token.to_text().as_str())
        .output()
        .unwrap();
    ended(&by_environment, 0);
    let mut by_input = hub
        .command(&["join", "--out", "two", "--name", "edge-2", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    by_input.stdin.take().unwrap().write_all(token.to_text().as_bytes()).unwrap();
    assert!(by_input.wait().unwrap().success());
    fs::set_permissions(hub.path("token"), fs::Permissions::from_mode(0o644)).unwrap();
    let open = hub.join("three", &["--name", "edge-3"]);
    ended(&open, 1);
    assert!(stderr(&open).contains("chmod 600"), "{}", stderr(&open));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_at_once_as_many_join_as_there_are_uses() {
    let hub = Hub::start();
    let token = Arc::new(hub.token(&["--name", "edge-*", "--uses", "7"]));
    let port = hub.enroll_port;
    let joining = (0..50).map(|number| {
        let token = Arc::clone(&token);
        tokio::spawn(async move {
            let request = NodeKey::generate(KeyType::P256).unwrap().request().unwrap();
            let name = format!("edge-{number}");
            let join = Join {
                host: "127.0.0.1",
                port,
                token: &token,
                name: &name,
                certificate_request: &request,
                provider: default_provider(),
                time: Arc::new(DefaultTimeProvider),
            };
            match join.run().await {
                Ok(joined) => {
                    assert_eq!(joined.node_id.name(), name);
                    true
                }
                Err(JoinError::Refused) => false,
                Err(other) => panic!("{other}"),
            }
        })
    });
    let joining: Vec<_> = joining.collect();
    let mut joined_count = 0;
    for one in joining {
        joined_count += u32::from(one.await.unwrap());
    }
    assert_eq!(joined_count, 7);
    assert_eq!(hub.record(&token).use_count, 7);
}
