//! The demo's nodes: certificates and configurations in a temporary folder, and two processes.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::process::{Child, Command};

use crate::issue::{CertificateAuthority, KeyType, Validity};

const START_TIME_MAX: Duration = Duration::from_secs(10);
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// Two nodes, and everything that they need. Dropping them ends the processes and removes the folder.
pub(super) struct Nodes {
    folder: Folder,
    address_of_b: SocketAddr,
    front_door: SocketAddr,
    service: SocketAddr,
    processes: Option<(Child, Child)>,
}

impl Nodes {
    /// Makes the certificates and chooses ports. `service` is the address of the file server.
    pub(super) fn prepare(service: SocketAddr) -> anyhow::Result<Self> {
        let folder = Folder::create()?;
        let validity = Validity::from_now(Duration::from_secs(24 * 3600));
        let authority = CertificateAuthority::generate("demo", KeyType::P256, validity)?;
        folder.write("ca.crt", authority.certificate_pem())?;
        for name in ["dc-a", "dc-b"] {
            let issued = authority.issue_node(name, KeyType::P256, validity)?;
            folder.write(&format!("{name}.crt"), &issued.certificate_pem)?;
            folder.write(&format!("{name}.key"), &issued.key_pem)?;
        }
        let [address_of_b, front_door] = free_ports()?;
        Ok(Self { folder, address_of_b, front_door, service, processes: None })
    }

    /// Where dc-b listens.
    pub(super) fn address_of_b(&self) -> SocketAddr {
        self.address_of_b
    }

    /// Where clients reach the file server through the link.
    pub(super) fn front_door(&self) -> SocketAddr {
        self.front_door
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// The process ids of dc-a and dc-b.
    pub(super) fn ids(&self) -> (u32, u32) {
        let id = |child: &Child| child.id().unwrap_or_default();
        self.processes.as_ref().map_or((0, 0), |(a, b)| (id(a), id(b)))
    }

    /// Starts both processes; dc-a dials dc-b at `path`. Returns when files can be fetched.
    pub(super) async fn start(&mut self, path: SocketAddr) -> anyhow::Result<()> {
        let identity = |name| {
            format!("[identity]\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"\ntrust_anchors = \"ca.crt\"\n\n")
        };
        let b = format!(
            "{}[[listen]]\naddress = \"tcp://{}\"\n\n[[service]]\nname = \"files\"\ntarget = \"tcp://{}\"\nallow = [\"node:dc-a\"]\n",
            identity("dc-b"),
            self.address_of_b,
            self.service
        );
        let a = format!(
            "{}[[link]]\npeer = \"dc-b\"\naddresses = [\"tcp://{path}\"]\n\n[[forward]]\nlisten = \"tcp://{}\"\npeer = \"dc-b\"\nservice = \"files\"\n",
            identity("dc-a"),
            self.front_door
        );
        self.folder.write("dc-b.toml", &b)?;
        self.folder.write("dc-a.toml", &a)?;
        self.processes = Some((self.spawn("dc-a")?, self.spawn("dc-b")?));
        let deadline = Instant::now() + START_TIME_MAX;
        while tokio::net::TcpStream::connect(self.front_door).await.is_err() {
            self.check_alive()?;
            ensure!(Instant::now() < deadline, "the nodes did not start within {} s", START_TIME_MAX.as_secs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Fails when a process has ended.
    pub(super) fn check_alive(&mut self) -> anyhow::Result<()> {
        let Some((a, b)) = &mut self.processes else { return Ok(()) };
        for (child, name) in [(a, "dc-a"), (b, "dc-b")] {
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(self.folder.0.join(format!("{name}.log"))).unwrap_or_default();
                bail!("node {name} ended with {status}; its log:\n{log}");
            }
        }
        Ok(())
    }

    /// Ends both processes in order.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let Some((mut a, mut b)) = self.processes.take() else { return Ok(()) };
        for (child, name) in [(&mut a, "dc-a"), (&mut b, "dc-b")] {
            let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
            if let Some(pid) = pid {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
            }
            let status = tokio::time::timeout(STOP_TIME_MAX, child.wait()).await;
            let status = status.with_context(|| format!("node {name} did not end on SIGTERM"))??;
            ensure!(status.success(), "node {name} ended with {status}");
        }
        Ok(())
    }

    fn spawn(&self, name: &str) -> anyhow::Result<Child> {
        let log = fs::File::create(self.folder.0.join(format!("{name}.log")))?;
        Command::new(std::env::current_exe()?)
            .args(["run", "-c"])
            .arg(self.folder.0.join(format!("{name}.toml")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start node {name}"))
    }
}

/// A folder that is removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("longhaul-demo-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Writes a file that only this user can read.
    fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let path = self.0.join(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(content.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is in the system's temporary folder: what cannot be removed now goes with that.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ports that nobody listens on, each held until all are chosen.
fn free_ports<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let held: Vec<_> = (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let addresses: Vec<_> = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().map_err(|_| anyhow::anyhow!("not as many ports as asked for"))
}
