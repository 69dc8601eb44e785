//! A lane that is kept free of bulk data while short messages come for whose answers somebody waits.
//!
//! What is sent behind bulk data on one lane waits for all of it: for what the channel was given and has not sent, and, on
//! a path that loses, for the repair of every loss in front of it. With losses of 1 % there is always one. A lane without
//! bulk data has nothing to wait for but the path's own queue.
//!
//! One lane is kept of those that share a path, and only where two others of them carry the bulk data. A stream of a QUIC
//! connection is taken rather than a connection, as that costs the transfer no share of the path. Where no short message
//! came for a while, the lane carries everything again.

use std::time::{Duration, Instant};

use super::lane::Lane;
use super::state::Session;
use crate::base::{LaneId, StreamId};

/// How long a lane is kept free after a short message: who waits for answers asks again within it.
const HOLD: Duration = Duration::from_secs(10);

/// A longer piece is part of a transfer, which every lane helps with, whatever its class.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// With more on its way the lane is no better than others, and short messages go where they would without it.
const IN_FLIGHT_BYTES_MAX: u64 = 64 * 1024;

/// Lanes beside it that the bulk data needs, on the same path: with losses, one alone brings far less than two.
const OTHERS_MIN: usize = 2;

/// How much longer than the shortest round trip its own may be, as a part of that and besides.
const ROUND_TRIP_SPREAD: (u32, Duration) = (4, Duration::from_millis(2));

/// The lane that is kept free.
#[derive(Debug, Default)]
pub(super) struct Express {
    lane: Option<LaneId>,
    until: Option<Instant>,
    /// It was woken, and has not asked yet.
    is_woken: bool,
}

impl Session {
    /// Whether a lane is kept free of bulk data now. What writes to its channel should let nothing else go first.
    #[must_use]
    pub fn is_express(&self, lane: LaneId) -> bool {
        self.express.lane == Some(lane)
    }

    /// A piece of a stream was cut: a short message, for whose answer somebody waits, is worth a lane of its own.
    pub(super) fn note_prompt(&mut self, id: StreamId, piece_bytes: usize, now: Instant) {
        if piece_bytes > PIECE_BYTES_MAX || !self.streams.is_prompt(id) || !self.scheduler.keeps_express() {
            return;
        }
        let is_held = self.express.until.replace(now + HOLD).is_some_and(|until| now < until);
        if self.express.lane.is_none() {
            if !is_held {
                self.standing_queue.end();
            }
            self.express.lane = self.best_express();
        }
    }

    /// Ends it when its time is over, or the lane or those beside it are not what they were. To be called before anything
    /// is decided by it.
    pub(super) fn refresh_express(&mut self, now: Option<Instant>) {
        let Some(id) = self.express.lane else { return };
        let is_over = now.zip(self.express.until).is_some_and(|(now, until)| until <= now);
        let is_kept = !is_over && self.lanes.iter().any(|lane| lane.id == id && self.can_be_express(lane));
        if !is_kept {
            self.express = Express { until: self.express.until.filter(|_| !is_over), ..Express::default() };
            if is_over { self.standing_queue.end() } else { self.standing_queue.interrupt() }
        }
    }

    /// The express lane asks.
    pub(super) fn on_express_asks(&mut self) {
        self.express.is_woken = false;
    }

    /// Whether short messages are left to the express lane, which is woken for them.
    pub(super) fn wake_express(&mut self) -> bool {
        let Some(index) = self.express.lane.and_then(|id| self.lane_index(id)) else { return false };
        let lane = &self.lanes[index];
        if lane.in_flight_bytes > IN_FLIGHT_BYTES_MAX || !(lane.is_waiting || self.express.is_woken) {
            return false;
        }
        self.express.is_woken = true;
        self.wake_lane(index);
        true
    }

    /// The lane that is kept free.
    pub(super) fn express_lane(&self) -> Option<&Lane> {
        let id = self.express.lane?;
        self.lanes.iter().find(|lane| lane.id == id)
    }

    /// The lane whose absence costs bulk data the least: one of several in a channel, else that of the slowest channel.
    fn best_express(&self) -> Option<LaneId> {
        let fit = self.lanes.iter().filter(|lane| self.can_be_express(lane));
        let cost = |lane: &Lane| {
            let is_alone = self.channel_lanes(lane.channel()).nth(1).is_none();
            if is_alone { lane.rate.bytes_per_second().unwrap_or_default() } else { -1.0 }
        };
        // The last of equal ones: the first lane of a channel is what the channel ends with.
        fit.rev().min_by(|left, right| cost(left).total_cmp(&cost(right))).map(|lane| lane.id)
    }

    fn can_be_express(&self, lane: &Lane) -> bool {
        let carries = |lane: &Lane| self.is_carrying(lane) && !lane.is_late();
        let best = self.lanes.iter().filter(|lane| carries(lane)).filter_map(|lane| lane.round_trip.minimum()).min();
        let (part, more) = ROUND_TRIP_SPREAD;
        let is_near = best.zip(lane.round_trip.minimum()).is_some_and(|(best, own)| own <= best + best / part + more);
        let is_beside = |other: &&Lane| other.id != lane.id && carries(other) && lane.shares_path(other);
        carries(lane) && is_near && self.lanes.iter().filter(is_beside).count() >= OTHERS_MIN
    }
}

impl Lane {
    /// Whether both are known to go over one path.
    pub(super) fn shares_path(&self, other: &Self) -> bool {
        self.channel() == other.channel() || (self.setup.path.is_some() && self.setup.path == other.setup.path)
    }
}
