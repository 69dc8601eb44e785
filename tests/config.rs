//! The configuration file: the examples are right and complete, and mistakes are told with place and advice.

#![cfg(all(feature = "cli", any(feature = "aws-lc-rs", feature = "ring")))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longhaul::base::SystemEntropy;
use longhaul::channel::{Address, ChannelKind, Congestion};
use longhaul::config::{Changes, Config, ConfigError};
use longhaul::crypto::identity::{PeerIdentity, default_provider};
use longhaul::crypto::token::JoinToken;
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::node::{Entrances, LaneRole};
use longhaul::service::{Allow, BalanceOptions, CheckKind, DatagramOptions, Strategy};
use longhaul::session::scheduler::Policy;
use longhaul::stream::Priority;

const IDENTITY: &str = "[identity]\ncertificate = 'a.crt'\nkey = 'a.key'\ntrust_anchors = 'ca.crt'\n";

/// A directory as the repository has it: `examples/config/` beside `certs/` with certificates of dc-a and dc-b.
struct Place {
    root: tempfile::TempDir,
    authority: CertificateAuthority,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
        let place = Self { root, authority };
        fs::create_dir_all(place.path("examples/config")).unwrap();
        fs::create_dir_all(place.path("certs")).unwrap();
        fs::write(place.path("certs/ca.crt"), place.authority.certificate_pem()).unwrap();
        fs::write(place.path("ca.crt"), place.authority.certificate_pem()).unwrap();
        write_private(&place.path("certs/ca.key"), &place.authority.key_pem());
        for passphrase in ["ca", "other"] {
            write_private(
                &place.path(&format!("examples/config/{passphrase}.passphrase")),
                "not needed for a plain key",
            );
        }
        write_private(&place.path("certs/otlp-headers"), "authorization: Basic YTpi\n");
        write_private(&place.path("certs/admin.token"), &"x".repeat(40));
        let token = JoinToken::generate(place.authority.spki_sha256(), &mut SystemEntropy::new());
        write_private(&place.path("certs/guest.token"), &token.to_text());
        for (name, files) in [("dc-a", "certs/dc-a"), ("dc-b", "certs/dc-b"), ("a", "a"), ("b", "b")] {
            place.issue(name, files, day());
        }
        place
    }

    fn issue(&self, name: &str, files: &str, validity: Validity) {
        let node = self.authority.issue_node(name, KeyType::P256, validity).unwrap();
        fs::write(self.path(&format!("{files}.crt")), &node.certificate_pem).unwrap();
        write_private(&self.path(&format!("{files}.key")), &node.key_pem);
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Checks `text` as the file `name`.
    fn check(&self, name: &str, text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, &self.path(name), &default_provider())
    }

    /// What is wrong with node `a` and these further sections.
    fn mistakes(&self, sections: &str) -> Vec<String> {
        match self.check("a.toml", &format!("{IDENTITY}{sections}")) {
            Ok(config) => panic!("no mistake found: {config:?}"),
            Err(error) => error.problems().iter().map(|problem| problem.message().to_owned()).collect(),
        }
    }
}

fn write_private(path: &Path, pem: &str) {
    fs::write(path, pem).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn day() -> Validity {
    Validity::from_now(Duration::from_secs(86_400))
}

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/config").join(name)).unwrap()
}

/// `full.toml` with all options set that it only shows.
fn full_with_everything() -> String {
    let uncomment = |line: &str| {
        let shown = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        format!("{}\n", shown.unwrap_or(line))
    };
    example("full.toml").lines().map(uncomment).collect()
}

#[test]
fn every_example_is_a_valid_configuration() {
    let place = Place::new();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/config");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let config = place.check(&format!("examples/config/{name}"), &example(&name));
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        assert!(config.warnings.is_empty(), "{name}: {:?}", config.warnings);
        count += 1;
    }
    assert!(count >= 3);
    place.check("examples/config/full.toml", &full_with_everything()).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_full_example_has_every_option_in_its_section() {
    let place = Place::new();
    // A guest has other options under [identity] than a node, and a file of its own.
    let full = format!("{}\n{}", full_with_everything(), example("guest.toml"));
    let sections = [
        "[node]",
        "[limits]",
        "[log]",
        "[admin]",
        "[identity]",
        "[enroll]",
        "[renew]",
        "[telemetry]",
        "[[listen]]",
        "[listen.quic]",
        "[[link]]",
        "[link.quic]",
        "[[service]]",
        "[service.check]",
        "[[forward]]",
    ];
    for section in sections {
        let of = section.strip_suffix(".quic]").or_else(|| section.strip_suffix(".check]"));
        let of = of.map(|name| format!("[{name}]]\n")).unwrap_or_default();
        let error = place.check("x.toml", &format!("{of}{section}\nno_such_option = 1\n")).unwrap_err();
        let message = error.problems()[0].message().to_owned();
        let (_, known) = message.split_once("expected ").unwrap_or_else(|| panic!("{message}"));
        let known = known.trim_start_matches("one of ").replace(" or ", ", ");
        let parts: Vec<&str> = full.split(section).skip(1).collect();
        for option in known.split(", ").map(|option| option.trim_matches('`')) {
            let is_there = parts.iter().any(|part| {
                part.lines()
                    .take_while(|line| !line.starts_with('['))
                    .any(|line| line.starts_with(&format!("{option} =")))
            });
            // `address` is another name of `addresses` in a link; `quic` and `check` are sections of their own.
            let is_elsewhere = (section, option) == ("[[link]]", "address") || option == "quic" || option == "check";
            assert!(is_there || is_elsewhere, "{section} {option} is not in full.toml");
        }
    }
}

/// Another value for an option, as different as can be without being wrong.
fn another(section: &str, option: &str, value: &str) -> String {
    let special = match (section, option) {
        ("[log]", "key_log_file") => "\"other.keys\"".to_owned(),
        ("[log]", _) => "\"debug\"".to_owned(),
        ("[admin]", "listen") => value.replace("7445", "7446"),
        ("[listen.quic]" | "[link.quic]", "congestion") => "\"cubic\"".to_owned(),
        (_, "congestion") => "\"system\"".to_owned(),
        (_, "address" | "listen" | "target") => value
            .replace(":7443\"", ":7553\"")
            .replace(":7444\"", ":7554\"")
            .replace(".sock", ".other")
            .replace("127.0.0.1", "127.0.0.2"),
        ("[enroll]", "passphrase_file") => "\"other.passphrase\"".to_owned(),
        ("[renew]", "hub") => "\"hub2\"".to_owned(),
        ("[telemetry]", "resource") => "{ a = \"b\" }".to_owned(),
        ("[telemetry]", "histograms") => "\"exponential\"".to_owned(),
        ("[telemetry]", "latency_boundaries_ms") => "[2, 3]".to_owned(),
        ("[telemetry]", "otlp_endpoint") => value.replace("4317", "4318"),
        ("[telemetry]", "otlp_protocol") => "\"http/protobuf\"".to_owned(),
        ("[telemetry]", "otlp_temporality") => "\"delta\"".to_owned(),
        ("[telemetry]", "trace_ratio") => "0.5".to_owned(),
        ("[telemetry]", "otlp_headers_file") => value.replace("../../certs", "../../other"),
        ("[telemetry]", "otlp_ca") => value.replace("ca.crt", "dc-b.crt"),
        ("[telemetry]", "otlp_certificate" | "otlp_key") => value.replace("dc-a", "dc-b"),
        ("[limits]", "peer_bandwidth_limits") => value.replace("2Gbit/s", "20Mbit/s"),
        (_, "advertise") => value.replace("hub.", "hub2."),
        ("[[service]]", "targets") => value.replace("8080", "8081"),
        ("[[service]]", "slow_start") => "\"30s\"".to_owned(),
        // The options of http are for http alone.
        ("[service.check]", "type") => "\"http\"  # the same".to_owned(),
        ("[service.check]", "path") => "\"/other\"".to_owned(),
        ("[service.check]", "host") => "\"other\"".to_owned(),
        (_, "prefer") => "\"tls\"".to_owned(),
        (_, "entrances") => "\"failover\"".to_owned(),
        (_, "scheduler" | "strategy") => "\"hash\"".to_owned(),
        (_, "notsent_lowat") => "\"128KiB\"".to_owned(),
        (_, "padding") => "\"none\"".to_owned(),
        (_, "seal" | "retry") => "\"always\"".to_owned(),
        ("[[service]]", "proxy_protocol") => "\"v2\"".to_owned(),
        ("[[forward]]", "proxy_protocol") => "\"accept\"".to_owned(),
        (_, "priority") => "\"urgent\"".to_owned(),
        (_, "name" | "service") => value.replace(['w', 'r', 'd'], "x"),
        (_, "peer" | "allow") => value.replace("dc-b", "dc-c"),
        (_, "bind") => value.replace("0.1", "0.2"),
        (_, "allow_addresses") => value.replace("10.0.0.0/8", "10.0.0.0/9"),
        (_, "mode") => "\"0640\"".to_owned(),
        (_, "allow_uids" | "allow_gids") => "[7]".to_owned(),
        (_, "certificate" | "key" | "trust_anchors" | "directory" | "token_file") => {
            value.replace("../../certs", "../../other")
        }
        _ => match value {
            "true" => "false".to_owned(),
            "false" => "true".to_owned(),
            _ => {
                let (start, digits) = (value.trim_start_matches('"'), |c: char| !c.is_ascii_digit());
                let end = start.find(digits).unwrap_or(start.len());
                let number: u64 = start[..end].parse().unwrap_or_else(|_| panic!("{section} {option} = {value}: how?"));
                value.replacen(&number.to_string(), &(number + 1).to_string(), 1)
            }
        },
    };
    assert_ne!(special, value, "{section} {option}");
    special
}

/// Every option says whether a reload takes it, and a reload does as it says.
#[test]
fn the_full_example_says_which_options_are_reloadable() {
    let place = Place::new();
    let text = full_with_everything();
    // The same files elsewhere, with another key and another authority.
    fs::create_dir_all(place.path("other")).unwrap();
    for file in ["ca.crt", "ca.key", "dc-a.crt", "dc-a.key", "admin.token"] {
        fs::copy(place.path(&format!("certs/{file}")), place.path(&format!("other/{file}"))).unwrap();
    }
    write_private(&place.path("other/admin.token"), &"y".repeat(40));
    write_private(&place.path("other/otlp-headers"), "authorization: Basic YTpj\n");
    let check = |text: &str| place.check("examples/config/full.toml", text);
    let full = check(&text).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let (mut section, mut marked, mut comment, mut seen) = ("", None, String::new(), 0);
    let mut known = std::collections::HashMap::new();
    for (index, line) in lines.iter().enumerate() {
        if line.starts_with('[') {
            (section, marked) = (line, None);
        }
        if let Some(words) = line.strip_prefix('#') {
            comment.push_str(words);
            continue;
        }
        let about = std::mem::take(&mut comment);
        let Some((option, value)) = line.split_once(" = ").filter(|(option, _)| !option.starts_with(' ')) else {
            continue;
        };
        // Options below one comment share it.
        marked = match (about.contains("Reloadable: yes"), about.contains("Reloadable: no")) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            (false, false) if !about.contains("---") => marked,
            _ => None,
        };
        let known: &mut Option<bool> = known.entry((section, option)).or_default();
        *known = marked.or(*known);
        // Or they are described in an earlier section of the kind.
        let marked = known.unwrap_or_else(|| panic!("{section} {option} does not say whether it is reloadable"));
        seen += 1;
        let mut changed: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        match (section, option) {
            // It has to be that of the certificate.
            ("[node]", "name") => continue,
            ("[[link]]", "addresses") => changed[index + 1] = changed[index + 1].replace(":7443", ":7553"),
            _ => changed[index] = format!("{option} = {}", another(section, option, value)),
        }
        let changed = check(&changed.join("\n")).unwrap_or_else(|error| panic!("{section} {option}: {error}"));
        match Changes::between(&full, &changed) {
            Ok(_) => assert!(marked, "{section} {option} is taken by a reload, and said not to be"),
            Err(error) => {
                assert!(!marked, "{section} {option} is not taken by a reload: {error}");
                let named = error
                    .names()
                    .iter()
                    .any(|name| name.contains(option) || section == "[listen.quic]" || section == "[[listen]]");
                assert!(named, "{section} {option}: {error}");
            }
        }
    }
    assert!(seen > 100, "{seen} options");
}

#[test]
fn limits_are_told_and_taken_without_another_link() {
    let place = Place::new();
    let check = |limits: &str, of_link: &str, more: &str| {
        let link = format!("[[link]]\npeer = 'b'\naddresses = ['tcp://b:1']\n{of_link}\n");
        let service = format!("[[service]]\nname = 'web'\ntarget = 'tcp://127.0.0.1:80'\n{more}\n");
        place.check("a.toml", &format!("{IDENTITY}[limits]\n{limits}\n{link}{service}")).unwrap()
    };
    let old = check("", "", "");
    let new = check(
        "bandwidth_limit = '1.5Gbit/s'\npeer_bandwidth_limit = '12MiB/s'\npeer_bandwidth_limits = { b = '64kbit/s' }",
        "bandwidth_limit = '100Mbit/s'",
        "bandwidth_limit = '2MB/s'\nconnections_per_peer_max = 7",
    );
    assert_eq!(new.limits.bandwidth.unwrap().bytes_per_second(), 187_500_000);
    assert_eq!(new.limits.peer_bandwidth.unwrap().bytes_per_second(), 12 << 20);
    assert_eq!(new.limits.peer_bandwidths.values().map(|limit| limit.bytes_per_second()).collect::<Vec<_>>(), [8000]);
    assert_eq!(new.links[0].bandwidth_limit.unwrap().bytes_per_second(), 12_500_000);
    assert_eq!(new.services[0].bandwidth_limit.unwrap().bytes_per_second(), 2_000_000);
    let lines = Changes::between(&old, &new).unwrap().lines();
    let expected = [
        "limits: bandwidth_limit, peer_bandwidth_limit, peer_bandwidth_limits changed",
        "link b: bandwidth_limit changed",
        "service web: connections_per_peer_max, bandwidth_limit changed",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_reload_tells_each_change() {
    let place = Place::new();
    let check = |text: &str| place.check("a.toml", &format!("{IDENTITY}{text}")).unwrap();
    let old = check(
        "[[listen]]\naddress = 'tcp://127.0.0.1:1'\n[[link]]\npeer = 'b'\naddresses = ['tcp://b:1']\n\
         [[service]]\nname = 'web'\ntarget = 'tcp://127.0.0.1:80'\n\
         [[service]]\nname = 'old'\ntarget = 'tcp://127.0.0.1:81'\n\
         [[forward]]\nlisten = 'tcp://127.0.0.1:5'\npeer = 'b'\nservice = 'x'\n",
    );
    let new = check(
        "[log]\nfilter = 'debug'\n[[listen]]\naddress = 'tcp://127.0.0.1:1'\n\
         [[link]]\npeer = 'b'\naddresses = ['tcp://b:2']\n\
         padding = 'none'\n[[link]]\npeer = 'c'\naddresses = ['tcp://c:1']\n\
         [[service]]\nname = 'web'\ntarget = 'tcp://127.0.0.1:80'\nallow = []\n\
         [[service]]\nname = 'new'\ntarget = 'tcp://127.0.0.1:81'\n\
         [[forward]]\nlisten = 'tcp://127.0.0.1:5'\npeer = 'b'\nservice = 'y'\nsession_timeout = '1s'\n",
    );
    let lines = Changes::between(&old, &new).unwrap().lines();
    let expected = [
        "log: filter is debug",
        "link b: addresses, padding changed",
        "link c: added",
        "service old: removed",
        "service web: allow changed",
        "service new: added",
        "forward tcp://127.0.0.1:5: service, session_timeout changed",
    ];
    assert_eq!(lines, expected);
    assert!(Changes::between(&new, &new).unwrap().lines().is_empty());
    let fixed = check("[node]\nsurvive = '1h'\n[[listen]]\naddress = 'tcp://127.0.0.1:2'\n");
    let error = Changes::between(&old, &fixed).unwrap_err();
    assert_eq!(error.names(), ["[node] survive", "[[listen]] address"]);
}

#[test]
fn the_full_example_shows_the_defaults() {
    let place = Place::new();
    let full = place.check("examples/config/full.toml", &example("full.toml")).unwrap();
    let small = place.check("examples/config/small.toml", SMALL).unwrap();
    assert_eq!((&full.node, &full.limits), (&small.node, &small.limits));
    let debug = |value: &dyn std::fmt::Debug| format!("{value:?}");
    assert_eq!(debug(&full.listeners[0].options), debug(&small.listeners[0].options));
    assert_eq!(debug(&full.listeners[1].options), debug(&small.listeners[1].options));
    assert_eq!(debug(&full.listeners[2].options), debug(&small.listeners[0].options));
    let (a, b) = (&full.links[0], &small.links[0]);
    assert_eq!((a.scheduler, a.padding, a.survive, a.seal), (b.scheduler, b.padding, b.survive, b.seal));
    assert_eq!(debug(&a.dial), debug(&b.dial));
    let (a, b) = (&full.services[0], &small.services[0]);
    assert_eq!(a.connections_per_peer_max, b.connections_per_peer_max);
    assert_eq!((a.bandwidth_limit, full.links[0].bandwidth_limit), (b.bandwidth_limit, small.links[0].bandwidth_limit));
    assert_eq!((a.connections_max, a.connect_timeout), (b.connections_max, b.connect_timeout));
    assert_eq!((a.proxy_protocol, a.priority), (b.proxy_protocol, b.priority));
    for (a, b) in full.forwards.iter().zip(&small.forwards) {
        assert_eq!((a.accepts_proxy_protocol, a.connections_max), (b.accepts_proxy_protocol, b.connections_max));
        assert_eq!((a.priority, debug(&a.unix)), (b.priority, debug(&b.unix)));
        assert_eq!((&a.listen, &a.datagrams), (&b.listen, &b.datagrams));
    }
    let (a, b) = (&full.services[1], &small.services[1]);
    assert_eq!((&a.targets, &a.datagrams), (&b.targets, &b.datagrams));
    assert_eq!(
        (full.links[0].required, full.forwards[0].session_timeout),
        (small.links[0].required, small.forwards[0].session_timeout)
    );
    assert_eq!(full.admin, small.admin);
    assert_eq!(full.forwards.len(), small.forwards.len());
}

/// What has to be said, and nothing more.
const SMALL: &str = "
admin = { listen = ['unix:///run/longhaul/admin.sock', 'tcp://127.0.0.1:7445'] }
identity = { certificate = '../../certs/dc-a.crt', key = '../../certs/dc-a.key', trust_anchors = '../../certs/ca.crt' }
listen = [{ address = 'tcp://0.0.0.0:7443' }, { address = 'unix:///run/longhaul/dc-a.sock' }]
link = [{ peer = 'dc-b', addresses = ['tcp://dc-b.example.org:7443'] }]
service = [{ name = 'web', target = 'tcp://127.0.0.1:8080' }, { name = 'dns', target = 'udp://127.0.0.1:53' }]
forward = [
    { listen = 'tcp://127.0.0.1:6379', peer = 'dc-b', service = 'redis' },
    { listen = 'unix:///run/longhaul/web.sock', peer = 'dc-b', service = 'web' },
    { listen = 'udp://127.0.0.1:5353', peer = 'dc-b', service = 'dns' },
]
";

#[test]
fn values_mean_what_they_say() {
    let place = Place::new();
    let sections = "
        [node]
        name = 'a'
        survive = '1h'
        [[link]]
        peer = 'spiffe://example/node/b'
        congestion = 'cubic'
        scheduler = 'weighted'
        bind = '::1'
        prefer = 'tls'
        entrances = 'failover'
        [[link.address]]
        url = 'tls://[::1]:443'
        count = 3
        weight = 2
        priority = 7
        role = 'standby'
        [[link.address]]
        url = 'tcp://[::1]:444'
        [[service]]
        name = 's'
        target = 'unix:///run/s'
        allow = ['node:b', 'spiffe://example/node/c']
        priority = 'urgent'
        [[service]]
        name = 't'
        target = 'unix:///run/t'
        allow = ['*']";
    let config = place.check("a.toml", &format!("{IDENTITY}{sections}")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.node.id.to_string(), "spiffe://example/node/a");
    let link = &config.links[0];
    assert_eq!((link.peer.name(), link.scheduler, link.survive), ("b", Policy::Weighted, config.node.survive));
    assert_eq!(link.dial.tcp.congestion, Congestion::Named("cubic".to_owned()));
    assert_eq!(link.dial.tcp.bind, Some("[::1]:0".parse().unwrap()));
    assert_eq!((link.addresses[0].count, link.addresses[0].weight), (3, 2));
    assert_eq!((link.prefer, link.entrances), (Some(ChannelKind::Tls), Entrances::Failover));
    assert_eq!((link.addresses[0].priority, link.addresses[0].role), (7, LaneRole::Standby));
    assert_eq!((link.addresses[1].priority, link.addresses[1].role), (0, LaneRole::Active));
    assert_eq!(link.addresses[0].address, "tls://[::1]:443".parse::<Address>().unwrap());
    let (service, open) = (&config.services[0], &config.services[1]);
    assert_eq!(service.priority, Priority::Urgent);
    let node = |name: &str| PeerIdentity::unverified(config.node.id.relative(name).unwrap());
    assert!(service.allow.allows(&node("b")) && service.allow.allows(&node("c")) && !service.allow.allows(&node("d")));
    assert_eq!(open.allow, Allow::Everyone);
}

#[test]
fn unix_sockets_have_the_same_options_wherever_they_are_listened_on() {
    let place = Place::new();
    let options = "mode = '0600'\nuid = 7\ngid = 8\nallow_uids = [1, 2]\nallow_gids = [3]\n";
    let sections = format!(
        "[[listen]]\naddress = 'unix:///run/a'\n{options}
         [[forward]]\nlisten = 'unix:///run/b'\npeer = 'b'\nservice = 's'\n{options}"
    );
    let config = place.check("a.toml", &format!("{IDENTITY}{sections}")).unwrap_or_else(|error| panic!("{error}"));
    for unix in [&config.listeners[0].options.unix, &config.forwards[0].unix] {
        assert_eq!((unix.mode, unix.uid, unix.gid), (0o600, Some(7), Some(8)));
        assert_eq!((&unix.allow_uids[..], &unix.allow_gids[..]), (&[1, 2][..], &[3][..]));
    }
    for option in options.lines() {
        for section in
            ["[[listen]]\naddress = 'tcp://x:1'\n", "[[forward]]\nlisten = 'tcp://x:1'\npeer = 'b'\nservice = 's'\n"]
        {
            let other = "[[listen]]\naddress = 'tcp://y:1'\n";
            let mistakes = place.mistakes(&format!("{section}{option}\n{other}"));
            let name = option.split(' ').next().unwrap();
            let part = format!("{name} is an option of unix addresses; tcp");
            assert!(mistakes.len() == 1 && mistakes[0].starts_with(&part), "{section}{option}\n{mistakes:?}");
        }
    }
}

#[test]
fn services_have_several_targets_and_checks() {
    let place = Place::new();
    let check = |lines: &str| {
        let text = format!("{IDENTITY}[[listen]]\naddress = 'tcp://x:1'\n[[service]]\nname = 's'\n{lines}\n");
        place.check("a.toml", &text)
    };
    let service = |lines: &str| check(lines).unwrap_or_else(|error| panic!("{error}")).services.remove(0);
    let usual = service("target = 'tcp://a:1'");
    assert_eq!((usual.targets.all().len(), &usual.balance), (1, &BalanceOptions::default()));
    assert_eq!((&usual.check, usual.required), (&None, false), "nobody is asked");
    let several = service(
        "targets = ['tcp://a:1', { url = 'unix:///run/b', weight = 7, check_url = 'tcp://b:2' }]
         strategy = 'least-connections'\nconnect_attempts = 3\neject_after = 0\nslow_start = '30s'\nrequired = true
         check = { type = 'http', path = '/ok', status = '200,204', interval = '1s', rise = 4, fall = 5 }",
    );
    let target = &several.targets.all()[1];
    assert_eq!((target.weight, target.check.as_ref().unwrap().to_string()), (7, "tcp://b:2".to_owned()));
    assert_eq!((several.balance.strategy, several.balance.attempts_max), (Strategy::LeastConnections, 3));
    assert_eq!((several.balance.ejection, several.required), (None, true));
    let asked = several.check.unwrap();
    let CheckKind::Http { path, host: None, status } = &asked.kind else { panic!("{asked:?}") };
    assert_eq!((path.as_str(), status.to_string().as_str()), ("/ok", "200,204"));
    assert_eq!((asked.interval, asked.rise, asked.fall), (Duration::from_secs(1), 4, 5));
    let two = "targets = ['tcp://a:1', 'tcp://b:1']";
    for (lines, part) in [
        ("", "this service leads nowhere"),
        ("target = 'tcp://a:1'\ntargets = ['tcp://b:1']", "either target or targets"),
        ("targets = []", "at least one target"),
        ("targets = ['tcp://a:1', 'tcp://a:1']", "there twice"),
        ("targets = ['tcp://a:1', 'udp://b:1']", "udp:// targets and others"),
        ("targets = ['tcp://a:0']", "a port above 0"),
        ("targets = ['tls://a:1']", "pass bytes on as they are"),
        ("targets = ['bench:', 'tcp://a:1']", "the only target"),
        ("targets = [{ url = 'tcp://a:1', weight = 2 }]", "does not look at weights"),
        ("targets = [{ url = 'tcp://a:1', weight = 0 }]\nstrategy = 'weighted'", "a weight is 1 to 1000"),
        ("targets = [{ url = 'tcp://a:1', check_url = 'tcp://b:1' }]", "no check that would use it"),
        ("target = 'tcp://a:1'\nstrategy = 'hash'", "strategy is an option of services with several targets"),
        ("target = 'tcp://a:1'\nrequired = true", "without checks nobody knows"),
        ("target = 'udp://a:1'\ncheck = { type = 'connect' }", "cannot be asked"),
        ("target = 'bench:'\ncheck = { type = 'connect' }", "cannot be asked"),
        (&format!("{two}\nstrategy = 'random'"), "is no strategy"),
        (&format!("{two}\nconnect_attempts = 0"), "expected 1 to 64"),
        (&format!("{two}\neject_time = '1h'"), "longer than eject_time_max"),
        (&format!("{two}\ncheck = {{ type = 'ping' }}"), "is no check"),
        (&format!("{two}\ncheck = {{ type = 'redis', path = '/' }}"), "path is an option of http checks"),
        (&format!("{two}\ncheck = {{ type = 'http', path = '/a b' }}"), "is no path"),
        (&format!("{two}\ncheck = {{ type = 'http', host = \"a\\r\\nb\" }}"), "is no host"),
        (&format!("{two}\ncheck = {{ type = 'http', status = '2xx' }}"), "are no status codes"),
        (&format!("{two}\ncheck = {{ type = 'http', fall = 0 }}"), "expected 1 to 1000"),
        ("targets = ['udp://a:1', 'udp://b:1']\nstrategy = 'response-time'", "response-time is for connections"),
        ("targets = [{ url = 'udp://a:1', check_url = 'udp://a:1' }]\ncheck = { type = 'connect' }", "over tcp://"),
    ] {
        let error = check(lines).unwrap_err();
        assert!(error.problems().len() == 1 && error.problems()[0].message().contains(part), "{lines}\n{error}");
    }
}

#[test]
fn a_guest_has_a_token_in_place_of_files() {
    let place = Place::new();
    let token = fs::read_to_string(place.root.path().join("certs/guest.token")).unwrap();
    write_private(&place.root.path().join("token"), &token);
    let link = "[[link]]\npeer = 'hub'\naddress = ['tcp://x:1']\n";
    let guest = "[identity]\ntoken_file = 'token'\ntrust_domain = 'example'\n";
    let config = place.check("a.toml", &format!("{guest}{link}")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.node.id.to_string(), "spiffe://example/guest/guest");
    assert_eq!(config.links[0].peer.to_string(), "spiffe://example/node/hub");
    assert!(config.identity.guest.is_some() && !format!("{config:?}").contains(&token[24..40]));
    let service = "[[service]]\nname = 's'\ntarget = 'tcp://x:1'\n";
    write_private(&place.root.path().join("cut"), &token[..60]);
    fs::write(place.root.path().join("open"), &token).unwrap();
    for (text, part) in [
        (format!("{guest}{link}[[listen]]\naddress = 'tcp://x:1'\n"), "a guest has no [[listen]]"),
        (format!("{guest}{link}{service}"), "a guest has no [[service]]"),
        (format!("{guest}certificate = 'a.crt'\n{link}"), "in place of a certificate"),
        (format!("[identity]\ntoken_file = 'token'\n{link}"), "missing field `trust_domain`"),
        (format!("[identity]\ntoken_file = 'cut'\ntrust_domain = 'example'\n{link}"), "the token is cut"),
        (format!("[identity]\ntoken_file = 'open'\ntrust_domain = 'example'\n{link}"), "others than its owner"),
        (format!("{IDENTITY}trust_domain = 'example'\n{link}"), "trust_domain is an option of guests"),
        (format!("{IDENTITY}[[listen]]\naddress = 'tcp://x:1'\nguests = true\n"), "nobody to judge the tokens"),
    ] {
        let error = place.check("a.toml", &text).unwrap_err();
        assert!(error.problems()[0].message().contains(part), "{text}\n{error}");
    }
}

#[test]
fn listeners_list_where_peers_may_come_from() {
    let place = Place::new();
    let listen = |address: &str, list: &str| format!("[[listen]]\naddress = '{address}'\nallow_addresses = {list}\n");
    let text = listen("tcp://x:1", "['10.0.0.0/8', '2001:db8::/32', '192.0.2.7']");
    let config = place.check("a.toml", &format!("{IDENTITY}{text}")).unwrap_or_else(|error| panic!("{error}"));
    let ranges = &config.listeners[0].options.admission.allow_addresses;
    let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"]);
    for (address, list, part) in [
        ("tcp://x:1", "['10.0.0.1/8']", "bits behind its prefix"),
        ("quic://x:1", "['hub.example']", "no address range"),
        ("tls://x:1", "[]", "nobody could dial in"),
        ("tcp://x:1", "['192.0.2.7', '192.0.2.7/32']", "allowed already"),
        ("unix:///run/x", "['10.0.0.0/8']", "allow_addresses is an option of tcp and tls"),
    ] {
        let mistakes = place.mistakes(&listen(address, list));
        assert!(mistakes.len() == 1 && mistakes[0].contains(part), "{list}: {mistakes:?}");
    }
}

#[test]
fn options_of_udp_are_for_udp_alone() {
    let place = Place::new();
    let listen = "[[listen]]\naddress = 'tcp://y:1'\n";
    let options = "idle_timeout = '5s'\nflow_count_max = 7\ndatagram_age_max = '50ms'\n";
    let sections = format!(
        "{listen}[[service]]\nname = 's'\ntarget = 'udp://[::1]:53'\n{options}
         [[forward]]\nlisten = 'udp://127.0.0.1:53'\npeer = 'b'\nservice = 's'\n{options}
         [[forward]]\nlisten = 'tcp://127.0.0.1:53'\npeer = 'b'\nservice = 't'"
    );
    let config = place.check("a.toml", &format!("{IDENTITY}{sections}")).unwrap_or_else(|error| panic!("{error}"));
    let seconds = Duration::from_secs;
    let wanted = DatagramOptions { idle_timeout: seconds(5), flow_count_max: 7, age_max: Duration::from_millis(50) };
    assert_eq!((&config.services[0].datagrams, &config.forwards[0].datagrams), (&wanted, &wanted));
    assert_eq!(config.services[0].targets.to_string(), "udp://[::1]:53");

    let service = |target: &str| format!("[[service]]\nname = 's'\ntarget = '{target}'\n");
    let forward = |listen: &str| format!("[[forward]]\npeer = 'b'\nservice = 's'\nlisten = '{listen}'\n");
    for option in options.lines() {
        for section in [service("tcp://x:1"), service("bench:"), forward("tcp://x:1"), forward("unix:///x")] {
            let mistakes = place.mistakes(&format!("{listen}{section}{option}\n"));
            let part = format!("{} is an option of udp addresses", option.split(' ').next().unwrap());
            assert!(mistakes.len() == 1 && mistakes[0].starts_with(&part), "{section}{option}\n{mistakes:?}");
        }
    }
    for (option, part) in [
        ("connections_max = 5", "connections_max is an option of connections"),
        ("proxy_protocol = 'none'", "proxy_protocol is an option of connections"),
        ("idle_timeout = '0s'", "\"0s\" is too short"),
        ("flow_count_max = 0", "0 is out of range"),
        ("datagram_age_max = 'never'", "\"never\" is no duration"),
    ] {
        for section in [service("udp://x:1"), forward("udp://x:1")] {
            let mistakes = place.mistakes(&format!("{listen}{section}{option}\n"));
            assert!(mistakes.len() == 1 && mistakes[0].contains(part), "{section}{option}\n{mistakes:?}");
        }
    }
    for (sections, part) in [
        (service("udp://x:0"), "a target has a port above 0"),
        (format!("{}mode = '0660'\n", forward("udp://x:1")), "mode is an option of unix addresses; udp"),
        (format!("{}{}", forward("udp://x:1"), forward("udp://x:1")), "is there twice"),
        ("[[listen]]\naddress = 'udp://x:1'\n".to_owned(), "the scheme `udp`"),
        (service("udp://x"), "no valid port"),
    ] {
        let mistakes = place.mistakes(&format!("{listen}{sections}"));
        assert!(mistakes.len() == 1 && mistakes[0].contains(part), "{sections}\n{mistakes:?}");
    }
    // The same port of TCP and of UDP is not the same address.
    let both = format!("{IDENTITY}{listen}{}{}", forward("udp://x:1"), forward("tcp://x:1"));
    assert_eq!(place.check("a.toml", &both).unwrap().forwards.len(), 2);
}

#[test]
fn a_mistake_is_told_with_its_place_and_what_to_do() {
    let place = Place::new();
    let error = place.check("a.toml", &format!("{IDENTITY}\n[node]\nsurvive = 'soon'\n")).unwrap_err().to_string();
    assert!(error.contains("a.toml:7:11: \"soon\" is no duration"), "{error}");
    assert!(error.contains("7 | survive = 'soon'\n  |           ^^^^^^\n"), "{error}");
    let error = place.check("a.toml", &format!("{IDENTITY}\n[node]\nsurvives = '5s'\n")).unwrap_err().to_string();
    assert!(error.contains("a.toml:7:1: unknown field `survives`"), "{error}");
    let error = place.check("a.toml", "[node\n").unwrap_err().to_string();
    assert!(error.contains("a.toml:1:"), "{error}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let place = Place::new();
    let mistakes = place.mistakes(
        "[node]\nsurvive = 'x'\nmemory_max = '1B'\n
         [[listen]]\naddress = 'http://x'\n
         [[link]]\npeer = 'b'\naddresses = ['tcp://x:1', { url = 'tcp://y:1', count = 0 }]\nscheduler = 'best'\n
         [[service]]\nname = 'a/b'\ntarget = 'tls://x:1'\nallow = ['b']\n
         [[forward]]\nlisten = 'tcp://x:1'\npeer = 'a'\nservice = 's'\nmode = '0600'",
    );
    assert_eq!(mistakes.len(), 10, "{mistakes:#?}");
}

#[test]
fn contradictions_are_told() {
    let place = Place::new();
    let link = "[[link]]\npeer = 'b'\naddresses = ['tcp://x:1']\n";
    let forward = "[[forward]]\nlisten = 'tcp://127.0.0.1:1'\npeer = 'b'\nservice = 's'\n";
    for (sections, part) in [
        (format!("{link}prefer = 'tls'\n"), "none of its addresses is tls://"),
        (format!("{link}prefer = 'udp'\n"), "expected tcp, tls, quic or unix"),
        (format!("{link}entrances = 'any'\n"), "expected spread or failover"),
        (link.replace("'tcp://x:1'", "{ url = 'tcp://x:1', priority = 256 }"), "a priority is at most 255"),
        (link.replace("'tcp://x:1'", "{ url = 'tcp://x:1', role = 'idle' }"), "expected active or standby"),
        (format!("{link}{link}"), "link to peer \"b\" is there twice"),
        (format!("{link}{}", link.replace("'b'", "'spiffe://example/node/b'")), "is there twice"),
        (format!("{link}{forward}{forward}"), "address \"tcp://127.0.0.1:1\" is there twice"),
        (
            format!(
                "{link}{}{}",
                forward.replace("tcp://127.0.0.1:1", "unix:///s"),
                forward.replace("tcp://127.0.0.1:1", "unix:////s")
            ),
            "address \"unix:////s\" is there twice",
        ),
        (forward.to_owned(), "cannot dial us"),
        (link.replace("'b'", "'a'"), "which is this node"),
        (link.replace("'b'", "'spiffe://other/node/b'"), "another trust domain"),
        (link.replace(":1'", ":0'"), "port 0"),
        (link.replace("'tcp://x:1'", "{ url = 'tcp://x:1', count = 64 }"), "64 lanes"),
        (link.replace("'tcp://x:1'", "{ url = 'quic://x:1', count = 16 }"), "64 lanes"),
        (format!("{link}\n[link.quic]\ncongestion = 'vegas'"), "expected auto, cubic, bbr or new-reno"),
        (format!("{link}\n[link.quic]\nmtu_initial = 1500\nmtu_max = 1400"), "mtu_max is 1400 bytes"),
        (format!("{link}\n[link.quic]\nmtu_max = 1100"), "expected 1200 to 65507"),
        (format!("{link}\n[link.quic]\nlanes = 17"), "expected 1 to 16"),
        (format!("{link}\n[link.quic]\nreceive_buffer = '2GiB'"), "expected 1 byte to 1GiB"),
        (link.replace("'tcp://x:1'", ""), "no address"),
        ("[[listen]]\naddress = 'tcp://x:1'\nmode = '0600'".to_owned(), "option of unix addresses"),
        ("[[listen]]\naddress = 'unix:///x'\nkeepalive = '5s'".to_owned(), "option of tcp and tls addresses"),
        (format!("{link}bandwidth_limit = '100Mbps'\n"), "expected a number and a unit of bits"),
        (format!("{link}bandwidth_limit = '100MB'\n"), "of bytes (\"12MiB/s\""),
        (format!("{link}bandwidth_limit = '0Mbit/s'\n"), "expected \"64kbit/s\" to \"1000Gbit/s\""),
        ("[limits]\npeer_bandwidth_limits = { 'b b' = '1Mbit/s' }".to_owned(), "b b"),
        ("[limits]\nconnections_per_peer_max = 0".to_owned(), "expected 1 to 1000000"),
        (
            "[[service]]\nname = 'x'\ntarget = 'bench:'\nbandwidth_limit = '1Mbit/s'".to_owned(),
            "\"bench:\" measures what links carry",
        ),
        ("[node]\nname = 'b'".to_owned(), "but the certificate names spiffe://example/node/a"),
    ] {
        let mistakes = place.mistakes(&sections);
        assert!(mistakes.len() == 1 && mistakes[0].contains(part), "{sections}\n{mistakes:?}");
    }
    let listening = format!("{IDENTITY}{forward}[[listen]]\naddress = 'tcp://127.0.0.1:2'");
    assert!(place.check("a.toml", &listening).is_ok());
}

#[test]
fn a_forward_whose_peer_cannot_be_reached_is_told_at_its_own_place() {
    let place = Place::new();
    let forward = |peer: &str| format!("[[forward]]\nlisten = 'tcp://127.0.0.1:0'\npeer = '{peer}'\nservice = 's'\n");
    let link = "[[link]]\npeer = 'b'\naddresses = ['tcp://x:1']\n";
    let text = format!("{IDENTITY}{link}{}{}", forward("b"), forward("c"));
    let error = place.check("a.toml", &text).unwrap_err();
    let places: Vec<_> = error.problems().iter().filter_map(|problem| text.get(problem.place()?)).collect();
    assert_eq!(places, ["'c'"]);
}

/// Files of nearly the largest size, made to ask for as much work as they can: hours if it grew with the square.
#[test]
fn large_files_are_checked_in_one_go() {
    let place = Place::new();
    let many = |section: &str| section.repeat(900_000 / section.len());
    let links: String = (0..9_000).map(|n| format!("[[link]]\npeer='b{n}'\naddresses=['tcp://x:1']\n")).collect();
    let numbered: String =
        (0..14_000).map(|n| format!("[[forward]]\nlisten='tcp://x:0'\npeer='c{n}'\nservice='s'\n")).collect();
    for sections in [
        numbered,
        links + &"[[forward]]\nlisten='tcp://x:0'\npeer='b'\nservice='s'\n".repeat(9_000),
        many("[[listen]]\naddress=''\n"),
        format!("[[link]]\npeer='b'\naddresses=[{}]", many("'',")),
        format!("[[service]]\nname='s'\ntarget='unix:///x'\nallow=[{}]", many("'',")),
    ] {
        let error = place.check("a.toml", &format!("{IDENTITY}{sections}")).unwrap_err().to_string();
        assert!(error.contains("\nand ") && error.len() < 100_000, "{} bytes", error.len());
    }
}

#[test]
fn an_enrolment_point_needs_its_own_authority() {
    let place = Place::new();
    let section = "[enroll]\nlisten = '0.0.0.0:7444'\ndirectory = 'certs'\n";
    let listen = "[[listen]]\naddress = 'tcp://0.0.0.0:7443'\n[[listen]]\naddress = 'tcp://127.0.0.1:0'\n";
    let config = place.check("a.toml", &format!("{IDENTITY}{section}{listen}")).unwrap();
    let enroll = config.enroll.unwrap();
    assert_eq!(enroll.certificate_lifetime, Duration::from_secs(86_400));
    assert_eq!(enroll.listen.map(|listen| listen.to_string()).as_deref(), Some("tls://0.0.0.0:7444"));
    assert!(config.listeners.iter().all(|listener| !listener.options.enrolls), "it has a port of its own");
    assert_eq!(enroll.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["tcp://0.0.0.0:7443"]);
    let advertise = "advertise = ['quic://hub.example:7443']\n";
    let config = place.check("a.toml", &format!("{IDENTITY}{section}{advertise}{listen}")).unwrap();
    assert_eq!(config.enroll.unwrap().addresses[0].to_string(), "quic://hub.example:7443");

    // Without a port of its own it is wherever channels come over TCP.
    let shared = "[enroll]\ndirectory = 'certs'\n";
    let others = "[[listen]]\naddress = 'tls://127.0.0.1:0'\n[[listen]]\naddress = 'quic://127.0.0.1:0'\n[[listen]]\naddress = 'unix:///run/x.sock'\n";
    let config = place.check("a.toml", &format!("{IDENTITY}{shared}{listen}{others}")).unwrap();
    assert_eq!(config.enroll.unwrap().listen, None);
    let enrolls: Vec<_> = config.listeners.iter().map(|listener| listener.options.enrolls).collect();
    assert_eq!(enrolls, [true, true, true, false, false]);

    let mistake = |text: &str| place.mistakes(text).join("\n");
    let with = |option: &str| format!("{section}{option}\n");
    assert!(mistake(&format!("{shared}[[listen]]\naddress = 'quic://0.0.0.0:7443'\n")).contains("no port at which"));
    assert!(mistake(shared).contains("no port at which"));
    assert!(mistake(&with("certificate_lifetime = '8d'")).contains("\"5m\" to \"7d\""));
    assert!(mistake(&with("advertise = ['unix:///run/x']")).contains("cannot be dialled"));
    assert!(mistake(&section.replace("0.0.0.0:7444", "tcp://0.0.0.0:7444")).contains("expected host:port"));
    assert!(mistake(&section.replace("certs", "nowhere")).contains("ca.crt cannot be read"));
    let other = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
    fs::write(place.path("certs/ca.crt"), other.certificate_pem()).unwrap();
    assert!(mistake(section).contains("does not belong to its certificate"));
    write_private(&place.path("certs/ca.key"), &other.key_pem());
    assert!(mistake(section).contains("not from this authority"));
    fs::set_permissions(place.path("certs/ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(mistake(section).contains("chmod 600"));
}

#[test]
fn a_key_that_others_may_use_is_refused_with_the_command_that_helps() {
    let place = Place::new();
    let key = place.path("a.key");
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let mistakes = place.mistakes("");
        assert!(mistakes[0].contains(&format!("chmod 600 {}", key.display())), "{mistakes:?}");
    }
}

#[test]
fn a_certificate_has_to_hold_now() {
    let place = Place::new();
    let now = day().not_before_unix();
    place.issue("a", "a", Validity::between(now - 7200, now - 3600));
    assert!(place.mistakes("")[0].contains("expired at"));
    place.issue("a", "a", Validity::between(now + 3600, now + 7200));
    assert!(place.mistakes("")[0].contains("holds from"));
}

#[test]
fn certificate_key_and_anchors_have_to_belong_together() {
    let place = Place::new();
    fs::copy(place.path("b.key"), place.path("a.key")).unwrap();
    assert!(place.mistakes("")[0].contains("does not belong to the certificate"));
    place.issue("a", "a", day());
    let other = CertificateAuthority::generate("example", KeyType::P256, day()).unwrap();
    fs::write(place.path("ca.crt"), other.certificate_pem()).unwrap();
    assert!(place.mistakes("")[0].contains("none of the trust anchors"));
    fs::remove_file(place.path("ca.crt")).unwrap();
    assert!(place.mistakes("")[0].contains("ca.crt cannot be read"));
    let link = "[[link]]\npeer = 'spiffe://example/node/b'\naddresses = ['tcp://x:1']";
    assert_eq!(place.mistakes(link).len(), 1, "what depends on the certificate is not guessed at");
    let error = place.check("a.toml", "").unwrap_err();
    assert!(error.problems()[0].message().contains("[identity] is missing"));
}
