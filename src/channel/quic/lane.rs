//! A lane: one bidirectional stream of a QUIC connection, read and written like a socket.
//!
//! What was written and not yet sent cannot be sent on another channel instead, so little of it is let in: the
//! connection's send window follows its congestion window.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt;

use super::options::SEND_WINDOW_INITIAL_BYTES;

/// The bytes of a lane. Clones are the same lane.
#[derive(Clone)]
pub struct QuicIo(Arc<Lane>);

struct Lane {
    connection: quinn::Connection,
    /// The connection ends with it.
    is_first: bool,
    receiving: Mutex<Receiving>,
    sending: Mutex<Sending>,
}

struct Receiving {
    stream: RecvStream,
    /// Read while waiting, and not yet handed out.
    pending: Bytes,
    is_finished: bool,
}

struct Sending {
    /// Taken when the lane is dropped.
    stream: Option<SendStream>,
    window_bytes: u64,
    next_look: Instant,
}

impl QuicIo {
    pub(super) fn new(connection: quinn::Connection, send: SendStream, receive: RecvStream) -> Self {
        let is_first = receive.id().index() == 0;
        let receiving = Receiving { stream: receive, pending: Bytes::new(), is_finished: false };
        let sending =
            Sending { stream: Some(send), window_bytes: SEND_WINDOW_INITIAL_BYTES, next_look: Instant::now() };
        Self(Arc::new(Lane { connection, is_first, receiving: Mutex::new(receiving), sending: Mutex::new(sending) }))
    }

    pub(crate) fn downgrade(&self) -> WeakQuicIo {
        WeakQuicIo(Arc::downgrade(&self.0))
    }

    /// Ready when [`try_read`](Self::try_read) has something to say.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut receiving = lock(&self.0.receiving);
        if receiving.has_something() {
            return Poll::Ready(Ok(()));
        }
        // A chunk is a slice of what quinn holds.
        let chunk = ready!(pin!(receiving.stream.read_chunk(usize::MAX, true)).poll(context))?;
        match chunk {
            Some(chunk) => receiving.pending = chunk.bytes,
            None => receiving.is_finished = true,
        }
        Poll::Ready(Ok(()))
    }

    /// Reads into the spare capacity of `buffer` without waiting. `None`: nothing is there.
    pub(crate) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        let mut receiving = lock(&self.0.receiving);
        let mut count = receiving.take_pending(buffer);
        if receiving.is_finished {
            return Ok(Some(count));
        }
        if buffer.capacity() > buffer.len() && receiving.pending.is_empty() {
            // Whoever waits is woken by the poll that it waits with.
            let mut context = Context::from_waker(Waker::noop());
            match pin!(receiving.stream.read_buf(buffer)).poll(&mut context) {
                Poll::Ready(Ok(0)) => {
                    receiving.is_finished = true;
                    return Ok(Some(count));
                }
                Poll::Ready(Ok(more)) => count += more,
                // What was read in front of the error is handed out first; the next call meets it again.
                Poll::Ready(Err(error)) if count == 0 => return Err(error),
                Poll::Ready(Err(_)) | Poll::Pending => {}
            }
        }
        Ok((count > 0).then_some(count))
    }

    /// Writes a part of `bytes`, which it takes from their front.
    pub(crate) fn poll_write(&self, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        let mut sending = lock(&self.0.sending);
        sending.follow_congestion_window(&self.0.connection);
        let stream = sending.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut chunks = [std::mem::take(bytes)];
        let outcome = pin!(stream.write_chunks(&mut chunks)).poll(context);
        let [rest] = chunks;
        *bytes = rest;
        ready!(outcome)?;
        Poll::Ready(Ok(()))
    }

    /// Ends the sending direction: the peer reads what was written, then the end.
    pub(crate) fn finish(&self) {
        if let Some(stream) = &mut lock(&self.0.sending).stream {
            // It was finished or reset before.
            let _ = stream.finish();
        }
    }
}

impl fmt::Debug for QuicIo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.0.connection.remote_address();
        formatter.debug_struct("QuicIo").field("peer", &peer).finish_non_exhaustive()
    }
}

/// A lane that others hold.
#[derive(Clone)]
pub(crate) struct WeakQuicIo(Weak<Lane>);

impl WeakQuicIo {
    /// Ends the lane at once, and the connection with its first one.
    pub(crate) fn abort(&self) {
        let Some(lane) = self.0.upgrade() else { return };
        if lane.is_first {
            lane.connection.close(VarInt::from_u32(0), b"");
            return;
        }
        if let Some(stream) = &mut lock(&lane.sending).stream {
            let _ = stream.reset(VarInt::from_u32(0));
        }
        let _ = lock(&lane.receiving).stream.stop(VarInt::from_u32(0));
    }
}

impl fmt::Debug for WeakQuicIo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WeakQuicIo")
    }
}

impl Receiving {
    fn has_something(&self) -> bool {
        self.is_finished || !self.pending.is_empty()
    }

    fn take_pending(&mut self, buffer: &mut BytesMut) -> usize {
        let count = self.pending.len().min(buffer.capacity() - buffer.len());
        buffer.extend_from_slice(&self.pending[..count]);
        self.pending.advance(count);
        count
    }
}

impl Sending {
    fn follow_congestion_window(&mut self, connection: &quinn::Connection) {
        let now = Instant::now();
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK_INTERVAL;
        let congestion_window = connection.stats().path.cwnd;
        let wanted = congestion_window + (congestion_window / 4).max(UNSENT_BYTES_MIN);
        // A change wakes the connection's task, so that small ones are let be.
        if wanted.abs_diff(self.window_bytes) > self.window_bytes / 16 {
            self.window_bytes = wanted;
            connection.set_send_window(wanted);
        }
    }
}

impl Drop for Lane {
    /// The first lane takes the connection along, once the peer has what was written; others end like any stream.
    fn drop(&mut self) {
        if !self.is_first || self.connection.close_reason().is_some() {
            return;
        }
        let connection = self.connection.clone();
        let stream = self.sending.get_mut().unwrap_or_else(PoisonError::into_inner).stream.take();
        let (Some(mut stream), Ok(runtime)) = (stream, tokio::runtime::Handle::try_current()) else {
            connection.close(VarInt::from_u32(0), b"");
            return;
        };
        runtime.spawn(async move {
            let _ = stream.finish();
            let _ = tokio::time::timeout(LINGER, stream.stopped()).await;
            connection.close(VarInt::from_u32(0), b"");
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often the congestion window is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Written and unsent bytes that are let in on slow paths: a packet or two, as with `TCP_NOTSENT_LOWAT`.
const UNSENT_BYTES_MIN: u64 = 128 << 10;

/// How long the last bytes of a channel may take to arrive.
const LINGER: Duration = Duration::from_secs(1);
