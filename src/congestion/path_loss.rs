//! Tells a path that loses by itself from a queue that overflows. Not in the draft: it answers each loss, so that a path
//! with 1 % of random loss is left half empty and one with 3 % nearly unused.
//!
//! Loss in rounds whose RTT shows no queue is not this sender's doing. Its median over the last windows, bounded by
//! [`PATH_LOSS_MAX`], is the path's own loss, and only what exceeds it is congestion. With a queue and nothing known of
//! the path, each loss counts, as the draft has it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::parameters::PATH_LOSS_MAX;

/// Measures the loss of the path.
#[derive(Clone, Debug, Default)]
pub(super) struct PathLoss {
    lost_bytes: u64,
    delivered_bytes: u64,
    /// Shares of loss of the last windows without a queue.
    windows: VecDeque<f64>,
    floor: f64,
    measured: Option<Instant>,
}

/// Windows of which the median is taken.
const WINDOWS: usize = 8;

/// Segments of a window at least: with fewer, a share of 1 % is chance.
const WINDOW_SEGMENTS: u64 = 256;

/// How long the floor holds without another window.
const FLOOR_LIFE: Duration = Duration::from_secs(30);

impl PathLoss {
    /// Takes in a round: what was lost and delivered in it, and whether its RTT showed a queue.
    pub(super) fn on_round(&mut self, now: Instant, lost: u64, delivered: u64, is_queue_present: bool, segment: u64) {
        if self.measured.is_some_and(|measured| now > measured + FLOOR_LIFE) {
            *self = Self::default();
        }
        if is_queue_present {
            return;
        }
        self.lost_bytes += lost;
        self.delivered_bytes += delivered;
        let total = self.lost_bytes + self.delivered_bytes;
        if total < WINDOW_SEGMENTS * segment {
            return;
        }
        self.windows.push_back(self.lost_bytes as f64 / total as f64);
        if self.windows.len() > WINDOWS {
            self.windows.pop_front();
        }
        (self.lost_bytes, self.delivered_bytes) = (0, 0);
        self.measured = Some(now);
        self.floor = self.median().min(PATH_LOSS_MAX);
    }

    /// The bytes of `in_flight` that may be lost without meaning congestion, when `threshold` beyond the path's own share
    /// is tolerated.
    pub(super) fn tolerated(&self, in_flight: u64, threshold: f64, is_queue_present: bool, segment: u64) -> u64 {
        let share = if is_queue_present { self.floor } else { PATH_LOSS_MAX };
        let expected = in_flight as f64 * share;
        // Two standard deviations of a Poisson count of segments.
        let segment = segment.max(1) as f64;
        let chance = 2.0 * (expected / segment).sqrt() * segment;
        (expected + chance + in_flight as f64 * threshold) as u64
    }

    fn median(&self) -> f64 {
        let mut sorted: Vec<_> = self.windows.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len() - 1) / 2).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1000;

    fn after_rounds(shares_in_thousand: &[u64], is_queue_present: bool) -> (PathLoss, Instant) {
        let (mut path, now) = (PathLoss::default(), Instant::now());
        for share in shares_in_thousand {
            path.on_round(now, share * SEGMENT, (1000 - share) * SEGMENT, is_queue_present, SEGMENT);
        }
        (path, now)
    }

    #[test]
    fn loss_without_a_queue_is_the_paths_own() {
        let (path, _) = after_rounds(&[28, 31, 30, 35, 29], false);
        assert!((0.025..0.035).contains(&path.floor), "{}", path.floor);
        let tolerated = path.tolerated(2000 * SEGMENT, 0.0, true, SEGMENT);
        assert!((60 * SEGMENT..80 * SEGMENT).contains(&tolerated), "{tolerated}");
    }

    #[test]
    fn loss_with_a_queue_is_congestion() {
        let (path, _) = after_rounds(&[30, 30, 30], true);
        assert_eq!(path.tolerated(2000 * SEGMENT, 0.0, true, SEGMENT), 0);
        assert_eq!(path.tolerated(2000 * SEGMENT, 0.02, true, SEGMENT), 40 * SEGMENT);
    }

    #[test]
    fn a_burst_leaves_no_trace_and_the_floor_is_bounded() {
        let (path, _) = after_rounds(&[0, 400, 0, 0, 300, 0], false);
        assert_eq!(path.floor, 0.0);
        let (path, _) = after_rounds(&[500; 8], false);
        assert_eq!(path.floor, PATH_LOSS_MAX);
    }

    #[test]
    fn what_was_measured_long_ago_is_forgotten() {
        let (mut path, now) = after_rounds(&[30, 30, 30], false);
        path.on_round(now + FLOOR_LIFE + FLOOR_LIFE, 0, 1, true, SEGMENT);
        assert_eq!(path.floor, 0.0);
    }
}
