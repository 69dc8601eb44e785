//! When keys change: by packets, bytes and time over all lanes together, one step at a time.

use std::time::{Duration, Instant};

use super::event::{CloseReason, Event};
use super::lane::Protection;
use super::state::Session;
use crate::base::{PacketNumber, limits};
use crate::crypto::KeySchedule;
use crate::wire::Frame;

/// How much the current keys were used.
#[derive(Debug)]
pub(super) struct KeyUse {
    packets: u64,
    bytes: u64,
    since: Instant,
    /// A packet of the peer in the current epoch came: the peer has these keys.
    is_confirmed: bool,
    /// When the keys before are dropped.
    previous_until: Option<Instant>,
}

impl KeyUse {
    pub(super) fn new(now: Instant) -> Self {
        Self { packets: 0, bytes: 0, since: now, is_confirmed: false, previous_until: None }
    }

    pub(super) fn on_sealed(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }

    pub(super) fn on_opened_current(&mut self) {
        self.is_confirmed = true;
    }
}

impl Session {
    /// Asks for new keys now, as the limits would. Does nothing while the last step is not over on all lanes.
    pub fn update_keys(&mut self, now: Instant) {
        if self.may_step() {
            self.step_keys(now);
        }
    }

    /// One step at a time: the peer has the current keys, and no lane needs the ones before. Else a second step would
    /// take them from packets that are still on their way.
    fn may_step(&self) -> bool {
        !self.is_ending() && self.keys.is_some() && self.key_use.is_confirmed && self.key_use.previous_until.is_none()
    }

    /// Before a packet is sealed: steps the keys when they were used enough.
    pub(super) fn before_sealing(&mut self, now: Instant) {
        let used = &self.key_use;
        let is_due = used.packets >= self.config.key_packets_max
            || used.bytes >= self.config.key_bytes_max
            || now.saturating_duration_since(used.since) >= self.config.key_age_max;
        if is_due && self.may_step() {
            self.step_keys(now);
        } else if self.keys.as_ref().is_some_and(|keys| used.packets >= keys.confidentiality_limit()) {
            self.become_closed(CloseReason::KeysExhausted, now);
        }
    }

    /// The peer sealed with the next keys, or we want to: both directions step together.
    pub(super) fn step_keys(&mut self, now: Instant) {
        if !self.keys.as_mut().is_some_and(KeySchedule::advance) {
            self.become_closed(CloseReason::KeysExhausted, now);
            return;
        }
        let timeout = self.known_lanes().map(|lane| lane.round_trip.suspect_timeout()).max().unwrap_or_default() * 3;
        self.key_use =
            KeyUse { previous_until: Some(now + timeout.max(limits::PREVIOUS_KEY_TIME)), ..KeyUse::new(now) };
        let epoch = self.epoch();
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_alive() && lane.protection == Protection::Sealed) {
            lane.epoch_start = lane.next_number.unwrap_or(PacketNumber::MAX);
            lane.is_switched = false;
            // A packet on each lane, so that all of them leave the old keys behind.
            lane.control.push_back(Frame::KeyUpdate { epoch });
            if std::mem::take(&mut lane.is_waiting) {
                self.wakes.push_back(lane.id);
            }
        }
        self.events.push_back(Event::KeysUpdated(epoch));
    }

    pub(super) fn previous_keys_deadline(&self) -> Option<Instant> {
        self.key_use.previous_until
    }

    pub(super) fn drop_previous_keys(&mut self, now: Instant) {
        let Some(until) = self.key_use.previous_until else { return };
        let epoch = self.epoch();
        let mut sealed = self.lanes.iter().filter(|lane| lane.is_alive() && lane.protection == Protection::Sealed);
        let is_switched = sealed.all(|lane| lane.is_switched && lane.received_epoch == epoch);
        if until <= now || is_switched {
            self.key_use.previous_until = None;
            if let Some(keys) = &mut self.keys {
                keys.forget_previous();
            }
        }
    }

    /// When keys are due by time alone. An idle session has no packet to seal, so it is not woken for this.
    #[must_use]
    pub fn key_age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.key_use.since)
    }
}
