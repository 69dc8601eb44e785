//! As `lowest-latency`, with a second lane for what is urgent: the one on which a copy arrives first. What is copied is
//! decided in `session::copies`.

use super::lowest_latency::{earliest, is_far_from_best};
use super::{ChannelView, Scheduler};
use crate::base::LaneId;

#[derive(Debug)]
pub(super) struct Redundant;

impl Scheduler for Redundant {
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

    fn copies(&self) -> bool {
        true
    }

    fn second(&mut self, lanes: &[ChannelView], first: LaneId) -> Option<LaneId> {
        // A copy is small, and waits for its lane if it has to.
        earliest(lanes, Some(0), Some(first)).map(|index| lanes[index].id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::view;
    use super::*;

    #[test]
    fn the_copy_goes_to_the_best_other_lane() {
        let lanes = [view(0, 10, 60.0, 0, true), view(1, 45, 60.0, 0, true), view(2, 20, 60.0, 0, false)];
        assert_eq!(Redundant.second(&lanes, LaneId(0)), Some(LaneId(2)));
        assert_eq!(Redundant.second(&lanes, LaneId(2)), Some(LaneId(0)));
        // One that would be too late is worth no copy.
        assert_eq!(Redundant.second(&[lanes[0], view(1, 300, 60.0, 0, true)], LaneId(0)), None);
    }
}
