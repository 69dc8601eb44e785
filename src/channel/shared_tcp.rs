//! A TCP stream behind an `Arc` as an asynchronous reader and writer, so that TLS over it can be ended from outside.
//!
//! It reads ahead: rustls asks for 4 KiB at a time, and a call of the system for each would cost more than copying them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tcp_io::TcpIo;

/// What is read at once: about what a packet takes. The room is held only while bytes are in it.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// One of possibly several owners of a stream, the only one that reads it. At most one of them may write at a time.
#[derive(Debug)]
pub struct SharedTcp {
    stream: Arc<TcpIo>,
    /// Read, and not asked for yet.
    ahead: BytesMut,
}

impl SharedTcp {
    /// The only reader from now on, of which `ahead` has been read already.
    pub(crate) fn after(stream: Arc<TcpIo>, ahead: BytesMut) -> Self {
        Self { stream, ahead }
    }

    pub(crate) fn stream(&self) -> &Arc<TcpIo> {
        &self.stream
    }

    /// Reads as much as fits into a buffer of our own.
    fn poll_read_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            self.ahead = BytesMut::with_capacity(READ_AHEAD_BYTES);
            match self.stream.try_read_buf(&mut self.ahead) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.ahead = BytesMut::new(),
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncRead for SharedTcp {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.ahead.is_empty() {
            ready!(this.poll_read_ahead(context))?;
        }
        let count = this.ahead.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead[..count]);
        this.ahead.advance(count);
        if this.ahead.is_empty() {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SharedTcp {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&**self.stream).shutdown(std::net::Shutdown::Write))
    }
}
