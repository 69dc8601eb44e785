//! What the session takes from streams to send it, and what it tells them about what became of it.

use std::ops::Range;

use super::{StreamNotice, Streams};
use crate::base::StreamId;
use crate::stream::{Piece, Priority};
use crate::wire::Frame;

impl Streams {
    /// Whether a stream may have something to send.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether there is something small to send, or a stream to be opened, for which somebody waits.
    #[must_use]
    pub fn has_prompt(&self) -> bool {
        self.ready.has_prompt() || self.control.front().is_some_and(opens_prompt)
    }

    /// Whether a stream has a short message for which somebody waits.
    #[must_use]
    pub fn is_prompt(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| {
            let unsent_bytes = stream.sending.as_ref().map_or(0, |half| half.buffer.unsent_bytes());
            stream.priority.is_prompt() && unsent_bytes <= PROMPT_BYTES_MAX
        })
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
        mut wanted: impl FnMut(&Self, StreamId) -> bool,
    ) -> Option<(StreamId, Piece)> {
        while let Some(id) = self.pop_ready(&mut wanted) {
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

    fn pop_ready(&mut self, wanted: &mut impl FnMut(&Self, StreamId) -> bool) -> Option<StreamId> {
        let turn = self.ready.turn(|id| wanted(self, id))?;
        self.ready.take(turn)
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

    /// The same, up to one that opens a stream for whose answers somebody waits: it should not come after its data.
    pub fn poll_patient_control(&mut self) -> Option<Frame> {
        self.control.pop_front_if(|frame| !opens_prompt(frame))
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

    /// Bytes that are held for sending and for reading, over all streams and their datagrams.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let in_streams: u64 = self
            .streams
            .values()
            .map(|stream| {
                stream.sending.as_ref().map_or(0, |half| half.buffer.held_bytes())
                    + stream.receiving.as_ref().map_or(0, |half| half.buffer.held_bytes())
            })
            .sum();
        in_streams + self.held_datagram_bytes()
    }
}

fn opens_prompt(frame: &Frame) -> bool {
    matches!(frame, Frame::StreamOpen { priority, .. } if Priority::from_wire(*priority).is_prompt())
}

/// A stream with more than this to send is a transfer, whatever its class: its end counts, and every lane helps.
const PROMPT_BYTES_MAX: u64 = 64 * 1024;
