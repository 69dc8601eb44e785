//! A session before its handshake is complete (0-RTT, RFC 8446 §2.3): what may be sent and taken by then.
//!
//! A client that resumes sends what it opened as replay-safe in its first flight. A server that accepts it has the
//! client's identity from the ticket, and lets the application read that at once. Everything else that comes early is
//! held until the client has shown that it is there now: then it is no repetition. The server itself sends nothing by then.
//!
//! Nobody needs to remember transport parameters: what comes early stays within what every server grants.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustls::quic::{PacketKey, Suite};

use super::config::SessionConfig;
use super::event::{CloseReason, Event, SessionFault};
use super::lane::{LaneSetup, LaneState, Protection};
use super::state::{Session, SessionParts, State};
use crate::base::{LaneId, PacketNumber, SessionId, Side, limits};
use crate::crypto::{Handshake, KeySchedule, SessionSecrets};
use crate::stream::{StreamFault, Streams};
use crate::wire::{
    Frame, HandshakeData, HandshakeLevel, STREAM_DATA_OVERHEAD_MAX, StreamData, TransportParameters, packet_overhead_max,
};

/// What a held frame counts beside its bytes.
const HELD_FRAME_BYTES: usize = 64;

/// What protects the packets of a session.
pub enum SessionKeys {
    /// Drawn from a complete handshake.
    Complete {
        /// From the exporter.
        secrets: SessionSecrets,
        /// The negotiated packet protection.
        suite: Suite,
    },
    /// There are none yet: [`Session::complete_handshake`] brings them.
    Pending(Option<EarlyKey>),
}

/// The key of early data: the client's to seal, the server's to open.
#[derive(Clone)]
pub struct EarlyKey(pub(crate) Arc<dyn PacketKey>);

/// The time until the handshake is complete.
pub(super) struct EarlyPhase {
    /// On a raw channel: seals what a client sends.
    pub(super) key: Option<Arc<dyn PacketKey>>,
    /// What has to wait for the end of it, at a server.
    held: Vec<Frame>,
    held_bytes: usize,
    /// Bytes of streams that came.
    data_bytes: u64,
}

impl EarlyPhase {
    pub(super) fn new(key: Option<EarlyKey>) -> Self {
        Self { key: key.map(|key| key.0), held: Vec::new(), held_bytes: 0, data_bytes: 0 }
    }
}

impl Session {
    /// A session on a channel whose own handshake makes it and is under way: a client that sends early data, before the
    /// server has answered the start.
    #[must_use]
    pub fn early_client(session_id: SessionId, config: SessionConfig, first_lane: LaneSetup, now: Instant) -> Self {
        let peer_parameters = TransportParameters::early(config.versions.clone(), session_id);
        let (side, keys, reset_token) = (Side::Client, SessionKeys::Pending(None), [0; 16]);
        Self::new(SessionParts { side, session_id, keys, peer_parameters, first_lane, reset_token }, config, now)
    }

    /// Whether the client has not shown yet that it is there now: what was read came in early data, and somebody may have
    /// repeated it. Never at a client.
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.side == Side::Server && self.early.is_some()
    }

    /// Whether the handshake is under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.early.is_some()
    }

    /// The packet that comes next on a lane.
    #[must_use]
    pub fn expected_packet(&self, lane: LaneId) -> PacketNumber {
        self.lane_index(lane).map_or(PacketNumber(0), |index| self.lanes[index].received.next)
    }

    /// The handshake is complete. At a client `is_early_data_accepted` says whether the server has taken what was sent by
    /// then; else it goes out again, from the same places. A server has verified that the client is there.
    pub fn complete_handshake(
        &mut self,
        secrets: &SessionSecrets,
        suite: Suite,
        is_early_data_accepted: bool,
        now: Instant,
    ) {
        let Some(early) = self.early.take() else { return };
        if !matches!(self.state, State::Connecting) {
            return;
        }
        self.keys = Some(KeySchedule::new(suite, self.side, secrets));
        self.join_key = Some(secrets.join_key().clone());
        self.key_use = super::rekey::KeyUse::new(now);
        match self.side {
            Side::Client if is_early_data_accepted => {}
            Side::Client => self.take_back_early_data(now),
            Side::Server => {
                self.accept_client();
                self.release(early.held, now);
            }
        }
        for index in 0..self.lanes.len() {
            self.wake_lane(index);
        }
    }

    /// The handshake came to nothing: what was read early is all there will be.
    pub fn fail_handshake(&mut self, now: Instant) {
        if self.early.is_some() {
            let reason = match self.side {
                Side::Client => CloseReason::NotAccepted,
                Side::Server => CloseReason::Unauthenticated,
            };
            self.become_closed(reason, now);
        }
    }

    /// At a server: the TLS messages that give the client its tickets.
    pub(super) fn send_tickets(&mut self, tickets: impl IntoIterator<Item = HandshakeData>) {
        if let Some(first) = self.lanes.iter_mut().find(|lane| lane.id == LaneId::FIRST && lane.is_alive()) {
            first.control.extend(tickets.into_iter().map(Frame::Handshake));
        }
    }

    /// At a client: takes the server's tickets into the store of the TLS configuration.
    pub(super) fn take_tickets_with(&mut self, handshake: Handshake) {
        self.ticket_intake = Some(Box::new(handshake));
    }

    pub(super) fn on_ticket(&mut self, data: &HandshakeData) -> Result<(), SessionFault> {
        let Some(intake) = &mut self.ticket_intake else {
            return Err(SessionFault::Violation("handshake bytes that were not asked for"));
        };
        if data.level != HandshakeLevel::Traffic || intake.handle_data(data.level, data.offset, &data.data).is_err() {
            return Err(SessionFault::Violation("handshake bytes that are no ticket"));
        }
        if intake.tickets_received() >= limits::TICKETS_PER_HANDSHAKE {
            self.ticket_intake = None;
        }
        Ok(())
    }

    /// Tells the client that it is accepted.
    pub(super) fn accept_client(&mut self) {
        self.state = State::Connected;
        let reset_token = self.reset_token.clone();
        self.lanes[0].control.push_back(Frame::Accepted { reset_token });
        self.events.push_back(Event::Connected);
    }

    /// The frames of a client's early packet: what is replay-safe.
    pub(super) fn gather_early(&mut self, index: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        let is_protected = match self.lanes[index].protection {
            Protection::Channel => true,
            Protection::Sealed => self.early.as_ref().is_some_and(|early| early.key.is_some()),
        };
        if self.side == Side::Server || !is_protected {
            return frames;
        }
        let mut room = self.packet_bytes_max(index) - packet_overhead_max();
        while frames.len() < limits::FRAMES_PER_PACKET_MAX / 2
            && room > 2 * limits::REASON_BYTES_MAX
            && let Some(frame) = self.streams.poll_control()
        {
            if matches!(frame, Frame::StreamOpen { replay_safe: true, .. }) {
                room -= frame.encoded_len();
                frames.push(frame);
            } else {
                self.control.push_back(frame);
            }
        }
        while frames.len() < limits::FRAMES_PER_PACKET_MAX && room > STREAM_DATA_OVERHEAD_MAX {
            let wanted = |streams: &Streams, id| streams.is_replay_safe(id);
            let Some((id, piece)) = self.streams.poll_piece(room - STREAM_DATA_OVERHEAD_MAX, wanted) else { break };
            let data = StreamData { stream_id: id, offset: piece.offset, fin: piece.fin, data: piece.data.into() };
            let frame = Frame::Stream(data);
            room -= frame.encoded_len();
            frames.push(frame);
        }
        frames
    }

    /// Takes a frame of a client that has not completed its handshake.
    pub(super) fn handle_early_frame(
        &mut self,
        now: Instant,
        lane: LaneId,
        frame: Frame,
    ) -> Result<(), SessionFault> {
        match frame {
            Frame::Ping { .. } | Frame::StreamOpen { replay_safe: true, .. } => self.apply_frame(now, lane, frame),
            Frame::StreamOpen { .. } => self.hold(frame),
            Frame::Stream(data) => {
                let early = self.early.as_mut().ok_or(SessionFault::Violation("early data after the handshake"))?;
                early.data_bytes += data.data.len() as u64;
                if early.data_bytes > limits::EARLY_WINDOW_BYTES {
                    return Err(StreamFault::Limit("early data").into());
                }
                if self.streams.is_replay_safe(data.stream_id) {
                    return self.apply_frame(now, lane, Frame::Stream(data));
                }
                // A slice would pin the buffer that it was read into.
                let copy = Bytes::copy_from_slice(&data.data.to_bytes());
                self.hold(Frame::Stream(StreamData { data: copy.into(), ..data }))
            }
            _ => Err(SessionFault::Violation("frame that must not come early")),
        }
    }

    fn hold(&mut self, frame: Frame) -> Result<(), SessionFault> {
        let early = self.early.as_mut().ok_or(SessionFault::Violation("early data after the handshake"))?;
        early.held_bytes += frame.encoded_len() + HELD_FRAME_BYTES;
        if early.held_bytes > limits::EARLY_HELD_BYTES_MAX {
            return Err(StreamFault::Limit("early data that is held").into());
        }
        early.held.push(frame);
        Ok(())
    }

    /// What was held is no repetition.
    fn release(&mut self, held: Vec<Frame>, now: Instant) {
        for frame in held {
            if let Err(fault) = self.apply_frame(now, LaneId::FIRST, frame) {
                return self.fail(fault, now);
            }
        }
        if let Some(index) = self.lane_index(LaneId::FIRST)
            && self.lanes[index].received.next > PacketNumber(0)
        {
            self.lanes[index].received.ack_due = Some(now);
        }
    }

    /// The server has thrown away what came early. It goes out again under the traffic keys, whose packets are counted
    /// from 0.
    fn take_back_early_data(&mut self, now: Instant) {
        let Some(index) = self.lane_index(LaneId::FIRST).filter(|&index| self.lanes[index].is_alive()) else { return };
        self.reinject(index);
        let lane = &mut self.lanes[index];
        lane.sent.clear();
        lane.in_flight_bytes = 0;
        lane.next_number = Some(PacketNumber(0));
        lane.last_progress_at = now;
        if lane.state == LaneState::Suspect {
            lane.state = LaneState::Active;
            self.events.push_back(Event::LaneRecovered(LaneId::FIRST));
            self.on_lane_works(index, now);
        }
    }
}
