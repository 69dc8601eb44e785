//! What the peer's frames do to streams. Its mistakes are faults, for which the session is closed.

use std::time::{Duration, Instant};

use super::{Receiving, StreamFault, StreamNotice, Streams};
use crate::base::{Direction, StreamCode, StreamId};
use crate::stream::Priority;
use crate::wire::{Frame, StreamData};

/// An application that has more than this part of a window to take is slow.
const UNTAKEN_SHARE: u64 = 4;

impl Streams {
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
            .insert(frame.offset, &frame.data.to_bytes(), frame.fin)
            .map_err(|error| StreamFault::Receive { id, error })?;
        if is_wanted {
            if news {
                self.notices.push_back(StreamNotice::Readable(id));
            }
            if let Some(maximum) = receiving.grow_in_advance(now, round_trip) {
                let window = receiving.window.window();
                self.tell_grown(id, maximum, window, now);
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
    pub fn handle_open(&mut self, id: StreamId, priority: Priority, replay_safe: bool) -> Result<(), StreamFault> {
        self.check_use(id, id.initiator() == self.side, "opening a stream of ours")?;
        self.set_priority(id, priority);
        self.mark_replay_safe(id, replay_safe);
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

    /// The peer has used up the session's credit, and gets more. Streams that the application does not take from are
    /// bounded by their own windows, and should not hold up the others.
    pub fn handle_data_blocked(&mut self, limit: u64, now: Instant, round_trip: Duration) {
        if let Some(maximum) = self.receive_window.on_shared_blocked(limit, now, round_trip) {
            self.control.push_back(Frame::MaxData { maximum });
        }
    }

    /// The peer has used up a stream's credit. When the application is not what it waits for, it gets more.
    ///
    /// # Errors
    /// [`StreamFault`]; the session has to be closed.
    pub fn handle_stream_data_blocked(
        &mut self,
        id: StreamId,
        limit: u64,
        now: Instant,
        round_trip: Duration,
    ) -> Result<(), StreamFault> {
        self.check_use(id, !id.is_writable_by(self.side.peer()), "signal on a stream that the peer cannot write to")?;
        let Some(receiving) = self.streams.get_mut(&id).and_then(|stream| stream.receiving.as_mut()) else {
            return Ok(());
        };
        if !receiving.is_stopped
            && !receiving.is_untaken()
            && let Some(maximum) = receiving.window.on_blocked(limit, now, round_trip)
        {
            let window = receiving.window.window();
            self.tell_grown(id, maximum, window, now);
        }
        Ok(())
    }

    /// Tells the peer of a stream's credit after its window has grown, and makes room for it in the session's.
    fn tell_grown(&mut self, id: StreamId, maximum: u64, window: u64, now: Instant) {
        self.control.push_back(Frame::MaxStreamData { stream_id: id, maximum });
        let shared = self.receive_window.make_room_for(window, now);
        self.control.extend(shared.map(|maximum| Frame::MaxData { maximum }));
    }

    /// The peer waits to open a stream. Returns whether it was news.
    pub fn handle_streams_blocked(&mut self, direction: Direction, limit: u64) -> bool {
        let (news, maximum) = self.remote[direction as usize].on_blocked(limit);
        self.control.extend(maximum.map(|maximum| Frame::MaxStreams { direction, maximum }));
        news
    }

    /// Takes a credit of streams. Returns whether it was news.
    pub fn handle_max_streams(&mut self, direction: Direction, maximum: u64) -> bool {
        let local = &mut self.local[direction as usize];
        let was_used_up = local.is_used_up();
        let news = local.set_maximum(maximum);
        // Nobody waits before.
        if news && was_used_up {
            self.notices.push_back(StreamNotice::Available(direction));
        }
        news
    }
}

impl Receiving {
    /// Whether the application is slow to take what has arrived: a larger window would not help.
    fn is_untaken(&self) -> bool {
        self.buffer.ready_bytes() > self.window.window() / UNTAKEN_SHARE
    }

    /// Grows the window before it is used up: when much waits behind what is missing, or when a good part of the first one is
    /// used. A new credit to tell the peer.
    fn grow_in_advance(&mut self, now: Instant, round_trip: Duration) -> Option<u64> {
        let (highest, ready) = (self.buffer.highest(), self.buffer.ready_bytes());
        let waiting = highest - self.buffer.contiguous();
        let behind_gap =
            if waiting == 0 || self.is_untaken() { None } else { self.window.on_gap(waiting, now, round_trip) };
        behind_gap.or_else(|| self.window.on_reached(highest, ready, now, round_trip))
    }
}
