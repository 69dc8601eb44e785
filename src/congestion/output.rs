//! From the model to the numbers that go out (draft-ietf-ccwg-bbr, "Updating Control Parameters"): pacing rate, send
//! quantum and congestion window.

use std::time::Duration;

use super::bandwidth::{Bandwidth, scale};
use super::bbr::Bbr;
use super::delivery::RateSample;
use super::parameters::{PACING_MARGIN, SEND_QUANTUM_BYTES_MAX, SEND_QUANTUM_TIME, STARTUP_PACING_GAIN};
use super::state::State;

impl Bbr {
    /// InitPacingRate: at the start, and again when the first RTT is known, which is rarely the assumed one.
    pub(super) fn init_pacing_rate(&mut self) {
        let rtt = self.rtt.smoothed().unwrap_or(Duration::from_millis(1));
        let nominal = Bandwidth::over(self.config.initial_window_bytes, rtt);
        self.pacing_rate = nominal.scaled(STARTUP_PACING_GAIN);
        self.set_send_quantum();
    }

    /// UpdateControlParameters.
    pub(super) fn update_control_parameters(&mut self, sample: &RateSample) {
        self.set_pacing_rate_with_gain(self.state.pacing_gain(self.rtt.is_queue_present()));
        self.set_send_quantum();
        self.set_window(sample.newly_acked);
    }

    /// SetPacingRateWithGain.
    pub(super) fn set_pacing_rate_with_gain(&mut self, gain: f64) {
        let rate = self.bandwidth.scaled(gain * (1.0 - PACING_MARGIN));
        if rate > Bandwidth::ZERO && (self.full_pipe.was_reached || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }

    /// SetSendQuantum.
    fn set_send_quantum(&mut self) {
        let quantum = self.pacing_rate.bytes_in(SEND_QUANTUM_TIME);
        self.send_quantum = quantum.min(SEND_QUANTUM_BYTES_MAX).max(2 * self.config.segment_bytes);
    }

    /// BBR.bdp.
    pub(super) fn bdp(&self) -> u64 {
        self.bdp_multiple(1.0)
    }

    /// BDPMultiple.
    pub(super) fn bdp_multiple(&self, gain: f64) -> u64 {
        match self.rtt.min() {
            Some(min_rtt) if self.bandwidth > Bandwidth::ZERO => scale(self.bandwidth.bytes_in(min_rtt), gain),
            _ => self.config.initial_window_bytes,
        }
    }

    /// Inflight, at the bandwidth of the model.
    pub(super) fn in_flight_for(&self, gain: f64) -> u64 {
        self.quantized(self.bdp_multiple(gain))
    }

    /// Inflight(BBR.max_bw, 1.0).
    pub(super) fn in_flight_at_max_bandwidth(&self) -> u64 {
        self.quantized(self.max_bandwidth().bytes_in(self.rtt.min().unwrap_or_default()))
    }

    /// QuantizationBudget, with the offload budget of QUIC.
    fn quantized(&self, in_flight: u64) -> u64 {
        let cap = in_flight.max(self.send_quantum).max(self.min_window());
        let extra = if self.state == State::ProbeBwUp { 2 * self.config.segment_bytes } else { 0 };
        cap + extra
    }

    /// SetCwnd.
    fn set_window(&mut self, newly_acked: u64) {
        let gain = self.state.cwnd_gain();
        let max_in_flight = self.quantized(self.bdp_multiple(gain) + self.aggregation.extra());
        if self.full_pipe.was_reached {
            self.window = (self.window + newly_acked).min(max_in_flight);
        } else if self.window < max_in_flight || self.delivery.delivered < self.config.initial_window_bytes {
            self.window += newly_acked;
        }
        self.window = self.window.max(self.min_window());
        if self.state == State::ProbeRtt {
            self.window = self.window.min(self.probe_rtt_window());
        }
        self.bound_window_for_model();
    }

    /// BoundCwndForModel.
    fn bound_window_for_model(&mut self) {
        let long_term = match self.state {
            State::ProbeBwDown | State::ProbeBwRefill | State::ProbeBwUp => self.in_flight_long_term,
            State::ProbeBwCruise | State::ProbeRtt => self.in_flight_with_headroom(),
            State::Startup | State::Drain => None,
        };
        let bounds = [long_term, self.short_term.in_flight];
        if let Some(cap) = bounds.into_iter().flatten().min() {
            self.window = self.window.min(cap.max(self.min_window()));
        }
    }
}
