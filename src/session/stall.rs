//! Time in which this side did not run: a stopped process, a paused machine. It says nothing about the peer, whose
//! acknowledgements wait in the sockets, so the lanes' clocks are moved on by it.
//!
//! The time that a session survives without lanes is not: it is the application's, which waits whoever is to blame.

use std::time::{Duration, Instant};

use super::lane::Lane;
use super::state::Session;
use crate::base::limits;

impl Session {
    /// Notes that this side runs, and gives back to the lanes the time in which it did not.
    ///
    /// The time that is known to be lost is the lateness of the deadline that was missed first: up to it this side may
    /// have waited for something to happen, as it should. Only that much is given back, so that a lane that is dead
    /// gets no more time of a running side than any other.
    pub(super) fn on_running(&mut self, now: Instant) {
        let ran_at = self.ran_at;
        self.ran_at = ran_at.max(now);
        if now.saturating_duration_since(ran_at) <= limits::STALL_MIN {
            return;
        }
        let lanes = self.lanes.iter().filter(|lane| lane.is_alive());
        let Some(due) = lanes.filter_map(|lane| self.lane_deadline(lane, ran_at)).min() else { return };
        // A deadline that passed while this side ran was missed for another reason.
        let lateness = now.saturating_duration_since(due.max(ran_at));
        if lateness <= limits::STALL_MIN {
            return;
        }
        self.resumed_at = now;
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_alive()) {
            lane.give_back(lateness, now);
        }
    }
}

impl Lane {
    /// Gives back time that this side lost.
    ///
    /// It may have been lost from before the deadline that was missed, and what waits has to be read first: the lane
    /// gets its time until it is suspect once more. Only once until it makes progress, or a side that stands still
    /// again and again would keep a dead lane for ever. No clock is moved past `now`: nobody gets more time than anew.
    fn give_back(&mut self, lateness: Duration, now: Instant) {
        let is_first = std::mem::take(&mut self.has_grace);
        let time = lateness + if is_first { self.round_trip.suspect_timeout() } else { Duration::ZERO };
        if let Some(oldest) = self.sent.front() {
            self.last_progress_at = (oldest.sent_at.max(self.last_progress_at) + time).min(now);
        }
        self.last_received_at = (self.last_received_at + time).min(now);
        self.confirmation_due = self.confirmation_due.map(|due| (due + time).min(now + self.setup.join_timeout()));
        self.rate.begin_anew();
    }
}
