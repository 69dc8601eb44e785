//! The shared state of the two halves of a TLS channel: the TLS stream behind a lock that is never held across an
//! await, and its socket beside it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio_rustls::TlsStream;

use super::shared_tcp::SharedTcp;
use super::tcp_io::TcpIo;

/// TLS over a socket. The one [`ReadHalf`](super::ReadHalf) and the one [`WriteHalf`](super::WriteHalf) poll it, each
/// with its own waker: the socket keeps one waker for reading and one for writing.
pub(crate) struct TlsPipe {
    stream: Mutex<TlsStream<SharedTcp>>,
    socket: Arc<TcpIo>,
}

impl TlsPipe {
    pub(crate) fn new(stream: TlsStream<SharedTcp>) -> Self {
        let socket = Arc::clone(stream.get_ref().0.stream());
        Self { stream: Mutex::new(stream), socket }
    }

    pub(crate) fn socket(&self) -> &Arc<TcpIo> {
        &self.socket
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, TlsStream<SharedTcp>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when plaintext is buffered, the stream has ended, or it has failed. Reads from the socket, into the
    /// buffers of rustls, what there is.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.lock();
        ready!(Pin::new(&mut *stream).poll_fill_buf(context)).map(drop).into()
    }

    /// Moves what there is of plaintext to the spare capacity of `buffer`. Polls with a waker that does nothing: that
    /// the next `poll_readable` polls the socket again is what keeps a wakeup from being lost. An error after some
    /// bytes is put off to the next call by `deferred`.
    pub(crate) fn try_read(
        &self,
        buffer: &mut BytesMut,
        deferred: &mut Option<io::Error>,
    ) -> io::Result<Option<usize>> {
        if let Some(error) = deferred.take() {
            return Err(error);
        }
        let mut context = Context::from_waker(Waker::noop());
        let mut stream = self.lock();
        let mut read = 0;
        loop {
            let spare = buffer.capacity() - buffer.len();
            if spare == 0 {
                return Ok(Some(read));
            }
            match Pin::new(&mut *stream).poll_fill_buf(&mut context) {
                Poll::Ready(Ok([])) => return Ok(Some(read)),
                Poll::Ready(Ok(plaintext)) => {
                    let taken = plaintext.len().min(spare);
                    buffer.extend_from_slice(&plaintext[..taken]);
                    Pin::new(&mut *stream).consume(taken);
                    read += taken;
                }
                Poll::Pending => return Ok((read > 0).then_some(read)),
                Poll::Ready(Err(error)) if read == 0 => return Err(error),
                Poll::Ready(Err(error)) => {
                    *deferred = Some(error);
                    return Ok(Some(read));
                }
            }
        }
    }

    /// Takes a part of `bytes`, and hands to the socket what it takes. The rest of the records waits in rustls, below
    /// its own bound, for `poll_flush`. `None` when an earlier rest still waits.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let mut context = Context::from_waker(Waker::noop());
        let mut stream = self.lock();
        let mut stream = Pin::new(&mut *stream);
        match stream.as_mut().poll_flush(&mut context) {
            Poll::Pending => return Ok(None),
            Poll::Ready(outcome) => outcome?,
        }
        match stream.as_mut().poll_write(&mut context, bytes) {
            Poll::Pending => Ok(None),
            Poll::Ready(outcome) => outcome.map(Some),
        }
    }

    /// Takes a part of `bytes`; waits while rustls holds as much as it may.
    pub(crate) fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(context, bytes)
    }

    /// Ready when every record is with the socket.
    pub(crate) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(context)
    }

    /// Sends the notice of the end (RFC 8446 §6.1) and ends the socket's sending direction.
    pub(crate) fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(context)
    }
}
