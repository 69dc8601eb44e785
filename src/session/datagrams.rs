//! Datagrams between the streams' queues and what carries them: lanes, and *carriers* that may lose what they carry.
//!
//! A carrier belongs to a lane whose channel it shares (the DATAGRAM frames of a QUIC connection, RFC 9221), and is trusted
//! as that lane is. Its packets have no numbers and no seal of the session's: the channel protects them. A whole datagram
//! that fits goes over a carrier when a healthy one is there, as it should not wait behind a repair; everything else goes
//! over lanes, in front of streams, which have at least half of each packet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::event::SessionFault;
use super::lane::{Lane, Protection};
use super::state::{Session, State};
use crate::base::{LaneId, StreamId, limits};
use crate::stream::DatagramError;
use crate::wire::{DATAGRAM_OVERHEAD_MAX, Datagram, Frame, PaddingPolicy, encode_packet, packet_overhead_max};

/// Frames of a packet that datagrams may fill: the others are for what comes behind them.
const DATAGRAM_FRAMES_MAX: usize = limits::FRAMES_PER_PACKET_MAX * 3 / 4;

/// What a packet has at least for datagrams, so that one that has to be cut is not held up.
const DATAGRAM_ROOM_MIN: usize = limits::DATAGRAM_PIECE_BYTES_MIN + DATAGRAM_OVERHEAD_MAX;

/// The carriers of a session.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    carriers: Vec<Carrier>,
    wakes: VecDeque<LaneId>,
}

#[derive(Debug)]
struct Carrier {
    lane: LaneId,
    /// Largest packet that it takes now, in bytes.
    size_max: usize,
    /// Asked for a packet and got none: has to be woken.
    is_waiting: bool,
}

/// A packet for a carrier: whole datagrams, and padding.
#[derive(Debug)]
pub struct DatagramTransmission {
    frames: Vec<Frame>,
    padding: PaddingPolicy,
    size_max: usize,
}

impl DatagramTransmission {
    /// Appends the packet as the carrier takes it: the encoding of a `Packet`, which
    /// [`decode_packet`](crate::wire::decode_packet) reads.
    pub fn encode(&self, out: &mut BytesMut) {
        encode_packet(out, &self.frames, self.padding, self.size_max);
    }

    /// The frames, for tests and traces.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }
}

impl Session {
    // ---- The application ----

    /// Sends a datagram of a bidirectional stream, unless no lane takes it within `age_max`. It arrives whole or not at
    /// all.
    ///
    /// # Errors
    /// [`DatagramError`]; what is dropped later is only counted.
    pub fn send_datagram(
        &mut self,
        id: StreamId,
        data: Bytes,
        age_max: Duration,
        now: Instant,
    ) -> Result<(), DatagramError> {
        if self.is_ending() {
            return Err(DatagramError::Closed);
        }
        self.streams.send_datagram(id, data, age_max, now)?;
        self.wake_carriers();
        self.wake_lanes();
        Ok(())
    }

    /// Largest datagram that the peer takes, in bytes; 0 for none.
    #[must_use]
    pub fn datagram_bytes_max(&self) -> usize {
        self.streams.datagram_bytes_max()
    }

    /// The application reads a stream's datagrams from now on. Until then few are kept.
    pub fn take_datagrams(&mut self, id: StreamId) {
        self.streams.take_datagrams(id);
    }

    /// The application reads none of them any more.
    pub fn release_datagrams(&mut self, id: StreamId) {
        self.streams.release_datagrams(id);
    }

    /// The next datagram that arrived for a stream, if there is one; else a
    /// [`StreamNotice::Datagram`](crate::stream::StreamNotice) will tell.
    pub fn read_datagram(&mut self, id: StreamId) -> Option<Bytes> {
        self.streams.read_datagram(id)
    }

    // ---- Carriers ----

    /// The next packet for the carrier of a lane, of at most `size_max` bytes, or `None`: then the lane comes out of
    /// [`poll_datagram_wake`](Self::poll_datagram_wake) when there is one. The first call makes the carrier known;
    /// [`remove_datagram_carrier`](Self::remove_datagram_carrier) ends it, as does the end of its lane.
    pub fn poll_datagram_transmit(
        &mut self,
        now: Instant,
        lane_id: LaneId,
        size_max: usize,
    ) -> Option<DatagramTransmission> {
        let index = self.lane_index(lane_id).filter(|&index| self.lanes[index].is_alive())?;
        let carriers = &mut self.carriers.carriers;
        let at = carriers.iter().position(|carrier| carrier.lane == lane_id).unwrap_or_else(|| {
            // Those whose lanes are gone would only be looked through.
            let lanes = &self.lanes;
            carriers.retain(|carrier| lanes.iter().any(|lane| lane.id == carrier.lane && lane.is_alive()));
            carriers.push(Carrier { lane: lane_id, size_max, is_waiting: false });
            carriers.len() - 1
        });
        carriers[at].size_max = size_max;
        let mut frames = Vec::new();
        let is_free = matches!(self.state, State::Connected) && self.is_carrier_lane(&self.lanes[index]);
        if is_free && self.ask_limit_for_carrier(now) {
            let mut room = size_max;
            while frames.len() < limits::FRAMES_PER_PACKET_MAX {
                // Never cut: what fits into no packet of the carrier is not wanted.
                let wanted = |id, size| Datagram::whole_len(id, size) <= size_max;
                let Some(datagram) = self.streams.poll_datagram(now, room, usize::MAX, wanted) else { break };
                self.streams.on_datagram_sent_unreliably();
                let frame = Frame::Datagram(datagram);
                room -= frame.encoded_len();
                frames.push(frame);
            }
        }
        self.carriers.carriers[at].is_waiting = frames.is_empty();
        if !frames.is_empty() {
            let bytes = frames.iter().map(Frame::encoded_len).sum();
            self.count_carrier_packet(now, self.config.padding.padded_len(bytes, size_max));
        }
        // Behind what this carrier takes there may be what it does not.
        self.wake_lanes();
        if frames.is_empty() {
            return None;
        }
        Some(DatagramTransmission { frames, padding: self.config.padding, size_max })
    }

    /// A carrier takes no more packets; what waits goes over lanes.
    pub fn remove_datagram_carrier(&mut self, lane_id: LaneId) {
        self.carriers.carriers.retain(|carrier| carrier.lane != lane_id);
        self.wake_lanes();
    }

    /// Carriers, by their lanes, that should ask for a packet.
    pub fn poll_datagram_wake(&mut self) -> Option<LaneId> {
        self.carriers.wakes.pop_front()
    }

    /// Takes the frames of a packet that came over the carrier of a lane, in any order or not at all. `size` is its size.
    ///
    /// What the peer does wrong closes the session.
    pub fn handle_datagram_packet(&mut self, now: Instant, lane_id: LaneId, frames: &mut Vec<Frame>, size: usize) {
        // It may overtake the packet that connects the session.
        if !matches!(self.state, State::Connected) {
            return;
        }
        self.on_running(now);
        let Some(lane) = self.known_lane_mut(lane_id) else { return };
        if lane.setup.kind.protection() != Protection::Channel {
            // Anybody on the way could have written it.
            return;
        }
        lane.last_received_at = now;
        lane.counters.bytes_received += size as u64;
        let mut data_bytes = 0;
        for frame in frames.drain(..) {
            let Frame::Datagram(datagram @ Datagram { piece: None, .. }) = frame else {
                self.fail(
                    SessionFault::Violation("something else than whole datagrams on a carrier that loses them"),
                    now,
                );
                return;
            };
            data_bytes += datagram.data.len() as u64;
            if let Err(fault) = self.streams.handle_datagram(datagram, now) {
                self.fail(fault.into(), now);
                return;
            }
        }
        self.idle_frames.earn((data_bytes / limits::BYTES_PER_IDLE_FRAME) as u32);
        self.wake_lanes();
    }

    // ---- Inner parts ----

    /// Fills a packet of a lane with datagrams, and leaves half of it to streams that have something. Takes none any more
    /// once they are as large as `bytes_max`. Returns the room that is left.
    pub(super) fn gather_datagrams(
        &mut self,
        now: Instant,
        index: usize,
        room: usize,
        bytes_max: usize,
        frames: &mut Vec<Frame>,
    ) -> usize {
        if !self.streams.has_datagrams() {
            return room;
        }
        let is_shared = self.streams.has_ready();
        let share = |room: usize| if is_shared { (room / 2).max(DATAGRAM_ROOM_MIN).min(room) } else { room };
        let room_fresh = share(self.packet_bytes_max(index) - packet_overhead_max());
        let carrier_bytes_max = self.carrier_bytes_max();
        let channel = self.lanes[index].channel();
        let mut left = share(room);
        let kept = room - left;
        let enough = left.saturating_sub(bytes_max);
        while frames.len() < DATAGRAM_FRAMES_MAX && left > enough {
            let (scheduler, views) = (&self.scheduler, &self.views);
            let wanted = |id, size| {
                Datagram::whole_len(id, size) > carrier_bytes_max
                    && (views.len() < 2 || scheduler.stream_channel(id, views).is_none_or(|owner| owner == channel))
            };
            let Some(datagram) = self.streams.poll_datagram(now, left, room_fresh, wanted) else { break };
            let frame = Frame::Datagram(datagram);
            left -= frame.encoded_len();
            frames.push(frame);
        }
        left + kept
    }

    /// Whether datagrams wait that no carrier takes.
    pub(super) fn has_datagrams_for_lanes(&self) -> bool {
        match self.carrier_bytes_max() {
            0 => self.streams.has_datagrams(),
            max => self.streams.has_wanted_datagram(|id, size| Datagram::whole_len(id, size) > max),
        }
    }

    /// Whether datagrams wait that a carrier takes.
    pub(super) fn has_datagrams_for_carriers(&self) -> bool {
        let max = self.carrier_bytes_max();
        max > 0 && self.streams.has_wanted_datagram(|id, size| Datagram::whole_len(id, size) <= max)
    }

    /// The largest packet that a healthy carrier takes; 0 when there is none.
    fn carrier_bytes_max(&self) -> usize {
        let healthy = self.carriers.carriers.iter().filter(|carrier| self.is_carrier_healthy(carrier));
        healthy.map(|carrier| carrier.size_max).max().unwrap_or(0)
    }

    fn is_carrier_healthy(&self, carrier: &Carrier) -> bool {
        self.lane_index(carrier.lane).is_some_and(|index| self.is_carrier_lane(&self.lanes[index]))
    }

    /// Whether datagrams go beside a lane: it works, and it is not one that waits for others to fail.
    fn is_carrier_lane(&self, lane: &Lane) -> bool {
        lane.is_healthy() && self.is_carrying(lane)
    }

    /// Wakes the carriers that wait for what there is.
    pub(super) fn wake_carriers(&mut self) {
        if self.throttle.is_holding() {
            return;
        }
        let waiting = |carrier: &Carrier| carrier.is_waiting && self.is_carrier_healthy(carrier);
        let due: Vec<usize> = (0..self.carriers.carriers.len())
            .filter(|&at| waiting(&self.carriers.carriers[at]))
            .filter(|&at| {
                let max = self.carriers.carriers[at].size_max;
                self.streams.has_wanted_datagram(|id, size| Datagram::whole_len(id, size) <= max)
            })
            .collect();
        for at in due {
            let carrier = &mut self.carriers.carriers[at];
            carrier.is_waiting = false;
            self.carriers.wakes.push_back(carrier.lane);
        }
    }
}
