//! All streams of a session, by id: their state, and what belongs to no side alone. What the application does to them is
//! in `application`, what the peer's frames do in `peer`, and what the session sends of them in `output`. Their datagrams
//! are in `datagrams`.

mod application;
mod datagrams;
mod output;
mod peer;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::datagrams::{DatagramStats, Incoming, Outgoing, Reassembly};
use super::flow::{ReceiveWindow, SendWindow};
use super::id_allocator::{LocalIds, RemoteIds};
use super::priority::{Priority, ReadyQueue};
use super::receive::{ReceiveBuffer, ReceiveError};
use super::send::SendBuffer;
use crate::base::{CloseCode, Direction, IdMap, Side, StreamCode, StreamId, limits};
use crate::wire::Frame;

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
    /// Largest datagram that this side takes, in bytes; 0 for none.
    pub datagram_bytes_max: usize,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            stream_window: limits::STREAM_WINDOW_BYTES,
            stream_window_max: limits::STREAM_WINDOW_BYTES_MAX,
            session_window: limits::SESSION_WINDOW_BYTES,
            session_window_max: limits::SESSION_WINDOW_BYTES_MAX,
            streams_max: limits::STREAMS_MAX,
            datagram_bytes_max: limits::DATAGRAM_BYTES_MAX,
        }
    }
}

impl StreamsConfig {
    /// The same, with no less than what every server grants before its parameters are known.
    #[must_use]
    pub fn granting_early(self) -> Self {
        Self {
            stream_window: self.stream_window.max(limits::EARLY_WINDOW_BYTES),
            stream_window_max: self.stream_window_max.max(limits::EARLY_WINDOW_BYTES),
            session_window: self.session_window.max(limits::EARLY_WINDOW_BYTES),
            session_window_max: self.session_window_max.max(limits::EARLY_WINDOW_BYTES),
            streams_max: self.streams_max.max(limits::EARLY_STREAMS),
            ..self
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
    /// There is a datagram to be taken.
    Datagram(StreamId),
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
    /// It may carry early data, and be read before the handshake is complete.
    replay_safe: bool,
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
    streams: IdMap<StreamId, Stream>,
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
    /// Largest datagram that the peer takes.
    peer_datagram_bytes_max: usize,
    outgoing: Outgoing,
    incoming: Incoming,
    reassembly: Reassembly,
    datagram_stats: DatagramStats,
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
            streams: IdMap::default(),
            local: [LocalIds::new(side, Direction::Bi, 0), LocalIds::new(side, Direction::Uni, 0)],
            remote: [remote(Direction::Bi), remote(Direction::Uni)],
            unaccepted: [VecDeque::new(), VecDeque::new()],
            ready: ReadyQueue::default(),
            held_up: Vec::new(),
            send_window: SendWindow::default(),
            receive_window: ReceiveWindow::new(config.session_window, config.session_window_max),
            received_bytes: 0,
            unsent_bytes: 0,
            peer_datagram_bytes_max: 0,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            reassembly: Reassembly::default(),
            datagram_stats: DatagramStats::default(),
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

    /// Takes the peer's own limits in place of those that everybody grants, which are not higher. Streams of this side may
    /// be open already.
    pub fn raise_peer_limits(&mut self, session_window: u64, stream_window: u64, bi_max: u64, uni_max: u64) {
        self.peer_stream_window = stream_window;
        for (id, stream) in &mut self.streams {
            debug_assert_eq!(id.initiator(), self.side, "the peer opens none before it has told its limits");
            if let Some(sending) = &mut stream.sending {
                sending.window.set_maximum(stream_window);
            }
        }
        let open: Vec<_> = self.streams.keys().copied().collect();
        open.into_iter().for_each(|id| self.queue(id));
        self.handle_max_data(session_window);
        self.handle_max_streams(Direction::Bi, bi_max);
        self.handle_max_streams(Direction::Uni, uni_max);
    }

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
        self.streams.insert(id, Stream { priority, replay_safe: false, sending, receiving });
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
        self.end_datagrams(id);
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
    use crate::wire::StreamData;

    /// A side whose peer allows `session_window` bytes.
    fn streams(session_window: u64) -> Streams {
        let mut streams = Streams::new(Side::Client, StreamsConfig::default());
        streams.set_peer_limits(session_window, 1 << 20, 10, 10);
        streams
    }

    #[test]
    fn lost_bytes_do_not_wait_for_the_sessions_credit() {
        let mut streams = streams(100);
        let id = streams.open(Direction::Uni, Priority::default(), false).expect("ten streams are allowed");
        streams.write(id, &[1; 150]).expect("there is room");
        let (_, piece) = streams.poll_piece(1000, |_, _| true).expect("150 bytes wait");
        assert_eq!(piece.new_bytes, 100);
        assert!(streams.poll_piece(1000, |_, _| true).is_none() && !streams.has_ready());
        streams.on_lost(id, 20..50, false);
        let (_, again) = streams.poll_piece(1000, |_, _| true).expect("30 bytes were lost");
        assert_eq!((again.offset, again.data.len(), again.new_bytes), (20, 30, 0));
        // It waits for the credit again, and gets it.
        assert!(streams.poll_piece(1000, |_, _| true).is_none());
        assert!(streams.handle_max_data(200));
        let (_, rest) = streams.poll_piece(1000, |_, _| true).expect("50 bytes wait");
        assert_eq!((rest.offset, rest.new_bytes), (100, 50));
    }
    /// A server with a stream that the client has opened, after 256 KiB of it from `offset` on; what it says then.
    fn after_a_quarter(offset: u64, is_read: bool) -> Vec<Frame> {
        let (now, round_trip) = (Instant::now(), Duration::from_millis(150));
        let mut streams = Streams::new(Side::Server, StreamsConfig::default());
        let id = self::streams(0).open(Direction::Uni, Priority::default(), false).expect("ten streams are allowed");
        streams.handle_open(id, Priority::default(), false).expect("the first stream");
        for step in 0..16 {
            let data = Bytes::from(vec![0; 16 << 10]).into();
            let frame = StreamData { stream_id: id, offset: offset + step * (16 << 10), fin: false, data };
            streams.handle_data(&frame, now, round_trip).expect("within the window");
            while is_read && streams.read(id, usize::MAX, now, round_trip).is_ok() {}
        }
        std::iter::from_fn(|| streams.poll_control()).collect()
    }

    #[test]
    fn a_stream_that_is_taken_gets_the_need_of_the_path_before_it_asks() {
        let frames = after_a_quarter(0, true);
        let is_told = |frame: &Frame| matches!(frame, Frame::MaxStreamData { maximum, .. } if *maximum >= 75_000_000);
        assert!(frames.iter().any(is_told), "{frames:?}");
        let has_room = |frame: &Frame| matches!(frame, Frame::MaxData { maximum } if *maximum >= 112_500_000);
        assert!(frames.iter().any(has_room), "{frames:?}");
        assert_eq!(after_a_quarter(0, false), [], "nobody takes it");
    }
}
