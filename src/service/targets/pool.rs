//! The targets of a running service: the state behind a lock, with the time, and a line in the log for what changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::check::{CheckOptions, CheckOutcome};
use super::health::Thresholds;
use super::list::Targets;
use super::options::BalanceOptions;
use super::report::TargetReport;
use super::state::{Rules, State, TargetId};
use crate::base::{Entropy, SystemEntropy};
use crate::service::target::Target;

/// The targets of a service, over all its configurations.
#[derive(Debug)]
pub(in crate::service) struct Pool {
    service: String,
    state: Mutex<State>,
}

/// A connection to a target, which counts as open until this is dropped.
#[derive(Debug)]
pub(in crate::service) struct Lease {
    pool: Arc<Pool>,
    id: TargetId,
    target: Arc<Target>,
}

/// The targets that one connection has tried.
#[derive(Debug, Default)]
pub(in crate::service) struct Tried(Vec<TargetId>);

impl Pool {
    pub(in crate::service) fn new(
        service: &str,
        targets: &Targets,
        balance: &BalanceOptions,
        check: Option<&CheckOptions>,
    ) -> Arc<Self> {
        let random = SystemEntropy::new().next_u64();
        let state = State::new(targets, rules(balance, check), random, Instant::now());
        Arc::new(Self { service: service.to_owned(), state: Mutex::new(state) })
    }

    /// Other targets and rules from now on.
    pub(in crate::service) fn reconfigure(
        &self,
        targets: &Targets,
        balance: &BalanceOptions,
        check: Option<&CheckOptions>,
    ) {
        self.lock().reconfigure(targets, rules(balance, check), Instant::now());
    }

    /// A target for a connection that has tried some; `None` when no other one can be used.
    pub(in crate::service) fn pick(self: &Arc<Self>, tried: &mut Tried, key: u64) -> Option<Lease> {
        let picked = self.lock().pick(&tried.0, key, Instant::now())?;
        tried.0.push(picked.id);
        Some(Lease { pool: Arc::clone(self), id: picked.id, target: picked.target })
    }

    /// What is known of each target, in the order of the configuration.
    pub(in crate::service) fn report(&self) -> Vec<TargetReport> {
        self.lock().report(Instant::now())
    }

    /// The targets, with the ids that they have.
    pub(super) fn ids(&self) -> Vec<(TargetId, Arc<Target>)> {
        self.lock().ids().map(|(id, target)| (id, Arc::clone(target))).collect()
    }

    /// A check has come to an end.
    pub(super) fn on_checked(&self, id: TargetId, outcome: &CheckOutcome) {
        let changed = self.lock().on_checked(id, outcome, Instant::now());
        let Some(changed) = changed else { return };
        let (service, address) = (&self.service, &changed.target);
        match (changed.is_up, changed.is_first) {
            (true, true) => tracing::debug!(service, %address, "target is up"),
            (true, false) => tracing::info!(service, %address, "target is up"),
            (false, _) => tracing::warn!(service, %address, reason = %outcome, "target is down"),
        }
    }

    /// Any number; not for secrets.
    pub(super) fn random(&self) -> u64 {
        self.lock().random()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Where the connection leads.
    pub(in crate::service) fn target(&self) -> &Target {
        &self.target
    }

    /// The connection was made.
    pub(in crate::service) fn on_connected(&self) {
        self.pool.lock().on_connected(self.id, Instant::now());
    }

    /// The connection could not be made.
    pub(in crate::service) fn on_failed(&self, why: String) {
        let ejected = self.pool.lock().on_failed(self.id, why, Instant::now());
        if let Some(ejected) = ejected {
            let (service, address, time_s) = (&self.pool.service, &ejected.target, ejected.time.as_secs_f32());
            tracing::warn!(service, %address, time_s, "target is left out for a while: connections to it failed");
        }
    }

    /// Tells how long the answer to the connection took.
    pub(in crate::service) fn answer_teller(&self) -> Box<dyn FnOnce(Duration) + Send> {
        let (pool, id) = (Arc::clone(&self.pool), self.id);
        Box::new(move |time| pool.lock().on_answered(id, time, Instant::now()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.lock().on_over(self.id);
    }
}

fn rules(balance: &BalanceOptions, check: Option<&CheckOptions>) -> Rules {
    let thresholds = check.map(|check| Thresholds { rise: check.rise, fall: check.fall });
    Rules { balance: balance.clone(), thresholds }
}
