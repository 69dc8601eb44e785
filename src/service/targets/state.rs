//! The targets of one service and what is known of each: composes what decides. No lock, no clock, no I/O.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::check::CheckOutcome;
use super::choose::{Candidate, choose, mix, seed};
use super::ejection::Ejection;
use super::health::{Condition, Health, Thresholds};
use super::latency::Latency;
use super::list::Targets;
use super::options::BalanceOptions;
use super::report::{TargetReport, TargetState};
use super::slow_start;
use crate::service::target::Target;

/// A target of one service, as long as it is one. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TargetId(u64);

/// How the targets are used and checked.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::service) struct Rules {
    pub(in crate::service) balance: BalanceOptions,
    /// How many checks change what is known; `None` when there are no checks.
    pub(super) thresholds: Option<Thresholds>,
}

/// A target that a connection gets.
#[derive(Clone, Debug)]
pub(super) struct Picked {
    pub(super) id: TargetId,
    pub(super) target: Arc<Target>,
}

/// A target that is up or down from now on.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    pub(super) target: Arc<Target>,
    pub(super) is_up: bool,
    /// Nothing was known before.
    pub(super) is_first: bool,
}

/// A target that is left out for a while.
#[derive(Clone, Debug)]
pub(super) struct Ejected {
    pub(super) target: Arc<Target>,
    pub(super) time: Duration,
}

/// The targets of one service.
#[derive(Debug)]
pub(super) struct State {
    rules: Rules,
    entries: Vec<Entry>,
    last_id: u64,
    random: u64,
}

/// A target, and what is known of it.
#[derive(Debug)]
struct Entry {
    id: TargetId,
    target: Arc<Target>,
    seed: u64,
    weight: u32,
    open: u32,
    credit: f64,
    health: Health,
    ejection: Ejection,
    latency: Latency,
    /// When it was up again after it had been down, or was added to others.
    came_back: Option<Instant>,
    /// Why the last connection failed, unless one was made since.
    failure: Option<String>,
    since: Instant,
    connections: u64,
    failures: u64,
    ejections: u64,
    checks: [u64; CheckOutcome::WORDS.len()],
}

impl State {
    /// `random` is any number; nothing secret hangs on it.
    pub(super) fn new(targets: &Targets, rules: Rules, random: u64, now: Instant) -> Self {
        let mut state = Self { rules, entries: Vec::new(), last_id: 0, random };
        state.replace(targets, now);
        state.entries.iter_mut().for_each(|entry| entry.came_back = None);
        state
    }

    /// Other targets and rules from now on. What is known of those that stay is kept.
    pub(super) fn reconfigure(&mut self, targets: &Targets, rules: Rules, now: Instant) {
        if rules.thresholds.is_none() {
            self.entries.iter_mut().for_each(|entry| entry.health = Health::new(now));
        }
        if rules.balance.ejection.is_none() {
            self.entries.iter_mut().for_each(|entry| entry.ejection = Ejection::default());
        }
        self.rules = rules;
        self.replace(targets, now);
    }

    fn replace(&mut self, targets: &Targets, now: Instant) {
        let mut before = std::mem::take(&mut self.entries);
        for config in targets.all() {
            let known = before.iter().position(|entry| *entry.target == config.target);
            let mut entry = known.map_or_else(|| self.fresh(&config.target, now), |place| before.swap_remove(place));
            entry.weight = config.weight;
            // Turns by other weights say nothing any more.
            entry.credit = 0.0;
            self.entries.push(entry);
        }
    }

    fn fresh(&mut self, target: &Target, now: Instant) -> Entry {
        self.last_id += 1;
        Entry {
            id: TargetId(self.last_id),
            seed: seed(&target.to_string()),
            target: Arc::new(target.clone()),
            weight: 1,
            open: 0,
            credit: 0.0,
            health: Health::new(now),
            ejection: Ejection::default(),
            latency: Latency::default(),
            came_back: Some(now),
            failure: None,
            since: now,
            connections: 0,
            failures: 0,
            ejections: 0,
            checks: Default::default(),
        }
    }

    /// The target that a connection gets which has tried some, and counts it as open. None is down; one that is ejected is
    /// taken only when there is no other.
    pub(super) fn pick(&mut self, tried: &[TargetId], key: u64, now: Instant) -> Option<Picked> {
        let time = self.rules.balance.slow_start;
        let candidates = |entries: &[Entry], with_ejected: bool| -> Vec<_> {
            let usable = entries.iter().enumerate().filter(|(_, entry)| {
                entry.health.condition() != Condition::Down
                    && (with_ejected || !entry.ejection.is_ejected(now))
                    && !tried.contains(&entry.id)
            });
            usable.map(|(index, entry)| entry.candidate(index, time, now)).collect()
        };
        let mut among = candidates(&self.entries, false);
        if among.is_empty() {
            among = candidates(&self.entries, true);
        }
        let random = self.random();
        let place = choose(self.rules.balance.strategy, &mut among, random, key)?;
        for candidate in &among {
            self.entries[candidate.index].credit = candidate.credit;
        }
        let entry = &mut self.entries[among[place].index];
        entry.open += 1;
        Some(Picked { id: entry.id, target: Arc::clone(&entry.target) })
    }

    /// A connection that was counted as open is over.
    pub(super) fn on_over(&mut self, id: TargetId) {
        if let Some(entry) = self.entry(id) {
            entry.open = entry.open.saturating_sub(1);
        }
    }

    /// A connection was made.
    pub(super) fn on_connected(&mut self, id: TargetId, now: Instant) {
        if let Some(entry) = self.entry(id) {
            entry.connections += 1;
            entry.failure = None;
            entry.ejection.on_success(now);
        }
    }

    /// A connection could not be made: the target if it is left out from now on.
    pub(super) fn on_failed(&mut self, id: TargetId, why: String, now: Instant) -> Option<Ejected> {
        let may_eject = self.entries.iter().any(|entry| entry.id != id && entry.state(now).is_used());
        let options = self.rules.balance.ejection;
        let entry = self.entry(id)?;
        entry.failures += 1;
        entry.failure = Some(why);
        let time = entry.ejection.on_failure(&options?, may_eject, now)?;
        entry.ejections += 1;
        Some(Ejected { target: Arc::clone(&entry.target), time })
    }

    /// A connection got its answer after this time.
    pub(super) fn on_answered(&mut self, id: TargetId, time: Duration, now: Instant) {
        if let Some(entry) = self.entry(id) {
            entry.latency.observe(time, now);
        }
    }

    /// A check has come to an end: the target if it is up or down from now on.
    pub(super) fn on_checked(&mut self, id: TargetId, outcome: &CheckOutcome, now: Instant) -> Option<Changed> {
        let thresholds = self.rules.thresholds?;
        let entry = self.entry(id)?;
        entry.checks[outcome.index()] += 1;
        let before = entry.health.condition();
        let condition = entry.health.on_check(outcome, thresholds, now)?;
        let is_up = condition == Condition::Up;
        if is_up && before == Condition::Down {
            entry.came_back = Some(now);
            entry.ejection.clear(now);
            entry.failure = None;
            // What it was like before says nothing any more.
            entry.latency = Latency::default();
        }
        Some(Changed { target: Arc::clone(&entry.target), is_up, is_first: before == Condition::Unchecked })
    }

    /// The targets, with the ids that they have.
    pub(super) fn ids(&self) -> impl Iterator<Item = (TargetId, &Arc<Target>)> {
        self.entries.iter().map(|entry| (entry.id, &entry.target))
    }

    pub(super) fn report(&self, now: Instant) -> Vec<TargetReport> {
        let time = self.rules.balance.slow_start;
        self.entries.iter().map(|entry| entry.report(time, now)).collect()
    }

    /// Any number; not for secrets.
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(GOLDEN);
        mix(self.random)
    }

    fn entry(&mut self, id: TargetId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }
}

impl Entry {
    fn state(&self, now: Instant) -> TargetState {
        match self.health.condition() {
            Condition::Down => TargetState::Down,
            _ if self.ejection.is_ejected(now) => TargetState::Ejected,
            Condition::Up => TargetState::Up,
            Condition::Unchecked => TargetState::Unchecked,
        }
    }

    /// When it was there again the last time.
    fn came_back(&self, now: Instant) -> Option<Instant> {
        self.came_back.max(self.ejection.ended(now))
    }

    fn candidate(&self, index: usize, slow_start: Option<Duration>, now: Instant) -> Candidate {
        Candidate {
            index,
            seed: self.seed,
            weight: f64::from(self.weight),
            share: slow_start::share(self.came_back(now), slow_start, now),
            open: self.open,
            latency: self.latency.seconds(now),
            credit: self.credit,
        }
    }

    fn report(&self, slow_start: Option<Duration>, now: Instant) -> TargetReport {
        let state = self.state(now);
        let span = self.ejection.span(now).filter(|_| state == TargetState::Ejected);
        let back = self.ejection.ended(now).unwrap_or(self.since);
        let since = match (state, span) {
            (TargetState::Down, _) => self.health.since(),
            (_, Some((begin, _))) => begin,
            _ => self.health.since().max(back),
        };
        let of_check = self.health.failure().map(ToString::to_string);
        let reason = if state == TargetState::Down { of_check } else { self.failure.clone().or(of_check) };
        TargetReport {
            target: Target::clone(&self.target),
            weight: self.weight,
            state,
            age: now.saturating_duration_since(since),
            reason,
            ejected_for: span.map(|(_, end)| end.saturating_duration_since(now)),
            open: self.open,
            connections: self.connections,
            failures: self.failures,
            ejections: self.ejections,
            checks: self.checks,
            response: self.latency.seconds(now).map(Duration::from_secs_f64),
            share: slow_start::share(self.came_back(now), slow_start, now),
        }
    }
}

/// The step of SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::targets::{EjectionOptions, Strategy, TargetConfig};

    fn targets(names: &[&str]) -> Targets {
        let config = |name: &&str| TargetConfig::new(format!("tcp://{name}:1").parse::<Target>().unwrap());
        Targets::new(names.iter().map(config)).unwrap()
    }

    fn rules(balance: BalanceOptions) -> Rules {
        Rules { balance, thresholds: Some(Thresholds { rise: 2, fall: 2 }) }
    }

    fn state(names: &[&str], balance: BalanceOptions, now: Instant) -> State {
        State::new(&targets(names), rules(balance), 1, now)
    }

    /// The name of the target that the next connection gets, which ends at once.
    fn next(state: &mut State, now: Instant) -> char {
        let picked = state.pick(&[], 0, now).unwrap();
        state.on_over(picked.id);
        picked.target.to_string().chars().nth("tcp://".len()).unwrap()
    }

    fn id(state: &State, name: char) -> TargetId {
        state.ids().find(|(_, target)| target.to_string() == format!("tcp://{name}:1")).unwrap().0
    }

    fn fail(state: &mut State, name: char, now: Instant) -> Option<Ejected> {
        state.on_failed(id(state, name), "refused".to_owned(), now)
    }

    fn check(state: &mut State, name: char, outcome: &CheckOutcome, now: Instant) -> Option<Changed> {
        state.on_checked(id(state, name), outcome, now)
    }

    #[test]
    fn each_target_is_tried_once_and_then_none() {
        let now = Instant::now();
        let mut state = state(&["a", "b", "c"], BalanceOptions::default(), now);
        let (mut tried, mut names) = (Vec::new(), Vec::new());
        while let Some(picked) = state.pick(&tried, 0, now) {
            tried.push(picked.id);
            names.push(picked.target.to_string());
        }
        names.sort();
        assert_eq!(names, ["tcp://a:1", "tcp://b:1", "tcp://c:1"]);
    }

    #[test]
    fn a_target_that_is_down_gets_nothing_until_it_is_up() {
        let now = Instant::now();
        let mut state = state(&["a", "b"], BalanceOptions::default(), now);
        let changed = check(&mut state, 'a', &CheckOutcome::Refused, now).unwrap();
        assert!(!changed.is_up && changed.is_first, "the first check counts at once");
        assert!((0..4).all(|_| next(&mut state, now) == 'b'));
        assert!(check(&mut state, 'b', &CheckOutcome::TimedOut, now).is_some());
        assert!(state.pick(&[], 0, now).is_none(), "when all are down, clients are refused");
        assert!(check(&mut state, 'a', &CheckOutcome::Ok, now).is_none());
        assert!(check(&mut state, 'a', &CheckOutcome::Ok, now).is_some_and(|changed| changed.is_up));
        assert!((0..4).all(|_| next(&mut state, now) == 'a'));
        let report = &state.report(now + Duration::from_secs(3))[1];
        assert_eq!((report.state, report.age), (TargetState::Down, Duration::from_secs(3)));
        assert_eq!((report.reason.as_deref(), report.checks), (Some("no answer in time"), [0, 0, 0, 1, 0]));
    }

    #[test]
    fn never_all_targets_are_ejected() {
        let now = Instant::now();
        let mut state = state(&["a", "b", "c"], BalanceOptions::default(), now);
        let mut ejected = Vec::new();
        for name in ['a', 'b', 'c'].repeat(10) {
            ejected.extend(fail(&mut state, name, now).map(|ejected| ejected.target.to_string()));
        }
        assert_eq!(ejected, ["tcp://a:1", "tcp://b:1"]);
        assert!((0..4).all(|_| next(&mut state, now) == 'c'));
        // The last one is down by its checks: then the others are tried, rather than nobody.
        check(&mut state, 'c', &CheckOutcome::Refused, now);
        let names: String = (0..4).map(|_| next(&mut state, now)).collect();
        assert!(names.contains('a') && names.contains('b') && !names.contains('c'), "{names}");
        let back = now + Duration::from_secs(10);
        assert_eq!(state.report(back).iter().filter(|report| report.state == TargetState::Ejected).count(), 0);
    }

    #[test]
    fn one_that_cannot_be_connected_to_is_left_out_for_a_while() {
        let now = Instant::now();
        let mut state = state(&["a", "b"], BalanceOptions::default(), now);
        let usual = EjectionOptions::default();
        assert!((1..usual.failures).all(|_| fail(&mut state, 'a', now).is_none()));
        assert_eq!(fail(&mut state, 'a', now).unwrap().time, usual.time);
        assert!((0..4).all(|_| next(&mut state, now) == 'b'));
        let report = &state.report(now)[0];
        assert_eq!((report.state, report.ejected_for), (TargetState::Ejected, Some(usual.time)));
        assert_eq!((report.failures, report.ejections, report.reason.as_deref()), (3, 1, Some("refused")));
        let later = now + usual.time;
        let names: String = (0..4).map(|_| next(&mut state, later)).collect();
        assert_eq!(names.matches('a').count(), 2, "{names}");
        assert_eq!(fail(&mut state, 'a', later).unwrap().time, 2 * usual.time, "it gets one attempt");
        let picked = id(&state, 'a');
        state.on_connected(picked, later + 10 * usual.time);
        assert_eq!(state.report(later + 10 * usual.time)[0].reason, None);
    }

    #[test]
    fn one_that_came_back_starts_slowly_and_one_that_was_there_from_the_start_does_not() {
        let now = Instant::now();
        let slow = BalanceOptions { slow_start: Some(Duration::from_secs(100)), ..BalanceOptions::default() };
        let mut state = state(&["a", "b"], slow, now);
        let share = |state: &mut State, now| (0..110).filter(|_| next(state, now) == 'a').count();
        assert_eq!(share(&mut state, now), 55);
        for outcome in [CheckOutcome::Refused, CheckOutcome::Ok, CheckOutcome::Ok] {
            check(&mut state, 'a', &outcome, now);
        }
        assert!((9..=11).contains(&share(&mut state, now)));
        assert!((35..=38).contains(&share(&mut state, now + Duration::from_secs(50))), "half of it, to one");
        assert!((54..=56).contains(&share(&mut state, now + Duration::from_secs(100))));
    }

    #[test]
    fn connections_and_what_is_known_stay_with_a_target_over_a_change() {
        let now = Instant::now();
        let least = BalanceOptions { strategy: Strategy::LeastConnections, ..BalanceOptions::default() };
        let mut state = state(&["a", "b"], least.clone(), now);
        let first = state.pick(&[], 0, now).unwrap();
        check(&mut state, 'b', &CheckOutcome::Refused, now);
        state.reconfigure(&targets(&["c", "b", "a"]), rules(least.clone()), now);
        let report = state.report(now);
        assert_eq!(report.iter().map(|report| report.open).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(report[1].state, TargetState::Down);
        assert_eq!(next(&mut state, now), 'c');
        // Without checks nothing is down any more; a connection of a target that went is nobody's.
        state.reconfigure(&targets(&["b"]), Rules { balance: least, thresholds: None }, now);
        assert_eq!(next(&mut state, now), 'b');
        state.on_over(first.id);
        assert_eq!(state.report(now)[0].open, 0);
    }
}
