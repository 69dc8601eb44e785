//! Guests: machines with a token and no certificate, as processes on both sides.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use longhaul::base::{Secret, SystemEntropy, limits};
use longhaul::crypto::token::JoinToken;
use longhaul::enroll::TokenRecord;
use longhaul::enroll::store::Store;

use crate::common::{Hub, Running, ended, free_port, stderr, write_private};

/// A hub that takes guests, with an echo for them and one for nodes.
pub(crate) fn hub() -> Hub {
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in echo.incoming().flatten() {
            std::thread::spawn(move || {
                let mut to = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut &stream, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    let mut hub = Hub::start();
    let config = hub.path("hub/hub.toml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("[[listen]]\n", "[[listen]]\nguests = true\n");
    let services = [("guests", "['guest']"), ("nodes", "['*']")]
        .map(|(name, allow)| format!("[[service]]\nname = '{name}'\ntarget = 'tcp://{target}'\nallow = {allow}\n"));
    fs::write(&config, format!("{text}\n{}", services.concat())).unwrap();
    hub.restart();
    hub
}

/// A guest's configuration in `name`, with the file `token`: the ports that lead to the services.
pub(crate) fn configure(hub: &Hub, name: &str) -> [u16; 2] {
    let ports = [free_port(), free_port()];
    fs::create_dir_all(hub.path(name)).unwrap();
    fs::copy(hub.path("token"), hub.path(name).join("token")).unwrap();
    let forwards = ["guests", "nodes"].iter().zip(ports).map(|(service, port)| {
        format!("[[forward]]\nlisten = 'tcp://127.0.0.1:{port}'\npeer = 'hub'\nservice = '{service}'\n")
    });
    let text = format!(
        "[identity]\ntoken_file = 'token'\ntrust_domain = 'example'\n[[link]]\npeer = 'hub'\naddresses = ['tcp://127.0.0.1:{}']\n{}",
        hub.channel_port,
        forwards.collect::<String>()
    );
    fs::write(hub.path(name).join("guest.toml"), text).unwrap();
    ports
}

pub(crate) fn run(hub: &Hub, name: &str) -> Running {
    Running::start(&hub.path(name).join("guest.toml"))
}

/// What comes back of a word.
pub(crate) fn echoed(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"hello").ok()?;
    stream.shutdown(std::net::Shutdown::Write).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok().map(|_| text)
}

#[test]
fn a_guest_uses_what_is_for_guests_and_nothing_else() {
    let hub = hub();
    let token = hub.token(&["--guest", "--name", "laptop"]);
    let [guests, nodes] = configure(&hub, "one");
    ended(&hub.run(&["check-config", "-c", "one/guest.toml"]), 0);
    let mut guest = run(&hub, "one");
    assert_eq!(guest.logged("session connected")["peer"], "spiffe://example/node/hub");
    assert_eq!(echoed(guests).as_deref(), Some("hello"));
    assert_eq!(echoed(nodes), None);
    let audit = hub.audit();
    assert!(audit.contains("\"event\":\"guest-admitted\"") && audit.contains("\"name\":\"laptop\""), "{audit}");
    assert!(!audit.contains("lhjoin_"));
    assert_eq!(hub.record(&token).use_count, 1);
    // It is used up, and the guest that is in stays in.
    configure(&hub, "two");
    let mut second = run(&hub, "two");
    assert!(second.logged("peer cannot be reached")["error"].as_str().unwrap().contains("did not accept the token"));
    assert!(hub.audit().contains("\"reason\":\"used-up\""), "{}", hub.audit());
    assert_eq!(echoed(guests).as_deref(), Some("hello"));
}

#[test]
fn every_wrong_token_is_refused_alike_and_audited_apart() {
    let hub = hub();
    let mut number = 0;
    let mut refused = |reason: &str| {
        number += 1;
        let name = format!("guest-{number}");
        configure(&hub, &name);
        let error = run(&hub, &name).logged("peer cannot be reached")["error"].as_str().unwrap().to_owned();
        let audit = hub.audit();
        let last = audit.lines().rfind(|line| line.contains("guest-refused")).unwrap();
        assert!(last.contains(&format!("\"reason\":\"{reason}\"")), "{reason}: {last}");
        error
    };
    let mut errors = Vec::new();
    hub.token(&["--guest", "--name", "laptop", "--cidr", "192.0.2.0/24"]);
    errors.push(refused("wrong-address"));
    hub.token(&["--guest", "--name", "laptop-*"]);
    errors.push(refused("wrong-name"));
    let token = hub.token(&["--guest", "--name", "laptop"]);
    ended(&hub.run(&["token", "revoke", "--state", "hub", &token.id().to_string()]), 0);
    errors.push(refused("revoked"));
    let token = hub.token(&["--name", "dc-b"]);
    errors.push(refused("wrong-kind"));
    // A year in the past, and one that is told by a clock a year ahead.
    let pin = *token.authority_pin();
    let make = || JoinToken::generate(pin, &mut SystemEntropy::new());
    let expired = make();
    let record = TokenRecord {
        id: expired.id(),
        public_key: expired.public_key(),
        is_for_guests: true,
        not_after_unix: hub.record(&token).created_unix - 365 * 86_400,
        ..hub.record(&token)
    };
    hub.store().add_token(&record).unwrap();
    write_private(&hub.path("token"), &expired.to_text());
    errors.push(refused("expired"));
    write_private(&hub.path("token"), &make().to_text());
    errors.push(refused("unknown-token"));
    let right = hub.token(&["--guest", "--name", "laptop"]);
    let guessed = JoinToken::from_parts(right.id(), Secret::new([7; 32]), pin);
    write_private(&hub.path("token"), &guessed.to_text());
    errors.push(refused("wrong-proof"));
    errors.dedup();
    assert_eq!(errors.len(), 1, "a guest hears nothing of why: {errors:#?}");
}

#[test]
fn a_token_for_guests_is_worth_no_certificate() {
    let hub = hub();
    hub.token(&["--guest", "--name", "laptop"]);
    let output = hub.join("node", &[]);
    ended(&output, 4);
    assert!(!stderr(&output).contains("guest"), "{}", stderr(&output));
    assert!(hub.audit().contains("\"reason\":\"wrong-kind\""), "{}", hub.audit());
}

/// A guest that goes on with a wrong secret locks its token, and keeps nobody else out.
#[test]
fn wrong_proofs_of_guests_lock_their_token_alone() {
    let hub = hub();
    let right = hub.token(&["--guest", "--name", "laptop", "--uses", "9"]);
    let guessed = JoinToken::from_parts(right.id(), Secret::new([7; 32]), *right.authority_pin());
    write_private(&hub.path("token"), &guessed.to_text());
    configure(&hub, "wrong");
    let mut wrong = run(&hub, "wrong");
    for _ in 0..limits::WRONG_PROOFS_MAX {
        wrong.logged("peer cannot be reached");
    }
    assert!(hub.audit().contains("token-locked"), "{}", hub.audit());
    write_private(&hub.path("token"), &right.to_text());
    configure(&hub, "right");
    run(&hub, "right").logged("peer cannot be reached");
    assert!(hub.audit().contains("\"reason\":\"locked\""), "{}", hub.audit());
    hub.token(&["--guest", "--name", "other"]);
    configure(&hub, "other");
    run(&hub, "other").logged("session connected");
}

/// A token that is taken back takes back what came by it, and nothing else.
#[test]
fn revoking_a_token_ends_the_sessions_that_came_by_it() {
    let hub = hub();
    let kept = hub.token(&["--guest", "--name", "kept"]);
    let [kept_port, _] = configure(&hub, "kept");
    let mut other = run(&hub, "kept");
    other.logged("session connected");
    // By the token's own revocation, and by that of everything that came by it.
    for (name, command) in [("one", &["token", "revoke"][..]), ("two", &["node", "revoke", "--token"])] {
        let token = hub.token(&["--guest", "--name", name, "--uses", "9"]);
        let [port, _] = configure(&hub, name);
        let mut guest = run(&hub, name);
        guest.logged("session connected");
        assert_eq!(echoed(port).as_deref(), Some("hello"));
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        connection.write_all(b"x").unwrap();
        connection.read_exact(&mut [0]).unwrap();
        let id = token.id().to_string();
        let (verb, option) = command.split_at(2);
        ended(&hub.run(&[verb, &["--state", "hub"], option, &[&id]].concat()), 0);
        let event = guest.logged("session ended");
        assert!(event["reason"].as_str().unwrap().contains("the token was revoked"), "{event}");
        assert!(!matches!(connection.read(&mut [0; 1]), Ok(1..)), "the connection is over");
        // It does not come back, though the token has uses left.
        let event = guest.logged("peer cannot be reached");
        assert!(event["error"].as_str().unwrap().contains("did not accept the token"), "{event}");
        let name = format!("\"name\":\"{name}\"");
        let is_told = |line: &str| line.contains("session-down") && line.contains(&name) && line.contains("revoked");
        while !hub.audit().lines().any(is_told) {
            std::thread::yield_now();
        }
    }
    assert_eq!(echoed(kept_port).as_deref(), Some("hello"));
    assert_eq!(hub.record(&kept).use_count, 1, "the other guest has never been away");
}

/// What was revoked while the hub was away ends nothing that is new, and lets nobody in.
#[test]
fn a_token_that_was_revoked_and_allowed_again_lets_guests_in() {
    let hub = hub();
    let token = hub.token(&["--guest", "--name", "laptop", "--uses", "9"]);
    let [port, _] = configure(&hub, "one");
    let mut guest = run(&hub, "one");
    guest.logged("session connected");
    let id = token.id().to_string();
    ended(&hub.run(&["node", "revoke", "--state", "hub", "--token", &id]), 0);
    guest.logged("session ended");
    ended(&hub.run(&["node", "unrevoke", "--state", "hub", "--token", &id]), 0);
    guest.logged("session connected");
    assert_eq!(echoed(port).as_deref(), Some("hello"));
}
