//! The path between the demo's nodes: a TCP relay with a rate, whose connections can be killed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is moved at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// A path that relays to one address.
pub(super) struct Path {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    /// Takes one sender for each connection; a connection ends when its own is dropped.
    connections: Mutex<Vec<watch::Sender<()>>>,
    is_down: AtomicBool,
    rate: Rate,
}

impl Path {
    /// Starts relaying to `target`, with a rate for both directions together.
    pub(super) async fn start(target: SocketAddr, bytes_per_second: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            connections: Mutex::new(Vec::new()),
            is_down: AtomicBool::new(false),
            rate: Rate { bytes_per_second, free_at: tokio::sync::Mutex::new(Instant::now()) },
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// Where the path begins.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the oldest connection. Returns whether there was one.
    pub(super) fn kill_one(&self) -> bool {
        let mut connections = self.shared.lock();
        connections.retain(|connection| connection.receiver_count() > 0);
        if connections.is_empty() {
            return false;
        }
        connections.remove(0);
        true
    }

    /// Kills all connections and lets no new ones through, or lets them through again.
    pub(super) fn set_down(&self, is_down: bool) {
        self.shared.is_down.store(is_down, Ordering::Relaxed);
        if is_down {
            self.shared.lock().clear();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<watch::Sender<()>>> {
        self.connections.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((from, _)) = listener.accept().await {
        if !shared.is_down.load(Ordering::Relaxed) {
            tokio::spawn(relay(from, Arc::clone(&shared)));
        }
    }
}

async fn relay(from: TcpStream, shared: Arc<Shared>) {
    let Ok(to) = TcpStream::connect(shared.target).await else { return };
    let (alive, mut killed) = watch::channel(());
    shared.lock().push(alive);
    let (from_read, from_write) = from.into_split();
    let (to_read, to_write) = to.into_split();
    tokio::select! {
        () = copy(from_read, to_write, &shared.rate) => {}
        () = copy(to_read, from_write, &shared.rate) => {}
        // Both sockets are closed in the middle of whatever was on its way.
        _ = killed.changed() => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rate: &Rate) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        rate.pass(count).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// A rate that all connections share.
struct Rate {
    bytes_per_second: u64,
    free_at: tokio::sync::Mutex<Instant>,
}

impl Rate {
    async fn pass(&self, bytes: usize) {
        let until = {
            let mut free_at = self.free_at.lock().await;
            let now = Instant::now();
            *free_at = (*free_at).max(now) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            *free_at
        };
        tokio::time::sleep_until(until.into()).await;
    }
}
