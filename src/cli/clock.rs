//! The system's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in seconds since 1970.
pub(in crate::cli) fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
