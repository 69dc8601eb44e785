//! The documents against the code: links lead somewhere, and what is listed is what is there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use longhaul::base::limits;
use longhaul::telemetry::table::INSTRUMENTS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// All documents of the repository.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn relative_links_lead_to_files() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let target = link.split('#').next().unwrap();
            if !target.is_empty() && !target.contains("://") && !document.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn files_that_documents_name_are_there() {
    let mut missing = Vec::new();
    let folders = ["src/", "proto/", "tests/", "docs/", "examples/", "benches/", "fuzz/", "certs/"];
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_path = folders.iter().any(|folder| quoted.starts_with(folder));
            if is_path && !quoted.contains(['*', ' ', '<', '…', '\n', 'N']) && !root().join(quoted).exists() {
                missing.push(format!("{}: {quoted}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

macro_rules! constants {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), shown(&limits::$name))),*]
    };
}

fn shown(value: &impl Debug) -> String {
    format!("{value:?}")
}

#[test]
fn limits_are_listed_with_their_values() {
    let listed = constants![
        ACK_AT_ONCE_PACKETS,
        ACK_DELAY_MAX,
        ACK_EVERY_BYTES,
        ACK_RANGES_MAX,
        AUDIT_FILES_MAX,
        AUDIT_FILE_BYTES_MAX,
        BANDWIDTH_BURST,
        BANDWIDTH_BYTES_MAX,
        BANDWIDTH_BYTES_MIN,
        BANDWIDTH_PACKET_TIME,
        BYTES_PER_IDLE_FRAME,
        CERTIFICATE_REQUEST_BYTES_MAX,
        CHECK_LINE_BYTES_MAX,
        CONTROL_MESSAGE_BYTES_MAX,
        DATAGRAMS_INCOMPLETE_MAX,
        DATAGRAM_AGE_MAX,
        DATAGRAM_BYTES_MAX,
        DATAGRAM_EARLY_BYTES_MAX,
        DATAGRAM_FLOW_BYTES_MAX,
        DATAGRAM_INCOMPLETE_AGE_MAX,
        DATAGRAM_OVERHEAD_BYTES,
        DATAGRAM_PIECES_BYTES_MAX,
        DATAGRAM_PIECE_BYTES_MIN,
        DATAGRAM_SESSION_BYTES_MAX,
        DEAD_LANE_MEMORY,
        DEAD_TIMEOUT_MIN,
        DENYLIST_BYTES_MAX,
        DENYLIST_ENTRIES_MAX,
        EARLY_HELD_BYTES_MAX,
        EARLY_SKIPPED_BYTES_MAX,
        EARLY_STREAMS,
        EARLY_WINDOW_BYTES,
        ENROLL_ANSWER_BYTES_MAX,
        ENROLL_TIMEOUT,
        FIRST_MESSAGE_TIMEOUT,
        FRAMES_PER_PACKET_MAX,
        FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX,
        FRAME_MESSAGE_BYTES_MAX,
        FURTHER_LANE_JOIN_TIMEOUT,
        HANDSHAKE_BYTES_PER_LEVEL_MAX,
        HANDSHAKE_TIMEOUT,
        HUB_ADDRESSES_MAX,
        HUB_ADDRESS_BYTES_MAX,
        IDLE_FRAMES_PER_SECOND_MAX,
        JOIN_TIMEOUT,
        KEY_AGE_MAX,
        KEY_BYTES_MAX,
        KEY_PACKETS_MAX,
        LANES_MAX,
        LANE_CREDIT,
        LANE_PRIORITY_MAX,
        LANE_REPAIR_TIMEOUT,
        LANE_IDLE_TIMEOUT,
        LANE_WEIGHT_MAX,
        LINEAGE_MAX,
        LINK_LANES_MAX,
        LOAD_BURST,
        NODE_CERTIFICATE_LIFETIME,
        NODE_CERTIFICATE_LIFETIME_MAX,
        PACED_PACKET_BYTES_MIN,
        PING_INTERVAL,
        PINNED_SHARE_MIN,
        PONGS_QUEUED_MAX,
        PREVIOUS_KEY_TIME,
        QUIC_IN_FLIGHT_BYTES_MAX,
        QUIC_REORDER_BYTES_MAX,
        QUIC_SUSPECT_TIMEOUT_MIN,
        REASON_BYTES_MAX,
        QUEUE_SAMPLES_MAX,
        RENEWALS_PER_LIFETIME_MAX,
        RENEW_ANSWER_BYTES_MAX,
        RENEW_PAUSE_MAX,
        RESETS_PER_SECOND_MAX,
        SEAL_TAG_BYTES,
        SESSION_AGE_MAX,
        SESSION_AGE_REPLACED_MIN,
        SESSION_WINDOW_BYTES,
        SESSION_WINDOW_BYTES_MAX,
        SHARE_RETRY_MAX,
        SIGNED_DENYLIST_BYTES_MAX,
        STALL_MIN,
        STATE_LOCK_TIMEOUT,
        STREAMS_MAX,
        STREAMS_UNACCEPTED_MAX,
        STREAM_GAPS_MAX,
        STREAM_UNSENT_BYTES_MAX,
        STREAM_WINDOW_BYTES,
        STREAM_WINDOW_BYTES_MAX,
        SAMPLES_MAX,
        SAMPLE_INTERVAL,
        SURVIVE,
        SURVIVE_UNCONFIRMED,
        SUSPECT_TIMEOUT_MIN,
        TARGETS_MAX,
        TARGET_WEIGHT_MAX,
        TICKETS_KEPT_MAX,
        TICKETS_MAX,
        TICKETS_PER_HANDSHAKE,
        TICKETS_PER_PEER_MAX,
        TICKET_LINEAGE_TIME,
        TOKEN_ROLES_MAX,
        TOKEN_TTL_MAX,
        TOKEN_USES_MAX,
        TRANSPORT_WORD_MAX,
        TRUST_ANCHORS_MAX,
        TRUST_ANCHOR_BYTES_MAX,
        UNKNOWN_FIELDS_MAX,
        VERSIONS_MAX,
        WRONG_PROOFS_LOCK,
        WRONG_PROOFS_MAX,
    ];
    let source = read("src/base/limits.rs");
    let defined: BTreeSet<_> =
        source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next()).collect();
    assert_eq!(defined, listed.iter().map(|(name, _)| *name).collect(), "this test lists the constants of limits.rs");
    let page = read("docs/reference/limits.md");
    for (name, value) in listed {
        let row = format!("| `{name}` | {value} |");
        assert!(page.contains(&row), "docs/reference/limits.md has to have {row}");
    }
}

#[test]
fn instruments_are_listed_as_the_table_has_them() {
    let page = read("docs/reference/metrics.md");
    let rows: Vec<_> =
        page.lines().filter(|line| line.starts_with("| `longhaul.") || line.starts_with("| `process.")).collect();
    for instrument in INSTRUMENTS {
        let attributes: Vec<_> = instrument.attributes.iter().map(|attribute| format!("`{attribute}`")).collect();
        let attributes = if attributes.is_empty() { "–".to_owned() } else { attributes.join(", ") };
        let (name, kind, unit) = (instrument.name, instrument.kind.as_str(), instrument.unit);
        let row = format!(
            "| `{name}` | {kind} | `{unit}` | {attributes} | {} | `{}",
            instrument.meaning,
            name.replace('.', "_")
        );
        assert!(rows.iter().any(|found| found.starts_with(&row)), "docs/reference/metrics.md has to have {row}…");
        for attribute in instrument.attributes {
            assert!(page.contains(&format!("`{attribute}`")), "{attribute} is not explained");
        }
    }
    assert_eq!(rows.len(), INSTRUMENTS.len(), "docs/reference/metrics.md has rows that the table has not");
}

#[test]
fn codes_are_listed_with_their_numbers() {
    let source = read("src/base/codes.rs");
    let page = read("docs/reference/protocol.md");
    let codes = source.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(" = 0x")?;
        Some(format!("| 0x{} | `{name}` |", rest.split(',').next()?))
    });
    let mut count = 0;
    for row in codes {
        assert!(page.contains(&row), "docs/reference/protocol.md has to have {row}");
        count += 1;
    }
    assert_eq!(page.matches("\n| 0x").count(), count, "docs/reference/protocol.md lists codes that are not there");
}

#[test]
fn frames_are_listed_with_their_numbers() {
    let schema = read("proto/longhaul.proto");
    let (_, frame) = schema.split_once("message Frame {").unwrap();
    let (kinds, _) = frame.split_once('}').unwrap();
    let page = read("docs/reference/protocol.md");
    for kind in kinds.lines().filter_map(|line| line.trim().strip_suffix(';')) {
        let (_, field) = kind.split_once(' ').unwrap();
        let (name, number) = field.split_once(" = ").unwrap();
        assert!(page.contains(&format!("| `{name}` | {number} |")), "docs/reference/protocol.md lacks {name}");
    }
}

/// The long options that a command's help shows.
fn options(command: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_longhaul")).args(command).arg("--help").output().unwrap();
    assert!(output.status.success(), "{command:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    lines.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")).map(str::to_owned)).collect()
}

#[test]
fn the_command_line_is_listed() {
    let page = read("docs/reference/cli.md");
    let global = options(&[]);
    for option in &global {
        assert!(page.contains(&format!("`{option}")), "docs/reference/cli.md lacks {option}");
    }
    let commands = [
        "run",
        "check-config",
        "cert ca",
        "cert node",
        "cert renew",
        "cert show",
        "hub init",
        "hub rotate",
        "hub rotate begin",
        "hub rotate switch",
        "hub rotate finish",
        "token create",
        "token list",
        "token show",
        "token revoke",
        "node list",
        "node revoke",
        "node unrevoke",
        "audit",
        "join",
        "status",
        "top",
        "reload",
        "ping",
        "diag",
        "dissect",
        "completions",
        "man",
        "bench",
        "demo",
    ]
    .map(|name| (name, name.split(' ')));
    for (name, words) in commands {
        let heading = format!("## longhaul {name}\n");
        let (_, rest) = page.split_once(&heading).unwrap_or_else(|| panic!("docs/reference/cli.md lacks {heading}"));
        let section = rest.split("\n## ").next().unwrap();
        let listed: BTreeSet<_> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .filter_map(|(first, _)| first.split([' ', ',']).find(|word| word.starts_with("--")))
            .map(str::to_owned)
            .collect();
        let there: BTreeSet<_> = options(&words.collect::<Vec<_>>()).difference(&global).cloned().collect();
        assert_eq!(listed, there, "options of {name} in docs/reference/cli.md, and in its help");
    }
}

#[test]
fn every_module_says_what_it_owns() {
    let mut silent = Vec::new();
    let mut folders: Vec<_> =
        ["src", "tests", "examples", "benches", "fuzz/fuzz_targets"].map(|f| root().join(f)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                if !text.trim().is_empty() && !text.starts_with("//!") {
                    silent.push(path);
                }
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}
