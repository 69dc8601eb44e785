//! Startup and Drain (draft-ietf-ccwg-bbr, "Startup" and "Drain"), and the way back from a timeout.

use std::time::Instant;

use super::bbr::Bbr;
use super::parameters::{DRAIN_ROUNDS_MAX, STARTUP_FULL_LOSS_COUNT};
use super::state::State;

/// What Startup, Drain and recovery from a timeout remember.
#[derive(Clone, Debug, Default)]
pub(super) struct Startup {
    /// BBR.drain_start_round.
    drain_start_round: u64,
    /// Rounds in a row with a congested end.
    congested_rounds: u32,
    /// After a timeout: the amount delivered at which the window is restored.
    pub(super) timeout_end: Option<u64>,
}

impl Bbr {
    /// EnterStartup.
    pub(super) fn enter_startup(&mut self) {
        self.state = State::Startup;
    }

    /// CheckStartupDone.
    pub(super) fn check_startup_done(&mut self, is_loss_round_start: bool) {
        self.check_timeout_over();
        if self.state != State::Startup {
            return;
        }
        if is_loss_round_start {
            self.check_startup_high_loss();
        }
        if self.full_pipe.was_reached {
            self.state = State::Drain;
            self.startup.drain_start_round = self.rounds.count;
        }
    }

    /// CheckStartupHighLoss.
    fn check_startup_high_loss(&mut self) {
        let was_in_recovery = self.startup.congested_rounds > 0;
        self.startup.congested_rounds = if self.loss.is_congested { self.startup.congested_rounds + 1 } else { 0 };
        let is_enough = self.loss.event_count >= STARTUP_FULL_LOSS_COUNT && self.loss.is_too_high;
        if was_in_recovery && is_enough {
            self.leave_startup_for_loss();
        }
    }

    /// The pipe is full, and what was delivered in the last round is safe; the next acknowledgement begins Drain.
    pub(super) fn leave_startup_for_loss(&mut self) {
        self.full_pipe.set_full();
        self.in_flight_long_term = Some(self.bdp().max(self.short_term.in_flight_latest));
    }

    /// CheckDrainDone.
    pub(super) fn check_drain_done(&mut self, now: Instant) {
        let is_late = self.rounds.count > self.startup.drain_start_round + DRAIN_ROUNDS_MAX;
        if self.state == State::Drain && (is_late || self.in_flight <= self.in_flight_for(1.0)) {
            self.start_probe_bw_down(now);
        }
    }

    /// Ends the recovery from a timeout when something arrived that was sent in it.
    fn check_timeout_over(&mut self) {
        if self.startup.timeout_end.is_some_and(|end| self.delivery.delivered > end) {
            self.startup.timeout_end = None;
            self.restore_window();
        }
    }
}
