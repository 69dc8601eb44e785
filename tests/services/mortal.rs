//! Targets that can be killed and revived, and services out of sections of a configuration.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longhaul::channel::Address;
use longhaul::config::Config;
use longhaul::crypto::identity::default_provider;
use longhaul::service::{ServiceConfig, TargetReport, TargetState};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::common::{Net, tcp};
use crate::program::folder;

/// The service `pool` with these lines in its section, and more sections.
pub fn services(lines: &str) -> Vec<ServiceConfig> {
    let folder = folder(&["b"]);
    let identity = "[identity]\ncertificate = 'b.crt'\nkey = 'b.key'\ntrust_anchors = 'ca.crt'\n";
    let text = format!("{identity}[[listen]]\naddress = 'tcp://127.0.0.1:0'\n[[service]]\nname = 'pool'\n{lines}\n");
    let config = Config::parse(&text, &folder.path().join("b.toml"), &default_provider());
    config.unwrap_or_else(|error| panic!("{error}")).services
}

/// What b knows of a target of a service.
pub fn report(net: &Net, service: &str, index: usize) -> TargetReport {
    net.b.services().get(service).unwrap().targets()[index].clone()
}

/// How the targets of a service are doing.
pub fn states(net: &Net, service: &str) -> Vec<TargetState> {
    net.b.services().get(service).unwrap().targets().iter().map(|report| report.state).collect()
}

/// A target that says its name and sends back what it gets. Its text is its URL, quoted.
pub struct Mortal {
    name: &'static str,
    port: u16,
    /// Keeps the port, and does not listen.
    _place: Socket,
    delay_ms: Arc<AtomicU64>,
    life: Arc<Mutex<JoinSet<()>>>,
}

impl Mortal {
    pub async fn start(name: &'static str) -> Self {
        let place = bound(0);
        let port = place.local_addr().unwrap().as_socket().unwrap().port();
        let mut mortal = Self { name, port, _place: place, delay_ms: Arc::default(), life: Arc::default() };
        mortal.revive().await;
        mortal
    }

    /// It listens no more, and all of its connections end. Its port refuses connections.
    pub async fn kill(&mut self) {
        let mut life = std::mem::take(&mut *self.life.lock().unwrap());
        life.shutdown().await;
    }

    /// It is there again.
    pub async fn revive(&mut self) {
        let listener = bound(self.port);
        listener.listen(1024).unwrap();
        let listener = TcpListener::from_std(listener.into()).unwrap();
        let (name, delay_ms) = (self.name, Arc::clone(&self.delay_ms));
        let accepting = async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let delay_ms = Arc::clone(&delay_ms);
                connections.spawn(async move {
                    // Work, as far as a client can see.
                    tokio::time::sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed))).await;
                    stream.write_all(name.as_bytes()).await?;
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        };
        self.life.lock().unwrap().spawn(accepting);
    }

    /// It takes this long for its first answer.
    pub fn delay(&self, delay: Duration) {
        self.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    pub fn address(&self) -> Address {
        tcp(self.port)
    }
}

impl fmt::Display for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.address())
    }
}

/// Several at once.
pub async fn mortals<const COUNT: usize>(names: [&'static str; COUNT]) -> [Mortal; COUNT] {
    let started = futures_util::future::join_all(names.map(Mortal::start)).await;
    started.try_into().unwrap_or_else(|_| panic!("as many as names"))
}

/// Another one may be bound at the same port, as long as only one of them listens.
fn bound(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    socket
}
