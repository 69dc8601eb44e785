//! What streams promise: each delivers a prefix of what was written, in order, once; ends where the writer ended it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use bytes::Bytes;
use longhaul::base::{Entropy, Side, StreamCode, StreamId};
use longhaul::wire::Frame;

use crate::random::Random;

/// A prime, so that no size of packet or window hides a shift by its own multiple.
const PATTERN_BYTES: usize = 65_521;
const SLICE_BYTES_MAX: usize = 1 << 20;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut once = vec![0; PATTERN_BYTES];
    Random::new(7).fill(&mut once);
    Bytes::from(once.iter().copied().cycle().take(PATTERN_BYTES + SLICE_BYTES_MAX).collect::<Vec<_>>())
});

/// One direction of one stream.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    pub written: u64,
    pub read: u64,
    /// Of what was read: what came before the client had shown that it is there.
    pub early: u64,
    pub is_finished: bool,
    pub reset: Option<StreamCode>,
    pub stopped: Option<StreamCode>,
    pub end_was_read: bool,
    pub reset_was_read: bool,
}

impl Flow {
    /// Whether the reader knows everything that there is to know.
    pub fn is_over(&self) -> bool {
        self.end_was_read || self.reset_was_read || self.stopped.is_some()
    }
}

/// All flows, by stream and writer.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    pub flows: BTreeMap<(StreamId, Side), Flow>,
    /// Streams that were opened as replay-safe.
    pub marked: BTreeSet<StreamId>,
    /// Those of them that the client sends early without saying so, as another implementation may.
    pub unsaid: BTreeSet<StreamId>,
}

impl Oracle {
    pub fn flow(&mut self, id: StreamId, writer: Side) -> &mut Flow {
        self.flows.entry((id, writer)).or_default()
    }

    /// The bytes that `writer` has to write at `offset`.
    pub fn content(id: StreamId, writer: Side, offset: u64, size: usize) -> Bytes {
        let shift = id.0.wrapping_mul(7919) + u64::from(writer == Side::Server) * 104_729;
        let start = (offset.wrapping_add(shift) % PATTERN_BYTES as u64) as usize;
        PATTERN.slice(start..start + size.min(SLICE_BYTES_MAX))
    }

    pub fn on_read(&mut self, id: StreamId, reader: Side, data: &[u8]) {
        let writer = reader.peer();
        let flow = self.flow(id, writer);
        assert!(!flow.end_was_read && !flow.reset_was_read, "{id}: data after the end");
        assert!(flow.stopped.is_none(), "{id}: data after the stop");
        assert!(!data.is_empty(), "{id}: an empty read");
        let offset = flow.read;
        flow.read += data.len() as u64;
        assert!(flow.read <= flow.written, "{id}: {} bytes read, {} were written", flow.read, flow.written);
        for (index, part) in data.chunks(SLICE_BYTES_MAX).enumerate() {
            let at = offset + (index * SLICE_BYTES_MAX) as u64;
            assert!(part == &Self::content(id, writer, at, part.len())[..], "{id}: wrong bytes near {at}");
        }
    }

    /// The same, at a server whose client has not shown yet that it is there.
    pub fn on_early_read(&mut self, id: StreamId, data: &[u8]) {
        let is_said = self.marked.contains(&id) && !self.unsaid.contains(&id);
        assert!(is_said, "{id}: read before the client was there, and not replay-safe");
        self.flow(id, Side::Client).early += data.len() as u64;
    }

    /// What a client of another implementation sends in place of ours.
    pub fn relabel(&self, frames: &mut [Frame]) {
        for frame in frames {
            if let Frame::StreamOpen { stream_id, replay_safe, .. } = frame {
                *replay_safe &= !self.unsaid.contains(stream_id);
            }
        }
    }

    pub fn on_end(&mut self, id: StreamId, reader: Side) {
        let flow = self.flow(id, reader.peer());
        assert!(flow.is_finished, "{id}: an end that nobody wrote");
        assert_eq!(flow.read, flow.written, "{id}: the end came early");
        assert!(!flow.end_was_read, "{id}: a second end");
        flow.end_was_read = true;
    }

    pub fn on_reset_read(&mut self, id: StreamId, reader: Side, code: StreamCode) {
        let flow = self.flow(id, reader.peer());
        assert_eq!(flow.reset, Some(code), "{id}: a reset that nobody sent");
        assert!(!flow.end_was_read && !flow.reset_was_read, "{id}: a reset after the end");
        flow.reset_was_read = true;
    }

    /// Bytes that were read, of all flows.
    pub fn read_bytes(&self) -> u64 {
        self.flows.values().map(|flow| flow.read).sum()
    }

    /// Bytes that were read before the client had shown that it is there, of all flows.
    pub fn early_bytes(&self) -> u64 {
        self.flows.values().map(|flow| flow.early).sum()
    }

    /// Whether every flow that was ended has been read to its end.
    pub fn is_all_over(&self) -> bool {
        self.flows.values().all(Flow::is_over)
    }
}
