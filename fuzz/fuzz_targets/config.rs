//! The configuration file: the input is its text; or, when its first byte is odd, changes to the example that has every
//! option, so that the checks behind the TOML are reached. Nothing is opened: the files that it names are in memory.

#![no_main]
#![expect(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use longhaul::base::limits;
use longhaul::channel::{Address, NotsentLowat, TcpOptions};
use longhaul::config::{Config, ConfigError, FileError, Files};
use longhaul::crypto::identity::default_provider;
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::service::{DatagramOptions, Endpoint, Target, UdpAddress};
use rustls::crypto::CryptoProvider;
use zeroize::Zeroizing;

/// The changes of one run: more find nothing that fewer do not.
const CHANGES_MAX: usize = 40;

/// Sections of the example are shorter; changed ones may be longer.
const SECTION_LINES_MAX: usize = 20;

/// What changes put in: values that mean something somewhere, and names of the files.
const WORDS: [&str; 38] = [
    "",
    "dc-a",
    "dc-b",
    "spiffe://example/node/dc-b",
    "spiffe://other/node/dc-b",
    "node:dc-b",
    "*",
    "web",
    "tcp://[::1]:7443",
    "tls://dc-b:443",
    "unix:///run/x",
    "unix:///run//x",
    "tcp://h:0",
    "udp://h:53",
    "udp://h:0",
    "bench:",
    "off",
    "auto",
    "always",
    "system",
    "10s",
    "0s",
    "3650d",
    "1ms",
    "64MiB",
    "0B",
    "0660",
    "v2",
    "accept",
    "weighted",
    "standby",
    "failover",
    "constant:1024",
    "dc-b.key",
    "other.crt",
    "old.crt",
    "0.0.0.0:7444",
    "7d",
];

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(default_provider);
static FILES: LazyLock<Memory> = LazyLock::new(Memory::new);
static EXAMPLE: LazyLock<Vec<String>> = LazyLock::new(|| {
    let lines = example();
    // Else the checks behind its first problem would never be reached.
    read(&lines.join("\n")).unwrap_or_else(|error| panic!("{error}"));
    lines
});

/// Files by their names, wherever they are said to be.
struct Memory(BTreeMap<&'static str, Vec<u8>>);

impl Memory {
    /// A node's certificate and key that are right, and others that are not: of another node, expired, and of an
    /// authority that has nothing to do with them.
    fn new() -> Self {
        let validity = Validity::from_now(Duration::from_secs(30 * 86_400));
        let now = validity.not_before_unix();
        let past = Validity::between(now - 7200, now - 3600);
        let authority = CertificateAuthority::generate("example", KeyType::Ed25519, validity).unwrap();
        let other = CertificateAuthority::generate("example", KeyType::Ed25519, validity).unwrap();
        let issue = |name, validity| authority.issue_node(name, KeyType::Ed25519, validity).unwrap();
        let (own, neighbour, old) = (issue("dc-a", validity), issue("dc-b", validity), issue("dc-a", past));
        let public = |pem: &str| pem.as_bytes().to_vec();
        Self(BTreeMap::from([
            ("dc-a.crt", public(&own.certificate_pem)),
            ("dc-a.key", own.key_pem.as_bytes().to_vec()),
            ("ca.crt", public(authority.certificate_pem())),
            ("ca.key", authority.key_pem().as_bytes().to_vec()),
            // Not needed: the key is plain.
            ("ca.passphrase", b"a passphrase".to_vec()),
            ("admin.token", vec![b'x'; 32]),
            ("otlp-headers", b"authorization: Basic YTpi".to_vec()),
            ("dc-b.key", neighbour.key_pem.as_bytes().to_vec()),
            ("old.crt", public(&old.certificate_pem)),
            ("other.crt", public(other.certificate_pem())),
        ]))
    }
}

impl Files for Memory {
    fn read_public(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
        let found = path.file_name().and_then(|name| self.0.get(name.to_str()?));
        let missing = || FileError::Unreadable { path: path.to_owned(), reason: io::ErrorKind::NotFound.into() };
        found.map(|bytes| Zeroizing::new(bytes.clone())).ok_or_else(missing)
    }

    fn read_private(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
        match self.read_public(path)? {
            bytes if bytes.starts_with(b"-----BEGIN CERT") => {
                Err(FileError::TooOpen { path: path.to_owned(), mode: 0o644 })
            }
            bytes => Ok(bytes),
        }
    }
}

/// The lines of the example, without its comments and with the options that it only shows.
fn example() -> Vec<String> {
    let text = include_str!("../../examples/config/full.toml");
    let shown = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
        Some(_) => "",
        None => line,
    });
    shown.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The example, changed: each change is a line, what to do there, and text to do it with.
fn changed(mut input: &[u8]) -> String {
    let mut lines = EXAMPLE.clone();
    for _ in 0..CHANGES_MAX {
        let [line, what, size, rest @ ..] = input else { break };
        let (piece, after) = rest.split_at(rest.len().min(usize::from(*size)));
        input = after;
        let index = usize::from(*line) % lines.len();
        let piece = String::from_utf8_lossy(piece);
        let word = WORDS[usize::from(what >> 3)];
        let name = lines[index].split('=').next().unwrap_or_default().to_owned();
        match what & 7 {
            0 | 1 => lines[index] = format!("{name}= {:?}", format!("{word}{piece}")),
            2 => lines[index] = format!("{name}= [{word:?}, {piece:?}]"),
            3 => lines[index] = format!("{name}={piece}"),
            4 => lines.insert(index, piece.into_owned()),
            5 => drop(lines.remove(index)),
            6 => lines[index].extend([word, &piece]),
            _ => {
                // The section again, whose first line has its name or its address.
                let is_header = |line: &String| line.starts_with('[');
                let start = lines[..=index].iter().rposition(is_header).unwrap_or(0);
                let end = lines[index + 1..].iter().position(is_header).map_or(lines.len(), |end| index + 1 + end);
                let mut section = lines[start..end.min(start + SECTION_LINES_MAX)].to_vec();
                if let Some((name, _)) = section.get(1).and_then(|line| line.split_once('='))
                    && !(word.is_empty() && piece.is_empty())
                {
                    section[1] = format!("{name}= {:?}", format!("{word}{piece}"));
                }
                lines.extend(section);
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join("\n")
}

fn check_error(text: &str, error: &ConfigError) {
    assert!(!error.problems().is_empty());
    for problem in error.problems() {
        assert!(!problem.message().is_empty());
        assert!(problem.advice().is_none_or(|advice| !advice.is_empty()));
        if let Some(place) = problem.place() {
            assert!(text.get(place.clone()).is_some(), "{place:?} of {} bytes: {problem:?}", text.len());
        }
    }
    let lines = text.split('\n').count();
    let shown = error.to_string();
    let places = shown.lines().filter_map(|line| line.strip_prefix("/etc/node.toml:")?.split_once(':'));
    for (line, _) in places {
        assert!(line.parse().is_ok_and(|line: usize| (1..=lines).contains(&line)), "line {line} of {lines}\n{shown}");
    }
}

/// What the documents of [`Config`] promise.
fn check_config(config: &Config) {
    let own = &config.node.id;
    assert_eq!(own, config.identity.identity.node_id());
    assert!(config.node.memory_bytes_max >= limits::SESSION_WINDOW_BYTES_MAX);
    for listener in &config.listeners {
        check_tcp(&listener.options.tcp);
        assert!(listener.options.unix.mode <= 0o777);
    }
    let bound = config.listeners.iter().map(|listener| Endpoint::Stream(listener.address.clone()));
    let bound = bound.chain(config.forwards.iter().map(|forward| forward.listen.clone()));
    check_unique(bound.filter(|endpoint| !is_any_port(endpoint)));
    check_unique(config.links.iter().map(|link| &link.peer));
    check_unique(config.services.iter().map(|service| &service.name));
    for link in &config.links {
        assert!(link.peer != *own && link.peer.trust_domain() == own.trust_domain());
        let count: u32 = link.addresses.iter().map(|address| address.count).sum();
        assert!(!link.addresses.is_empty() && count <= limits::LINK_LANES_MAX);
        for address in &link.addresses {
            assert!(address.count > 0 && (1..=limits::LANE_WEIGHT_MAX).contains(&address.weight));
            assert!(!has_port_zero(&address.address));
        }
        check_tcp(&link.dial.tcp);
        check_duration(link.survive);
        check_duration(link.dial.timeout);
        assert!(!link.dial.timeout.is_zero());
    }
    for service in &config.services {
        assert!(own.relative(&service.name).is_ok() && !service.name.contains("://"));
        assert!((1..=1_000_000).contains(&service.connections_max) && !service.connect_timeout.is_zero());
        for target in service.targets.all() {
            match &target.target {
                Target::Address(address) => {
                    assert!(!matches!(address, Address::Tls { .. }) && !has_port_zero(address));
                }
                Target::Datagrams(address) => assert!(address.port > 0 && service.proxy_protocol.is_none()),
                Target::Bench => {}
            }
        }
        check_datagrams(&service.datagrams);
    }
    for forward in &config.forwards {
        assert!(forward.peer != *own && !matches!(forward.listen, Endpoint::Stream(Address::Tls { .. })));
        assert!(!config.listeners.is_empty() || config.links.iter().any(|link| link.peer == forward.peer));
        assert!((1..=1_000_000).contains(&forward.connections_max) && forward.unix.mode <= 0o777);
        check_datagrams(&forward.datagrams);
    }
    check_duration(config.node.survive);
    check_duration(config.node.shutdown_timeout);
}

fn check_datagrams(options: &DatagramOptions) {
    assert!((1..=1_000_000).contains(&options.flow_count_max));
    for duration in [options.idle_timeout, options.age_max] {
        check_duration(duration);
        assert!(!duration.is_zero());
    }
}

fn check_tcp(options: &TcpOptions) {
    assert!((1..=65_535).contains(&options.backlog));
    if let NotsentLowat::Bytes(bytes) = options.notsent_lowat {
        assert!(bytes > 0 && bytes <= 1 << 30);
    }
    let keepalive = options.keepalive.map(|keepalive| keepalive.idle);
    assert!(keepalive.is_none_or(|idle| idle >= Duration::from_secs(1) && idle.subsec_nanos() == 0));
    for duration in [keepalive, options.user_timeout].into_iter().flatten() {
        check_duration(duration);
    }
}

/// Sums of instants and durations need no care.
fn check_duration(duration: Duration) {
    assert!(duration <= Duration::from_secs(10 * 365 * 86_400));
}

fn has_port_zero(address: &Address) -> bool {
    matches!(address, Address::Tcp { port: 0, .. } | Address::Tls { port: 0, .. })
}

fn is_any_port(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Stream(address) => has_port_zero(address),
        Endpoint::Datagrams(UdpAddress { port, .. }) => *port == 0,
    }
}

fn check_unique<T: Eq + Hash + std::fmt::Debug>(values: impl Iterator<Item = T> + Clone) {
    let mut seen = HashSet::new();
    for value in values {
        assert!(!seen.contains(&value), "{value:?} is there twice");
        seen.insert(value);
    }
}

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::parse_with(text, Path::new("/etc/node.toml"), &*FILES, &PROVIDER)
}

fn check(text: &str) {
    match read(text) {
        Ok(config) => check_config(&config),
        Err(error) => check_error(text, &error),
    }
}

fuzz_target!(|input: &[u8]| {
    match input {
        [first, rest @ ..] if first & 1 == 1 => check(&changed(rest)),
        _ => {
            if let Ok(text) = std::str::from_utf8(input) {
                check(text);
            }
        }
    }
});
