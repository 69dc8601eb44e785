//! From the socket to the stream.
//!
//! Small reads go through the thread's scratch buffer and are copied into the stream. A read that fills it begins a
//! run of large ones: into buffers of this connection, which are handed to the stream as they are, and double while
//! reads fill them. At most one read waits for room in the stream.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, ReadBuf};

use super::scratch::{SCRATCH_BYTES, with_scratch};
use super::{End, HalfWaker, ROUNDS_MAX, Step, end_of_write};
use crate::node::SendStream;
use crate::service::counters::Counters;
use crate::service::socket::Socket;
use crate::service::throttle::{Pace, Way};

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// Read, and not taken by the stream yet.
    pending: Option<Bytes>,
    /// The rest of a large buffer, while the socket has more.
    spare: BytesMut,
    /// Size of the next large buffer; zero while reads are small.
    size: usize,
    /// The stream had no room, and its signal tells when it has.
    is_blocked: bool,
    is_over: bool,
    has_read: bool,
}

impl Upload {
    /// Puts bytes in front of those of the socket.
    pub(super) fn push(&mut self, first: Bytes) {
        self.pending = Some(first);
    }

    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut Socket,
        send: &mut SendStream,
        writable: &HalfWaker,
        counters: &Counters,
        pace: &mut Pace,
    ) -> Result<Step, End> {
        for _ in 0..ROUNDS_MAX {
            if !self.is_over && !self.flush(send, writable)? {
                return Ok(Step::Waiting);
            }
            if self.is_over {
                return Ok(Step::Over);
            }
            let Poll::Ready(allowed) = pace.poll_allowed(Way::ToPeer, context) else {
                self.spare = BytesMut::new();
                return Ok(Step::Waiting);
            };
            if self.size > allowed {
                self.size = if allowed < LARGE_BYTES_MIN { 0 } else { LARGE_BYTES_MIN };
            }
            let count = match self.size {
                0 => self.read_small(allowed, context, socket, send, writable)?,
                _ => self.read_large(context, socket, send, writable)?,
            };
            match count {
                Poll::Pending => {
                    self.spare = BytesMut::new();
                    return Ok(Step::Waiting);
                }
                Poll::Ready(0) => {
                    // A stream that the peer stopped meanwhile has no end to be told.
                    let _ = send.finish();
                    self.end();
                }
                Poll::Ready(count) => {
                    self.has_read = true;
                    counters.on_to_peer(count);
                    pace.on_moved(Way::ToPeer, count);
                }
            }
        }
        Ok(Step::More)
    }

    /// Whether the stream has no room for what was read, so that nothing is read.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Whether the socket has given anything.
    pub(super) fn has_read(&self) -> bool {
        self.has_read
    }

    /// Hands over what waits: whether nothing does any more.
    pub(super) fn flush(&mut self, send: &mut SendStream, writable: &HalfWaker) -> Result<bool, End> {
        let Some(pending) = &self.pending else { return Ok(true) };
        if self.is_blocked && !writable.signal.take() {
            return Ok(false);
        }
        match send.poll_write_chunk(&Context::from_waker(&writable.waker), pending) {
            Poll::Ready(Ok(())) => {
                self.pending = None;
                self.is_blocked = false;
            }
            Poll::Ready(Err(error)) => {
                if let Some(end) = end_of_write(error) {
                    return Err(end);
                }
                self.end();
            }
            Poll::Pending => self.is_blocked = true,
        }
        Ok(!self.is_blocked)
    }

    fn read_small(
        &mut self,
        allowed: usize,
        context: &mut Context<'_>,
        socket: &mut Socket,
        send: &mut SendStream,
        writable: &HalfWaker,
    ) -> Result<Poll<usize>, End> {
        with_scratch(|scratch| {
            let size = scratch.len().min(allowed);
            let mut buffer = ReadBuf::new(&mut scratch[..size]);
            let Poll::Ready(outcome) = socket.poll_read(context, &mut buffer) else { return Ok(Poll::Pending) };
            outcome.map_err(End::Socket)?;
            let data = buffer.filled();
            self.copy(data, send, writable);
            if data.len() == SCRATCH_BYTES {
                self.size = LARGE_BYTES_MIN;
            }
            Ok(Poll::Ready(data.len()))
        })
    }

    /// Copies into the stream what it has room for, and keeps the rest. An error comes up again when that is flushed.
    fn copy(&mut self, data: &[u8], send: &mut SendStream, writable: &HalfWaker) {
        let mut context = Context::from_waker(&writable.waker);
        // A read that left room was the last one: nothing follows until the application says more.
        let outcome = if data.len() < COPY_BYTES_MAX {
            send.poll_send(&context, data).map_err(drop)
        } else {
            Pin::new(send).poll_write(&mut context, data).map_err(drop)
        };
        let taken = match outcome {
            Poll::Ready(Ok(taken)) => taken,
            Poll::Ready(Err(_)) => 0,
            Poll::Pending => {
                self.is_blocked = true;
                0
            }
        };
        if taken < data.len() {
            self.pending = Some(Bytes::copy_from_slice(&data[taken..]));
        }
    }

    fn read_large(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut Socket,
        send: &mut SendStream,
        writable: &HalfWaker,
    ) -> Result<Poll<usize>, End> {
        match socket.poll_read_ready(context) {
            Poll::Ready(outcome) => outcome.map_err(End::Socket)?,
            Poll::Pending => return Ok(Poll::Pending),
        }
        if self.spare.capacity() < self.size / 2 {
            self.spare = BytesMut::with_capacity(self.size);
        }
        let room = self.spare.capacity();
        let Poll::Ready(outcome) = pin!(socket.read(&mut self.spare)).poll(context) else { return Ok(Poll::Pending) };
        let count = outcome.map_err(End::Socket)?;
        if count >= COPY_BYTES_MAX {
            self.pending = Some(self.spare.split().freeze());
        } else {
            let mut spare = std::mem::take(&mut self.spare);
            self.copy(&spare, send, writable);
            spare.clear();
            self.spare = spare;
        }
        self.adapt(count, room);
        Ok(Poll::Ready(count))
    }

    /// Doubles the size while reads fill the room, halves it when they are far from it.
    fn adapt(&mut self, count: usize, room: usize) {
        if count == room {
            self.size = (self.size * 2).min(LARGE_BYTES_MAX);
        } else if count < self.size / 4 {
            self.size /= 2;
            if self.size < LARGE_BYTES_MIN {
                self.size = 0;
            }
        }
    }

    fn end(&mut self) {
        *self = Self { is_over: true, has_read: self.has_read, ..Self::default() };
    }
}

/// First size of a buffer of the connection's own.
const LARGE_BYTES_MIN: usize = 4 * SCRATCH_BYTES;

/// Largest size: four packets.
const LARGE_BYTES_MAX: usize = 256 * 1024;

/// A shorter read is copied: it would pin too much of its buffer until the peer has acknowledged it.
const COPY_BYTES_MAX: usize = 4 * 1024;
