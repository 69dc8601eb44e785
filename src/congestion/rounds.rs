//! Round trips counted in packets (draft-ietf-ccwg-bbr, "BBR.round_count"): a round ends when something is acknowledged
//! that was sent after its start.

/// Counts rounds by the amount delivered.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    next_round_delivered: u64,
    /// Rounds so far.
    pub(super) count: u64,
    /// Whether the acknowledgement at hand is the first of a round.
    pub(super) is_start: bool,
}

impl Rounds {
    /// Takes in an acknowledgement: what had been delivered when its packet was sent, and what is now.
    pub(super) fn update(&mut self, prior_delivered: u64, delivered: u64) {
        self.is_start = prior_delivered >= self.next_round_delivered;
        if self.is_start {
            self.restart(delivered);
            self.count += 1;
        }
    }

    /// Begins a round here: it ends with what is sent from now on.
    pub(super) fn restart(&mut self, delivered: u64) {
        self.next_round_delivered = delivered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_ends_with_what_was_sent_after_its_start() {
        let mut rounds = Rounds::default();
        rounds.update(0, 1000);
        assert!(rounds.is_start);
        rounds.update(0, 2000);
        assert!(!rounds.is_start, "sent before the round began");
        rounds.update(1000, 3000);
        assert!(rounds.is_start);
        assert_eq!(rounds.count, 2);
        rounds.restart(5000);
        rounds.update(3000, 6000);
        assert!(!rounds.is_start);
    }
}
