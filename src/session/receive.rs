//! Takes packets apart, after they were opened and decoded outside.

use std::time::Instant;

use super::event::{CloseReason, Event, LaneEnd, SessionFault};
use super::lane::{LaneState, Protection};
use super::state::{Session, State};
use crate::base::{CloseCode, Epoch, LaneId, Secret, Side, limits};
use crate::stream::Priority;
use crate::wire::{Frame, Head};

impl Session {
    /// Takes the frames of a packet that was opened. `size` is the size of its message, and `is_sealed` says whether
    /// the session's keys protected it. The packets of a lane have to be given in their order.
    ///
    /// What the peer does wrong closes the session; [`close_reason`](Self::close_reason) tells.
    pub fn handle_packet(&mut self, now: Instant, head: &Head, is_sealed: bool, frames: &mut Vec<Frame>, size: usize) {
        if matches!(self.state, State::Closed(_)) {
            return;
        }
        self.on_running(now);
        // A lane that this side gave up may still deliver: it counts, as long as the lane is remembered.
        let Some(lane) = self.known_lane_mut(head.lane_id) else { return };
        if !is_sealed && lane.setup.kind.protection() == Protection::Sealed {
            // Anybody on the way could have written it: nothing of it counts, and only the lane is lost.
            self.remove_lane(head.lane_id, LaneEnd::Closed(CloseCode::PROTOCOL_VIOLATION), now);
            return;
        }
        lane.last_received_at = now;
        lane.is_pinged = false;
        lane.received.next = crate::base::PacketNumber(head.packet_number.0 + 1);
        lane.counters.packets_received += 1;
        lane.counters.bytes_received += size as u64;
        if is_sealed {
            lane.received_epoch = head.epoch;
            // A peer that seals where it need not is answered in kind.
            lane.protection = Protection::Sealed;
            if let Err(fault) = self.on_epoch(head.epoch, now) {
                self.fail(fault, now);
                return;
            }
        }
        let mut data_bytes = 0;
        let mut needs_ack = false;
        let mut fragment_count = 0;
        for frame in frames.drain(..) {
            match &frame {
                Frame::Stream(data) => {
                    data_bytes += data.data.len() as u64;
                    fragment_count += 1;
                }
                Frame::Datagram(datagram) => data_bytes += datagram.data.len() as u64,
                _ => {}
            }
            needs_ack |= !matches!(frame, Frame::Ack(_) | Frame::Close { .. });
            if let Err(fault) = self.handle_frame(now, head.lane_id, frame) {
                self.fail(fault, now);
                break;
            }
        }
        if let Some(lane) = self.known_lane_mut(head.lane_id) {
            lane.counters.fragments_received += fragment_count;
        }
        // A server says nothing before the handshake is complete.
        if needs_ack && self.early.is_none() {
            self.schedule_ack(head.lane_id, data_bytes, now);
        }
        self.idle_frames.earn((data_bytes / limits::BYTES_PER_IDLE_FRAME) as u32);
        self.drop_previous_keys(now);
        self.wake_lanes();
    }

    fn on_epoch(&mut self, epoch: Epoch, now: Instant) -> Result<(), SessionFault> {
        if self.keys.is_some() && Some(epoch) == self.epoch().next() {
            // Each step derives keys: a peer that steps with each packet would have us do nothing else.
            self.limit_idle(now, "key updates")?;
            self.step_keys(now);
        }
        if epoch == self.epoch() {
            self.key_use.on_opened_current();
        }
        Ok(())
    }

    fn schedule_ack(&mut self, lane_id: LaneId, data_bytes: u64, now: Instant) {
        let Some(lane) = self.known_lane_mut(lane_id) else { return };
        lane.received.newest_at = now;
        lane.received.unacknowledged_bytes += data_bytes;
        // A fresh lane gets more to carry as it is acknowledged.
        let is_fresh = lane.received.next.0 <= limits::ACK_AT_ONCE_PACKETS && data_bytes > 0;
        let due = if lane.received.unacknowledged_bytes >= limits::ACK_EVERY_BYTES || is_fresh {
            now
        } else {
            now + limits::ACK_DELAY_MAX
        };
        lane.received.ack_due = Some(lane.received.ack_due.map_or(due, |earlier| earlier.min(due)));
        if !lane.is_alive() {
            self.former_lanes.owe_ack(lane_id);
        } else if due == now && std::mem::take(&mut lane.is_waiting) {
            self.wakes.push_back(lane_id);
        }
    }

    fn handle_frame(&mut self, now: Instant, lane_id: LaneId, frame: Frame) -> Result<(), SessionFault> {
        self.check_guest(&frame)?;
        if !matches!(self.state, State::Connecting) {
            return self.apply_frame(now, lane_id, frame);
        }
        match self.side {
            Side::Server => self.handle_early_frame(now, lane_id, frame),
            Side::Client if self.early.is_none() && matches!(frame, Frame::Accepted { .. } | Frame::Close { .. }) => {
                self.apply_frame(now, lane_id, frame)
            }
            Side::Client => Err(SessionFault::Violation("frame in front of the accept")),
        }
    }

    pub(super) fn apply_frame(&mut self, now: Instant, lane_id: LaneId, frame: Frame) -> Result<(), SessionFault> {
        match frame {
            Frame::Stream(data) => {
                if data.data.is_empty() && !data.fin {
                    self.limit_idle(now, "empty stream frames")?;
                }
                let shortest = self.shortest_round_trip();
                self.streams.handle_data(&data, now, shortest)?;
            }
            Frame::StreamOpen { stream_id, priority, replay_safe } => {
                self.streams.handle_open(stream_id, Priority::from_wire(priority), replay_safe)?;
            }
            Frame::StreamReset { stream_id, code, final_size } => {
                self.limit_resets(now)?;
                let round_trip = self.round_trip();
                self.streams.handle_reset(stream_id, code, final_size, now, round_trip)?;
            }
            Frame::StreamStop { stream_id, code } => {
                self.limit_resets(now)?;
                self.streams.handle_stop(stream_id, code)?;
            }
            Frame::Ack(ack) => self.handle_ack(&ack, lane_id, now)?,
            Frame::MaxData { maximum } => {
                if !self.streams.handle_max_data(maximum) {
                    self.limit_idle(now, "window updates")?;
                }
            }
            Frame::MaxStreamData { stream_id, maximum } => {
                if !self.streams.handle_max_stream_data(stream_id, maximum)? {
                    self.limit_idle(now, "window updates")?;
                }
            }
            Frame::MaxStreams { direction, maximum } => {
                if !self.streams.handle_max_streams(direction, maximum) {
                    self.limit_idle(now, "stream credits")?;
                }
            }
            Frame::DataBlocked { limit } => {
                self.limit_idle(now, "blocked signals")?;
                let shortest = self.shortest_round_trip();
                self.streams.handle_data_blocked(limit, now, shortest);
            }
            Frame::StreamDataBlocked { stream_id, limit } => {
                self.limit_idle(now, "blocked signals")?;
                let shortest = self.shortest_round_trip();
                self.streams.handle_stream_data_blocked(stream_id, limit, now, shortest)?;
            }
            Frame::StreamsBlocked { direction, limit } => {
                if !self.streams.handle_streams_blocked(direction, limit) {
                    self.limit_idle(now, "blocked signals")?;
                }
            }
            Frame::Ping { sequence } => {
                self.limit_idle(now, "pings")?;
                self.on_ping(lane_id, sequence, now);
            }
            // The acknowledgement of the ping has measured the round trip already.
            Frame::Pong { .. } => {}
            Frame::KeyUpdate { epoch } => {
                if epoch > self.epoch() {
                    return Err(SessionFault::Violation("key update that its own packet does not follow"));
                }
                self.limit_idle(now, "key updates")?;
            }
            Frame::Handshake(data) => self.on_ticket(&data)?,
            Frame::Accepted { reset_token } => self.on_accepted(lane_id, reset_token)?,
            Frame::MaxLanes { maximum } => {
                self.require_from(Side::Server)?;
                if !self.lane_credit.set_maximum(maximum) {
                    self.limit_idle(now, "lane credits")?;
                }
            }
            Frame::LaneClose { lane_id, code } => {
                self.limit_resets(now)?;
                self.remove_lane(lane_id, LaneEnd::ClosedByPeer(code), now);
            }
            Frame::Close { code, reason } => self.become_closed(CloseReason::Peer { code, reason }, now),
            Frame::GoAway { code, reason } => {
                self.limit_idle(now, "go-aways")?;
                self.peer_goes_away = Some(code);
                self.events.push_back(Event::GoAway { code, reason });
            }
            Frame::JoinConfirm { nonce } => self.on_join_confirm(lane_id, &nonce, now)?,
            Frame::Guest(credential) => self.on_guest(credential),
            Frame::Datagram(datagram) => self.streams.handle_datagram(datagram, now)?,
        }
        Ok(())
    }

    fn on_accepted(&mut self, lane_id: LaneId, reset_token: Secret<16>) -> Result<(), SessionFault> {
        self.require_from(Side::Server)?;
        if !matches!(self.state, State::Connecting) || lane_id != LaneId::FIRST {
            return Err(SessionFault::Violation("second accept"));
        }
        self.reset_token = reset_token;
        self.state = State::Connected;
        self.events.push_back(Event::Connected);
        // Beside lanes that are measured, one that is not would carry nothing.
        if let Some(index) = self.lane_index(lane_id).filter(|&index| self.lanes[index].round_trip.smoothed().is_none())
        {
            self.ping(index);
            self.wake_lane(index);
        }
        Ok(())
    }

    fn on_ping(&mut self, lane_id: LaneId, sequence: u64, now: Instant) {
        let Some(index) = self.lane_index(lane_id).filter(|&index| self.lanes[index].is_alive()) else { return };
        let lane = &mut self.lanes[index];
        // The first one comes right behind the answer to a join.
        if let Some(since) = lane.joining_since.take().filter(|_| lane.round_trip.smoothed().is_none()) {
            let sample = now.saturating_duration_since(since);
            lane.round_trip.on_sample(sample, now);
            self.meter.on_round_trip(lane.channel(), lane.setup.kind, sample);
        }
        let control = &mut lane.control;
        let queued = control.iter().filter(|frame| matches!(frame, Frame::Pong { .. })).count();
        if queued < limits::PONGS_QUEUED_MAX {
            control.push_back(Frame::Pong { sequence, delay_us: 0 });
        }
        self.wake_lane(index);
    }

    fn on_join_confirm(&mut self, lane_id: LaneId, nonce: &[u8; 16], now: Instant) -> Result<(), SessionFault> {
        self.require_from(Side::Client)?;
        let Some(index) = self.lane_index(lane_id) else { return Ok(()) };
        let lane = &mut self.lanes[index];
        match lane.expected_confirmation.take() {
            Some(expected) if expected == *nonce => {
                lane.confirmation_due = None;
                self.is_accept_unconfirmed = false;
                if lane.is_healthy() {
                    self.on_lane_works(index, now);
                }
                Ok(())
            }
            _ => Err(SessionFault::Violation("confirmation of a join that was not asked for")),
        }
    }

    pub(super) fn wake_lane(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.state != LaneState::Dead && std::mem::take(&mut lane.is_waiting) {
            self.wakes.push_back(lane.id);
        }
    }

    fn require_from(&self, side: Side) -> Result<(), SessionFault> {
        let is_right = self.side.peer() == side;
        if is_right { Ok(()) } else { Err(SessionFault::Violation("frame that only the other side may send")) }
    }

    fn limit_idle(&mut self, now: Instant, what: &'static str) -> Result<(), SessionFault> {
        if self.idle_frames.take(now) { Ok(()) } else { Err(SessionFault::Load(what)) }
    }

    fn limit_resets(&mut self, now: Instant) -> Result<(), SessionFault> {
        if self.resets.take(now) { Ok(()) } else { Err(SessionFault::Load("resets")) }
    }
}
