//! A UDP socket that is given no more datagrams in one call than the system takes: with segmentation offload they go to
//! the kernel as one piece, which is limited like a datagram, and what is larger is lost without a word.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// A socket, and how many datagrams of the largest size go to it at once.
#[derive(Debug)]
pub(super) struct Segments {
    inner: Arc<dyn AsyncUdpSocket>,
    count_max: usize,
}

impl Segments {
    pub(super) fn of(inner: Arc<dyn AsyncUdpSocket>, datagram_bytes_max: u16) -> Self {
        let count_max = (OFFLOAD_BYTES_MAX / usize::from(datagram_bytes_max.max(1))).max(1);
        Self { inner, count_max }
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
        self.inner.max_transmit_segments().min(self.count_max)
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// A UDP datagram over IPv4 with the largest head of both.
const OFFLOAD_BYTES_MAX: usize = 65_535 - 60 - 8;
