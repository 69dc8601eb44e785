//! How long a target takes to answer: a mean that forgets.
//!
//! Exponentially weighted by time, so that many answers a second and few of them count alike. It follows a slow answer at
//! once and forgets it within seconds (peak-sensitive, as in Finagle and Linkerd): a target that falls ill is avoided with
//! its first slow answer, and tried again when nothing was heard of it for a while.

use std::time::{Duration, Instant};

/// The mean of one target.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latency(Option<(f64, Instant)>);

impl Latency {
    /// An answer took this long.
    pub(super) fn observe(&mut self, time: Duration, now: Instant) {
        let sample = time.as_secs_f64();
        let mean = match self.0 {
            Some((mean, at)) if sample < mean => {
                let kept = kept(at, now);
                mean * kept + sample * (1.0 - kept)
            }
            _ => sample,
        };
        self.0 = Some((mean, now));
    }

    /// The mean in seconds, less what is forgotten by now; `None` before the first answer.
    pub(super) fn seconds(&self, now: Instant) -> Option<f64> {
        self.0.map(|(mean, at)| mean * kept(at, now))
    }
}

/// How much of a mean is left after a time.
fn kept(at: Instant, now: Instant) -> f64 {
    (-now.saturating_duration_since(at).as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

/// What is older by that counts a third.
const MEMORY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten() {
        let start = Instant::now();
        let (mut latency, at) = (Latency::default(), |seconds| start + Duration::from_secs(seconds));
        assert_eq!(latency.seconds(start), None);
        latency.observe(Duration::from_millis(10), at(0));
        latency.observe(Duration::from_millis(500), at(1));
        assert_eq!(latency.seconds(at(1)), Some(0.5));
        let later = latency.seconds(at(11)).unwrap();
        assert!((0.15..0.2).contains(&later), "{later}");
        for second in 2..60 {
            latency.observe(Duration::from_millis(10), at(second));
        }
        let settled = latency.seconds(at(60)).unwrap();
        assert!((0.008..0.02).contains(&settled), "{settled}");
    }
}
