//! Earliest estimated delivery (after ECF, Lim et al., CoNEXT 2017): a packet goes where it arrives first. A lane that
//! is busy counts with the time until it is free, so a slow lane stays idle when waiting for the fast one is quicker.

use super::{LaneView, Scheduler};
use crate::base::limits;

/// A lane whose shortest round trip is so many times what the best lane takes now is left out: it would only hold the
/// others up. The best lane's shortest one would not do: a lane that joins under load never sees the path without the
/// queues, and would be left out for good.
const ROUND_TRIP_SPREAD_MAX: f64 = 5.0;

/// Round trips below this are equal: inside one machine their ratio says nothing.
const ROUND_TRIP_FLOOR_SECONDS: f64 = 0.002;

/// The rate of a lane that has delivered nothing yet: it gets a few packets to show what it can.
const RATE_UNKNOWN: f64 = 10e6;

#[derive(Debug)]
pub(super) struct LowestLatency;

impl Scheduler for LowestLatency {
    fn pick(&mut self, lanes: &[LaneView], backlog: Option<u64>) -> Option<usize> {
        let now = |lane: &LaneView| lane.round_trip.map(|round_trip| round_trip.as_secs_f64());
        let best = lanes.iter().filter_map(now).fold(f64::INFINITY, f64::min);
        let too_slow = |lane: &LaneView| {
            round_trip(lane).is_some_and(|own| {
                own.max(ROUND_TRIP_FLOOR_SECONDS) > ROUND_TRIP_SPREAD_MAX * best.max(ROUND_TRIP_FLOOR_SECONDS)
            })
        };
        let candidates = lanes.iter().enumerate().filter(|(_, lane)| !too_slow(lane));
        candidates
            .filter_map(|(index, lane)| Some((index, delivery_time(lane, backlog)?)))
            .min_by(|(_, left), (_, right)| left.total_cmp(right))
            .map(|(index, _)| index)
    }
}

fn round_trip(lane: &LaneView) -> Option<f64> {
    lane.round_trip_min.map(|round_trip| round_trip.as_secs_f64())
}

/// Seconds until a packet would arrive. A busy lane has to send the backlog first; without an end of it in sight, it is
/// not waited for.
fn delivery_time(lane: &LaneView, backlog: Option<u64>) -> Option<f64> {
    let rate = lane.bytes_per_second.unwrap_or(RATE_UNKNOWN).max(1.0);
    let round_trip = round_trip(lane).unwrap_or(0.0);
    let queued = (lane.in_flight_bytes as f64 - rate * round_trip).max(0.0);
    let wait = if lane.is_ready { 0.0 } else { backlog?.max(limits::FRAME_MESSAGE_BYTES_MAX as u64) as f64 / rate };
    Some(queued / rate + round_trip / 2.0 + wait)
}

#[cfg(test)]
mod tests {
    use super::super::view;
    use super::*;

    #[test]
    fn a_small_message_waits_for_the_fast_lane() {
        let lanes = [view(0, 10, 60.0, 700_000, false), view(1, 45, 12.0, 0, true)];
        assert_eq!(LowestLatency.pick(&lanes, Some(1000)), Some(0));
    }

    #[test]
    fn a_long_queue_uses_both() {
        let lanes = [view(0, 10, 60.0, 700_000, false), view(1, 45, 12.0, 0, true)];
        assert_eq!(LowestLatency.pick(&lanes, None), Some(1));
    }

    #[test]
    fn a_lane_with_five_times_the_round_trip_is_left_out() {
        let lanes = [view(0, 10, 60.0, 700_000, false), view(1, 300, 0.6, 0, true)];
        assert_eq!(LowestLatency.pick(&lanes, None), None);
    }

    #[test]
    fn a_lane_that_joined_under_load_is_used() {
        let mut lanes = [view(0, 10, 60.0, 4_000_000, false), view(1, 80, 60.0, 0, true)];
        lanes[0].round_trip = Some(std::time::Duration::from_millis(75));
        assert_eq!(LowestLatency.pick(&lanes, None), Some(1));
    }

    #[test]
    fn equal_lanes_share() {
        let mut lanes = [view(0, 10, 60.0, 0, true), view(1, 10, 60.0, 0, true)];
        let mut counts = [0_u32; 2];
        for _ in 0..100 {
            let pick = LowestLatency.pick(&lanes, None).expect("both are ready");
            counts[pick] += 1;
            lanes[pick].in_flight_bytes += 65_536;
        }
        assert!(counts[0].abs_diff(counts[1]) <= 20, "{counts:?}");
    }
}
