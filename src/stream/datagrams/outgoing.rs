//! Datagrams that wait for lanes: flows take turns, old ones are dropped, and what has no room in a packet is cut.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::queues::{Queued, Queues};
use super::stats::{DatagramDrop, DatagramStats};
use crate::base::{StreamId, limits};
use crate::wire::{DATAGRAM_OVERHEAD_MAX, Datagram, DatagramPiece};

/// A datagram that waits.
#[derive(Debug)]
struct Waiting {
    data: Bytes,
    expires_at: Instant,
    /// Its number, and how many bytes of it went out, when it is cut.
    cut: Option<(u64, usize)>,
}

impl Queued for Waiting {
    fn data(&self) -> &Bytes {
        &self.data
    }

    fn is_begun(&self) -> bool {
        self.cut.is_some()
    }
}

/// What a lane or a carrier takes of a flow's next datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stream) enum Fit {
    /// The rest of it, which has room.
    Rest,
    /// A piece of this many bytes.
    Piece(usize),
    /// Nothing of it, and nothing of others before it had its turn.
    Wait,
}

/// Datagrams that wait for lanes.
#[derive(Debug, Default)]
pub(in crate::stream) struct Outgoing {
    queues: Queues<Waiting>,
    /// The flows that have a queue, each once, whose turn is next in front.
    turns: VecDeque<StreamId>,
    cut_count: u64,
    /// No datagram expires before.
    expiry: Option<Instant>,
}

impl Outgoing {
    /// Appends a datagram to its flow's queue.
    pub(in crate::stream) fn push(
        &mut self,
        id: StreamId,
        data: Bytes,
        expires_at: Instant,
        stats: &mut DatagramStats,
    ) {
        if !self.queues.contains(id) {
            self.turns.push_back(id);
        }
        let dropped = self.queues.push(id, Waiting { data, expires_at, cut: None }, limits::DATAGRAM_FLOW_BYTES_MAX);
        stats.on_dropped(DatagramDrop::QueueFull, dropped);
        self.expiry = Some(self.expiry.map_or(expires_at, |earlier| earlier.min(expires_at)));
    }

    /// Whether any datagram waits.
    pub(in crate::stream) fn is_empty(&self) -> bool {
        self.queues.count() == 0
    }

    /// What waits, in bytes.
    pub(in crate::stream) fn held_bytes(&self) -> usize {
        self.queues.cost()
    }

    /// Whether `wanted` lets any flow pass, by its id and the size of its next datagram.
    pub(in crate::stream) fn has_wanted(&self, mut wanted: impl FnMut(StreamId, usize) -> bool) -> bool {
        if self.is_empty() {
            return false;
        }
        let Self { queues, turns, .. } = self;
        turns.iter().any(|&id| queues.front(id).is_some_and(|next| wanted(id, next.data.len())))
    }

    /// The next datagram, or piece of one, of the first flow that `wanted` lets pass by its id and the size of its next
    /// datagram. It has `room` bytes, frame included; a datagram that would fit in `room_fresh`, which the next packet
    /// has, is not cut.
    pub(in crate::stream) fn poll(
        &mut self,
        now: Instant,
        room: usize,
        room_fresh: usize,
        mut wanted: impl FnMut(StreamId, usize) -> bool,
        stats: &mut DatagramStats,
    ) -> Option<Datagram> {
        let mut turn = 0;
        while let Some(&id) = self.turns.get(turn) {
            self.drop_expired(id, now, stats);
            let Some(next) = self.queues.front_mut(id) else {
                self.queues.remove(id);
                self.turns.remove(turn);
                continue;
            };
            if !wanted(id, next.data.len()) {
                turn += 1;
                continue;
            }
            let size = next.data.len();
            return match next.fit(id, room, room_fresh) {
                Fit::Wait => None,
                Fit::Piece(len) => {
                    let (number, offset) = *next.cut.get_or_insert_with(|| {
                        self.cut_count += 1;
                        // Half of a datagram is worth nothing: what was begun in time is finished as long as the
                        // receiver waits for it.
                        next.expires_at = now + limits::DATAGRAM_INCOMPLETE_AGE_MAX;
                        (self.cut_count, 0)
                    });
                    next.cut = Some((number, offset + len));
                    let piece = DatagramPiece { number, size: size as u32, offset: offset as u32 };
                    Some(Datagram { stream_id: id, piece: Some(piece), data: next.data.slice(offset..offset + len) })
                }
                Fit::Rest => {
                    let Waiting { data, cut, .. } = self.queues.pop(id)?;
                    self.end_turn(turn, id);
                    stats.on_sent(size, cut.is_some());
                    let piece =
                        cut.map(|(number, offset)| DatagramPiece { number, size: size as u32, offset: offset as u32 });
                    let data = data.slice(cut.map_or(0, |(_, offset)| offset)..);
                    Some(Datagram { stream_id: id, piece, data })
                }
            };
        }
        None
    }

    /// The stream is over: what waits for it goes.
    pub(in crate::stream) fn on_stream_ended(&mut self, id: StreamId, stats: &mut DatagramStats) {
        if self.queues.contains(id) {
            stats.on_dropped(DatagramDrop::FlowOver, self.queues.remove(id));
            self.turns.retain(|turn| *turn != id);
        }
    }

    /// When old datagrams have to be looked for at the latest, while no lane does.
    pub(in crate::stream) fn deadline(&self) -> Option<Instant> {
        self.expiry.filter(|_| !self.is_empty())
    }

    /// Drops what is too old, if that may be anything.
    pub(in crate::stream) fn on_timeout(&mut self, now: Instant, stats: &mut DatagramStats) {
        if self.expiry.is_none_or(|expiry| expiry > now) {
            return;
        }
        self.expiry = None;
        for id in std::mem::take(&mut self.turns) {
            self.drop_expired(id, now, stats);
            match self.queues.front_mut(id).map(|next| next.expires_at) {
                Some(expiry) => {
                    self.expiry = Some(self.expiry.map_or(expiry, |earlier| earlier.min(expiry)));
                    self.turns.push_back(id);
                }
                None => drop(self.queues.remove(id)),
            }
        }
    }

    fn drop_expired(&mut self, id: StreamId, now: Instant, stats: &mut DatagramStats) {
        while self.queues.front_mut(id).is_some_and(|next| next.expires_at <= now) {
            self.queues.pop(id);
            stats.on_dropped(DatagramDrop::Expired, 1);
        }
    }

    /// The others go first now, or the flow has nothing left.
    fn end_turn(&mut self, turn: usize, id: StreamId) {
        self.turns.remove(turn);
        if self.queues.front_mut(id).is_some() {
            self.turns.push_back(id);
        } else {
            self.queues.remove(id);
        }
    }
}

impl Waiting {
    fn fit(&self, id: StreamId, room: usize, room_fresh: usize) -> Fit {
        let needed = match self.cut {
            None => Datagram::whole_len(id, self.data.len()),
            Some((_, offset)) => self.data.len() - offset + DATAGRAM_OVERHEAD_MAX,
        };
        if needed <= room {
            return Fit::Rest;
        }
        let piece = room.saturating_sub(DATAGRAM_OVERHEAD_MAX);
        let has_own_packet = self.cut.is_none() && needed <= room_fresh;
        if has_own_packet || piece < limits::DATAGRAM_PIECE_BYTES_MIN { Fit::Wait } else { Fit::Piece(piece) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AGE: Duration = Duration::from_millis(500);
    const A: StreamId = StreamId(0);
    const B: StreamId = StreamId(4);

    fn any(_: StreamId, _: usize) -> bool {
        true
    }

    #[test]
    fn flows_take_turns() {
        let (mut outgoing, mut stats, now) = (Outgoing::default(), DatagramStats::default(), Instant::now());
        for id in [A, A, A, B] {
            outgoing.push(id, Bytes::from_static(b"x"), now + AGE, &mut stats);
        }
        let order: Vec<_> =
            std::iter::from_fn(|| outgoing.poll(now, 1000, 1000, any, &mut stats)).map(|out| out.stream_id).collect();
        assert_eq!(order, [A, B, A, A]);
        assert!(outgoing.is_empty() && outgoing.turns.is_empty() && outgoing.deadline().is_none());
        assert_eq!((stats.sent, stats.bytes_sent), (4, 4));
    }

    #[test]
    fn old_ones_are_dropped() {
        let (mut outgoing, mut stats, now) = (Outgoing::default(), DatagramStats::default(), Instant::now());
        outgoing.push(A, Bytes::from_static(b"old"), now + AGE, &mut stats);
        outgoing.push(A, Bytes::from_static(b"new"), now + 2 * AGE, &mut stats);
        assert_eq!(outgoing.deadline(), Some(now + AGE));
        let got = outgoing.poll(now + AGE, 1000, 1000, any, &mut stats).expect("one is not too old");
        assert_eq!((&got.data[..], stats.dropped(DatagramDrop::Expired)), (&b"new"[..], 1));

        outgoing.push(A, Bytes::from_static(b"old"), now + AGE, &mut stats);
        outgoing.push(B, Bytes::from_static(b"new"), now + 2 * AGE, &mut stats);
        outgoing.on_timeout(now + AGE, &mut stats);
        assert_eq!((stats.dropped(DatagramDrop::Expired), outgoing.deadline()), (2, Some(now + 2 * AGE)));
        outgoing.on_timeout(now + 2 * AGE, &mut stats);
        assert_eq!((outgoing.held_bytes(), outgoing.deadline()), (0, None));
    }

    #[test]
    fn only_what_is_too_large_for_a_packet_is_cut() {
        let (mut outgoing, mut stats, now) = (Outgoing::default(), DatagramStats::default(), Instant::now());
        let data = Bytes::from((0..5000_u32).map(|at| at as u8).collect::<Vec<_>>());
        outgoing.push(A, data.clone(), now + AGE, &mut stats);
        assert_eq!(outgoing.poll(now, 3000, 6000, any, &mut stats), None, "the next packet has room for all of it");
        let mut got = Vec::new();
        while let Some(part) = outgoing.poll(now, 3000, 3000, any, &mut stats) {
            let piece = part.piece.expect("5000 bytes do not fit");
            assert_eq!((piece.number, piece.size as usize, piece.offset as usize), (1, data.len(), got.len()));
            assert!(part.data.len() + DATAGRAM_OVERHEAD_MAX <= 3000);
            got.extend_from_slice(&part.data);
        }
        assert!(got == data && stats.sent == 1 && stats.cut == 1);
    }

    #[test]
    fn a_flow_that_is_over_sends_nothing() {
        let (mut outgoing, mut stats, now) = (Outgoing::default(), DatagramStats::default(), Instant::now());
        outgoing.push(A, Bytes::from_static(b"x"), now + AGE, &mut stats);
        outgoing.on_stream_ended(A, &mut stats);
        outgoing.on_stream_ended(B, &mut stats);
        assert_eq!(outgoing.poll(now, 1000, 1000, any, &mut stats), None);
        assert_eq!((stats.dropped(DatagramDrop::FlowOver), outgoing.turns.len()), (1, 0));
    }
}
