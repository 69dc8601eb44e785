//! A channel that a link wants, and when it is dialled: the pauses between attempts.

use std::time::{Duration, Instant};

use crate::base::{Entropy, LaneId, SystemEntropy};

/// A channel that is wanted.
pub(super) struct Slot {
    pub(super) address: usize,
    pub(super) lane: Option<LaneId>,
    pub(super) is_suspect: bool,
    /// Attempts under way.
    pub(super) dial_count: u32,
    pub(super) next_dial: Instant,
    /// Since when its lane has been healthy.
    healthy_since: Instant,
    /// Attempts and lanes that failed, one after the other.
    failure_count: u32,
}

impl Slot {
    pub(super) fn new(address: usize, now: Instant) -> Self {
        Self {
            address,
            lane: None,
            is_suspect: false,
            dial_count: 0,
            next_dial: now,
            healthy_since: now,
            failure_count: 0,
        }
    }

    pub(super) fn needs_lane(&self) -> bool {
        self.lane.is_none() || self.is_suspect
    }

    /// Whether an attempt waits for its time only.
    pub(super) fn is_waiting(&self) -> bool {
        self.needs_lane() && self.dial_count == 0
    }

    /// Gives it a fresh lane, which has to show yet that it lives. Returns the one that it replaces.
    pub(super) fn put(&mut self, lane: LaneId, now: Instant) -> Option<LaneId> {
        self.on_healthy(now);
        self.lane.replace(lane)
    }

    /// Its lane acknowledges again.
    pub(super) fn on_healthy(&mut self, now: Instant) {
        self.is_suspect = false;
        self.healthy_since = now;
    }

    /// Its lane acknowledges nothing. Returns whether it had lived.
    pub(super) fn on_suspect(&mut self, now: Instant, pause_max: Duration) -> bool {
        self.is_suspect = true;
        self.on_lane_failed(now, pause_max)
    }

    /// Its lane is over. Returns whether it had lived; `None` when that was asked before.
    pub(super) fn on_down(&mut self, now: Instant, pause_max: Duration) -> Option<bool> {
        self.lane = None;
        (!std::mem::take(&mut self.is_suspect)).then(|| self.on_lane_failed(now, pause_max))
    }

    /// An attempt failed.
    pub(super) fn on_dial_failed(&mut self, now: Instant, pause_max: Duration) {
        self.failure_count += 1;
        self.next_dial = now + backoff(self.failure_count, pause_max);
    }

    fn on_lane_failed(&mut self, now: Instant, pause_max: Duration) -> bool {
        let has_lived = now.saturating_duration_since(self.healthy_since) >= LANE_LIFE_MIN;
        self.failure_count = if has_lived { 1 } else { self.failure_count + 1 };
        // The first attempt after a working lane is made at once.
        let pause_max = pause_max.min(EARLY_DEATH_PAUSE_MAX);
        let pause = if self.failure_count == 1 { Duration::ZERO } else { backoff(self.failure_count, pause_max) };
        self.next_dial = now + pause;
        has_lived
    }
}

/// Lanes that die before they have lived, one soon after the other: something on the path lets channels begin and ends
/// them.
#[derive(Debug, Default)]
pub(super) struct EarlyDeaths {
    first_and_last: Option<(Instant, Instant)>,
}

impl EarlyDeaths {
    /// A lane has died, or may have.
    pub(super) fn on_lane_failed(&mut self, has_lived: bool, now: Instant) {
        let first = self.first_and_last.filter(|(_, last)| now.saturating_duration_since(*last) < EARLY_DEATHS_GAP_MAX);
        self.first_and_last = (!has_lived).then(|| (first.map_or(now, |(first, _)| first), now));
    }

    /// How long they have been going on.
    pub(super) fn duration(&self) -> Duration {
        self.first_and_last.map_or(Duration::ZERO, |(first, last)| last - first)
    }
}

/// Early deaths further apart have nothing to do with one another: an outage lies between them.
const EARLY_DEATHS_GAP_MAX: Duration = Duration::from_secs(5);

/// The pause before attempt `failure_count + 1`: doubling, between a half and the whole of it by chance, so that many
/// nodes do not come back in step.
pub(super) fn backoff(failure_count: u32, max: Duration) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(1 << failure_count.saturating_sub(1).min(16));
    jittered(doubled.min(max))
}

/// Between a half and the whole of it.
pub(super) fn jittered(duration: Duration) -> Duration {
    let share = (SystemEntropy::new().next_u64() >> 32) as f64 / f64::from(u32::MAX);
    duration.mul_f64(0.5 + share / 2.0)
}

/// Shortest pause before a slot is dialled again.
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// A lane that dies younger, counted from its admission, has not worked: what lets a channel begin and then ends it (a
/// balancer, a filter that looks at the first packets) does so in less. One that lives longer may be dialled again at
/// once, as that is then rare enough.
const LANE_LIFE_MIN: Duration = Duration::from_secs(1);

/// Longest pause after a lane that died early. On a path that ends channels again and again what they carry in between
/// is all there is, and a dial a second costs nothing.
const EARLY_DEATH_PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(10);
    const LANE: LaneId = LaneId(7);

    /// The pause after a lane that lived for so long.
    fn pause_after(slot: &mut Slot, now: &mut Instant, life: Duration) -> Duration {
        *now = slot.next_dial.max(*now);
        assert_eq!(slot.put(LANE, *now), None);
        *now += life;
        slot.on_down(*now, MAX).expect("it was not suspect");
        slot.next_dial - *now
    }

    #[test]
    fn pauses_grow_to_the_limit_and_are_jittered() {
        let max = Duration::from_secs(5);
        for failure_count in 1..40 {
            let pause = backoff(failure_count, max);
            let whole = BACKOFF_MIN.saturating_mul(1 << (failure_count - 1).min(16)).min(max);
            assert!(pause >= whole / 2 && pause <= whole, "{failure_count} {pause:?}");
        }
        let pauses: std::collections::HashSet<_> = (0..20).map(|_| backoff(9, max)).collect();
        assert!(pauses.len() > 10);
    }

    #[test]
    fn pauses_grow_over_lanes_that_die_early() {
        let mut now = Instant::now();
        let mut slot = Slot::new(0, now);
        assert_eq!(pause_after(&mut slot, &mut now, Duration::ZERO), Duration::ZERO);
        for failure_count in 2..20 {
            let pause = pause_after(&mut slot, &mut now, LANE_LIFE_MIN / 2);
            let whole = BACKOFF_MIN.saturating_mul(1 << (failure_count - 1)).min(EARLY_DEATH_PAUSE_MAX);
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?}");
        }
        assert_eq!(pause_after(&mut slot, &mut now, LANE_LIFE_MIN), Duration::ZERO, "this one has lived");
        assert!(pause_after(&mut slot, &mut now, Duration::ZERO) >= BACKOFF_MIN);
    }

    #[test]
    fn pauses_of_failed_attempts_count_for_the_lane_that_follows() {
        let mut now = Instant::now();
        let mut slot = Slot::new(0, now);
        (0..10).for_each(|_| slot.on_dial_failed(now, MAX));
        assert!(slot.next_dial - now >= MAX / 2);
        assert!(pause_after(&mut slot, &mut now, Duration::ZERO) >= EARLY_DEATH_PAUSE_MAX / 2);
    }

    /// Channels that are killed all the time carry something in between: half of the time and more they are there.
    #[test]
    fn lanes_that_die_after_a_second_are_replaced_within_one() {
        let mut now = Instant::now();
        let mut slot = Slot::new(0, now);
        for life in [900, 300, 950, 10, 990, 700].map(Duration::from_millis).into_iter().cycle().take(100) {
            assert!(pause_after(&mut slot, &mut now, life) <= Duration::from_secs(1));
        }
        assert_eq!(pause_after(&mut slot, &mut now, Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn lane_that_is_suspect_and_then_down_failed_once() {
        let mut now = Instant::now();
        let mut slot = Slot::new(0, now);
        slot.put(LANE, now);
        now += LANE_LIFE_MIN;
        assert!(slot.on_suspect(now, MAX) && slot.needs_lane());
        assert_eq!((slot.next_dial, slot.failure_count), (now, 1));
        assert_eq!(slot.on_down(now, MAX), None);
        assert_eq!((slot.next_dial, slot.failure_count), (now, 1));
        // One that recovers has to live anew.
        slot.put(LANE, now);
        slot.on_healthy(now);
        assert!(!slot.on_suspect(now, MAX));
        slot.on_healthy(now + LANE_LIFE_MIN);
        assert_eq!(slot.on_down(now + LANE_LIFE_MIN, MAX), Some(false));
        assert_eq!(slot.failure_count, 3);
    }

    #[test]
    fn early_deaths_go_on_while_they_follow_one_another() {
        let start = Instant::now();
        let at = |seconds: f32| start + Duration::from_secs_f32(seconds);
        let mut deaths = EarlyDeaths::default();
        for seconds in [0.0, 0.1, 2.0, 6.5] {
            deaths.on_lane_failed(false, at(seconds));
        }
        assert_eq!(deaths.duration(), Duration::from_millis(6500));
        // An outage between them is another story.
        deaths.on_lane_failed(false, at(20.0));
        assert_eq!(deaths.duration(), Duration::ZERO);
        deaths.on_lane_failed(false, at(22.0));
        deaths.on_lane_failed(true, at(23.0));
        assert_eq!(deaths.duration(), Duration::ZERO);
    }
}
