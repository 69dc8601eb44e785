//! When a flow was last used, by whichever task.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time since which a flow is idle.
#[derive(Debug)]
pub(super) struct Idle {
    begin: Instant,
    timeout: Duration,
    /// Milliseconds from `begin`.
    used: AtomicU64,
}

impl Idle {
    /// Used now.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { begin: Instant::now(), timeout, used: AtomicU64::new(0) }
    }

    /// Notes a use.
    pub(super) fn on_used(&self) {
        self.used.store(self.begin.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Waits until nothing was used for the whole timeout.
    pub(super) async fn passed(&self) {
        loop {
            let until = self.begin + Duration::from_millis(self.used.load(Ordering::Relaxed)) + self.timeout;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}
