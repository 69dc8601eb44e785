//! The writing half of a stream.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::error::WriteError;
use super::shared::{Inner, Shared, Wait};
use crate::base::{StreamCode, StreamId};
use crate::stream::{self, Priority};

/// Writes of at least this size are copied before the session is locked, for which it is locked twice.
const COPIED_OUTSIDE_BYTES_MIN: usize = 8 * 1024;

/// Writes to a stream. Bytes leave by themselves: there is no need to flush. Dropping it without
/// [`finish`](Self::finish) resets the stream.
pub struct SendStream {
    shared: Arc<Shared>,
    id: StreamId,
    is_over: bool,
}

impl SendStream {
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self { shared, id, is_over: false }
    }

    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Writes a chunk without copying it; waits while the stream has no room.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), WriteError> {
        poll_fn(|context| self.poll_write_chunk(context, &chunk)).await
    }

    /// Writes a chunk without copying it, whole, or registers the task to be woken when there is room.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn poll_write_chunk(&mut self, context: &Context<'_>, chunk: &Bytes) -> Poll<Result<(), WriteError>> {
        self.poll(context, |inner, id| inner.session.write_chunk(id, chunk.clone()))
    }

    /// As `poll_write`, for short messages after which nothing follows soon: one that finds a lane idle is sent in this task,
    /// before this returns. Messages of several streams that come closely leave together, as do those of one stream with
    /// nothing received in between.
    ///
    /// # Errors
    /// [`WriteError`].
    pub(crate) fn poll_send(&mut self, context: &Context<'_>, data: &[u8]) -> Poll<Result<usize, WriteError>> {
        let (shared, id) = (&self.shared, self.id);
        shared.with_sending(id, |inner| write_or_wait(inner, id, context, |inner, id| inner.session.write(id, data)))
    }

    /// Ends the stream: the peer reads what was written, then the end. Returns at once;
    /// [`finished`](Self::finished) waits for the peer.
    ///
    /// # Errors
    /// [`WriteError`] when the stream is over already.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.is_over = true;
        let id = self.id;
        self.shared.with(|inner| {
            let finished = inner.session.finish(id);
            finished.map_err(|error| write_error(inner, error))
        })
    }

    /// Gives the stream up: the peer is told the code, and what it has not read may be lost.
    pub fn reset(&mut self, code: StreamCode) {
        self.is_over = true;
        let id = self.id;
        self.shared.with(|inner| inner.session.reset(id, code));
    }

    /// Sets how urgent the stream's bytes are.
    pub fn set_priority(&mut self, priority: Priority) {
        let id = self.id;
        self.shared.with(|inner| inner.session.set_priority(id, priority));
    }

    /// Waits until the peer's session has everything after [`finish`](Self::finish).
    ///
    /// # Errors
    /// [`WriteError`] when the peer stopped the stream or the session ended before.
    pub async fn finished(&mut self) -> Result<(), WriteError> {
        let id = self.id;
        poll_fn(|context| {
            self.shared.with(|inner| {
                if let Some(code) = inner.session.streams().stopped(id) {
                    return Poll::Ready(Err(WriteError::Stopped(code)));
                }
                if inner.session.streams().is_finished(id) {
                    return Poll::Ready(Ok(()));
                }
                if let Some(reason) = inner.closed() {
                    return Poll::Ready(Err(WriteError::Session(reason.clone())));
                }
                inner.wait(Wait::Finished(id), context);
                Poll::Pending
            })
        })
        .await
    }

    /// Waits until the peer wants no more: with which code, or `None` when it has everything.
    ///
    /// # Errors
    /// [`WriteError::Session`] when the session ended before.
    pub async fn stopped(&mut self) -> Result<Option<StreamCode>, WriteError> {
        match self.finished().await {
            Ok(()) => Ok(None),
            Err(WriteError::Stopped(code)) => Ok(Some(code)),
            Err(error) => Err(error),
        }
    }

    /// Writes, or waits for room. Also asks for room alone.
    fn poll<R>(
        &mut self,
        context: &Context<'_>,
        write: impl FnOnce(&mut Inner, StreamId) -> Result<R, stream::WriteError>,
    ) -> Poll<Result<R, WriteError>> {
        let id = self.id;
        self.shared.with(|inner| write_or_wait(inner, id, context, write))
    }
}

fn write_or_wait<R>(
    inner: &mut Inner,
    id: StreamId,
    context: &Context<'_>,
    write: impl FnOnce(&mut Inner, StreamId) -> Result<R, stream::WriteError>,
) -> Poll<Result<R, WriteError>> {
    if let Some(reason) = inner.closed() {
        return Poll::Ready(Err(WriteError::Session(reason.clone())));
    }
    let is_probed = inner.session.wants_queue_probe();
    match write(inner, id) {
        Ok(result) => {
            if is_probed {
                inner.session.begin_queue_probe(id, Instant::now());
            }
            Poll::Ready(Ok(result))
        }
        Err(stream::WriteError::Blocked) => {
            inner.wait(Wait::Writable(id), context);
            Poll::Pending
        }
        Err(error) => Poll::Ready(Err(write_error(inner, error))),
    }
}

fn write_error(inner: &Inner, error: stream::WriteError) -> WriteError {
    match (inner.closed(), error) {
        (Some(reason), _) => WriteError::Session(reason.clone()),
        (None, stream::WriteError::Stopped(code)) => WriteError::Stopped(code),
        (None, _) => WriteError::Closed,
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let this = self.get_mut();
        if data.len() < COPIED_OUTSIDE_BYTES_MIN {
            return this.poll(context, |inner, id| inner.session.write(id, data)).map_err(Into::into);
        }
        let room = ready!(this.poll(context, |inner, id| inner.session.write_room(id)))?;
        let chunk = Bytes::copy_from_slice(&data[..data.len().min(room)]);
        this.poll_write_chunk(context, &chunk).map_ok(|()| chunk.len()).map_err(Into::into)
    }

    /// There is nothing to flush: bytes leave by themselves.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(this.finish().map_err(Into::into))
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let (id, is_over) = (self.id, self.is_over);
        self.shared.with(|inner| {
            inner.forget(Wait::Writable(id));
            inner.forget(Wait::Finished(id));
            // After a stop the half is only kept for this side to learn of it.
            if !is_over || inner.session.streams().stopped(id).is_some() {
                inner.session.reset(id, StreamCode::CANCELLED);
            }
        });
    }
}
