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
    Frame, HandshakeData, HandshakeLevel, STREAM_DATA_OVERHEAD_MAX, StreamData, TransportParameters,
    packet_overhead_max,
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
    pub(super) held_bytes: usize,
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

    /// Whether the session was early once: early data was taken from its client.
    #[must_use]
    pub fn began_early(&self) -> bool {
        self.began_early
    }

    /// Whether the handshake is under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.early.is_some()
    }

    /// The packet that comes next on a lane.
    #[must_use]
    pub fn expected_packet(&self, lane: LaneId) -> PacketNumber {
        self.known_lane(lane).map_or(PacketNumber(0), |lane| lane.received.next)
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
        self.guest_exporter = Some(secrets.guest_exporter().clone());
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
        if let Some(first) = self.lanes.first_mut() {
            first.control.push_back(Frame::Accepted { reset_token });
        }
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
    pub(super) fn handle_early_frame(&mut self, now: Instant, lane: LaneId, frame: Frame) -> Result<(), SessionFault> {
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

#[cfg(all(test, any(feature = "aws-lc-rs", feature = "ring")))]
mod tests {
    use super::*;
    use crate::base::{Direction, StreamId};
    use crate::crypto::identity::default_provider;
    use crate::session::LaneKind;
    use crate::stream::{Priority, ReadError, ReadOutcome, StreamsConfig};
    use crate::wire::Head;

    const ID: SessionId = SessionId([7; 16]);

    /// A session on a QUIC channel whose handshake is under way.
    fn early(side: Side, now: Instant) -> Session {
        let config = SessionConfig::default().granting_early();
        let setup = LaneSetup::new(LaneKind::Quic);
        if side == Side::Client {
            return Session::early_client(ID, config, setup, now);
        }
        let peer_parameters = config.parameters(ID);
        let (keys, reset_token) = (SessionKeys::Pending(None), [1; 16]);
        let parts = SessionParts { side, session_id: ID, keys, peer_parameters, first_lane: setup, reset_token };
        Session::new(parts, config, now)
    }

    fn complete(session: &mut Session, is_accepted: bool, now: Instant) {
        let secrets = SessionSecrets::from_exporter(ID, |_, _, _| Ok::<_, ()>(())).expect("it fills nothing");
        let suite = default_provider().cipher_suites[0].tls13().and_then(rustls::Tls13CipherSuite::quic_suite);
        session.complete_handshake(&secrets, suite.expect("a suite of QUIC"), is_accepted, now);
    }

    fn stream(index: u64) -> StreamId {
        StreamId::new(Side::Client, Direction::Bi, index)
    }

    fn open(index: u64, replay_safe: bool) -> Frame {
        Frame::StreamOpen { stream_id: stream(index), priority: 0, replay_safe }
    }

    fn data(index: u64, offset: u64, size: usize) -> Frame {
        Frame::Stream(StreamData { stream_id: stream(index), offset, fin: false, data: vec![9; size].into() })
    }

    fn take(session: &mut Session, number: u64, frames: &[Frame], now: Instant) {
        let head = Head { packet_number: PacketNumber(number), ..Head::default() };
        session.handle_packet(now, &head, false, &mut frames.to_vec(), 1000);
    }

    /// Bytes that a stream gives now.
    fn read(session: &mut Session, index: u64, now: Instant) -> usize {
        match session.read(stream(index), usize::MAX, now) {
            Ok(ReadOutcome::Data(bytes)) => bytes.len(),
            Ok(ReadOutcome::End) => 0,
            Err(error) => {
                assert!(matches!(error, ReadError::Blocked | ReadError::Closed), "{error}");
                0
            }
        }
    }

    #[test]
    fn what_is_not_replay_safe_is_held_until_the_client_is_there() {
        let now = Instant::now();
        let mut server = early(Side::Server, now);
        assert!(server.is_early() && !server.is_connected());
        take(&mut server, 0, &[open(0, false), data(0, 0, 100), open(1, true), data(1, 0, 50)], now);
        assert_eq!((read(&mut server, 0, now), read(&mut server, 1, now)), (0, 50));
        assert!(server.held_bytes() > 100, "what is held counts");
        assert_eq!(server.expected_packet(LaneId::FIRST), PacketNumber(1));
        server.write(stream(1), b"answer").expect("it is open");
        assert!(server.poll_transmit(now, LaneId::FIRST).is_none(), "a server is silent by then");
        complete(&mut server, true, now);
        assert!(server.is_connected() && !server.is_early());
        assert_eq!((read(&mut server, 0, now), read(&mut server, 1, now)), (100, 0));
        let first = server.poll_transmit(now, LaneId::FIRST).expect("the accept, and the answer");
        assert!(matches!(first.frames()[0], Frame::Accepted { .. }));
        assert!(first.frames().iter().any(|frame| matches!(frame, Frame::Ack(ack) if ack.next_packet_number.0 == 1)));
    }

    #[test]
    fn nothing_but_streams_and_pings_comes_early() {
        let now = Instant::now();
        let id = stream(0);
        let code = crate::base::StreamCode(1);
        let wrong = [
            Frame::Ack(crate::wire::Ack {
                lane_id: LaneId::FIRST,
                next_packet_number: PacketNumber(0),
                delay_us: 0,
                ranges: Vec::new(),
            }),
            Frame::StreamReset { stream_id: id, code, final_size: 0 },
            Frame::StreamStop { stream_id: id, code },
            Frame::MaxData { maximum: 1 << 20 },
            Frame::MaxStreamData { stream_id: id, maximum: 1 << 20 },
            Frame::MaxStreams { direction: Direction::Bi, maximum: 100 },
            Frame::DataBlocked { limit: 1 },
            Frame::KeyUpdate { epoch: crate::base::Epoch(1) },
            Frame::JoinConfirm { nonce: [0; 16] },
            Frame::Close { code: crate::base::CloseCode::NO_ERROR, reason: String::new() },
            Frame::GoAway { code: crate::base::CloseCode::NO_ERROR, reason: String::new() },
            Frame::Datagram(crate::wire::Datagram { stream_id: id, piece: None, data: Bytes::from_static(b"x") }),
        ];
        for frame in wrong {
            let mut server = early(Side::Server, now);
            take(&mut server, 0, &[Frame::Ping { sequence: 1 }, open(0, true), data(0, 0, 10)], now);
            assert!(!server.is_ending());
            take(&mut server, 1, std::slice::from_ref(&frame), now);
            assert!(matches!(server.close_reason(), Some(CloseReason::Fault(_))), "{frame:?}");
        }
    }

    #[test]
    fn early_data_is_bounded() {
        let now = Instant::now();
        for replay_safe in [true, false] {
            let mut server = early(Side::Server, now);
            take(&mut server, 0, &[open(0, replay_safe)], now);
            for packet in 0..limits::EARLY_WINDOW_BYTES / 8192 {
                take(&mut server, 1 + packet, &[data(0, packet * 8192, 8192)], now);
            }
            assert!(!server.is_ending());
            take(&mut server, 100, &[data(0, limits::EARLY_WINDOW_BYTES, 1)], now);
            assert!(server.is_ending());
        }
        // Frames without data cost memory, too.
        let mut server = early(Side::Server, now);
        let packet_count = limits::EARLY_HELD_BYTES_MAX / HELD_FRAME_BYTES / limits::FRAMES_PER_PACKET_MAX + 1;
        for number in 0..packet_count as u64 {
            take(&mut server, number, &vec![open(0, false); limits::FRAMES_PER_PACKET_MAX], now);
        }
        assert!(server.is_ending());
    }

    #[test]
    fn session_ends_with_a_handshake_that_fails() {
        let now = Instant::now();
        let mut server = early(Side::Server, now);
        take(&mut server, 0, &[open(0, true), data(0, 0, 10)], now);
        server.fail_handshake(now);
        assert_eq!(server.close_reason(), Some(&CloseReason::Unauthenticated));
        let mut client = early(Side::Client, now);
        client.fail_handshake(now);
        assert_eq!(client.close_reason(), Some(&CloseReason::NotAccepted));
        // One that was completed is not concerned.
        let mut server = early(Side::Server, now);
        complete(&mut server, true, now);
        server.fail_handshake(now);
        assert!(server.is_connected());
    }

    /// Frames of all packets that a client has now.
    fn sent(client: &mut Session, now: Instant) -> Vec<Frame> {
        std::iter::from_fn(|| client.poll_transmit(now, LaneId::FIRST))
            .flat_map(|sent| sent.frames().to_vec())
            .collect()
    }

    fn bytes_of(frames: &[Frame], index: u64) -> u64 {
        let of = |frame: &Frame| match frame {
            Frame::Stream(data) if data.stream_id == stream(index) => data.data.len() as u64,
            _ => 0,
        };
        frames.iter().map(of).sum()
    }

    #[test]
    fn replay_safe_streams_alone_leave_early_and_again_when_they_are_rejected() {
        for is_accepted in [true, false] {
            let now = Instant::now();
            let mut client = early(Side::Client, now);
            let plain = client.open(Direction::Bi, Priority::default()).expect("a stream");
            let marked = client.open_replay_safe(Direction::Bi, Priority::default()).expect("a stream");
            client.write(plain, &[1; 1000]).expect("room");
            client.write(marked, &[2; 30_000]).expect("room");
            client.finish(marked).expect("it is open");
            let early = sent(&mut client, now);
            assert_eq!((bytes_of(&early, 0), bytes_of(&early, 1)), (0, 30_000));
            assert!(early.contains(&Frame::StreamOpen { stream_id: marked, priority: 2, replay_safe: true }));
            assert!(early.iter().all(|frame| matches!(frame, Frame::Stream(_) | Frame::StreamOpen { .. })));
            complete(&mut client, is_accepted, now);
            let later = sent(&mut client, now);
            let again = if is_accepted { 0 } else { 30_000 };
            assert_eq!((bytes_of(&later, 0), bytes_of(&later, 1)), (1000, again));
            let opened = later.iter().filter(|frame| matches!(frame, Frame::StreamOpen { .. })).count();
            assert_eq!(opened, if is_accepted { 1 } else { 2 });
            let fin = later.iter().any(|frame| matches!(frame, Frame::Stream(data) if data.fin));
            assert_eq!(fin, !is_accepted);
        }
    }

    #[test]
    fn client_sends_no_more_than_every_server_grants() {
        let now = Instant::now();
        let mut client = early(Side::Client, now);
        let marked = client.open_replay_safe(Direction::Bi, Priority::default()).expect("a stream");
        client.write(marked, &[2; 200_000]).expect("room");
        assert_eq!(bytes_of(&sent(&mut client, now), 0), limits::EARLY_WINDOW_BYTES);
        let streams = StreamsConfig::default().granting_early();
        assert!(streams.session_window >= limits::EARLY_WINDOW_BYTES);
    }

    #[test]
    fn sessions_end_with_their_age() {
        let now = Instant::now();
        let mut server = early(Side::Server, now);
        complete(&mut server, true, now);
        let life = std::time::Duration::from_secs(1000);
        server.limit_life(life * 100_000);
        assert_eq!(server.life(), (limits::SESSION_AGE_MAX, now));
        server.limit_life(life);
        assert_eq!(server.replaced_at(), Some(now + life / 10 * 9));
        assert!(server.next_timeout().expect("a timer") <= now + life);
        server.handle_timeout(now + life);
        let expired = crate::base::CloseCode::SESSION_EXPIRED;
        assert_eq!(server.close_reason(), Some(&CloseReason::Local { code: expired }));
        let mut server = early(Side::Server, now);
        server.limit_life(limits::SESSION_AGE_REPLACED_MIN / 2);
        assert_eq!(server.replaced_at(), None, "the next one would be shorter yet");
    }
}
