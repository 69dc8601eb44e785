//! `longhaul run` as a process: ready, signals, exit codes.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};

use crate::common::{authority, echo, exchange, soon};

/// A folder with the certificates of nodes.
pub fn folder(nodes: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: String, text: &str| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.path().join(name));
        std::io::Write::write_all(file.as_mut().unwrap(), text.as_bytes()).unwrap();
    };
    write("ca.crt".to_owned(), authority().certificate_pem());
    for node in nodes {
        let validity = longhaul::issue::Validity::from_now(Duration::from_secs(600));
        let issued = authority().issue_node(node, longhaul::issue::KeyType::P256, validity).unwrap();
        write(format!("{node}.crt"), &issued.certificate_pem);
        write(format!("{node}.key"), &issued.key_pem);
    }
    folder
}

/// A node that runs.
pub struct Program {
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Program {
    pub fn start(folder: &Path, name: &str, sections: &str) -> Self {
        let identity = format!("certificate = \"{name}.crt\"\nkey = \"{name}.key\"\ntrust_anchors = \"ca.crt\"\n");
        let path = folder.join(format!("{name}.toml"));
        fs::write(&path, format!("[identity]\n{identity}\n{sections}")).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_longhaul"))
            .args(["run", "--log-format", "json", "-c"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, log }
    }

    /// Waits for a log line with this message: the line.
    pub async fn logged(&mut self, message: &str) -> serde_json::Value {
        let mut seen = Vec::new();
        soon(async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                let event: serde_json::Value = serde_json::from_str(&line).unwrap();
                if event["message"] == message {
                    return event;
                }
                seen.push(line);
            }
            panic!("the log ended without {message:?}:\n{}", seen.join("\n"));
        })
        .await
    }

    pub fn id(&self) -> Pid {
        Pid::from_raw(self.process.id().unwrap() as i32).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// What it logged since, until its end.
    pub async fn rest_of_log(&mut self) -> String {
        let mut rest = String::new();
        while let Some(line) = soon(self.log.next_line()).await.unwrap() {
            rest.push_str(&line);
            rest.push('\n');
        }
        rest
    }

    pub async fn exit_code(&mut self) -> Option<i32> {
        soon(self.process.wait()).await.unwrap().code()
    }
}

/// The port of an address in a log line.
pub fn port(event: &serde_json::Value) -> u16 {
    event["address"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_programs_carry_a_connection_and_end_in_order() {
    let folder = folder(&["a", "b"]);
    let target = echo().await;
    let listen = "[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n";
    let mut b = Program::start(
        folder.path(),
        "b",
        &format!("[node]\nshutdown_timeout = \"20s\"\n{listen}[[service]]\nname = \"echo\"\ntarget = \"{target}\"\n"),
    );
    let port_of_b = port(&b.logged("listening").await);
    b.logged("ready").await;
    let mut a = Program::start(
        folder.path(),
        "a",
        &format!(
            "[[link]]\npeer = \"b\"\naddresses = [\"tcp://127.0.0.1:{port_of_b}\"]\n\
             [[forward]]\nlisten = \"tcp://127.0.0.1:0\"\npeer = \"b\"\nservice = \"echo\"\n"
        ),
    );
    let front = port(&a.logged("forwarding").await);
    a.logged("ready").await;
    let mut client = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
    client.write_all(b"x").await.unwrap();
    assert_eq!(soon(client.read_u8()).await.unwrap(), b'x');
    b.signal(Signal::TERM);
    b.logged("shutting down").await;
    a.logged("peer takes no new streams").await;
    assert_eq!(soon(exchange(client, b"the rest")).await.unwrap(), b"the rest");
    b.logged("stopped").await;
    assert_eq!(b.exit_code().await, Some(0));
    a.signal(Signal::INT);
    assert_eq!(a.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let folder = folder(&["a", "b"]);
    let target = echo().await;
    let listen = "[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n";
    let service = format!("[[service]]\nname = \"echo\"\ntarget = \"{target}\"\n");
    let mut b = Program::start(folder.path(), "b", &format!("{listen}{service}"));
    let port_of_b = port(&b.logged("listening").await);
    let forward = "[[forward]]\nlisten = \"tcp://127.0.0.1:0\"\npeer = \"b\"\nservice = \"echo\"\n";
    let link = format!("[[link]]\npeer = \"b\"\naddresses = [\"tcp://127.0.0.1:{port_of_b}\"]\n");
    let mut a = Program::start(folder.path(), "a", &format!("{link}{forward}"));
    let front = port(&a.logged("forwarding").await);
    let mut client = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
    client.write_all(b"x").await.unwrap();
    assert_eq!(soon(client.read_u8()).await.unwrap(), b'x');
    a.signal(Signal::TERM);
    a.logged("shutting down").await;
    a.signal(Signal::TERM);
    assert_eq!(a.exit_code().await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_has_its_exit_code() {
    let folder = folder(&["a"]);
    let mut wrong = Program::start(folder.path(), "a", "[[service]]\nname = \"x\"\n");
    assert_eq!(wrong.exit_code().await, Some(3));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("[[listen]]\naddress = \"tcp://{}\"\n", taken.local_addr().unwrap());
    let mut blocked = Program::start(folder.path(), "a", &listen);
    assert_eq!(blocked.exit_code().await, Some(1));
}
