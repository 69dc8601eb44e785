//! A token bucket on a given clock: for limits of the form "at most n a second". What a token stands for is the user's
//! choice; [`Pacer`](super::Pacer) counts bytes.

use std::time::Instant;

/// Lets through `rate` events a second, in bursts of up to `burst`.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate_per_second: u32, burst: u32) -> Self {
        let burst = f64::from(burst);
        Self { rate: f64::from(rate_per_second), burst, tokens: burst, filled: None }
    }

    /// The same for any rate, and burst.
    #[must_use]
    pub(super) fn with_rate(rate_per_second: f64, burst: f64) -> Self {
        Self { rate: rate_per_second, burst, tokens: burst, filled: None }
    }

    /// Goes on at another rate. What is owed or saved beyond the new burst is forgotten.
    pub(super) fn set_rate(&mut self, now: Instant, rate_per_second: f64, burst: f64) {
        self.fill(now);
        (self.rate, self.burst) = (rate_per_second, burst);
        self.tokens = self.tokens.clamp(-burst, burst);
    }

    /// The tokens that are there; less than none when more was spent than there was.
    pub(super) fn tokens(&mut self, now: Instant) -> f64 {
        self.fill(now);
        self.tokens
    }

    /// Takes tokens, whether they are there or not; less than none gives some back.
    pub(super) fn spend(&mut self, now: Instant, tokens: f64) {
        self.fill(now);
        self.tokens = (self.tokens - tokens).min(self.burst);
    }

    /// Takes one token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }

    /// Puts tokens in, up to the burst: what was taken is justified by something else.
    pub fn earn(&mut self, tokens: u32) {
        self.tokens = (self.tokens + f64::from(tokens)).min(self.burst);
    }

    /// Whether the bucket is full: nothing was taken for a while, so it may be forgotten.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.burst
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = self.filled.map_or(0.0, |filled| now.saturating_duration_since(filled).as_secs_f64());
        self.tokens = (self.tokens + elapsed * self.rate).min(self.burst);
        self.filled = Some(self.filled.map_or(now, |filled| filled.max(now)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn bursts_then_refills_at_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 3);
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        assert_eq!((0..5).filter(|_| bucket.take(start + Duration::from_millis(200))).count(), 2);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(10, 1);
        assert!(bucket.take(start));
        assert!(!bucket.take(start - Duration::from_secs(5)));
        assert!(!bucket.take(start));
    }
}
