//! A queue for each flow, bounded each and together. When there is no room the oldest goes: of the flow itself, or of
//! the one that holds the most, so that a flood on one flow takes nothing from the others.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::base::{IdMap, StreamId, limits};

/// What can be queued.
pub(super) trait Queued {
    /// Its bytes.
    fn data(&self) -> &Bytes;

    /// Whether a part of it has left, so that the rest is worth more than a whole other one.
    fn is_begun(&self) -> bool {
        false
    }

    /// What it counts against the bounds, in bytes.
    fn cost(&self) -> usize {
        self.data().len() + limits::DATAGRAM_OVERHEAD_BYTES
    }
}

impl Queued for Bytes {
    fn data(&self) -> &Bytes {
        self
    }
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<T>,
    cost: usize,
}

/// Queues of datagrams by flow.
#[derive(Debug)]
pub(super) struct Queues<T> {
    flows: IdMap<StreamId, Queue<T>>,
    cost: usize,
    count: usize,
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self { flows: IdMap::default(), cost: 0, count: 0 }
    }
}

impl<T: Queued> Queues<T> {
    /// Whether there is a queue for the flow, which may be empty.
    pub(super) fn contains(&self, id: StreamId) -> bool {
        self.flows.contains_key(&id)
    }

    /// Datagrams in all queues.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// What they count, in bytes.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    /// Makes a queue for the flow, if there is none.
    pub(super) fn open(&mut self, id: StreamId) {
        self.flows.entry(id).or_insert_with(|| Queue { items: VecDeque::new(), cost: 0 });
    }

    /// Forgets a queue: how many were in it.
    pub(super) fn remove(&mut self, id: StreamId) -> usize {
        let Some(queue) = self.flows.remove(&id) else { return 0 };
        self.cost -= queue.cost;
        self.count -= queue.items.len();
        queue.items.len()
    }

    /// Appends to a flow's queue, which is made when there is none. Returns how many had to go for it.
    pub(super) fn push(&mut self, id: StreamId, item: T, flow_max: usize) -> usize {
        let cost = item.cost();
        self.open(id);
        let mut dropped = 0;
        while self.flows.get(&id).is_some_and(|queue| queue.cost + cost > flow_max) && self.drop_oldest(id) {
            dropped += 1;
        }
        while self.cost + cost > limits::DATAGRAM_SESSION_BYTES_MAX {
            let Some(largest) = self.largest() else { break };
            dropped += usize::from(self.drop_oldest(largest));
        }
        if let Some(queue) = self.flows.get_mut(&id) {
            queue.items.push_back(item);
            queue.cost += cost;
            self.cost += cost;
            self.count += 1;
        }
        dropped
    }

    /// The oldest of a flow.
    pub(super) fn front(&self, id: StreamId) -> Option<&T> {
        self.flows.get(&id)?.items.front()
    }

    /// The oldest of a flow, to be changed.
    pub(super) fn front_mut(&mut self, id: StreamId) -> Option<&mut T> {
        self.flows.get_mut(&id)?.items.front_mut()
    }

    /// Takes the oldest of a flow.
    pub(super) fn pop(&mut self, id: StreamId) -> Option<T> {
        let queue = self.flows.get_mut(&id)?;
        let item = queue.items.pop_front()?;
        queue.cost -= item.cost();
        if queue.items.is_empty() {
            // A burst needs room that an idle flow should not keep.
            queue.items = VecDeque::new();
        }
        self.cost -= item.cost();
        self.count -= 1;
        Some(item)
    }

    /// Drops the oldest of a flow of which nothing has left, or the one that there is.
    fn drop_oldest(&mut self, id: StreamId) -> bool {
        let Some(queue) = self.flows.get_mut(&id) else { return false };
        if queue.items.len() < 2 || !queue.items[0].is_begun() {
            return self.pop(id).is_some();
        }
        let cost = queue.items.remove(1).map_or(0, |item| item.cost());
        queue.cost -= cost;
        self.cost -= cost;
        self.count -= 1;
        true
    }

    fn largest(&self) -> Option<StreamId> {
        let held = self.flows.iter().filter(|(_, queue)| queue.cost > 0);
        held.max_by_key(|(id, queue)| (queue.cost, id.0)).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW_MAX: usize = limits::DATAGRAM_FLOW_BYTES_MAX;

    /// A datagram of a byte, of which a part has left.
    struct Begun(Bytes);

    impl Queued for Begun {
        fn data(&self) -> &Bytes {
            &self.0
        }

        fn is_begun(&self) -> bool {
            self.0[0] == 0
        }
    }

    #[test]
    fn what_has_begun_to_leave_is_not_dropped_for_others() {
        let mut queues = Queues::default();
        let id = StreamId(0);
        let cost = 1 + limits::DATAGRAM_OVERHEAD_BYTES;
        let dropped: usize = (0..10_u8).map(|byte| queues.push(id, Begun(Bytes::from(vec![byte])), 3 * cost)).sum();
        let left: Vec<u8> = std::iter::from_fn(|| queues.pop(id)).map(|item| item.0[0]).collect();
        assert_eq!((dropped, left, queues.cost(), queues.count()), (7, vec![0, 8, 9], 0, 0));
        // The only one goes all the same.
        queues.push(id, Begun(Bytes::from_static(&[0])), cost);
        assert_eq!(queues.push(id, Begun(Bytes::from_static(&[1])), cost), 1);
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut queues = Queues::default();
        let id = StreamId(0);
        let cost = 1 + limits::DATAGRAM_OVERHEAD_BYTES;
        assert_eq!((0..10_u8).map(|byte| queues.push(id, Bytes::from(vec![byte]), 4 * cost)).sum::<usize>(), 6);
        let left: Vec<u8> = std::iter::from_fn(|| queues.pop(id)).map(|data| data[0]).collect();
        assert_eq!((left, queues.cost(), queues.count()), (vec![6, 7, 8, 9], 0, 0));
    }

    #[test]
    fn a_flood_takes_nothing_from_other_flows() {
        let mut queues = Queues::default();
        let (quiet, floods) = (StreamId(0), [StreamId(4), StreamId(8), StreamId(12)]);
        queues.push(quiet, Bytes::from_static(b"query"), FLOW_MAX);
        let large = Bytes::from(vec![0; 60_000]);
        for round in 0..1000 {
            queues.push(floods[round % 3], large.clone(), FLOW_MAX);
            assert!(queues.cost() <= limits::DATAGRAM_SESSION_BYTES_MAX);
        }
        assert!(queues.cost() > limits::DATAGRAM_SESSION_BYTES_MAX - 2 * large.len());
        queues.push(quiet, Bytes::from_static(b"again"), FLOW_MAX);
        assert_eq!(queues.pop(quiet), Some(Bytes::from_static(b"query")));
        assert_eq!(queues.pop(quiet), Some(Bytes::from_static(b"again")));
        for id in floods {
            assert!(queues.remove(id) > 40);
        }
        assert_eq!((queues.cost(), queues.count()), (0, 0));
    }

    #[test]
    fn empty_datagrams_need_room_too() {
        let mut queues = Queues::default();
        let room = FLOW_MAX / limits::DATAGRAM_OVERHEAD_BYTES;
        let dropped: usize = (0..2 * room).map(|_| queues.push(StreamId(0), Bytes::new(), FLOW_MAX)).sum();
        assert_eq!((queues.count(), dropped), (room, room));
    }
}
