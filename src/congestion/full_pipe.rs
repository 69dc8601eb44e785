//! The full pipe estimator (draft-ietf-ccwg-bbr, "Exiting Acceleration Based on Bandwidth Plateau"): sending faster that
//! delivers no faster has filled the pipe.
//!
//! Beyond the draft: in ProbeBW_UP, where the RTT has risen too since probing began, one round without growth is enough.
//! Otherwise a probe of three rounds at a gain of 1.25 puts three quarters of a BDP into the queue, which on a long path
//! is more than the queue holds. Not in Startup: a pause of the machine looks the same, and to leave Startup too early
//! costs seconds. Nor is growth looked for in the first sample of a round alone, as in the draft, but in each.

use std::time::Duration;

use super::bandwidth::Bandwidth;
use super::min_rtt::queue_delay;
use super::parameters::{FULL_BW_GROWTH, FULL_BW_ROUNDS};

/// Looks for a plateau of the delivery rate.
#[derive(Clone, Debug, Default)]
pub(super) struct FullPipe {
    baseline: Bandwidth,
    rounds_without_growth: u32,
    /// BBR.full_bw_now: full since the last reset.
    pub(super) is_full_now: bool,
    /// BBR.full_bw_reached: full at least once.
    pub(super) was_reached: bool,
}

impl FullPipe {
    /// ResetFullBW: starts looking again, from a rate.
    pub(super) fn restart(&mut self, baseline: Bandwidth) {
        *self = Self { baseline, was_reached: self.was_reached, ..Self::default() };
    }

    /// Something other than the pipe holds the rate at this one: rounds of it prove little.
    pub(super) fn rebase(&mut self, rate: Bandwidth) {
        self.baseline = rate;
        self.rounds_without_growth = self.rounds_without_growth.min(1);
    }

    /// CheckFullBWReached: takes in a sample that the application did not limit.
    pub(super) fn on_sample(&mut self, rate: Bandwidth, is_round_start: bool) {
        if self.is_full_now {
            return;
        }
        if rate >= self.baseline.scaled(FULL_BW_GROWTH) {
            self.restart(rate);
            return;
        }
        self.rounds_without_growth += u32::from(is_round_start);
        if self.rounds_without_growth >= FULL_BW_ROUNDS {
            self.set_full();
        }
    }

    /// Takes in the RTT before the flow sent faster, and the one of late.
    pub(super) fn on_rtt(&mut self, before: Option<Duration>, recent: Option<Duration>) {
        let has_risen = before.zip(recent).is_some_and(|(before, now)| now > before + queue_delay(before));
        if has_risen && self.rounds_without_growth > 0 {
            self.set_full();
        }
    }

    /// The pipe is full, whoever found that out.
    pub(super) fn set_full(&mut self) {
        self.is_full_now = true;
        self.was_reached = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(mbit: u64) -> Bandwidth {
        Bandwidth::from_bytes_per_second(mbit * 125_000)
    }

    #[test]
    fn three_rounds_without_growth_fill_the_pipe() {
        let mut pipe = FullPipe::default();
        for mbit in [10, 20, 40, 80, 95, 99] {
            pipe.on_sample(rate(mbit), true);
            assert!(!pipe.is_full_now, "{mbit}");
        }
        pipe.on_sample(rate(99), true);
        assert!(pipe.is_full_now && pipe.was_reached);
        pipe.restart(Bandwidth::ZERO);
        assert!(!pipe.is_full_now && pipe.was_reached);
    }

    #[test]
    fn a_risen_rtt_needs_one_round_of_no_growth_as_witness() {
        let ms = Duration::from_millis;
        let mut pipe = FullPipe::default();
        pipe.restart(rate(100));
        pipe.on_rtt(Some(ms(80)), Some(ms(120)));
        assert!(!pipe.is_full_now, "no round has passed");
        pipe.on_sample(rate(101), true);
        pipe.on_rtt(Some(ms(80)), Some(ms(88)));
        assert!(!pipe.is_full_now, "within what batches do to the RTT");
        pipe.on_rtt(Some(ms(80)), Some(ms(92)));
        assert!(pipe.is_full_now);
    }
}
