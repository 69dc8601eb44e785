//! ProbeRTT (draft-ietf-ccwg-bbr, "ProbeRTT"): keeps half of the path empty for a moment, so that the RTT of the path
//! shows. Beyond the draft: not while it shows by itself ([`MinRtt`](super::min_rtt::MinRtt)), and at once when it turns out to
//! be lower than was thought.

use std::time::Instant;

use super::bbr::Bbr;
use super::delivery::RateSample;
use super::parameters::{PROBE_RTT_CWND_GAIN, PROBE_RTT_DURATION};
use super::state::{AckPhase, State};

/// Progress of a ProbeRTT.
#[derive(Clone, Debug, Default)]
pub(super) struct ProbeRtt {
    /// BBR.probe_rtt_done_stamp.
    done: Option<Instant>,
    /// BBR.probe_rtt_round_done.
    is_round_done: bool,
}

impl Bbr {
    /// CheckProbeRTT.
    pub(super) fn check_probe_rtt(&mut self, now: Instant, sample: &RateSample) {
        // What was drained shows that the lowest RTT was that of a queue, of which there may be more.
        let is_drained = matches!(self.state, State::ProbeBwDown | State::ProbeBwCruise);
        let is_due = self.rtt.probe_rtt_expired || (is_drained && self.rtt.has_fallen());
        if self.state != State::ProbeRtt && is_due && !self.is_idle_restart {
            self.save_window();
            self.state = State::ProbeRtt;
            self.probe_rtt = ProbeRtt::default();
            self.cycle.ack_phase = AckPhase::ProbeStopping;
            self.start_round();
        }
        if self.state == State::ProbeRtt {
            self.handle_probe_rtt(now);
        }
        if sample.delivered > 0 {
            self.is_idle_restart = false;
        }
    }

    /// HandleProbeRTT.
    fn handle_probe_rtt(&mut self, now: Instant) {
        self.delivery.mark_app_limited(self.in_flight);
        if self.probe_rtt.done.is_none() {
            if self.in_flight <= self.probe_rtt_window() {
                self.probe_rtt = ProbeRtt { done: Some(now + PROBE_RTT_DURATION), is_round_done: false };
                self.start_round();
            }
            return;
        }
        self.probe_rtt.is_round_done |= self.rounds.is_start;
        if self.probe_rtt.is_round_done {
            self.check_probe_rtt_done(now);
        }
    }

    /// CheckProbeRTTDone and ExitProbeRTT.
    pub(super) fn check_probe_rtt_done(&mut self, now: Instant) {
        if self.probe_rtt.done.is_none_or(|done| now <= done) {
            return;
        }
        self.rtt.schedule_probe_rtt(now);
        self.restore_window();
        self.short_term.lift();
        if self.full_pipe.was_reached {
            self.start_probe_bw_down(now);
            self.start_probe_bw_cruise();
        } else {
            self.enter_startup();
        }
    }

    /// ProbeRTTCwnd.
    pub(super) fn probe_rtt_window(&self) -> u64 {
        self.bdp_multiple(PROBE_RTT_CWND_GAIN).max(self.min_window())
    }
}
