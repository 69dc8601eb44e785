//! The channels of one session, kept up.
//!
//! In which order addresses are used is decided beforehand (`places`), and both sides of the session know it: here is only
//! who is dialled, and when.
//!
//! Each address has as many *slots* as channels are wanted. A slot whose lane died, or acknowledges nothing, is dialled
//! again: with a growing, jittered pause (`slot`) while others carry the data, and at once and side by side while none
//! does, because then streams wait. Dialling afresh during an outage beats waiting for the timers of old connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::dial::Dialler;
use super::error::ConnectError;
use super::places::Place;
use super::race::HEAD_START;
use super::session::Session;
use super::shared::LaneEvent;
use super::slot::{EarlyDeaths, Slot, jittered};
use crate::base::{CloseCode, LaneId, limits};
use crate::session::{CloseReason, LaneEnd, LaneState};

/// Pause between attempts while no channel works: with a round trip more, data flows within half a second of a path's
/// return.
const RESCUE_INTERVAL: Duration = Duration::from_millis(150);

/// The same when the channels that are made die at once, after a while: what they carry in between is all there is.
const RESCUE_INTERVAL_IN_VAIN: Duration = Duration::from_millis(500);

/// The same when no stream waits, after a while.
const RESCUE_INTERVAL_IDLE: Duration = Duration::from_secs(2);

/// How long that is so until attempts become rare.
const RESCUE_PATIENCE: Duration = Duration::from_secs(10);

/// Longest time of an attempt while no channel works. Over a path that is back it takes a round trip; the kernel
/// repeats a lost SYN after a second only, so it is not worth waiting for.
const RESCUE_TIMEOUT: Duration = Duration::from_millis(1200);

/// Joins that wait for their answer at once while no channel works. At `RESCUE_INTERVAL` the oldest of them has then
/// waited longer than any round trip on earth.
const JOINING_MAX: usize = 8;

/// How long a better address has to work before channels to the next one are given up.
const FAIL_BACK_TIME: Duration = Duration::from_secs(5);

/// Time for an attempt at an address that others stand in for. What answers at all does so within a second; the kernel
/// repeats a lost SYN after one, and again after two more.
const PREFERRED_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest pause between such attempts: the link should not stay for long on what it does not prefer, and a packet in
/// some seconds costs nothing.
const PREFERRED_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Whether something works, and since when that is so.
#[derive(Clone, Copy)]
struct Health {
    works: bool,
    since: Instant,
}

/// What a dial ended in: the slot that it was for, and the lane.
type DialOutcome = (usize, Result<LaneId, ConnectError>);

/// The channels of one session.
pub(super) struct Pool<'a> {
    dialler: &'a Arc<Dialler>,
    /// How the addresses are used.
    places: &'a [Place],
    /// Of each rank, whether it or a better one works.
    ranks: Vec<Health>,
    session: Session,
    slots: Vec<Slot>,
    dials: JoinSet<DialOutcome>,
    /// Lanes that the peer has not admitted yet, oldest first, and the slots that they were dialled for. Until then they
    /// fill no slot: a path may take connections and still lead nowhere.
    joining: Vec<(LaneId, usize)>,
    next_rescue: Instant,
    /// Since when no channel works.
    alone_since: Option<Instant>,
    early_deaths: EarlyDeaths,
    /// Attempts to rescue, which take the addresses in turn.
    rescue_turn: usize,
}

impl<'a> Pool<'a> {
    pub(super) fn new(dialler: &'a Arc<Dialler>, places: &'a [Place], session: Session, first_address: usize) -> Self {
        let now = Instant::now();
        let mut slots: Vec<_> = dialler
            .config
            .addresses
            .iter()
            .enumerate()
            .flat_map(|(address, wanted)| (0..wanted.count).map(move |_| address))
            .map(|address| Slot::new(address, now))
            .collect();
        slots.truncate(limits::LINK_LANES_MAX as usize);
        if let Some(first) = slots.iter_mut().find(|slot| slot.address == first_address) {
            first.put(LaneId::FIRST, now);
        }
        let rank_count = places.iter().map(|place| place.rank + 1).max().unwrap_or_default();
        Self {
            dialler,
            places,
            ranks: vec![Health { works: false, since: now }; rank_count],
            session,
            slots,
            dials: JoinSet::new(),
            joining: Vec::new(),
            next_rescue: now,
            alone_since: None,
            early_deaths: EarlyDeaths::default(),
            rescue_turn: 0,
        }
    }

    /// Keeps the channels up until the session is over: why it is.
    pub(super) async fn run(mut self, mut events: mpsc::UnboundedReceiver<LaneEvent>) -> CloseReason {
        loop {
            let next = self.start_dials(Instant::now());
            tokio::select! {
                event = events.recv() => match event {
                    Some(LaneEvent::Closed(reason)) => return reason,
                    Some(event) => self.on_event(&event),
                    None => return self.session.closed().await,
                },
                Some(outcome) = self.dials.join_next(), if !self.dials.is_empty() => {
                    if let Ok(outcome) = outcome {
                        self.on_dialled(outcome);
                    }
                }
                () = sleep_until(next) => {}
            }
        }
    }

    /// Starts what is due: when the next will be.
    fn start_dials(&mut self, now: Instant) -> Option<Instant> {
        self.look_at_ranks(now);
        let fail_back = self.fail_back(now);
        if self.slots.iter().any(|slot| !slot.needs_lane()) {
            self.alone_since = None;
            let mut next = fail_back;
            for index in 0..self.slots.len() {
                if !self.slots[index].is_waiting() {
                    continue;
                }
                let due = self.slots[index].next_dial.max(self.wanted_from(index).unwrap_or(now));
                if due <= now && self.wanted_from(index).is_some() {
                    self.dial(index, self.dial_timeout(index));
                } else if due > now {
                    next = Some(next.map_or(due, |next| next.min(due)));
                }
            }
            return next;
        }
        let since = *self.alone_since.get_or_insert(now);
        if self.next_rescue <= now {
            self.make_room();
            if let Some(slot) = self.next_to_rescue(now) {
                self.dial(slot, RESCUE_TIMEOUT.min(self.dialler.config.dial.timeout));
            }
            let is_idle = now.saturating_duration_since(since) > RESCUE_PATIENCE && self.session.stream_count() == 0;
            let is_in_vain = self.early_deaths.duration() > RESCUE_PATIENCE;
            let interval = match (is_idle, is_in_vain) {
                (true, _) => RESCUE_INTERVAL_IDLE,
                (false, true) => RESCUE_INTERVAL_IN_VAIN,
                (false, false) => RESCUE_INTERVAL,
            };
            self.next_rescue = now + jittered(interval);
        }
        Some(self.next_rescue)
    }

    /// Notes which ranks have begun to work, or have ceased to.
    fn look_at_ranks(&mut self, now: Instant) {
        for (rank, health) in self.ranks.iter_mut().enumerate() {
            let is_good = |slot: &Slot| !slot.needs_lane() && self.places[slot.address].rank <= rank;
            let works = self.slots.iter().any(is_good);
            if works != health.works {
                *health = Health { works, since: now };
            }
        }
    }

    /// From when on a slot may be dialled; `None` while a better address works that makes it superfluous. Those before
    /// have a head start.
    fn wanted_from(&self, slot: usize) -> Option<Instant> {
        let place = self.places[self.slots[slot].address];
        let better = self.ranks[place.rank.saturating_sub(1)];
        match (place.is_cold, better.works) {
            (false, _) => Some(better.since),
            (true, true) => None,
            (true, false) => Some(better.since + HEAD_START * place.rank as u32),
        }
    }

    /// The slot for the next attempt while no channel works: the addresses in turn, so that many channels to one that
    /// does not answer do not keep the others waiting.
    fn next_to_rescue(&mut self, now: Instant) -> Option<usize> {
        let turn = self.rescue_turn;
        self.rescue_turn += 1;
        let is_wanted = |slot: &usize| self.wanted_from(*slot).is_some_and(|from| from <= now);
        let mut addresses: Vec<_> =
            (0..self.slots.len()).filter(is_wanted).map(|slot| self.slots[slot].address).collect();
        addresses.sort_by_key(|address| (self.places[*address].rank, *address));
        addresses.dedup();
        let address = *addresses.get(turn % addresses.len().max(1))?;
        let slots = (0..self.slots.len()).filter(|slot| self.slots[*slot].address == address);
        slots.min_by_key(|slot| self.slots[*slot].dial_count)
    }

    /// Gives up channels that stood in for a better address, once that has carried the data for a while: when there may
    /// be more to give up.
    fn fail_back(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for slot in &self.slots {
            let (place, Some(lane)) = (self.places[slot.address], slot.lane) else { continue };
            let better = self.ranks[place.rank.saturating_sub(1)];
            if !place.is_cold || !better.works {
                continue;
            }
            let mut due = better.since + FAIL_BACK_TIME;
            if due <= now {
                if !self.session.shared().look(|inner| inner.session.carries(lane)) {
                    self.give_up(lane);
                    continue;
                }
                // The session is not yet convinced.
                due = now + FAIL_BACK_TIME;
            }
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        next
    }

    /// Whether another address is used instead of this one while it does not work: then it is tried more often.
    fn is_preferred(&self, slot: usize) -> bool {
        self.places[self.slots[slot].address].rank + 1 < self.ranks.len()
    }

    fn dial_timeout(&self, slot: usize) -> Duration {
        let timeout = self.dialler.config.dial.timeout;
        if self.is_preferred(slot) { timeout.min(PREFERRED_TIMEOUT) } else { timeout }
    }

    fn pause_max(&self, slot: usize) -> Duration {
        let pause = self.dialler.config.backoff_max;
        if self.is_preferred(slot) { pause.min(PREFERRED_PAUSE_MAX) } else { pause }
    }

    fn dial(&mut self, index: usize, timeout: Duration) {
        let slot = &mut self.slots[index];
        slot.dial_count += 1;
        let address = slot.address;
        let usage = self.places[address].usage;
        let (dialler, session) = (Arc::clone(self.dialler), self.session.clone());
        self.dials.spawn(async move {
            let wanted = &dialler.config.addresses[address].address;
            (index, dialler.join(session.shared(), wanted, usage, timeout).await)
        });
    }

    fn on_dialled(&mut self, (index, outcome): DialOutcome) {
        match outcome {
            Ok(lane) => {
                self.joining.push((lane, index));
                match self.lane_state(lane) {
                    // Its events have gone by already.
                    Some(LaneState::Active) => self.on_joined(lane),
                    None | Some(LaneState::Dead) => {
                        self.on_join_failed(lane);
                    }
                    Some(LaneState::Joining | LaneState::Suspect) => {}
                }
            }
            Err(error) => {
                tracing::debug!(peer = %self.dialler.config.peer, %error, "channel cannot be dialled");
                self.on_dial_failed(index);
            }
        }
    }

    /// The peer has admitted a lane.
    fn on_joined(&mut self, lane: LaneId) {
        let Some(index) = self.joining.iter().position(|(joining, _)| *joining == lane) else { return };
        let (_, slot) = self.joining.remove(index);
        let was_alone = self.alone_since.is_some();
        self.slots[slot].dial_count -= 1;
        self.assign(slot, lane);
        if was_alone {
            // What began earlier and has no answer yet went nowhere, and the data on it should not wait.
            for (joining, slot) in self.joining.extract_if(.., |(joining, _)| *joining < lane).collect::<Vec<_>>() {
                self.slots[slot].dial_count -= 1;
                self.give_up(joining);
            }
        }
    }

    /// A lane ended before the peer admitted it. Returns whether it did.
    fn on_join_failed(&mut self, lane: LaneId) -> bool {
        let Some(index) = self.joining.iter().position(|(joining, _)| *joining == lane) else { return false };
        let (_, slot) = self.joining.remove(index);
        self.on_dial_failed(slot);
        true
    }

    fn on_dial_failed(&mut self, slot: usize) {
        let pause_max = self.pause_max(slot);
        let slot = &mut self.slots[slot];
        slot.dial_count -= 1;
        // Attempts in an outage have their own pace, and when it is over all slots are dialled at once.
        if self.alone_since.is_none() && slot.needs_lane() {
            slot.on_dial_failed(Instant::now(), pause_max);
        }
    }

    /// Gives a fresh lane to the slot that it was dialled for, or to another one of that address that wants one.
    fn assign(&mut self, slot: usize, lane: LaneId) {
        let address = self.slots[slot].address;
        let own = Some(slot).filter(|&slot| self.slots[slot].needs_lane());
        let wanting = own.or_else(|| self.slots.iter().position(|slot| slot.address == address && slot.needs_lane()));
        let surplus = match wanting {
            Some(slot) => self.slots[slot].put(lane, Instant::now()),
            None => Some(lane),
        };
        if let Some(surplus) = surplus {
            self.give_up(surplus);
        }
    }

    /// Keeps an attempt possible while none of many lanes answers.
    fn make_room(&mut self) {
        let is_full = self.session.shared().look(|inner| inner.session.lane_count() >= limits::LANES_MAX as usize);
        let oldest = self.joining.first().map(|(lane, _)| *lane);
        if self.joining.len() >= JOINING_MAX || is_full {
            let suspect = || self.slots.iter().find(|slot| slot.is_suspect).and_then(|slot| slot.lane);
            oldest.or_else(suspect).into_iter().for_each(|lane| self.give_up(lane));
        }
    }

    fn give_up(&self, lane: LaneId) {
        self.session.shared().with_timer(|inner| {
            inner.session.remove_lane(lane, LaneEnd::Closed(CloseCode::LANE_SURPLUS), Instant::now());
        });
    }

    fn lane_state(&self, lane: LaneId) -> Option<LaneState> {
        self.session.shared().look(|inner| inner.session.lane_state(lane))
    }

    fn on_event(&mut self, event: &LaneEvent) {
        let (now, max) = (Instant::now(), self.dialler.config.backoff_max);
        match *event {
            LaneEvent::Up(lane) => self.on_joined(lane),
            LaneEvent::Suspect(lane) => {
                if let Some(slot) = self.slot_of(lane) {
                    let has_lived = slot.on_suspect(now, max);
                    self.early_deaths.on_lane_failed(has_lived, now);
                }
            }
            LaneEvent::Recovered(lane) => {
                self.on_joined(lane);
                if let Some(slot) = self.slot_of(lane) {
                    slot.on_healthy(now);
                }
            }
            LaneEvent::Down(lane) => {
                if self.on_join_failed(lane) {
                    return;
                }
                if let Some(has_lived) = self.slot_of(lane).and_then(|slot| slot.on_down(now, max)) {
                    self.early_deaths.on_lane_failed(has_lived, now);
                }
            }
            LaneEvent::Closed(_) => {}
        }
    }

    fn slot_of(&mut self, lane: LaneId) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.lane == Some(lane))
    }
}

/// Waits for a moment, if there is one to come.
pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
