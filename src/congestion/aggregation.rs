//! How much more than expected comes in at once (draft-ietf-ccwg-bbr, "BBR.extra_acked"): links and receivers that gather
//! acknowledgements need that much more in flight.

use std::time::Instant;

use super::bandwidth::Bandwidth;
use super::filter::MaxFilter;

/// BBR.extra_acked and its filter.
#[derive(Clone, Debug)]
pub(super) struct Aggregation {
    interval_start: Instant,
    delivered: u64,
    filter: MaxFilter,
}

impl Aggregation {
    pub(super) fn new(now: Instant) -> Self {
        Self { interval_start: now, delivered: 0, filter: MaxFilter::default() }
    }

    /// UpdateACKAggregation.
    pub(super) fn update(&mut self, now: Instant, acked: u64, rate: Bandwidth, window: u64, round: u64, rounds: u64) {
        let mut expected = rate.bytes_in(now.saturating_duration_since(self.interval_start));
        if self.delivered <= expected {
            self.delivered = 0;
            self.interval_start = now;
            expected = 0;
        }
        self.delivered += acked;
        let extra = self.delivered.saturating_sub(expected).min(window);
        self.filter.update(extra, round, rounds);
    }

    /// The flow was idle: nothing was expected meanwhile.
    pub(super) fn restart(&mut self, now: Instant) {
        self.interval_start = now;
    }

    /// BBR.extra_acked.
    pub(super) fn extra(&self) -> u64 {
        self.filter.max()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_batch_is_extra_and_is_forgotten_after_its_rounds() {
        let start = Instant::now();
        let rate = Bandwidth::from_bytes_per_second(1_000_000);
        let mut aggregation = Aggregation::new(start);
        for round in 1..=70 {
            let acked = if round == 3 { 50_000 } else { 9_000 };
            let now = start + Duration::from_millis(10) * round;
            aggregation.update(now, acked, rate, 1_000_000, u64::from(round), 10);
            let extra = aggregation.extra();
            assert!(!(3..13).contains(&round) || extra >= 40_000, "{extra} in round {round}");
            assert!(round < 60 || extra <= 20_000, "{extra} in round {round}");
        }
    }
}
