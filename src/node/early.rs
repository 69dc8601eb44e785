//! A session that the application has before its handshake is complete, at the accepting side.

use std::sync::Arc;
use std::time::Instant;

use super::shared::Shared;
use crate::session::Session;
use crate::wire::{Frame, Head};

/// A session whose client has yet to show that it is there now. It ends when this is dropped before that.
pub(super) struct Unfinished(Arc<Shared>);

impl Unfinished {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Takes an early packet. Returns whether the session still lives.
    pub(super) fn handle_packet(&self, head: &Head, is_sealed: bool, frames: &mut Vec<Frame>, size: usize) -> bool {
        self.0.with_timer(|inner| {
            inner.session.handle_packet(Instant::now(), head, is_sealed, frames, size);
            !inner.session.is_ending()
        })
    }

    /// Completes the handshake.
    pub(super) fn complete<T, E>(
        self,
        complete: impl FnOnce(&mut Session, Instant) -> Result<T, E>,
    ) -> Result<Arc<Shared>, E> {
        let outcome = self.0.with_timer(|inner| complete(&mut inner.session, Instant::now()));
        // Dropping this ends a session that is not complete.
        outcome.map(|_| Arc::clone(&self.0))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.with_timer(|inner| inner.session.fail_handshake(Instant::now()));
    }
}
