//! Admission as the accept loops share it: a lock around [`Admission`], a guard for each handshake, and counters.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::admission::{Admission, AdmissionLimits, Refusal};

/// Admits handshakes within the limits. Clones share them, so that several listeners of a node can have one bound.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    admission: Mutex<Admission>,
    counters: GateCounters,
}

impl Gate {
    /// A gate with nothing pending.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        let admission = Mutex::new(Admission::new(limits));
        Self(Arc::new(Shared { admission, counters: GateCounters::default() }))
    }

    /// Begins a handshake, which lasts until the permit is dropped.
    ///
    /// # Errors
    ///
    /// The bound that refuses it.
    pub fn admit(&self, peer: Option<IpAddr>, now: Instant) -> Result<Permit, Refusal> {
        let outcome = self.0.lock().admit(peer, now);
        self.0.counters.count(outcome);
        outcome.map(|()| Permit { shared: Arc::clone(&self.0), peer })
    }

    /// Whether a peer may come from there, before anything is done for it. One that may not is counted.
    #[must_use]
    pub fn allows(&self, peer: Option<IpAddr>) -> bool {
        let is_allowed = self.0.lock().allows(peer);
        if !is_allowed {
            self.0.counters.count(Err(Refusal::Address));
        }
        is_allowed
    }

    /// What was admitted and refused.
    #[must_use]
    pub fn counters(&self) -> &GateCounters {
        &self.0.counters
    }

    /// Handshakes that are pending.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.0.lock().pending()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One pending handshake. To be dropped when it has finished, whatever its outcome.
#[derive(Debug)]
#[must_use = "dropping the permit ends the handshake for the limits"]
pub struct Permit {
    shared: Arc<Shared>,
    peer: Option<IpAddr>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.lock().release(self.peer, Instant::now());
    }
}

/// Connections since the start, by what became of them at the gate and before it.
#[derive(Debug, Default)]
pub struct GateCounters {
    /// Admitted by the limits; a Unix peer that is refused for its credentials is among them.
    pub admitted: AtomicU64,
    /// Refused: [`Refusal::Address`].
    pub refused_address: AtomicU64,
    /// Refused: [`Refusal::Pending`].
    pub refused_pending: AtomicU64,
    /// Refused: [`Refusal::PendingOfSource`].
    pub refused_pending_of_source: AtomicU64,
    /// Refused: [`Refusal::Rate`].
    pub refused_rate: AtomicU64,
    /// Refused: [`Refusal::Sources`].
    pub refused_sources: AtomicU64,
    /// Refused: a Unix peer whose user and group are not allowed.
    pub refused_credentials: AtomicU64,
    /// Errors of accepting, and of setting up what was accepted.
    pub accept_errors: AtomicU64,
}

impl GateCounters {
    fn count(&self, outcome: Result<(), Refusal>) {
        let counter = match outcome {
            Ok(()) => &self.admitted,
            Err(Refusal::Address) => &self.refused_address,
            Err(Refusal::Pending) => &self.refused_pending,
            Err(Refusal::PendingOfSource) => &self.refused_pending_of_source,
            Err(Refusal::Rate) => &self.refused_rate,
            Err(Refusal::Sources) => &self.refused_sources,
        };
        increment(counter);
    }
}

pub(crate) fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_makes_room() {
        let gate = Gate::new(AdmissionLimits { pending_max: Some(1), ..AdmissionLimits::default() });
        let permit = gate.admit(None, Instant::now()).unwrap();
        assert_eq!(gate.admit(None, Instant::now()).unwrap_err(), Refusal::Pending);
        drop(permit);
        assert_eq!(gate.pending(), 0);
        drop(gate.admit(None, Instant::now()).unwrap());
        assert_eq!(gate.counters().admitted.load(Ordering::Relaxed), 2);
        assert_eq!(gate.counters().refused_pending.load(Ordering::Relaxed), 1);
    }
}
