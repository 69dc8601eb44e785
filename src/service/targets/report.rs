//! What is known of a target, for those who look.

use std::time::Duration;

use super::check::CheckOutcome;
use crate::service::target::Target;

/// Whether a target gets connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// It has not been checked: because nobody asked for it, or not yet. It is used.
    Unchecked,
    /// Its checks succeed.
    Up,
    /// Its checks fail. It is not used.
    Down,
    /// Connections to it failed of late. It is left out for a while, as long as others are there.
    Ejected,
}

impl TargetState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Up => "up",
            Self::Down => "down",
            Self::Ejected => "ejected",
        }
    }

    /// Whether it gets connections.
    #[must_use]
    pub fn is_used(self) -> bool {
        matches!(self, Self::Unchecked | Self::Up)
    }
}

/// What is known of a target. Counters are since it became one.
#[derive(Clone, Debug)]
pub struct TargetReport {
    /// Where it is.
    pub target: Target,
    /// Its weight.
    pub weight: u32,
    /// Whether it gets connections.
    pub state: TargetState,
    /// For how long it has been in this state.
    pub age: Duration,
    /// Why it is down or ejected, or what came of its last check or connection if that failed.
    pub reason: Option<String>,
    /// Until it is tried again, if it is ejected.
    pub ejected_for: Option<Duration>,
    /// Connections, or flows, that are open.
    pub open: u32,
    /// Connections that were made.
    pub connections: u64,
    /// Connections that could not be made.
    pub failures: u64,
    /// How often it was ejected.
    pub ejections: u64,
    /// Checks by outcome, in the order of [`CheckOutcome::WORDS`].
    pub checks: [u64; CheckOutcome::WORDS.len()],
    /// How long its answers take, under the strategy that wants to know.
    pub response: Option<Duration>,
    /// Its share, less than 1 while it starts slowly.
    pub share: f64,
}
