//! The windowed max filter (draft-ietf-ccwg-bbr, "BBR.max_bw Max Filter"): the highest value of the last so many rounds
//! or cycles. Exact: keeps each value that may still become the highest, at most one a unit of time.

use std::collections::VecDeque;

/// The maximum over a window of virtual time.
#[derive(Clone, Debug, Default)]
pub(super) struct MaxFilter {
    /// Times rise, values fall.
    samples: VecDeque<(u64, u64)>,
}

impl MaxFilter {
    /// Takes in `value` at `time`, which never falls, and returns the maximum of the last `window` units of time.
    pub(super) fn update(&mut self, value: u64, time: u64, window: u64) -> u64 {
        while self.samples.back().is_some_and(|(_, last)| *last <= value) {
            self.samples.pop_back();
        }
        if self.samples.back().is_none_or(|(last, _)| *last != time) {
            self.samples.push_back((time, value));
        }
        while self.samples.front().is_some_and(|(first, _)| time.saturating_sub(*first) >= window) {
            self.samples.pop_front();
        }
        self.max()
    }

    pub(super) fn max(&self) -> u64 {
        self.samples.front().map_or(0, |(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_leaves_with_the_window() {
        let mut filter = MaxFilter::default();
        assert_eq!(filter.update(10, 0, 2), 10);
        assert_eq!(filter.update(7, 0, 2), 10);
        assert_eq!(filter.update(6, 1, 2), 10);
        assert_eq!(filter.update(5, 2, 2), 6, "what was measured two cycles ago is gone");
        assert_eq!(filter.update(4, 3, 2), 5);
        assert_eq!(filter.update(9, 3, 2), 9);
    }

    #[test]
    fn agrees_with_a_plain_maximum_and_stays_bounded() {
        let mut random = super::super::random::Random::new(3);
        let (mut filter, mut all) = (MaxFilter::default(), Vec::new());
        for step in 0..2000_u64 {
            let (time, value) = (step / 7, random.next() % 1000);
            all.push((time, value));
            let plain = all.iter().filter(|(at, _)| time - at < 10).map(|(_, value)| *value).max();
            assert_eq!(Some(filter.update(value, time, 10)), plain);
            assert!(filter.samples.len() <= 10);
        }
    }
}
