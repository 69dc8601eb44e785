//! BBR itself: the inputs, and the order of the steps at an acknowledgement (draft-ietf-ccwg-bbr, "Algorithm
//! Organization"). The steps are in the files of their subjects.
//!
//! Left out: undoing the answer to spurious losses ("Updating the Model Upon Detecting a Spurious Loss Recovery"), for
//! which a caller would have to tell of them.

use std::time::{Duration, Instant};

use super::aggregation::Aggregation;
use super::bandwidth::Bandwidth;
use super::delivery::{Delivery, RateSample};
use super::filter::MaxFilter;
use super::full_pipe::FullPipe;
use super::loss::LossRound;
use super::min_rtt::MinRtt;
use super::parameters::{EXTRA_ACKED_FILTER_ROUNDS, MAX_BW_FILTER_CYCLES, MIN_PIPE_CWND_SEGMENTS};
use super::path_loss::PathLoss;
use super::probe_bw::Cycle;
use super::probe_rtt::ProbeRtt;
use super::random::Random;
use super::rounds::Rounds;
use super::short_term::ShortTerm;
use super::startup::Startup;
use super::state::State;

/// What BBR needs to know of its flow.
#[derive(Clone, Copy, Debug)]
pub struct BbrConfig {
    /// C.InitialCwnd, bytes.
    pub initial_window_bytes: u64,
    /// C.SMSS: bytes of a full packet.
    pub segment_bytes: u64,
    /// Where the random waits between probes come from; differs from flow to flow.
    pub seed: u64,
}

/// BBR version 3: one flow.
#[derive(Clone, Debug)]
pub struct Bbr {
    pub(super) config: BbrConfig,
    pub(super) random: Random,
    pub(super) state: State,
    pub(super) delivery: Delivery,
    pub(super) rounds: Rounds,
    pub(super) rtt: MinRtt,
    pub(super) full_pipe: FullPipe,
    pub(super) startup: Startup,
    pub(super) cycle: Cycle,
    pub(super) probe_rtt: ProbeRtt,
    pub(super) short_term: ShortTerm,
    /// BBR.inflight_longterm; none is infinite.
    pub(super) in_flight_long_term: Option<u64>,
    pub(super) loss: LossRound,
    pub(super) path_loss: PathLoss,
    pub(super) aggregation: Aggregation,
    max_bandwidth: MaxFilter,
    /// BBR.bw.
    pub(super) bandwidth: Bandwidth,
    /// C.inflight.
    pub(super) in_flight: u64,
    /// The most that was in flight since the last acknowledgement.
    pub(super) in_flight_peak: u64,
    /// C.cwnd.
    pub(super) window: u64,
    pub(super) prior_window: u64,
    pub(super) pacing_rate: Bandwidth,
    pub(super) send_quantum: u64,
    pub(super) is_idle_restart: bool,
}

impl Bbr {
    /// OnInit.
    #[must_use]
    pub fn new(config: BbrConfig, now: Instant) -> Self {
        let window = config.initial_window_bytes.max(MIN_PIPE_CWND_SEGMENTS * config.segment_bytes);
        let mut bbr = Self {
            config: BbrConfig { initial_window_bytes: window, ..config },
            random: Random::new(config.seed),
            state: State::Startup,
            delivery: Delivery::new(now),
            rounds: Rounds::default(),
            rtt: MinRtt::default(),
            full_pipe: FullPipe::default(),
            startup: Startup::default(),
            cycle: Cycle::new(now),
            probe_rtt: ProbeRtt::default(),
            short_term: ShortTerm::default(),
            in_flight_long_term: None,
            loss: LossRound::default(),
            path_loss: PathLoss::default(),
            aggregation: Aggregation::new(now),
            max_bandwidth: MaxFilter::default(),
            bandwidth: Bandwidth::ZERO,
            in_flight: 0,
            in_flight_peak: 0,
            window,
            prior_window: 0,
            pacing_rate: Bandwidth::ZERO,
            send_quantum: 0,
            is_idle_restart: false,
        };
        bbr.init_pacing_rate();
        bbr
    }

    /// OnTransmit: `bytes` were sent.
    pub fn on_sent(&mut self, now: Instant, bytes: u64) {
        let was_idle = self.in_flight == 0;
        if was_idle && self.delivery.is_app_limited() {
            self.restart_from_idle(now);
        }
        self.in_flight += bytes;
        self.in_flight_peak = self.in_flight_peak.max(self.in_flight);
        self.delivery.on_sent(now, self.in_flight, was_idle, self.rtt.smoothed());
    }

    /// One packet of an acknowledgement: when it was sent, and its size. [`Bbr::on_ack_end`] has to follow.
    pub fn on_acked(&mut self, sent: Instant, bytes: u64) {
        self.delivery.on_acked(sent, bytes);
    }

    /// UpdateOnACK: all packets of an acknowledgement were told. `in_flight` is what is left; `is_app_limited` says that
    /// the application had nothing more to send, although the window had room.
    pub fn on_ack_end(&mut self, now: Instant, in_flight: u64, is_app_limited: bool) {
        self.in_flight = in_flight;
        if is_app_limited && in_flight < self.window {
            self.delivery.mark_app_limited(in_flight);
        }
        let sample = self.delivery.sample(now, self.rtt.min());
        if sample.newly_acked > 0 {
            self.update_model_and_state(now, &sample);
            self.update_control_parameters(&sample);
        }
        self.in_flight_peak = in_flight;
    }

    /// A packet became longer or shorter.
    pub fn on_segment_size(&mut self, bytes: u64) {
        self.config.segment_bytes = bytes;
        self.window = self.window.max(self.min_window());
    }

    /// C.cwnd: the bytes that may be in flight.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// C.pacing_rate.
    #[must_use]
    pub fn pacing_rate(&self) -> Bandwidth {
        self.pacing_rate
    }

    /// C.send_quantum: the bytes that may be sent at once.
    #[must_use]
    pub fn send_quantum(&self) -> u64 {
        self.send_quantum
    }

    /// What the flow does at the moment.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// BBR.min_rtt; nothing before the first sample.
    #[must_use]
    pub fn min_rtt(&self) -> Option<Duration> {
        self.rtt.min()
    }

    /// The RTT, smoothed; nothing before the first sample.
    #[must_use]
    pub fn smoothed_rtt(&self) -> Option<Duration> {
        self.rtt.smoothed()
    }

    /// BBR.max_bw: the rate that the path delivers at most.
    #[must_use]
    pub fn max_bandwidth(&self) -> Bandwidth {
        Bandwidth::from_bytes_per_second(self.max_bandwidth.max())
    }

    /// C.inflight, as this flow counts it.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// C.SMSS: bytes of a full packet.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.config.segment_bytes
    }

    /// UpdateModelAndState.
    fn update_model_and_state(&mut self, now: Instant, sample: &RateSample) {
        self.short_term.on_sample(sample.delivery_rate, sample.delivered);
        let is_loss_round_start = self.loss.on_sample(sample, self.delivery.delivered);
        self.update_max_bandwidth(sample);
        if is_loss_round_start {
            self.end_loss_round(now);
        }
        let rounds = if self.full_pipe.was_reached { EXTRA_ACKED_FILTER_ROUNDS } else { 1 };
        self.aggregation.update(now, sample.newly_acked, self.bandwidth, self.window, self.rounds.count, rounds);
        self.check_full_pipe(sample);
        self.check_startup_done(is_loss_round_start);
        self.check_drain_done(now);
        self.update_cycle_phase(now, sample);
        let is_first_rtt = self.rtt.min().is_none();
        self.rtt.update(now, sample.rtt);
        if is_first_rtt {
            self.init_pacing_rate();
        }
        self.check_probe_rtt(now, sample);
        if is_loss_round_start {
            self.short_term.start_round(sample.delivery_rate, sample.delivered);
            self.loss.start_round();
        }
        let bound = self.short_term.bandwidth.unwrap_or(self.max_bandwidth());
        self.bandwidth = self.max_bandwidth().min(bound);
    }

    /// UpdateMaxBw.
    fn update_max_bandwidth(&mut self, sample: &RateSample) {
        self.rounds.update(sample.prior_delivered, self.delivery.delivered);
        if self.rounds.is_start {
            self.cycle.rounds_since_probe += 1;
        }
        let rate = sample.delivery_rate;
        if rate > Bandwidth::ZERO && (rate >= self.max_bandwidth() || !sample.is_app_limited) {
            self.max_bandwidth.update(rate.bytes_per_second(), self.cycle.count, MAX_BW_FILTER_CYCLES);
        }
    }

    fn check_full_pipe(&mut self, sample: &RateSample) {
        if !sample.is_app_limited && sample.delivery_rate > Bandwidth::ZERO {
            self.full_pipe.on_sample(sample.delivery_rate, self.rounds.is_start);
        }
    }

    /// HandleRestartFromIdle.
    fn restart_from_idle(&mut self, now: Instant) {
        self.is_idle_restart = true;
        self.aggregation.restart(now);
        if self.state.is_probe_bw() {
            self.set_pacing_rate_with_gain(1.0);
        } else if self.state == State::ProbeRtt {
            self.check_probe_rtt_done(now);
        }
    }

    /// BBR.MinPipeCwnd.
    pub(super) fn min_window(&self) -> u64 {
        MIN_PIPE_CWND_SEGMENTS * self.config.segment_bytes
    }

    /// StartRound.
    pub(super) fn start_round(&mut self) {
        self.rounds.restart(self.delivery.delivered);
    }

    /// Whether as much was in flight as `limit` allows, but for less than one burst.
    pub(super) fn has_reached(&self, limit: u64) -> bool {
        self.in_flight_peak + self.send_quantum.max(2 * self.config.segment_bytes) >= limit
    }
}
