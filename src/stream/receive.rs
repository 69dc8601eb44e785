//! The receiving half of a stream: arriving ranges in any order, with repetitions, become bytes in order.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::base::limits;

/// Data below this size is copied together: a slice would pin the whole buffer that it was read into.
const COPY_BYTES_MAX: usize = limits::FRAME_MESSAGE_BYTES_MAX / limits::PINNED_SHARE_MIN;

/// Room that small data is copied into. It grows with use.
const TAIL_BYTES_MIN: usize = 256;
const TAIL_BYTES_MAX: usize = 32 * 1024;

/// What an idle stream keeps, so that small messages with pauses between them need no new room each.
const KEPT_BYTES_MAX: usize = TAIL_BYTES_MIN;
const KEPT_CHUNKS_MAX: usize = 4;

/// What the peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// Data past the end, or a second, other end.
    #[error("stream's final size is {known}, and the peer says {got}")]
    FinalSize {
        /// The size known before.
        known: u64,
        /// What the peer says now.
        got: u64,
    },
    /// More separate ranges than a healthy network makes.
    #[error("stream has more than {} gaps", limits::STREAM_GAPS_MAX)]
    TooManyGaps,
}

/// Bytes on their way to the application.
#[derive(Debug, Default)]
pub struct ReceiveBuffer {
    /// In order, not yet taken; `tail` comes after them.
    ready: VecDeque<Bytes>,
    tail: BytesMut,
    tail_size: usize,
    ready_bytes: u64,
    /// One past the last byte in order.
    contiguous: u64,
    /// One past the highest byte received.
    highest: u64,
    /// Past a gap: disjoint pieces by offset.
    pieces: BTreeMap<u64, Bytes>,
    piece_bytes: u64,
    gaps: usize,
    final_size: Option<u64>,
}

impl ReceiveBuffer {
    /// One past the highest byte received: what flow control counts.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// One past the last byte in order.
    #[must_use]
    pub fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// Bytes that can be taken now.
    #[must_use]
    pub fn ready_bytes(&self) -> u64 {
        self.ready_bytes
    }

    /// Bytes that are held, with those past a gap.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.ready_bytes + self.piece_bytes
    }

    /// Whether all bytes up to the end have arrived.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.final_size == Some(self.contiguous)
    }

    /// Whether all bytes up to the end were taken.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_complete() && self.ready_bytes == 0
    }

    /// The size of the whole stream, once the peer has told it.
    #[must_use]
    pub fn final_size(&self) -> Option<u64> {
        self.final_size
    }

    /// Takes arriving data. Where bytes are here already the first copy stays. Returns whether there is something new
    /// for the application.
    ///
    /// # Errors
    /// [`ReceiveError`]; the session has to be closed.
    pub fn insert(&mut self, offset: u64, data: &Bytes, fin: bool) -> Result<bool, ReceiveError> {
        let end = offset + data.len() as u64;
        self.check_end(end, fin)?;
        self.highest = self.highest.max(end);
        let before = (self.contiguous, self.final_size);
        if fin {
            self.final_size = Some(end);
        }
        if offset <= self.contiguous {
            if end > self.contiguous {
                self.append(&data.slice((self.contiguous - offset) as usize..));
                self.join_pieces();
            }
        } else if !data.is_empty() {
            self.insert_piece(offset, data);
            if self.gaps > limits::STREAM_GAPS_MAX {
                return Err(ReceiveError::TooManyGaps);
            }
        }
        Ok(before.0 != self.contiguous || (before.1 != self.final_size && self.is_complete()))
    }

    /// Checks the final size of a reset, and notes it. From then on flow control counts as if all bytes had come.
    ///
    /// # Errors
    /// [`ReceiveError::FinalSize`] when it contradicts what is known.
    pub fn on_reset(&mut self, final_size: u64) -> Result<(), ReceiveError> {
        self.check_end(final_size, true)?;
        self.final_size = Some(final_size);
        self.highest = final_size;
        Ok(())
    }

    /// Takes the next bytes in order, at most `size_max`.
    pub fn read(&mut self, size_max: usize) -> Option<Bytes> {
        if size_max == 0 {
            return None;
        }
        let chunk = match self.ready.front_mut() {
            Some(first) if first.len() > size_max => first.split_to(size_max),
            Some(_) => self.ready.pop_front()?,
            None if !self.tail.is_empty() => self.tail.split_to(size_max.min(self.tail.len())).freeze(),
            None => return None,
        };
        self.ready_bytes -= chunk.len() as u64;
        if self.ready_bytes == 0 {
            // An idle stream costs its state and room for a small message, and next time as little as it needed.
            self.tail_size /= 4;
            if self.tail.capacity() > KEPT_BYTES_MAX {
                self.tail = BytesMut::new();
            }
            if self.ready.capacity() > KEPT_CHUNKS_MAX {
                self.ready = VecDeque::new();
            }
        }
        Some(chunk)
    }

    /// Forgets all bytes: the stream was reset or stopped. Returns how many bytes the application will not take.
    pub fn clear(&mut self) -> u64 {
        let untaken = self.highest - self.contiguous + self.ready_bytes;
        *self =
            Self { contiguous: self.highest, highest: self.highest, final_size: self.final_size, ..Self::default() };
        untaken
    }

    fn check_end(&self, end: u64, fin: bool) -> Result<(), ReceiveError> {
        let known = self.final_size.unwrap_or(if fin { self.highest } else { u64::MAX });
        let fits = if fin { self.final_size.map_or(end >= self.highest, |size| size == end) } else { end <= known };
        if fits { Ok(()) } else { Err(ReceiveError::FinalSize { known, got: end }) }
    }

    fn append(&mut self, data: &Bytes) {
        self.contiguous += data.len() as u64;
        self.ready_bytes += data.len() as u64;
        if data.len() > COPY_BYTES_MAX {
            if !self.tail.is_empty() {
                self.ready.push_back(self.tail.split().freeze());
            }
            self.ready.push_back(data.clone());
            return;
        }
        if self.tail.capacity() - self.tail.len() < data.len() {
            if !self.tail.is_empty() {
                self.ready.push_back(self.tail.split().freeze());
            }
            self.tail_size = (self.tail_size * 2).clamp(TAIL_BYTES_MIN, TAIL_BYTES_MAX);
            self.tail = BytesMut::with_capacity(self.tail_size.max(data.len()));
        }
        self.tail.extend_from_slice(data);
    }

    /// Moves pieces that have become contiguous.
    fn join_pieces(&mut self) {
        let mut run_end = None;
        while let Some(entry) = self.pieces.first_entry()
            && *entry.key() <= self.contiguous
        {
            let (start, piece) = entry.remove_entry();
            let end = start + piece.len() as u64;
            self.piece_bytes -= piece.len() as u64;
            // A run of touching pieces has one gap in front of it, and goes as a whole.
            self.gaps -= usize::from(run_end != Some(start));
            run_end = Some(end);
            if end > self.contiguous {
                self.append(&piece.slice((self.contiguous - start) as usize..));
            }
        }
    }

    /// Keeps the parts of a range that are in no piece yet.
    fn insert_piece(&mut self, offset: u64, data: &Bytes) {
        let end = offset + data.len() as u64;
        let mut from = offset;
        if let Some((start, piece)) = self.pieces.range(..=offset).next_back() {
            from = from.max(start + piece.len() as u64);
        }
        let mut added = Vec::new();
        for (start, piece) in self.pieces.range(from.min(end)..end) {
            if from < *start {
                added.push(from..*start);
            }
            from = start + piece.len() as u64;
        }
        if from < end {
            added.push(from..end);
        }
        for range in added {
            self.keep_piece(range.start, &data.slice((range.start - offset) as usize..(range.end - offset) as usize));
        }
    }

    /// Keeps a piece that overlaps no other. Small ones that touch grow together: many of them would cost far more
    /// memory than the bytes that flow control counts.
    fn keep_piece(&mut self, start: u64, data: &Bytes) {
        let touches_after = self.pieces.contains_key(&(start + data.len() as u64));
        let before = self.pieces.range_mut(..start).next_back().filter(|(at, piece)| *at + piece.len() as u64 == start);
        self.gaps = self.gaps + 1 - usize::from(before.is_some()) - usize::from(touches_after);
        self.piece_bytes += data.len() as u64;
        let is_small = data.len() <= COPY_BYTES_MAX;
        match before {
            Some((_, piece)) if is_small && piece.len() <= COPY_BYTES_MAX => {
                let mut grown =
                    std::mem::take(piece).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                grown.extend_from_slice(data);
                *piece = grown.freeze();
            }
            _ => {
                let kept = if is_small { Bytes::copy_from_slice(data) } else { data.clone() };
                self.pieces.insert(start, kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(buffer: &mut ReceiveBuffer) -> Vec<u8> {
        std::iter::from_fn(|| buffer.read(usize::MAX)).flatten().collect()
    }

    proptest! {
        #[test]
        fn any_order_and_overlap_gives_the_stream(
            size in 1usize..3000,
            cuts in prop::collection::vec((0usize..3000, 1usize..600), 0..40),
            seed in any::<u64>(),
        ) {
            let stream: Vec<u8> = (0..size).map(|at| (at as u64 ^ seed) as u8).collect();
            let stream = Bytes::from(stream);
            let mut buffer = ReceiveBuffer::default();
            let mut received = Vec::new();
            for (start, length) in cuts {
                let start = start % size;
                let end = (start + length).min(size);
                buffer.insert(start as u64, &stream.slice(start..end), end == size).expect("a valid range");
                received.extend(drain(&mut buffer));
                prop_assert_eq!(&received[..], &stream[..received.len()]);
            }
            buffer.insert(0, &stream, true).expect("the whole stream");
            received.extend(drain(&mut buffer));
            prop_assert_eq!(&received[..], &stream[..]);
            prop_assert!(buffer.is_drained() && buffer.gaps == 0);
        }
    }

    #[test]
    fn gaps_are_limited() {
        let mut buffer = ReceiveBuffer::default();
        let data = Bytes::from_static(b"x");
        let result = (1..3000u64).find_map(|at| buffer.insert(at * 2, &data, false).err().map(|error| (at, error)));
        assert_eq!(result, Some((limits::STREAM_GAPS_MAX as u64 + 1, ReceiveError::TooManyGaps)));
    }

    #[test]
    fn pieces_that_touch_are_no_gap() {
        let mut buffer = ReceiveBuffer::default();
        for at in 1..3000u64 {
            buffer.insert(at, &Bytes::from_static(b"x"), false).expect("one gap only");
        }
        assert_eq!(buffer.gaps, 1);
    }

    #[test]
    fn the_final_size_cannot_change() {
        let mut buffer = ReceiveBuffer::default();
        let data = Bytes::from_static(b"abc");
        buffer.insert(0, &data, true).expect("the first end");
        assert!(buffer.insert(3, &data, false).is_err());
        assert!(buffer.insert(0, &data.slice(..2), true).is_err());
        assert!(buffer.insert(0, &data, true).is_ok());
        let mut buffer = ReceiveBuffer::default();
        buffer.insert(5, &data, false).expect("past a gap");
        assert!(buffer.insert(0, &data, true).is_err(), "an end below received bytes");
    }

    #[test]
    fn large_data_is_not_copied() {
        let mut buffer = ReceiveBuffer::default();
        let data = Bytes::from(vec![7; 60_000]);
        buffer.insert(0, &data, false).expect("in order");
        assert_eq!(buffer.read(usize::MAX).map(|chunk| chunk.as_ptr()), Some(data.as_ptr()));
    }
}
