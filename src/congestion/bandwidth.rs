//! A rate in bytes a second, and its products with time.

use std::time::Duration;

/// Bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth(u64);

impl Bandwidth {
    /// No bytes at all.
    pub const ZERO: Self = Self(0);

    /// A rate given in bytes a second.
    #[must_use]
    pub fn from_bytes_per_second(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The rate that moves `bytes` in `time`; nothing in no time is no rate.
    #[must_use]
    pub fn over(bytes: u64, time: Duration) -> Self {
        if time.is_zero() {
            return Self::ZERO;
        }
        let rate = u128::from(bytes) * 1_000_000_000 / time.as_nanos();
        Self(u64::try_from(rate).unwrap_or(u64::MAX))
    }

    /// The rate in bytes a second.
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }

    /// What this rate moves in `time`.
    #[must_use]
    pub fn bytes_in(self, time: Duration) -> u64 {
        let bytes = u128::from(self.0) * time.as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// The rate times a gain.
    #[must_use]
    pub fn scaled(self, gain: f64) -> Self {
        Self(scale(self.0, gain))
    }
}

/// A number of bytes times a gain.
pub(super) fn scale(bytes: u64, gain: f64) -> u64 {
    // The cast saturates, which is what an infinite bound needs.
    (bytes as f64 * gain) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_over_a_time_gives_the_bytes_back() {
        let rate = Bandwidth::over(3_125_000, Duration::from_millis(50));
        assert_eq!(rate.bytes_per_second(), 62_500_000);
        assert_eq!(rate.bytes_in(Duration::from_millis(150)), 9_375_000);
        assert_eq!(rate.scaled(0.5).bytes_per_second(), 31_250_000);
    }

    #[test]
    fn extremes_saturate() {
        assert_eq!(Bandwidth::over(1, Duration::ZERO), Bandwidth::ZERO);
        assert_eq!(Bandwidth::over(u64::MAX, Duration::from_nanos(1)).bytes_per_second(), u64::MAX);
        assert_eq!(scale(u64::MAX, 2.0), u64::MAX);
    }
}
