//! The targets of a service as they are configured: at least one, all of one kind, none twice.

use std::fmt;
use std::sync::Arc;

use crate::base::limits;
use crate::channel::Address;
use crate::service::target::Target;

/// One target of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetConfig {
    /// Where connections are made to.
    pub target: Target,
    /// Its share among the others: 1 to [`TARGET_WEIGHT_MAX`](limits::TARGET_WEIGHT_MAX).
    pub weight: u32,
    /// Where its health is asked for, if that is not where it is.
    pub check: Option<Address>,
}

impl TargetConfig {
    /// A target like any other.
    #[must_use]
    pub fn new(target: impl Into<Target>) -> Self {
        Self { target: target.into(), weight: 1, check: None }
    }
}

/// The targets of a service, in the order in which they were named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets(Arc<[TargetConfig]>);

/// Why targets cannot be those of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetsError {
    /// There is none.
    #[error("a service has at least one target")]
    None,
    /// There are too many.
    #[error("a service has at most {} targets", limits::TARGETS_MAX)]
    TooMany,
    /// One is there twice, which a weight says better.
    #[error("a target is there twice; give it a weight instead")]
    Twice,
    /// UDP beside others.
    #[error("udp:// targets and others cannot be those of one service")]
    Mixed,
    /// The node itself beside others.
    #[error("bench: is the node itself, and the only target of its service")]
    BenchAmongOthers,
    /// A weight of 0, or a very large one.
    #[error("a weight is 1 to {}", limits::TARGET_WEIGHT_MAX)]
    Weight,
}

impl Targets {
    /// The one target of a service.
    #[must_use]
    pub fn one(target: impl Into<Target>) -> Self {
        Self([TargetConfig::new(target)].into())
    }

    /// Several, or one.
    ///
    /// # Errors
    /// [`TargetsError`] when a service cannot have them together.
    pub fn new(targets: impl IntoIterator<Item = TargetConfig>) -> Result<Self, TargetsError> {
        let targets: Arc<[TargetConfig]> = targets.into_iter().collect();
        let first = targets.first().ok_or(TargetsError::None)?;
        if targets.len() > limits::TARGETS_MAX {
            return Err(TargetsError::TooMany);
        }
        if targets.len() > 1 && targets.iter().any(|config| config.target == Target::Bench) {
            return Err(TargetsError::BenchAmongOthers);
        }
        let is_udp = |config: &TargetConfig| matches!(config.target, Target::Datagrams(_));
        if targets.iter().any(|config| is_udp(config) != is_udp(first)) {
            return Err(TargetsError::Mixed);
        }
        if targets.iter().any(|config| !(1..=limits::TARGET_WEIGHT_MAX).contains(&config.weight)) {
            return Err(TargetsError::Weight);
        }
        let is_twice = |(at, config): (usize, &TargetConfig)| targets[..at].iter().any(|it| it.target == config.target);
        if targets.iter().enumerate().any(is_twice) { Err(TargetsError::Twice) } else { Ok(Self(targets)) }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[TargetConfig] {
        &self.0
    }

    /// Whether there is a choice.
    #[must_use]
    pub fn are_several(&self) -> bool {
        self.0.len() > 1
    }

    /// Whether they take datagrams.
    #[must_use]
    pub fn take_datagrams(&self) -> bool {
        matches!(self.0[0].target, Target::Datagrams(_))
    }

    /// Whether the node itself answers, which measures what links carry.
    #[must_use]
    pub fn are_bench(&self) -> bool {
        self.0[0].target == Target::Bench
    }
}

impl<T: Into<Target>> From<T> for Targets {
    fn from(target: T) -> Self {
        Self::one(target)
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, config) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            config.target.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Result<Targets, TargetsError> {
        Targets::new(texts.iter().map(|text| TargetConfig::new(text.parse::<Target>().unwrap())))
    }

    #[test]
    fn only_what_goes_together_is_a_service() {
        assert_eq!(list(&["tcp://a:1", "unix:///run/x"]).unwrap().to_string(), "tcp://a:1, unix:///run/x");
        assert!(list(&["udp://a:1", "udp://b:1"]).unwrap().take_datagrams());
        assert!(!list(&["bench:"]).unwrap().are_several());
        assert_eq!(list(&[]), Err(TargetsError::None));
        assert_eq!(list(&["tcp://a:1", "tcp://a:1"]), Err(TargetsError::Twice));
        assert_eq!(list(&["tcp://a:1", "udp://a:1"]), Err(TargetsError::Mixed));
        assert_eq!(list(&["tcp://a:1", "bench:"]), Err(TargetsError::BenchAmongOthers));
        let many: Vec<_> = (1..=limits::TARGETS_MAX + 1).map(|port| format!("tcp://a:{port}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(list(&many[1..]).is_ok());
        assert_eq!(list(&many), Err(TargetsError::TooMany));
        let weighing = |weight| Targets::new([TargetConfig { weight, ..TargetConfig::new(Target::Bench) }]);
        assert_eq!(weighing(0), Err(TargetsError::Weight));
        assert!(weighing(limits::TARGET_WEIGHT_MAX).is_ok());
    }
}
