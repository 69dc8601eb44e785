//! A connection: two halves of a byte pipe and what is known about its ends.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};

use super::abort::AbortHandle;
use super::address::ChannelKind;
use super::halves::{ReadHalf, WriteHalf};
use super::options::NotsentLowat;
use super::quic::QuicIo;
use super::tcp_io::TcpIo;
use super::tls_pipe::TlsPipe;

/// An established channel, dialled or accepted.
#[derive(Debug)]
pub struct Connection {
    /// Its bytes.
    pub io: Io,
    /// Its ends.
    pub info: ChannelInfo,
}

impl Connection {
    /// A connection over TCP; `kind` says what its address asked for, as a `tls://` one starts as plain TCP.
    pub(crate) fn tcp(stream: TcpStream, kind: ChannelKind, notsent_lowat: NotsentLowat) -> io::Result<Self> {
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        let info = ChannelInfo {
            kind,
            local: local.to_string(),
            peer: peer.to_string(),
            peer_ip: Some(peer.ip().to_canonical()),
        };
        Ok(Self { io: Io::Tcp(Arc::new(TcpIo::new(stream, notsent_lowat))), info })
    }

    /// A connection over a Unix socket at `path`; the dialling end has no name of its own.
    pub(crate) fn unix(stream: UnixStream, local: String, peer: String) -> Self {
        let info = ChannelInfo { kind: ChannelKind::Unix, local, peer, peer_ip: None };
        Self { io: Io::Unix(Arc::new(stream)), info }
    }

    /// A handle that ends the connection from elsewhere, while others hold its halves.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(&self.io)
    }
}

/// What is known about the ends of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// What carries it.
    pub kind: ChannelKind,
    /// This end, for logs.
    pub local: String,
    /// The other end, for logs.
    pub peer: String,
    /// The other end's IP address, where it has one; an IPv4-mapped one is given as IPv4.
    pub peer_ip: Option<IpAddr>,
}

impl ChannelInfo {
    /// A number for the path between the two ends, by their IP addresses, where they have some. It means something in this
    /// process alone.
    #[must_use]
    pub fn path(&self) -> Option<u64> {
        let local = self.local.parse::<SocketAddr>().ok()?.ip().to_canonical();
        let mut hasher = DefaultHasher::new();
        (local, self.peer_ip?).hash(&mut hasher);
        Some(hasher.finish())
    }
}

/// The bytes of a channel.
#[derive(Clone)]
#[non_exhaustive]
pub enum Io {
    /// Over TCP.
    Tcp(Arc<TcpIo>),
    /// Over a Unix socket.
    Unix(Arc<UnixStream>),
    /// TLS over TCP.
    Tls(TlsIo),
    /// A lane of a QUIC connection.
    Quic(QuicIo),
}

impl Io {
    /// The two halves. The socket is closed when both are dropped.
    #[must_use]
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        (ReadHalf::new(self.clone()), WriteHalf::new(self))
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => formatter.debug_tuple("Tcp").field(stream).finish(),
            Self::Unix(stream) => formatter.debug_tuple("Unix").field(stream).finish(),
            Self::Tls(_) => formatter.debug_tuple("Tls").finish_non_exhaustive(),
            Self::Quic(lane) => formatter.debug_tuple("Quic").field(lane).finish(),
        }
    }
}

/// TLS over TCP, behind a lock that both halves share.
#[derive(Clone)]
pub struct TlsIo(pub(crate) Arc<TlsPipe>);
