//! Ends of either side at any moment, and disks that do not take anything: nothing is lost, nothing is given twice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;

use crate::common::{Hub, Running, ended, stderr, stdout};
use crate::renewal::{Net, talk};

#[test]
fn a_client_that_lost_the_answer_gets_the_same_certificate_again() {
    let mut hub = Hub::start();
    let token = hub.token(&["--name", "dc-b"]);
    hub.kill();
    ended(&hub.join("node", &[]), 5);
    let pending = ["join.key", "join.csr"].map(|name| (name, fs::read(hub.path("node").join(name)).unwrap()));
    hub.restart();
    ended(&hub.join("node", &[]), 0);
    let certificate = fs::read(hub.path("node/node.crt")).unwrap();
    let key = fs::read(hub.path("node/node.key")).unwrap();
    assert_eq!(key, pending[0].1);
    // As if the machine had died between the hub's commit and its own: at each of its steps.
    for kept in [&[][..], &["ca.crt"], &["ca.crt", "node.key"], &["ca.crt", "node.key", "node.crt", "node.toml"]] {
        for name in ["ca.crt", "node.key", "node.crt", "node.toml"] {
            if !kept.contains(&name) {
                fs::remove_file(hub.path("node").join(name)).unwrap();
            }
        }
        for (name, bytes) in &pending {
            let path = hub.path("node").join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        hub.restart();
        ended(&hub.join("node", &[]), 0);
        assert_eq!(fs::read(hub.path("node/node.crt")).unwrap(), certificate);
        assert_eq!(fs::read(hub.path("node/node.key")).unwrap(), key);
    }
    assert_eq!(hub.record(&token).use_count, 1);
}

#[test]
fn a_hub_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    const CLIENTS: usize = 12;
    let mut hub = Hub::start();
    let token = hub.token(&["--name", "edge-*", "--uses", &CLIENTS.to_string()]);
    let address = format!("127.0.0.1:{}", hub.enroll_port);
    let join = |hub: &Hub, number: usize| {
        let (name, out) = (format!("edge-{number}"), format!("node-{number}"));
        hub.command(&["join", "--token-file", "token", "--out", &out, "--name", &name, &address])
    };
    let joining: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let mut command = join(&hub, number);
            thread::spawn(move || {
                // Until it is in; nothing but an absent hub may keep it out.
                for _ in 0..10_000 {
                    let output = command.output().unwrap();
                    match output.status.code() {
                        Some(0) => return,
                        Some(5) => {}
                        other => panic!("{other:?}: {}", stderr(&output)),
                    }
                }
                panic!("the hub never came back");
            })
        })
        .collect();
    // Each time that somebody got in, or somebody has waited long enough, the hub dies in the middle of the others.
    for _ in 0..8 {
        if joining.iter().all(thread::JoinHandle::is_finished) {
            break;
        }
        hub.restart();
    }
    for one in joining {
        one.join().unwrap();
    }
    assert_eq!(hub.record(&token).use_count as usize, CLIENTS);
    let serials: std::collections::BTreeSet<_> = (0..CLIENTS)
        .map(|number| {
            let shown = hub.run(&["cert", "show", &format!("node-{number}/node.crt")]);
            stdout(&shown).lines().find(|line| line.contains("serial")).unwrap().to_owned()
        })
        .collect();
    assert_eq!(serials.len(), CLIENTS);
    // One more does not get in.
    let one_more = join(&hub, CLIENTS).output().unwrap();
    ended(&one_more, 4);
}

#[test]
fn a_hub_without_its_state_says_so_and_goes_on() {
    let mut hub = Hub::start();
    hub.token(&["--name", "dc-b"]);
    fs::rename(hub.path("hub/state.redb"), hub.path("away")).unwrap();
    let output = hub.join("node", &[]);
    ended(&output, 1);
    assert!(stderr(&output).contains("cannot issue certificates now"), "{}", stderr(&output));
    assert!(hub.is_running());
    fs::rename(hub.path("away"), hub.path("hub/state.redb")).unwrap();
    ended(&hub.join("node", &[]), 0);
    // Started without it, the node still runs.
    fs::rename(hub.path("hub/state.redb"), hub.path("away")).unwrap();
    hub.restart();
    assert!(hub.is_running());
}

/// The hub's own disk: nobody gets in, whoever is in does not notice, and the same command works when there is room.
#[test]
fn a_hub_whose_disk_is_full_lets_nobody_in_and_serves_its_nodes() {
    let mut net = Net::new();
    let mut node = net.node();
    net.hub.kill();
    let mut full = Running::start_on_a_full_disk(&net.hub.path("hub/hub.toml"));
    full.logged("ready");
    node.logged("session ended");
    node.logged("session connected");
    let mut connection = net.connection();
    // The command has a process of its own, for which there is room.
    let token = net.hub.token(&["--name", "dc-c"]);
    let output = net.hub.join("other", &[]);
    ended(&output, 1);
    assert!(stderr(&output).contains("cannot issue certificates now"), "{}", stderr(&output));
    ended(&net.renew(), 1);
    assert!(full.is_running());
    talk(&mut connection);
    assert_eq!(net.hub.record(&token).use_count, 0);
    drop(full);
    net.hub.restart();
    ended(&net.hub.join("other", &[]), 0);
    assert_eq!(net.hub.record(&token).use_count, 1);
    ended(&net.renew(), 0);
}

/// A file system that takes nothing more, as a limit on the size of files makes one.
#[test]
fn a_disk_that_takes_nothing_is_told_and_leaves_the_state_whole() {
    let hub = Hub::start();
    let token = hub.token(&["--name", "dc-b"]);
    let program = env!("CARGO_BIN_EXE_longhaul");
    let script = format!("trap '' XFSZ; ulimit -f 0; exec {program} token create --state hub --name dc-c");
    let output = Command::new("sh").args(["-c", &script]).current_dir(hub.path(".")).output().unwrap();
    ended(&output, 1);
    let error = stderr(&output);
    assert!(error.contains("hub/state.redb cannot be used") && stdout(&output).is_empty(), "{error}");
    assert_eq!(hub.record(&token).use_count, 0);
    ended(&hub.join("node", &[]), 0);
}
