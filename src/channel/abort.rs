//! Ending a channel from elsewhere: at once, or with a reset that the other end sees as one.

use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

use super::connection::Io;
use super::quic::WeakQuicIo;
use super::tcp_io::TcpIo;

/// Ends a channel whose halves are held by others. Holding it does not keep the socket open, and every method on a
/// channel that is closed already does nothing.
#[derive(Clone, Debug)]
pub struct AbortHandle(Target);

#[derive(Clone, Debug)]
enum Target {
    Tcp(Weak<TcpIo>),
    Unix(Weak<UnixStream>),
    Quic(WeakQuicIo),
}

impl AbortHandle {
    pub(crate) fn new(io: &Io) -> Self {
        Self(match io {
            Io::Tcp(stream) => Target::Tcp(Arc::downgrade(stream)),
            Io::Unix(stream) => Target::Unix(Arc::downgrade(stream)),
            Io::Quic(lane) => Target::Quic(lane.downgrade()),
            Io::Tls(tls) => Target::Tcp(Arc::downgrade(tls.0.socket())),
        })
    }

    /// What the channel is, to those that look at its path.
    pub(super) fn looked_at_by<T>(
        &self,
        tcp: impl FnOnce(&TcpStream) -> Option<T>,
        quic: impl FnOnce(&WeakQuicIo) -> Option<T>,
    ) -> Option<T> {
        match &self.0 {
            Target::Tcp(stream) => tcp(&**stream.upgrade()?),
            Target::Quic(lane) => quic(lane),
            Target::Unix(_) => None,
        }
    }

    /// When the transport's peer acknowledged anything last, where the transport tells without being asked for more: of
    /// QUIC.
    pub fn heard_at(&self) -> Option<Instant> {
        self.looked_at_by(|_| None, WeakQuicIo::heard_at)
    }

    /// Shuts both directions down at once: the halves end, the other end sees the end of the stream after what was
    /// sent before. A QUIC lane is reset; the first one closes its connection after what was sent.
    pub fn kill(&self) {
        match &self.0 {
            Target::Tcp(stream) => with(stream, |stream| SockRef::from(&**stream).shutdown(Shutdown::Both)),
            Target::Unix(stream) => with(stream, |stream| SockRef::from(stream).shutdown(Shutdown::Both)),
            Target::Quic(lane) => lane.end(),
        }
    }

    /// Makes the eventual close send a reset instead of an orderly end, and drop what was not sent. Nothing happens
    /// before both halves are dropped. A Unix socket knows no reset.
    pub fn reset_on_close(&self) {
        if let Target::Tcp(stream) = &self.0 {
            with(stream, |stream| SockRef::from(&**stream).set_linger(Some(Duration::ZERO)));
        }
    }

    /// Sends a reset: at once on Linux, where both halves then fail; elsewhere when the halves are dropped, of which
    /// the reading one ends at once. A Unix socket knows no reset and is shut down.
    pub fn abort(&self) {
        self.reset_on_close();
        match &self.0 {
            Target::Tcp(stream) => with(stream, |stream| reset(stream)),
            Target::Unix(_) => self.kill(),
            Target::Quic(lane) => lane.abort(),
        }
    }
}

/// Dissolves the connection, which sends a reset (`tcp_disconnect` of the kernel) and wakes whoever waits.
#[cfg(target_os = "linux")]
fn reset(stream: &TcpStream) -> io::Result<()> {
    rustix::net::connect_unspec(stream).or_else(|_| SockRef::from(stream).shutdown(Shutdown::Read))
}

/// Ends reading without a packet, so that the reader wakes and drops its half.
#[cfg(not(target_os = "linux"))]
fn reset(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).shutdown(Shutdown::Read)
}

/// Calls on a socket that is still open. An error means that the connection has ended on its own.
fn with<T>(socket: &Weak<T>, call: impl FnOnce(&T) -> io::Result<()>) {
    if let Some(socket) = socket.upgrade()
        && let Err(error) = call(&socket)
    {
        tracing::trace!(%error, "channel had ended before it was aborted");
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::net::TcpListener;

    use super::*;
    use crate::channel::{ChannelKind, Connection, NotsentLowat};

    async fn tcp_pair() -> (Connection, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let connection = |stream| Connection::tcp(stream, ChannelKind::Tcp, NotsentLowat::Auto).unwrap();
        (connection(dialled.unwrap()), connection(accepted.unwrap().0))
    }

    async fn read(connection: Connection) -> io::Result<usize> {
        let (mut read, _write) = connection.io.split();
        read.read(&mut BytesMut::with_capacity(8)).await
    }

    #[tokio::test]
    async fn a_killed_channel_ends_on_both_sides() {
        let (one, other) = tcp_pair().await;
        let handle = one.abort_handle();
        let reading = tokio::spawn(read(one));
        tokio::task::yield_now().await;
        handle.kill();
        assert_eq!(reading.await.unwrap().unwrap(), 0);
        assert_eq!(read(other).await.unwrap(), 0);
        handle.kill();
        handle.abort();
    }

    #[tokio::test]
    async fn an_aborted_channel_resets_the_other_end() {
        let (one, other) = tcp_pair().await;
        let handle = one.abort_handle();
        let reading = tokio::spawn(read(one));
        tokio::task::yield_now().await;
        handle.abort();
        let _ended = reading.await.unwrap();
        assert_eq!(read(other).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_channel_that_resets_on_close_does_so_when_it_is_dropped() {
        let (one, other) = tcp_pair().await;
        one.abort_handle().reset_on_close();
        drop(one);
        assert_eq!(read(other).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[cfg(feature = "issue")]
    #[tokio::test]
    async fn a_tls_channel_is_aborted_below_tls() {
        let (client, server) = crate::channel::tls::tests::tls_pair().await;
        let handle = client.connection.abort_handle();
        let reading = tokio::spawn(read(client.connection));
        tokio::task::yield_now().await;
        handle.abort();
        let _ended = reading.await.unwrap();
        assert_eq!(read(server.connection).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_handle_does_not_keep_the_socket_open() {
        let (one, other) = tcp_pair().await;
        let _handle = one.abort_handle();
        drop(one);
        assert_eq!(read(other).await.unwrap(), 0);
    }
}
