//! A local socket of an application: TCP or Unix.

use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::channel::{Congestion, Connection, Io, Keepalive, NotsentLowat, TcpOptions};

/// The socket of an application, of which this task is the only holder.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// The socket of a connection of which nobody else holds a half.
    pub(super) fn from_connection(connection: Connection) -> Option<Self> {
        match connection.io {
            Io::Tcp(stream) => Arc::into_inner(stream).map(|tcp| Self::Tcp(tcp.into_stream())),
            Io::Unix(stream) => Arc::into_inner(stream).map(Self::Unix),
            Io::Tls(_) | Io::Quic(_) => None,
        }
    }

    /// The other end and this one, where they have addresses.
    pub(super) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        match self {
            Self::Tcp(stream) => (stream.peer_addr().ok(), stream.local_addr().ok()),
            Self::Unix(_) => (None, None),
        }
    }

    /// Reads what the system has now, without asking the runtime, which learns of a fresh socket's bytes later.
    pub(super) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*SockRef::from(stream)).read(buffer),
            Self::Unix(stream) => (&*SockRef::from(stream)).read(buffer),
        }
    }

    /// Reads at the end of the buffer; waits for the first byte. Cancel safe.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_buf(buffer).await,
            Self::Unix(stream) => stream.read_buf(buffer).await,
        }
    }

    /// Ends the sending direction.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Self::Unix(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
        }
    }

    /// Makes the close of the socket a reset. A Unix socket knows none: its peer sees an end.
    pub(super) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self
            && let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO))
        {
            tracing::trace!(%error, "socket had ended before it was reset");
        }
    }

    /// Whether there may be something to read, without a buffer.
    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
        }
    }

    /// Reads into the buffer.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }

    /// Writes as much as the system takes.
    pub(super) fn poll_write(&self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(match self {
                Self::Tcp(stream) => stream.poll_write_ready(context),
                Self::Unix(stream) => stream.poll_write_ready(context),
            })?;
            match self.write_now(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn write_now(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let size: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = None;
        let write = || {
            let count = match (self, slices) {
                (Self::Tcp(stream), [slice]) => stream.try_write(slice),
                (Self::Unix(stream), [slice]) => stream.try_write(slice),
                (Self::Tcp(stream), _) => stream.try_write_vectored(slices),
                (Self::Unix(stream), _) => stream.try_write_vectored(slices),
            }?;
            taken = Some(count);
            // A socket that took a part is full. The runtime is told so, which saves a call that would find it out.
            if count > 0 && count < size { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        };
        let outcome = match self {
            Self::Tcp(stream) => stream.try_io(Interest::WRITABLE, write),
            Self::Unix(stream) => stream.try_io(Interest::WRITABLE, write),
        };
        taken.map_or(outcome, Ok)
    }

    /// Waits until the connection is reset, also while nobody reads. An end of the other side's sending direction is
    /// none, and neither is a reset after it: what was sent before the end may still have to be read.
    pub(super) async fn broken(&self) -> io::Error {
        let ready = match self {
            Self::Tcp(stream) => stream.ready(Interest::ERROR).await,
            Self::Unix(stream) => stream.ready(Interest::ERROR).await,
        };
        let error = ready.and_then(|_| match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        });
        match error {
            Ok(Some(error)) | Err(error) if error.kind() != io::ErrorKind::BrokenPipe => error,
            // The other direction has found the error itself, or will.
            _ => std::future::pending().await,
        }
    }
}

/// Options of applications' sockets: they are near, and their bytes cannot be sent by another way.
pub(super) fn local_tcp_options() -> TcpOptions {
    TcpOptions {
        keepalive: Some(Keepalive { idle: KEEPALIVE_IDLE, interval: KEEPALIVE_INTERVAL, count: 4 }),
        user_timeout: None,
        notsent_lowat: NotsentLowat::Off,
        congestion: Congestion::System,
        ..TcpOptions::default()
    }
}

/// A vanished client is noticed within two minutes, and a silent one costs a packet a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Between probes that were not answered.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
