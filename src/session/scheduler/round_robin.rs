//! One lane after the other, as far as they are ready.

use super::{ChannelView, Scheduler};
use crate::base::LaneId;

#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    last: Option<LaneId>,
}

impl Scheduler for RoundRobin {
    fn pick(&mut self, lanes: &[ChannelView], _backlog: Option<u64>) -> Option<usize> {
        let after = lanes.iter().position(|lane| lane.is_ready && self.last.is_none_or(|last| lane.id > last));
        after.or_else(|| lanes.iter().position(|lane| lane.is_ready))
    }

    fn on_sent(&mut self, lane: LaneId, _bytes: u64) {
        self.last = Some(lane);
    }
}

#[cfg(test)]
mod tests {
    use super::super::view;
    use super::*;

    #[test]
    fn takes_turns_and_skips_the_busy() {
        let lanes = [view(0, 1, 1.0, 0, true), view(1, 1, 1.0, 0, false), view(4, 1, 1.0, 0, true)];
        let mut scheduler = RoundRobin::default();
        let mut order = Vec::new();
        for _ in 0..4 {
            let pick = scheduler.pick(&lanes, None).expect("two are ready");
            scheduler.on_sent(lanes[pick].id, 1);
            order.push(pick);
        }
        assert_eq!(order, [0, 2, 0, 2]);
    }
}
