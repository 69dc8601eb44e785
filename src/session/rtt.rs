//! Round-trip time (RFC 9002 §5) and delivery rate of one lane, from the session's own acknowledgements.

use std::time::{Duration, Instant};

use crate::base::limits;

/// Estimates of one lane.
#[derive(Clone, Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    /// The shortest of this period and of the one before.
    minimums: [Option<Duration>; 2],
    period_start: Option<Instant>,
    measured_at: Option<Instant>,
    floor: Option<Duration>,
    latest: Duration,
}

impl RoundTrip {
    /// Takes a measurement, from which the peer's delay was subtracted.
    pub(super) fn on_sample(&mut self, sample: Duration, now: Instant) {
        self.latest = sample;
        self.floor = Some(self.floor.map_or(sample, |floor| floor.min(sample)));
        self.measured_at = Some(now);
        if now.saturating_duration_since(*self.period_start.get_or_insert(now)) >= MINIMUM_PERIOD {
            self.minimums = [None, self.minimums[0]];
            self.period_start = Some(now);
        }
        self.minimums[0] = Some(self.minimums[0].map_or(sample, |minimum| minimum.min(sample)));
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.variation = sample / 2;
            return;
        };
        self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
        self.smoothed = Some((smoothed * 7 + sample) / 8);
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The shortest one of the last ten to twenty seconds.
    pub(super) fn minimum(&self) -> Option<Duration> {
        self.minimums.iter().flatten().min().copied()
    }

    /// The shortest one since the path is what it is.
    pub(super) fn floor(&self) -> Option<Duration> {
        self.floor
    }

    /// The path is not what it was: what counts is the last while.
    pub(super) fn renew_floor(&mut self) {
        self.floor = self.minimum();
    }

    /// Time over which a rate is measured: a round trip, but not that of a queue that this side may have made itself.
    pub(super) fn rate_interval(&self) -> Duration {
        let smoothed = self.smoothed.unwrap_or_default();
        smoothed.min((self.minimum().unwrap_or_default() * 2).max(QUEUED_INTERVAL)).max(RATE_INTERVAL_MIN)
    }

    /// When there was a measurement last.
    pub(super) fn measured_at(&self) -> Option<Instant> {
        self.measured_at
    }

    pub(super) fn latest(&self) -> Duration {
        self.latest
    }

    /// How long an acknowledgement may take before something is wrong.
    pub(super) fn suspect_timeout(&self) -> Duration {
        // Before the first measurement, the time that a handshake over any path on earth takes.
        let Some(smoothed) = self.smoothed else { return Duration::from_secs(1) };
        (smoothed * 2 + self.variation * 4 + limits::ACK_DELAY_MAX).max(limits::SUSPECT_TIMEOUT_MIN)
    }
}

/// What may be on its way on a slow lane, besides four round trips. Where losses are repaired, it takes up to several of
/// them until a packet is acknowledged.
const ALLOWANCE_TIME: Duration = Duration::from_millis(500);

/// A lane that carries this in [`ALLOWANCE_TIME`] is not bounded, in bytes: twice what a socket takes beyond its congestion
/// window. What else is on its way is the window's concern, and what repairs take: with losses, several round trips.
const ALLOWANCE_BYTES_MAX: u64 = 256 * 1024;

/// What may be on its way in any case, in bytes. With less, nobody has to ask what may.
pub(super) const ALLOWANCE_MIN: u64 = 2 * PACKET_BYTES_UNMEASURED;

/// What may be on its way, in bytes, before anything is known of a lane.
const ALLOWANCE_UNMEASURED: u64 = 64 * 1024;

const _: () = assert!(ALLOWANCE_MIN <= ALLOWANCE_UNMEASURED);

/// What is left of the highest rate with each measurement.
const PEAK_DECAY: f64 = 0.9;

/// A transport may be beginning when its lane, at its last measurement, had delivered no more than this many round trips' worth:
/// its window doubles with each, so that all before was no more than the last, and measurements are up to two late. What has come
/// since then is part of the next one.
const STARTUP_ROUND_TRIPS: f64 = 4.0;

/// What a packet may take on a slow lane.
const PACKET_TIME: Duration = Duration::from_millis(50);

/// The longest packet while it is not known how fast a lane is.
const PACKET_BYTES_UNMEASURED: u64 = 8 * 1024;

/// The rate, in bytes a second, of a lane when its silence is judged and none is known to be faster.
const RATE_LEAST: f64 = 64e3;

/// Longest time that silence is explained by the size of a packet.
const PACKET_TIME_MAX: Duration = Duration::from_secs(4);

/// A packet that takes longer than so many round trips, on a lane whose rate was forgotten, shows that the lane is slow still. A
/// transport that begins anew takes two for a packet that does not fit its window.
const TRIAL_ROUND_TRIPS_MAX: u32 = 2;

/// What a lane has to deliver between two measurements while it could take more, so that they say anything.
const LIMITED_BYTES_MIN: u64 = 48 * 1024;

/// A path that has become longer, by another route or another address, is known as such after one or two of these.
/// Kernels forget their shortest round trip after as long.
const MINIMUM_PERIOD: Duration = Duration::from_secs(10);

/// Shortest time over which a rate is measured.
const RATE_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// The same where a queue makes round trips long, unless they are long without one.
const QUEUED_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes a second that a lane delivers, as far as it was asked to.
#[derive(Clone, Debug, Default)]
pub(super) struct DeliveryRate {
    bytes_per_second: Option<f64>,
    /// The lane could have taken more when it was measured.
    is_least: bool,
    /// When something was measured last that says what the lane carries.
    measured_at: Option<Instant>,
    interval_start: Option<Instant>,
    interval_bytes: u64,
    is_limited: bool,
    /// All that was acknowledged.
    delivered_bytes: u64,
    /// The same when a rate was measured last.
    measured_bytes: u64,
    /// The highest rate of late, which follows a rate that grows without delay.
    peak: f64,
    /// From when the rate was forgotten until there is one again.
    trial: Option<Trial>,
}

/// How a lane that was slow is shown to be so still, or not: by one packet at a time, each longer than those before it together.
#[derive(Clone, Debug)]
struct Trial {
    acknowledged_bytes: u64,
    /// How long one may take.
    patience: Duration,
}

impl DeliveryRate {
    /// Notes that nothing was on the way, or that the lane could have taken more than it got: this interval measures the
    /// application or the scheduler, and the path is at least as good.
    pub(super) fn on_limited(&mut self) {
        self.is_limited = true;
    }

    /// Notes that something is sent where nothing was on its way. The time until now measures nobody: whoever gets a packet now
    /// and then would seem to be slow.
    pub(super) fn on_idle(&mut self, now: Instant) {
        self.on_limited();
        if (self.interval_start.is_some() || self.trial.is_some()) && self.interval_bytes == 0 {
            self.interval_start = Some(now);
        }
    }

    /// Forgets what was measured and is no rate yet: time has passed that says nothing.
    pub(super) fn begin_anew(&mut self) {
        (self.interval_start, self.interval_bytes, self.is_limited) = (None, 0, false);
    }

    /// Takes an acknowledgement of bytes. A rate is measured over `interval` at least.
    pub(super) fn on_delivered(&mut self, now: Instant, bytes: u64, interval: Duration) {
        self.delivered_bytes += bytes;
        let Some(start) = self.interval_start else {
            // What an acknowledgement covers was delivered before it.
            self.interval_start = Some(now);
            return;
        };
        self.interval_bytes += bytes;
        let elapsed = now.saturating_duration_since(start);
        if elapsed < interval && self.trial.is_none() {
            return;
        }
        let sample = self.interval_bytes as f64 / elapsed.as_secs_f64();
        self.peak = sample.max(self.peak * PEAK_DECAY);
        self.measured_bytes = self.delivered_bytes;
        let says_little = self.is_limited && self.interval_bytes < LIMITED_BYTES_MIN;
        let is_slow_still = self.trial.as_ref().is_some_and(|trial| elapsed > trial.patience);
        let (rate, is_least) = match self.bytes_per_second {
            // A few small messages say nothing of what the path could carry.
            None if says_little && !is_slow_still => {
                if let Some(trial) = &mut self.trial {
                    trial.acknowledged_bytes += self.interval_bytes;
                }
                return self.begin_anew();
            }
            None => (sample, self.is_limited),
            Some(rate) if self.is_limited => (rate.max(sample), self.is_least),
            Some(_) if self.is_least => (sample, false),
            Some(rate) => (rate * 0.75 + sample * 0.25, false),
        };
        // A ping now and then does not say that a rate is what it was.
        if !says_little || is_slow_still {
            self.measured_at = Some(now);
        }
        self.trial = None;
        (self.bytes_per_second, self.is_least) = (Some(rate), is_least);
        (self.interval_start, self.interval_bytes, self.is_limited) = (Some(now), 0, false);
    }

    /// Bytes that may be on their way, so that what follows them, and the word that they have arrived, need not wait for
    /// long: what a slow lane carries in some time. As long as that is not known it may carry some times what it has
    /// carried, beyond a few packets.
    pub(super) fn allowance(&self, round_trip: Duration) -> u64 {
        let rate = self.bytes_per_second.unwrap_or_default();
        if rate * ALLOWANCE_TIME.as_secs_f64() >= ALLOWANCE_BYTES_MAX as f64 {
            return u64::MAX;
        }
        let peak = if rate > 0.0 { rate.max(self.peak) } else { 0.0 };
        let known = (peak * (round_trip * 4 + ALLOWANCE_TIME).as_secs_f64()) as u64;
        let is_measured = self.bytes_per_second.is_some() && !self.is_least;
        let least = if is_measured { ALLOWANCE_MIN } else { ALLOWANCE_UNMEASURED + 4 * self.delivered_bytes };
        known.max(least)
    }

    /// The longest packet, in bytes: what the lane carries in a moment. A lane that was not measured is expected to be as
    /// fast as the best one; of one whose rate was forgotten, which was slow, this has to be shown by short packets first.
    pub(super) fn packet_bytes(&self, best_rate: f64) -> u64 {
        let in_a_moment = |rate: f64| (rate * PACKET_TIME.as_secs_f64()) as u64;
        match self.bytes_per_second {
            Some(rate) if !self.is_least => in_a_moment(rate),
            rate => {
                let expected = in_a_moment(rate.unwrap_or_default().max(best_rate)).max(PACKET_BYTES_UNMEASURED);
                let longer = |trial: &Trial| PACKET_BYTES_UNMEASURED + 2 * trial.acknowledged_bytes;
                self.trial.as_ref().map_or(expected, |trial| longer(trial).min(expected))
            }
        }
    }

    /// How long a packet takes that has nothing before it, on the best lane: beside a fast one no other is waited for.
    pub(super) fn packet_time(&self, bytes: u32, best_rate: f64) -> Duration {
        let rate = self.bytes_per_second.unwrap_or_default().max(best_rate).max(RATE_LEAST);
        Duration::try_from_secs_f64(f64::from(bytes) / rate).unwrap_or(PACKET_TIME_MAX).min(PACKET_TIME_MAX)
    }

    /// Forgets the rate: it was measured long ago. `round_trip` is what the lane takes without data.
    pub(super) fn forget(&mut self, round_trip: Duration) {
        let patience = round_trip * TRIAL_ROUND_TRIPS_MAX + limits::ACK_DELAY_MAX;
        *self = Self { trial: Some(Trial { acknowledged_bytes: 0, patience }), ..Self::default() };
    }

    /// When it was measured last.
    pub(super) fn measured_at(&self) -> Option<Instant> {
        self.bytes_per_second.and(self.measured_at)
    }

    /// While the transport may be beginning, so that the path may be faster than the rate: the bytes that may be on their way to
    /// find out.
    pub(super) fn startup_bytes(&self, round_trip_min: Duration) -> Option<u64> {
        self.bytes_per_second?;
        let most = self.peak * round_trip_min.as_secs_f64() * STARTUP_ROUND_TRIPS;
        (self.measured_bytes as f64 <= most).then_some(most as u64)
    }

    /// Whether the path may well be faster.
    pub(super) fn is_least(&self) -> bool {
        self.is_least
    }

    pub(super) fn bytes_per_second(&self) -> Option<f64> {
        self.bytes_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PACKET: u64 = 64 * 1024;

    /// Sends a packet at a time, `idle` after the one before has arrived, which takes `round_trip`.
    fn packet_at_a_time(
        rate: &mut DeliveryRate,
        start: Instant,
        idle: Duration,
        round_trip: Duration,
        bytes: u64,
    ) -> Instant {
        let mut now = start;
        for _ in 0..3 {
            rate.on_idle(now + idle);
            now += idle + round_trip;
            rate.on_delivered(now, bytes, round_trip);
        }
        now
    }

    #[test]
    fn time_in_which_nothing_was_sent_measures_nobody() {
        let (mut rate, start) = (DeliveryRate::default(), Instant::now());
        packet_at_a_time(&mut rate, start, 200 * MS, 64 * MS, PACKET);
        assert!(rate.bytes_per_second().is_some_and(|rate| (rate - 1024e3).abs() < 1e3), "{rate:?}");
        assert!(rate.is_least());
    }

    #[test]
    fn pings_do_not_keep_a_rate_from_being_forgotten() {
        let (mut rate, start) = (DeliveryRate::default(), Instant::now());
        let measured_at = packet_at_a_time(&mut rate, start, MS, 64 * MS, PACKET);
        assert_eq!(rate.measured_at(), Some(measured_at));
        packet_at_a_time(&mut rate, measured_at, 1000 * MS, 64 * MS, 9);
        assert_eq!(rate.measured_at(), Some(measured_at), "a few bytes measure nothing");
        assert!(rate.bytes_per_second().is_some());
    }

    /// Sends what a transport takes whose window begins with ten packets and doubles each round trip: the rates that are known, and
    /// what may be on its way.
    #[test]
    fn transport_that_begins_is_known_to_until_it_has_the_rate_of_its_path() {
        let (bytes_per_second, round_trip) = (6e6, 60 * MS);
        let (mut rate, mut now, mut window) = (DeliveryRate::default(), Instant::now(), 14_000.0_f64);
        rate.on_delivered(now, 0, round_trip);
        let mut steps = 0;
        while rate.bytes_per_second().is_none_or(|rate| rate < 0.9 * bytes_per_second) {
            if rate.bytes_per_second().is_some_and(|rate| rate < 0.5 * bytes_per_second) {
                assert!(rate.startup_bytes(round_trip).is_some_and(|bytes| bytes as f64 >= window), "{rate:?}");
            }
            now += round_trip;
            let bytes = window.min(bytes_per_second * round_trip.as_secs_f64());
            rate.on_delivered(now, bytes as u64, round_trip);
            window *= 2.0;
            steps += 1;
            assert!(steps < 20, "{rate:?}");
        }
        for _ in 0..5 {
            now += round_trip;
            rate.on_delivered(now, (bytes_per_second * round_trip.as_secs_f64()) as u64, round_trip);
        }
        assert_eq!(rate.startup_bytes(round_trip), None);
    }

    /// Sends as much as a lane may take, one packet at a time, until its rate is known: how much that was.
    fn trial(bytes_per_second: f64, round_trip: Duration) -> (DeliveryRate, u64) {
        let (mut rate, mut now, mut sent) = (DeliveryRate::default(), Instant::now(), 0);
        rate.forget(round_trip);
        while rate.bytes_per_second().is_none() {
            let bytes = rate.packet_bytes(20e6).min(PACKET);
            sent += bytes;
            rate.on_idle(now);
            now += round_trip + Duration::from_secs_f64(bytes as f64 / bytes_per_second);
            rate.on_delivered(now, bytes, round_trip);
            now += MS;
        }
        (rate, sent)
    }

    #[test]
    fn lane_that_was_slow_shows_with_little_that_it_is_so_still() {
        let (rate, sent) = trial(125e3, 20 * MS);
        assert_eq!(sent, PACKET_BYTES_UNMEASURED);
        assert!(rate.startup_bytes(20 * MS).is_none() && rate.measured_at().is_some());
        let (rate, sent) = trial(500e3, 20 * MS);
        assert_eq!(sent, 4 * PACKET_BYTES_UNMEASURED);
        assert!(rate.bytes_per_second().is_some_and(|rate| rate < 500e3));
    }

    #[test]
    fn lane_that_is_slow_no_longer_gets_longer_packets_at_once() {
        let (rate, sent) = trial(12.5e6, 60 * MS);
        assert_eq!(sent, 4 * PACKET_BYTES_UNMEASURED + PACKET);
        assert!(rate.startup_bytes(60 * MS).is_some() && rate.is_least());
        assert_eq!(rate.packet_bytes(20e6), 1_000_000);
    }
}
