//! Sends again on other lanes what a lane does not deliver: all of a lane that acknowledges nothing, and, when the peer's
//! windows are full behind a gap, what is late.
//!
//! The second is opportunistic retransmission after Raiciu et al. (NSDI 2012). A channel that repairs a loss holds up
//! all that follows on it, so the other lanes fill the window within a few round trips and then wait, too. What closes
//! the gap goes out on one of them instead: once, and only while nothing new may be sent, so that it costs nobody's
//! capacity.

use std::time::{Duration, Instant};

use super::lane::{Lane, SentItem};
use super::state::Session;
use crate::base::limits;

/// Late packets of a lane that are sent again at once. More follow when these have opened no window.
const LATE_PACKETS_MAX: usize = 8;

impl Session {
    /// A lane acknowledges nothing: what is on its way goes out again on others, once.
    pub(super) fn reinject(&mut self, index: usize) {
        self.reinject_packets(index, usize::MAX, None);
    }

    /// Sends the data of suspect lanes again, when there is a healthy lane for it.
    pub(super) fn reinject_suspects(&mut self) {
        if self.healthy_lane_count() == 0 {
            return;
        }
        for index in 0..self.lanes.len() {
            if self.lanes[index].state == super::lane::LaneState::Suspect {
                self.reinject(index);
            }
        }
    }

    /// When what a lane does not deliver has to go out on another one.
    pub(super) fn late_deadline(&self) -> Option<Instant> {
        if !self.is_held_up() {
            return None;
        }
        self.lanes.iter().filter(|lane| self.is_carrying(lane)).filter_map(Lane::late_deadline).min()
    }

    /// Sends again what is late.
    pub(super) fn reinject_late(&mut self, now: Instant) {
        // Packets may hold nothing any more that has to be sent again: then the next ones are looked at.
        while self.late_deadline().is_some_and(|due| due <= now) {
            for index in 0..self.lanes.len() {
                if self.is_carrying(&self.lanes[index]) {
                    self.reinject_packets(index, LATE_PACKETS_MAX, Some(now));
                }
            }
        }
    }

    /// Whether bytes wait for the peer's windows alone, and there are lanes to choose from.
    fn is_held_up(&self) -> bool {
        self.streams.unsent_bytes() > 0 && !self.streams.has_ready() && self.carrying_lane_count() > 1
    }

    /// Sends again the oldest packets of a lane that were not yet; with `late_at`, those that are late by then.
    fn reinject_packets(&mut self, index: usize, count_max: usize, late_at: Option<Instant>) {
        let lane = &mut self.lanes[index];
        let late_after = lane.late_after();
        let is_due =
            |sent_at: Instant| late_at.is_none_or(|now| late_after.is_some_and(|after| sent_at + after <= now));
        let mut repeated = Vec::new();
        let packets = lane.sent.iter_mut().filter(|packet| !packet.is_reinjected);
        for packet in packets.take_while(|packet| is_due(packet.sent_at)).take(count_max) {
            packet.is_reinjected = true;
            for item in &packet.items {
                match item {
                    SentItem::Stream { id, range, fin } => repeated.push((*id, range.clone(), *fin)),
                    SentItem::Control(frame) => self.control.push_back(frame.clone()),
                    SentItem::Accepted => {}
                }
            }
        }
        for (id, range, fin) in repeated {
            lane.counters.reinjected_bytes += range.end - range.start;
            self.streams.on_lost(id, range, fin);
        }
    }
}

impl Lane {
    /// Whether the lane holds up what went out again on others: what is sent on it now would only wait behind that.
    pub(super) fn is_late(&self) -> bool {
        self.sent.front().is_some_and(|packet| packet.is_reinjected)
    }

    fn late_deadline(&self) -> Option<Instant> {
        let oldest = self.sent.iter().find(|packet| !packet.is_reinjected)?;
        Some(oldest.sent_at + self.late_after()?)
    }

    /// The time within which a channel that loses nothing, or repairs a loss at the first attempt, is acknowledged; with
    /// the queues that it has now.
    fn late_after(&self) -> Option<Duration> {
        let (minimum, smoothed) = (self.round_trip.minimum()?, self.round_trip.smoothed()?);
        Some((minimum * 2).max(smoothed * 3 / 2) + limits::ACK_DELAY_MAX)
    }
}
