//! The tasks that check targets: one for each target of each service that has checks, and none else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::check::CheckOptions;
use super::pool::Pool;
use super::probe::Probe;
use super::state::TargetId;
use crate::service::target::{Service, Target};

/// The checks of a node's services. They end with this.
#[derive(Debug, Default)]
pub(in crate::service) struct Checks {
    tasks: HashMap<(String, TargetId), Task>,
}

/// What a task does, and its end.
#[derive(Debug)]
struct Task {
    plan: Plan,
    handle: AbortHandle,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    probe: Probe,
    interval: Duration,
}

impl Checks {
    /// Checks the targets of these services from now on, and no others. A check that stays as it is goes on in its time.
    /// Has to be called within a tokio runtime.
    pub(in crate::service) fn follow<'a>(&mut self, services: impl IntoIterator<Item = &'a Arc<Service>>) {
        let mut before = std::mem::take(&mut self.tasks);
        for service in services {
            let Some(options) = &service.config().check else { continue };
            for (id, target) in service.pool().ids() {
                let Some(plan) = plan(service, &target, options) else { continue };
                let key = (service.config().name.clone(), id);
                let task = match before.remove(&key) {
                    Some(task) if task.plan == plan => task,
                    _ => Task::start(plan, id, Arc::clone(service.pool())),
                };
                self.tasks.insert(key, task);
            }
        }
    }
}

impl Task {
    fn start(plan: Plan, id: TargetId, pool: Arc<Pool>) -> Self {
        let handle = tokio::spawn(keep_checking(plan.clone(), id, pool)).abort_handle();
        Self { plan, handle }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// `None` for a target that cannot be asked, which a configuration does not have together with checks.
fn plan(service: &Service, target: &Target, options: &CheckOptions) -> Option<Plan> {
    let config = service.config();
    let of_target = config.targets.all().iter().find(|config| config.target == *target)?;
    let (address, proxy_protocol) = match (&of_target.check, target) {
        // What answers there is not what clients are led to, and gets no header.
        (Some(address), _) => (address.clone(), None),
        (None, Target::Address(address)) => (address.clone(), config.proxy_protocol),
        (None, _) => return None,
    };
    let probe = Probe { address, kind: options.kind.clone(), proxy_protocol, timeout: options.timeout };
    Some(Plan { probe, interval: options.interval })
}

async fn keep_checking(plan: Plan, id: TargetId, pool: Arc<Pool>) {
    let Plan { probe, interval } = plan;
    // Many that begin together do not stay together.
    tokio::time::sleep((interval / 10).min(FIRST_DELAY_MAX).mul_f64(fraction(pool.random()))).await;
    loop {
        let begun = Instant::now();
        pool.on_checked(id, &probe.run().await);
        tokio::time::sleep_until(begun + jittered(interval, pool.random())).await;
    }
}

/// An interval, give or take a tenth.
fn jittered(interval: Duration, random: u64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fraction(random))
}

/// A random number as one from 0 to 1.
fn fraction(random: u64) -> f64 {
    random as f64 / u64::MAX as f64
}

/// What is wrong from the start is known soon.
const FIRST_DELAY_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_varies_by_a_tenth() {
        let at = |random| jittered(Duration::from_secs(10), random);
        assert_eq!(at(0), Duration::from_secs(9));
        assert_eq!(at(u64::MAX), Duration::from_secs(11));
        assert!((9.9..10.1).contains(&at(u64::MAX / 2).as_secs_f64()));
    }
}
