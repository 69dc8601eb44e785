//! Each stream stays on a lane, by rendezvous hashing: when a lane ends, only its own streams move.

use super::{ChannelView, Scheduler};
use crate::base::{LaneId, StreamId};

#[derive(Debug)]
pub(super) struct Hash;

impl Scheduler for Hash {
    fn pick(&mut self, lanes: &[ChannelView], _backlog: Option<u64>) -> Option<usize> {
        // Any ready lane may ask; which streams it gets is what `stream_channel` says.
        lanes.iter().position(|lane| lane.is_ready)
    }

    fn stream_channel(&self, stream: StreamId, lanes: &[ChannelView]) -> Option<LaneId> {
        lanes.iter().map(|lane| lane.id).max_by_key(|lane| mix(stream.0 << 32 ^ u64::from(lane.0)))
    }

    fn ties_streams(&self) -> bool {
        true
    }
}

/// The finalizer of MurmurHash3: every bit of the input changes half of the output.
fn mix(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ value >> 33
}

#[cfg(test)]
mod tests {
    use super::super::view;
    use super::*;

    #[test]
    fn streams_spread_and_only_those_of_a_dead_lane_move() {
        let lanes: Vec<_> = (0..4).map(|id| view(id, 1, 1.0, 0, true)).collect();
        let before: Vec<_> = (0..1000).map(|id| Hash.stream_channel(StreamId(id * 4), &lanes)).collect();
        let after: Vec<_> = (0..1000).map(|id| Hash.stream_channel(StreamId(id * 4), &lanes[1..])).collect();
        for lane in 0..4 {
            let count = before.iter().filter(|owner| **owner == Some(LaneId(lane))).count();
            assert!((180..=320).contains(&count), "{count}");
        }
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == Some(LaneId(0))));
    }
}
