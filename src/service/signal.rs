//! Wakers that remember what they were woken for.
//!
//! A connection is one task that waits for a socket and for both halves of a stream. With a waker of its own for each
//! half, the task asks the session, which many tasks share behind a lock, only about what has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

/// Wakes a task, and remembers that it did.
pub(super) struct Signal {
    is_set: AtomicBool,
    task: Waker,
}

impl Signal {
    /// A signal for a task, set: nothing was asked yet.
    pub(super) fn new(task: &Waker) -> Arc<Self> {
        Arc::new(Self { is_set: AtomicBool::new(true), task: task.clone() })
    }

    /// Whether the task was woken since this was asked last.
    pub(super) fn take(&self) -> bool {
        self.is_set.load(Ordering::Relaxed) && self.is_set.swap(false, Ordering::AcqRel)
    }

    /// Whether it wakes the task that is polled now.
    pub(super) fn is_of(&self, context: &Context<'_>) -> bool {
        self.task.will_wake(context.waker())
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_set.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}
