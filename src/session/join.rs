//! How lanes are added to a running session: proofs, credits, confirmation.

use std::time::{Duration, Instant};

use super::event::Event;
use super::lane::{Lane, LaneKind, LaneSetup, LaneState, Protection};
use super::state::{Session, State};
use crate::base::{Entropy, LaneId, RangeSet, Side, equal_in_constant_time, limits};
use crate::crypto::join::JoinTranscript;
use crate::wire::{Frame, Head, Join, Joined};

/// Which lane ids may be used, and which were.
#[derive(Debug)]
pub(super) struct LaneCredit {
    maximum: u32,
    used: RangeSet,
}

impl LaneCredit {
    pub(super) fn new(maximum: u32) -> Self {
        let mut used = RangeSet::new();
        used.insert(0..1);
        Self { maximum, used }
    }

    pub(super) fn was_used(&self, id: LaneId) -> bool {
        self.used.iter().any(|range| range.contains(&u64::from(id.0)))
    }

    /// Takes a higher limit. Returns whether it was news.
    pub(super) fn set_maximum(&mut self, maximum: u32) -> bool {
        let is_news = maximum > self.maximum;
        self.maximum = self.maximum.max(maximum);
        is_news
    }

    /// The lowest id that was never used.
    fn next(&self) -> Option<LaneId> {
        let next = self.used.iter().next_back().map_or(0, |range| range.end);
        u32::try_from(next).ok().filter(|next| *next < self.maximum).map(LaneId)
    }

    fn take(&mut self, id: LaneId) -> bool {
        let is_free = id.0 < self.maximum && !self.was_used(id);
        if is_free {
            self.used.insert(u64::from(id.0)..u64::from(id.0) + 1);
        }
        is_free
    }

    /// A new limit to tell the peer, once half of the credit is used up.
    fn poll_update(&mut self) -> Option<u32> {
        let used_up_to = self.used.iter().next_back().map_or(0, |range| range.end) as u32;
        (self.maximum - used_up_to < limits::LANE_CREDIT / 2).then(|| {
            self.maximum = used_up_to.saturating_add(limits::LANE_CREDIT);
            self.maximum
        })
    }
}

/// A join to be sent by a client, and what its answer is checked against.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The head of the message.
    pub head: Head,
    /// The message.
    pub join: Join,
    /// How long the answer may take.
    pub timeout: Duration,
    transcript: JoinTranscript,
}

/// Why a join was refused. Strangers are not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefused {
    /// The session is closing, or not connected yet.
    #[error("session takes no lanes now")]
    NotOpen,
    /// Only the dialling side of a session joins.
    #[error("join from the wrong side")]
    WrongSide,
    /// The proof does not match.
    #[error("proof of the join is wrong")]
    WrongProof,
    /// The lane id was used before, or is above the credit: a repetition, or a lie.
    #[error("lane {0} is not free")]
    LaneNotFree(LaneId),
    /// As many lanes live as may.
    #[error("session has {} lanes already", limits::LANES_MAX)]
    TooManyLanes,
    /// The kind in the message is not the channel's.
    #[error("channel is of another kind than the join says")]
    WrongKind,
    /// The message is of a version that the session does not speak.
    #[error("join of another version")]
    WrongVersion,
}

impl Session {
    /// Begins to join a channel to the session: the message to send, and the lane that it makes. The lane carries data
    /// at once, so that a join costs no round trip. `None` when the session takes no lane now.
    pub fn begin_join(
        &mut self,
        setup: LaneSetup,
        channel_binding: &[u8],
        entropy: &mut dyn Entropy,
        now: Instant,
    ) -> Option<JoinRequest> {
        if self.side != Side::Client || !self.is_connected() || self.lane_count() >= limits::LANES_MAX as usize {
            return None;
        }
        let join_key = self.join_key.clone()?;
        let lane_id = self.lane_credit.next()?;
        self.lane_credit.take(lane_id);
        let mut nonce = [0; 16];
        entropy.fill(&mut nonce);
        let transcript = JoinTranscript {
            version: self.version(),
            session_id: self.id,
            lane_id,
            lane_count: 1,
            usage: setup.usage,
            kind: setup.kind as u32,
            nonce,
            channel_binding: channel_binding.to_vec(),
        };
        let join = Join {
            kind: transcript.kind,
            nonce,
            channel_binding: channel_binding.to_vec().into(),
            lane_count: 1,
            mac: transcript.client_mac(&join_key),
            usage: setup.usage,
        };
        let head = Head { version: transcript.version, session_id: Some(self.id), lane_id, ..Head::default() };
        self.insert_lane(lane_id, setup, LaneState::Joining, now);
        if let Some(lane) = self.lanes.last_mut() {
            lane.joining_since = Some(now);
        }
        Some(JoinRequest { head, join, timeout: setup.join_timeout(), transcript })
    }

    /// Takes the server's answer to a join. Returns whether its proof is right and the lane still wanted; else the lane
    /// has to be removed.
    pub fn complete_join(&mut self, request: &JoinRequest, joined: &Joined) -> bool {
        let Some(join_key) = &self.join_key else { return false };
        let expected = request.transcript.server_mac(join_key, &joined.nonce);
        if !equal_in_constant_time(&expected, &joined.mac) {
            return false;
        }
        let Some(index) = self.lane_index(request.head.lane_id) else { return false };
        let lane = &mut self.lanes[index];
        if !lane.is_alive() {
            return false;
        }
        if lane.state == LaneState::Joining {
            lane.state = LaneState::Active;
            self.alone_since = None;
        }
        lane.control.push_back(Frame::JoinConfirm { nonce: joined.nonce });
        // The answer has just come, which this side has not told the session yet.
        let now = self.ran_at.max(lane.last_received_at);
        self.events.push_back(Event::LaneUp(request.head.lane_id));
        self.on_lane_works(index, now);
        self.wake_lane(index);
        true
    }

    /// Checks a join, and adds the lane when its proof is right. Nothing changes when it is not.
    ///
    /// # Errors
    /// [`JoinRefused`]; the channel has to be closed.
    pub fn handle_join(
        &mut self,
        head: &Head,
        join: &Join,
        setup: LaneSetup,
        channel_binding: &[u8],
        entropy: &mut dyn Entropy,
        now: Instant,
    ) -> Result<Joined, JoinRefused> {
        let transcript = JoinTranscript {
            version: head.version,
            session_id: self.id,
            lane_id: head.lane_id,
            lane_count: join.lane_count,
            usage: join.usage,
            kind: join.kind,
            nonce: join.nonce,
            // What this side sees of the channel, not what the message says.
            channel_binding: channel_binding.to_vec(),
        };
        if self.side != Side::Server {
            return Err(JoinRefused::WrongSide);
        }
        let join_key = self.join_key.clone().ok_or(JoinRefused::NotOpen)?;
        if !equal_in_constant_time(&transcript.client_mac(&join_key), &join.mac) {
            return Err(JoinRefused::WrongProof);
        }
        if !matches!(self.state, State::Connected) {
            return Err(JoinRefused::NotOpen);
        }
        if !self.config.versions.contains(&head.version) {
            return Err(JoinRefused::WrongVersion);
        }
        if LaneKind::from_wire(join.kind) != Some(setup.kind) || join.lane_count != 1 {
            return Err(JoinRefused::WrongKind);
        }
        if self.lane_count() >= limits::LANES_MAX as usize {
            return Err(JoinRefused::TooManyLanes);
        }
        if !self.lane_credit.take(head.lane_id) {
            return Err(JoinRefused::LaneNotFree(head.lane_id));
        }
        if let Some(maximum) = self.lane_credit.poll_update() {
            self.control.push_back(Frame::MaxLanes { maximum });
        }
        let mut nonce = [0; 16];
        entropy.fill(&mut nonce);
        let mac = transcript.server_mac(&join_key, &nonce);
        self.insert_lane(head.lane_id, LaneSetup { usage: join.usage, ..setup }, LaneState::Active, now);
        if let Some(lane) = self.lanes.last_mut() {
            lane.expected_confirmation = Some(nonce);
            lane.confirmation_due = Some(now + setup.join_timeout());
            // Both sides measure the round trip by it, before they trust the lane with data.
            self.ping_sequence += 1;
            lane.control.push_back(Frame::Ping { sequence: self.ping_sequence });
        }
        self.events.push_back(Event::LaneUp(head.lane_id));
        Ok(Joined { nonce, mac })
    }

    pub(super) fn insert_lane(&mut self, id: LaneId, setup: LaneSetup, state: LaneState, now: Instant) {
        let protection = if self.config.seal_always { Protection::Sealed } else { setup.kind.protection() };
        let mut lane = Lane::new(id, setup, protection, state, now);
        lane.received_epoch = self.epoch();
        self.repeat_acks(now);
        self.lanes.push(lane);
        // That a join has begun says nothing of the peer: something else may have taken the connection.
        if state == LaneState::Active {
            self.alone_since = None;
        }
        self.choose_tier(now);
        self.reinject_suspects();
    }
}
