//! The datagrams of streams: what the application sends and takes, what comes from the peer, and what goes to it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{StreamFault, StreamNotice, Streams};
use crate::base::{Direction, StreamId, limits};
use crate::stream::datagrams::{DatagramDrop, DatagramError, DatagramStats, Outcome};
use crate::wire::Datagram;

/// Data below this size is copied: a slice would pin the whole buffer that it was read into.
const COPY_BYTES_MAX: usize = limits::FRAME_MESSAGE_BYTES_MAX / limits::PINNED_SHARE_MIN;

impl Streams {
    /// Takes the size of datagrams from the peer's transport parameters.
    pub fn set_peer_datagram_limit(&mut self, bytes_max: usize) {
        self.peer_datagram_bytes_max = bytes_max.min(limits::DATAGRAM_BYTES_MAX);
    }

    /// Largest datagram that the peer takes, in bytes; 0 for none.
    #[must_use]
    pub fn datagram_bytes_max(&self) -> usize {
        self.peer_datagram_bytes_max
    }

    /// Sends a datagram of a bidirectional stream, unless it waits for longer than `age_max`.
    ///
    /// # Errors
    /// [`DatagramError`]; what is dropped later is only counted.
    pub fn send_datagram(
        &mut self,
        id: StreamId,
        data: Bytes,
        age_max: Duration,
        now: Instant,
    ) -> Result<(), DatagramError> {
        let size_max = self.peer_datagram_bytes_max;
        if data.len() > size_max || size_max == 0 {
            self.datagram_stats.on_dropped(DatagramDrop::TooLarge, 1);
            return Err(DatagramError::TooLarge { size: data.len(), size_max });
        }
        let stream = self.streams.get(&id).filter(|_| id.direction() == Direction::Bi);
        let is_wanted = stream.is_some_and(|stream| stream.sending.as_ref().is_none_or(|half| half.stopped.is_none()));
        if !is_wanted {
            self.datagram_stats.on_dropped(DatagramDrop::FlowOver, 1);
            return Err(DatagramError::Closed);
        }
        self.outgoing.push(id, data, now + age_max, &mut self.datagram_stats);
        Ok(())
    }

    /// The application reads the stream's datagrams from now on, until [`release`](Self::release_datagrams).
    pub fn take_datagrams(&mut self, id: StreamId) {
        self.incoming.take(id);
    }

    /// The application reads none of them any more.
    pub fn release_datagrams(&mut self, id: StreamId) {
        self.incoming.release(id, &mut self.datagram_stats);
    }

    /// The next datagram that arrived for a stream, if there is one; else a
    /// [`StreamNotice::Datagram`](super::StreamNotice) will tell.
    pub fn read_datagram(&mut self, id: StreamId) -> Option<Bytes> {
        self.incoming.pop(id)
    }

    /// What became of datagrams.
    #[must_use]
    pub fn datagram_stats(&self) -> DatagramStats {
        let mut stats = self.datagram_stats;
        stats.waiting_bytes = self.outgoing.held_bytes() as u64;
        stats
    }

    /// Takes a datagram of the peer's, or a piece of one. As any frame about a stream it opens the stream, which it may
    /// overtake.
    ///
    /// # Errors
    /// [`StreamFault`]; the session has to be closed.
    pub fn handle_datagram(&mut self, frame: Datagram, now: Instant) -> Result<(), StreamFault> {
        let Datagram { stream_id: id, piece, data } = frame;
        self.check_use(id, id.direction() == Direction::Uni, "datagram of a unidirectional stream")?;
        if piece.map_or(data.len(), |piece| piece.size as usize) > self.config.datagram_bytes_max {
            return Err(StreamFault::Limit("bytes of a datagram"));
        }
        if !self.streams.contains_key(&id) {
            // Once for each datagram, as far as its pieces tell.
            let is_last = piece.is_none_or(|piece| piece.offset as usize + data.len() == piece.size as usize);
            self.datagram_stats.on_dropped(DatagramDrop::UnknownFlow, usize::from(is_last));
            return Ok(());
        }
        let data = if data.len() <= COPY_BYTES_MAX { Bytes::copy_from_slice(&data) } else { data };
        let whole = match piece {
            None => data,
            Some(piece) => match self.reassembly.insert(id, piece, data, now, &mut self.datagram_stats) {
                Outcome::Complete(whole) => whole,
                Outcome::Incomplete => return Ok(()),
            },
        };
        self.incoming.push(id, whole, &mut self.datagram_stats);
        self.notices.push_back(StreamNotice::Datagram(id));
        Ok(())
    }

    /// Whether datagrams wait for lanes.
    #[must_use]
    pub fn has_datagrams(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether one waits that `wanted` lets pass, by its stream and size.
    pub fn has_wanted_datagram(&self, wanted: impl FnMut(StreamId, usize) -> bool) -> bool {
        self.outgoing.has_wanted(wanted)
    }

    /// The next datagram that `wanted` lets pass, by its stream and size, or a piece of it: its frame has `room` bytes.
    /// What would fit in `room_fresh` is not cut.
    pub fn poll_datagram(
        &mut self,
        now: Instant,
        room: usize,
        room_fresh: usize,
        wanted: impl FnMut(StreamId, usize) -> bool,
    ) -> Option<Datagram> {
        self.outgoing.poll(now, room, room_fresh, wanted, &mut self.datagram_stats)
    }

    /// A datagram went over a carrier that may lose it.
    pub fn on_datagram_sent_unreliably(&mut self) {
        self.datagram_stats.sent_unreliably += 1;
    }

    /// When datagrams have to be looked after.
    #[must_use]
    pub fn datagram_deadline(&self) -> Option<Instant> {
        [self.outgoing.deadline(), self.reassembly.deadline()].into_iter().flatten().min()
    }

    /// Drops datagrams that are too old to be sent, or to be completed.
    pub fn on_datagram_timeout(&mut self, now: Instant) {
        self.outgoing.on_timeout(now, &mut self.datagram_stats);
        self.reassembly.on_timeout(now, &mut self.datagram_stats);
    }

    /// What datagrams hold, in bytes.
    pub(super) fn held_datagram_bytes(&self) -> u64 {
        (self.outgoing.held_bytes() + self.incoming.held_bytes() + self.reassembly.held_bytes()) as u64
    }

    /// What waits to be sent, in bytes.
    #[must_use]
    pub fn unsent_datagram_bytes(&self) -> u64 {
        self.outgoing.held_bytes() as u64
    }

    pub(super) fn end_datagrams(&mut self, id: StreamId) {
        if id.direction() == Direction::Bi {
            self.outgoing.on_stream_ended(id, &mut self.datagram_stats);
            self.incoming.on_stream_ended(id, &mut self.datagram_stats);
            self.reassembly.on_stream_ended(id, &mut self.datagram_stats);
        }
    }
}
