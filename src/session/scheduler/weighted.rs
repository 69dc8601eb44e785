//! Shares by weight: the ready lane that is furthest behind its share.

use std::collections::HashMap;

use super::{ChannelView, Scheduler};
use crate::base::LaneId;

#[derive(Debug, Default)]
pub(super) struct Weighted {
    /// Bytes given to each lane divided by its weight; a new lane begins at the lowest.
    served: HashMap<LaneId, f64>,
    weights: HashMap<LaneId, u32>,
}

impl Scheduler for Weighted {
    fn pick(&mut self, lanes: &[ChannelView], _backlog: Option<u64>) -> Option<usize> {
        let lowest = lanes.iter().filter_map(|lane| self.served.get(&lane.id)).copied().fold(f64::INFINITY, f64::min);
        let start = if lowest.is_finite() { lowest } else { 0.0 };
        for lane in lanes {
            self.served.entry(lane.id).or_insert(start);
            self.weights.insert(lane.id, lane.weight.max(1));
        }
        let ready = lanes.iter().enumerate().filter(|(_, lane)| lane.is_ready);
        ready
            .min_by(|(_, left), (_, right)| self.served[&left.id].total_cmp(&self.served[&right.id]))
            .map(|(index, _)| index)
    }

    fn on_sent(&mut self, lane: LaneId, bytes: u64) {
        let weight = self.weights.get(&lane).copied().unwrap_or(1);
        if let Some(served) = self.served.get_mut(&lane) {
            *served += bytes as f64 / f64::from(weight);
        }
    }

    fn on_channel_removed(&mut self, lane: LaneId) {
        self.served.remove(&lane);
        self.weights.remove(&lane);
    }
}

#[cfg(test)]
mod tests {
    use super::super::view;
    use super::*;

    #[test]
    fn shares_follow_the_weights() {
        let mut lanes = [view(0, 1, 1.0, 0, true), view(1, 1, 1.0, 0, true)];
        lanes[1].weight = 3;
        let mut scheduler = Weighted::default();
        let mut counts = [0; 2];
        for _ in 0..400 {
            let pick = scheduler.pick(&lanes, None).expect("both are ready");
            scheduler.on_sent(lanes[pick].id, 1000);
            counts[pick] += 1;
        }
        assert!((98..=102).contains(&counts[0]), "{counts:?}");
    }
}
