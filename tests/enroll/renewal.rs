//! Certificates that are renewed: by hand and by themselves, with the hub away, and with ends at any moment.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use longhaul::enroll::Issuance;
use longhaul::enroll::store::Store;
use longhaul::issue::{CertificateAuthority, KeyType, Validity};

use crate::common::{Hub, Running, ended, free_port, stderr, stdout};

/// A hub that offers an echo, and a node that has joined it and has a forward there.
pub(crate) struct Net {
    pub(crate) hub: Hub,
    pub(crate) forward_port: u16,
}

impl Net {
    pub(crate) fn new() -> Self {
        let mut hub = Hub::start();
        let service = format!("\n[[service]]\nname = \"echo\"\ntarget = \"tcp://127.0.0.1:{}\"\n", echo());
        append(&hub.path("hub/hub.toml"), &service);
        hub.restart();
        hub.token(&["--name", "dc-b"]);
        ended(&hub.join("node", &[]), 0);
        let forward_port = free_port();
        let forward =
            format!("\n[[forward]]\nlisten = \"tcp://127.0.0.1:{forward_port}\"\npeer = \"hub\"\nservice = \"echo\"\n");
        append(&hub.path("node/node.toml"), &forward);
        Self { hub, forward_port }
    }

    pub(crate) fn node(&self) -> Running {
        let mut node = Running::start(&self.hub.path("node/node.toml"));
        node.logged("session connected");
        node
    }

    /// A connection through the link, over which an answer has come.
    pub(crate) fn connection(&self) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.forward_port)).unwrap();
        talk(&mut stream);
        stream
    }

    /// Gives the node a certificate that the hub knows, of which most of the time is over.
    fn age(&self) {
        let read = |name: &str| fs::read_to_string(self.hub.path(name)).unwrap();
        let authority = CertificateAuthority::from_pem(&read("hub/ca.crt"), &read("hub/ca.key")).unwrap();
        let now = now();
        let issued =
            authority.issue_node("dc-b", KeyType::P256, Validity::between(now - 80_000, now + 12_000)).unwrap();
        let newest = self.hub.store().issuances().unwrap().into_iter().find(|issuance| issuance.name == "dc-b");
        let issuance = Issuance {
            request_sha256: issued.spki_sha256,
            spki_sha256: issued.spki_sha256,
            serial: issued.serial,
            not_before_unix: now - 80_000,
            not_after_unix: now + 12_000,
            certificate: Some(issued.certificate_der.clone()),
            ..newest.unwrap()
        };
        self.hub.store().record(&issuance).unwrap();
        fs::write(self.hub.path("node/node.crt"), &issued.certificate_pem).unwrap();
        fs::write(self.hub.path("node/node.key"), issued.key_pem.as_str()).unwrap();
    }

    fn files(&self) -> [Vec<u8>; 3] {
        ["node.crt", "node.key", "ca.crt"].map(|name| fs::read(self.hub.path("node").join(name)).unwrap())
    }

    pub(crate) fn renew(&self) -> std::process::Output {
        self.hub.run(&["cert", "renew", "-c", "node/node.toml"])
    }
}

/// Says something and waits for the same.
pub(crate) fn talk(stream: &mut TcpStream) {
    let mut answer = [0; 5];
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

fn append(path: &Path, text: &str) {
    let before = fs::read_to_string(path).unwrap();
    fs::write(path, before + text).unwrap();
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A target that sends back what it gets: its port.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let (mut from, mut to) = (stream.as_ref().unwrap(), stream.as_ref().unwrap());
                let _ = std::io::copy(&mut from, &mut to);
            });
        }
    });
    port
}

#[test]
fn a_renewal_by_hand_reaches_the_running_node_and_no_stream_notices() {
    let net = Net::new();
    let mut node = net.node();
    let mut connection = net.connection();
    let before = net.files();
    let output = net.renew();
    ended(&output, 0);
    assert!(stdout(&output).starts_with("renewed spiffe://example/node/dc-b until "), "{}", stdout(&output));
    node.logged("identity exchanged");
    talk(&mut connection);
    let after = net.files();
    assert!(before[0] != after[0] && before[1] != after[1], "a new certificate, and a new key");
    assert_eq!(before[2], after[2]);
    ended(&net.hub.run(&["check-config", "-c", "node/node.toml"]), 0);
    assert_eq!(fs::read_dir(net.hub.path("node")).unwrap().count(), 4);
    let audit = net.hub.audit();
    let line = audit.lines().find(|line| line.contains("\"certificate-renewed\"")).unwrap();
    assert!(line.contains("\"name\":\"dc-b\"") && line.contains("\"address\":\"127.0.0.1\""), "{line}");
    // A new session has the new certificate.
    drop(node);
    let _node = net.node();
    net.connection();
}

#[test]
fn what_cannot_be_used_is_refused_and_the_old_identity_stays() {
    let net = Net::new();
    let mut node = net.node();
    let mut connection = net.connection();
    let [certificate, key, _] = net.files();
    let refused = "the new identity cannot be used; the one before stays in use";
    fs::write(net.hub.path("node/node.crt"), &certificate[..certificate.len() / 2]).unwrap();
    node.logged(refused);
    ended(&net.renew(), 3);
    // A pair of another authority is a pair, and no peer would accept it.
    for arguments in [&["cert", "ca", "--domain", "example"][..], &["cert", "node", "dc-b", "--ca", "other"]] {
        ended(&net.hub.run(&[arguments, &["--out", "other"]].concat()), 0);
    }
    for name in ["crt", "key"] {
        let (from, to) = (format!("other/dc-b.{name}"), format!("node/node.{name}"));
        fs::rename(net.hub.path(&from), net.hub.path(&to)).unwrap();
    }
    // A look between the two, or at the first file again, finds other reasons.
    while !node.logged(refused)["reason"].as_str().unwrap().contains("unknown issuer") {}
    talk(&mut connection);
    fs::write(net.hub.path("node/node.crt"), certificate).unwrap();
    fs::write(net.hub.path("node/node.key"), key).unwrap();
    ended(&net.renew(), 0);
    node.logged("identity exchanged");
    talk(&mut connection);
}

#[test]
fn a_node_renews_by_itself_as_soon_as_it_is_time_and_the_hub_is_there() {
    let mut net = Net::new();
    net.age();
    let old = net.files();
    // The hub is away: the node says so and runs.
    net.hub.kill();
    let mut node = Running::start(&net.hub.path("node/node.toml"));
    let event = node.logged("certificate cannot be renewed now; trying on");
    assert!(event["reason"].as_str().unwrap().contains("cannot be reached"), "{event}");
    assert_eq!(net.files()[..1], old[..1]);
    net.hub.restart();
    node.logged("certificate renewed");
    let mut connection = net.connection();
    assert_ne!(net.files()[0], old[0]);
    talk(&mut connection);
    let shown = stdout(&net.hub.run(&["cert", "show", "--json", "node/node.crt"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(shown[0]["not_after_unix"].as_i64().unwrap() > now() + 80_000, "{shown}");
}

#[test]
fn a_hub_renews_its_own_certificate() {
    let mut hub = Hub::start();
    hub.kill();
    let read = |name: &str| fs::read_to_string(hub.path(name)).unwrap();
    let authority = CertificateAuthority::from_pem(&read("hub/ca.crt"), &read("hub/ca.key")).unwrap();
    let validity = Validity::between(now() - 80_000, now() + 6_000);
    let issued = authority.issue_node("hub", KeyType::P256, validity).unwrap();
    let first = hub.store().issuances().unwrap().remove(0);
    let issuance = Issuance { spki_sha256: issued.spki_sha256, ..first };
    hub.store().record(&issuance).unwrap();
    fs::write(hub.path("hub/hub.crt"), &issued.certificate_pem).unwrap();
    fs::write(hub.path("hub/hub.key"), issued.key_pem.as_str()).unwrap();
    let mut running = Running::start(&hub.path("hub/hub.toml"));
    running.logged("certificate renewed");
    let shown = stdout(&hub.run(&["cert", "show", "--json", "hub/hub.crt"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(shown[0]["not_after_unix"].as_i64().unwrap() > now() + 80_000, "{shown}");
    ended(&hub.run(&["check-config", "-c", "hub/hub.toml"]), 0);
}

/// Also that of a hub that answers: what is asked for again is given again, and what came last counts.
#[test]
fn a_renewal_that_is_killed_leaves_a_node_that_works() {
    let net = Net::new();
    for step in 0..6 {
        let mut command = net.hub.command(&["cert", "renew", "-c", "node/node.toml"]);
        let mut renewing = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // At another moment each time, whichever it is: before the key, after it, or when all is over.
        let staged = net.hub.path("node/node.key.next");
        while step > 0 && !staged.exists() && renewing.try_wait().unwrap().is_none() {}
        let at = net.files();
        while step > 2 && net.files() == at && renewing.try_wait().unwrap().is_none() {}
        renewing.kill().unwrap();
        renewing.wait().unwrap();
        ended(&net.hub.run(&["check-config", "-c", "node/node.toml"]), 0);
    }
    ended(&net.renew(), 0);
    let key = fs::read_to_string(net.hub.path("node/node.key")).unwrap();
    assert_eq!(key.matches("BEGIN").count(), 1);
    let _node = net.node();
    net.connection();
}

#[test]
fn a_directory_that_takes_nothing_costs_no_certificate() {
    let net = Net::new();
    let before = net.files();
    let program = env!("CARGO_BIN_EXE_longhaul");
    let script = format!("trap '' XFSZ; ulimit -f 0; exec {program} cert renew -c node/node.toml");
    let output = Command::new("sh").args(["-c", &script]).current_dir(net.hub.path(".")).output().unwrap();
    ended(&output, 1);
    assert!(stderr(&output).contains("node.key.next cannot be written"), "{}", stderr(&output));
    assert_eq!(net.files(), before);
    assert!(!net.hub.audit().contains("certificate-renewed"), "{}", net.hub.audit());
    ended(&net.renew(), 0);
}

#[test]
fn only_who_was_let_in_here_renews() {
    let net = Net::new();
    // From the same authority, but past the hub.
    ended(&net.hub.run(&["cert", "node", "dc-b", "--ca", "hub", "--out", "made"]), 0);
    for name in ["crt", "key"] {
        let (from, to) = (format!("made/dc-b.{name}"), format!("node/node.{name}"));
        fs::rename(net.hub.path(&from), net.hub.path(&to)).unwrap();
    }
    let output = net.renew();
    ended(&output, 4);
    assert!(stderr(&output).contains("the hub refused to renew"), "{}", stderr(&output));
    let audit = net.hub.audit();
    assert!(audit.contains("\"renewal-refused\"") && audit.contains("unknown-certificate"), "{audit}");
    // Without the section there is nothing to be asked.
    let config = net.hub.path("node/node.toml");
    let text = fs::read_to_string(&config).unwrap();
    let without: String = text.split("[renew]").next().unwrap().to_owned();
    fs::write(&config, without).unwrap();
    ended(&net.renew(), 2);
}
