//! Leaves a target out for a while that could not be connected to several times in a row.
//!
//! The first time for `time`, each further time for twice as long, up to `time_max`. When the time is over, connections
//! try the target again: one more failure ejects it anew, a success makes it whole. How often it was ejected is forgotten
//! when it has worked for as long as it was left out last.

use std::time::{Duration, Instant};

use super::options::EjectionOptions;

/// The failures of one target.
#[derive(Clone, Debug, Default)]
pub(super) struct Ejection {
    /// In a row.
    failures: u32,
    /// Times in a row that it was left out.
    level: u32,
    last: Option<Span>,
}

/// A time for which it was or is left out.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: Instant,
    end: Instant,
}

impl Ejection {
    /// A connection could not be made. `may_eject`: others can be used meanwhile. For how long it is left out from now
    /// on, if it is.
    pub(super) fn on_failure(&mut self, options: &EjectionOptions, may_eject: bool, now: Instant) -> Option<Duration> {
        if self.is_ejected(now) {
            return None;
        }
        self.failures = (self.failures + 1).min(options.failures);
        if self.failures < options.failures || !may_eject {
            return None;
        }
        let longer = options.time.saturating_mul(1 << self.level.min(LEVEL_MAX));
        let time = longer.min(options.time_max);
        self.last = Some(Span { begin: now, end: now + time });
        self.level += 1;
        // The next failure ejects it again.
        self.failures = options.failures - 1;
        Some(time)
    }

    /// A connection was made, for want of another target while this one is left out: then it is back.
    pub(super) fn on_success(&mut self, now: Instant) {
        self.clear(now);
        if self.last.is_some_and(|Span { begin, end }| now >= end + (end - begin)) {
            self.level = 0;
        }
    }

    /// The target works by other signs.
    pub(super) fn clear(&mut self, now: Instant) {
        self.failures = 0;
        if let Some(span) = self.last.as_mut().filter(|span| span.end > now) {
            span.end = now;
        }
    }

    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.last.is_some_and(|span| now < span.end)
    }

    /// Since when and until when it is left out.
    pub(super) fn span(&self, now: Instant) -> Option<(Instant, Instant)> {
        self.last.filter(|span| now < span.end).map(|span| (span.begin, span.end))
    }

    /// When it came back the last time.
    pub(super) fn ended(&self, now: Instant) -> Option<Instant> {
        self.last.map(|span| span.end).filter(|end| *end <= now)
    }
}

/// Beyond it every time is the longest.
const LEVEL_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: EjectionOptions =
        EjectionOptions { failures: 3, time: Duration::from_secs(10), time_max: Duration::from_secs(35) };

    #[test]
    fn the_time_grows_to_its_bound() {
        let mut now = Instant::now();
        let mut ejection = Ejection::default();
        assert_eq!(ejection.on_failure(&OPTIONS, true, now), None);
        assert_eq!(ejection.on_failure(&OPTIONS, true, now), None);
        for seconds in [10, 20, 35, 35] {
            let time = Duration::from_secs(seconds);
            assert_eq!(ejection.on_failure(&OPTIONS, true, now), Some(time));
            assert!(ejection.is_ejected(now + time - Duration::from_millis(1)));
            assert_eq!(ejection.on_failure(&OPTIONS, true, now), None, "it is left out already");
            now += time;
            assert!(!ejection.is_ejected(now));
            assert_eq!(ejection.ended(now), Some(now));
        }
    }

    #[test]
    fn failures_count_in_a_row_only() {
        let now = Instant::now();
        let mut ejection = Ejection::default();
        for _ in 0..5 {
            assert_eq!(ejection.on_failure(&OPTIONS, true, now), None);
            assert_eq!(ejection.on_failure(&OPTIONS, true, now), None);
            ejection.on_success(now);
        }
    }

    #[test]
    fn the_last_one_is_never_ejected() {
        let now = Instant::now();
        let mut ejection = Ejection::default();
        for _ in 0..10 {
            assert_eq!(ejection.on_failure(&OPTIONS, false, now), None);
        }
        assert!(ejection.on_failure(&OPTIONS, true, now).is_some(), "as soon as there is another one");
    }

    #[test]
    fn what_has_worked_as_long_as_it_was_left_out_begins_anew() {
        let mut now = Instant::now();
        let mut ejection = Ejection::default();
        let eject =
            |ejection: &mut Ejection, now| (0..3).find_map(|_| ejection.on_failure(&OPTIONS, true, now)).unwrap();
        assert_eq!(eject(&mut ejection, now), Duration::from_secs(10));
        now += Duration::from_secs(15);
        ejection.on_success(now);
        assert_eq!(eject(&mut ejection, now), Duration::from_secs(20));
        now += Duration::from_secs(40);
        ejection.on_success(now);
        assert_eq!(eject(&mut ejection, now), Duration::from_secs(10));
        let soon = now + Duration::from_secs(1);
        assert!(ejection.is_ejected(soon));
        ejection.on_success(soon);
        assert!(!ejection.is_ejected(soon), "it works, whatever was believed");
        assert_eq!(ejection.ended(soon), Some(soon));
    }
}
