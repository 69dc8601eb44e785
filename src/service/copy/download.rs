//! From the stream to the socket.
//!
//! Chunks are taken as they lie in the stream and written together. What the socket does not take stays here, at most
//! [`QUEUED_BYTES_MAX`]; the rest waits in the stream, where flow control counts it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};

use super::{End, HalfWaker, ROUNDS_MAX, Step};
use crate::base::StreamCode;
use crate::node::{Next, RecvStream};
use crate::service::counters::Counters;
use crate::service::socket::Socket;
use crate::service::throttle::{Pace, Way};

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Download {
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    /// The stream had nothing, and its signal tells when it has.
    is_blocked: bool,
    /// The stream has more than the queue takes, and its signal tells of a reset.
    is_watched: bool,
    /// The stream was read to its end.
    has_ended: bool,
    is_over: bool,
    /// Told when the socket takes the first bytes.
    first: Option<Box<dyn FnOnce() + Send>>,
    /// When the socket took something the last time, if somebody wants to know.
    last_write: Option<Instant>,
}

impl Download {
    /// Has somebody hear when the socket takes the first bytes.
    pub(super) fn on_first(&mut self, told: Box<dyn FnOnce() + Send>) {
        self.first = Some(told);
    }

    /// Notes from now on when the socket takes bytes; `now` stands for a time before.
    pub(super) fn note_last_write(&mut self, now: Instant) {
        self.last_write = Some(now);
    }

    /// When the socket took bytes the last time, if that was noted; from now on it is not.
    pub(super) fn take_last_write(&mut self) -> Option<Instant> {
        self.last_write.take()
    }

    /// Puts bytes in front of those of the stream.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.queued_bytes += chunk.len();
            self.queue.push_back(chunk);
        }
    }

    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        socket: &Socket,
        recv: &mut RecvStream,
        readable: &HalfWaker,
        counters: &Counters,
        pace: &mut Pace,
    ) -> Result<Step, End> {
        if self.is_over {
            return Ok(Step::Over);
        }
        for _ in 0..ROUNDS_MAX {
            self.fill(context, recv, readable, pace)?;
            if self.queue.is_empty() {
                return Ok(self.rest(socket));
            }
            match self.write(context, socket) {
                Poll::Pending => {
                    self.watch(recv, readable)?;
                    return Ok(Step::Waiting);
                }
                Poll::Ready(Ok(count)) => {
                    counters.on_from_peer(count);
                    if let Some(last) = &mut self.last_write {
                        *last = Instant::now();
                    }
                    if let Some(told) = self.first.take() {
                        told();
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    // The application reads no more; what it has said may still have to be read.
                    recv.stop(StreamCode::CONNECTION_RESET);
                    *self = Self { is_over: true, ..Self::default() };
                    return Ok(Step::Over);
                }
                Poll::Ready(Err(error)) => return Err(End::Socket(error)),
            }
        }
        Ok(Step::More)
    }

    fn fill(
        &mut self,
        context: &mut Context<'_>,
        recv: &mut RecvStream,
        readable: &HalfWaker,
        pace: &mut Pace,
    ) -> Result<(), End> {
        while !self.has_ended && self.queued_bytes < QUEUED_BYTES_MAX && self.queue.len() < SLICES_MAX {
            // In front of the signal, which tells once.
            let Poll::Ready(allowed) = pace.poll_allowed(Way::FromPeer, context) else { break };
            if self.is_blocked && !readable.signal.take() {
                break;
            }
            let size_max = allowed.min(QUEUED_BYTES_MAX - self.queued_bytes);
            self.is_watched = false;
            let context = Context::from_waker(&readable.waker);
            let read = recv.read_chunks(&context, size_max, SLICES_MAX - self.queue.len(), &mut self.queue)?;
            if read.bytes > 0 {
                pace.on_moved(Way::FromPeer, read.bytes);
            }
            self.queued_bytes += read.bytes;
            self.has_ended = read.next == Next::End;
            self.is_blocked = read.next == Next::Waits;
            if self.is_blocked {
                break;
            }
        }
        Ok(())
    }

    /// Notices a reset of the stream while the socket takes nothing and the queue is full.
    fn watch(&mut self, recv: &mut RecvStream, readable: &HalfWaker) -> Result<(), End> {
        if self.has_ended || self.is_blocked || (self.is_watched && !readable.signal.take()) {
            return Ok(());
        }
        // No byte is taken: it would have no place.
        if let Poll::Ready(outcome) = recv.poll_read_chunk(&Context::from_waker(&readable.waker), 0) {
            self.has_ended = outcome?.is_none();
        }
        self.is_watched = true;
        Ok(())
    }

    fn write(&mut self, context: &mut Context<'_>, socket: &Socket) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = self.queue.len().min(SLICES_MAX);
        for (slice, chunk) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(chunk);
        }
        let outcome = socket.poll_write(context, &slices[..count]);
        if let Poll::Ready(Ok(count)) = &outcome {
            self.advance(*count);
        }
        outcome
    }

    fn advance(&mut self, mut count: usize) {
        self.queued_bytes -= count;
        while let Some(first) = self.queue.front_mut().filter(|_| count > 0) {
            let taken = count.min(first.len());
            first.advance(taken);
            count -= taken;
            if first.is_empty() {
                self.queue.pop_front();
            }
        }
    }

    /// Nothing is there to be written: for now, or ever.
    fn rest(&mut self, socket: &Socket) -> Step {
        if self.queue.capacity() > SLICES_IDLE_MAX {
            self.queue = VecDeque::new();
        }
        if !self.has_ended {
            return Step::Waiting;
        }
        if let Err(error) = socket.shutdown_write() {
            tracing::trace!(%error, "socket had ended before its sending direction");
        }
        self.is_over = true;
        Step::Over
    }
}

/// What a connection holds of a stream when its socket takes nothing.
const QUEUED_BYTES_MAX: usize = 256 * 1024;

/// Chunks in one write.
const SLICES_MAX: usize = 16;

/// Room for chunks that an idle connection keeps.
const SLICES_IDLE_MAX: usize = 4;
