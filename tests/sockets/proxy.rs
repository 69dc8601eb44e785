//! A TCP proxy between dialler and listener that tests break on purpose: per connection and for all, by bytes and, on
//! raw channels, by whole messages. Knows no keys: it can do what anybody on the way can do.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use longhaul::channel::Address;
use longhaul::wire::message_size;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToListener = 0,
    ToDialler = 1,
}

/// What becomes of new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    /// Nobody listens.
    Refuse,
    /// Accepted, and reset at once: a balancer without a backend.
    Reset,
    /// Accepted, and nothing moves.
    Swallow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Hold,
    Finish,
    Reset,
}

/// Takes a message, or inside TLS whatever came, and gives what goes on in its place.
pub(crate) type Filter = Box<dyn FnMut(Vec<u8>, &mut Vec<Vec<u8>>) + Send>;

type Greeting = Box<dyn Fn(&Arc<Wire>) + Send>;

/// One proxied connection.
pub(crate) struct Wire {
    fate: watch::Sender<Fate>,
    filters: [Mutex<Option<Filter>>; 2],
    is_over: AtomicBool,
    carried_bytes: [AtomicU64; 2],
}

impl Wire {
    /// Ends both directions in order.
    pub(crate) fn kill(&self) {
        self.fate.send_replace(Fate::Finish);
    }

    /// Ends it with a reset.
    pub(crate) fn reset(&self) {
        self.fate.send_replace(Fate::Reset);
    }

    /// Reads and writes nothing from now on, without closing.
    pub(crate) fn hold(&self) {
        self.fate.send_replace(Fate::Hold);
    }

    /// Goes on.
    pub(crate) fn release(&self) {
        self.fate.send_replace(Fate::Pass);
    }

    /// Gives all further messages of a way to a filter.
    pub(crate) fn filter(&self, way: Way, filter: impl FnMut(Vec<u8>, &mut Vec<Vec<u8>>) + Send + 'static) {
        *self.filters[way as usize].lock().unwrap() = Some(Box::new(filter));
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Whether bytes move.
    pub(crate) fn is_passing(&self) -> bool {
        !self.is_over() && *self.fate.borrow() == Fate::Pass
    }

    /// Bytes that went on to the other side.
    pub(crate) fn carried_bytes(&self, way: Way) -> u64 {
        self.carried_bytes[way as usize].load(Ordering::Relaxed)
    }
}

struct Shared {
    target: SocketAddr,
    door: watch::Sender<Door>,
    wires: Mutex<Vec<Arc<Wire>>>,
    greeting: Mutex<Option<Greeting>>,
    is_framed: bool,
}

/// The proxy. Its connections end with it.
pub(crate) struct Proxy {
    address: Address,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    /// Keeps the port while nobody listens on it.
    _keeper: Socket,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.wires().iter().for_each(|wire| wire.reset());
    }
}

impl Proxy {
    /// A proxy in front of a TCP or TLS address.
    pub(crate) fn to(target: &Address) -> Self {
        let keeper = bound((Ipv4Addr::LOCALHOST, 0).into());
        let local = keeper.local_addr().unwrap().as_socket().unwrap();
        let (address, target_address, is_framed) = match target {
            Address::Tcp { host, port } => (format!("tcp://{local}"), format!("{host}:{port}"), true),
            Address::Tls { host, port } => (format!("tls://{local}"), format!("{host}:{port}"), false),
            other => panic!("no TCP under {other}"),
        };
        let shared = Arc::new(Shared {
            target: target_address.parse().unwrap(),
            door: watch::channel(Door::Open).0,
            wires: Mutex::default(),
            greeting: Mutex::default(),
            is_framed,
        });
        let task = tokio::spawn(listen(Arc::clone(&shared), local, open(local)));
        Self { address: address.parse().unwrap(), shared, task, _keeper: keeper }
    }

    /// Where to dial.
    pub(crate) fn address(&self) -> Address {
        self.address.clone()
    }

    /// Sets what becomes of new connections.
    pub(crate) fn set_door(&self, door: Door) {
        self.shared.door.send_replace(door);
    }

    /// Does something with each new connection before a byte moves.
    pub(crate) fn greet(&self, greeting: impl Fn(&Arc<Wire>) + Send + 'static) {
        *self.shared.greeting.lock().unwrap() = Some(Box::new(greeting));
    }

    /// All connections that are not over, oldest first.
    pub(crate) fn wires(&self) -> Vec<Arc<Wire>> {
        let mut wires = self.shared.wires.lock().unwrap();
        wires.retain(|wire| !wire.is_over());
        wires.clone()
    }

    /// Connections on which bytes move.
    pub(crate) fn passing(&self) -> Vec<Arc<Wire>> {
        self.wires().into_iter().filter(|wire| wire.is_passing()).collect()
    }

    /// Ends all connections in order and takes no new ones.
    pub(crate) fn cut(&self) {
        self.set_door(Door::Refuse);
        self.wires().iter().for_each(|wire| wire.kill());
    }

    /// Lets nothing through any more, without a sign of it.
    pub(crate) fn swallow(&self) {
        self.set_door(Door::Swallow);
        self.wires().iter().for_each(|wire| wire.hold());
    }
}

fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

fn open(address: SocketAddr) -> TcpListener {
    let socket = bound(address);
    socket.listen(1024).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpListener::from_std(socket.into()).unwrap()
}

async fn listen(shared: Arc<Shared>, local: SocketAddr, first: TcpListener) {
    let mut door = shared.door.subscribe();
    let mut listener = Some(first);
    loop {
        let state = *door.borrow_and_update();
        match (state, &listener) {
            (Door::Refuse, _) => {
                listener = None;
                door.changed().await.unwrap();
            }
            (_, None) => listener = Some(open(local)),
            (_, Some(socket)) => tokio::select! {
                accepted = socket.accept() => take(&shared, accepted.unwrap().0),
                changed = door.changed() => changed.unwrap(),
            },
        }
    }
}

fn take(shared: &Arc<Shared>, dialler: TcpStream) {
    // Whoever closes the door first and looks at the connections then, sees this one or has it refused.
    let mut wires = shared.wires.lock().unwrap();
    let door = *shared.door.borrow();
    if matches!(door, Door::Reset | Door::Refuse) {
        SockRef::from(&dialler).set_linger(Some(Duration::ZERO)).unwrap();
        return;
    }
    let fate = if door == Door::Swallow { Fate::Hold } else { Fate::Pass };
    let wire = Arc::new(Wire {
        fate: watch::channel(fate).0,
        filters: Default::default(),
        is_over: AtomicBool::new(false),
        carried_bytes: Default::default(),
    });
    if let Some(greeting) = &*shared.greeting.lock().unwrap() {
        greeting(&wire);
    }
    wires.push(Arc::clone(&wire));
    let (target, is_framed) = (shared.target, shared.is_framed);
    tokio::spawn(async move {
        carry(&wire, dialler, target, is_framed).await;
        wire.is_over.store(true, Ordering::Relaxed);
    });
}

async fn carry(wire: &Wire, dialler: TcpStream, target: SocketAddr, is_framed: bool) {
    let mut fate = wire.fate.subscribe();
    while *fate.borrow_and_update() == Fate::Hold {
        fate.changed().await.unwrap();
    }
    let Ok(listener) = TcpStream::connect(target).await else {
        return SockRef::from(&dialler).set_linger(Some(Duration::ZERO)).unwrap();
    };
    for socket in [&dialler, &listener] {
        socket.set_nodelay(true).unwrap();
    }
    let mut there = Pipe::new(wire, Way::ToListener, is_framed);
    let mut back = Pipe::new(wire, Way::ToDialler, is_framed);
    loop {
        let state = *fate.borrow_and_update();
        match state {
            Fate::Pass => tokio::select! {
                biased;
                changed = fate.changed() => changed.unwrap(),
                outcome = both(&mut there, &mut back, &dialler, &listener) => {
                    if outcome.is_err() {
                        reset(&dialler, &listener);
                    }
                    return;
                }
            },
            Fate::Hold => fate.changed().await.unwrap(),
            Fate::Finish => {
                for socket in [&dialler, &listener] {
                    // One that is gone cannot be told.
                    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
                }
                return;
            }
            Fate::Reset => return reset(&dialler, &listener),
        }
    }
}

async fn both(
    there: &mut Pipe<'_>,
    back: &mut Pipe<'_>,
    dialler: &TcpStream,
    listener: &TcpStream,
) -> std::io::Result<()> {
    tokio::try_join!(there.run(dialler, listener), back.run(listener, dialler)).map(|_| ())
}

fn reset(dialler: &TcpStream, listener: &TcpStream) {
    for socket in [dialler, listener] {
        SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// One way of a connection. What it holds survives that its future is dropped.
struct Pipe<'a> {
    wire: &'a Wire,
    way: Way,
    is_framed: bool,
    incoming: BytesMut,
    outgoing: BytesMut,
    has_ended: bool,
}

/// As much as is held at most of a raw stream.
const PIECE_BYTES: usize = 64 * 1024;

impl<'a> Pipe<'a> {
    fn new(wire: &'a Wire, way: Way, is_framed: bool) -> Self {
        Self { wire, way, is_framed, incoming: BytesMut::new(), outgoing: BytesMut::new(), has_ended: false }
    }

    async fn run(&mut self, from: &TcpStream, to: &TcpStream) -> std::io::Result<()> {
        loop {
            while !self.outgoing.is_empty() {
                to.writable().await?;
                match to.try_write(&self.outgoing) {
                    Ok(count) => {
                        self.outgoing.advance(count);
                        self.wire.carried_bytes[self.way as usize].fetch_add(count as u64, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            if self.has_ended {
                return SockRef::from(to).shutdown(std::net::Shutdown::Write);
            }
            from.readable().await?;
            self.incoming.reserve(PIECE_BYTES);
            match from.try_read_buf(&mut self.incoming) {
                Ok(0) => self.has_ended = true,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            self.pass_on();
        }
    }

    fn pass_on(&mut self) {
        let mut filter = self.wire.filters[self.way as usize].lock().unwrap();
        let Some(filter) = filter.as_mut() else {
            // Without a filter, whole messages only: one may come between them at any time.
            let whole = if self.has_ended || !self.is_framed { self.incoming.len() } else { whole(&self.incoming) };
            return self.outgoing.unsplit(self.incoming.split_to(whole));
        };
        let mut out = Vec::new();
        if !self.is_framed {
            filter(self.incoming.split().to_vec(), &mut out);
        }
        while let Ok(Some(size)) = message_size(&self.incoming, 1 << 20)
            && size <= self.incoming.len()
        {
            filter(self.incoming.split_to(size).to_vec(), &mut out);
        }
        out.iter().for_each(|message| self.outgoing.extend_from_slice(message));
    }
}

/// Bytes of the whole messages at the front; everything, where there is no message.
fn whole(bytes: &[u8]) -> usize {
    let mut end = 0;
    loop {
        match message_size(&bytes[end..], 1 << 20) {
            Ok(Some(size)) if end + size <= bytes.len() => end += size,
            Ok(_) => return end,
            Err(_) => return bytes.len(),
        }
    }
}

/// Lets every further connection die as soon as its join is answered and the dialler has said so. Counts them.
pub(crate) fn dying(proxy: &Proxy) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    proxy.greet(move |wire| {
        counted.fetch_add(1, Ordering::Relaxed);
        let is_answered = Arc::new(AtomicBool::new(false));
        let (seen, dying) = (Arc::clone(&is_answered), Arc::downgrade(wire));
        wire.filter(Way::ToDialler, move |message, out| {
            seen.store(true, Ordering::Relaxed);
            out.push(message);
        });
        wire.filter(Way::ToListener, move |message, out| {
            if let Some(wire) = dying.upgrade().filter(|_| is_answered.load(Ordering::Relaxed)) {
                wire.kill();
            }
            out.push(message);
        });
    });
    count
}

/// Changes one byte of the next message of `size_min` bytes, `offset` bytes behind its front.
pub(crate) fn flip(size_min: usize, offset: usize) -> impl FnMut(Vec<u8>, &mut Vec<Vec<u8>>) {
    once(size_min, move |mut message, out| {
        message[offset] ^= 0x10;
        out.push(message);
    })
}

/// Loses the next message of `size_min` bytes.
pub(crate) fn lose(size_min: usize) -> impl FnMut(Vec<u8>, &mut Vec<Vec<u8>>) {
    once(size_min, |_, _| {})
}

/// Sends the next message of `size_min` bytes twice.
pub(crate) fn duplicate(size_min: usize) -> impl FnMut(Vec<u8>, &mut Vec<Vec<u8>>) {
    once(size_min, |message, out| out.extend([message.clone(), message]))
}

/// Sends the next message of `size_min` bytes after its follower.
pub(crate) fn swap(size_min: usize) -> impl FnMut(Vec<u8>, &mut Vec<Vec<u8>>) {
    let mut held = None;
    let mut is_done = false;
    move |message, out| {
        if !is_done && message.len() >= size_min {
            is_done = true;
            held = Some(message);
        } else {
            out.push(message);
            out.extend(held.take());
        }
    }
}

/// Sends a part of the next message of `size_min` bytes, and nothing after it.
pub(crate) fn truncate(size_min: usize, len: usize) -> impl FnMut(Vec<u8>, &mut Vec<Vec<u8>>) {
    let mut is_done = false;
    move |mut message, out| {
        if is_done {
            return;
        }
        is_done = message.len() >= size_min;
        if is_done {
            message.truncate(len);
        }
        out.push(message);
    }
}

/// Does something with the next message of `size_min` bytes, and leaves all others alone.
pub(crate) fn once(
    size_min: usize,
    change: impl FnOnce(Vec<u8>, &mut Vec<Vec<u8>>),
) -> impl FnMut(Vec<u8>, &mut Vec<Vec<u8>>) {
    let mut change = Some(change);
    move |message, out| match change.take_if(|_| message.len() >= size_min) {
        Some(change) => change(message, out),
        None => out.push(message),
    }
}
