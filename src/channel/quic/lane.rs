//! A lane: one bidirectional stream of a QUIC connection, read and written like a socket.
//!
//! Lanes write in turns, a message each, and only while little is [unsent](super::unsent). What arrives is brought into
//! order [here](super::reorder).

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::reorder::{HeldBytes, Reorder};
use super::unsent::Unsent;
use crate::channel::path::{PathMeter, PathStats};

/// What the lanes of a connection share.
#[derive(Clone, Debug)]
pub(super) struct Common {
    /// One permit: whose turn it is to write.
    turns: Arc<Semaphore>,
    held: HeldBytes,
    unsent: Arc<Mutex<Arc<Unsent>>>,
    meter: Arc<PathMeter>,
}

impl Common {
    pub(super) fn new(connection: &quinn::Connection, meter: Arc<PathMeter>) -> Self {
        let unsent = Arc::new(Mutex::new(Unsent::of(connection)));
        Self { turns: Arc::new(Semaphore::new(1)), held: HeldBytes::default(), unsent, meter }
    }

    /// Counts bytes that quinn took.
    pub(super) fn on_written(&self, bytes: usize) {
        lock(&self.unsent).on_written(bytes);
    }

    /// Waits until quinn has sent most of what it was given, or has ended.
    async fn room(&self, connection: &quinn::Connection) {
        loop {
            let unsent = Arc::clone(&lock(&self.unsent));
            if unsent.has_room() || connection.close_reason().is_some() {
                return;
            }
            if tokio::time::timeout(METER_INTERVAL, unsent.room()).await.is_err() {
                // The peer may have a new address, and that path a meter of its own.
                *lock(&self.unsent) = Unsent::of(connection);
            }
        }
    }
}

/// The bytes of a lane. Clones are the same lane.
#[derive(Clone)]
pub struct QuicIo(Arc<Lane>);

struct Lane {
    connection: quinn::Connection,
    common: Common,
    /// The connection ends with it.
    is_first: bool,
    receiving: Mutex<Receiving>,
    sending: Mutex<Sending>,
}

struct Receiving {
    stream: RecvStream,
    reorder: Reorder,
    /// Read, in order, and not yet handed out.
    pending: Bytes,
    is_finished: bool,
}

struct Sending {
    /// Taken when the connection is to be closed.
    stream: Option<SendStream>,
    is_closing: bool,
    /// It goes before the other lanes.
    is_express: bool,
}

impl QuicIo {
    pub(super) fn new(connection: quinn::Connection, common: &Common, send: SendStream, receive: RecvStream) -> Self {
        let is_first = receive.id().index() == 0;
        let receiving = Receiving {
            stream: receive,
            reorder: Reorder::new(common.held.clone()),
            pending: Bytes::new(),
            is_finished: false,
        };
        let (common, sending) = (common.clone(), Sending { stream: Some(send), is_closing: false, is_express: false });
        Self(Arc::new(Lane {
            connection,
            common,
            is_first,
            receiving: Mutex::new(receiving),
            sending: Mutex::new(sending),
        }))
    }

    pub(crate) fn downgrade(&self) -> WeakQuicIo {
        WeakQuicIo(Arc::downgrade(&self.0))
    }

    /// Waits until the other lanes have written what they began, and quinn has sent most of it. With `is_express` there is
    /// nothing to wait for: it goes before that.
    pub(crate) async fn turn(&self, is_express: bool) -> Option<OwnedSemaphorePermit> {
        self.set_express(is_express);
        if is_express {
            return None;
        }
        let common = &self.0.common;
        // It is never closed.
        let permit = Arc::clone(&common.turns).acquire_owned().await.ok();
        common.room(&self.0.connection).await;
        permit
    }

    fn set_express(&self, is_express: bool) {
        let mut sending = lock(&self.0.sending);
        if sending.is_express == is_express {
            return;
        }
        sending.is_express = is_express;
        if let Some(stream) = &sending.stream {
            // It was finished or reset before.
            let _ = stream.set_priority(if is_express { EXPRESS_PRIORITY } else { 0 });
        }
    }

    /// Ready when [`try_read`](Self::try_read) has something to say.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0.receiving).poll_pending(context)
    }

    /// Reads into the spare capacity of `buffer` without waiting. `None`: nothing is there.
    pub(crate) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        let mut receiving = lock(&self.0.receiving);
        // Whoever waits is woken by the poll that it waits with.
        let mut context = Context::from_waker(Waker::noop());
        let mut count = 0;
        while buffer.capacity() > buffer.len() {
            match receiving.poll_pending(&mut context) {
                Poll::Ready(Ok(())) if receiving.pending.is_empty() => return Ok(Some(count)),
                Poll::Ready(Ok(())) => count += receiving.take_pending(buffer),
                // What was read in front of the error is handed out first; the next call meets it again.
                Poll::Ready(Err(error)) if count == 0 => return Err(error),
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        Ok((count > 0).then_some(count))
    }

    /// Writes a part of `bytes`, which it takes from their front.
    pub(crate) fn poll_write(&self, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        let mut sending = lock(&self.0.sending);
        let stream = sending.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut chunks = [std::mem::take(bytes)];
        let outcome = pin!(stream.write_chunks(&mut chunks)).poll(context);
        let [rest] = chunks;
        *bytes = rest;
        self.0.common.on_written(ready!(outcome)?.bytes);
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
    /// What the connection says of its path, if the lane is its first one.
    pub(crate) fn path_stats(&self) -> Option<PathStats> {
        let lane = self.0.upgrade().filter(|lane| lane.is_first)?;
        let stats = lane.connection.stats();
        Some(PathStats {
            round_trip: stats.path.rtt,
            round_trip_min: None,
            packets_sent: stats.path.sent_packets,
            packets_lost: stats.path.lost_packets,
            bytes_sent: stats.udp_tx.bytes,
            bytes_lost: stats.path.lost_bytes,
            congestion_window_bytes: stats.path.cwnd,
            delivery_rate: None,
            unsent_bytes: None,
            round_trips: lane.common.meter.take(),
        })
    }

    /// When the peer acknowledged any packet of the connection last.
    pub(crate) fn heard_at(&self) -> Option<Instant> {
        self.0.upgrade()?.common.meter.heard_at()
    }

    /// Ends the lane, and the connection with its first one, once the peer has what was written to that.
    pub(crate) fn end(&self) {
        let Some(lane) = self.0.upgrade() else { return };
        if lane.is_first { lane.close_connection() } else { Self::reset(&lane) }
    }

    /// Ends the lane at once, and the connection with its first one.
    pub(crate) fn abort(&self) {
        let Some(lane) = self.0.upgrade() else { return };
        if lane.is_first { lane.connection.close(VarInt::from_u32(0), b"") } else { Self::reset(&lane) }
    }

    fn reset(lane: &Lane) {
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
    /// Ready when bytes are pending, or with none at the end.
    fn poll_pending(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending.is_empty() && !self.is_finished {
            if let Some(bytes) = self.reorder.pop() {
                self.pending = bytes;
                break;
            }
            // A chunk is a slice of what quinn holds.
            match ready!(pin!(self.stream.read_chunk(usize::MAX, false)).poll(context))? {
                Some(chunk) => {
                    let next = self.reorder.push(chunk.offset, chunk.bytes);
                    self.pending = next.map_err(io::Error::other)?.unwrap_or_default();
                }
                None => self.is_finished = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take_pending(&mut self, buffer: &mut BytesMut) -> usize {
        let count = self.pending.len().min(buffer.capacity() - buffer.len());
        buffer.extend_from_slice(&self.pending[..count]);
        self.pending.advance(count);
        count
    }
}

impl Lane {
    /// Closes the connection once the peer has what was written, or does not take it in time. Only the first call counts.
    fn close_connection(&self) {
        let stream = match lock(&self.sending) {
            mut sending if !sending.is_closing => {
                sending.is_closing = true;
                sending.stream.take()
            }
            _ => return,
        };
        let connection = self.connection.clone();
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

impl Drop for Lane {
    /// The first lane takes the connection along; others end like any stream.
    fn drop(&mut self) {
        if self.is_first && self.connection.close_reason().is_none() {
            self.close_connection();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of quinn's streams, all others have 0.
const EXPRESS_PRIORITY: i32 = 1;

/// How often the meter is looked for while there is no room.
const METER_INTERVAL: Duration = Duration::from_millis(100);

/// How long the last bytes of a channel may take to arrive.
const LINGER: Duration = Duration::from_secs(1);
