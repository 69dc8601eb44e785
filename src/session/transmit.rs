//! Cuts packets: each is made when a lane asks for one, to be sealed and written outside.

use std::time::Instant;

use bytes::BytesMut;

use super::early::EarlyPhase;
use super::lane::{Protection, SentItem, SentPacket};
use super::state::{Session, State};
use crate::base::{Epoch, LaneId, limits};
use crate::crypto::SealedKeys;
use crate::stream::Streams;
use crate::wire::{
    Frame, Head, PacketSizes, STREAM_DATA_OVERHEAD_MAX, SealedKind, SealedLayout, StreamData,
    encode_sized_packet_message, packet_overhead_max,
};

/// A packet is closed when less room than this is left: a shorter piece costs more than it carries.
const PIECE_BYTES_MIN: usize = 64;

/// Frames that carry no stream data, in one packet: the others wait for the next.
const CONTROL_FRAMES_MAX: usize = limits::FRAMES_PER_PACKET_MAX / 2;

/// The most by which the head of a frame of stream data grows with its data: its three sizes, its end.
const FRAME_GROWTH_MAX: usize = 3 * 2 + 2;

/// The most that a frame about a stream takes, without data: keys, sizes and three numbers.
const STREAM_CONTROL_BYTES_MAX: usize = 64;

/// No packet is cut for less: the longest control frames have to fit.
pub(super) const PACKET_BYTES_MIN: usize = 2048;

/// A packet to be encoded, sealed and written.
pub struct Transmission {
    head: Head,
    frames: Vec<Frame>,
    sizes: PacketSizes,
    kind: SealedKind,
    key: Option<SealedKeys>,
}

impl Transmission {
    /// Appends the packet as it goes on the wire. The stream data is copied here, once.
    ///
    /// # Errors
    /// What the AEAD reports: it has none for messages of an allowed size.
    pub fn encode(&self, out: &mut BytesMut) -> Result<SealedLayout, rustls::Error> {
        let layout = encode_sized_packet_message(out, &self.head, self.kind, &self.frames, &self.sizes);
        if let Some(key) = &self.key {
            key.seal(&self.head, &mut out[layout.message.clone()], layout.header_len)?;
        }
        Ok(layout)
    }

    /// Size of the packet as it goes on the wire.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.sizes.message_bytes()
    }

    /// The frames, for tests and traces.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }
}

impl Session {
    /// The next packet for a lane that can take one, or `None`: then the lane is woken when there is one.
    pub fn poll_transmit(&mut self, now: Instant, lane_id: LaneId) -> Option<Transmission> {
        self.transmit(now, lane_id, false)
    }

    /// The same of a lane that [`poll_wake`](Self::poll_wake) has just given, after something was written and before anything
    /// else was done to the session: whose turn it is need not be found out again.
    pub fn poll_transmit_woken(&mut self, now: Instant, lane_id: LaneId) -> Option<Transmission> {
        // These have several lanes look for what is theirs.
        let is_chosen = !self.scheduler.ties_streams() && !self.streams.has_prompt();
        self.transmit(now, lane_id, is_chosen)
    }

    /// `is_chosen` says that the scheduler lets the lane carry the next shared packet.
    fn transmit(&mut self, now: Instant, lane_id: LaneId, is_chosen: bool) -> Option<Transmission> {
        let index = self.lane_index(lane_id).filter(|&index| self.lanes[index].is_alive())?;
        let mut copied = 0;
        let frames = match &self.state {
            State::Closing { code, message, .. } => {
                let frame = Frame::Close { code: *code, reason: message.clone() };
                let is_told = std::mem::replace(&mut self.lanes[index].has_sent_close, true);
                if is_told {
                    self.finish_closing(now);
                    return None;
                }
                vec![frame]
            }
            State::Closed(_) => return None,
            State::Connecting if self.early.is_some() => {
                self.on_running(now);
                self.gather_early(index)
            }
            // Not a word before the client has shown who it is.
            State::Proving { .. } => {
                self.lanes[index].is_waiting = true;
                return None;
            }
            State::Connecting | State::Connected => {
                self.on_running(now);
                // Asked after each packet, when there is mostly no other one.
                if self.has_nothing_for(index, now) {
                    Vec::new()
                } else {
                    self.gather(now, index, is_chosen, &mut copied)
                }
            }
        };
        if frames.is_empty() {
            self.on_nothing(index);
            return None;
        }
        self.meter.decisions.copied += copied as u64;
        if self.lanes[index].protection == Protection::Sealed {
            self.before_sealing(now);
        }
        self.copy_frames(index, &frames, copied);
        let transmission = self.record(now, index, frames);
        if self.has_shared_work() {
            self.wake_lanes();
            self.wake_promptest();
        }
        transmission
    }

    /// Whether nothing more can be sent on a lane now. Then it waits, as after a [`poll_transmit`](Self::poll_transmit)
    /// that gave nothing, and is woken when there is something: who has just got a packet need not ask again.
    pub fn rest_lane(&mut self, now: Instant, lane_id: LaneId) -> bool {
        let Some(index) = self.lane_index(lane_id).filter(|&index| self.lanes[index].is_alive()) else { return false };
        if !matches!(self.state, State::Connected) || !self.has_nothing_for(index, now) {
            return false;
        }
        self.on_nothing(index);
        true
    }

    /// A lane that rests cannot take a packet after all, until it asks for one again: its channel is full.
    pub fn hold_lane(&mut self, lane_id: LaneId) {
        if let Some(index) = self.lane_index(lane_id) {
            self.lanes[index].is_waiting = false;
        }
    }

    fn on_nothing(&mut self, index: usize) {
        self.lanes[index].is_waiting = true;
        if !self.is_spared(index) {
            self.rate_mut(index).on_limited();
        }
    }

    /// The longest message that this side sends and the peer takes.
    pub(super) fn message_bytes_max(&self) -> usize {
        let peer_max = (self.peer_parameters.packet_bytes_max as usize).min(limits::FRAME_MESSAGE_BYTES_MAX);
        self.config.packet_bytes_max.clamp(PACKET_BYTES_MIN, peer_max)
    }

    /// The frames for a lane. `copied` is how many of the first ones another lane carries, too.
    fn gather(&mut self, now: Instant, index: usize, is_chosen: bool, copied: &mut usize) -> Vec<Frame> {
        let size_max = self.packet_bytes_max(index);
        let mut room = size_max - packet_overhead_max();
        let mut frames = Vec::new();
        let mut push = |frames: &mut Vec<Frame>, frame: Frame| {
            room -= frame.encoded_len();
            frames.push(frame);
            room > 2 * limits::REASON_BYTES_MAX && frames.len() < CONTROL_FRAMES_MAX
        };
        while let Some(frame) = self.lanes[index].control.pop_front() {
            if !push(&mut frames, frame) {
                return frames;
            }
        }
        if self.holds_for_guest() {
            return frames;
        }
        self.refresh_express(Some(now));
        let is_express = self.is_express(self.lanes[index].id);
        let may_carry = match (is_express, is_chosen) {
            (true, _) => self.may_carry_prompt(),
            (false, true) => {
                debug_assert!(self.is_usable(&self.lanes[index]), "it was woken for what any lane may carry");
                self.meter.decisions.taken += u64::from(self.views.len() > 1);
                true
            }
            (false, false) => self.may_carry(index),
        };
        let data_bytes_max = if may_carry { self.ask_limit(now) } else { 0 };
        let acks_wait = self.lanes[index].received.ack_due.is_some();
        // An acknowledgement alone waits until it is due; it rides along with everything else.
        let is_due = self.lanes[index].received.ack_due.is_some_and(|due| due <= now);
        let has_copies = !self.lanes[index].copies.is_empty();
        let has_company = !frames.is_empty() || has_copies || (may_carry && self.has_shared_work());
        if acks_wait && (is_due || has_company) {
            push(&mut frames, self.lanes[index].take_ack(now));
        }
        // Behind what only this lane can say, which copies of full size would otherwise keep waiting for ever.
        let copies = self.take_copies(index, room);
        *copied = copies.len();
        if !copies.is_empty() {
            room -= copies.iter().map(Frame::encoded_len).sum::<usize>();
            frames.splice(0..0, copies);
        }
        if !may_carry || room <= 2 * limits::REASON_BYTES_MAX {
            return frames;
        }
        let mut push = |frames: &mut Vec<Frame>, frame: Frame| {
            room -= frame.encoded_len();
            frames.push(frame);
            room > 2 * limits::REASON_BYTES_MAX && frames.len() < CONTROL_FRAMES_MAX
        };
        let repeated = self.lanes.iter_mut().filter(|lane| lane.received.is_repeated);
        for lane in repeated {
            if !push(&mut frames, lane.take_ack(now)) {
                return frames;
            }
        }
        while let Some(lane) = self.former_lanes.pop_owing() {
            if !push(&mut frames, lane.take_ack(now)) {
                return frames;
            }
        }
        let share = if is_express { Share::Prompt } else { self.share(index) };
        let leaves_prompt = share == Share::Patient;
        let next_control = |streams: &mut Streams| {
            if leaves_prompt { streams.poll_patient_control() } else { streams.poll_control() }
        };
        while let Some(frame) = self.control.pop_front().or_else(|| next_control(&mut self.streams)) {
            if !push(&mut frames, frame) {
                return frames;
            }
        }
        if data_bytes_max > 0 {
            room = self.gather_data(now, index, share, room, data_bytes_max, &mut frames);
        }
        // Cutting pieces may have found credits used up.
        while room >= STREAM_CONTROL_BYTES_MAX && frames.len() < limits::FRAMES_PER_PACKET_MAX {
            let Some(frame) = next_control(&mut self.streams) else { break };
            room -= frame.encoded_len();
            frames.push(frame);
        }
        frames
    }

    /// Fills a packet with datagrams and stream data, of `bytes_max` and one datagram more at most. Returns the room that
    /// is left.
    fn gather_data(
        &mut self,
        now: Instant,
        index: usize,
        share: Share,
        mut room: usize,
        bytes_max: usize,
        frames: &mut Vec<Frame>,
    ) -> usize {
        // Where a limit leaves both too little, they take turns.
        let is_turn_of_streams = self.throttle.is_turn_of_streams() && self.streams.has_ready();
        let takes_datagrams = share != Share::Prompt;
        let (count, before) = (frames.len(), room);
        if takes_datagrams && !is_turn_of_streams {
            room = self.gather_datagrams(now, index, room, bytes_max, frames);
        }
        let kept = room.saturating_sub(bytes_max.saturating_sub(before - room));
        room = kept + self.gather_streams(now, index, share, room - kept, frames);
        // Streams may be another channel's, or have no credit.
        if takes_datagrams && is_turn_of_streams && frames.len() == count {
            room = self.gather_datagrams(now, index, room, bytes_max, frames);
        }
        room
    }

    /// Fills a packet with stream data. Returns the room that is left.
    fn gather_streams(
        &mut self,
        now: Instant,
        index: usize,
        share: Share,
        room: usize,
        frames: &mut Vec<Frame>,
    ) -> usize {
        // Room for the signal that the session's credit is used up, which should not wait for the next packet.
        let kept = STREAM_CONTROL_BYTES_MAX.min(room);
        let mut room = room - kept;
        let channel = self.lanes[index].channel();
        let (mut last, mut piece_count) = (None, frames.len());
        while room > STREAM_DATA_OVERHEAD_MAX + PIECE_BYTES_MIN && piece_count < limits::FRAMES_PER_PACKET_MAX - 4 {
            let (scheduler, views) = (&self.scheduler, &self.views);
            let wanted = |streams: &Streams, id| {
                let is_own =
                    views.len() < 2 || scheduler.stream_channel(id, views).is_none_or(|owner| owner == channel);
                match share {
                    Share::All => is_own,
                    Share::Patient => is_own && !streams.is_prompt(id),
                    Share::Prompt => streams.is_prompt(id),
                }
            };
            let Some((id, piece)) = self.streams.poll_piece(room - STREAM_DATA_OVERHEAD_MAX, wanted) else { break };
            piece_count += 1;
            last = Some(id);
            self.meter.on_cut(id, piece.offset + piece.data.len() as u64, now);
            self.note_prompt(id, piece.data.len(), now);
            if let Some(Frame::Stream(previous)) = frames.last_mut()
                && previous.stream_id == id
                && !previous.fin
                && previous.offset + previous.data.len() as u64 == piece.offset
            {
                room -= piece.data.len() + FRAME_GROWTH_MAX;
                previous.fin = piece.fin;
                previous.data.push(piece.data);
                continue;
            }
            let frame = StreamData { stream_id: id, offset: piece.offset, fin: piece.fin, data: piece.data.into() };
            let frame = Frame::Stream(frame);
            room -= frame.encoded_len();
            frames.push(frame);
        }
        if let Some(id) = last {
            self.streams.end_turn(id);
        }
        room + kept
    }

    /// What a lane takes along. Short messages for which somebody waits may be left to another lane, on which they arrive
    /// earlier: the one that is kept for them, or, of unequal ones, a faster one.
    fn share(&mut self, index: usize) -> Share {
        if !self.streams.has_prompt() {
            return Share::All;
        }
        let is_left = self.wake_express()
            || (self.views.len() > 1 && self.scheduler.leaves_prompt(&self.views, self.lanes[index].channel()));
        if is_left { Share::Patient } else { Share::All }
    }

    /// Whether there is something for the lane that is kept free of bulk data.
    fn may_carry_prompt(&mut self) -> bool {
        self.on_express_asks();
        self.fill_views(None);
        self.streams.has_prompt()
    }

    /// Whether the scheduler lets this lane carry the next shared packet. Wakes a lane that should, when one waits.
    fn may_carry(&mut self, index: usize) -> bool {
        self.fill_views(Some(index));
        let (channel, is_usable) = (self.lanes[index].channel(), self.is_usable(&self.lanes[index]));
        if is_usable && (self.views.len() < 2 || self.scheduler.ties_streams()) {
            return self.views.iter().any(|view| view.id == channel);
        }
        let pick = match self.views.len() {
            0 => None,
            1 => Some(0),
            _ => self.scheduler.pick(&self.views, self.backlog()),
        };
        let has_choice = self.views.len() > 1;
        let Some(pick) = pick else {
            self.meter.decisions.held_back += u64::from(has_choice && self.has_shared_work());
            return false;
        };
        let picked = self.views[pick].id;
        if is_usable && picked == channel {
            self.meter.decisions.taken += u64::from(has_choice && self.has_shared_work());
            return true;
        }
        if self.has_shared_work() {
            self.meter.decisions.passed_on += 1;
            if let Some(other) = self.waiting_lane(picked) {
                self.wake_lane(other);
            }
        }
        false
    }

    /// Bytes that wait, or `None` when a writer waits for room: then there is no end in sight.
    pub(super) fn backlog(&self) -> Option<u64> {
        const ENDLESS: u64 = 256 * 1024;
        Some(self.streams.unsent_bytes() + self.streams.unsent_datagram_bytes()).filter(|bytes| *bytes < ENDLESS)
    }

    /// Whether no packet can be made for a lane, whatever scheduler and limits say.
    fn has_nothing_for(&self, index: usize, now: Instant) -> bool {
        let lane = &self.lanes[index];
        let is_idle = !self.streams.has_ready() && !self.streams.has_datagrams() && !self.streams.has_control();
        let is_shared_idle = is_idle && self.control.is_empty() && !self.has_acks_of_others();
        is_shared_idle && !lane.has_own_work(now) && !self.is_express(lane.id)
    }

    fn has_acks_of_others(&self) -> bool {
        self.former_lanes.owes_acks() || self.lanes.iter().any(|lane| lane.received.is_repeated)
    }

    /// Whether there is something that any lane may send.
    pub(super) fn has_shared_work(&self) -> bool {
        !self.control.is_empty()
            || self.streams.has_control()
            || (!self.throttle.holds_lanes() && (self.streams.has_ready() || self.has_datagrams_for_lanes()))
            || self.has_acks_of_others()
    }

    /// Wakes the waiting lane that should carry what there is.
    pub(super) fn wake_lanes(&mut self) {
        if !self.lanes.iter().any(|lane| lane.is_waiting) || !self.has_shared_work() || self.is_ending() {
            return;
        }
        self.fill_views(None);
        if self.streams.has_prompt() {
            self.wake_express();
        }
        let pick = match self.views.len() {
            0 => None,
            1 => Some(0),
            _ => self.scheduler.pick(&self.views, self.backlog()),
        };
        let Some(picked) = pick.map(|pick| self.views[pick].id) else { return };
        if !self.scheduler.ties_streams() {
            if let Some(lane) = self.waiting_lane(picked) {
                self.wake_lane(lane);
            }
            return;
        }
        // Each channel has to look for its own.
        for index in 0..self.lanes.len() {
            self.wake_lane(index);
        }
    }

    /// Wakes the lane that short messages were left to, which may not be the one that the others go to.
    fn wake_promptest(&mut self) {
        if self.views.len() < 2 || !self.streams.has_prompt() {
            return;
        }
        if let Some(pick) = self.scheduler.promptest(&self.views)
            && let Some(index) = self.waiting_lane(self.views[pick].id)
        {
            self.wake_lane(index);
        }
    }

    fn record(&mut self, now: Instant, index: usize, frames: Vec<Frame>) -> Option<Transmission> {
        let seal = self.lanes[index].protection == Protection::Sealed;
        let (kind, key) = match (&self.keys, &self.early) {
            _ if !seal => (SealedKind::Plain, None),
            (Some(keys), _) => (SealedKind::Traffic, Some(SealedKeys(keys.current().local.clone()))),
            (None, Some(EarlyPhase { key: Some(key), .. })) => (SealedKind::Early, Some(SealedKeys(key.clone()))),
            // There is no key to seal with: nothing was gathered.
            (None, _) => return None,
        };
        let epoch = if seal { self.epoch() } else { Epoch(0) };
        let bytes = frames.iter().map(Frame::encoded_len).sum::<usize>();
        let time = self.packet_time(index, bytes as u32);
        if self.channel_lanes(self.lanes[index].channel()).all(|lane| lane.sent.is_empty()) {
            self.rate_mut(index).on_idle(now);
        }
        let lane = &mut self.lanes[index];
        let number = lane.next_number?;
        lane.next_number = number.next();
        let head = Head { lane_id: lane.id, epoch, packet_number: number, ..Head::default() };
        let sizes = PacketSizes::of(&head, kind, bytes, self.config.padding, self.message_bytes_max());
        self.count_packet(now, &frames, sizes.message_bytes());
        let lane = &mut self.lanes[index];
        let mut items = Vec::new();
        let mut needs_ack = false;
        for frame in &frames {
            self.meter.on_frame(frame);
            match frame {
                Frame::Stream(data) => {
                    let range = data.offset..data.offset + data.data.len() as u64;
                    items.push(SentItem::Stream { id: data.stream_id, range, fin: data.fin });
                    lane.counters.fragments_sent += 1;
                }
                Frame::Ack(_) | Frame::Close { .. } => continue,
                // Acknowledged, so that a lane that carries nothing else is measured and watched; never sent again.
                Frame::Datagram(_) => {}
                Frame::Accepted { .. } => items.push(SentItem::Accepted),
                frame if is_worth_repeating(frame) => items.push(SentItem::Control(frame.clone())),
                _ => {}
            }
            needs_ack = true;
        }
        if needs_ack {
            lane.in_flight_bytes += bytes as u64;
            lane.sent.push_back(SentPacket {
                number,
                sent_at: now,
                bytes: bytes as u32,
                time,
                items,
                is_reinjected: false,
            });
        }
        lane.counters.packets_sent += 1;
        lane.counters.bytes_sent += sizes.message_bytes() as u64;
        lane.counters.padding_bytes += sizes.padding_bytes() as u64;
        if seal {
            self.key_use.on_sealed(bytes as u64);
        }
        self.scheduler.on_sent(lane.channel(), bytes as u64);
        Some(Transmission { head, frames, sizes, kind, key })
    }
}

/// What a lane takes along of the streams' data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    All,
    /// All but short messages for which somebody waits.
    Patient,
    /// Nothing but these.
    Prompt,
}

/// Whether a frame has to reach the peer by another packet when this one is lost.
fn is_worth_repeating(frame: &Frame) -> bool {
    !matches!(
        frame,
        // Without its lane there is no second one that a client could be accepted on.
        Frame::Guest(_)
            // These say something about their lane, or about a moment.
            | Frame::Ping { .. }
            | Frame::Pong { .. }
            | Frame::JoinConfirm { .. }
            | Frame::KeyUpdate { .. }
            | Frame::Handshake(_)
            | Frame::DataBlocked { .. }
            | Frame::StreamDataBlocked { .. }
            // Lost is lost.
            | Frame::Datagram(_)
    )
}
