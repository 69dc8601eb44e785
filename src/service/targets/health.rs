//! Whether a target works, by its checks.
//!
//! ```text
//!             first check succeeds              `fall` in a row fail
//! unchecked ───────────────────────▶ up ───────────────────────▶ down
//!     │                               ▲                            │ ▲
//!     │                               └────────────────────────────┘ │
//!     │                                   `rise` in a row succeed    │
//!     └──────────────────────────────────────────────────────────────┘
//!                                first check fails
//! ```
//!
//! What was never checked is used: a node that starts does not refuse clients for want of an answer.

use std::time::Instant;

use super::check::CheckOutcome;

/// What is known of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Unchecked,
    Up,
    Down,
}

/// How many checks in a row change what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thresholds {
    pub(super) rise: u32,
    pub(super) fall: u32,
}

/// The health of one target.
#[derive(Clone, Debug)]
pub(super) struct Health {
    condition: Condition,
    since: Instant,
    /// Checks in a row that speak against the condition.
    against: u32,
    /// What came of the last check that failed; of a target that is up, if it was the last one.
    failure: Option<CheckOutcome>,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self { condition: Condition::Unchecked, since: now, against: 0, failure: None }
    }

    /// A check has come to an end: the new condition if it is another one.
    pub(super) fn on_check(
        &mut self,
        outcome: &CheckOutcome,
        thresholds: Thresholds,
        now: Instant,
    ) -> Option<Condition> {
        let is_ok = outcome.is_ok();
        if !is_ok {
            self.failure = Some(outcome.clone());
        } else if self.condition != Condition::Down {
            self.failure = None;
        }
        let needed = match self.condition {
            Condition::Unchecked => 1,
            Condition::Up => thresholds.fall,
            Condition::Down => thresholds.rise,
        };
        let speaks_against = match self.condition {
            Condition::Unchecked => true,
            Condition::Up => !is_ok,
            Condition::Down => is_ok,
        };
        self.against = if speaks_against { self.against + 1 } else { 0 };
        if self.against < needed {
            return None;
        }
        let condition = if is_ok { Condition::Up } else { Condition::Down };
        if is_ok {
            self.failure = None;
        }
        (self.condition, self.since, self.against) = (condition, now, 0);
        Some(condition)
    }

    pub(super) fn condition(&self) -> Condition {
        self.condition
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// What came of the last failed check, as long as it matters.
    pub(super) fn failure(&self) -> Option<&CheckOutcome> {
        self.failure.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RULES: Thresholds = Thresholds { rise: 2, fall: 3 };

    /// The condition after each check: `+` succeeds, `-` fails.
    fn conditions(checks: &str) -> String {
        let start = Instant::now();
        let mut health = Health::new(start);
        let word = |condition| match condition {
            Condition::Unchecked => '?',
            Condition::Up => 'u',
            Condition::Down => 'd',
        };
        let mut seen = String::new();
        for (index, check) in checks.chars().enumerate() {
            let now = start + Duration::from_secs(index as u64 + 1);
            let outcome = if check == '+' { CheckOutcome::Ok } else { CheckOutcome::Refused };
            let before = health.condition();
            let change = health.on_check(&outcome, RULES, now);
            assert_eq!(change, (before != health.condition()).then(|| health.condition()));
            assert_eq!(change.is_some(), health.since() == now);
            seen.push(word(health.condition()));
        }
        seen
    }

    #[test]
    fn the_whole_table() {
        assert_eq!(conditions("+"), "u");
        assert_eq!(conditions("-"), "d");
        assert_eq!(conditions("+--+---"), "uuuuuud");
        assert_eq!(conditions("-+-++--"), "ddddu".to_owned() + "uu");
        assert_eq!(conditions("+---+-++"), "uuudddd".to_owned() + "u");
    }

    #[test]
    fn why_is_known_as_long_as_it_matters() {
        let now = Instant::now();
        let mut health = Health::new(now);
        health.on_check(&CheckOutcome::Ok, RULES, now);
        health.on_check(&CheckOutcome::TimedOut, RULES, now);
        assert_eq!(health.failure(), Some(&CheckOutcome::TimedOut));
        health.on_check(&CheckOutcome::Ok, RULES, now);
        assert_eq!(health.failure(), None);
        for _ in 0..3 {
            health.on_check(&CheckOutcome::Refused, RULES, now);
        }
        health.on_check(&CheckOutcome::Ok, RULES, now);
        assert_eq!((health.condition(), health.failure()), (Condition::Down, Some(&CheckOutcome::Refused)));
        health.on_check(&CheckOutcome::Ok, RULES, now);
        assert_eq!((health.condition(), health.failure()), (Condition::Up, None));
    }
}
