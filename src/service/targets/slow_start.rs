//! Gives a target that came back its share little by little: caches are cold, and everybody has waited for it.

use std::time::{Duration, Instant};

/// The share of a target, 0 to 1: from a tenth when it came back to all of it when the time is over.
pub(super) fn share(came_back: Option<Instant>, time: Option<Duration>, now: Instant) -> f64 {
    let (Some(came_back), Some(time)) = (came_back, time) else { return 1.0 };
    let passed = now.saturating_duration_since(came_back).as_secs_f64() / time.as_secs_f64().max(f64::EPSILON);
    passed.clamp(SHARE_MIN, 1.0)
}

/// Enough that somebody finds out whether it works.
const SHARE_MIN: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_with_time() {
        let (start, time) = (Instant::now(), Some(Duration::from_secs(20)));
        let at = |seconds| share(Some(start), time, start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 10, 15, 20, 3600].map(at), [0.1, 0.1, 0.5, 0.75, 1.0, 1.0]);
        assert_eq!(share(Some(start), None, start), 1.0);
        assert_eq!(share(None, time, start), 1.0);
    }
}
