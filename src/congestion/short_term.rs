//! The short-term model (draft-ietf-ccwg-bbr, "When not Probing for Bandwidth"): bounds on rate and volume that follow
//! what was delivered in the last round, once a round with congestion, until the next probe.

use super::bandwidth::{Bandwidth, scale};
use super::parameters::BETA;

/// BBR.bw_shortterm and BBR.inflight_shortterm, and the latest delivery that they follow.
#[derive(Clone, Debug, Default)]
pub(super) struct ShortTerm {
    /// BBR.bw_shortterm; none is infinite.
    pub(super) bandwidth: Option<Bandwidth>,
    /// BBR.inflight_shortterm; none is infinite.
    pub(super) in_flight: Option<u64>,
    bandwidth_latest: Bandwidth,
    /// BBR.inflight_latest.
    pub(super) in_flight_latest: u64,
}

impl ShortTerm {
    /// UpdateLatestDeliverySignals: the maxima of a round.
    pub(super) fn on_sample(&mut self, rate: Bandwidth, delivered: u64) {
        self.bandwidth_latest = self.bandwidth_latest.max(rate);
        self.in_flight_latest = self.in_flight_latest.max(delivered);
    }

    /// AdvanceLatestDeliverySignals: a round begins with this sample.
    pub(super) fn start_round(&mut self, rate: Bandwidth, delivered: u64) {
        (self.bandwidth_latest, self.in_flight_latest) = (rate, delivered);
    }

    /// InitLowerBounds and LossLowerBounds, at the end of a round with congestion.
    pub(super) fn on_congested_round(&mut self, max_bandwidth: Bandwidth, window: u64) {
        let bandwidth = self.bandwidth.unwrap_or(max_bandwidth);
        let in_flight = self.in_flight.unwrap_or(window);
        self.bandwidth = Some(self.bandwidth_latest.max(bandwidth.scaled(BETA)));
        self.in_flight = Some(self.in_flight_latest.max(scale(in_flight, BETA)));
    }

    /// ResetShortTermModel.
    pub(super) fn lift(&mut self) {
        (self.bandwidth, self.in_flight) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_fall_to_what_was_delivered_and_no_faster_than_beta() {
        let rate = Bandwidth::from_bytes_per_second;
        let mut bounds = ShortTerm::default();
        bounds.on_sample(rate(900), 450);
        bounds.on_congested_round(rate(1000), 2000);
        assert_eq!((bounds.bandwidth, bounds.in_flight), (Some(rate(900)), Some(1400)));
        bounds.start_round(rate(100), 50);
        bounds.on_congested_round(rate(1000), 2000);
        assert_eq!((bounds.bandwidth, bounds.in_flight), (Some(rate(630)), Some(979)));
        bounds.lift();
        assert_eq!((bounds.bandwidth, bounds.in_flight), (None, None));
    }
}
