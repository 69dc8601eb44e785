//! The answer to loss and congestion marks (draft-ietf-ccwg-bbr, "Updating the Model Upon Packet Loss" and "ECN").
//!
//! The draft takes each round with a loss for congested. Here it is congested if it lost more than the path loses by
//! itself ([`PathLoss`](super::path_loss::PathLoss)). A congestion mark always counts, as one lost segment for the share
//! of loss.

use std::time::Instant;

use super::bandwidth::scale;
use super::bbr::Bbr;
use super::delivery::{RateSample, SentRecord};
use super::parameters::{BETA, LOSS_THRESH, STARTUP_OVERFLOW_LOSS};
use super::state::State;

/// Loss in the round at hand, and where the round ends.
#[derive(Clone, Debug, Default)]
pub(super) struct LossRound {
    /// BBR.loss_round_delivered.
    end: u64,
    start_delivered: u64,
    pub(super) lost_bytes: u64,
    delivered_bytes: u64,
    /// Separate losses.
    pub(super) event_count: u32,
    /// Whether the network marked congestion.
    is_marked: bool,
    /// The shares of the round, kept for the steps that follow its end.
    pub(super) is_congested: bool,
    /// Whether the loss of the round means that too much is in flight.
    pub(super) is_too_high: bool,
    /// BBR.is_bw_probe_sample: acknowledgements and losses tell of a probe.
    pub(super) is_probe_sample: bool,
}

impl LossRound {
    /// The loss part of UpdateLatestDeliverySignals: whether a round of loss ends here.
    pub(super) fn on_sample(&mut self, sample: &RateSample, delivered: u64) -> bool {
        if sample.prior_delivered < self.end {
            return false;
        }
        self.end = delivered;
        self.delivered_bytes = delivered - self.start_delivered;
        self.start_delivered = delivered;
        true
    }

    /// Forgets the round that ended.
    pub(super) fn start_round(&mut self) {
        (self.lost_bytes, self.event_count, self.is_marked) = (0, 0, false);
    }

    /// ResetCongestionSignals, the loss part.
    pub(super) fn reset(&mut self) {
        self.start_round();
    }
}

impl Bbr {
    /// `bytes` were found lost; the newest of them was sent at `sent`.
    pub fn on_lost(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.note_loss(now, sent, bytes);
    }

    /// The network marked congestion on a packet sent at `sent`.
    pub fn on_congestion_mark(&mut self, now: Instant, sent: Instant) {
        self.loss.is_marked = true;
        self.note_loss(now, sent, self.config.segment_bytes);
    }

    /// Nothing came through for several timeouts (OnEnterRTO): starts over with the smallest window, until something that
    /// is sent from now on arrives.
    pub fn on_persistent_congestion(&mut self, _now: Instant) {
        self.save_window();
        self.window = self.min_window();
        self.startup.timeout_end = Some(self.delivery.delivered + self.in_flight);
    }

    /// HandleLostPacket.
    fn note_loss(&mut self, now: Instant, sent: Instant, bytes: u64) {
        if self.loss.lost_bytes == 0 {
            // NoteLoss: a round of loss begins with its first.
            self.loss.end = self.delivery.delivered;
        }
        self.loss.lost_bytes += bytes;
        self.loss.event_count += 1;
        let Some(record) = self.delivery.on_lost(sent, bytes) else { return };
        let sample = RateSample {
            tx_in_flight: record.in_flight,
            lost: self.delivery.lost - record.lost,
            is_app_limited: record.is_app_limited,
            ..RateSample::default()
        };
        if self.state == State::Startup && self.is_overflow(&sample) {
            self.leave_startup_for_loss();
        }
        if self.loss.is_probe_sample && self.is_in_flight_too_high(&sample) {
            let in_flight = self.in_flight_at_loss(&sample, bytes);
            self.handle_in_flight_too_high(now, in_flight, &record);
        }
    }

    /// IsInflightTooHigh.
    pub(super) fn is_in_flight_too_high(&self, sample: &RateSample) -> bool {
        sample.lost > self.tolerated_loss(sample.tx_in_flight)
    }

    /// Whether a queue is seen to overflow, without waiting for the end of the round.
    fn is_overflow(&self, sample: &RateSample) -> bool {
        let (segment, is_queue_present) = (self.config.segment_bytes, self.rtt.is_queue_present());
        let tolerated = self.path_loss.tolerated(sample.tx_in_flight, STARTUP_OVERFLOW_LOSS, is_queue_present, segment);
        is_queue_present && sample.lost > tolerated
    }

    fn tolerated_loss(&self, in_flight: u64) -> u64 {
        let is_queue_present = self.rtt.is_queue_present();
        self.path_loss.tolerated(in_flight, LOSS_THRESH, is_queue_present, self.config.segment_bytes)
    }

    /// InflightAtLoss: what was in flight when the share of loss crossed the threshold, within the lost `size`.
    fn in_flight_at_loss(&self, sample: &RateSample, size: u64) -> u64 {
        let before = sample.tx_in_flight.saturating_sub(size);
        let lost_before = sample.lost.saturating_sub(size);
        let prefix = self.tolerated_loss(before).saturating_sub(lost_before);
        before + scale(prefix, 1.0 / (1.0 - LOSS_THRESH))
    }

    /// HandleInflightTooHigh.
    fn handle_in_flight_too_high(&mut self, now: Instant, in_flight: u64, record: &SentRecord) {
        self.cycle.was_probe_too_high = true;
        self.loss.is_probe_sample = false;
        if !record.is_app_limited {
            self.in_flight_long_term = Some(in_flight.max(scale(self.target_in_flight(), BETA)));
        }
        if self.state == State::ProbeBwUp {
            self.start_probe_bw_down(now);
        }
    }

    /// The end of a round: what of its loss is the path's own, and AdaptLowerBoundsFromCongestion with the rest.
    pub(super) fn end_loss_round(&mut self, now: Instant) {
        let (lost, delivered) = (self.loss.lost_bytes, self.loss.delivered_bytes);
        let (segment, is_queue_present) = (self.config.segment_bytes, self.rtt.is_queue_present());
        let total = lost + delivered;
        let tolerated = |threshold| self.path_loss.tolerated(total, threshold, is_queue_present, segment);
        let is_excess = lost > tolerated(0.0);
        let is_too_high = lost > tolerated(LOSS_THRESH);
        self.loss.is_congested = self.loss.is_marked || is_excess;
        self.loss.is_too_high = is_too_high;
        self.path_loss.on_round(now, lost, delivered, is_queue_present, segment);
        if self.loss.is_congested && !self.state.is_probing() {
            self.short_term.on_congested_round(self.max_bandwidth(), self.window);
        }
    }

    /// SaveCwnd.
    pub(super) fn save_window(&mut self) {
        let is_modulated = self.startup.timeout_end.is_some() || self.state == State::ProbeRtt;
        self.prior_window = if is_modulated { self.prior_window.max(self.window) } else { self.window };
    }

    /// RestoreCwnd.
    pub(super) fn restore_window(&mut self) {
        self.window = self.window.max(self.prior_window);
    }
}
