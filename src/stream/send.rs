//! The sending half of a stream: bytes are kept by offset until the peer's session has acknowledged them.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::base::RangeSet;

/// Smallest and largest room that small writes are gathered in. It starts small, so that an idle stream costs little,
/// and grows with use.
const TAIL_BYTES_MIN: usize = 256;
const TAIL_BYTES_MAX: usize = 64 * 1024;

/// What an idle stream keeps, so that small messages with pauses between them need no new room each.
const KEPT_BYTES_MAX: usize = TAIL_BYTES_MIN;
const KEPT_CHUNKS_MAX: usize = 4;

/// A chunk of at most this size is copied to the others before it.
const COPIED_CHUNK_BYTES_MAX: usize = 256;

/// A part of a stream to be sent, at most as long as was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where in the stream the bytes begin.
    pub offset: u64,
    /// The bytes; empty only when the piece carries the end alone.
    pub data: Bytes,
    /// Whether the stream ends after these bytes.
    pub fin: bool,
    /// How many of the bytes were never sent before: they count against the credits.
    pub new_bytes: u64,
}

/// Bytes on their way to the peer.
#[derive(Debug, Default)]
pub struct SendBuffer {
    /// Bytes of `base..tail_start`, cut as they were written.
    chunks: VecDeque<(u64, Bytes)>,
    /// Bytes after the chunks: small writes gather here.
    tail: BytesMut,
    tail_size: usize,
    /// All bytes below are acknowledged and gone.
    base: u64,
    /// All bytes below were sent at least once.
    sent: u64,
    /// One past the last byte written.
    end: u64,
    acknowledged: RangeSet,
    /// Sent, and to be sent again.
    lost: RangeSet,
    fin: Fin,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fin {
    #[default]
    Open,
    /// To be sent, for the first time or again.
    Pending,
    Sent,
    Acknowledged,
}

impl SendBuffer {
    /// Appends bytes by copying them.
    pub fn write(&mut self, data: &[u8]) {
        debug_assert!(self.fin == Fin::Open);
        if self.tail.capacity() - self.tail.len() < data.len() {
            self.seal_tail();
            self.tail_size = (self.tail_size * 2).clamp(TAIL_BYTES_MIN, TAIL_BYTES_MAX);
            self.tail = BytesMut::with_capacity(self.tail_size.max(data.len()));
        }
        self.tail.extend_from_slice(data);
        self.end += data.len() as u64;
    }

    /// Appends bytes without copying them, unless they are so few that keeping them apart would cost more.
    pub fn write_chunk(&mut self, data: Bytes) {
        debug_assert!(self.fin == Fin::Open);
        if data.len() <= COPIED_CHUNK_BYTES_MAX {
            return self.write(&data);
        }
        self.seal_tail();
        let start = self.end;
        self.end += data.len() as u64;
        self.chunks.push_back((start, data));
    }

    /// Ends the stream after the bytes written so far.
    pub fn finish(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Pending;
        }
    }

    /// Whether [`finish`](Self::finish) was called.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.fin != Fin::Open
    }

    /// Bytes written and never sent.
    #[must_use]
    pub fn unsent_bytes(&self) -> u64 {
        self.end - self.sent
    }

    /// Bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.end - self.base
    }

    /// One past the last byte that was ever sent: the final size of a reset.
    #[must_use]
    pub fn sent_offset(&self) -> u64 {
        self.sent
    }

    /// One past the last byte that was written.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.end
    }

    /// Whether there is something to send when `credit` new bytes may be.
    #[must_use]
    pub fn has_pending(&self, credit: u64) -> bool {
        !self.lost.is_empty() || (self.unsent_bytes() > 0 && credit > 0) || self.fin_is_due()
    }

    /// Whether bytes wait to be sent again.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Whether the peer has acknowledged everything, the end included.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.fin == Fin::Acknowledged && self.base == self.end
    }

    /// Cuts the next piece: what was lost first, then new bytes within the credit.
    pub fn poll_piece(&mut self, size_max: usize, credit: u64) -> Option<Piece> {
        if let Some(first) = self.lost.first() {
            let data = self.slice(first.start, (first.end - first.start).min(size_max as u64) as usize)?;
            let end = first.start + data.len() as u64;
            self.lost.remove(first.start..end);
            return Some(Piece { offset: first.start, data, fin: self.take_fin(end), new_bytes: 0 });
        }
        let allowed = self.unsent_bytes().min(credit).min(size_max as u64);
        if allowed > 0 {
            let offset = self.sent;
            let data = self.slice(offset, allowed as usize)?;
            let new_bytes = data.len() as u64;
            self.sent += new_bytes;
            return Some(Piece { offset, data, fin: self.take_fin(self.sent), new_bytes });
        }
        self.fin_is_due().then(|| {
            self.fin = Fin::Sent;
            Piece { offset: self.end, data: Bytes::new(), fin: true, new_bytes: 0 }
        })
    }

    /// The peer's session holds a range: its bytes are released.
    pub fn on_acknowledged(&mut self, range: Range<u64>, fin: bool) {
        if fin {
            self.fin = Fin::Acknowledged;
        }
        self.lost.remove(range.clone());
        if range.start <= self.base && self.acknowledged.is_empty() {
            self.base = self.base.max(range.end);
        } else {
            self.acknowledged.insert(range.start.max(self.base)..range.end);
            while let Some(first) = self.acknowledged.first().filter(|first| first.start <= self.base) {
                self.base = self.base.max(first.end);
                self.acknowledged.remove(first);
            }
        }
        while let Some((start, chunk)) = self.chunks.front()
            && start + chunk.len() as u64 <= self.base
        {
            self.chunks.pop_front();
        }
        if self.base == self.end {
            // Nothing is held, so little should be: an idle stream costs its state, and room for a small message. Who
            // writes little between acknowledgements needs little room next time.
            self.tail_size /= 4;
            if self.tail.capacity() > KEPT_BYTES_MAX {
                self.tail = BytesMut::new();
            }
            if self.chunks.capacity() > KEPT_CHUNKS_MAX {
                self.chunks = VecDeque::new();
            }
        }
    }

    /// A range has to be sent again, unless it was acknowledged meanwhile.
    pub fn on_lost(&mut self, range: Range<u64>, fin: bool) {
        if fin && self.fin == Fin::Sent {
            self.fin = Fin::Pending;
        }
        let range = range.start.max(self.base)..range.end.max(self.base);
        self.lost.insert(range.clone());
        for acknowledged in self.acknowledged.iter() {
            self.lost.remove(acknowledged);
        }
    }

    /// Forgets all bytes: the stream was reset.
    pub fn clear(&mut self) {
        let (sent, fin) = (self.sent, self.fin);
        *self = Self { base: sent, sent, end: sent, fin, ..Self::default() };
    }

    fn fin_is_due(&self) -> bool {
        self.fin == Fin::Pending && self.sent == self.end
    }

    fn take_fin(&mut self, end: u64) -> bool {
        let fin = end == self.end && matches!(self.fin, Fin::Pending | Fin::Sent);
        if fin {
            self.fin = Fin::Sent;
        }
        fin
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let start = self.end - self.tail.len() as u64;
            let chunk = self.tail.split().freeze();
            self.chunks.push_back((start, chunk));
        }
    }

    /// Bytes from `offset` on: at most `size_max`, and no further than the chunk that they lie in.
    fn slice(&mut self, offset: u64, size_max: usize) -> Option<Bytes> {
        if offset >= self.end - self.tail.len() as u64 {
            self.seal_tail();
        }
        let is_last = self.chunks.back().is_some_and(|(start, _)| *start <= offset);
        let index = match is_last {
            true => self.chunks.len() - 1,
            false => self.chunks.partition_point(|(start, _)| *start <= offset).checked_sub(1)?,
        };
        let (start, chunk) = &self.chunks[index];
        let from = (offset - start) as usize;
        let to = chunk.len().min(from + size_max);
        (from < to).then(|| chunk.slice(from..to))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lost_bytes_go_first_and_acknowledged_ones_never() {
        let mut buffer = SendBuffer::default();
        buffer.write(b"0123456789");
        let first = buffer.poll_piece(5, 100).expect("ten bytes wait");
        let second = buffer.poll_piece(5, 100).expect("five bytes wait");
        assert_eq!((&first.data[..], &second.data[..]), (&b"01234"[..], &b"56789"[..]));
        buffer.on_acknowledged(5..10, false);
        buffer.on_lost(0..10, false);
        let again = buffer.poll_piece(100, 0).expect("the first five are lost");
        assert_eq!((again.offset, &again.data[..], again.new_bytes), (0, &b"01234"[..], 0));
        assert_eq!(buffer.poll_piece(100, 100), None);
    }

    #[test]
    fn the_end_is_repeated_when_it_was_lost() {
        let mut buffer = SendBuffer::default();
        buffer.write(b"abc");
        buffer.finish();
        let piece = buffer.poll_piece(10, 10).expect("three bytes wait");
        assert!(piece.fin);
        buffer.on_lost(0..3, true);
        let piece = buffer.poll_piece(10, 0).expect("all was lost");
        assert!(piece.fin && piece.offset == 0);
        buffer.on_acknowledged(0..3, true);
        assert!(buffer.is_complete());
        buffer.on_lost(0..3, true);
        assert_eq!(buffer.poll_piece(10, 10), None);
    }

    proptest! {
        /// However pieces are cut, lost and acknowledged, the receiver can put the stream together.
        #[test]
        fn every_byte_arrives(
            writes in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..700)), 1..20),
            fates in prop::collection::vec((1usize..900, 0u8..3), 1..80),
        ) {
            let mut buffer = SendBuffer::default();
            let mut written = Vec::new();
            for (copy, data) in &writes {
                if *copy { buffer.write(data) } else { buffer.write_chunk(Bytes::copy_from_slice(data)) }
                written.extend_from_slice(data);
            }
            buffer.finish();
            let mut received = vec![None; written.len()];
            let mut late: VecDeque<(Range<u64>, bool)> = VecDeque::new();
            let mut fates = fates.into_iter();
            while !buffer.is_complete() {
                // When the drawn fates are used up, everything arrives.
                let (size, fate) = fates.next().unwrap_or((700, 1));
                let (range, fin) = match buffer.poll_piece(size, u64::MAX) {
                    Some(piece) => {
                        prop_assert!(piece.data.len() <= size);
                        let range = piece.offset..piece.offset + piece.data.len() as u64;
                        prop_assert_eq!(&piece.data[..], &written[range.start as usize..range.end as usize]);
                        (range, piece.fin)
                    }
                    None => {
                        let (range, fin) = late.pop_front().expect("incomplete, so something is on its way");
                        buffer.on_lost(range, fin);
                        continue;
                    }
                };
                match fate {
                    0 => late.push_back((range, fin)),
                    _ => {
                        for at in range.clone() {
                            received[at as usize] = Some(written[at as usize]);
                        }
                        buffer.on_acknowledged(range, fin);
                    }
                }
            }
            prop_assert!(received.iter().all(Option::is_some));
            prop_assert_eq!(buffer.held_bytes(), 0);
        }
    }
}
