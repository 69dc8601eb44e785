//! A path for datagrams, up to the size that Ethernet carries, between a dialler and a listener, which loses, delays and holds them as the test says, and whose
//! address translation forgets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longhaul::channel::Address;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The path. It ends with its last clone.
pub(crate) struct UdpPath {
    address: Address,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    is_blocked: AtomicBool,
    /// Nothing of the listener's but its handshake goes through.
    is_silenced: AtomicBool,
    is_muted: AtomicBool,
    /// Datagrams lost of 1,000.
    loss: AtomicU32,
    delay_ms: AtomicU64,
    /// Bytes a second of each direction; zero is no limit.
    rate: AtomicU64,
    chance: AtomicU64,
    /// Counts up when the address translation forgets.
    mapping: AtomicU64,
    passed: AtomicU64,
    senders: AtomicUsize,
    target: Mutex<SocketAddr>,
}

impl UdpPath {
    /// A path to a `quic://` address of this host.
    pub(crate) async fn to(to: &Address) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = format!("quic://{}", front.local_addr().unwrap()).parse().unwrap();
        let state = Arc::new(State {
            is_blocked: AtomicBool::new(false),
            is_silenced: AtomicBool::new(false),
            is_muted: AtomicBool::new(false),
            loss: AtomicU32::new(0),
            delay_ms: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            chance: AtomicU64::new(1),
            mapping: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            senders: AtomicUsize::new(0),
            target: Mutex::new(socket_address(to)),
        });
        let task = tokio::spawn(carry(front, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// Where to dial.
    pub(crate) fn address(&self) -> Address {
        self.address.clone()
    }

    /// Lets nothing through, either way, or everything again.
    pub(crate) fn block(&self, is_blocked: bool) {
        self.state.is_blocked.store(is_blocked, Ordering::Relaxed);
    }

    /// Lets nothing of the listener's through but its handshake, or everything again. What it says about a session comes
    /// when that is over, in packets with short headers (RFC 9000 §17.3.1), which never come in front of others.
    pub(crate) fn silence_listener(&self, is_silenced: bool) {
        self.state.is_silenced.store(is_silenced, Ordering::Relaxed);
    }

    /// Lets nothing at all of the listener's through, or everything again.
    pub(crate) fn mute_listener(&self, is_muted: bool) {
        self.state.is_muted.store(is_muted, Ordering::Relaxed);
    }

    /// Loses so many datagrams of 1,000, either way.
    pub(crate) fn lose(&self, per_mille: u32) {
        self.state.loss.store(per_mille, Ordering::Relaxed);
    }

    /// Delays each datagram.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// Carries no more than so many bytes a second either way, with a queue of 100 ms, and loses the rest.
    pub(crate) fn limit(&self, bytes_per_second: u64) {
        self.state.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// The dialler's address changes, as the listener sees it.
    pub(crate) fn rebind(&self) {
        self.state.mapping.fetch_add(1, Ordering::Relaxed);
    }

    /// What is sent from now on arrives elsewhere.
    pub(crate) fn lead_to(&self, address: &Address) {
        *self.state.target.lock().unwrap() = socket_address(address);
    }

    /// Datagrams that went through.
    pub(crate) fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::Relaxed)
    }

    /// Addresses that the listener has seen.
    pub(crate) fn senders(&self) -> usize {
        self.state.senders.load(Ordering::Relaxed)
    }
}

fn socket_address(address: &Address) -> SocketAddr {
    let Address::Quic { host, port } = address else { panic!("{address} has no datagrams") };
    format!("{host}:{port}").parse().unwrap()
}

impl Drop for UdpPath {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn keeps(&self) -> bool {
        // A linear congruential generator: the same datagrams are lost in every run.
        let next = |state: u64| state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let before = self.chance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| Some(next(state))).unwrap();
        let is_lost = (before >> 33) % 1000 < u64::from(self.loss.load(Ordering::Relaxed));
        !is_lost && !self.is_blocked.load(Ordering::Relaxed)
    }

    /// Hands datagrams on in their order, each after the delay of the moment in which it came.
    fn line(self: &Arc<Self>, through: Arc<UdpSocket>) -> Line {
        let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>, SocketAddr)>();
        tokio::spawn(async move {
            while let Some((due, datagram, to)) = receiver.recv().await {
                tokio::time::sleep_until(due).await;
                // Nobody may listen there any more.
                let _ = through.send_to(&datagram, to).await;
            }
        });
        Line { state: Arc::clone(self), sender, free_at: Arc::new(Mutex::new(Instant::now())) }
    }
}

/// What Ethernet carries.
const DATAGRAM_BYTES_MAX: usize = 1500 - 20 - 8;

/// What may wait for a line with a limit.
const QUEUE: Duration = Duration::from_millis(100);

/// One direction of one mapping.
#[derive(Clone)]
struct Line {
    state: Arc<State>,
    sender: mpsc::UnboundedSender<(Instant, Vec<u8>, SocketAddr)>,
    /// When what waits has left.
    free_at: Arc<Mutex<Instant>>,
}

impl Line {
    fn pass(&self, datagram: &[u8], to: SocketAddr) {
        if datagram.len() <= DATAGRAM_BYTES_MAX && self.state.keeps() {
            let Some(leaves_at) = self.enqueue(datagram.len()) else { return };
            self.state.passed.fetch_add(1, Ordering::Relaxed);
            let delay = Duration::from_millis(self.state.delay_ms.load(Ordering::Relaxed));
            let _ = self.sender.send((leaves_at + delay, datagram.to_vec(), to));
        }
    }

    /// When a datagram of this size has left; `None` when the queue is full.
    fn enqueue(&self, size: usize) -> Option<Instant> {
        let (now, rate) = (Instant::now(), self.state.rate.load(Ordering::Relaxed));
        if rate == 0 {
            return Some(now);
        }
        let mut free_at = self.free_at.lock().unwrap();
        let begins_at = (*free_at).max(now);
        (begins_at <= now + QUEUE).then(|| {
            *free_at = begins_at + Duration::from_secs_f64(size as f64 / rate as f64);
            *free_at
        })
    }
}

async fn carry(front: Arc<UdpSocket>, state: Arc<State>) {
    let mut mappings: HashMap<(SocketAddr, u64), Line> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((size, client)) = front.recv_from(&mut buffer).await else { continue };
        let key = (client, state.mapping.load(Ordering::Relaxed));
        let line = match mappings.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                state.senders.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(answer(Arc::clone(&back), state.line(Arc::clone(&front)), client));
                entry.insert(state.line(back))
            }
        };
        let target = *state.target.lock().unwrap();
        line.pass(&buffer[..size], target);
    }
}

async fn answer(back: Arc<UdpSocket>, line: Line, client: SocketAddr) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((size, _)) = back.recv_from(&mut buffer).await else { continue };
        let is_short = buffer[0] & 0x80 == 0;
        let is_held =
            line.state.is_muted.load(Ordering::Relaxed) || (is_short && line.state.is_silenced.load(Ordering::Relaxed));
        if !is_held {
            line.pass(&buffer[..size], client);
        }
    }
}
