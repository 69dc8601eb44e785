//! How a service uses its targets.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Which of its targets a connection to a service gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// One after the other, each as often as its weight says.
    Weighted,
    /// The one with the fewest open connections for its weight.
    LeastConnections,
    /// Of two that are drawn, the one that answers sooner, open connections and weight taken into account.
    ResponseTime,
    /// The same client gets the same target.
    Hash,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::RoundRobin, Self::Weighted, Self::LeastConnections, Self::ResponseTime, Self::Hash];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Weighted => "weighted",
            Self::LeastConnections => "least-connections",
            Self::ResponseTime => "response-time",
            Self::Hash => "hash",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no strategy; expected \"round-robin\", \"weighted\", \"least-connections\", \"response-time\" or \"hash\""
)]
pub struct UnknownStrategy(String);

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|strategy| strategy.as_str() == text);
        found.ok_or_else(|| UnknownStrategy(text.to_owned()))
    }
}

/// How a service uses its targets.
#[derive(Clone, Debug, PartialEq)]
pub struct BalanceOptions {
    /// Which one a connection gets.
    pub strategy: Strategy,
    /// How many of them are tried for one connection. Each is given the time to connect.
    pub attempts_max: u32,
    /// When one that cannot be connected to is left out for a while.
    pub ejection: Option<EjectionOptions>,
    /// How long it takes one that came back to get its whole share.
    pub slow_start: Option<Duration>,
}

impl Default for BalanceOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            attempts_max: ATTEMPTS_MAX,
            ejection: Some(EjectionOptions::default()),
            slow_start: None,
        }
    }
}

/// When a target that cannot be connected to is left out for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionOptions {
    /// After as many failures in a row.
    pub failures: u32,
    /// For how long the first time; twice as long each further time.
    pub time: Duration,
    /// The longest time.
    pub time_max: Duration,
}

impl Default for EjectionOptions {
    fn default() -> Self {
        Self { failures: EJECT_AFTER, time: EJECT_TIME, time_max: EJECT_TIME_MAX }
    }
}

/// More targets than most services have, so that a client is refused when none lives and not before.
const ATTEMPTS_MAX: u32 = 8;

/// One failure may be a target that was just restarted.
const EJECT_AFTER: u32 = 3;

/// A process that is restarted is back.
const EJECT_TIME: Duration = Duration::from_secs(10);

/// Long enough that a target which is gone costs nothing, short enough that nobody waits for one that is back.
const EJECT_TIME_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_are_read_as_they_are_written() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.to_string().parse(), Ok(strategy));
        }
        assert!("random".parse::<Strategy>().is_err());
    }
}
