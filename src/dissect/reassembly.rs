//! Puts the segments of one direction of a TCP connection in order, by their sequence numbers.

use std::collections::BTreeMap;

use bytes::BytesMut;

/// Bytes that wait for earlier ones, of all connections of a capture. What was lost in capturing never comes.
pub(super) const HELD_BYTES_MAX: usize = 64 << 20;

/// The same, of one direction: as much as a TCP window commonly has.
const HELD_BYTES_OF_ONE_MAX: usize = 16 << 20;

/// What a segment that waits costs beside its bytes.
const HELD_SEGMENT_BYTES: usize = 64;

/// The bytes of one direction.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    /// The number in front of the first byte, if the beginning was seen.
    begin: Option<u32>,
    /// Position of the next byte; the sequence number is its lower half.
    next: Option<u64>,
    held: BTreeMap<u64, Vec<u8>>,
    held_bytes: usize,
    /// In order, and not taken yet.
    pub(super) ready: BytesMut,
    /// Bytes are missing that will not come: what follows cannot be read.
    pub(super) is_broken: bool,
}

impl Reassembly {
    /// The first byte will have the number after this one.
    pub(super) fn begin_after(&mut self, sequence: u32) {
        self.begin.get_or_insert(sequence);
        self.next.get_or_insert(BASE + u64::from(sequence.wrapping_add(1)));
    }

    /// Whether a connection that begins after this number is another one.
    pub(super) fn is_of_another(&self, sequence: u32) -> bool {
        self.next.is_some() && self.begin != Some(sequence)
    }

    /// Takes a segment. `held_total` counts what all directions hold.
    pub(super) fn push(&mut self, sequence: u32, payload: &[u8], is_cut: bool, held_total: &mut usize) {
        if self.is_broken || payload.is_empty() && !is_cut {
            return;
        }
        let next = *self.next.get_or_insert(BASE + u64::from(sequence));
        // The nearest position with these lower bits.
        let distance = sequence.wrapping_sub(next as u32).cast_signed();
        let start = next.saturating_add_signed(i64::from(distance));
        if is_cut {
            self.give_up(held_total);
        } else if start <= next {
            self.take(start, payload);
            self.take_held(held_total);
        } else {
            self.hold(start, payload, held_total);
        }
    }

    /// Whether bytes are missing.
    pub(super) fn has_gap(&self) -> bool {
        self.is_broken || !self.held.is_empty()
    }

    /// What cannot be read is not kept.
    pub(super) fn give_up(&mut self, held_total: &mut usize) {
        self.is_broken = true;
        *held_total -= self.held_bytes;
        self.held_bytes = 0;
        self.held.clear();
    }

    /// Takes bytes that begin at the next one, or before it.
    fn take(&mut self, start: u64, payload: &[u8]) {
        let Some(next) = self.next else { return };
        let known = usize::try_from(next - start).unwrap_or(usize::MAX);
        if let Some(fresh) = payload.get(known..) {
            self.ready.extend_from_slice(fresh);
            self.next = Some(next + fresh.len() as u64);
        }
    }

    fn take_held(&mut self, held_total: &mut usize) {
        while let Some(entry) = self.held.first_entry()
            && self.next.is_some_and(|next| *entry.key() <= next)
        {
            let (start, payload) = entry.remove_entry();
            let size = payload.len() + HELD_SEGMENT_BYTES;
            self.held_bytes -= size;
            *held_total -= size;
            self.take(start, &payload);
        }
    }

    fn hold(&mut self, start: u64, payload: &[u8], held_total: &mut usize) {
        let size = payload.len() + HELD_SEGMENT_BYTES;
        if self.held_bytes + size > HELD_BYTES_OF_ONE_MAX || *held_total + size > HELD_BYTES_MAX {
            return self.give_up(held_total);
        }
        let known = self.held.get(&start).map(Vec::len);
        if known.is_some_and(|known| known >= payload.len()) {
            return;
        }
        let replaced = known.map_or(0, |known| known + HELD_SEGMENT_BYTES);
        self.held.insert(start, payload.to_vec());
        self.held_bytes = self.held_bytes + size - replaced;
        *held_total = *held_total + size - replaced;
    }
}

/// Positions begin here, so that none before the first byte is below 0.
const BASE: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn assembled(begin: u32, segments: &[(u32, &[u8])]) -> (Vec<u8>, bool) {
        let (mut reassembly, mut total) = (Reassembly::default(), 0);
        reassembly.begin_after(begin);
        for (sequence, payload) in segments {
            reassembly.push(*sequence, payload, false, &mut total);
        }
        assert_eq!(total, reassembly.held_bytes);
        (reassembly.ready.to_vec(), reassembly.has_gap())
    }

    #[test]
    fn segments_come_in_any_order_and_any_number_of_times() {
        let begin = 99;
        let segments: [(u32, &[u8]); 6] =
            [(104, b"ef"), (102, b"cde"), (100, b"ab"), (100, b"abc"), (106, b"gh"), (101, b"bcdefg")];
        assert_eq!(assembled(begin, &segments), (b"abcdefgh".to_vec(), false));
    }

    #[test]
    fn sequence_numbers_begin_again_at_0() {
        let segments: [(u32, &[u8]); 3] = [(1, b"de"), (u32::MAX - 1, b"abc"), (3, b"f")];
        assert_eq!(assembled(u32::MAX - 2, &segments), (b"abcdef".to_vec(), false));
    }

    #[test]
    fn a_hole_stops_what_follows() {
        assert_eq!(assembled(0, &[(1, b"ab"), (4, b"d")]), (b"ab".to_vec(), true));
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut reassembly, mut total) = (Reassembly::default(), 0);
        reassembly.begin_after(0);
        let payload = vec![0; 60_000];
        for index in 0..2000u32 {
            reassembly.push(2 + index * 60_000, &payload, false, &mut total);
            assert!(total <= HELD_BYTES_OF_ONE_MAX);
        }
        assert!(reassembly.is_broken && total == 0);
    }
}
