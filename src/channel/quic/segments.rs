//! A UDP socket that is given no more datagrams in one call than the system takes: with segmentation offload they go to
//! the kernel as one piece, which is limited like a datagram, and what is larger is lost without a word. And one that asks
//! for no more room to receive than such a piece can fill.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// A socket, and how many datagrams of the largest size go to it, and come from it, at once.
#[derive(Debug)]
pub(super) struct Segments {
    inner: Arc<dyn AsyncUdpSocket>,
    sent_max: usize,
    received_max: usize,
}

impl Segments {
    /// Sends datagrams of up to `datagram_bytes_max`, and takes such of up to `payload_bytes_max`.
    ///
    /// quinn takes 32 pieces at once, each of up to 64 datagrams of the largest size, although the kernel makes no piece larger
    /// than the largest datagram: with room for datagrams of 64 KiB that is a buffer of 134 MB for each endpoint, which an
    /// allocator that fills it with zeros makes resident.
    pub(super) fn of(inner: Arc<dyn AsyncUdpSocket>, datagram_bytes_max: u16, payload_bytes_max: u16) -> Self {
        let sent_max = (OFFLOAD_BYTES_MAX / usize::from(datagram_bytes_max.max(1))).max(1);
        let received_max = PIECE_BYTES_MAX.div_ceil(usize::from(payload_bytes_max.max(1)));
        Self { inner, sent_max, received_max }
    }
}

impl AsyncUdpSocket for Segments {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(self.sent_max)
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments().min(self.received_max)
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// A UDP datagram over IPv4 with the largest head of both.
const OFFLOAD_BYTES_MAX: usize = 65_535 - 60 - 8;

/// The payload of the largest UDP datagram, which is the longest piece that the kernel puts datagrams together to.
const PIECE_BYTES_MAX: usize = 65_535 - 8;

#[cfg(test)]
mod tests {
    use quinn::{Runtime, TokioRuntime};

    use super::*;

    #[tokio::test]
    async fn there_is_room_for_the_longest_piece_and_hardly_for_more() {
        for payload_bytes_max in [1200_u16, 1472, 8972, 65_002, 65_527] {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let socket = TokioRuntime.wrap_udp_socket(socket).unwrap();
            let most = socket.max_receive_segments();
            let socket = Segments::of(socket, payload_bytes_max, payload_bytes_max);
            let (count, bytes) = (socket.max_receive_segments(), usize::from(payload_bytes_max));
            assert!(count == most || count * bytes >= PIECE_BYTES_MAX, "{payload_bytes_max}: {count}");
            assert!(count * bytes < PIECE_BYTES_MAX + bytes, "{payload_bytes_max}: {count}");
        }
    }
}
