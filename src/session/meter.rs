//! What a session measures for statistics: round trips, waiting times, outages, and counts of what it decided.
//!
//! Samples are kept until they are read, in bounded lists, and only once somebody has said that they will be read.
//! Counters always count. Making statistics of either is left to the reader.

use std::time::{Duration, Instant};

use super::lane::{LaneKind, LaneState};
use super::state::Session;
use super::stats::LaneStats;
use crate::base::{LaneId, StreamId, limits};
use crate::stream::DatagramStats;
use crate::wire::Frame;

/// Times that a session measured since they were read last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// Round trips of lanes, by the session's own acknowledgements: the lane's channel, what carries it, the time.
    pub round_trips: Vec<(LaneId, LaneKind, Duration)>,
    /// How long peers kept acknowledgements back, as they say.
    pub ack_delays: Vec<Duration>,
    /// How long bytes waited between the application's write and the packet that took them along.
    pub queue_delays: Vec<Duration>,
    /// How long no lane worked, each time that one worked again.
    pub outages: Vec<Duration>,
    /// Samples that found no room.
    pub dropped: u64,
}

/// What a session decided and met, since its begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    /// Packets for which there were several channels to choose from, that the asking one carried.
    pub taken: u64,
    /// Times that a lane asked and the packet was left to another one.
    pub passed_on: u64,
    /// Times that a lane asked and the packet was held back, as every channel would have made it later.
    pub held_back: u64,
    /// Frames that went out on a second lane, too.
    pub copied: u64,
}

/// Times that this side had to wait for credit of the peer, since the session's begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// For that of the whole session.
    pub session: u64,
    /// For that of a stream.
    pub stream: u64,
    /// For that of opening streams.
    pub stream_count: u64,
}

/// All that statistics are made of, at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The lanes that live, and those that died a short while ago.
    pub lanes: Vec<LaneStats>,
    /// Streams that are not over.
    pub stream_count: usize,
    /// Bytes that wait for lanes or credits.
    pub unsent_bytes: u64,
    /// Bytes held for sending and for reading.
    pub held_bytes: u64,
    /// Lanes that ended.
    pub lanes_lost: u64,
    /// Steps of the traffic keys.
    pub epoch: u32,
    /// What became of datagrams.
    pub datagrams: DatagramStats,
    /// What was decided.
    pub decisions: Decisions,
    /// What was waited for.
    pub blocked: Blocked,
    /// How long data waited for a limit of this side, in the order of [`LimitedBy::ALL`](super::LimitedBy::ALL).
    pub throttled: [Duration; super::LimitedBy::ALL.len()],
    /// What was measured since the last reading.
    pub samples: Samples,
}

/// Where a session keeps what it measures.
#[derive(Debug, Default)]
pub(super) struct Meter {
    is_read: bool,
    samples: Samples,
    pub(super) decisions: Decisions,
    blocked: Blocked,
    /// Bytes whose waiting time is being taken: their stream, their end, since when.
    probe: Option<(StreamId, u64, Instant)>,
    outage_since: Option<Instant>,
}

impl Meter {
    pub(super) fn on_round_trip(&mut self, channel: LaneId, kind: LaneKind, time: Duration) {
        if self.is_read {
            push(&mut self.samples.round_trips, (channel, kind, time), &mut self.samples.dropped);
        }
    }

    pub(super) fn on_ack_delay(&mut self, delay: Duration) {
        if self.is_read {
            push(&mut self.samples.ack_delays, delay, &mut self.samples.dropped);
        }
    }

    /// A piece of a stream goes out, as far as `end`.
    pub(super) fn on_cut(&mut self, id: StreamId, end: u64, now: Instant) {
        if let Some((_, _, since)) = self.probe.take_if(|(of, wanted, _)| *of == id && *wanted <= end) {
            push(&mut self.samples.queue_delays, now.saturating_duration_since(since), &mut self.samples.dropped);
        }
    }

    pub(super) fn on_frame(&mut self, frame: &Frame) {
        match frame {
            Frame::DataBlocked { .. } => self.blocked.session += 1,
            Frame::StreamDataBlocked { .. } => self.blocked.stream += 1,
            Frame::StreamsBlocked { .. } => self.blocked.stream_count += 1,
            _ => {}
        }
    }
}

fn push<T>(samples: &mut Vec<T>, sample: T, dropped: &mut u64) {
    if samples.len() < limits::SAMPLES_MAX {
        samples.push(sample);
    } else {
        *dropped += 1;
    }
}

impl Session {
    /// From now on samples are kept: somebody reads them.
    pub fn begin_measuring(&mut self) {
        self.meter.is_read = true;
    }

    /// Reads everything, and takes the samples.
    pub fn read_meter(&mut self) -> Reading {
        // A stream may have been given up with what was not sent.
        let streams = &self.streams;
        self.meter.probe.take_if(|(id, ..)| streams.unsent_end(*id).is_none());
        Reading {
            lanes: self.known_lanes().map(LaneStats::of).collect(),
            stream_count: self.streams.count(),
            unsent_bytes: self.streams.unsent_bytes(),
            held_bytes: self.streams.held_bytes(),
            lanes_lost: self.lanes_lost,
            epoch: self.epoch().0,
            datagrams: self.streams.datagram_stats(),
            decisions: self.meter.decisions,
            blocked: self.meter.blocked,
            throttled: self.throttle.totals(),
            samples: std::mem::take(&mut self.meter.samples),
        }
    }

    /// Whether the waiting time of bytes that are about to be written is to be taken. One at a time, so that writing
    /// stays cheap.
    #[must_use]
    pub fn wants_queue_probe(&self) -> bool {
        let meter = &self.meter;
        meter.is_read && meter.probe.is_none() && meter.samples.queue_delays.len() < limits::QUEUE_SAMPLES_MAX
    }

    /// Begins to take the waiting time of what was just written to a stream, when it is
    /// [wanted](Self::wants_queue_probe).
    pub fn begin_queue_probe(&mut self, id: StreamId, now: Instant) {
        if let Some(end) = self.streams.unsent_end(id) {
            self.meter.probe = Some((id, end, now));
        }
    }

    /// The stream of the probe will send nothing more.
    pub(super) fn drop_queue_probe(&mut self, id: StreamId) {
        self.meter.probe.take_if(|(of, ..)| *of == id);
    }

    /// Notes when there ceases to be a lane that works, and when there is one again.
    pub(super) fn watch_outage(&mut self, now: Instant) {
        let works = self.lanes.iter().any(|lane| lane.state == LaneState::Active);
        let meter = &mut self.meter;
        match (works, meter.outage_since) {
            (false, None) => meter.outage_since = Some(now),
            (true, Some(since)) => {
                meter.outage_since = None;
                if meter.is_read {
                    let length = now.saturating_duration_since(since);
                    push(&mut meter.samples.outages, length, &mut meter.samples.dropped);
                }
            }
            (false, Some(_)) | (true, None) => {}
        }
    }

    /// Since when no lane works.
    #[must_use]
    pub fn outage_since(&self) -> Option<Instant> {
        self.meter.outage_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_bounded_and_what_is_too_much_is_counted() {
        let mut meter = Meter { is_read: true, ..Meter::default() };
        for _ in 0..limits::SAMPLES_MAX + 3 {
            meter.on_ack_delay(Duration::from_millis(1));
        }
        assert_eq!((meter.samples.ack_delays.len(), meter.samples.dropped), (limits::SAMPLES_MAX, 3));
    }

    #[test]
    fn nothing_is_kept_that_nobody_reads() {
        let mut meter = Meter::default();
        meter.on_round_trip(LaneId::FIRST, LaneKind::Tcp, Duration::from_millis(1));
        assert_eq!(meter.samples, Samples::default());
    }

    #[test]
    fn bytes_wait_from_the_write_until_the_piece_that_holds_them() {
        let (mut meter, start) = (Meter { is_read: true, ..Meter::default() }, Instant::now());
        let (id, other) = (StreamId(0), StreamId(4));
        meter.probe = Some((id, 100, start));
        meter.on_cut(other, 200, start);
        meter.on_cut(id, 99, start);
        assert!(meter.samples.queue_delays.is_empty(), "another stream, or bytes before them");
        meter.on_cut(id, 120, start + Duration::from_millis(7));
        assert_eq!(meter.samples.queue_delays, [Duration::from_millis(7)]);
    }
}
