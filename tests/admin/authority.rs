//! What a hub shows of its tokens and certificates.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::common::{Place, Program, soon};

/// Runs a command, which has to succeed: what it prints.
async fn longhaul(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    let output = soon(command.args(arguments).env_remove("LONGHAUL_LOG").stdin(Stdio::null()).output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(output.stderr));
    text(output.stdout)
}

async fn answer(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

async fn status(port: u16) -> Value {
    serde_json::from_str(&answer(port, "/status").await).unwrap()
}

/// Looks until the authority is as it should be.
async fn until(port: u16, is_good: impl Fn(&Value) -> bool) -> Value {
    soon(async {
        loop {
            let authority = status(port).await["authority"].take();
            if is_good(&authority) {
                return authority;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_shows_tokens_and_certificates_and_no_secrets() {
    let place = Place::new();
    let hub = place.path("hub");
    longhaul(&["hub", "init", "--domain", "example", "--out", text(&hub)]).await;
    let config = std::fs::read_to_string(hub.join("hub.toml")).unwrap();
    let config = config.replace("[::]:7443", "127.0.0.1:0").replace("0.0.0.0:7443", "127.0.0.1:0");
    std::fs::write(hub.join("hub.toml"), format!("{config}\n[admin]\nlisten = [\"tcp://127.0.0.1:0\"]\n")).unwrap();
    let mut node = Program::start(&hub.join("hub.toml"), &[]);
    let enrol = node.logged("enrolling beside channels").await["address"].as_str().unwrap().to_owned();
    let admin = node.port("admin listening").await;
    let before = until(admin, |authority| authority["token_count"] == 0).await;
    let issued_before = before["certificates_issued"].as_u64().unwrap();

    let token_file = place.path("b.token");
    longhaul(&["token", "create", "--state", text(&hub), "--name", "b", "--out", text(&token_file)]).await;
    let made = until(admin, |authority| authority["token_count"] == 1).await;
    let token = &made["tokens"][0];
    assert_eq!((&token["state"], &token["name"], &token["use_count"]), (&"valid".into(), &"b".into(), &0.into()));
    assert!(token["not_after_unix"].as_u64().unwrap() > 1_700_000_000);
    let secret = std::fs::read_to_string(&token_file).unwrap();
    let shown = made.to_string();
    assert!(!shown.contains(secret.trim()) && !shown.contains("public_key"), "{shown}");

    let out = place.path("joined");
    let address = enrol.strip_prefix("tcp://").unwrap();
    longhaul(&["join", "--token-file", text(&token_file), "--out", text(&out), address]).await;
    let joined = until(admin, |authority| authority["tokens"][0]["state"] == "used up").await;
    assert_eq!(joined["certificates_issued"], issued_before + 1);
    let node_of = |authority: &Value, name: &str| {
        let nodes = authority["nodes"].as_array().unwrap().clone();
        nodes.into_iter().find(|node| node["name"] == name).map_or(Value::Null, |node| node["state"].clone())
    };
    assert_eq!(node_of(&joined, "b"), "valid");

    longhaul(&["node", "revoke", "--state", text(&hub), "b"]).await;
    let denied = until(admin, |authority| authority["denied_count"] == 1).await;
    assert_eq!(node_of(&denied, "b"), "revoked");
    let lines = longhaul(&["status", "--admin", &format!("tcp://127.0.0.1:{admin}")]).await;
    assert!(lines.contains("1 on the denylist") && lines.contains("used up") && lines.contains("revoked"), "{lines}");
    assert!(!lines.contains(secret.trim()));
    let metrics = answer(admin, "/metrics").await;
    for wanted in [
        "longhaul_authority_token{state=\"used-up\"} 1",
        "longhaul_authority_token{state=\"valid\"} 0",
        "longhaul_authority_node{state=\"revoked\"} 1",
        "longhaul_authority_denied 1",
        "longhaul_authority_event_total{event=\"certificate-issued\"} 1",
        "longhaul_authority_event_total{event=\"enrolment-refused\"} 0",
    ] {
        assert!(metrics.contains(wanted), "{wanted}\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_no_hub_has_no_authority() {
    let place = Place::new();
    let listen = "[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n";
    let mut node = place.start("a", &format!("[admin]\nlisten = [\"tcp://127.0.0.1:0\"]\n{listen}"));
    let port = node.port("admin listening").await;
    assert_eq!(status(port).await["authority"], Value::Null);
}
