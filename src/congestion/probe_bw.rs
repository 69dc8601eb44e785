//! The cycle of probing for bandwidth (draft-ietf-ccwg-bbr, "ProbeBW"): DOWN, CRUISE, REFILL, UP, and BBR.inflight_longterm
//! that it moves.

use std::time::{Duration, Instant};

use super::bandwidth::scale;
use super::bbr::Bbr;
use super::delivery::RateSample;
use super::parameters::{HEADROOM, PROBE_DOWN_IN_FLIGHT, PROBE_WAIT_BASE, PROBE_WAIT_RANDOM, RENO_ROUNDS_MAX};
use super::state::{AckPhase, State};

/// Where the flow is in the cycle.
#[derive(Clone, Debug)]
pub(super) struct Cycle {
    /// BBR.cycle_count.
    pub(super) count: u64,
    /// BBR.rounds_since_probe_up.
    pub(super) rounds_since_probe: u64,
    /// BBR.prev_probe_too_high.
    pub(super) was_probe_too_high: bool,
    /// BBR.prev_probe_precautionary.
    was_probe_precautionary: bool,
    pub(super) ack_phase: AckPhase,
    /// BBR.cycle_stamp.
    stamp: Instant,
    /// BBR.bw_probe_wait.
    wait: Duration,
    /// BBR.bw_probe_up_rounds.
    up_rounds: u32,
    /// BBR.bw_probe_up_acked.
    up_acked: u64,
    /// BBR.probe_up_acked_per_inc; none is infinite.
    up_acked_per_increase: Option<u64>,
    /// The RTT of late when UP began.
    rtt_before_up: Option<Duration>,
}

/// BBR.bw_probe_up_rounds is bounded so that the shift stays one.
const UP_ROUNDS_MAX: u32 = 30;

impl Cycle {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            count: 0,
            rounds_since_probe: 0,
            was_probe_too_high: false,
            was_probe_precautionary: false,
            ack_phase: AckPhase::Init,
            stamp: now,
            wait: Duration::ZERO,
            up_rounds: 0,
            up_acked: 0,
            up_acked_per_increase: None,
            rtt_before_up: None,
        }
    }
}

impl Bbr {
    /// UpdateProbeBWCyclePhase.
    pub(super) fn update_cycle_phase(&mut self, now: Instant, sample: &RateSample) {
        if !self.full_pipe.was_reached || self.adapt_long_term_model(sample) {
            return;
        }
        match self.state {
            State::ProbeBwDown | State::ProbeBwCruise if self.is_time_to_probe(now) => self.start_probe_bw_refill(),
            State::ProbeBwDown if self.is_time_to_cruise() => self.start_probe_bw_cruise(),
            State::ProbeBwRefill if self.rounds.is_start => {
                self.loss.is_probe_sample = true;
                self.start_probe_bw_up(sample);
            }
            State::ProbeBwUp => self.probe_up(now, sample),
            _ => {}
        }
    }

    fn probe_up(&mut self, now: Instant, sample: &RateSample) {
        if self.is_time_to_go_down(sample) {
            self.cycle.was_probe_too_high = false;
            self.start_probe_bw_down(now);
        }
    }

    /// StartProbeBW_DOWN.
    pub(super) fn start_probe_bw_down(&mut self, now: Instant) {
        self.loss.reset();
        self.short_term.start_round(super::Bandwidth::ZERO, 0);
        self.rtt.start_drain();
        self.cycle.up_acked_per_increase = None;
        // PickProbeWait.
        self.cycle.rounds_since_probe = self.random.next() & 1;
        self.cycle.wait = PROBE_WAIT_BASE + PROBE_WAIT_RANDOM.mul_f64(self.random.share());
        self.cycle.stamp = now;
        self.cycle.ack_phase = AckPhase::ProbeStopping;
        self.start_round();
        self.state = State::ProbeBwDown;
    }

    /// StartProbeBW_CRUISE.
    pub(super) fn start_probe_bw_cruise(&mut self) {
        self.state = State::ProbeBwCruise;
    }

    /// StartProbeBW_REFILL.
    fn start_probe_bw_refill(&mut self) {
        self.short_term.lift();
        (self.cycle.up_rounds, self.cycle.up_acked) = (0, 0);
        self.cycle.was_probe_precautionary = false;
        self.cycle.ack_phase = AckPhase::Refilling;
        self.start_round();
        self.state = State::ProbeBwRefill;
    }

    /// StartProbeBW_UP.
    fn start_probe_bw_up(&mut self, sample: &RateSample) {
        self.cycle.ack_phase = AckPhase::ProbeStarting;
        self.start_round();
        self.full_pipe.restart(sample.delivery_rate);
        self.cycle.rtt_before_up = self.rtt.recent();
        self.state = State::ProbeBwUp;
        self.raise_long_term_slope();
    }

    /// AdaptLongTermModel; true if it decided the transition.
    fn adapt_long_term_model(&mut self, sample: &RateSample) -> bool {
        if self.rounds.is_start && self.cycle.ack_phase == AckPhase::ProbeStarting {
            self.cycle.ack_phase = AckPhase::ProbeFeedback;
        }
        if self.rounds.is_start && self.cycle.ack_phase == AckPhase::ProbeStopping {
            self.loss.is_probe_sample = false;
            self.cycle.ack_phase = AckPhase::Init;
            if self.state.is_probe_bw() && !sample.is_app_limited {
                // AdvanceMaxBwFilter.
                self.cycle.count += 1;
            }
            let was_careful = self.cycle.was_probe_precautionary && !self.cycle.was_probe_too_high;
            if self.state.is_probe_bw() && was_careful {
                self.start_probe_bw_refill();
                return true;
            }
        }
        if !self.is_in_flight_too_high(sample) {
            self.raise_long_term(sample);
        }
        false
    }

    fn raise_long_term(&mut self, sample: &RateSample) {
        let Some(bound) = self.in_flight_long_term else { return };
        self.in_flight_long_term = Some(bound.max(sample.tx_in_flight));
        if self.state == State::ProbeBwUp {
            self.probe_long_term_upward(sample);
        }
    }

    /// ProbeInflightLongtermUpward.
    fn probe_long_term_upward(&mut self, sample: &RateSample) {
        let Some(bound) = self.in_flight_long_term.filter(|_| self.is_held_by_long_term()) else { return };
        let Some(per_increase) = self.cycle.up_acked_per_increase else { return };
        self.cycle.up_acked += sample.newly_acked;
        let increases = self.cycle.up_acked / per_increase;
        self.cycle.up_acked -= increases * per_increase;
        self.in_flight_long_term = Some(bound + increases * self.config.segment_bytes);
        if self.rounds.is_start {
            self.raise_long_term_slope();
        }
    }

    /// RaiseInflightLongtermSlope.
    fn raise_long_term_slope(&mut self) {
        let growth = 1_u64 << self.cycle.up_rounds;
        self.cycle.up_rounds = (self.cycle.up_rounds + 1).min(UP_ROUNDS_MAX);
        self.cycle.up_acked_per_increase = Some((self.window / growth).max(self.config.segment_bytes));
    }

    /// Whether BBR.inflight_longterm is what keeps more from being sent.
    fn is_held_by_long_term(&self) -> bool {
        self.in_flight_long_term.is_some_and(|bound| self.window >= bound) && self.has_reached(self.window)
    }

    /// IsTimeToCruise.
    fn is_time_to_cruise(&self) -> bool {
        let is_roomy = self.in_flight_with_headroom().is_none_or(|bound| self.in_flight <= bound);
        is_roomy && self.in_flight <= scale(self.in_flight_at_max_bandwidth(), PROBE_DOWN_IN_FLIGHT)
    }

    /// IsTimeToGoDown.
    fn is_time_to_go_down(&mut self, sample: &RateSample) -> bool {
        if self.cycle.was_probe_too_high && self.in_flight_long_term.is_some_and(|bound| self.has_reached(bound)) {
            self.cycle.was_probe_precautionary = true;
            return true;
        }
        self.full_pipe.on_rtt(self.cycle.rtt_before_up, self.rtt.recent());
        if self.is_held_by_long_term() && !self.full_pipe.is_full_now {
            self.full_pipe.rebase(sample.delivery_rate);
        }
        self.full_pipe.is_full_now
    }

    /// IsTimeToProbeBW.
    fn is_time_to_probe(&self, now: Instant) -> bool {
        now > self.cycle.stamp + self.cycle.wait || self.is_reno_coexistence_time()
    }

    /// IsRenoCoexistenceProbeTime: the target is counted in packets.
    fn is_reno_coexistence_time(&self) -> bool {
        let rounds = self.target_in_flight() / self.config.segment_bytes.max(1);
        self.cycle.rounds_since_probe >= rounds.min(RENO_ROUNDS_MAX)
    }

    /// TargetInflight.
    pub(super) fn target_in_flight(&self) -> u64 {
        self.bdp().min(self.window)
    }

    /// InflightWithHeadroom; none is infinite.
    pub(super) fn in_flight_with_headroom(&self) -> Option<u64> {
        let bound = self.in_flight_long_term?;
        let headroom = scale(bound, HEADROOM).max(self.config.segment_bytes);
        Some(bound.saturating_sub(headroom).max(self.min_window()))
    }
}
