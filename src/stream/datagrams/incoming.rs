//! Datagrams that arrived and wait for the application.

use std::collections::HashSet;

use bytes::Bytes;

use super::queues::Queues;
use super::stats::{DatagramDrop, DatagramStats};
use crate::base::{StreamId, limits};

/// Datagrams that wait for the application.
#[derive(Debug, Default)]
pub(in crate::stream) struct Incoming {
    queues: Queues<Bytes>,
    /// The application reads datagrams of these.
    taken: HashSet<StreamId>,
}

impl Incoming {
    /// The application wants the flow's datagrams. Whether there are some.
    pub(in crate::stream) fn take(&mut self, id: StreamId) {
        self.taken.insert(id);
    }

    /// The application wants no more of them.
    pub(in crate::stream) fn release(&mut self, id: StreamId, stats: &mut DatagramStats) {
        self.taken.remove(&id);
        stats.on_dropped(DatagramDrop::NotTaken, self.queues.remove(id));
    }

    /// Keeps a datagram. Where no application asked for the flow's yet, only as many as may overtake its begin.
    pub(in crate::stream) fn push(&mut self, id: StreamId, data: Bytes, stats: &mut DatagramStats) {
        let is_taken = self.taken.contains(&id);
        let max = if is_taken { limits::DATAGRAM_FLOW_BYTES_MAX } else { limits::DATAGRAM_EARLY_BYTES_MAX };
        stats.on_received(data.len());
        stats.on_dropped(DatagramDrop::NotTaken, self.queues.push(id, data, max));
    }

    /// The next datagram of a flow.
    pub(in crate::stream) fn pop(&mut self, id: StreamId) -> Option<Bytes> {
        self.queues.pop(id)
    }

    /// The stream is over: what the application has not asked for goes, the rest waits to be read.
    pub(in crate::stream) fn on_stream_ended(&mut self, id: StreamId, stats: &mut DatagramStats) {
        if !self.taken.contains(&id) {
            stats.on_dropped(DatagramDrop::NotTaken, self.queues.remove(id));
        }
    }

    /// What waits, in bytes.
    pub(in crate::stream) fn held_bytes(&self) -> usize {
        self.queues.cost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: StreamId = StreamId(0);

    #[test]
    fn early_ones_are_kept_within_a_small_bound() {
        let (mut incoming, mut stats) = (Incoming::default(), DatagramStats::default());
        (0..1000).for_each(|_| incoming.push(ID, Bytes::from(vec![1; 1000]), &mut stats));
        assert!(incoming.held_bytes() <= limits::DATAGRAM_EARLY_BYTES_MAX);
        incoming.take(ID);
        assert_eq!(incoming.pop(ID).map(|data| data.len()), Some(1000));
        (0..1000).for_each(|_| incoming.push(ID, Bytes::from(vec![1; 1000]), &mut stats));
        assert!(incoming.held_bytes() > limits::DATAGRAM_EARLY_BYTES_MAX);
    }

    #[test]
    fn what_arrived_before_the_end_can_be_read_after_it() {
        let (mut incoming, mut stats) = (Incoming::default(), DatagramStats::default());
        incoming.take(ID);
        incoming.push(ID, Bytes::from_static(b"last"), &mut stats);
        incoming.on_stream_ended(ID, &mut stats);
        assert_eq!(incoming.pop(ID), Some(Bytes::from_static(b"last")));
        incoming.push(ID, Bytes::from_static(b"more"), &mut stats);
        incoming.release(ID, &mut stats);
        assert_eq!((incoming.held_bytes(), stats.dropped(DatagramDrop::NotTaken)), (0, 1));
    }
}
