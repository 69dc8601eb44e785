//! Brings what arrived on a lane into order.
//!
//! quinn could do so, but takes more than 1,024 gaps in a stream for an attack, and gives the peer room for more only when
//! bytes were read. So they are read as they come, and the bound is one of bytes, for all lanes of a connection: what a
//! lane holds behind a gap does not keep its peer from sending.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};

use crate::base::limits;

/// Bytes that all lanes of a connection hold behind gaps.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldBytes(Arc<AtomicUsize>);

/// The peer sends too far ahead of a gap.
#[derive(Debug, thiserror::Error)]
#[error(
    "peer sent more than {} bytes, or with more than {RUNS_MAX} gaps, ahead of what is missing",
    limits::QUIC_REORDER_BYTES_MAX
)]
pub(super) struct TooFarAhead;

/// What arrived on one lane and is not yet in order.
#[derive(Debug)]
pub(super) struct Reorder {
    /// The offset that is handed out next.
    next: u64,
    /// Contiguous bytes by their offset. They are copied: a slice of few bytes would keep the whole datagram.
    runs: BTreeMap<u64, BytesMut>,
    held: HeldBytes,
}

impl Reorder {
    pub(super) fn new(held: HeldBytes) -> Self {
        Self { next: 0, runs: BTreeMap::new(), held }
    }

    /// Takes what arrived. What it has next, when this is it or closes a gap, is given back at once, the rest by
    /// [`pop`](Self::pop). No byte may be given twice, which quinn sees to; repeated ones in front are dropped.
    pub(super) fn push(&mut self, offset: u64, mut bytes: Bytes) -> Result<Option<Bytes>, TooFarAhead> {
        let repeated = self.next.saturating_sub(offset).min(bytes.len() as u64);
        bytes.advance(repeated as usize);
        let offset = offset + repeated;
        if bytes.is_empty() {
            return Ok(None);
        }
        if offset == self.next {
            self.next += bytes.len() as u64;
            return Ok(Some(bytes));
        }
        let held = self.held.0.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        let before = self.runs.range_mut(..offset).next_back();
        match before.filter(|(start, run)| **start + run.len() as u64 == offset) {
            Some((_, run)) => run.extend_from_slice(&bytes),
            None => {
                self.runs.insert(offset, BytesMut::from(&bytes[..]));
            }
        }
        let is_too_much = held > limits::QUIC_REORDER_BYTES_MAX || self.runs.len() > RUNS_MAX;
        if is_too_much { Err(TooFarAhead) } else { Ok(None) }
    }

    /// The next bytes in order.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let run = self.runs.first_entry().filter(|run| *run.key() == self.next)?.remove();
        self.held.0.fetch_sub(run.len(), Ordering::Relaxed);
        self.next += run.len() as u64;
        Some(run.freeze())
    }
}

impl Drop for Reorder {
    fn drop(&mut self) {
        let held: usize = self.runs.values().map(BytesMut::len).sum();
        self.held.0.fetch_sub(held, Ordering::Relaxed);
    }
}

/// Gaps of one lane: one for each second datagram of all that may be held.
const RUNS_MAX: usize = limits::QUIC_REORDER_BYTES_MAX / (2 * super::options::MTU_MIN_BYTES as usize);

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that comes out.
    fn push(reorder: &mut Reorder, offset: u64, bytes: &'static [u8]) -> Vec<u8> {
        let mut out = reorder.push(offset, Bytes::from_static(bytes)).unwrap().unwrap_or_default().to_vec();
        while let Some(bytes) = reorder.pop() {
            out.extend_from_slice(&bytes);
        }
        out
    }

    #[test]
    fn bytes_come_out_in_order() {
        let held = HeldBytes::default();
        let mut reorder = Reorder::new(held.clone());
        assert_eq!(push(&mut reorder, 0, b"ab"), b"ab");
        assert_eq!(push(&mut reorder, 4, b"ef"), b"");
        assert_eq!(push(&mut reorder, 8, b"i"), b"");
        assert_eq!(push(&mut reorder, 6, b"gh"), b"");
        assert_eq!(held.0.load(Ordering::Relaxed), 5);
        assert_eq!(push(&mut reorder, 2, b"cd"), b"cdefghi");
        assert_eq!(push(&mut reorder, 9, b"j"), b"j");
        assert_eq!(push(&mut reorder, 8, b"ijk"), b"k", "what came before is dropped");
        assert_eq!(push(&mut reorder, 3, b"de"), b"");
        assert_eq!(held.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_lanes_hold_is_bounded_for_all_of_them() {
        let held = HeldBytes::default();
        let (mut one, mut other) = (Reorder::new(held.clone()), Reorder::new(held.clone()));
        let half = Bytes::from(vec![0; limits::QUIC_REORDER_BYTES_MAX / 2]);
        assert!(one.push(1, half.clone()).is_ok());
        assert!(other.push(1, half.clone()).is_ok());
        assert!(other.push(1 + half.len() as u64, Bytes::from_static(b"x")).is_err());
        drop(other);
        assert!(one.push(1 + half.len() as u64, Bytes::from_static(b"x")).is_ok());
        drop(one);
        assert_eq!(held.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn gaps_are_bounded() {
        let mut reorder = Reorder::new(HeldBytes::default());
        let mut pieces = (1_u64..).map(|number| reorder.push(number * 2, Bytes::from_static(b"x")).is_ok());
        assert_eq!(pieces.position(|is_ok| !is_ok), Some(RUNS_MAX));
    }
}
