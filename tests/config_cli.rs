//! The program itself: certificates made by it satisfy `check-config`, and failures have their exit codes.

#![cfg(all(feature = "cli", unix, any(feature = "aws-lc-rs", feature = "ring")))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the program in `directory`.
fn longhaul(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    command.args(arguments).current_dir(directory).env_remove("LONGHAUL_LOG");
    command.output().unwrap()
}

/// Runs the program, which has to end with `code`, and gives its stdout and stderr.
fn expect(directory: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let output = longhaul(directory, arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

#[test]
fn the_commands_of_the_readme_make_the_examples_work() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(repository.join("certs/README.md")).unwrap();
    let commands: Vec<_> = readme.lines().filter_map(|line| line.strip_prefix("longhaul cert ")).collect();
    assert_eq!(commands.len(), 4);
    for command in commands {
        let arguments: Vec<_> = ["cert"].into_iter().chain(command.split(' ')).collect();
        expect(root, &arguments, 0);
    }
    for key in ["ca.key", "dc-a.key", "dc-b.key"] {
        let mode = fs::metadata(root.join("certs").join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    fs::create_dir_all(root.join("examples/config")).unwrap();
    for name in ["dc-a.toml", "dc-b.toml", "full.toml"] {
        let file = format!("examples/config/{name}");
        fs::copy(repository.join(&file), root.join(&file)).unwrap();
        let (stdout, _) = expect(root, &["check-config", "-c", &file], 0);
        assert!(stdout.starts_with(&format!("ok: {file}\nnode     spiffe://example/node/dc-")), "{stdout}");
    }
}

#[test]
fn certificates_are_shown_and_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    expect(root, &["cert", "ca", "--domain", "example", "--out", "ca"], 0);
    let node = ["cert", "node", "n", "--ca", "ca", "--out", "node", "--days", "30", "--key-type", "ed25519"];
    let (stdout, _) = expect(root, &node, 0);
    assert!(stdout.contains("wrote node/ca.crt"), "{stdout}");
    let before = fs::read(root.join("node/n.crt")).unwrap();
    let (_, stderr) = expect(root, &node, 1);
    assert!(stderr.contains("node/n.key is there already; --force overwrites it"), "{stderr}");
    assert_eq!(fs::read(root.join("node/n.crt")).unwrap(), before);
    let forced: Vec<_> = node.iter().copied().chain(["--force"]).collect();
    expect(root, &forced, 0);
    assert_ne!(fs::read(root.join("node/n.crt")).unwrap(), before);
    assert_eq!(fs::metadata(root.join("node/n.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(root.join("node")).unwrap().count(), 3);

    let (text, _) = expect(root, &["cert", "show", "node/n.crt"], 0);
    assert!(text.contains("spiffe://example/node/n") && text.contains("clientAuth, serverAuth"), "{text}");
    let (json, _) = expect(root, &["cert", "show", "--json", "ca/ca.crt"], 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["names"][0], "spiffe://example");
    assert_eq!(json[0]["is_authority"], true);
    assert_eq!(json[0]["spki_sha256"].as_str().map(str::len), Some(64));
}

#[test]
fn failures_have_their_exit_codes() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    expect(root, &["no-such-command"], 2);
    expect(root, &["--log", "no such filter", "cert", "show", "x"], 2);
    expect(root, &["cert", "ca", "--domain", "Not A Domain", "--out", "."], 2);
    expect(root, &["cert", "show", "missing.crt"], 1);
    expect(root, &["cert", "node", "ca", "--ca", ".", "--out", "."], 2);
    let (stdout, stderr) = expect(root, &["check-config", "-c", "missing.toml"], 3);
    assert!(stdout.is_empty() && stderr.contains("missing.toml cannot be read"), "{stderr}");
    fs::write(root.join("bad.toml"), "[nod]\n").unwrap();
    let (_, stderr) = expect(root, &["check-config", "-c", "bad.toml"], 3);
    assert!(stderr.contains("bad.toml:1:2: unknown field `nod`"), "{stderr}");
    let (help, _) = expect(root, &["--help"], 0);
    assert!(help.contains("Exit codes:"), "{help}");
}

#[test]
fn an_authority_key_that_others_may_read_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    expect(root, &["cert", "ca", "--domain", "example", "--out", "."], 0);
    fs::set_permissions(root.join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let (_, stderr) = expect(root, &["cert", "node", "n", "--ca", ".", "--out", "."], 1);
    assert!(stderr.contains("chmod 600"), "{stderr}");
}
