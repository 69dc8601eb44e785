//! What a session knows of one lane.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::copies::Copies;
use super::rtt::{DeliveryRate, RoundTrip};
use crate::base::{Epoch, LaneId, PacketNumber, StreamId, limits};
use crate::wire::{Ack, Frame, LaneUsage};

/// What carries a lane, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneKind {
    /// A TCP connection.
    Tcp = 0,
    /// A Unix socket.
    Unix = 1,
    /// TLS over TCP.
    Tls = 2,
    /// A stream of a QUIC connection.
    Quic = 3,
}

impl LaneKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Unix, Self::Tls, Self::Quic];

    /// The word for it in metrics: the scheme of its addresses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }

    /// The kind of a number on the wire.
    #[must_use]
    pub fn from_wire(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// How packets of such a lane are protected, unless sealing is asked for.
    #[must_use]
    pub fn protection(self) -> Protection {
        match self {
            Self::Tcp | Self::Unix => Protection::Sealed,
            Self::Tls | Self::Quic => Protection::Channel,
        }
    }
}

/// Who protects the packets of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The session's traffic keys.
    Sealed,
    /// The channel itself.
    Channel,
}

/// How a lane is added.
#[derive(Clone, Copy, Debug)]
pub struct LaneSetup {
    /// What carries it.
    pub kind: LaneKind,
    /// How it is to be used. A server takes the client's word instead.
    pub usage: LaneUsage,
    /// The first lane of the channel that carries it, where that is another one.
    pub channel: Option<LaneId>,
    /// A number for the path under it, where that is known: lanes with the same one share a path. Each side has its own.
    pub path: Option<u64>,
}

impl LaneSetup {
    /// A lane that is used as usual.
    #[must_use]
    pub const fn new(kind: LaneKind) -> Self {
        Self { kind, usage: LaneUsage::PLAIN, channel: None, path: None }
    }

    /// How long the join may take.
    #[must_use]
    pub const fn join_timeout(&self) -> Duration {
        if self.channel.is_some() { limits::FURTHER_LANE_JOIN_TIMEOUT } else { limits::JOIN_TIMEOUT }
    }
}

/// How a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneState {
    /// Asked for by this side, not yet admitted by the peer. Carries data.
    Joining,
    /// Carries data.
    Active,
    /// Acknowledges nothing; carries data only when no other lane does.
    Suspect,
    /// Over: kept only for late acknowledgements.
    Dead,
}

/// Part of a sent packet that matters when the packet is acknowledged or lost.
#[derive(Debug)]
pub(super) enum SentItem {
    Stream {
        id: StreamId,
        range: Range<u64>,
        fin: bool,
    },
    /// Sent again when it is lost.
    Control(Frame),
    /// Tells the client that it is accepted; not sent again.
    Accepted,
}

/// A packet that waits for its acknowledgement.
#[derive(Debug)]
pub(super) struct SentPacket {
    pub(super) number: PacketNumber,
    pub(super) sent_at: Instant,
    pub(super) bytes: u32,
    /// What it was expected to take on the way, by itself.
    pub(super) time: Duration,
    pub(super) items: Vec<SentItem>,
    /// The items went out again elsewhere.
    pub(super) is_reinjected: bool,
}

/// The receiving direction of a lane: what has to be acknowledged.
#[derive(Debug)]
pub(super) struct Received {
    /// All packets below were received.
    pub(super) next: PacketNumber,
    pub(super) newest_at: Instant,
    /// Bytes of streams and datagrams since the last acknowledgement.
    pub(super) unacknowledged_bytes: u64,
    /// When an acknowledgement has to leave.
    pub(super) ack_due: Option<Instant>,
    /// It has to leave once more, by another lane.
    pub(super) is_repeated: bool,
}

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: LaneId,
    pub(super) setup: LaneSetup,
    pub(super) protection: Protection,
    pub(super) state: LaneState,
    pub(super) next_number: Option<PacketNumber>,
    /// Sent in order; those that need no acknowledgement are left out.
    pub(super) sent: VecDeque<SentPacket>,
    pub(super) in_flight_bytes: u64,
    pub(super) received: Received,
    pub(super) round_trip: RoundTrip,
    /// When a round trip was last kept as a sample.
    pub(super) sampled_at: Option<Instant>,
    pub(super) rate: DeliveryRate,
    /// Frames that make sense on this lane only.
    pub(super) control: VecDeque<Frame>,
    /// Frames that another lane carries, too, and their size.
    pub(super) copies: Copies,
    /// When the client began to join it, until its round trip is known.
    pub(super) joining_since: Option<Instant>,
    /// From when on data may return to it from a worse tier; `None` until it was shown to work.
    pub(super) trusted_at: Option<Instant>,
    /// The nonce that the client has to echo.
    pub(super) expected_confirmation: Option<[u8; 16]>,
    pub(super) confirmation_due: Option<Instant>,
    /// Asked for a packet and got none: has to be woken.
    pub(super) is_waiting: bool,
    pub(super) has_sent_close: bool,
    pub(super) last_received_at: Instant,
    pub(super) last_progress_at: Instant,
    /// When another lane of its channel was acknowledged, while this one waits for that and has not been since.
    pub(super) overtaken_at: Option<Instant>,
    /// When the transport under it was acknowledged anything last, if it tells.
    pub(super) transport_heard_at: Option<Instant>,
    /// Nothing was given back since the last progress for time in which this side did not run.
    pub(super) has_grace: bool,
    pub(super) is_pinged: bool,
    /// Of the newest packet that was received.
    pub(super) received_epoch: Epoch,
    /// The first packet under the current keys.
    pub(super) epoch_start: PacketNumber,
    /// The peer has acknowledged a packet under the current keys: none of the keys before is on its way.
    pub(super) is_switched: bool,
    pub(super) died_at: Option<Instant>,
    pub(super) counters: LaneCounters,
}

/// Totals of one lane, or of several.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LaneCounters {
    pub(super) packets_sent: u64,
    pub(super) packets_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) fragments_sent: u64,
    pub(super) fragments_received: u64,
    pub(super) padding_bytes: u64,
    pub(super) reinjected_bytes: u64,
}

impl LaneCounters {
    /// Adds those of another lane.
    pub(super) fn add(&mut self, other: &Self) {
        self.packets_sent += other.packets_sent;
        self.packets_received += other.packets_received;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.fragments_sent += other.fragments_sent;
        self.fragments_received += other.fragments_received;
        self.padding_bytes += other.padding_bytes;
        self.reinjected_bytes += other.reinjected_bytes;
    }
}

impl Lane {
    pub(super) fn new(id: LaneId, setup: LaneSetup, protection: Protection, state: LaneState, now: Instant) -> Self {
        Self {
            id,
            setup,
            protection,
            state,
            next_number: Some(PacketNumber(0)),
            sent: VecDeque::new(),
            in_flight_bytes: 0,
            received: Received {
                next: PacketNumber(0),
                newest_at: now,
                unacknowledged_bytes: 0,
                ack_due: None,
                is_repeated: false,
            },
            round_trip: RoundTrip::default(),
            sampled_at: None,
            rate: DeliveryRate::default(),
            control: VecDeque::new(),
            copies: Copies::default(),
            joining_since: None,
            trusted_at: None,
            expected_confirmation: None,
            confirmation_due: None,
            is_waiting: false,
            has_sent_close: false,
            last_received_at: now,
            last_progress_at: now,
            overtaken_at: None,
            transport_heard_at: None,
            has_grace: true,
            is_pinged: false,
            received_epoch: Epoch(0),
            epoch_start: PacketNumber(0),
            is_switched: false,
            died_at: None,
            counters: LaneCounters::default(),
        }
    }

    /// The channel under it, by the first of its lanes.
    pub(super) fn channel(&self) -> LaneId {
        self.setup.channel.unwrap_or(self.id)
    }

    /// Whether the lane has a channel.
    pub(super) fn is_alive(&self) -> bool {
        self.state != LaneState::Dead
    }

    /// Whether the lane is trusted with data.
    pub(super) fn is_healthy(&self) -> bool {
        matches!(self.state, LaneState::Active | LaneState::Joining)
    }

    /// Since when it has acknowledged nothing of what is on its way.
    pub(super) fn unacknowledged_since(&self) -> Option<Instant> {
        let oldest = self.sent.front()?;
        Some(oldest.sent_at.max(self.last_progress_at))
    }

    /// Since when neither the lane nor the transport under it has heard anything of what is on its way. What the transport
    /// says stands in for so long only.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        let since = self.unacknowledged_since()?;
        let heard = self.transport_heard_at.map(|at| at.min(since + limits::TRANSPORT_WORD_MAX));
        Some(since.max(heard.unwrap_or(since)))
    }

    /// When the lane has been silent for longer than the path explains, packets that take their time apart.
    pub(super) fn silence_deadline(&self) -> Option<Instant> {
        self.is_healthy().then(|| Some(self.unacknowledged_since()? + self.suspect_timeout())).flatten()
    }

    /// On a QUIC lane a datagram that was lost twice holds up what is behind it for round trips, while the connection is
    /// well and tells nothing of it. A fresh one would begin at its slowest.
    pub(super) fn suspect_timeout(&self) -> Duration {
        let timeout = self.round_trip.suspect_timeout();
        let is_quic = self.setup.kind == LaneKind::Quic && self.round_trip.smoothed().is_some();
        if is_quic { timeout.max(limits::QUIC_SUSPECT_TIMEOUT_MIN) } else { timeout }
    }

    /// How long the oldest packet on its way may stay unacknowledged: what the path explains, and the time that the packet
    /// itself takes.
    pub(super) fn patience(&self) -> Option<Duration> {
        Some(self.suspect_timeout() + self.sent.front()?.time)
    }

    pub(super) fn dead_deadline(&self, dead_timeout: Duration) -> Option<Instant> {
        Some(self.silent_since()? + dead_timeout.max(self.suspect_timeout() * 3))
    }

    /// When a dead lane is forgotten; one that carried something not before `forgettable_from`.
    pub(super) fn forget_at(&self, forgettable_from: Option<Instant>) -> Option<Instant> {
        let due = self.died_at? + limits::DEAD_LANE_MEMORY;
        let has_carried = !self.sent.is_empty() || self.received.next > PacketNumber(0);
        if has_carried { Some(due.max(forgettable_from?)) } else { Some(due) }
    }

    /// The acknowledgement of what arrived.
    pub(super) fn take_ack(&mut self, now: Instant) -> Frame {
        let received = &mut self.received;
        received.ack_due = None;
        received.is_repeated = false;
        received.unacknowledged_bytes = 0;
        let delay_us = now.saturating_duration_since(received.newest_at).as_micros() as u64;
        Frame::Ack(Ack { lane_id: self.id, next_packet_number: received.next, delay_us, ranges: Vec::new() })
    }

    /// Whether there is something that only this lane can send, now.
    pub(super) fn has_own_work(&self, now: Instant) -> bool {
        !self.control.is_empty() || !self.copies.is_empty() || self.received.ack_due.is_some_and(|due| due <= now)
    }
}
