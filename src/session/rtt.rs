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

/// What a packet may take on a slow lane.
const PACKET_TIME: Duration = Duration::from_millis(50);

/// The longest packet while it is not known how fast a lane is.
const PACKET_BYTES_UNMEASURED: u64 = 8 * 1024;

/// The rate, in bytes a second, of a lane when its silence is judged and none is known to be faster.
const RATE_LEAST: f64 = 64e3;

/// Longest time that silence is explained by the size of a packet.
const PACKET_TIME_MAX: Duration = Duration::from_secs(4);

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
    interval_start: Option<Instant>,
    interval_bytes: u64,
    is_limited: bool,
    /// All that was acknowledged.
    delivered_bytes: u64,
    /// The highest rate of late, which follows a rate that grows without delay.
    peak: f64,
}

impl DeliveryRate {
    /// Notes that nothing was on the way, or that the lane could have taken more than it got: this interval measures the
    /// application or the scheduler, and the path is at least as good.
    pub(super) fn on_limited(&mut self) {
        self.is_limited = true;
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
        if elapsed < interval {
            return;
        }
        let sample = self.interval_bytes as f64 / elapsed.as_secs_f64();
        self.peak = sample.max(self.peak * PEAK_DECAY);
        let (rate, is_least) = match self.bytes_per_second {
            // A few small messages say nothing of what the path could carry.
            None if self.is_limited && self.interval_bytes < LIMITED_BYTES_MIN => return self.begin_anew(),
            None => (sample, self.is_limited),
            Some(rate) if self.is_limited => (rate.max(sample), self.is_least),
            Some(_) if self.is_least => (sample, false),
            Some(rate) => (rate * 0.75 + sample * 0.25, false),
        };
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
    /// fast as the best one.
    pub(super) fn packet_bytes(&self, best_rate: f64) -> u64 {
        let in_a_moment = |rate: f64| (rate * PACKET_TIME.as_secs_f64()) as u64;
        match self.bytes_per_second {
            Some(rate) if !self.is_least => in_a_moment(rate),
            rate => in_a_moment(rate.unwrap_or_default().max(best_rate)).max(PACKET_BYTES_UNMEASURED),
        }
    }

    /// How long a packet takes that has nothing before it, on the best lane: beside a fast one no other is waited for.
    pub(super) fn packet_time(&self, bytes: u32, best_rate: f64) -> Duration {
        let rate = self.bytes_per_second.unwrap_or_default().max(best_rate).max(RATE_LEAST);
        Duration::try_from_secs_f64(f64::from(bytes) / rate).unwrap_or(PACKET_TIME_MAX).min(PACKET_TIME_MAX)
    }

    /// Forgets the rate: it was measured long ago.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// When it was measured last.
    pub(super) fn measured_at(&self) -> Option<Instant> {
        self.bytes_per_second.and(self.interval_start)
    }

    /// Whether the path may well be faster.
    pub(super) fn is_least(&self) -> bool {
        self.is_least
    }

    pub(super) fn bytes_per_second(&self) -> Option<f64> {
        self.bytes_per_second
    }
}
