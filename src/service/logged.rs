//! Log lines about what peers and clients may cause as often as they like: bounded a second.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::base::TokenBucket;

/// Lets log lines of one kind through.
#[derive(Debug)]
pub(super) struct LogLimit(Mutex<(TokenBucket, u64)>);

impl LogLimit {
    pub(super) fn new() -> Self {
        Self(Mutex::new((TokenBucket::new(LINES_PER_SECOND, LINES_BURST), 0)))
    }

    /// Whether a line may be written now: how many were left out since the last one.
    pub(super) fn take(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.take(now) {
            return Some(std::mem::take(&mut state.1));
        }
        state.1 += 1;
        None
    }
}

/// Enough to see what goes on.
const LINES_PER_SECOND: u32 = 2;

/// Burst of the rate above.
const LINES_BURST: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_were_left_out_are_counted() {
        let (limit, now) = (LogLimit::new(), Instant::now());
        let written = (0..50).filter(|_| limit.take(now).is_some()).count();
        assert_eq!(written, LINES_BURST as usize);
        assert_eq!(limit.take(now + std::time::Duration::from_secs(1)), Some(30));
    }
}
