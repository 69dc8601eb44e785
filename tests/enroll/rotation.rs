//! From one authority to another, step by step, with a node that stays connected and gets every certificate by itself.

use std::fs;

use crate::common::{Hub, Running, ended, stderr, stdout};
use crate::renewal::{Net, talk};

fn rotate(hub: &Hub, step: &str, code: i32) -> String {
    let output = hub.run(&["hub", "rotate", "--state", "hub", step]);
    ended(&output, code);
    stderr(&output)
}

fn anchors(hub: &Hub, file: &str) -> usize {
    fs::read_to_string(hub.path(file)).unwrap().matches("BEGIN").count()
}

fn issuer_key(hub: &Hub) -> String {
    fs::read_to_string(hub.path("hub/ca.key")).unwrap()
}

#[test]
fn an_authority_is_changed_and_no_node_joins_again() {
    let mut net = Net::new();
    let mut node = net.node();
    let mut connection = net.connection();
    let old_key = issuer_key(&net.hub);
    assert!(rotate(&net.hub, "switch", 1).contains("there is no next authority"));

    rotate(&net.hub, "begin", 0);
    rotate(&net.hub, "begin", 0);
    assert_eq!((anchors(&net.hub, "hub/ca.crt"), anchors(&net.hub, "node/ca.crt")), (2, 1));
    assert_eq!(issuer_key(&net.hub), old_key);
    let refused = rotate(&net.hub, "switch", 1);
    assert!(refused.contains("not heard of the next authority: dc-b;"), "{refused}");
    // The running hub has to have taken its own file before it can tell of it.
    while anchors(&net.hub, "node/ca.crt") < 2 {
        ended(&net.renew(), 0);
        node.logged("identity exchanged");
    }
    talk(&mut connection);

    assert!(rotate(&net.hub, "finish", 1).contains("not in use yet"));
    rotate(&net.hub, "switch", 0);
    assert_ne!(issuer_key(&net.hub), old_key);
    assert!(!net.hub.path("hub/next.key").exists());
    ended(&net.hub.run(&["check-config", "-c", "hub/hub.toml"]), 0);
    talk(&mut connection);
    net.hub.restart();
    node.logged("session connected");
    let refused = rotate(&net.hub, "finish", 1);
    assert!(refused.contains("certificates of the old authority: dc-b;"), "{refused}");
    let mut connection = net.connection();
    ended(&net.renew(), 0);
    node.logged("identity exchanged");

    rotate(&net.hub, "finish", 0);
    assert_eq!(anchors(&net.hub, "hub/ca.crt"), 1);
    while anchors(&net.hub, "node/ca.crt") > 1 {
        ended(&net.renew(), 0);
        node.logged("identity exchanged");
    }
    talk(&mut connection);
    // Everything begins under the new authority, and what was denied is denied.
    net.hub.restart();
    node.logged("session connected");
    talk(&mut net.connection());
    net.hub.token(&["--name", "dc-c"]);
    ended(&net.hub.join("other", &[]), 0);
    let mut other = Running::start(&net.hub.path("other/node.toml"));
    other.logged("session connected");
    ended(&net.hub.run(&["node", "revoke", "--state", "hub", "dc-b"]), 0);
    node.logged("session ended");
    let steps = net.hub.run(&["audit", "--state", "hub", "--event", "authority-rotated"]);
    assert_eq!(stdout(&steps).lines().count(), 4, "{}", stdout(&steps));
}

#[test]
fn the_audit_log_is_printed_and_filtered() {
    let net = Net::new();
    net.hub.token(&["--name", "dc-c"]);
    ended(&net.hub.run(&["node", "revoke", "--state", "hub", "dc-b"]), 0);
    let audit = |options: &[&str]| {
        let output = net.hub.run(&[&["audit", "--state", "hub"], options].concat());
        ended(&output, 0);
        let lines: Vec<serde_json::Value> =
            stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.into_iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = audit(&[]);
    assert_eq!(all, ["hub-made", "token-created", "certificate-issued", "token-created", "revoked"]);
    assert_eq!(audit(&["-n", "2"]), all[3..]);
    assert_eq!(audit(&["--event", "token-created", "--event", "hub-made"]).len(), 3);
    assert_eq!(audit(&["--name", "dc-b"]), ["token-created", "certificate-issued", "revoked"]);
    assert_eq!(audit(&["--since", "9999"]), Vec::<String>::new());
    let listed = stdout(&net.hub.run(&["token", "list", "--state", "hub", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let of_node = listed.as_array().unwrap().iter().find(|token| token["name"] == "dc-b").unwrap();
    let id = of_node["id"].as_str().unwrap();
    assert_eq!(audit(&["--token", id]), ["token-created", "certificate-issued"]);
    ended(&net.hub.run(&["audit", "--state", "nowhere"]), 1);
}
