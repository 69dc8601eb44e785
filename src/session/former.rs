//! Lanes that are over, remembered for a while: what they carried may still be acknowledged, and the peer has to be told what came.
//!
//! Where channels die all the time there are hundreds of them. So they are apart from the living, and nothing that is done for
//! each packet looks at all of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::lane::{Lane, LaneCounters};
use crate::base::{LaneId, PacketNumber, limits};

/// How often lanes are looked at that may not be forgotten yet, and nobody knows from when on they may.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The lanes of a session that are over.
#[derive(Debug, Default)]
pub(super) struct FormerLanes {
    /// In the order of their ends.
    lanes: Vec<Lane>,
    /// Those of which the peer has to be told what came.
    owing: VecDeque<LaneId>,
    /// When they are looked through for those to forget.
    sweep_at: Option<Instant>,
}

impl FormerLanes {
    /// Takes a lane that is over.
    pub(super) fn insert(&mut self, lane: Lane, now: Instant) {
        self.sweep_at.get_or_insert(now + limits::DEAD_LANE_MEMORY);
        let (id, owes) = (lane.id, lane.received.ack_due.is_some());
        self.lanes.push(lane);
        if owes {
            self.owe_ack(id);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.iter().rfind(|lane| lane.id == id)
    }

    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.iter_mut().rfind(|lane| lane.id == id)
    }

    /// Something came on a lane that the peer has to be told.
    pub(super) fn owe_ack(&mut self, id: LaneId) {
        if !self.owing.contains(&id) {
            self.owing.push_back(id);
        }
    }

    /// What came on the newest lanes has to be told once more.
    pub(super) fn owe_newest_acks(&mut self, count_max: usize) {
        let heard = self.lanes.iter().rev().filter(|lane| lane.received.next > PacketNumber(0)).take(count_max);
        let ids: Vec<_> = heard.map(|lane| lane.id).collect();
        ids.into_iter().for_each(|id| self.owe_ack(id));
    }

    pub(super) fn owes_acks(&self) -> bool {
        !self.owing.is_empty()
    }

    /// The next lane of which the peer has to be told.
    pub(super) fn pop_owing(&mut self) -> Option<&mut Lane> {
        let id = self.owing.pop_front()?;
        self.get_mut(id)
    }

    /// When [`forget`](Self::forget) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Forgets the lanes whose time has come, and adds what they counted to `past`. Those that carried something are not
    /// forgotten before `forgettable_from`.
    pub(super) fn forget(&mut self, now: Instant, forgettable_from: Option<Instant>, past: &mut LaneCounters) {
        if self.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        let mut next: Option<Instant> = None;
        self.lanes.retain(|lane| {
            let due = lane.forget_at(forgettable_from).unwrap_or(now + SWEEP_INTERVAL);
            if due <= now {
                past.add(&lane.counters);
                return false;
            }
            next = Some(next.map_or(due, |next| next.min(due)));
            true
        });
        self.owing.retain(|id| self.lanes.iter().any(|lane| lane.id == *id));
        self.sweep_at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::lane::{LaneKind, LaneSetup, LaneState, Protection};

    /// A lane that ended, on which so many packets had come.
    fn ended(id: u32, received: u64, now: Instant) -> Lane {
        let mut lane = Lane::new(LaneId(id), LaneSetup::new(LaneKind::Tcp), Protection::Sealed, LaneState::Dead, now);
        lane.received.next = PacketNumber(received);
        lane.received.ack_due = (received > 0).then_some(now);
        lane.died_at = Some(now);
        lane
    }

    fn owing(lanes: &mut FormerLanes) -> Vec<u32> {
        std::iter::from_fn(|| lanes.pop_owing().map(|lane| lane.id.0)).collect()
    }

    #[test]
    fn what_came_is_owed_once_and_the_newest_again_when_asked() {
        let (mut lanes, now) = (FormerLanes::default(), Instant::now());
        for id in 0..6 {
            lanes.insert(ended(id, u64::from(id % 3), now), now);
        }
        lanes.owe_ack(LaneId(1));
        assert_eq!(owing(&mut lanes), [1, 2, 4, 5], "nothing had come on the others");
        assert!(!lanes.owes_acks());
        lanes.owe_newest_acks(3);
        assert_eq!(owing(&mut lanes), [5, 4, 2]);
    }

    #[test]
    fn lanes_are_forgotten_in_time_and_what_they_counted_is_not() {
        let (mut lanes, mut past, start) = (FormerLanes::default(), LaneCounters::default(), Instant::now());
        let second = |count: u64| start + Duration::from_secs(count);
        assert_eq!(lanes.deadline(), None);
        for id in 0..3 {
            let mut lane = ended(id, 1, second(id.into()));
            lane.counters.packets_received = 1;
            lanes.insert(lane, second(id.into()));
        }
        let end = second(0) + limits::DEAD_LANE_MEMORY;
        assert_eq!(lanes.deadline(), Some(end));
        lanes.forget(end, Some(start), &mut past);
        assert_eq!((lanes.iter().count(), past.packets_received), (2, 1));
        assert!(lanes.get(LaneId(0)).is_none() && lanes.get(LaneId(1)).is_some());
        assert_eq!(lanes.deadline(), Some(second(1) + limits::DEAD_LANE_MEMORY));
        assert_eq!(owing(&mut lanes), [1, 2], "nobody is told of what was forgotten");
        // In an outage only those go that carried nothing, and it is looked again.
        let late = end + Duration::from_secs(10);
        lanes.insert(ended(3, 0, second(2)), second(2));
        lanes.forget(late, None, &mut past);
        assert_eq!(lanes.iter().map(|lane| lane.id.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(lanes.deadline(), Some(late + SWEEP_INTERVAL));
        lanes.forget(late + SWEEP_INTERVAL, Some(late), &mut past);
        assert_eq!((lanes.iter().count(), past.packets_received, lanes.deadline()), (0, 3, None));
    }
}
