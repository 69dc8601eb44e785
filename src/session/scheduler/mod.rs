//! Which lane carries the next packet.
//!
//! Lanes *pull*: one that can take a packet asks, and the scheduler says which lane should have it. When that is
//! another one that is ready, that one is woken; when it is one that is busy, the packet waits for it.

mod hash;
mod least_loaded;
mod lowest_latency;
mod redundant;
mod round_robin;
mod weighted;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::base::{LaneId, StreamId};

/// What a scheduler knows of a lane that may carry data.
#[derive(Clone, Copy, Debug)]
pub struct ChannelView {
    /// Its id.
    pub id: LaneId,
    /// Its share under `weighted`.
    pub weight: u32,
    /// Shortest round-trip time of late.
    pub round_trip_min: Option<Duration>,
    /// Smoothed round-trip time, what waits on the way included.
    pub round_trip: Option<Duration>,
    /// Bytes a second that it delivers.
    pub bytes_per_second: Option<f64>,
    /// It was measured while the lane could have taken more: the path is at least as fast.
    pub is_least_rate: bool,
    /// While the transport under the lane may be beginning, so that it shows less than the path carries: the bytes that may be on
    /// their way to find out.
    pub startup_bytes: Option<u64>,
    /// Bytes sent and not acknowledged.
    pub in_flight_bytes: u64,
    /// Bytes sent in all.
    pub sent_bytes: u64,
    /// It can take a packet now; else it is still writing the last one.
    pub is_ready: bool,
}

/// Decides which lane carries the next packet.
pub trait Scheduler: Send + fmt::Debug {
    /// The lane for the next packet, as an index. `backlog` is what waits, in bytes; `None` means no end in sight.
    /// Called with two lanes or more.
    fn pick(&mut self, lanes: &[ChannelView], backlog: Option<u64>) -> Option<usize>;

    /// The lane that a stream is tied to, if it is. Has to be the same for the same lanes.
    fn stream_channel(&self, _stream: StreamId, _lanes: &[ChannelView]) -> Option<LaneId> {
        None
    }

    /// Whether streams are tied to lanes, so that each lane has work of its own.
    fn ties_streams(&self) -> bool {
        false
    }

    /// The lane on which something short arrives first, where that matters. Called with two lanes or more.
    fn promptest(&mut self, _lanes: &[ChannelView]) -> Option<usize> {
        None
    }

    /// Whether something short should rather wait for that lane than leave on this one, which is ready. Called with two
    /// lanes or more.
    fn leaves_prompt(&mut self, _lanes: &[ChannelView], _asking: LaneId) -> bool {
        false
    }

    /// Whether a lane may be kept free of bulk data for what is short.
    fn keeps_express(&self) -> bool {
        false
    }

    /// Whether some data goes out on two lanes.
    fn copies(&self) -> bool {
        false
    }

    /// The lane for the copy of a packet that `first` carries. Called with two lanes or more.
    fn second(&mut self, _lanes: &[ChannelView], _first: LaneId) -> Option<LaneId> {
        None
    }

    /// A packet was given to a lane.
    fn on_sent(&mut self, _lane: LaneId, _bytes: u64) {}

    /// A lane is over.
    fn on_channel_removed(&mut self, _lane: LaneId) {}
}

/// The schedulers to choose from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The lane on which a packet arrives first; a slow one stays idle when it would only hold the others up.
    #[default]
    LowestLatency,
    /// One lane after the other.
    RoundRobin,
    /// Shares by weight.
    Weighted,
    /// The lane with the fewest bytes on their way.
    LeastLoaded,
    /// Each stream stays on a lane.
    Hash,
    /// As the first, and the most urgent streams on two lanes.
    Redundant,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::LowestLatency, Self::RoundRobin, Self::Weighted, Self::LeastLoaded, Self::Hash, Self::Redundant];

    const NAMES: [(&str, Self); 6] = [
        ("lowest-latency", Self::LowestLatency),
        ("round-robin", Self::RoundRobin),
        ("weighted", Self::Weighted),
        ("least-loaded", Self::LeastLoaded),
        ("hash", Self::Hash),
        ("redundant", Self::Redundant),
    ];

    /// A scheduler of this policy.
    #[must_use]
    pub fn scheduler(self) -> Box<dyn Scheduler> {
        match self {
            Self::LowestLatency => Box::new(lowest_latency::LowestLatency),
            Self::RoundRobin => Box::new(round_robin::RoundRobin::default()),
            Self::Weighted => Box::new(weighted::Weighted::default()),
            Self::LeastLoaded => Box::new(least_loaded::LeastLoaded),
            Self::Hash => Box::new(hash::Hash),
            Self::Redundant => Box::new(redundant::Redundant),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES.iter().find(|(_, policy)| policy == self).map_or("", |(name, _)| name))
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, policy)| *policy).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("expected one of {}, not {text:?}", names.join(", "))
        })
    }
}

#[cfg(test)]
pub(super) fn view(
    id: u32,
    round_trip_ms: u64,
    megabytes_per_second: f64,
    in_flight_bytes: u64,
    is_ready: bool,
) -> ChannelView {
    ChannelView {
        id: LaneId(id),
        weight: 1,
        round_trip_min: Some(Duration::from_millis(round_trip_ms)),
        round_trip: Some(Duration::from_millis(round_trip_ms)),
        bytes_per_second: Some(megabytes_per_second * 1e6),
        is_least_rate: false,
        startup_bytes: None,
        in_flight_bytes,
        sent_bytes: 0,
        is_ready,
    }
}
