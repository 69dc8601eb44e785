//! What happens when nothing happens: late acknowledgements, silent lanes, a session without lanes, old keys, datagrams
//! that nobody took.

use std::time::{Duration, Instant};

use super::event::{CloseReason, Event, LaneEnd};
use super::lane::{Lane, LaneState};
use super::state::{Session, State};
use crate::base::{CloseCode, LaneId, limits};
use crate::wire::Frame;

/// How often the round trip of a lane without data is measured while others carry some: a path that improves is back
/// within this time and a round trip, and a ping costs nothing.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest interval at which a lane is measured that is kept free, by which the queue of its path is known.
const EXPRESS_PROBE_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// How long a rate is believed of a lane that gets no data while others do. Then it may show anew what it carries, with
/// as little as a lane that was never measured.
const RATE_MEMORY: Duration = Duration::from_secs(3);

/// A timer that fires within this is close. What begins with a packet takes longer, but for acknowledgements that are due
/// already, limits, and the age of datagrams.
const CLOSE_MAX: Duration = Duration::from_millis(20);
const _: () = assert!(CLOSE_MAX.as_millis() <= EXPRESS_PROBE_INTERVAL_MIN.as_millis());
const _: () = assert!(CLOSE_MAX.as_millis() < limits::ACK_DELAY_MAX.as_millis());

/// Data on its way, on one lane, that is worth the question whether another one would do better.
const PROBE_LOAD_BYTES_MIN: u64 = 64 * 1024;

impl Session {
    /// When [`handle_timeout`](Self::handle_timeout) has to be called at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Closed(_) => return None,
            State::Closing { until, .. } => return Some(*until),
            State::Connecting | State::Proving { .. } | State::Connected => {}
        }
        let mut next = Some(self.expires_at);
        let mut consider = |at: Option<Instant>| next = earlier(next, at);
        consider(self.lost_deadline());
        consider(self.previous_keys_deadline());
        consider(self.late_deadline());
        consider(self.return_deadline());
        consider(self.probe_deadline());
        consider(self.deadline_of_data());
        consider(self.former_lanes.deadline());
        self.lanes.iter().for_each(|lane| consider(self.lane_deadline(lane, self.ran_at)));
        next
    }

    /// The same, if it is earlier than `armed`, when the method is called anyway. To be asked after each packet: a timer
    /// that fires within 20 ms is not compared with what waits for longer. So what begins to count when it has waited for a while
    /// already may be found by that much later than by [`next_timeout`](Self::next_timeout).
    #[must_use]
    pub fn next_timeout_before(&self, armed: Option<Instant>) -> Option<Instant> {
        let is_running = matches!(self.state, State::Connecting | State::Proving { .. } | State::Connected);
        let is_close = armed.is_some_and(|armed| armed <= self.ran_at + CLOSE_MAX);
        let next = if is_close && is_running {
            let acks = self.lanes.iter().filter(|lane| lane.is_waiting).filter_map(|lane| lane.received.ack_due);
            let next = earlier(earlier(acks.min(), self.lost_deadline()), self.deadline_of_data());
            // It may be past as soon as it counts, and not count any more when the timer fires.
            earlier(next, self.late_deadline())
        } else {
            self.next_timeout()
        };
        next.filter(|next| armed.is_none_or(|armed| *next < armed))
    }

    /// When datagrams are too old, or data need not wait for a limit any more.
    fn deadline_of_data(&self) -> Option<Instant> {
        earlier(self.streams.datagram_deadline(), self.throttle.deadline())
    }

    /// When a living lane has something to do, or is found to do nothing. `ran_at` is when this side ran last.
    ///
    /// Asked of every lane after every packet: an idle one has to be cheap.
    pub(super) fn lane_deadline(&self, lane: &Lane, ran_at: Instant) -> Option<Instant> {
        let silent_for = if lane.is_pinged {
            self.config.idle_timeout
        } else {
            self.config.ping_interval.min(self.config.idle_timeout)
        };
        let mut next = earlier(Some(lane.last_received_at + silent_for), lane.confirmation_due);
        // A lane that asks anyway finds its acknowledgement itself.
        if lane.is_waiting {
            next = earlier(next, lane.received.ack_due);
        }
        if lane.sent.is_empty() {
            return next;
        }
        next = earlier(next, self.suspect_deadline(lane));
        // Nothing is done by then, but that this side runs is noted.
        next = earlier(next, lane.silence_deadline().filter(|at| *at > ran_at));
        earlier(next, lane.dead_deadline(self.config.dead_timeout))
    }

    /// Until when the session waits for a lane, when it has none.
    fn lost_deadline(&self) -> Option<Instant> {
        let since = self.alone_since?;
        let survived = since + self.config.survive;
        let abandoned = self.client_began_anew_at.filter(|_| self.is_accept_unconfirmed);
        let abandoned = abandoned.map(|at| at.max(since) + limits::SURVIVE_UNCONFIRMED);
        Some(abandoned.map_or(survived, |abandoned| abandoned.min(survived)))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.state {
            State::Closed(_) => return,
            State::Closing { until, .. } => {
                if *until <= now {
                    self.finish_closing(now);
                }
                return;
            }
            State::Connecting | State::Proving { .. } | State::Connected => {}
        }
        self.on_running(now);
        if let (Some(since), Some(deadline)) = (self.alone_since, self.lost_deadline())
            && deadline <= now
        {
            self.become_closed(CloseReason::ChannelsLost { after: deadline - since }, now);
            return;
        }
        if self.expires_at <= now {
            self.close(CloseCode::SESSION_EXPIRED, "session reached its age", now);
            return;
        }
        self.streams.on_datagram_timeout(now);
        self.end_holding(now);
        self.forget_former_lanes(now);
        for (id, end) in self.lanes_to_end(now) {
            self.remove_lane(id, end, now);
        }
        self.suspect_lanes(now);
        self.reinject_late(now);
        self.probe(now);
        for index in 0..self.lanes.len() {
            self.ping_when_silent(index, now);
            let lane = &mut self.lanes[index];
            if lane.is_alive() && lane.is_waiting && lane.has_own_work(now) {
                lane.is_waiting = false;
                self.wakes.push_back(lane.id);
            }
        }
        self.drop_previous_keys(now);
        self.wake_lanes();
    }

    /// Ends a closing session once every lane has told the peer, or the time is up.
    pub(super) fn finish_closing(&mut self, now: Instant) {
        let State::Closing { reason, until, .. } = &self.state else { return };
        let is_told = self.lanes.iter().filter(|lane| lane.is_alive()).all(|lane| lane.has_sent_close);
        if is_told || *until <= now {
            let reason = reason.clone();
            self.become_closed(reason, now);
        }
    }

    fn lanes_to_end(&self, now: Instant) -> Vec<(LaneId, LaneEnd)> {
        let is_past = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let end = |lane: &Lane| {
            if is_past(lane.dead_deadline(self.config.dead_timeout)) {
                Some(LaneEnd::Unacknowledged)
            } else if lane.last_received_at + self.config.idle_timeout <= now {
                Some(LaneEnd::Idle)
            } else if is_past(lane.confirmation_due) {
                Some(LaneEnd::NotConfirmed)
            } else {
                None
            }
        };
        self.lanes.iter().filter(|lane| lane.is_alive()).filter_map(|lane| Some((lane.id, end(lane)?))).collect()
    }

    /// Marks lanes that acknowledge nothing; their data goes out again where another lane can take it.
    fn suspect_lanes(&mut self, now: Instant) {
        for index in 0..self.lanes.len() {
            if self.suspect_deadline(&self.lanes[index]).is_some_and(|deadline| deadline <= now) {
                self.suspect(index);
                if self.is_channel_silent(&self.lanes[index], now) {
                    self.suspect_idle_siblings(index);
                }
            }
        }
        self.choose_tier(now);
        self.reinject_suspects();
    }

    fn suspect(&mut self, index: usize) {
        self.lanes[index].state = LaneState::Suspect;
        self.events.push_back(Event::LaneSuspect(self.lanes[index].id));
    }

    /// Marks the other lanes of a silent channel that have nothing on their way, by which they would be found out, and asks
    /// them whether they live. Else a short message would be sent on one after the other of them, and wait each time.
    fn suspect_idle_siblings(&mut self, index: usize) {
        let channel = self.lanes[index].channel();
        for sibling in 0..self.lanes.len() {
            let lane = &self.lanes[sibling];
            if lane.state == LaneState::Active && lane.channel() == channel && lane.sent.is_empty() {
                self.suspect(sibling);
                self.ping(sibling);
            }
        }
    }

    fn ping_when_silent(&mut self, index: usize, now: Instant) {
        let lane = &self.lanes[index];
        if lane.is_alive() && !lane.is_pinged && lane.last_received_at + self.config.ping_interval <= now {
            self.ping(index);
        }
    }

    pub(super) fn ping(&mut self, index: usize) {
        self.ping_sequence += 1;
        let lane = &mut self.lanes[index];
        lane.is_pinged = true;
        lane.control.push_back(Frame::Ping { sequence: self.ping_sequence });
    }

    /// When a lane that could carry data and gets none should be measured again.
    fn probe_deadline(&self) -> Option<Instant> {
        // An idle session asks nobody.
        if !self.lanes.iter().any(|lane| lane.in_flight_bytes >= PROBE_LOAD_BYTES_MIN) {
            return None;
        }
        let idle = self.lanes.iter().filter(|lane| lane.sent.is_empty() && !lane.is_pinged && self.is_carrying(lane));
        idle.map(|lane| self.probe_due(lane)).min()
    }

    /// When the round trip of a lane should be measured again; at once when it never was.
    fn probe_due(&self, lane: &Lane) -> Instant {
        let interval = if self.is_express(lane.id) { lane.express_probe_interval() } else { PROBE_INTERVAL };
        lane.round_trip.measured_at().map_or(lane.last_received_at, |at| at + interval)
    }

    /// Measures lanes that the scheduler leaves out: a path that has become better is found.
    fn probe(&mut self, now: Instant) {
        while self.probe_deadline().is_some_and(|due| due <= now) {
            for index in 0..self.lanes.len() {
                let lane = &self.lanes[index];
                if self.probe_due(lane) <= now && lane.sent.is_empty() && !lane.is_pinged && self.is_carrying(lane) {
                    let round_trip = lane.round_trip.latest();
                    let rate = self.rate_mut(index);
                    if rate.measured_at().is_some_and(|at| at + RATE_MEMORY <= now) {
                        rate.forget(round_trip);
                    }
                    self.ping(index);
                }
            }
        }
    }

    fn forget_former_lanes(&mut self, now: Instant) {
        let forgettable_from = self.forgettable_from();
        self.former_lanes.forget(now, forgettable_from, &mut self.past_counters);
    }
}

/// The earlier of two deadlines, or the shorter of two times, where there are any.
pub(super) fn earlier<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Lane {
    /// How often a lane that is kept free is measured: as often as something can have changed.
    fn express_probe_interval(&self) -> Duration {
        self.round_trip.minimum().unwrap_or_default().clamp(EXPRESS_PROBE_INTERVAL_MIN, PROBE_INTERVAL)
    }
}
