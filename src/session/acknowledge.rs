//! What was sent, acknowledged and lost.

use std::time::{Duration, Instant};

use super::copies::Copies;
use super::event::{CloseReason, Event, LaneEnd, SessionFault};
use super::lane::{LaneState, SentItem};
use super::state::{Session, State};
use crate::base::{LaneId, PacketNumber, limits};
use crate::wire::{Ack, Frame};

/// Acknowledgements that a fresh lane repeats. In an outage several lanes a second are begun, and a peer takes no more
/// than 200 frames a second that are no news to it.
const REPEATED_ACKS_MAX: usize = 16;

impl Session {
    /// Takes an acknowledgement that came by a lane. It may be another one's, and that of a lane that is dead. The packet's
    /// end wakes the lanes that may send more now.
    pub(super) fn handle_ack(&mut self, ack: &Ack, by: LaneId, now: Instant) -> Result<(), SessionFault> {
        let index = self.lane_index(ack.lane_id);
        let known = match index {
            Some(index) => Some(&mut self.lanes[index]),
            None => self.former_lanes.get_mut(ack.lane_id),
        };
        let Some(lane) = known else {
            // Of a lane that was forgotten. That it ever was is what its id tells.
            let was = self.lane_credit.was_used(ack.lane_id);
            return if was {
                Ok(())
            } else {
                Err(SessionFault::Violation("acknowledgement for a lane that never was"))
            };
        };
        if lane.next_number.is_some_and(|next| ack.next_packet_number > next) || !ack.ranges.is_empty() {
            return Err(SessionFault::Violation("acknowledgement of packets that were never sent"));
        }
        lane.is_switched |= ack.next_packet_number > lane.epoch_start;
        let mut newest = None;
        let mut delivered = 0;
        while lane.sent.front().is_some_and(|packet| packet.number < ack.next_packet_number) {
            let Some(packet) = lane.sent.pop_front() else { break };
            lane.in_flight_bytes -= u64::from(packet.bytes);
            delivered += u64::from(packet.bytes);
            newest = Some(packet.sent_at);
            for item in packet.items {
                match item {
                    SentItem::Stream { id, range, fin } => self.streams.on_acknowledged(id, range, fin),
                    SentItem::Control(Frame::StreamReset { stream_id, .. }) => {
                        self.streams.on_reset_acknowledged(stream_id);
                    }
                    SentItem::Accepted => self.is_accept_unconfirmed = false,
                    SentItem::Control(_) => {}
                }
            }
        }
        let Some(sent_at) = newest else {
            return if self.idle_frames.take(now) { Ok(()) } else { Err(SessionFault::Load("acknowledgements")) };
        };
        // What others say of a lane tells nothing of how it does.
        let Some(index) = index.filter(|_| by == ack.lane_id) else { return Ok(()) };
        let lane = &mut self.lanes[index];
        // What was sent before a time in which this side did not run measures that time.
        if sent_at >= self.resumed_at {
            let sample = now.saturating_duration_since(sent_at);
            // A peer that lies about its delay can only make its lane look better to us by so much.
            let delay = Duration::from_micros(ack.delay_us).min(sample);
            lane.round_trip.on_sample(sample - delay, now);
            if lane.sampled_at.is_none_or(|at| now.saturating_duration_since(at) >= limits::SAMPLE_INTERVAL) {
                lane.sampled_at = Some(now);
                self.meter.on_round_trip(lane.channel(), lane.setup.kind, sample - delay);
                self.meter.on_ack_delay(delay);
            }
        }
        let interval = lane.round_trip.rate_interval();
        self.rate_mut(index).on_delivered(now, delivered, interval);
        self.note_path(index, delivered, sent_at, now);
        self.overtake_siblings(index, now);
        let lane = &mut self.lanes[index];
        lane.last_progress_at = now;
        lane.overtaken_at = None;
        lane.has_grace = true;
        lane.is_pinged &= !lane.sent.is_empty();
        if lane.state == LaneState::Suspect {
            lane.state = LaneState::Active;
            self.events.push_back(Event::LaneRecovered(ack.lane_id));
            self.on_lane_works(index, now);
            // There may have been no healthy lane to carry what others hold up.
            self.reinject_suspects();
        }
        if self.lanes[index].sent.is_empty() {
            // Hundreds of packets were on their way; an idle lane should not keep their room.
            self.lanes[index].sent.shrink_to(8);
        }
        Ok(())
    }

    /// While nothing works, a fresh lane says once more what arrived on those before: the last word on it may be lost with
    /// them, and the peer would begin by sending again what is here.
    pub(super) fn repeat_acks(&mut self, now: Instant) {
        if self.has_active_lane() {
            return;
        }
        self.rescued_at = now;
        let mut count = 0;
        for lane in
            self.lanes.iter_mut().rev().filter(|lane| lane.received.next > PacketNumber(0)).take(REPEATED_ACKS_MAX)
        {
            lane.received.is_repeated = true;
            count += 1;
        }
        self.former_lanes.owe_newest_acks(REPEATED_ACKS_MAX - count);
    }

    /// From when on lanes that carried something may be forgotten: not in an outage, nor until the peer has had the time
    /// to say what of it arrived. To be asked once for all of them: there may be hundreds.
    pub(super) fn forgettable_from(&self) -> Option<Instant> {
        self.has_active_lane().then(|| self.rescued_at + limits::JOIN_TIMEOUT)
    }

    fn has_active_lane(&self) -> bool {
        self.lanes.iter().any(|lane| lane.state == LaneState::Active)
    }

    /// A lane's channel is gone, or is to be closed: its unacknowledged data goes out again on the others.
    pub fn remove_lane(&mut self, id: LaneId, end: LaneEnd, now: Instant) {
        let Some(index) = self.lane_index(id).filter(|&index| self.lanes[index].is_alive()) else { return };
        self.reinject(index);
        let mut lane = self.lanes.remove(index);
        lane.state = LaneState::Dead;
        lane.died_at = Some(now);
        lane.is_waiting = false;
        lane.control.clear();
        lane.copies = Copies::default();
        // The last word on what arrived goes by another lane. When nothing did, the peer may not know the lane at all.
        lane.received.ack_due = (lane.received.next > PacketNumber(0)).then_some(now);
        self.lanes_lost += 1;
        let channel = lane.channel();
        match self.lanes.iter().position(|lane| lane.channel() == channel) {
            None => self.scheduler.on_channel_removed(channel),
            // The oldest has the rate of all of them.
            Some(heir) if heir >= index => self.lanes[heir].rate = std::mem::take(&mut lane.rate),
            Some(_) => {}
        }
        self.former_lanes.insert(lane, now);
        self.events.push_back(Event::LaneDown(id, end));
        self.choose_tier(now);
        if !matches!(end, LaneEnd::ClosedByPeer(_)) {
            let code = match end {
                LaneEnd::Closed(code) => code,
                LaneEnd::Unacknowledged | LaneEnd::Idle => crate::base::CloseCode::ACK_TIMEOUT,
                _ => crate::base::CloseCode::TRANSPORT_ERROR,
            };
            self.control.push_back(Frame::LaneClose { lane_id: id, code });
        }
        if self.lane_count() == 0 {
            self.alone_since.get_or_insert(now);
            if self.is_ending() {
                self.finish_closing(now);
            } else if matches!(self.state, State::Connecting | State::Proving { .. }) {
                // A session that was not accepted cannot be joined: nothing will come back.
                self.become_closed(CloseReason::NotAccepted, now);
            }
        }
        self.wake_lanes();
    }
}
