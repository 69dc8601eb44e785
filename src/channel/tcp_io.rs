//! The TCP socket of a channel.

use std::ops::Deref;

use tokio::net::TcpStream;

use super::options::NotsentLowat;

/// A TCP socket, and what is chosen for it while it runs.
#[derive(Debug)]
pub struct TcpIo {
    stream: TcpStream,
    notsent_lowat: NotsentLowat,
}

impl TcpIo {
    /// A socket with its options set, of which `notsent_lowat` is one.
    #[must_use]
    pub fn new(stream: TcpStream, notsent_lowat: NotsentLowat) -> Self {
        Self { stream, notsent_lowat }
    }

    /// The socket alone.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Whether its `TCP_NOTSENT_LOWAT` follows the rate.
    pub(super) fn adapts_notsent_lowat(&self) -> bool {
        cfg!(target_os = "linux") && self.notsent_lowat == NotsentLowat::Auto
    }

    /// Sets `TCP_NOTSENT_LOWAT`. Where that fails, the channel has: whoever writes next is told.
    #[cfg(target_os = "linux")]
    pub(super) fn set_notsent_lowat(&self, bytes: u32) {
        if let Err(error) = socket2::SockRef::from(&self.stream).set_tcp_notsent_lowat(bytes) {
            tracing::trace!(%error, "the bound of unsent bytes stays what it was");
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn set_notsent_lowat(&self, _bytes: u32) {}
}

impl Deref for TcpIo {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}
