//! Sockets that a service manager bound before this process began, and handed over (`sd_listen_fds(3)`).
//!
//! Owns what was handed over for as long as the process runs: whoever listens gets a duplicate, so that an address can be
//! listened on again after it was given up. Listeners look here first for the address that they want. Which names the
//! configuration uses is the business of `config`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use listenfd::ListenFd;
use socket2::{Socket, Type};

/// Where a socket that was handed over is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InheritedPlace {
    /// A TCP listener.
    Tcp(SocketAddr),
    /// A UDP socket.
    Udp(SocketAddr),
    /// A listening Unix socket with a path.
    Unix(PathBuf),
    /// Something else: why it cannot be used.
    Unusable(&'static str),
}

impl std::fmt::Display for InheritedPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "TCP at {address}"),
            Self::Udp(address) => write!(f, "UDP at {address}"),
            Self::Unix(path) => write!(f, "Unix at {}", path.display()),
            Self::Unusable(reason) => f.write_str(reason),
        }
    }
}

/// A socket that was handed over.
#[derive(Debug)]
pub struct InheritedSocket {
    name: String,
    place: InheritedPlace,
    socket: Option<Socket>,
    is_used: AtomicBool,
}

impl InheritedSocket {
    /// Its name: `FileDescriptorName=` of the unit, or the unit's own.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is bound.
    #[must_use]
    pub fn place(&self) -> &InheritedPlace {
        &self.place
    }

    /// Whether anything has listened on it.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    fn new(name: String, socket: io::Result<Option<Socket>>) -> Self {
        let socket = socket.ok().flatten();
        let place = match &socket {
            Some(socket) => place_of(socket).unwrap_or(InheritedPlace::Unusable("a socket without an address")),
            None => InheritedPlace::Unusable("neither a TCP, UDP nor Unix stream socket"),
        };
        Self { name, place, socket, is_used: AtomicBool::new(false) }
    }

    fn duplicate(&self) -> Option<io::Result<Socket>> {
        let duplicate = || -> io::Result<Socket> {
            let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?.try_clone()?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        if let InheritedPlace::Unusable(_) = self.place {
            return None;
        }
        self.is_used.store(true, Ordering::Relaxed);
        tracing::info!(name = self.name, place = %self.place, "socket of the service manager taken");
        Some(duplicate())
    }
}

/// All sockets that were handed over, in the order of the service manager.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<InheritedSocket>);

impl InheritedSockets {
    /// Takes what the environment says was handed over to this process; none if it says nothing. From then on whatever
    /// listens in this process looks here first. Call it before there are other threads, as it removes the variables.
    pub fn take_over() -> &'static Self {
        OF_PROCESS.get_or_init(|| {
            let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
            Self::of_descriptors(ListenFd::from_env(), &names)
        })
    }

    /// What [`take_over`](Self::take_over) took; `None` before it was called.
    #[must_use]
    pub fn of_process() -> Option<&'static Self> {
        OF_PROCESS.get()
    }

    /// The sockets.
    pub fn iter(&self) -> impl Iterator<Item = &InheritedSocket> {
        self.0.iter()
    }

    fn of_descriptors(mut descriptors: ListenFd, names: &str) -> Self {
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let count = descriptors.len().min(DESCRIPTORS_MAX);
        let take = |index| {
            // The name that sd_listen_fds_with_names(3) gives to what has none.
            let name = names.next().unwrap_or("unknown").to_owned();
            let socket = match (descriptors.take_tcp_listener(index), descriptors.take_udp_socket(index)) {
                (Ok(Some(listener)), _) => Ok(Some(listener.into())),
                (_, Ok(Some(socket))) => Ok(Some(socket.into())),
                _ => descriptors.take_unix_listener(index).map(|listener| listener.map(Into::into)),
            };
            InheritedSocket::new(name, socket)
        };
        Self((0..count).map(take).collect())
    }
}

fn place_of(socket: &Socket) -> Option<InheritedPlace> {
    let address = socket.local_addr().ok()?;
    let is_stream = socket.r#type().ok()? == Type::STREAM;
    if is_stream && !rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(true) {
        return Some(InheritedPlace::Unusable("a socket that does not listen (the unit needs Accept=no)"));
    }
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) if is_stream => Some(InheritedPlace::Tcp(address)),
        (Some(address), _) => Some(InheritedPlace::Udp(address)),
        (None, Some(path)) => Some(InheritedPlace::Unix(path.to_owned())),
        (None, None) => None,
    }
}

/// A duplicate of the TCP listener at this address, if there is one.
pub(crate) fn tcp_at(address: SocketAddr) -> Option<io::Result<Socket>> {
    find(|place| matches!(place, InheritedPlace::Tcp(bound) if is_same(*bound, address))).next()
}

/// Duplicates of all UDP sockets at this address: several share it (`ReusePort=`).
pub(crate) fn udp_at(address: SocketAddr) -> io::Result<Vec<Socket>> {
    find(|place| matches!(place, InheritedPlace::Udp(bound) if is_same(*bound, address))).collect()
}

/// A duplicate of the Unix socket at this path, if there is one.
pub(crate) fn unix_at(path: &Path) -> Option<io::Result<Socket>> {
    find(|place| matches!(place, InheritedPlace::Unix(bound) if bound == path)).next()
}

fn find(is_wanted: impl Fn(&InheritedPlace) -> bool) -> impl Iterator<Item = io::Result<Socket>> {
    let sockets = OF_PROCESS.get().into_iter().flat_map(|sockets| &sockets.0);
    sockets.filter(move |socket| is_wanted(&socket.place)).filter_map(InheritedSocket::duplicate)
}

/// Scopes of link-local addresses are told by one side only.
fn is_same(bound: SocketAddr, wanted: SocketAddr) -> bool {
    wanted.port() != 0 && (bound.ip(), bound.port()) == (wanted.ip(), wanted.port())
}

/// What was handed over to this process. Descriptors belong to the process, and so does this.
static OF_PROCESS: OnceLock<InheritedSockets> = OnceLock::new();

/// What is looked at of a wrong `LISTEN_FDS`. systemd's own limit of sockets and stored descriptors is far below.
const DESCRIPTORS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_listen_cannot_be_used() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connection = std::net::TcpStream::connect(address).unwrap();
        let of = |socket: Socket| InheritedSocket::new("x".to_owned(), Ok(Some(socket)));
        assert_eq!(of(listener.into()).place, InheritedPlace::Tcp(address));
        let unusable = of(connection.into());
        assert!(unusable.place.to_string().contains("Accept=no"));
        assert!(unusable.duplicate().is_none() && !unusable.is_used());
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = datagrams.local_addr().unwrap();
        let datagrams = of(datagrams.into());
        assert_eq!(datagrams.place, InheritedPlace::Udp(address));
        let duplicate = datagrams.duplicate().unwrap().unwrap();
        assert_eq!(duplicate.local_addr().unwrap().as_socket(), Some(address));
        assert!(datagrams.is_used());
    }

    #[test]
    fn addresses_are_compared_without_their_scope_and_port_0_is_none() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(is_same(address("[fe80::1%3]:7"), address("[fe80::1]:7")));
        assert!(!is_same(address("127.0.0.1:7"), address("0.0.0.0:7")));
        assert!(!is_same(address("127.0.0.1:0"), address("127.0.0.1:0")));
    }
}
