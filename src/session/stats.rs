//! Counters and estimates of a session, for whoever wants to show them.

use std::time::Duration;

use super::lane::{Lane, LaneKind, LaneState};
use super::state::Session;
use crate::base::{Epoch, LaneId};
use crate::stream::DatagramStats;

/// A session at one moment.
#[derive(Clone, Debug)]
pub struct SessionStats {
    /// The living lanes.
    pub lanes: Vec<LaneStats>,
    /// Streams that are not over.
    pub stream_count: usize,
    /// Bytes that wait for lanes or credits.
    pub unsent_bytes: u64,
    /// Messages sent and received, over all lanes that ever were.
    pub packets_sent: u64,
    /// Messages received.
    pub packets_received: u64,
    /// Bytes of messages sent.
    pub bytes_sent: u64,
    /// Bytes of messages received.
    pub bytes_received: u64,
    /// Pieces of streams among what was sent.
    pub fragments_sent: u64,
    /// Pieces of streams among what was received.
    pub fragments_received: u64,
    /// Bytes of padding among those sent.
    pub padding_bytes: u64,
    /// Stream bytes that were sent again.
    pub reinjected_bytes: u64,
    /// What became of datagrams.
    pub datagrams: DatagramStats,
    /// How long data waited for a limit of this side, in the order of [`LimitedBy::ALL`](super::LimitedBy::ALL).
    pub throttled: [Duration; super::LimitedBy::ALL.len()],
    /// Lanes that ended.
    pub lanes_lost: u64,
    /// The keys in use.
    pub epoch: Epoch,
    /// Smoothed round-trip time of the best lane.
    pub round_trip: Option<Duration>,
}

/// A lane at one moment.
#[derive(Clone, Debug)]
pub struct LaneStats {
    /// Its id.
    pub id: LaneId,
    /// The channel under it, by the first of its lanes.
    pub channel: LaneId,
    /// What carries it.
    pub kind: LaneKind,
    /// How it is doing.
    pub state: LaneState,
    /// Smoothed round-trip time, by the session's acknowledgements.
    pub round_trip: Option<Duration>,
    /// Shortest round-trip time.
    pub round_trip_min: Option<Duration>,
    /// Newest round-trip time.
    pub round_trip_latest: Duration,
    /// Bytes a second that its channel delivers, as far as it was asked to; told by the oldest lane of the channel.
    pub bytes_per_second: Option<f64>,
    /// Bytes sent and not acknowledged.
    pub in_flight_bytes: u64,
    /// Messages sent.
    pub packets_sent: u64,
    /// Messages received.
    pub packets_received: u64,
    /// Bytes of messages sent.
    pub bytes_sent: u64,
    /// Bytes of messages received.
    pub bytes_received: u64,
    /// Pieces of streams among what was sent.
    pub fragments_sent: u64,
    /// Pieces of streams among what was received.
    pub fragments_received: u64,
    /// Bytes of padding among those sent.
    pub padding_bytes: u64,
    /// Stream bytes that went out again on others.
    pub reinjected_bytes: u64,
}

impl LaneStats {
    pub(super) fn of(lane: &Lane) -> Self {
        Self {
            id: lane.id,
            channel: lane.channel(),
            kind: lane.setup.kind,
            state: lane.state,
            round_trip: lane.round_trip.smoothed(),
            round_trip_min: lane.round_trip.minimum(),
            round_trip_latest: lane.round_trip.latest(),
            bytes_per_second: lane.rate.bytes_per_second(),
            in_flight_bytes: lane.in_flight_bytes,
            packets_sent: lane.counters.packets_sent,
            packets_received: lane.counters.packets_received,
            bytes_sent: lane.counters.bytes_sent,
            bytes_received: lane.counters.bytes_received,
            fragments_sent: lane.counters.fragments_sent,
            fragments_received: lane.counters.fragments_received,
            padding_bytes: lane.counters.padding_bytes,
            reinjected_bytes: lane.counters.reinjected_bytes,
        }
    }
}

impl Session {
    /// Counters and estimates at this moment.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        let past = &self.past_counters;
        let sum = |of: fn(&super::lane::LaneCounters) -> u64| {
            of(past) + self.known_lanes().map(|lane| of(&lane.counters)).sum::<u64>()
        };
        SessionStats {
            lanes: self.lanes.iter().filter(|lane| lane.is_alive()).map(LaneStats::of).collect(),
            stream_count: self.streams.count(),
            unsent_bytes: self.streams.unsent_bytes(),
            packets_sent: sum(|counters| counters.packets_sent),
            packets_received: sum(|counters| counters.packets_received),
            bytes_sent: sum(|counters| counters.bytes_sent),
            bytes_received: sum(|counters| counters.bytes_received),
            fragments_sent: sum(|counters| counters.fragments_sent),
            fragments_received: sum(|counters| counters.fragments_received),
            padding_bytes: sum(|counters| counters.padding_bytes),
            reinjected_bytes: sum(|counters| counters.reinjected_bytes),
            datagrams: self.streams.datagram_stats(),
            throttled: self.throttle.totals(),
            lanes_lost: self.lanes_lost,
            epoch: self.epoch(),
            round_trip: self
                .lanes
                .iter()
                .filter(|lane| lane.is_alive())
                .filter_map(|lane| lane.round_trip.smoothed())
                .min(),
        }
    }
}
