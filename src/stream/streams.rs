//! All streams of a session, by id: what the application does to them, and what the peer's frames do.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::flow::{ReceiveWindow, SendWindow};
use super::id_allocator::{LocalIds, RemoteIds};
use super::priority::{Priority, ReadyQueue};
use super::receive::{ReceiveBuffer, ReceiveError};
use super::send::{Piece, SendBuffer};
use crate::base::{CloseCode, Direction, Side, StreamCode, StreamId, limits};
use crate::wire::{Frame, StreamData};

/// Sizes of windows and counts of streams.
#[derive(Clone, Debug)]
pub struct StreamsConfig {
    /// First window of a stream, in bytes.
    pub stream_window: u64,
    /// Largest window of a stream, in bytes.
    pub stream_window_max: u64,
    /// First window of the session, in bytes.
    pub session_window: u64,
    /// Largest window of the session, in bytes.
    pub session_window_max: u64,
    /// Streams that the peer may have open at once, in each direction.
    pub streams_max: u64,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            stream_window: limits::STREAM_WINDOW_BYTES,
            stream_window_max: limits::STREAM_WINDOW_BYTES_MAX,
            session_window: limits::SESSION_WINDOW_BYTES,
            session_window_max: limits::SESSION_WINDOW_BYTES_MAX,
            streams_max: limits::STREAMS_MAX,
        }
    }
}

/// Something about a stream that the application may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamNotice {
    /// The peer opened a stream of this direction.
    Opened(Direction),
    /// The peer allows more streams of this direction.
    Available(Direction),
    /// There is data, the end, or a reset to be read.
    Readable(StreamId),
    /// There is room to write, or the peer wants no more.
    Writable(StreamId),
    /// The peer has everything, the end included.
    Finished(StreamId),
}

/// What the peer did wrong; the session has to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    /// Data that contradicts what is known of the stream.
    #[error("{id}: {error}")]
    Receive {
        /// The stream.
        id: StreamId,
        /// What is wrong.
        error: ReceiveError,
    },
    /// A limit was exceeded.
    #[error("peer exceeded its limit of {0}")]
    Limit(&'static str),
    /// A frame that the stream's kind or state forbids.
    #[error("{id}: {what}")]
    State {
        /// The stream.
        id: StreamId,
        /// What the frame would do.
        what: &'static str,
    },
    /// More streams than the application takes.
    #[error("{} streams wait to be accepted", limits::STREAMS_UNACCEPTED_MAX)]
    Unaccepted,
}

impl StreamFault {
    /// The code to close the session with.
    #[must_use]
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Receive { error: ReceiveError::FinalSize { .. }, .. } => CloseCode::FINAL_SIZE_ERROR,
            Self::Receive { error: ReceiveError::TooManyGaps, .. } | Self::Unaccepted => CloseCode::EXCESSIVE_LOAD,
            Self::Limit(_) => CloseCode::FLOW_CONTROL_ERROR,
            Self::State { .. } => CloseCode::STREAM_STATE_ERROR,
        }
    }
}

/// Why bytes were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Later: a [`StreamNotice::Writable`] will tell.
    #[error("stream has no room")]
    Blocked,
    /// The peer wants no more.
    #[error("peer stopped the stream: {0}")]
    Stopped(StreamCode),
    /// The stream was finished or reset by this side.
    #[error("stream is closed")]
    Closed,
}

/// Why a stream could not be finished.
pub type FinishError = WriteError;

/// What a read gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Bytes in order.
    Data(Bytes),
    /// The end of the stream.
    End,
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Later: a [`StreamNotice::Readable`] will tell.
    #[error("stream has no data")]
    Blocked,
    /// The peer reset the stream.
    #[error("peer reset the stream: {0}")]
    Reset(StreamCode),
    /// The stream was read to its end, stopped, or never was.
    #[error("stream is closed")]
    Closed,
}

#[derive(Debug)]
struct Sending {
    buffer: SendBuffer,
    window: SendWindow,
    /// The application found no room.
    is_waited_for: bool,
    /// In the ready queue.
    is_queued: bool,
    /// Among those whose new bytes wait for the session's credit. Lost ones need none, so it may be queued, too.
    is_held_up: bool,
    stopped: Option<StreamCode>,
}

#[derive(Debug)]
struct Receiving {
    buffer: ReceiveBuffer,
    window: ReceiveWindow,
    reset: Option<StreamCode>,
    is_stopped: bool,
}

#[derive(Debug)]
struct Stream {
    priority: Priority,
    /// `None` once it is over, or where the direction has none.
    sending: Option<Sending>,
    receiving: Option<Receiving>,
}

/// The streams of a session.
#[derive(Debug)]
pub struct Streams {
    side: Side,
    config: StreamsConfig,
    peer_stream_window: u64,
    streams: HashMap<StreamId, Stream>,
    local: [LocalIds; 2],
    remote: [RemoteIds; 2],
    unaccepted: [VecDeque<StreamId>; 2],
    ready: ReadyQueue,
    /// Have bytes to send and wait for the session's credit.
    held_up: Vec<StreamId>,
    send_window: SendWindow,
    receive_window: ReceiveWindow,
    received_bytes: u64,
    /// Sum of bytes written and never sent.
    unsent_bytes: u64,
    control: VecDeque<Frame>,
    notices: VecDeque<StreamNotice>,
}

impl Streams {
    /// No streams yet. The peer's credits come with [`set_peer_limits`](Self::set_peer_limits).
    #[must_use]
    pub fn new(side: Side, config: StreamsConfig) -> Self {
        let remote = |direction| RemoteIds::new(side.peer(), direction, config.streams_max);
        Self {
            side,
            peer_stream_window: 0,
            streams: HashMap::new(),
            local: [LocalIds::new(side, Direction::Bi, 0), LocalIds::new(side, Direction::Uni, 0)],
            remote: [remote(Direction::Bi), remote(Direction::Uni)],
            unaccepted: [VecDeque::new(), VecDeque::new()],
            ready: ReadyQueue::default(),
            held_up: Vec::new(),
            send_window: SendWindow::default(),
            receive_window: ReceiveWindow::new(config.session_window, config.session_window_max),
            received_bytes: 0,
            unsent_bytes: 0,
            control: VecDeque::new(),
            notices: VecDeque::new(),
            config,
        }
    }

    /// Takes the credits of the peer's transport parameters, in bytes and streams.
    pub fn set_peer_limits(&mut self, session_window: u64, stream_window: u64, bi_max: u64, uni_max: u64) {
        self.send_window.set_maximum(session_window);
        self.peer_stream_window = stream_window;
        self.local[0].set_maximum(bi_max);
        self.local[1].set_maximum(uni_max);
    }

    // ---- The application's side ----

    /// Opens a stream, if the peer allows one more; else a [`StreamNotice::Available`] will tell.
    pub fn open(&mut self, direction: Direction, priority: Priority) -> Option<StreamId> {
        let ids = &mut self.local[direction as usize];
        let Some(id) = ids.open() else {
            if let Some(limit) = ids.poll_blocked() {
                self.control.push_back(Frame::StreamsBlocked { direction, limit });
            }
            return None;
        };
        self.insert(id, priority);
        self.control.push_back(Frame::StreamOpen { stream_id: id, priority: priority.to_wire() });
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

    /// The stream's priority.
    #[must_use]
    pub fn priority(&self, id: StreamId) -> Option<Priority> {
        self.streams.get(&id).map(|stream| stream.priority)
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

    // ---- The peer's frames ----

    /// Takes stream data.
    ///
    /// # Errors
    /// [`StreamFault`]; the session has to be closed.
    pub fn handle_data(&mut self, frame: &StreamData, now: Instant, round_trip: Duration) -> Result<(), StreamFault> {
        let id = frame.stream_id;
        self.check_use(id, !id.is_writable_by(self.side.peer()), "data on a stream that the peer cannot write to")?;
        let Some(receiving) = self.streams.get_mut(&id).and_then(|stream| stream.receiving.as_mut()) else {
            return Ok(());
        };
        let end = frame.offset + frame.data.len() as u64;
        if end > receiving.window.maximum() {
            return Err(StreamFault::Limit("bytes on a stream"));
        }
        let growth = end.saturating_sub(receiving.buffer.highest());
        self.received_bytes += growth;
        if self.received_bytes > self.receive_window.maximum() {
            return Err(StreamFault::Limit("bytes in a session"));
        }
        let is_wanted = !receiving.is_stopped && receiving.reset.is_none();
        let news = receiving
            .buffer
            .insert(frame.offset, &frame.data, frame.fin)
            .map_err(|error| StreamFault::Receive { id, error })?;
        if is_wanted {
            if news {
                self.notices.push_back(StreamNotice::Readable(id));
            }
        } else {
            receiving.buffer.clear();
            self.consume_session(growth, now, round_trip);
            self.remove_if_over(id);
        }
        Ok(())
    }

    /// Takes the news of a stream.
    ///
    /// # Errors
    /// [`StreamFault`]; the session has to be closed.
    pub fn handle_open(&mut self, id: StreamId, priority: Priority) -> Result<(), StreamFault> {
        self.check_use(id, id.initiator() == self.side, "opening a stream of ours")?;
        self.set_priority(id, priority);
        Ok(())
    }

    /// Takes a reset.
    ///
    /// # Errors
    /// [`StreamFault`]; the session has to be closed.
    pub fn handle_reset(
        &mut self,
        id: StreamId,
        code: StreamCode,
        final_size: u64,
        now: Instant,
        round_trip: Duration,
    ) -> Result<(), StreamFault> {
        self.check_use(id, !id.is_writable_by(self.side.peer()), "reset of a stream that the peer cannot write to")?;
        let Some(receiving) = self.streams.get_mut(&id).and_then(|stream| stream.receiving.as_mut()) else {
            return Ok(());
        };
        let growth = final_size.saturating_sub(receiving.buffer.highest());
        let was_complete = receiving.buffer.is_complete();
        receiving.buffer.on_reset(final_size).map_err(|error| StreamFault::Receive { id, error })?;
        self.received_bytes += growth;
        if final_size > receiving.window.maximum() || self.received_bytes > self.receive_window.maximum() {
            return Err(StreamFault::Limit("bytes by a final size"));
        }
        if was_complete || receiving.reset.is_some() {
            // Everything is here already, the end included: the reset changes nothing (RFC 9000 §3.2).
            return Ok(());
        }
        receiving.reset = Some(code);
        let untaken = receiving.buffer.clear();
        self.consume_session(untaken, now, round_trip);
        self.notices.push_back(StreamNotice::Readable(id));
        self.remove_if_over(id);
        Ok(())
    }

    /// Takes a stop: what is written from now on is refused, and the peer gets a reset.
    ///
    /// # Errors
    /// [`StreamFault`]; the session has to be closed.
    pub fn handle_stop(&mut self, id: StreamId, code: StreamCode) -> Result<(), StreamFault> {
        self.check_use(id, !id.is_writable_by(self.side), "stop of a stream that only the peer writes to")?;
        let Some(sending) = self.streams.get_mut(&id).and_then(|stream| stream.sending.as_mut()) else {
            return Ok(());
        };
        if sending.stopped.is_none() {
            sending.stopped = Some(code);
            let final_size = sending.buffer.sent_offset();
            self.unsent_bytes -= sending.buffer.unsent_bytes();
            sending.buffer.clear();
            self.control.push_back(Frame::StreamReset { stream_id: id, code, final_size });
            self.notices.push_back(StreamNotice::Writable(id));
            self.notices.push_back(StreamNotice::Finished(id));
        }
        Ok(())
    }

    /// Takes the session's credit. Returns whether it was news.
    pub fn handle_max_data(&mut self, maximum: u64) -> bool {
        let (opened, news) = self.send_window.set_maximum(maximum);
        if opened {
            for id in std::mem::take(&mut self.held_up) {
                if let Some(sending) = self.streams.get_mut(&id).and_then(|stream| stream.sending.as_mut()) {
                    sending.is_held_up = false;
                    self.queue(id);
                }
            }
        }
        news
    }

    /// Takes a stream's credit. Returns whether it was news.
    ///
    /// # Errors
    /// [`StreamFault`]; the session has to be closed.
    pub fn handle_max_stream_data(&mut self, id: StreamId, maximum: u64) -> Result<bool, StreamFault> {
        self.check_use(id, !id.is_writable_by(self.side), "credit for a stream that only the peer writes to")?;
        let Ok(sending) = self.sending(id) else { return Ok(true) };
        let (_, news) = sending.window.set_maximum(maximum);
        self.queue(id);
        Ok(news)
    }

    /// Takes a credit of streams. Returns whether it was news.
    pub fn handle_max_streams(&mut self, direction: Direction, maximum: u64) -> bool {
        let news = self.local[direction as usize].set_maximum(maximum);
        if news {
            self.notices.push_back(StreamNotice::Available(direction));
        }
        news
    }

    // ---- The session's side ----

    /// Whether a stream may have something to send.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Bytes written and never sent.
    #[must_use]
    pub fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes
    }

    /// Streams that are not over.
    #[must_use]
    pub fn count(&self) -> usize {
        self.streams.len()
    }

    /// Cuts the next piece, of a stream that `wanted` lets pass.
    pub fn poll_piece(
        &mut self,
        size_max: usize,
        mut wanted: impl FnMut(StreamId) -> bool,
    ) -> Option<(StreamId, Piece)> {
        while let Some(id) = self.ready.pop(&mut wanted) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let Some(sending) = stream.sending.as_mut() else { continue };
            let credit = sending.window.available().min(self.send_window.available());
            let Some(piece) = sending.buffer.poll_piece(size_max, credit) else {
                self.on_blocked(id);
                continue;
            };
            sending.window.consume(piece.new_bytes);
            self.send_window.consume(piece.new_bytes);
            self.unsent_bytes -= piece.new_bytes;
            if sending.buffer.has_pending(credit - piece.new_bytes) {
                self.ready.push_front(id, stream.priority);
            } else if sending.buffer.unsent_bytes() > 0 {
                self.on_blocked(id);
            } else {
                sending.is_queued = false;
            }
            self.wake_writer(id);
            return Some((id, piece));
        }
        None
    }

    /// Ends a stream's turn: the others of its class go first now.
    pub fn end_turn(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        if stream.sending.as_ref().is_some_and(|half| half.is_queued) && self.ready.pop(|other| other == id).is_some() {
            self.ready.push(id, stream.priority);
        }
    }

    /// The peer's session holds a range of a stream.
    pub fn on_acknowledged(&mut self, id: StreamId, range: Range<u64>, fin: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(sending) = stream.sending.as_mut() else { return };
        sending.buffer.on_acknowledged(range, fin);
        if sending.buffer.is_complete() {
            stream.sending = None;
            self.notices.push_back(StreamNotice::Finished(id));
            self.remove_if_over(id);
        }
    }

    /// The peer's session has taken the reset that answers its stop: there is nothing left to send.
    pub fn on_reset_acknowledged(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.sending.as_ref().is_some_and(|half| half.stopped.is_some() && half.buffer.is_finished()) {
            stream.sending = None;
            self.remove_if_over(id);
        }
    }

    /// A range has to be sent again, unless it was acknowledged meanwhile.
    pub fn on_lost(&mut self, id: StreamId, range: Range<u64>, fin: bool) {
        let Ok(sending) = self.sending(id) else { return };
        if sending.stopped.is_none() {
            sending.buffer.on_lost(range, fin);
            self.queue(id);
        }
    }

    /// Frames about streams that are to be sent.
    pub fn poll_control(&mut self) -> Option<Frame> {
        self.control.pop_front()
    }

    /// Whether frames about streams wait.
    #[must_use]
    pub fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// What the application may wait for.
    pub fn poll_notice(&mut self) -> Option<StreamNotice> {
        self.notices.pop_front()
    }

    /// Bytes that are held for sending and for reading, over all streams.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.streams
            .values()
            .map(|stream| {
                stream.sending.as_ref().map_or(0, |half| half.buffer.held_bytes())
                    + stream.receiving.as_ref().map_or(0, |half| half.buffer.held_bytes())
            })
            .sum()
    }

    // ---- Inner parts ----

    fn insert(&mut self, id: StreamId, priority: Priority) {
        let sending = id.is_writable_by(self.side).then(|| Sending {
            buffer: SendBuffer::default(),
            window: SendWindow::new(self.peer_stream_window),
            is_waited_for: false,
            is_queued: false,
            is_held_up: false,
            stopped: None,
        });
        let receiving = id.is_writable_by(self.side.peer()).then(|| Receiving {
            buffer: ReceiveBuffer::default(),
            window: ReceiveWindow::new(self.config.stream_window, self.config.stream_window_max),
            reset: None,
            is_stopped: false,
        });
        self.streams.insert(id, Stream { priority, sending, receiving });
    }

    /// Checks that the peer may refer to a stream, and opens it when that is how it opens.
    fn check_use(&mut self, id: StreamId, is_wrong: bool, what: &'static str) -> Result<(), StreamFault> {
        if is_wrong {
            return Err(StreamFault::State { id, what });
        }
        let direction = id.direction();
        if id.initiator() == self.side {
            let was_opened = self.local[direction as usize].was_opened(id);
            return if was_opened { Ok(()) } else { Err(StreamFault::State { id, what: "not opened yet" }) };
        }
        let opened = self.remote[direction as usize].on_used(id).ok_or(StreamFault::Limit("streams"))?;
        for id in opened {
            self.insert(id, Priority::default());
            self.unaccepted[direction as usize].push_back(id);
            self.notices.push_back(StreamNotice::Opened(direction));
        }
        if self.unaccepted[direction as usize].len() > limits::STREAMS_UNACCEPTED_MAX {
            return Err(StreamFault::Unaccepted);
        }
        Ok(())
    }

    fn sending(&mut self, id: StreamId) -> Result<&mut Sending, WriteError> {
        self.streams.get_mut(&id).and_then(|stream| stream.sending.as_mut()).ok_or(WriteError::Closed)
    }

    /// How many bytes a writer may add, at least one.
    fn room(&mut self, id: StreamId) -> Result<u64, WriteError> {
        let sending = self.sending(id)?;
        if let Some(code) = sending.stopped {
            return Err(WriteError::Stopped(code));
        }
        if sending.buffer.is_finished() {
            return Err(WriteError::Closed);
        }
        let room = limits::STREAM_UNSENT_BYTES_MAX.saturating_sub(sending.buffer.unsent_bytes());
        if room == 0 {
            sending.is_waited_for = true;
            return Err(WriteError::Blocked);
        }
        Ok(room)
    }

    fn queue(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(sending) = stream.sending.as_mut() else { return };
        if !sending.is_queued {
            sending.is_queued = true;
            self.ready.push(id, stream.priority);
        }
    }

    /// A stream cannot send for want of credit, or has nothing to send.
    fn on_blocked(&mut self, id: StreamId) {
        let Some(sending) = self.streams.get_mut(&id).and_then(|stream| stream.sending.as_mut()) else { return };
        sending.is_queued = false;
        if sending.buffer.unsent_bytes() == 0 {
            return;
        }
        if let Some(limit) = sending.window.poll_blocked() {
            self.control.push_back(Frame::StreamDataBlocked { stream_id: id, limit });
        }
        if self.send_window.available() == 0 {
            if !std::mem::replace(&mut sending.is_held_up, true) {
                self.held_up.push(id);
            }
            if let Some(limit) = self.send_window.poll_blocked() {
                self.control.push_back(Frame::DataBlocked { limit });
            }
        }
    }

    fn wake_writer(&mut self, id: StreamId) {
        let Some(sending) = self.streams.get_mut(&id).and_then(|stream| stream.sending.as_mut()) else { return };
        if sending.is_waited_for && sending.buffer.unsent_bytes() <= limits::STREAM_UNSENT_BYTES_MAX / 2 {
            sending.is_waited_for = false;
            self.notices.push_back(StreamNotice::Writable(id));
        }
    }

    fn consume_session(&mut self, bytes: u64, now: Instant, round_trip: Duration) {
        self.receive_window.consume(bytes);
        if let Some(maximum) = self.receive_window.poll_update(now, round_trip) {
            self.control.push_back(Frame::MaxData { maximum });
        }
    }

    /// Forgets a stream when both halves are over.
    fn remove_if_over(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        let sending_is_over =
            stream.sending.as_ref().is_none_or(|half| half.stopped.is_some() && half.buffer.is_finished());
        let receiving_is_over = stream
            .receiving
            .as_ref()
            .is_none_or(|half| half.is_stopped && (half.reset.is_some() || half.buffer.is_complete()));
        if !sending_is_over || !receiving_is_over {
            return;
        }
        self.streams.remove(&id);
        if id.initiator() != self.side {
            let direction = id.direction();
            if let Some(maximum) = self.remote[direction as usize].on_ended() {
                self.control.push_back(Frame::MaxStreams { direction, maximum });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A side whose peer allows `session_window` bytes.
    fn streams(session_window: u64) -> Streams {
        let mut streams = Streams::new(Side::Client, StreamsConfig::default());
        streams.set_peer_limits(session_window, 1 << 20, 10, 10);
        streams
    }

    #[test]
    fn lost_bytes_do_not_wait_for_the_sessions_credit() {
        let mut streams = streams(100);
        let id = streams.open(Direction::Uni, Priority::default()).expect("ten streams are allowed");
        streams.write(id, &[1; 150]).expect("there is room");
        let (_, piece) = streams.poll_piece(1000, |_| true).expect("150 bytes wait");
        assert_eq!(piece.new_bytes, 100);
        assert!(streams.poll_piece(1000, |_| true).is_none() && !streams.has_ready());
        streams.on_lost(id, 20..50, false);
        let (_, again) = streams.poll_piece(1000, |_| true).expect("30 bytes were lost");
        assert_eq!((again.offset, again.data.len(), again.new_bytes), (20, 30, 0));
        // It waits for the credit again, and gets it.
        assert!(streams.poll_piece(1000, |_| true).is_none());
        assert!(streams.handle_max_data(200));
        let (_, rest) = streams.poll_piece(1000, |_| true).expect("50 bytes wait");
        assert_eq!((rest.offset, rest.new_bytes), (100, 50));
    }
}
