//! Wrong proofs, counted by token. Only tokens that exist are counted, so that the table is no larger than the state.

use std::collections::HashMap;
use std::time::Instant;

use crate::base::limits;
use crate::crypto::token::TokenId;

/// Tokens with wrong proofs.
#[derive(Debug, Default)]
pub(super) struct Throttle(HashMap<TokenId, Entry>);

#[derive(Debug, Default)]
struct Entry {
    wrong_count: u32,
    locked_until: Option<Instant>,
}

impl Throttle {
    /// Whether proofs of this token are refused, right or wrong.
    pub(super) fn is_locked(&mut self, id: TokenId, now: Instant) -> bool {
        let Some(until) = self.0.get(&id).and_then(|entry| entry.locked_until) else { return false };
        if now >= until {
            self.0.remove(&id);
        }
        now < until
    }

    /// Counts a wrong proof: whether the token is locked by it.
    pub(super) fn on_wrong(&mut self, id: TokenId, now: Instant) -> bool {
        let entry = self.0.entry(id).or_default();
        entry.wrong_count += 1;
        if entry.wrong_count < limits::WRONG_PROOFS_MAX {
            return false;
        }
        entry.locked_until = Some(now + limits::WRONG_PROOFS_LOCK);
        true
    }

    /// Forgets the wrong proofs before a right one.
    pub(super) fn on_right(&mut self, id: TokenId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_wrong_proofs_in_a_row_lock_a_token_for_a_while() {
        let (id, other) = (TokenId::from_bytes([1; 10]), TokenId::from_bytes([2; 10]));
        let now = Instant::now();
        let mut throttle = Throttle::default();
        for _ in 0..4 {
            assert!(!throttle.on_wrong(id, now));
        }
        throttle.on_right(id);
        for _ in 0..4 {
            assert!(!throttle.on_wrong(id, now) && !throttle.is_locked(id, now));
        }
        assert!(throttle.on_wrong(id, now) && throttle.is_locked(id, now) && !throttle.is_locked(other, now));
        let later = now + limits::WRONG_PROOFS_LOCK;
        assert!(throttle.is_locked(id, later - std::time::Duration::from_millis(1)));
        assert!(!throttle.is_locked(id, later) && !throttle.on_wrong(id, later));
    }
}
