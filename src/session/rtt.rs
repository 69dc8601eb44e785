//! Round-trip time (RFC 9002 §5) and delivery rate of one lane, from the session's own acknowledgements.

use std::time::{Duration, Instant};

use crate::base::limits;

/// Estimates of one lane.
#[derive(Clone, Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    minimum: Option<Duration>,
    latest: Duration,
}

impl RoundTrip {
    /// Takes a measurement, from which the peer's delay was subtracted.
    pub(super) fn on_sample(&mut self, sample: Duration) {
        self.latest = sample;
        self.minimum = Some(self.minimum.map_or(sample, |minimum| minimum.min(sample)));
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

    pub(super) fn minimum(&self) -> Option<Duration> {
        self.minimum
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

/// Shortest time over which a rate is measured.
const RATE_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Bytes a second that a lane delivers, as far as it was asked to.
#[derive(Clone, Debug, Default)]
pub(super) struct DeliveryRate {
    bytes_per_second: Option<f64>,
    interval_start: Option<Instant>,
    interval_bytes: u64,
    was_idle: bool,
}

impl DeliveryRate {
    /// Notes that nothing was on the way: what follows measures the application, not the path.
    pub(super) fn on_idle(&mut self) {
        self.was_idle = true;
    }

    /// Forgets what was measured and is no rate yet: time has passed that says nothing.
    pub(super) fn begin_anew(&mut self) {
        (self.interval_start, self.interval_bytes) = (None, 0);
    }

    /// Takes an acknowledgement of bytes.
    pub(super) fn on_delivered(&mut self, now: Instant, bytes: u64, round_trip: Duration) {
        let start = *self.interval_start.get_or_insert(now);
        self.interval_bytes += bytes;
        let elapsed = now.saturating_duration_since(start);
        if elapsed < round_trip.max(RATE_INTERVAL_MIN) {
            return;
        }
        let sample = self.interval_bytes as f64 / elapsed.as_secs_f64();
        self.bytes_per_second = Some(match self.bytes_per_second {
            None => sample,
            Some(rate) if self.was_idle => rate.max(sample),
            Some(rate) => rate * 0.75 + sample * 0.25,
        });
        (self.interval_start, self.interval_bytes, self.was_idle) = (Some(now), 0, false);
    }

    pub(super) fn bytes_per_second(&self) -> Option<f64> {
        self.bytes_per_second
    }
}
