//! Which boundaries histograms have, and a histogram of our own for what is shown without a metrics system.

use serde::Serialize;

/// Boundaries of times, in seconds: those that were asked for, from 15 ms on, and finer ones before them for links inside
/// of a region, which would otherwise all fall in the first bucket.
pub const SECONDS: [f64; 24] = [
    0.0005, 0.001, 0.0025, 0.005, 0.010, // inside of a region
    0.015, 0.030, 0.045, 0.060, // within a continent
    0.090, 0.120, 0.150, 0.180, // between continents
    0.240, 0.300, 0.320, // around the world, or a first repair
    0.440, 0.560, 0.680, 0.800, // queues
    1.100, 1.400, 1.700, 2.000, // outages
];

/// Boundaries of loss, as a share. The first bucket is no loss at all.
pub const RATIO: [f64; 12] = [0.0, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

/// Boundaries of outages, in seconds.
pub const OUTAGE_SECONDS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];

/// Counts of values in buckets: how many are at most the boundary of the bucket, and above the one before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Histogram {
    /// Upper boundaries, ascending. There is one bucket more: what is above.
    pub boundaries: Vec<f64>,
    /// How many are in each bucket.
    pub counts: Vec<u64>,
    /// Their sum.
    pub sum: f64,
}

impl Histogram {
    /// An empty one. `boundaries` have to ascend.
    #[must_use]
    pub fn new(boundaries: &[f64]) -> Self {
        Self { boundaries: boundaries.to_vec(), counts: vec![0; boundaries.len() + 1], sum: 0.0 }
    }

    /// Adds a value.
    pub fn record(&mut self, value: f64) {
        let bucket = self.boundaries.partition_point(|boundary| *boundary < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundaries_that_were_asked_for_are_there() {
        let wished_ms = [
            0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 45.0, 60.0, 90.0, 120.0, 150.0, 180.0, 240.0, 300.0, 320.0, 440.0,
            560.0, 680.0, 800.0, 1100.0, 1400.0, 1700.0, 2000.0,
        ];
        let found_ms = SECONDS.map(|seconds| (seconds * 1e4_f64).round() / 10.0);
        assert_eq!(found_ms, wished_ms);
        for boundaries in [&SECONDS[..], &RATIO, &OUTAGE_SECONDS] {
            assert!(boundaries.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    #[test]
    fn a_value_on_a_boundary_is_below_it() {
        let mut histogram = Histogram::new(&[0.0, 1.0, 2.0]);
        for value in [0.0, 0.5, 1.0, 2.5] {
            histogram.record(value);
        }
        assert_eq!((histogram.counts, histogram.sum), (vec![1, 2, 0, 1], 4.0));
    }
}
