//! Which lanes carry data: those of the best *tier* that works. A tier are the lanes of one role and priority, as the
//! dialling side has named them; active ones come before standby, and lower priorities before higher ones.
//!
//! Both sides decide for their own direction, by the same rules. Within a tier the scheduler decides. Lanes outside of
//! the carrying tier are kept up: they have their own acknowledgements and pings, and nothing else.
//!
//! ```text
//! no lane of the carrying tier works ──► the next tier that works carries, at once
//! a lane of a better tier works      ──► it carries: at once the first time, later when it has worked for a while
//! ```

use std::time::{Duration, Instant};

use super::lane::{Lane, LaneState};
use super::state::Session;
use crate::wire::{LaneRole, LaneUsage};

/// The order of lanes: the least one that works carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tier {
    role: LaneRole,
    priority: u32,
}

impl Tier {
    pub(super) fn of(usage: LaneUsage) -> Self {
        Self { role: usage.role, priority: usage.priority }
    }
}

/// Time for which a lane has to work before data returns to it from a worse tier.
const RETURN_HOLD_MIN: Duration = Duration::from_secs(1);

/// The same at most: it doubles with each fall that follows another one soon.
const RETURN_HOLD_MAX: Duration = Duration::from_secs(30);

/// Falls further apart than this have nothing to do with one another.
const FALLS_GAP_MAX: Duration = Duration::from_secs(60);

/// The tier that carries data, and how often it was a better one.
#[derive(Debug, Default)]
pub(super) struct Tiers {
    /// `None` while no lane is healthy: then all that live are tried.
    carrying: Option<Tier>,
    /// The last one that did.
    last: Option<Tier>,
    /// Falls to a worse tier, one soon after the other.
    fall_count: u32,
    fell_at: Option<Instant>,
}

impl Tiers {
    pub(super) fn carrying(&self) -> Option<Tier> {
        self.carrying
    }

    /// How long a lane that works now has to go on before data returns to it.
    fn return_hold(&self, now: Instant) -> Duration {
        let Some(fell_at) = self.fell_at else { return Duration::ZERO };
        let is_recent = now.saturating_duration_since(fell_at) <= FALLS_GAP_MAX;
        let doublings = if is_recent { self.fall_count.saturating_sub(1).min(16) } else { 0 };
        RETURN_HOLD_MIN.saturating_mul(1 << doublings).min(RETURN_HOLD_MAX)
    }

    /// Takes the tier that carries from now on.
    fn set(&mut self, tier: Option<Tier>, now: Instant) {
        self.carrying = tier;
        let Some(tier) = tier else { return };
        if self.last.is_some_and(|last| tier > last) {
            let is_recent = self.fell_at.is_some_and(|at| now.saturating_duration_since(at) <= FALLS_GAP_MAX);
            self.fall_count = if is_recent { self.fall_count.saturating_add(1) } else { 1 };
            self.fell_at = Some(now);
        }
        self.last = Some(tier);
    }
}

impl Session {
    /// Whether a lane may carry data now.
    #[must_use]
    pub fn carries(&self, id: crate::base::LaneId) -> bool {
        self.lanes.iter().any(|lane| lane.id == id && self.is_carrying(lane))
    }

    /// The same. While no lane is healthy, all that live are tried: the path may only have paused.
    pub(super) fn is_carrying(&self, lane: &Lane) -> bool {
        match self.tiers.carrying {
            Some(tier) => lane.is_healthy() && lane.tier() == tier,
            None => lane.is_alive(),
        }
    }

    pub(super) fn carrying_lane_count(&self) -> usize {
        self.lanes.iter().filter(|lane| self.is_carrying(lane)).count()
    }

    /// A lane was shown to work, both ways: from when on data may return to it.
    pub(super) fn on_lane_works(&mut self, index: usize, now: Instant) {
        self.lanes[index].trusted_at = Some(now + self.tiers.return_hold(now));
        self.choose_tier(now);
    }

    /// Chooses anew which tier carries data. To be called when a lane was added, lost, proven, or changed its health.
    pub(super) fn choose_tier(&mut self, now: Instant) {
        self.watch_outage(now);
        let least = |lanes: &mut dyn Iterator<Item = &Lane>| lanes.map(Lane::tier).min();
        let mut trusted = self.lanes.iter().filter(|lane| lane.is_healthy() && lane.is_trusted(now));
        let tier = least(&mut trusted).or_else(|| least(&mut self.lanes.iter().filter(|lane| lane.is_healthy())));
        if tier == self.tiers.carrying {
            return;
        }
        let before = self.tiers.carrying;
        self.tiers.set(tier, now);
        if before < tier {
            // What began to join and was sent data is not known to lead anywhere, and nothing else is now sent on it.
            let is_left = |lane: &Lane| lane.state == LaneState::Joining && Some(lane.tier()) == before;
            for index in 0..self.lanes.len() {
                if is_left(&self.lanes[index]) {
                    self.reinject(index);
                }
            }
        }
        self.wake_lanes();
    }

    /// When data may return to a better tier.
    pub(super) fn return_deadline(&self) -> Option<Instant> {
        let carrying = self.tiers.carrying?;
        let better = self.lanes.iter().filter(|lane| lane.is_healthy() && lane.tier() < carrying);
        better.filter_map(|lane| lane.trusted_at).min()
    }
}

impl Lane {
    pub(super) fn tier(&self) -> Tier {
        Tier::of(self.setup.usage)
    }

    fn is_trusted(&self, now: Instant) -> bool {
        self.trusted_at.is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(role: LaneRole, priority: u32) -> Tier {
        Tier::of(LaneUsage { role, priority, ..LaneUsage::default() })
    }

    #[test]
    fn standby_comes_after_every_priority() {
        assert!(tier(LaneRole::Active, 255) < tier(LaneRole::Standby, 0));
        assert!(tier(LaneRole::Active, 0) < tier(LaneRole::Active, 1));
    }

    #[test]
    fn the_way_back_is_free_at_first_and_takes_longer_after_each_fall() {
        let (better, worse) = (tier(LaneRole::Active, 0), tier(LaneRole::Active, 1));
        let mut now = Instant::now();
        let mut tiers = Tiers::default();
        tiers.set(Some(worse), now);
        assert_eq!(tiers.return_hold(now), Duration::ZERO, "it has never failed");
        for hold in [1, 2, 4, 8, 16, 30, 30] {
            tiers.set(Some(better), now);
            tiers.set(Some(worse), now);
            assert_eq!(tiers.return_hold(now), Duration::from_secs(hold));
            now += Duration::from_secs(hold);
        }
        now += FALLS_GAP_MAX + Duration::from_secs(1);
        assert_eq!(tiers.return_hold(now), RETURN_HOLD_MIN, "that was long ago");
        tiers.set(Some(better), now);
        tiers.set(Some(worse), now);
        assert_eq!(tiers.return_hold(now), RETURN_HOLD_MIN);
    }

    #[test]
    fn an_outage_of_all_is_no_fall() {
        let now = Instant::now();
        let mut tiers = Tiers::default();
        tiers.set(Some(tier(LaneRole::Active, 0)), now);
        tiers.set(None, now);
        tiers.set(Some(tier(LaneRole::Active, 0)), now);
        assert_eq!(tiers.return_hold(now), Duration::ZERO);
    }
}
