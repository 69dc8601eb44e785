//! The session's state, its life from connecting to closed, and what the application does to it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::config::SessionConfig;
use super::datagrams::Carriers;
use super::early::{EarlyPhase, SessionKeys};
use super::event::{CloseReason, Event, LaneEnd, SessionFault};
use super::express::Express;
use super::former::FormerLanes;
use super::join::LaneCredit;
use super::lane::{Lane, LaneCounters, LaneSetup, LaneState};
use super::limit::Throttle;
use super::meter::Meter;
use super::rekey::KeyUse;
use super::scheduler::{ChannelView, Scheduler};
use super::standing_queue::StandingQueue;
use super::tier::Tiers;
use crate::base::{
    CloseCode, Direction, Epoch, LaneId, Secret, SessionId, Side, StreamCode, StreamId, TokenBucket, limits,
};
use crate::crypto::{Handshake, KeySchedule, OpeningKeys};
use crate::stream::{Priority, ReadError, ReadOutcome, Streams, WriteError};
use crate::wire::{Frame, TransportParameters};

/// Round-trip time to reckon with before one was measured.
const ROUND_TRIP_UNKNOWN: Duration = Duration::from_millis(100);

/// How long a closing session tries to tell the peer.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// The life of a session.
///
/// ```text
/// Proving ─────accepted──► Connected      (a server whose client has no certificate)
/// Connecting ──accepted──► Connected ──close()──► Closing ──told or 1 s──► Closed
///      │                       └──close frame, fault, channels lost──────────▲
///      └─────────────────────────────────────────────────────────────────────┘
/// ```
#[derive(Debug)]
pub(super) enum State {
    /// A client that was not accepted yet, or a server whose client has not completed the handshake.
    Connecting,
    /// A server whose client has no certificate, and has not shown its token yet, or has and waits.
    Proving {
        has_proof: bool,
    },
    Connected,
    /// The peer is being told.
    Closing {
        code: CloseCode,
        message: String,
        reason: CloseReason,
        until: Instant,
    },
    Closed(CloseReason),
}

/// What a finished handshake brings into a session.
pub struct SessionParts {
    /// Which side this is.
    pub side: Side,
    /// The session's name.
    pub session_id: SessionId,
    /// What protects its packets.
    pub keys: SessionKeys,
    /// What the peer told about itself.
    pub peer_parameters: TransportParameters,
    /// The lane that carried the handshake.
    pub first_lane: LaneSetup,
    /// Given to the client, to prove a later reset.
    pub reset_token: [u8; 16],
}

/// Why a stream could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The peer allows no more now; [`StreamNotice::Available`](crate::stream::StreamNotice) will tell.
    #[error("peer allows no more streams now")]
    Blocked,
    /// The peer goes away.
    #[error("peer takes no new streams: {0}")]
    GoingAway(CloseCode),
    /// The session is over.
    #[error("session is closed: {0}")]
    Closed(CloseReason),
}

/// One side of a session.
pub struct Session {
    pub(super) side: Side,
    pub(super) id: SessionId,
    pub(super) config: SessionConfig,
    pub(super) state: State,
    /// `None` until the handshake is complete.
    pub(super) keys: Option<KeySchedule>,
    /// `Some` until then.
    pub(super) early: Option<EarlyPhase>,
    /// A server's: the client began with early data that was taken.
    pub(super) began_early: bool,
    /// At a client: what takes its tickets.
    pub(super) ticket_intake: Option<Box<Handshake>>,
    pub(super) key_use: KeyUse,
    pub(super) join_key: Option<Secret<32>>,
    pub(super) guest_exporter: Option<Secret<32>>,
    /// A client that showed a token: nothing else leaves before it is accepted.
    pub(super) is_guest: bool,
    pub(super) reset_token: Secret<16>,
    pub(super) peer_parameters: TransportParameters,
    pub(super) streams: Streams,
    /// Lanes that live; those of a closed session are dead.
    pub(super) lanes: Vec<Lane>,
    pub(super) former_lanes: FormerLanes,
    pub(super) lane_credit: LaneCredit,
    pub(super) tiers: Tiers,
    pub(super) scheduler: Box<dyn Scheduler>,
    pub(super) express: Express,
    pub(super) standing_queue: StandingQueue,
    /// For the scheduler; kept to be filled again.
    pub(super) views: Vec<ChannelView>,
    /// What datagrams may go over beside lanes.
    pub(super) carriers: Carriers,
    /// Frames that any lane may carry.
    pub(super) control: VecDeque<Frame>,
    pub(super) events: VecDeque<Event>,
    pub(super) wakes: VecDeque<LaneId>,
    pub(super) resets: TokenBucket,
    pub(super) idle_frames: TokenBucket,
    /// When this side was last seen to run.
    pub(super) ran_at: Instant,
    /// When it ran again after it had not for a while.
    pub(super) resumed_at: Instant,
    /// When a lane was last added while no other one worked.
    pub(super) rescued_at: Instant,
    pub(super) began_at: Instant,
    /// When it has to end.
    pub(super) expires_at: Instant,
    /// Since when there is no lane.
    pub(super) alone_since: Option<Instant>,
    /// A server's: nothing has shown yet that the client knows that it is accepted.
    pub(super) is_accept_unconfirmed: bool,
    /// A server's: when the same client first began another session.
    pub(super) client_began_anew_at: Option<Instant>,
    pub(super) peer_goes_away: Option<CloseCode>,
    pub(super) ping_sequence: u64,
    /// Totals of the lanes that are forgotten.
    pub(super) past_counters: LaneCounters,
    pub(super) meter: Meter,
    pub(super) throttle: Throttle,
    pub(super) lanes_lost: u64,
}

impl Session {
    /// A session on the lane that carried its handshake. A server's is connected, and tells the client so; a client's
    /// is connecting until then, but may open streams and write: what it sends leaves with the first flight.
    #[must_use]
    pub fn new(parts: SessionParts, config: SessionConfig, now: Instant) -> Self {
        let SessionParts { side, session_id, keys, peer_parameters, first_lane, reset_token } = parts;
        let (keys, secrets, early) = match keys {
            SessionKeys::Complete { secrets, suite } => {
                (Some(KeySchedule::new(suite, side, &secrets)), Some(secrets), None)
            }
            SessionKeys::Pending(key) => (None, None, Some(EarlyPhase::new(key))),
        };
        let join_key = secrets.as_ref().map(|secrets| secrets.join_key().clone());
        // Guests do not resume: there is none where the handshake is not complete.
        let guest_exporter = secrets.as_ref().map(|secrets| secrets.guest_exporter().clone());
        let mut streams = Streams::new(side, config.streams.clone());
        streams.set_peer_limits(
            peer_parameters.max_data,
            peer_parameters.max_stream_data,
            peer_parameters.max_streams_bi,
            peer_parameters.max_streams_uni,
        );
        streams.set_peer_datagram_limit(peer_parameters.datagram_bytes_max as usize);
        let mut session = Self {
            side,
            id: session_id,
            state: State::Connecting,
            keys,
            began_early: side == Side::Server && early.is_some(),
            early,
            ticket_intake: None,
            key_use: KeyUse::new(now),
            join_key,
            guest_exporter,
            is_guest: false,
            reset_token: Secret::new(reset_token),
            lane_credit: LaneCredit::new(match side {
                Side::Client => peer_parameters.max_lanes,
                Side::Server => limits::LANE_CREDIT,
            }),
            peer_parameters,
            streams,
            lanes: Vec::new(),
            former_lanes: FormerLanes::default(),
            tiers: Tiers::default(),
            scheduler: config.scheduler.scheduler(),
            express: Express::default(),
            standing_queue: StandingQueue::default(),
            views: Vec::new(),
            carriers: Carriers::default(),
            control: VecDeque::new(),
            events: VecDeque::new(),
            wakes: VecDeque::new(),
            resets: TokenBucket::new(limits::RESETS_PER_SECOND_MAX, limits::LOAD_BURST),
            idle_frames: TokenBucket::new(limits::IDLE_FRAMES_PER_SECOND_MAX, limits::LOAD_BURST),
            ran_at: now,
            resumed_at: now,
            rescued_at: now,
            began_at: now,
            expires_at: now + config.age_max,
            alone_since: None,
            is_accept_unconfirmed: side == Side::Server,
            client_began_anew_at: None,
            peer_goes_away: None,
            ping_sequence: 0,
            past_counters: LaneCounters::default(),
            meter: Meter::default(),
            throttle: Throttle::default(),
            lanes_lost: 0,
            config,
        };
        let usage = match side {
            Side::Client => first_lane.usage,
            Side::Server => session.peer_parameters.first_lane,
        };
        session.insert_lane(LaneId::FIRST, LaneSetup { usage, ..first_lane }, LaneState::Active, now);
        session.on_lane_works(0, now);
        if side == Side::Server && session.early.is_none() {
            session.accept_client();
        }
        session.events.push_back(Event::LaneUp(LaneId::FIRST));
        session
    }

    /// Takes the peer's own parameters in place of those that everybody grants.
    pub(super) fn take_peer_parameters(&mut self, parameters: TransportParameters) {
        self.streams.raise_peer_limits(
            parameters.max_data,
            parameters.max_stream_data,
            parameters.max_streams_bi,
            parameters.max_streams_uni,
        );
        self.streams.set_peer_datagram_limit(parameters.datagram_bytes_max as usize);
        self.lane_credit.set_maximum(parameters.max_lanes);
        self.peer_parameters = parameters;
        self.wake_lanes();
    }

    // ---- Getters ----

    /// The epoch that this side sends in.
    pub(super) fn epoch(&self) -> Epoch {
        self.keys.as_ref().map_or(Epoch(0), KeySchedule::epoch)
    }

    /// What was chosen for the session.
    pub(super) fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// The session's name.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Which side this is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// What the peer told about itself.
    #[must_use]
    pub fn peer_parameters(&self) -> &TransportParameters {
        &self.peer_parameters
    }

    /// Whether both sides are verified.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected)
    }

    /// Whether the session is closing or closed.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(self.state, State::Closing { .. } | State::Closed(_))
    }

    /// Why the session is closing or closed.
    #[must_use]
    pub fn close_reason(&self) -> Option<&CloseReason> {
        match &self.state {
            State::Closing { reason, .. } | State::Closed(reason) => Some(reason),
            State::Connecting | State::Proving { .. } | State::Connected => None,
        }
    }

    /// A snapshot of the keys that open packets.
    #[must_use]
    pub fn opening_keys(&self) -> OpeningKeys {
        self.keys.as_ref().map_or_else(OpeningKeys::none, KeySchedule::opening_keys)
    }

    /// Lanes that live.
    #[must_use]
    pub fn lane_count(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.is_alive()).count()
    }

    /// Lanes that live and are not suspect.
    #[must_use]
    pub fn healthy_lane_count(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.is_healthy()).count()
    }

    /// How a lane is doing.
    #[must_use]
    pub fn lane_state(&self, id: LaneId) -> Option<LaneState> {
        self.known_lane(id).map(|lane| lane.state)
    }

    /// Smallest round-trip time among the lanes.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        let measured = self.lanes.iter().filter(|lane| lane.is_alive()).filter_map(|lane| lane.round_trip.smoothed());
        measured.min().unwrap_or(ROUND_TRIP_UNKNOWN)
    }

    /// The shortest round trip of a lane; `None` while it was not measured.
    #[must_use]
    pub fn lane_round_trip_min(&self, id: LaneId) -> Option<Duration> {
        self.known_lane(id)?.round_trip.minimum()
    }

    /// The shortest round trip of the lanes, without their queues; zero while none was measured, which a window does not grow
    /// by.
    pub(super) fn shortest_round_trip(&self) -> Duration {
        let lanes = self.lanes.iter().filter(|lane| lane.is_alive());
        lanes.filter_map(|lane| lane.round_trip.minimum()).min().unwrap_or_default()
    }

    /// Whether streams have bytes that the peer has not acknowledged, or datagrams wait.
    #[must_use]
    pub fn has_outstanding_data(&self) -> bool {
        // What dead lanes carried is in the streams again.
        self.streams.unsent_bytes() > 0
            || self.streams.has_datagrams()
            || self.lanes.iter().any(|lane| lane.is_alive() && !lane.sent.is_empty())
            || self.streams.has_ready()
    }

    /// Streams that are not over.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.count()
    }

    /// Bytes held for sending and for reading.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.streams.held_bytes() + self.early.as_ref().map_or(0, |early| early.held_bytes as u64)
    }

    // ---- The application ----

    /// Opens a stream.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&mut self, direction: Direction, priority: Priority) -> Result<StreamId, OpenError> {
        self.check_open()?;
        let id = self.streams.open(direction, priority, false);
        self.wake_lanes();
        id.ok_or(OpenError::Blocked)
    }

    /// Opens a stream of which the peer may take what is sent in early data at once: that it is sent twice, by somebody
    /// who has recorded it, does no harm.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_replay_safe(&mut self, direction: Direction, priority: Priority) -> Result<StreamId, OpenError> {
        self.check_open()?;
        let id = self.streams.open(direction, priority, true);
        self.wake_lanes();
        id.ok_or(OpenError::Blocked)
    }

    fn check_open(&self) -> Result<(), OpenError> {
        if let Some(reason) = self.close_reason() {
            return Err(OpenError::Closed(reason.clone()));
        }
        self.peer_goes_away.map_or(Ok(()), |code| Err(OpenError::GoingAway(code)))
    }

    /// The next stream that the peer opened.
    pub fn accept(&mut self, direction: Direction) -> Option<StreamId> {
        self.streams.accept(direction)
    }

    /// Writes bytes to a stream, copying them: returns how many were taken.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        let written = self.streams.write(id, data);
        self.wake_lanes();
        written
    }

    /// How many bytes a stream takes now, at least one.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write_room(&mut self, id: StreamId) -> Result<usize, WriteError> {
        self.streams.write_room(id)
    }

    /// Writes a chunk to a stream, whole and without copying.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write_chunk(&mut self, id: StreamId, data: Bytes) -> Result<(), WriteError> {
        let written = self.streams.write_chunk(id, data);
        self.wake_lanes();
        written
    }

    /// Ends a stream's sending half.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn finish(&mut self, id: StreamId) -> Result<(), WriteError> {
        let finished = self.streams.finish(id);
        self.wake_lanes();
        finished
    }

    /// Gives up a stream's sending half.
    pub fn reset(&mut self, id: StreamId, code: StreamCode) {
        self.drop_queue_probe(id);
        self.streams.reset(id, code);
        self.wake_lanes();
    }

    /// Wants no more of a stream.
    pub fn stop(&mut self, id: StreamId, code: StreamCode, now: Instant) {
        let round_trip = self.round_trip();
        self.streams.stop(id, code, now, round_trip);
        self.wake_lanes();
    }

    /// Reads the next bytes of a stream.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&mut self, id: StreamId, size_max: usize, now: Instant) -> Result<ReadOutcome, ReadError> {
        let round_trip = self.round_trip();
        let outcome = self.streams.read(id, size_max, now, round_trip);
        self.wake_lanes();
        outcome
    }

    /// Ends the session after `life`, unless it ends earlier by its age: a certificate that was shown is over by then.
    pub fn limit_life(&mut self, life: Duration) {
        self.expires_at = self.expires_at.min(self.began_at + life);
    }

    /// How long the session lives in all, and when it began.
    #[must_use]
    pub fn life(&self) -> (Duration, Instant) {
        (self.expires_at.saturating_duration_since(self.began_at), self.began_at)
    }

    /// When another session should take the place of this one: a tenth of its life before the end. `None` when a certificate
    /// ends it too soon for that.
    #[must_use]
    pub fn replaced_at(&self) -> Option<Instant> {
        let (life, began_at) = self.life();
        let is_worth_it = life >= limits::SESSION_AGE_REPLACED_MIN.min(self.config.age_max);
        is_worth_it.then(|| began_at + life - life / 10)
    }

    /// The streams, for questions that change nothing.
    #[must_use]
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Sets how urgent this side's bytes of a stream are.
    pub fn set_priority(&mut self, id: StreamId, priority: Priority) {
        self.streams.set_priority(id, priority);
    }

    /// Tells the peer to open no more streams.
    pub fn go_away(&mut self, code: CloseCode, reason: &str) {
        self.control.push_back(Frame::GoAway { code, reason: cut(reason) });
        self.wake_lanes();
    }

    /// Closes the session: streams end at once, the peer is told.
    pub fn close(&mut self, code: CloseCode, reason: &str, now: Instant) {
        self.begin_closing(code, reason, CloseReason::Local { code }, now);
    }

    /// The peer proved that it does not know the session any more. Returns whether the proof was right.
    pub fn handle_reset(&mut self, token: &[u8; 16], now: Instant) -> bool {
        let is_proven = self.side == Side::Client
            && *self.reset_token.expose() != [0; 16]
            && crate::base::equal_in_constant_time(token, self.reset_token.expose());
        if is_proven {
            self.become_closed(CloseReason::Reset, now);
        }
        is_proven
    }

    /// At a server: the same client, authenticated, has begun another session. If nothing shows that it has the accept of this
    /// one, it may be that it cannot come back to it: without channels the session is then kept for
    /// [`limits::SURVIVE_UNCONFIRMED`] at most.
    pub fn handle_newer_session(&mut self, now: Instant) {
        self.client_began_anew_at.get_or_insert(now);
    }

    // ---- Outputs ----

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(notice) = self.streams.poll_notice() {
            return Some(Event::Stream(notice));
        }
        self.events.pop_front()
    }

    /// Lanes that have something to send and should ask for it.
    pub fn poll_wake(&mut self) -> Option<LaneId> {
        self.wakes.pop_front()
    }

    // ---- Inner parts ----

    /// Of a lane that lives.
    pub(super) fn lane_index(&self, id: LaneId) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.id == id)
    }

    /// The lanes that live, and those that are remembered.
    pub(super) fn known_lanes(&self) -> impl Iterator<Item = &Lane> {
        self.former_lanes.iter().chain(&self.lanes)
    }

    /// A lane that lives, or is remembered.
    pub(super) fn known_lane(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.id == id).or_else(|| self.former_lanes.get(id))
    }

    /// The same, to change it.
    pub(super) fn known_lane_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.id == id).or_else(|| self.former_lanes.get_mut(id))
    }

    pub(super) fn fail(&mut self, fault: SessionFault, now: Instant) {
        let (code, message) = (fault.close_code(), fault.to_string());
        self.begin_closing(code, &message, CloseReason::Fault(fault), now);
    }

    fn begin_closing(&mut self, code: CloseCode, message: &str, reason: CloseReason, now: Instant) {
        if self.is_ending() {
            return;
        }
        if self.lane_count() == 0 || self.keys.is_none() {
            self.become_closed(reason, now);
            return;
        }
        self.state = State::Closing { code, message: cut(message), reason, until: now + CLOSING_TIME };
        for lane in &mut self.lanes {
            if lane.is_alive() && std::mem::take(&mut lane.is_waiting) {
                self.wakes.push_back(lane.id);
            }
        }
    }

    pub(super) fn become_closed(&mut self, reason: CloseReason, now: Instant) {
        if matches!(self.state, State::Closed(_)) {
            return;
        }
        self.state = State::Closed(reason.clone());
        for index in 0..self.lanes.len() {
            if self.lanes[index].is_alive() {
                self.lanes[index].state = LaneState::Dead;
                self.lanes[index].died_at = Some(now);
                self.events.push_back(Event::LaneDown(self.lanes[index].id, LaneEnd::SessionClosed));
            }
        }
        self.control.clear();
        self.wakes.clear();
        self.events.push_back(Event::Closed(reason));
    }
}

fn cut(reason: &str) -> String {
    let mut end = reason.len().min(limits::REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}
