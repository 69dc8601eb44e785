//! Congestion control for quinn: which controllers there are, and our BBR behind its traits.
//!
//! quinn has its own pacer, which knows no rate: it lets a window and a quarter through in a smoothed round trip, and at
//! most a window be in flight. [`PacedWindow`] makes one window out of BBR's window and rate; this file only translates
//! calls. quinn tells of each acknowledged packet, then of the end of the acknowledgement, then of losses; marks of
//! congestion come as a loss of nothing. It never tells of a loss that was none, so nothing is undone.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig, NewRenoConfig};
use quinn_proto::RttEstimator;

use super::observed::{Observed, PathObserver};
use crate::base::{Entropy, SystemEntropy};
use crate::congestion::{Bbr, BbrConfig, PacedWindow};

/// Which controller a QUIC channel gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuicCongestion {
    /// What suits most paths: BBR.
    #[default]
    Auto,
    /// CUBIC (RFC 9438), quinn's.
    Cubic,
    /// BBR version 3, ours.
    Bbr,
    /// NewReno (RFC 9002), quinn's.
    NewReno,
}

impl QuicCongestion {
    /// A factory for `quinn::TransportConfig`: connections begin with `initial_window_bytes` and tell `observer`.
    #[must_use]
    pub fn factory(
        self,
        initial_window_bytes: u64,
        observer: Option<Arc<dyn PathObserver>>,
    ) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Auto | Self::Bbr => observed(BbrFactory { initial_window_bytes }, observer),
            Self::Cubic => {
                let mut config = CubicConfig::default();
                config.initial_window(initial_window_bytes);
                observed(config, observer)
            }
            Self::NewReno => {
                let mut config = NewRenoConfig::default();
                config.initial_window(initial_window_bytes);
                observed(config, observer)
            }
        }
    }
}

/// Puts an observer around a factory, if there is one.
fn observed<F>(inner: F, observer: Option<Arc<dyn PathObserver>>) -> Arc<dyn ControllerFactory + Send + Sync>
where
    F: ControllerFactory + Send + Sync + 'static,
{
    match observer {
        Some(observer) => Arc::new(Observed::new(Arc::new(inner), observer)),
        None => Arc::new(inner),
    }
}

/// Builds [`BbrController`]s.
struct BbrFactory {
    initial_window_bytes: u64,
}

impl ControllerFactory for BbrFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let config = BbrConfig {
            initial_window_bytes: self.initial_window_bytes,
            segment_bytes: current_mtu.into(),
            seed: SystemEntropy::default().next_u64(),
        };
        Box::new(BbrController::new(config, now))
    }
}

/// BBR behind quinn's trait.
#[derive(Clone)]
struct BbrController {
    bbr: Bbr,
    paced: PacedWindow,
    initial_window_bytes: u64,
}

impl BbrController {
    fn new(config: BbrConfig, now: Instant) -> Self {
        let bbr = Bbr::new(config, now);
        let paced = PacedWindow::new(&bbr, now);
        Self { bbr, paced, initial_window_bytes: config.initial_window_bytes }
    }
}

impl Controller for BbrController {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        self.bbr.on_sent(now, bytes);
        self.paced.on_sent(bytes);
    }

    fn on_ack(&mut self, _now: Instant, sent: Instant, bytes: u64, _app_limited: bool, _rtt: &RttEstimator) {
        self.bbr.on_acked(sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _largest: Option<u64>) {
        self.bbr.on_ack_end(now, in_flight, app_limited);
        self.paced.update(now, &self.bbr);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        if lost_bytes == 0 {
            self.bbr.on_congestion_mark(now, sent);
        } else {
            self.bbr.on_lost(now, sent, lost_bytes);
        }
        if is_persistent_congestion {
            self.bbr.on_persistent_congestion(now);
        }
        self.paced.update(now, &self.bbr);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.bbr.on_segment_size(new_mtu.into());
    }

    fn window(&self) -> u64 {
        self.paced.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.bbr.window();
        metrics.pacing_rate = Some(self.bbr.pacing_rate().bytes_per_second().saturating_mul(8));
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window_bytes
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
