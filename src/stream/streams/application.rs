//! What the application does to streams: opening, writing, finishing, resetting, reading, stopping.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{FinishError, ReadError, ReadOutcome, Streams, WriteError};
use crate::base::{Direction, StreamCode, StreamId};
use crate::stream::Priority;
use crate::wire::Frame;

impl Streams {
    /// Opens a stream, if the peer allows one more; else a [`StreamNotice::Available`](super::StreamNotice) will tell.
    pub fn open(&mut self, direction: Direction, priority: Priority, replay_safe: bool) -> Option<StreamId> {
        let ids = &mut self.local[direction as usize];
        let Some(id) = ids.open() else {
            if let Some(limit) = ids.poll_blocked() {
                self.control.push_back(Frame::StreamsBlocked { direction, limit });
            }
            return None;
        };
        self.insert(id, priority);
        self.mark_replay_safe(id, replay_safe);
        self.control.push_back(Frame::StreamOpen { stream_id: id, priority: priority.to_wire(), replay_safe });
        Some(id)
    }

    /// The next stream that the peer opened.
    pub fn accept(&mut self, direction: Direction) -> Option<StreamId> {
        self.unaccepted[direction as usize].pop_front()
    }

    /// Sets how urgent this side's bytes are.
    pub fn set_priority(&mut self, id: StreamId, priority: Priority) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.priority = priority;
        }
    }

    /// Whether what the stream's opener asks for may happen twice.
    #[must_use]
    pub fn is_replay_safe(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.replay_safe)
    }

    pub(super) fn mark_replay_safe(&mut self, id: StreamId, replay_safe: bool) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.replay_safe = replay_safe;
        }
    }

    /// The stream's priority.
    #[must_use]
    pub fn priority(&self, id: StreamId) -> Option<Priority> {
        self.streams.get(&id).map(|stream| stream.priority)
    }

    /// How many bytes the stream has room for, at least one.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write_room(&mut self, id: StreamId) -> Result<usize, WriteError> {
        self.room(id).map(|room| room as usize)
    }

    /// Appends bytes by copying: returns how many were taken.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was taken then.
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        let room = self.room(id)?;
        let taken = data.len().min(room as usize);
        let sending = self.sending(id)?;
        sending.buffer.write(&data[..taken]);
        self.unsent_bytes += taken as u64;
        self.queue(id);
        Ok(taken)
    }

    /// Appends a chunk without copying it, whole.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was taken then.
    pub fn write_chunk(&mut self, id: StreamId, data: Bytes) -> Result<(), WriteError> {
        self.room(id)?;
        self.unsent_bytes += data.len() as u64;
        self.sending(id)?.buffer.write_chunk(data);
        self.queue(id);
        Ok(())
    }

    /// Ends the sending half after what was written.
    ///
    /// # Errors
    /// [`FinishError`] when it is over already.
    pub fn finish(&mut self, id: StreamId) -> Result<(), FinishError> {
        let sending = self.sending(id)?;
        if let Some(code) = sending.stopped {
            return Err(WriteError::Stopped(code));
        }
        sending.buffer.finish();
        self.queue(id);
        Ok(())
    }

    /// Gives up the sending half: the peer is told, bytes on their way may be lost.
    pub fn reset(&mut self, id: StreamId, code: StreamCode) {
        let Some(sending) = self.streams.get_mut(&id).and_then(|stream| stream.sending.take()) else { return };
        if sending.stopped.is_none() && !sending.buffer.is_complete() {
            self.unsent_bytes -= sending.buffer.unsent_bytes();
            let final_size = sending.buffer.sent_offset();
            self.control.push_back(Frame::StreamReset { stream_id: id, code, final_size });
        }
        self.remove_if_over(id);
    }

    /// Tells the peer that nothing more is wanted, and forgets what has arrived.
    pub fn stop(&mut self, id: StreamId, code: StreamCode, now: Instant, round_trip: Duration) {
        let Some(receiving) = self.streams.get_mut(&id).and_then(|stream| stream.receiving.as_mut()) else { return };
        if receiving.is_stopped {
            return;
        }
        receiving.is_stopped = true;
        let is_over = receiving.reset.is_some() || receiving.buffer.final_size().is_some();
        let untaken = receiving.buffer.clear();
        if !is_over {
            self.control.push_back(Frame::StreamStop { stream_id: id, code });
        }
        self.consume_session(untaken, now, round_trip);
        self.remove_if_over(id);
    }

    /// The code that the peer stopped the stream with, if it did.
    #[must_use]
    pub fn stopped(&self, id: StreamId) -> Option<StreamCode> {
        self.streams.get(&id)?.sending.as_ref()?.stopped
    }

    /// Whether the peer has acknowledged everything, or the stream is over otherwise.
    #[must_use]
    pub fn is_finished(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_none_or(|stream| stream.sending.is_none())
    }

    /// Takes the next bytes, at most `size_max`.
    ///
    /// # Errors
    /// [`ReadError`]; a reset is told once, as is the end.
    pub fn read(
        &mut self,
        id: StreamId,
        size_max: usize,
        now: Instant,
        round_trip: Duration,
    ) -> Result<ReadOutcome, ReadError> {
        let stream = self.streams.get_mut(&id).ok_or(ReadError::Closed)?;
        let receiving = stream.receiving.as_mut().filter(|half| !half.is_stopped).ok_or(ReadError::Closed)?;
        if let Some(code) = receiving.reset {
            stream.receiving = None;
            self.remove_if_over(id);
            return Err(ReadError::Reset(code));
        }
        let Some(data) = receiving.buffer.read(size_max) else {
            if !receiving.buffer.is_drained() {
                return Err(ReadError::Blocked);
            }
            stream.receiving = None;
            self.remove_if_over(id);
            return Ok(ReadOutcome::End);
        };
        receiving.window.consume(data.len() as u64);
        if receiving.buffer.final_size().is_none()
            && let Some(maximum) = receiving.window.poll_update(now, round_trip)
        {
            self.control.push_back(Frame::MaxStreamData { stream_id: id, maximum });
        }
        self.consume_session(data.len() as u64, now, round_trip);
        Ok(ReadOutcome::Data(data))
    }

    /// Whether a read would give something.
    #[must_use]
    pub fn is_readable(&self, id: StreamId) -> bool {
        self.streams
            .get(&id)
            .and_then(|stream| stream.receiving.as_ref())
            .is_none_or(|half| half.reset.is_some() || half.buffer.ready_bytes() > 0 || half.buffer.is_complete())
    }
}
