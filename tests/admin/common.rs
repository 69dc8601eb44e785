//! Two nodes as programs, which may be told to read another configuration.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, Command};

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Within patience, or a failed test.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("this takes too long")
}

/// A folder with the certificates of nodes `a` and `b`.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let validity = Validity::from_now(Duration::from_secs(3600));
        let authority = CertificateAuthority::generate("test", KeyType::P256, validity).unwrap();
        place.write("ca.crt", authority.certificate_pem());
        for node in ["a", "b"] {
            let issued = authority.issue_node(node, KeyType::P256, validity).unwrap();
            place.write(&format!("{node}.crt"), &issued.certificate_pem);
            place.write(&format!("{node}.key"), &issued.key_pem);
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that is its owner's alone.
    pub fn write(&self, name: &str, text: &str) {
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(self.path(name));
        std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    }

    /// Writes the configuration of a node.
    pub fn configure(&self, name: &str, sections: &str) {
        let identity = format!("certificate = \"{name}.crt\"\nkey = \"{name}.key\"\ntrust_anchors = \"ca.crt\"\n");
        self.write(&format!("{name}.toml"), &format!("[identity]\n{identity}\n{sections}"));
    }

    /// Runs a node with this configuration.
    pub fn start(&self, name: &str, sections: &str) -> Program {
        self.configure(name, sections);
        Program::start(&self.path(&format!("{name}.toml")), &[])
    }

    /// The same with sockets that are handed over, at most two; `names` as in `LISTEN_FDNAMES`.
    pub fn start_with<const N: usize>(
        &self,
        name: &str,
        sections: &str,
        sockets: [OwnedFd; N],
        names: &str,
    ) -> Program {
        self.configure(name, sections);
        Program::start_with(&self.path(&format!("{name}.toml")), sockets.into(), names)
    }

    /// Checks the configuration of a node: exit code, stdout and stderr.
    pub async fn check(&self, name: &str) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
        command.args(["check-config", "-c"]).arg(self.path(&format!("{name}.toml"))).env_remove("LONGHAUL_LOG");
        let output = soon(command.output()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

/// A node that runs.
pub struct Program {
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Program {
    pub fn start(config: &Path, environment: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_longhaul"))
            .args(["run", "--log-format", "json", "-c"])
            .arg(config)
            .env_remove("LONGHAUL_LOG")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, log }
    }

    /// Hands sockets over as systemd does. They come as standard input and output, and a shell moves them to where they
    /// have to be: descriptors from 3 on.
    fn start_with(config: &Path, sockets: Vec<OwnedFd>, names: &str) -> Self {
        let script = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let count = sockets.len();
        let mut sockets = sockets.into_iter().map(Stdio::from);
        let mut process = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_longhaul"), "run", "--log-format", "json", "-c"])
            .arg(config)
            .env_remove("LONGHAUL_LOG")
            .env("LISTEN_FDS", count.to_string())
            .env("LISTEN_FDNAMES", names)
            .stdin(sockets.next().unwrap_or_else(Stdio::null))
            .stdout(sockets.next().unwrap_or_else(Stdio::null))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        assert!(sockets.next().is_none(), "there is room for two sockets");
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, log }
    }

    /// Everything that it tells until it ends.
    pub async fn told(&mut self) -> String {
        let mut told = String::new();
        while let Some(line) = soon(self.log.next_line()).await.unwrap() {
            told.push_str(&line);
            told.push('\n');
        }
        told
    }

    /// Waits for a log line with this message: the line, and the messages of those before.
    pub async fn logged_after(&mut self, message: &str) -> (serde_json::Value, Vec<String>) {
        let mut seen = Vec::new();
        soon(async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                let event: serde_json::Value = serde_json::from_str(&line).unwrap();
                if event["message"] == message {
                    return (event, seen);
                }
                seen.push(line);
            }
            panic!("the log ended without {message:?}:\n{}", seen.join("\n"));
        })
        .await
    }

    /// Waits for a log line with this message: the line.
    pub async fn logged(&mut self, message: &str) -> serde_json::Value {
        self.logged_after(message).await.0
    }

    /// Waits until it runs: the port where something of it listens that is told with this message.
    pub async fn port(&mut self, message: &str) -> u16 {
        port(&self.logged(message).await)
    }

    /// Has it read its configuration again: the changes that it tells.
    pub async fn reload(&mut self) -> Vec<String> {
        self.signal(Signal::HUP);
        let (_, lines) = self.logged_after("reloaded").await;
        let events = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        events.filter_map(|event| event["change"].as_str().map(str::to_owned)).collect()
    }

    /// Has it read a configuration that it refuses: why.
    pub async fn refuse(&mut self) -> String {
        self.signal(Signal::HUP);
        let event = self.logged("not reloaded, everything stays as it was").await;
        event["error"].as_str().unwrap().to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.process.id().unwrap() as i32).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Ends it as a crash does.
    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    pub async fn exit_code(&mut self) -> Option<i32> {
        soon(self.process.wait()).await.unwrap().code()
    }
}

/// The port of an address in a log line.
pub fn port(event: &serde_json::Value) -> u16 {
    event["address"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

/// A port where nobody listens.
pub async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// A target that says its name to each client, and then sends back what it gets: its port.
pub async fn echo(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    port
}

/// A connection to a target: it, and the name that it said; none if it was closed before.
pub async fn connect(port: u16) -> Option<(TcpStream, u8)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let name = soon(stream.read_u8()).await.ok()?;
    Some((stream, name))
}

/// Connects until the target of this name answers.
pub async fn connect_to(port: u16, name: u8) -> TcpStream {
    soon(async {
        loop {
            match connect(port).await {
                Some((stream, said)) if said == name => return stream,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

/// Whether a connection goes on.
pub async fn answers(stream: &mut TcpStream) -> bool {
    stream.write_all(b"?").await.is_ok() && soon(stream.read_u8()).await.is_ok_and(|byte| byte == b'?')
}

/// Nodes `a` and `b` with a link, a service `one` whose target says `x`, a forward to it, and admin addresses.
pub struct Pair {
    pub a: Program,
    pub b: Program,
    pub front: u16,
    pub admin_of_a: u16,
    pub admin_of_b: u16,
    /// The configuration of `a`, without its identity.
    pub sections_of_a: String,
}

impl Pair {
    /// Starts both, and waits until `a` is ready for clients.
    pub async fn start(place: &Place) -> Self {
        let target = echo("x").await;
        let admin = |name: &str| {
            let socket = place.path(name);
            format!("[admin]\nlisten = [\"tcp://127.0.0.1:0\", \"unix://{}\"]\n", socket.display())
        };
        let service = format!("[[service]]\nname = \"one\"\ntarget = \"tcp://127.0.0.1:{target}\"\n");
        let listen = "[[listen]]\naddress = \"tcp://127.0.0.1:0\"\n";
        let mut b = place.start("b", &format!("{}{listen}{service}", admin("b.sock")));
        let entrance = b.port("listening").await;
        let admin_of_b = b.port("admin listening").await;
        let front = free_port().await;
        let sections_of_a = format!(
            "{}[[link]]\npeer = \"b\"\naddresses = [\"tcp://127.0.0.1:{entrance}\"]\n\
             [[forward]]\nlisten = \"tcp://127.0.0.1:{front}\"\npeer = \"b\"\nservice = \"one\"\n",
            admin("a.sock")
        );
        let mut a = place.start("a", &sections_of_a);
        let admin_of_a = a.port("admin listening").await;
        a.logged("ready").await;
        drop(connect_to(front, b'x').await);
        Self { a, b, front, admin_of_a, admin_of_b, sections_of_a }
    }
}
