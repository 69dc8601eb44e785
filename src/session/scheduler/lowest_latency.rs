//! Earliest estimated delivery (after ECF, Lim et al., CoNEXT 2017): a packet goes where it arrives first. A lane that
//! is busy counts with the time until it is free, so a slow lane stays idle when waiting for the fast one is quicker.

use std::time::Duration;

use super::{ChannelView, Scheduler};
use crate::base::{LaneId, limits};

/// A lane whose shortest round trip is so many times that of the best lane is left out: it would only hold the others up.
const ROUND_TRIP_SPREAD_MAX: f64 = 5.0;

/// Unless it is at most so many times what the best lane takes now, with its queues: a lane that joins under load does not
/// see the path without them.
const ROUND_TRIP_SPREAD_LOADED_MAX: f64 = 2.0;

/// Round trips below this are equal: inside one machine their ratio says nothing.
const ROUND_TRIP_FLOOR_SECONDS: f64 = 0.002;

/// A lane that carries less than this part of what the best one does adds little. It is used only where it holds up
/// nothing: while its round trip without queues is short enough, and so is the time until a packet arrives on it.
const RATE_SHARE_MIN: f64 = 0.1;

/// How many times longer than on the best lane something short may take.
const PROMPT_SPREAD_MAX: f64 = 2.0;

/// A packet of full size: what follows it on other lanes waits until it has arrived.
const PACKET_BYTES: f64 = limits::FRAME_MESSAGE_BYTES_MAX as f64;

/// Bytes on their way were not all sent within a round trip: acknowledgements are held back for so long.
const ACK_DELAY_SECONDS: f64 = limits::ACK_DELAY_MAX.as_millis() as f64 / 1000.0;

/// The rate of a lane that has delivered nothing yet: it gets a few packets to show what it can.
const RATE_UNKNOWN: f64 = 10e6;

#[derive(Debug)]
pub(super) struct LowestLatency;

impl Scheduler for LowestLatency {
    fn pick(&mut self, lanes: &[ChannelView], backlog: Option<u64>) -> Option<usize> {
        earliest(lanes, backlog, None)
    }

    fn promptest(&mut self, lanes: &[ChannelView]) -> Option<usize> {
        earliest(lanes, Some(0), None)
    }

    fn leaves_prompt(&mut self, lanes: &[ChannelView], asking: LaneId) -> bool {
        is_far_from_best(lanes, asking)
    }

    fn keeps_express(&self) -> bool {
        true
    }
}

/// Whether something short arrives on another lane in less than half the time. A smaller advantage is an estimate, which
/// may be another one's by the time that lane is ready: a message would go from one to the next and leave on none.
pub(super) fn is_far_from_best(lanes: &[ChannelView], asking: LaneId) -> bool {
    let own = lanes.iter().find(|lane| lane.id == asking).and_then(|lane| delivery_time(lane, Some(0)));
    let best = earliest(lanes, Some(0), None).and_then(|index| delivery_time(&lanes[index], Some(0)));
    own.zip(best).is_some_and(|(own, best)| own > PROMPT_SPREAD_MAX * best)
}

/// The lane on which a packet arrives first, but not `except`.
pub(super) fn earliest(lanes: &[ChannelView], backlog: Option<u64>, except: Option<LaneId>) -> Option<usize> {
    let best = Best::of(lanes);
    // Asked for each packet, of each lane once.
    let (mut of_all, mut of_kept) = (Earliest::default(), Earliest::default());
    let mut leaves_out_all = true;
    for (index, lane) in lanes.iter().enumerate() {
        let is_left_out = best.leaves_out(lane);
        leaves_out_all &= is_left_out;
        if Some(lane.id) == except {
            continue;
        }
        let Some(seconds) = delivery_time(lane, backlog) else { continue };
        of_all.consider(index, seconds);
        if !is_left_out {
            of_kept.consider(index, seconds);
        }
    }
    // One lane may have the shortest round trip and another one the highest rate, and each leave out the other.
    if leaves_out_all { of_all.index } else { of_kept.index }
}

/// The first lane with the shortest time among those considered.
#[derive(Default)]
struct Earliest {
    index: Option<usize>,
    seconds: f64,
}

impl Earliest {
    fn consider(&mut self, index: usize, seconds: f64) {
        if self.index.is_none() || seconds < self.seconds {
            *self = Self { index: Some(index), seconds };
        }
    }
}

/// The best of each estimate among the lanes.
struct Best {
    /// Least smoothed round trip, in seconds: what a packet takes now.
    now: f64,
    /// Least shortest round trip: what it takes without queues.
    unloaded: f64,
    /// Bytes a second.
    rate: f64,
    /// Least time in which a packet of full size arrives, without queues.
    packet: f64,
}

impl Best {
    fn of(lanes: &[ChannelView]) -> Self {
        let mut best = Self { now: f64::INFINITY, unloaded: f64::INFINITY, rate: 0.0, packet: f64::INFINITY };
        for lane in lanes {
            best.now = best.now.min(seconds(lane.round_trip));
            best.unloaded = best.unloaded.min(seconds(lane.round_trip_min));
            if let Some(rate) = lane.bytes_per_second {
                best.rate = best.rate.max(rate);
                best.packet = best.packet.min(PACKET_BYTES / rate.max(1.0) + seconds(lane.round_trip_min) / 2.0);
            }
        }
        best
    }

    /// Whether a lane would only hold up the others.
    fn leaves_out(&self, lane: &ChannelView) -> bool {
        let Some(own) = lane.round_trip_min else {
            // It is measured first, which takes a round trip, unless nothing better is known.
            return self.unloaded.is_finite();
        };
        let own = own.as_secs_f64().max(ROUND_TRIP_FLOOR_SECONDS);
        let is_long = own > ROUND_TRIP_SPREAD_MAX * self.unloaded.max(ROUND_TRIP_FLOOR_SECONDS);
        if is_long && own > ROUND_TRIP_SPREAD_LOADED_MAX * self.now {
            return true;
        }
        let Some(rate) = lane.bytes_per_second else {
            // A chance to show its rate, with little at stake: a packet at a time.
            return self.rate > 0.0 && lane.in_flight_bytes > 0;
        };
        if rate >= self.rate * RATE_SHARE_MIN {
            return false;
        }
        // It adds little, and must not hold up what follows.
        let round_trip = seconds(lane.round_trip_min);
        let queued = (lane.in_flight_bytes as f64 / rate - round_trip - ACK_DELAY_SECONDS).max(0.0);
        // A rate that was measured a packet at a time has the wait for each acknowledgement in it.
        let waited = if lane.is_least_rate { round_trip + ACK_DELAY_SECONDS } else { 0.0 };
        let packet = queued + (PACKET_BYTES / rate.max(1.0) - waited).max(0.0) + round_trip / 2.0;
        let holds_up = packet > ROUND_TRIP_SPREAD_MAX * self.packet + ACK_DELAY_SECONDS;
        // While its transport begins it shows more each round trip, if it gets what its window takes.
        is_long || (holds_up && lane.startup_bytes.is_none_or(|bytes| lane.in_flight_bytes >= bytes))
    }
}

fn seconds(round_trip: Option<Duration>) -> f64 {
    round_trip.map_or(f64::INFINITY, |round_trip| round_trip.as_secs_f64())
}

/// Seconds until a packet would arrive. A busy lane has to send the backlog first; without an end of it in sight, it is
/// not waited for.
fn delivery_time(lane: &ChannelView, backlog: Option<u64>) -> Option<f64> {
    let rate = lane.bytes_per_second.unwrap_or(RATE_UNKNOWN).max(1.0);
    let round_trip = lane.round_trip_min.map_or(0.0, |round_trip| round_trip.as_secs_f64());
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
        lanes[0].round_trip = Some(Duration::from_millis(75));
        assert_eq!(LowestLatency.pick(&lanes, None), Some(1));
    }

    #[test]
    fn a_slow_lane_is_not_used_because_the_best_one_has_queues() {
        let mut lanes = [view(0, 10, 60.0, 4_000_000, false), view(1, 300, 0.6, 0, true)];
        lanes[0].round_trip = Some(Duration::from_millis(110));
        assert_eq!(LowestLatency.pick(&lanes, None), None);
        lanes[0].round_trip = Some(Duration::from_millis(200));
        assert_eq!(LowestLatency.pick(&lanes, None), None);
        // As long as its rate is not known, it gets one packet.
        lanes[1].bytes_per_second = None;
        assert_eq!(LowestLatency.pick(&lanes, None), Some(1));
        lanes[1].in_flight_bytes = 1;
        assert_eq!(LowestLatency.pick(&lanes, None), None);
    }

    #[test]
    fn a_lane_whose_transport_begins_gets_what_its_window_may_take() {
        let mut lanes = [view(0, 20, 12.5, 4_000_000, false), view(1, 60, 0.4, 0, true)];
        assert_eq!(LowestLatency.pick(&lanes, None), None, "it carries too little");
        lanes[1].startup_bytes = Some(100_000);
        for (in_flight_bytes, pick) in [(0, Some(1)), (99_999, Some(1)), (100_000, None)] {
            lanes[1].in_flight_bytes = in_flight_bytes;
            assert_eq!(LowestLatency.pick(&lanes, None), pick, "{in_flight_bytes} bytes on their way");
        }
    }

    /// A rate may have been measured while there was nearly nothing to send.
    #[test]
    fn lanes_that_are_best_in_one_thing_each_do_not_leave_one_another_out() {
        let mut lanes = [view(0, 48, 1.0, 0, true), view(1, 2, 1.0, 0, true)];
        lanes[1].bytes_per_second = Some(800.0);
        assert_eq!(LowestLatency.pick(&lanes, None), Some(1));
        assert_eq!(LowestLatency.promptest(&lanes), Some(1));
        assert_eq!(earliest(&lanes, None, Some(LaneId(1))), Some(0));
    }

    #[test]
    fn a_lane_is_measured_before_it_carries_data() {
        let mut lanes = [view(0, 10, 60.0, 0, false), view(1, 10, 60.0, 0, true)];
        (lanes[1].round_trip, lanes[1].round_trip_min) = (None, None);
        assert_eq!(LowestLatency.pick(&lanes, None), None);
        (lanes[0].round_trip, lanes[0].round_trip_min) = (None, None);
        assert_eq!(LowestLatency.pick(&lanes, None), Some(1), "nothing better is known");
    }

    #[test]
    fn a_short_message_leaves_on_the_lane_that_is_ready_unless_another_one_is_far_better() {
        let lanes =
            [view(0, 20, 60.0, 1_500_000, false), view(1, 20, 60.0, 1_800_000, true), view(2, 90, 60.0, 0, true)];
        assert_eq!(LowestLatency.promptest(&lanes), Some(0));
        assert!(!LowestLatency.leaves_prompt(&lanes, LaneId(0)) && !LowestLatency.leaves_prompt(&lanes, LaneId(1)));
        assert!(LowestLatency.leaves_prompt(&lanes, LaneId(2)));
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
