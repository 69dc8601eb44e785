//! The reading half of a stream.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::error::{ReadError, SessionError};
use super::shared::{Inner, Shared, Wait};
use crate::base::{StreamCode, StreamId};
use crate::stream::{self, ReadOutcome};

/// Reads from a stream. Dropping it before the end tells the peer to stop.
pub struct RecvStream {
    shared: Arc<Shared>,
    id: StreamId,
    /// The end was read, or an error told.
    is_over: bool,
}

impl RecvStream {
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self { shared, id, is_over: false }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Whether what was read so far came in early data (0-RTT): the peer has not shown yet that it is there now, and somebody
    /// may have repeated what it once said.
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.shared.look(|inner| inner.session.is_early())
    }

    /// Waits until the peer has shown that it is there now: then what was read is no repetition.
    ///
    /// # Errors
    /// [`SessionError`] when the session is over before.
    pub async fn authenticated(&self) -> Result<(), SessionError> {
        self.shared.connected().await
    }

    /// The next bytes without copying them, at most `size_max`; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_chunk(&mut self, size_max: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|context| self.poll_read_chunk(context, size_max)).await
    }

    /// The next bytes, or registers the task to be woken when there are some.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn poll_read_chunk(
        &mut self,
        context: &Context<'_>,
        size_max: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        if self.is_over {
            return Poll::Ready(Ok(None));
        }
        let id = self.id;
        let outcome = self.shared.with(|inner| read_or_wait(inner, id, context, size_max, Instant::now()));
        self.is_over = matches!(outcome, Poll::Ready(Ok(None) | Err(_)));
        outcome
    }

    /// Moves what is there to the end of `chunks`, at most so many bytes and chunks. Where that was all, registers the task
    /// to be woken when there is more.
    ///
    /// # Errors
    /// [`ReadError`]. Chunks in front of a reset may have been moved.
    pub(crate) fn read_chunks(
        &mut self,
        context: &Context<'_>,
        mut bytes_max: usize,
        count_max: usize,
        chunks: &mut VecDeque<Bytes>,
    ) -> Result<ChunksRead, ReadError> {
        let mut read = ChunksRead { bytes: 0, next: Next::Chunk };
        if self.is_over {
            return Ok(ChunksRead { next: Next::End, ..read });
        }
        let id = self.id;
        let outcome = self.shared.with(|inner| {
            let now = Instant::now();
            for _ in 0..count_max {
                match read_or_wait(inner, id, context, bytes_max, now) {
                    Poll::Ready(Ok(Some(chunk))) => {
                        read.bytes += chunk.len();
                        bytes_max -= chunk.len();
                        chunks.push_back(chunk);
                    }
                    Poll::Ready(Ok(None)) => read.next = Next::End,
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => read.next = Next::Waits,
                }
                if read.next != Next::Chunk || bytes_max == 0 {
                    break;
                }
            }
            Ok(read)
        });
        self.is_over = matches!(outcome, Err(_) | Ok(ChunksRead { next: Next::End, .. }));
        outcome
    }

    /// Reads to the end, at most `size_max` bytes.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::TooLong`] when there are more.
    pub async fn read_to_end(&mut self, size_max: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.read_chunk(size_max + 1 - bytes.len()).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > size_max {
                return Err(ReadError::TooLong(size_max));
            }
        }
        Ok(bytes)
    }

    /// Wants no more: the peer is told the code.
    pub fn stop(&mut self, code: StreamCode) {
        self.is_over = true;
        let id = self.id;
        self.shared.with(|inner| inner.session.stop(id, code, Instant::now()));
    }
}

fn read_or_wait(
    inner: &mut Inner,
    id: StreamId,
    context: &Context<'_>,
    size_max: usize,
    now: Instant,
) -> Poll<Result<Option<Bytes>, ReadError>> {
    match inner.session.read(id, size_max, now) {
        Ok(ReadOutcome::Data(data)) => Poll::Ready(Ok(Some(data))),
        Ok(ReadOutcome::End) => Poll::Ready(Ok(None)),
        Err(stream::ReadError::Reset(code)) => Poll::Ready(Err(ReadError::Reset(code))),
        Err(error) => match (inner.closed(), error) {
            (Some(reason), _) => Poll::Ready(Err(ReadError::Session(reason.clone()))),
            (None, stream::ReadError::Blocked) => {
                inner.wait(Wait::Readable(id), context);
                Poll::Pending
            }
            (None, _) => Poll::Ready(Err(ReadError::Closed)),
        },
    }
}

/// What [`RecvStream::read_chunks`] has moved, and what is behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunksRead {
    pub(crate) bytes: usize,
    pub(crate) next: Next,
}

/// What is next in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Bytes, or it was not looked for them.
    Chunk,
    /// Nothing yet: the task is woken when there is something.
    Waits,
    /// The end.
    End,
}

impl AsyncRead for RecvStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.get_mut().poll_read_chunk(context, buffer.remaining()).map(|outcome| {
            if let Some(chunk) = outcome? {
                buffer.put_slice(&chunk);
            }
            Ok(())
        })
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let (id, is_over) = (self.id, self.is_over);
        self.shared.with(|inner| {
            inner.forget(Wait::Readable(id));
            if !is_over {
                inner.session.stop(id, StreamCode::CANCELLED, Instant::now());
            }
        });
    }
}
