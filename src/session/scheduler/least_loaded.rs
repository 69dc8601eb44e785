//! The ready lane with the fewest bytes on their way.

use super::{ChannelView, Scheduler};

#[derive(Debug)]
pub(super) struct LeastLoaded;

impl Scheduler for LeastLoaded {
    fn pick(&mut self, lanes: &[ChannelView], _backlog: Option<u64>) -> Option<usize> {
        let ready = lanes.iter().enumerate().filter(|(_, lane)| lane.is_ready);
        ready.min_by_key(|(_, lane)| (lane.in_flight_bytes, lane.sent_bytes)).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::view;
    use super::*;

    #[test]
    fn the_emptier_lane_is_taken() {
        let lanes = [view(0, 1, 9.0, 500, true), view(1, 90, 1.0, 400, true), view(2, 1, 9.0, 0, false)];
        assert_eq!(LeastLoaded.pick(&lanes, None), Some(1));
    }
}
