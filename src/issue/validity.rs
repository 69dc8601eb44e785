//! From when to when a certificate holds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use super::IssueError;

/// Beginning and end of a certificate, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before: i64,
    not_after: i64,
}

impl Validity {
    /// From five minutes ago, because clocks differ, until `length` from now.
    #[must_use]
    pub fn from_now(length: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self { not_before: unix(now.saturating_sub(BACKDATE)), not_after: unix(now.saturating_add(length)) }
    }

    /// Exactly from `not_before` to `not_after`, both in seconds since 1970.
    #[must_use]
    pub fn between(not_before: i64, not_after: i64) -> Self {
        Self { not_before, not_after }
    }

    /// Beginning, in seconds since 1970.
    #[must_use]
    pub fn not_before_unix(self) -> i64 {
        self.not_before
    }

    /// End, in seconds since 1970.
    #[must_use]
    pub fn not_after_unix(self) -> i64 {
        self.not_after
    }

    /// The part of this validity that ends no later than `not_after`, in seconds since 1970.
    #[must_use]
    pub(super) fn until_at_most(self, not_after: i64) -> Self {
        Self { not_after: self.not_after.min(not_after), ..self }
    }

    pub(super) fn to_dates(self) -> Result<(OffsetDateTime, OffsetDateTime), IssueError> {
        let bad = || IssueError::Validity { not_before: self.not_before, not_after: self.not_after };
        let date = |unix| OffsetDateTime::from_unix_timestamp(unix).map_err(|_| bad());
        if self.not_after <= self.not_before {
            return Err(bad());
        }
        Ok((date(self.not_before)?, date(self.not_after)?))
    }
}

/// Clocks of machines that are to join may be this much behind.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
