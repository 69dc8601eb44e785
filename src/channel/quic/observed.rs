//! An observer around any of quinn's congestion controllers: what a path does is only told to them.
//!
//! Owns no statistics: what is made of the numbers is the observer's business.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

/// Hears what a path does. Called from within a connection: has to return at once.
pub trait PathObserver: Send + Sync {
    /// An acknowledgement came, this long after the newest packet that it tells of was sent.
    fn on_rtt(&self, rtt: Duration);
    /// An acknowledgement covered this many bytes more.
    fn on_acked(&self, bytes: u64);
    /// This many bytes were found lost.
    fn on_lost(&self, bytes: u64);
}

/// A factory of controllers that tell an observer, around one of controllers that do not.
pub struct Observed<F> {
    inner: Arc<F>,
    observer: Arc<dyn PathObserver>,
}

impl<F> Observed<F> {
    /// Has all controllers of `inner` tell `observer`.
    #[must_use]
    pub fn new(inner: Arc<F>, observer: Arc<dyn PathObserver>) -> Self {
        Self { inner, observer }
    }
}

impl<F: ControllerFactory> ControllerFactory for Observed<F> {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.inner).build(now, current_mtu);
        let observer = Arc::clone(&self.observer);
        Box::new(ObservedController { inner, observer, newest_sent: None, acked_bytes: 0 })
    }
}

/// A controller, and who is told.
struct ObservedController {
    inner: Box<dyn Controller>,
    observer: Arc<dyn PathObserver>,
    newest_sent: Option<Instant>,
    acked_bytes: u64,
}

impl Controller for ObservedController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.newest_sent = self.newest_sent.max(Some(sent));
        self.acked_bytes += bytes;
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        if let Some(sent) = self.newest_sent.take() {
            self.observer.on_rtt(now.saturating_duration_since(sent));
            self.observer.on_acked(std::mem::take(&mut self.acked_bytes));
        }
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        if lost_bytes > 0 {
            self.observer.on_lost(lost_bytes);
        }
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            observer: Arc::clone(&self.observer),
            newest_sent: self.newest_sent,
            acked_bytes: self.acked_bytes,
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}
