//! Puts datagrams together that came in pieces. Kept are the pieces themselves: what a peer says about sizes costs
//! nothing before the bytes are there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::stats::{DatagramDrop, DatagramStats};
use crate::base::{StreamId, limits};
use crate::wire::DatagramPiece;

/// A datagram that is not complete.
#[derive(Debug)]
struct Partial {
    id: StreamId,
    number: u64,
    size: usize,
    since: Instant,
    /// Disjoint pieces by offset.
    pieces: BTreeMap<usize, Bytes>,
    received: usize,
}

/// What a piece did.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::stream) enum Outcome {
    /// It was the last one that was missing.
    Complete(Bytes),
    /// Others are missing, or it was of no use.
    Incomplete,
}

/// Datagrams that are not complete.
#[derive(Debug, Default)]
pub(in crate::stream) struct Reassembly {
    /// Oldest first. Few: looked through.
    partials: VecDeque<Partial>,
    held_bytes: usize,
}

impl Reassembly {
    /// Takes a piece, which lies within its datagram.
    pub(in crate::stream) fn insert(
        &mut self,
        id: StreamId,
        piece: DatagramPiece,
        data: Bytes,
        now: Instant,
        stats: &mut DatagramStats,
    ) -> Outcome {
        let (size, offset) = (piece.size as usize, piece.offset as usize);
        let known = self.partials.iter().rposition(|partial| partial.number == piece.number && partial.id == id);
        let index = known.unwrap_or_else(|| {
            let pieces = BTreeMap::new();
            self.partials.push_back(Partial { id, number: piece.number, size, since: now, pieces, received: 0 });
            self.held_bytes += limits::DATAGRAM_OVERHEAD_BYTES;
            self.partials.len() - 1
        });
        let partial = &mut self.partials[index];
        if partial.size != size || partial.overlaps(offset, data.len()) {
            stats.on_dropped(DatagramDrop::Contradictory, 1);
            return Outcome::Incomplete;
        }
        partial.received += data.len();
        self.held_bytes += data.len();
        partial.pieces.insert(offset, data);
        if partial.received == partial.size {
            return self.remove(index).map_or(Outcome::Incomplete, |partial| Outcome::Complete(partial.into_bytes()));
        }
        while self.partials.len() > limits::DATAGRAMS_INCOMPLETE_MAX
            || self.held_bytes > limits::DATAGRAM_PIECES_BYTES_MAX
        {
            self.remove(0);
            stats.on_dropped(DatagramDrop::Incomplete, 1);
        }
        Outcome::Incomplete
    }

    /// The stream is over.
    pub(in crate::stream) fn on_stream_ended(&mut self, id: StreamId, stats: &mut DatagramStats) {
        while let Some(index) = self.partials.iter().position(|partial| partial.id == id) {
            self.remove(index);
            stats.on_dropped(DatagramDrop::Incomplete, 1);
        }
    }

    /// When the oldest is given up.
    pub(in crate::stream) fn deadline(&self) -> Option<Instant> {
        self.partials.front().map(|oldest| oldest.since + limits::DATAGRAM_INCOMPLETE_AGE_MAX)
    }

    /// Gives up what has waited too long.
    pub(in crate::stream) fn on_timeout(&mut self, now: Instant, stats: &mut DatagramStats) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.remove(0);
            stats.on_dropped(DatagramDrop::Incomplete, 1);
        }
    }

    /// What is held, in bytes.
    pub(in crate::stream) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn remove(&mut self, index: usize) -> Option<Partial> {
        let partial = self.partials.remove(index)?;
        self.held_bytes -= partial.received + limits::DATAGRAM_OVERHEAD_BYTES;
        Some(partial)
    }
}

impl Partial {
    fn overlaps(&self, offset: usize, len: usize) -> bool {
        let before = self.pieces.range(..offset + len).next_back();
        before.is_some_and(|(start, piece)| start + piece.len() > offset)
    }

    fn into_bytes(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.size);
        self.pieces.values().for_each(|piece| bytes.extend_from_slice(piece));
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: StreamId = StreamId(0);

    fn piece(number: u64, size: usize, offset: usize) -> DatagramPiece {
        DatagramPiece { number, size: size as u32, offset: offset as u32 }
    }

    proptest! {
        /// In any order and repeated, the pieces are the datagram; others beside it change nothing.
        #[test]
        fn pieces_in_any_order_are_the_datagram(
            sizes in prop::collection::vec(1024usize..20_000, 1..4),
            piece_len in 1024usize..9000,
            seed in any::<u64>(),
        ) {
            let (mut reassembly, mut stats, now) = (Reassembly::default(), DatagramStats::default(), Instant::now());
            let datagrams: Vec<Bytes> =
                sizes.iter().map(|size| (0..*size).map(|at| (at as u64 ^ seed) as u8).collect::<Vec<_>>().into()).collect();
            let mut pieces: Vec<_> = datagrams.iter().enumerate().flat_map(|(number, data)| {
                (0..data.len()).step_by(piece_len).map(move |offset| (number, offset))
            }).collect();
            // A shuffle that the seed gives.
            pieces.sort_by_key(|(number, offset)| (*number as u64 * 31 + *offset as u64).wrapping_mul(seed | 1));
            let mut complete = vec![None; datagrams.len()];
            for (number, offset) in pieces.into_iter().flat_map(|piece| [piece, piece]) {
                if complete[number].is_some() {
                    continue;
                }
                let data = datagrams[number].slice(offset..(offset + piece_len).min(sizes[number]));
                let place = piece(number as u64, sizes[number], offset);
                if let Outcome::Complete(data) = reassembly.insert(ID, place, data, now, &mut stats) {
                    complete[number] = Some(data);
                }
            }
            prop_assert_eq!(complete.into_iter().flatten().collect::<Vec<_>>(), datagrams);
            prop_assert_eq!((reassembly.held_bytes(), reassembly.deadline()), (0, None));
        }
    }

    #[test]
    fn memory_follows_what_arrived_and_stays_bounded() {
        let (mut reassembly, mut stats, now) = (Reassembly::default(), DatagramStats::default(), Instant::now());
        for number in 0..10_000 {
            let data = Bytes::from(vec![0; limits::DATAGRAM_PIECE_BYTES_MIN]);
            reassembly.insert(ID, piece(number, limits::DATAGRAM_BYTES_MAX, 0), data, now, &mut stats);
        }
        assert_eq!(reassembly.partials.len(), limits::DATAGRAMS_INCOMPLETE_MAX);
        assert!(reassembly.held_bytes() < 2 * limits::DATAGRAMS_INCOMPLETE_MAX * limits::DATAGRAM_PIECE_BYTES_MIN);
        for number in 0..10_000 {
            let data = Bytes::from(vec![0; 60_000]);
            reassembly.insert(ID, piece(1 << 20 | number, limits::DATAGRAM_BYTES_MAX, 0), data, now, &mut stats);
            assert!(reassembly.held_bytes() <= limits::DATAGRAM_PIECES_BYTES_MAX);
        }
        let left = reassembly.partials.len() as u64;
        assert_eq!(stats.dropped(DatagramDrop::Incomplete), 20_000 - left);
        reassembly.on_timeout(now + limits::DATAGRAM_INCOMPLETE_AGE_MAX, &mut stats);
        assert_eq!((reassembly.held_bytes(), stats.dropped(DatagramDrop::Incomplete)), (0, 20_000));
    }

    #[test]
    fn what_contradicts_is_counted_and_harmless() {
        let (mut reassembly, mut stats, now) = (Reassembly::default(), DatagramStats::default(), Instant::now());
        let data = Bytes::from(vec![1; 2000]);
        let mut insert = |number, size, offset, data: &Bytes| {
            reassembly.insert(ID, piece(number, size, offset), data.clone(), now, &mut stats)
        };
        assert_eq!(insert(1, 4000, 0, &data), Outcome::Incomplete);
        assert_eq!(insert(1, 4001, 2000, &data), Outcome::Incomplete, "another size");
        assert_eq!(insert(1, 4000, 1999, &data), Outcome::Incomplete, "overlaps");
        assert_eq!(insert(1, 4000, 0, &data), Outcome::Incomplete, "a repetition");
        assert_eq!(insert(1, 4000, 2000, &data), Outcome::Complete(vec![1; 4000].into()));
        assert_eq!(stats.dropped(DatagramDrop::Contradictory), 3);
    }

    #[test]
    fn the_end_of_a_stream_ends_its_datagrams() {
        let (mut reassembly, mut stats, now) = (Reassembly::default(), DatagramStats::default(), Instant::now());
        for id in [ID, StreamId(4), ID] {
            let number = stats.received + reassembly.partials.len() as u64;
            reassembly.insert(id, piece(number, 4000, 0), Bytes::from(vec![1; 2000]), now, &mut stats);
        }
        reassembly.on_stream_ended(ID, &mut stats);
        assert_eq!((reassembly.partials.len(), stats.dropped(DatagramDrop::Incomplete)), (1, 2));
    }
}
