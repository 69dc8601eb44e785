//! A hub as a process, and what is done with it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use longhaul::crypto::token::JoinToken;
use longhaul::enroll::TokenRecord;
use longhaul::enroll::store::{RedbStore, Store};

/// A hub in a directory of its own.
pub(crate) struct Hub {
    root: tempfile::TempDir,
    pub(crate) enroll_port: u16,
    pub(crate) channel_port: u16,
    running: Option<Running>,
}

/// No test waits longer for a line of a log.
const PATIENCE: Duration = Duration::from_secs(120);

/// `longhaul run`, killed when it is dropped.
pub(crate) struct Running {
    process: Child,
    /// Its lines, taken from the pipe by a thread: the program never waits for a test, nor a test for ever.
    log: Mutex<mpsc::Receiver<String>>,
}

impl Hub {
    /// Made and running.
    pub(crate) fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), &[])
    }

    /// The same, with the authority's key encrypted with what the file `passphrase` has.
    pub(crate) fn start_with_passphrase(passphrase: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        write_private(&root.path().join("passphrase"), passphrase);
        Self::start_with(root, &["--passphrase-file", "passphrase"])
    }

    fn start_with(root: tempfile::TempDir, options: &[&str]) -> Self {
        // As `hub init` writes it, one port is for both.
        let port = free_port();
        let mut hub = Self { root, enroll_port: port, channel_port: port, running: None };
        let output = hub.run(&[&["hub", "init", "--domain", "example", "--out", "hub"][..], options].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let config = hub.path("hub/hub.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("0.0.0.0:7443", &format!("127.0.0.1:{port}"))).unwrap();
        hub.restart();
        hub
    }

    /// Edits the hub's configuration, and starts it anew.
    pub(crate) fn reconfigure(&mut self, edit: impl FnOnce(String) -> String) {
        let config = self.path("hub/hub.toml");
        fs::write(&config, edit(fs::read_to_string(&config).unwrap())).unwrap();
        self.restart();
    }

    /// Kills the hub, if it runs, without a warning, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut running = Running::start(&self.path("hub/hub.toml"));
        running.logged("ready");
        self.running = Some(running);
    }

    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Runs the program beside the hub.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
        command.args(arguments).current_dir(self.root.path()).stdin(Stdio::null());
        command.env_remove("LONGHAUL_LOG").env_remove("LONGHAUL_TOKEN").env_remove("LONGHAUL_STATE");
        command
    }

    /// Makes a token with these options, in the file `token`.
    pub(crate) fn token(&self, options: &[&str]) -> JoinToken {
        let _ = fs::remove_file(self.path("token"));
        let create = ["token", "create", "--state", "hub", "--out", "token"];
        let output = self.run(&[&create[..], options].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        self.read_token()
    }

    pub(crate) fn read_token(&self) -> JoinToken {
        JoinToken::parse(&fs::read_to_string(self.path("token")).unwrap()).unwrap()
    }

    /// Joins with the file `token` into the directory `out`.
    pub(crate) fn join(&self, out: &str, options: &[&str]) -> Output {
        let address = format!("127.0.0.1:{}", self.enroll_port);
        let arguments = ["join", "--token-file", "token", "--out", out, &address];
        self.run(&[&arguments[..], options].concat())
    }

    pub(crate) fn store(&self) -> RedbStore {
        RedbStore::open(&self.path("hub/state.redb")).unwrap()
    }

    pub(crate) fn record(&self, token: &JoinToken) -> TokenRecord {
        self.store().token(token.id()).unwrap().unwrap()
    }

    pub(crate) fn audit(&self) -> String {
        fs::read_to_string(self.path("hub/audit.jsonl")).unwrap()
    }
}

impl Running {
    pub(crate) fn start(config: &Path) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_longhaul")), config)
    }

    /// On a file system that takes nothing more, as a limit on the size of files makes one.
    pub(crate) fn start_on_a_full_disk(config: &Path) -> Self {
        let program = env!("CARGO_BIN_EXE_longhaul");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f 0; exec {program} \"$@\""), "sh"]);
        Self::start_by(command, config)
    }

    fn start_by(mut command: Command, config: &Path) -> Self {
        let mut process = command
            .args(["run", "--log-format", "json", "-c"])
            .arg(config)
            .env_remove("LONGHAUL_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, log) = mpsc::channel();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, log: Mutex::new(log) }
    }

    /// Waits for a log line with this message.
    pub(crate) fn logged(&mut self, message: &str) -> serde_json::Value {
        self.logged_any(&[message])
    }

    /// Waits until all of these were logged, in whatever order.
    pub(crate) fn logged_all(&mut self, messages: &[&str]) {
        let mut missing = messages.to_vec();
        while !missing.is_empty() {
            let event = self.logged_any(&missing);
            missing.retain(|message| event["message"] != *message);
        }
    }

    fn logged_any(&mut self, messages: &[&str]) -> serde_json::Value {
        let mut seen = String::new();
        loop {
            let line = match self.log.get_mut().unwrap().recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(error) => panic!("{messages:?} was not logged ({error}):\n{seen}"),
            };
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if messages.iter().any(|message| event["message"] == *message) {
                return event;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Hub {
    pub(crate) fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(Running::is_running)
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Fails unless the program ended with this code.
#[track_caller]
pub(crate) fn ended(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", stdout(output), stderr(output));
}

/// A port that stays free while nobody listens: below those that the system gives to clients, of which tests have thousands.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Tests that run at the same time as these begin elsewhere.
        let place = std::process::id().wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + place % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Writes a file for its owner only, over what is there.
pub(crate) fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
