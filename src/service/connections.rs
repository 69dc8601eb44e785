//! How many connections are open, how many may be, and the moment when none is left.

use std::sync::Arc;

use tokio::sync::watch;

/// Connections of one forward or service. Clones count together.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    open: Arc<watch::Sender<u32>>,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self { open: Arc::new(watch::Sender::new(0)) }
    }

    /// Counts one more until the guard is dropped, unless `max` are open.
    pub(super) fn begin(&self, max: u32) -> Option<ConnectionGuard> {
        let begun = self.open.send_if_modified(|open| {
            let fits = *open < max;
            *open += u32::from(fits);
            fits
        });
        begun.then(|| ConnectionGuard(Arc::clone(&self.open)))
    }

    pub(super) fn open(&self) -> u32 {
        *self.open.borrow()
    }

    /// Waits until none is open.
    pub(super) async fn ended(&self) {
        // The sender lives in `self`, so that the wait cannot fail.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

/// One open connection.
#[derive(Debug)]
pub(super) struct ConnectionGuard(Arc<watch::Sender<u32>>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_guard_makes_room() {
        let connections = Connections::new();
        let guard = connections.begin(1).unwrap();
        assert!(connections.begin(1).is_none());
        assert_eq!(connections.open(), 1);
        let ended = tokio::spawn({
            let connections = connections.clone();
            async move { connections.ended().await }
        });
        tokio::task::yield_now().await;
        drop(guard);
        ended.await.unwrap();
        assert!(connections.begin(1).is_some());
    }
}
