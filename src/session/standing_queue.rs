//! Keeps the queue of a path short while somebody waits for answers over it.
//!
//! Kernels keep as much on its way as they take a path to bear: BBR up to two round trips, CUBIC all that the queue holds. A
//! lane that is kept free ([`express`](super::express)) waits for no data of its own session, but for that queue. So while
//! there is such a lane, what those beside it on its path have on their way together is bounded. The free lane measures what
//! any packet waits there, and the bound follows from it once a round, as in LEDBAT (RFC 6817). Less than what a kernel would
//! keep still fills the line.
//!
//! The queue may be somebody else's. Where no bound shortens the wait, it is lifted for a while.

use std::time::{Duration, Instant};

use super::lane::Lane;
use super::rtt::ALLOWANCE_MIN;
use super::state::Session;
use crate::base::LaneId;

/// What a packet may wait in the queue, as a part of the round trip without one: so a request takes less than two round
/// trips, and the line has something to send when a channel pauses.
const WAIT_PART: u32 = 2;

/// What it may wait in any case. Below, tasks that wait for a core look like a queue.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// A bound is set when no less than this was on the way, in bytes: the queue is not made by less.
const LOAD_MIN: u64 = 64 * 1024;

/// The first bound, as a part of what the path carries in a round trip of the wanted length: where a channel waits for the
/// repair of a loss, more is on its way than on the path.
const FIRST_PART: f64 = 1.25;

/// The same, as a part of what is on its way, at the least: while all wait for a repair the rate seems to be low.
const FIRST_STEP_MIN: f64 = 0.33;

/// The least and the most that the bound becomes of itself in a round.
const STEP: (f64, f64) = (0.6, 1.5);

/// There is no queue when a round trip is no longer than this part of one without.
const EMPTY_PART: f64 = 1.1;

/// The queue is far too long when the wanted round trip is less than this part of what it is.
const FAR_PART: f64 = 0.75;

/// Round trips that are kept of a round: their median is the same with more.
const SAMPLES_MAX: usize = 15;

/// The bound was reached when so much of it was on its way. With less, something else holds the data back.
const REACHED_PART: f64 = 0.9;

/// With a smaller part of the rate the bound is not lowered further.
const RATE_PART_MIN: f64 = 0.8;

/// What is left of the highest rate after a round: one that was measured too high is forgotten.
const RATE_DECAY: f64 = 0.95;

/// The wait is what it should be within this part of it and the round trip.
const TOLERANCE: f64 = 1.1;

/// Rounds in which it is longer and does not become shorter, one after the other, until the bound is lifted.
const FUTILE_ROUNDS_MAX: u32 = 5;

/// It has become shorter when it is no more than this part of what it was.
const SHORTER_PART: f64 = 0.95;

/// How long it stays lifted.
const REST: Duration = Duration::from_secs(30);

/// A round in round trips without a queue, and at the least. In less, what arrives in bursts looks like another rate.
const ROUND_TRIPS: u32 = 4;
const ROUND_MIN: Duration = Duration::from_millis(100);

/// The bound, and what it is made of.
#[derive(Debug, Default)]
pub(super) struct StandingQueue {
    /// Bytes that may be on their way.
    bound: Option<u64>,
    round: Option<Round>,
    /// The rate of the round before, in bytes a second.
    last_rate: f64,
    /// The highest of late, which two rounds had one after the other: when a gap is filled, what waited behind it is
    /// acknowledged at once.
    best_rate: f64,
    futile_rounds: u32,
    /// The shortest round trip since it is longer than wanted.
    shortest: Option<Duration>,
    rests_until: Option<Instant>,
}

/// What was seen since the bound changed last.
#[derive(Debug)]
struct Round {
    since: Instant,
    /// Of what was sent when the change could be seen. A few are long by themselves, as their packets were lost.
    round_trips: Vec<Duration>,
    delivered_bytes: u64,
    /// The most that was on its way.
    in_flight_bytes: u64,
}

/// What became of the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Kept,
    /// It did not shorten the wait.
    Lifted,
}

impl StandingQueue {
    /// Another lane is kept free, or none for now.
    pub(super) fn interrupt(&mut self) {
        self.round = None;
    }

    /// No lane is kept free any more.
    pub(super) fn end(&mut self) {
        *self = Self { rests_until: self.rests_until, ..Self::default() };
    }

    /// Takes what was acknowledged, of `in_flight_bytes` until then.
    fn on_delivered(&mut self, bytes: u64, in_flight_bytes: u64) {
        if let Some(round) = &mut self.round {
            round.delivered_bytes += bytes;
            round.in_flight_bytes = round.in_flight_bytes.max(in_flight_bytes);
        }
    }

    /// Takes a round trip of the free lane, of which the shortest one without a queue is `floor`.
    fn on_round_trip(&mut self, sample: Duration, sent_at: Instant, floor: Duration, now: Instant) -> Verdict {
        let round = self.round.get_or_insert_with(|| Round::new(now));
        if sent_at >= round.since + floor && round.round_trips.len() < SAMPLES_MAX {
            round.round_trips.push(sample);
        }
        if now < round.since + (floor * ROUND_TRIPS).max(ROUND_MIN) {
            return Verdict::Kept;
        }
        let Some(round_trip) = round.median() else { return Verdict::Kept };
        let rate = round.delivered_bytes as f64 / (now - round.since).as_secs_f64();
        let in_flight_bytes = round.in_flight_bytes;
        self.round = Some(Round::new(now));
        if self.rests_until.is_some_and(|until| now < until) {
            return Verdict::Kept;
        }
        self.adjust(round_trip, floor, rate, in_flight_bytes, now)
    }

    fn adjust(&mut self, round_trip: Duration, floor: Duration, rate: f64, in_flight: u64, now: Instant) -> Verdict {
        let wanted = floor + (floor / WAIT_PART).max(WAIT_MIN);
        let ratio = wanted.as_secs_f64() / round_trip.as_secs_f64();
        let is_far = round_trip <= floor.mul_f64(EMPTY_PART) || ratio < FAR_PART;
        // Else half of the way, as the round trip varies by itself.
        let step = if is_far { ratio } else { ratio.sqrt() }.clamp(STEP.0, STEP.1);
        let Some(bound) = self.bound else {
            if ratio < 1.0 && in_flight >= LOAD_MIN {
                *self = Self { last_rate: rate, best_rate: rate, round: self.round.take(), ..Self::default() };
                let carried = rate * wanted.as_secs_f64() * FIRST_PART;
                self.set_bound(carried.clamp(in_flight as f64 * FIRST_STEP_MIN, in_flight as f64 * step));
            }
            return Verdict::Kept;
        };
        if in_flight == 0 {
            // The transfer is over. The next one may find another path.
            self.bound = None;
            return Verdict::Kept;
        }
        if self.is_futile(round_trip, wanted) {
            *self = Self { rests_until: Some(now + REST), ..Self::default() };
            return Verdict::Lifted;
        }
        self.best_rate = rate.min(self.last_rate).max(self.best_rate * RATE_DECAY);
        self.last_rate = rate;
        let is_reached = in_flight as f64 >= bound as f64 * REACHED_PART;
        // Somebody else may keep the queue, whom sending less would leave the line to.
        let is_low = is_reached && rate < self.best_rate * RATE_PART_MIN;
        if (step < 1.0 && !is_low) || (step > 1.0 && is_reached) {
            self.set_bound(bound as f64 * step);
        }
        Verdict::Kept
    }

    /// Whether the wait has been too long for some rounds, and has not become shorter.
    fn is_futile(&mut self, round_trip: Duration, wanted: Duration) -> bool {
        let is_long = round_trip > wanted.mul_f64(TOLERANCE);
        let is_shorter = self.shortest.is_none_or(|shortest| round_trip <= shortest.mul_f64(SHORTER_PART));
        if !is_long || is_shorter {
            self.futile_rounds = 0;
            self.shortest = is_long.then_some(round_trip);
            return false;
        }
        self.futile_rounds += 1;
        self.futile_rounds > FUTILE_ROUNDS_MAX
    }

    fn set_bound(&mut self, bytes: f64) {
        self.bound = Some((bytes as u64).max(ALLOWANCE_MIN));
    }
}

impl Round {
    fn new(since: Instant) -> Self {
        Self { since, round_trips: Vec::new(), delivered_bytes: 0, in_flight_bytes: 0 }
    }

    fn median(&self) -> Option<Duration> {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }
}

impl Session {
    /// Whether enough is on its way on the path of a channel, where its queue is kept short.
    pub(super) fn is_path_full(&self, channel: LaneId) -> bool {
        let Some((bound, free)) = self.standing_queue.bound.zip(self.express_lane()) else { return false };
        let mut lanes = self.channel_lanes(channel);
        lanes.any(|lane| is_neighbour(lane, free)) && self.neighbours_in_flight(free) >= bound
    }

    /// A lane had `bytes` acknowledged, the newest of which it sent at that time.
    pub(super) fn note_path(&mut self, index: usize, bytes: u64, sent_at: Instant, now: Instant) {
        let Some(free) = self.express_lane() else { return };
        let lane = &self.lanes[index];
        let sample = lane.round_trip.latest();
        let beside = is_neighbour(lane, free).then(|| self.neighbours_in_flight(free) + bytes);
        let floor = (lane.id == free.id && sent_at >= self.resumed_at).then(|| self.path_floor(free)).flatten();
        if let Some(in_flight_bytes) = beside {
            self.standing_queue.on_delivered(bytes, in_flight_bytes);
        }
        if let Some(floor) = floor
            && self.standing_queue.on_round_trip(sample, sent_at, floor, now) == Verdict::Lifted
        {
            // The path may have become longer.
            self.lanes.iter_mut().for_each(|lane| lane.round_trip.renew_floor());
        }
    }

    /// The shortest round trip of the path.
    fn path_floor(&self, free: &Lane) -> Option<Duration> {
        self.lanes.iter().filter(|lane| lane.shares_path(free)).filter_map(|lane| lane.round_trip.floor()).min()
    }

    /// Bytes on their way beside the free lane. What a lane holds up is not in the queue any more.
    fn neighbours_in_flight(&self, free: &Lane) -> u64 {
        let neighbours = self.lanes.iter().filter(|lane| is_neighbour(lane, free));
        neighbours.filter(|lane| lane.is_healthy() && !lane.is_late()).map(|lane| lane.in_flight_bytes).sum()
    }
}

fn is_neighbour(lane: &Lane, free: &Lane) -> bool {
    lane.id != free.id && lane.shares_path(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes a second of a path, its round trip without a queue, and what a sender keeps on its way by itself.
    const RATE: f64 = 62.5e6;
    const FLOOR: Duration = Duration::from_millis(50);
    const BY_ITSELF: u64 = 9_000_000;

    /// A path with a queue, a round at a time.
    struct Path {
        queue: StandingQueue,
        now: Instant,
        /// What others have in the queue takes so long.
        foreign: Duration,
        /// What there is to send keeps no more than this on its way.
        load: u64,
    }

    impl Path {
        fn new(foreign_ms: u64, load: u64) -> Self {
            let foreign = Duration::from_millis(foreign_ms);
            Self { queue: StandingQueue::default(), now: Instant::now(), foreign, load }
        }

        /// One round: what the round trip was, the rate, and what became of the bound.
        fn round(&mut self) -> (Duration, f64, Verdict) {
            let in_flight = self.queue.bound.unwrap_or(u64::MAX).min(self.load);
            let base = FLOOR + self.foreign;
            let rate = (in_flight as f64 / base.as_secs_f64()).min(RATE);
            let round_trip = base.max(Duration::from_secs_f64(in_flight as f64 / RATE));
            // The first sample begins the round, and those of what was sent a round trip later count.
            let mut verdict = self.queue.on_round_trip(round_trip, self.now, FLOOR, self.now);
            let begin = self.now;
            while self.now < begin + FLOOR * ROUND_TRIPS && verdict == Verdict::Kept {
                self.now += Duration::from_millis(10);
                self.queue.on_delivered((rate / 100.0) as u64, in_flight);
                verdict = self.queue.on_round_trip(round_trip, self.now, FLOOR, self.now);
            }
            (round_trip, rate, verdict)
        }

        /// Rounds until the bound is lifted.
        fn until_lifted(&mut self) -> Vec<(Duration, f64, Verdict)> {
            let mut rounds = Vec::new();
            while rounds.last().is_none_or(|(_, _, verdict)| *verdict == Verdict::Kept) {
                assert!(rounds.len() < 12, "{:?}", self.queue);
                rounds.push(self.round());
            }
            rounds
        }

        fn rounds(&mut self, count: usize) -> Vec<(Duration, f64, Verdict)> {
            (0..count).map(|_| self.round()).collect()
        }
    }

    #[test]
    fn the_wait_becomes_half_a_round_trip_and_the_line_stays_full() {
        let mut path = Path::new(0, BY_ITSELF);
        assert_eq!(path.round().0, Duration::from_millis(144), "as it is by itself");
        path.rounds(8);
        for (round_trip, rate, verdict) in path.rounds(50) {
            assert!(round_trip.abs_diff(FLOOR * 3 / 2) < Duration::from_millis(4), "{round_trip:?}");
            assert_eq!((rate, verdict), (RATE, Verdict::Kept));
        }
    }

    #[test]
    fn a_path_without_a_queue_and_one_that_carries_little_have_no_bound() {
        for (foreign_ms, load) in [(0, 3_000_000), (100, LOAD_MIN - 1)] {
            let mut path = Path::new(foreign_ms, load);
            for _ in 0..20 {
                path.round();
                assert_eq!(path.queue.bound, None, "{foreign_ms} ms, {load} bytes");
            }
        }
    }

    #[test]
    fn a_queue_that_others_keep_ends_the_bound_for_a_while() {
        let mut path = Path::new(100, BY_ITSELF);
        let rounds = path.until_lifted();
        let mean = rounds.iter().map(|round| round.1).sum::<f64>() / rounds.len() as f64;
        assert!(mean > 0.55 * rounds[0].1, "{mean} of {}", rounds[0].1);
        let lifted_at = path.now;
        while path.queue.bound.is_none() {
            path.round();
        }
        assert!(path.now >= lifted_at + REST);
    }

    #[test]
    fn a_queue_of_others_that_ends_leaves_the_line_to_us() {
        let mut path = Path::new(100, BY_ITSELF);
        path.rounds(4);
        path.foreign = Duration::ZERO;
        path.rounds(10);
        let (round_trip, rate, _) = path.round();
        assert!(rate == RATE && round_trip < FLOOR * 8 / 5, "{rate} with {round_trip:?}");
    }

    /// When a gap is filled, what waited behind it is acknowledged at once.
    #[test]
    fn a_burst_is_not_the_rate() {
        let mut path = Path::new(0, BY_ITSELF);
        path.rounds(3);
        path.queue.on_delivered(RATE as u64, 0);
        path.rounds(1);
        assert!(path.queue.best_rate <= RATE * 1.01, "{}", path.queue.best_rate);
    }

    #[test]
    fn what_follows_a_transfer_that_is_over_begins_without_a_bound() {
        let mut path = Path::new(0, BY_ITSELF);
        path.rounds(3);
        assert!(path.queue.bound.is_some());
        path.load = 0;
        path.rounds(2);
        assert_eq!(path.queue.bound, None);
    }

    #[test]
    fn the_end_of_the_lane_does_not_end_the_rest() {
        let mut path = Path::new(100, BY_ITSELF);
        path.until_lifted();
        path.queue.end();
        for _ in 0..10 {
            path.round();
            assert_eq!(path.queue.bound, None);
        }
    }
}
