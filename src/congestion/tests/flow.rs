//! A sender on the simulated path: BBR with a pacer, BBR behind a transport that takes a window only, or CUBIC.

use std::time::{Duration, Instant};

use super::super::{Bbr, BbrConfig, PacedWindow};
use super::network::{Outstanding, PACKET};

/// Who decides what is sent.
pub(super) enum Controller {
    /// BBR with a pacer that knows its rate.
    Paced {
        bbr: Bbr,
        next_send: Instant,
    },
    /// BBR through a window, with a pacer like quinn's.
    Windowed {
        bbr: Bbr,
        window: PacedWindow,
        pacer: WindowPacer,
    },
    Cubic(Cubic),
}

/// A flow, its application included.
pub(super) struct Flow {
    pub(super) controller: Controller,
    outstanding: Outstanding,
    /// Bytes acknowledged.
    pub(super) delivered: u64,
    /// Bytes found lost.
    pub(super) lost: u64,
    /// What the application has left to send; none is without end.
    pub(super) supply: Option<u64>,
    pub(super) is_waking: bool,
}

impl Flow {
    pub(super) fn paced(now: Instant, seed: u64) -> Self {
        Self::new(Controller::Paced { bbr: bbr(now, seed), next_send: now })
    }

    pub(super) fn windowed(now: Instant, seed: u64) -> Self {
        let bbr = bbr(now, seed);
        let window = PacedWindow::new(&bbr, now);
        Self::new(Controller::Windowed { bbr, window, pacer: WindowPacer { tokens: 10.0 * PACKET as f64, last: now } })
    }

    pub(super) fn cubic(now: Instant) -> Self {
        Self::new(Controller::Cubic(Cubic::new(now)))
    }

    fn new(controller: Controller) -> Self {
        Self { controller, outstanding: Outstanding::default(), delivered: 0, lost: 0, supply: None, is_waking: false }
    }

    /// The BBR of this flow.
    pub(super) fn bbr(&self) -> &Bbr {
        match &self.controller {
            Controller::Paced { bbr, .. } | Controller::Windowed { bbr, .. } => bbr,
            Controller::Cubic(_) => panic!("no BBR flow"),
        }
    }

    pub(super) fn may_send(&mut self, now: Instant) -> bool {
        let in_flight = self.outstanding.in_flight();
        if self.supply.is_some_and(|left| left < PACKET) {
            return false;
        }
        match &mut self.controller {
            Controller::Paced { bbr, next_send } => in_flight + PACKET <= bbr.window() && now >= *next_send,
            Controller::Windowed { bbr, window, pacer } => {
                in_flight + PACKET < window.window() && pacer.delay(now, window.window(), bbr.smoothed_rtt()).is_none()
            }
            Controller::Cubic(cubic) => in_flight + PACKET <= cubic.window as u64,
        }
    }

    pub(super) fn on_sent(&mut self, now: Instant) -> u64 {
        if let Some(left) = &mut self.supply {
            *left -= PACKET;
        }
        match &mut self.controller {
            Controller::Paced { bbr, next_send } => {
                bbr.on_sent(now, PACKET);
                let rate = bbr.pacing_rate().bytes_per_second();
                // A millisecond late makes no gap: timers are not better.
                *next_send = (*next_send).max(now - Duration::from_millis(1))
                    + Duration::from_secs_f64(PACKET as f64 / rate as f64);
            }
            Controller::Windowed { bbr, window, pacer } => {
                bbr.on_sent(now, PACKET);
                window.on_sent(PACKET);
                pacer.tokens -= PACKET as f64;
            }
            Controller::Cubic(_) => {}
        }
        self.outstanding.sent(now)
    }

    pub(super) fn on_acknowledged(&mut self, now: Instant, number: u64, sent: Instant) {
        if !self.outstanding.acknowledged(number) {
            return;
        }
        self.delivered += PACKET;
        let in_flight = self.outstanding.in_flight();
        let is_app_limited = self.supply.is_some_and(|left| left < PACKET);
        let lost = self.outstanding.lost(number);
        self.lost += lost.map_or(0, |(_, bytes)| bytes);
        match &mut self.controller {
            Controller::Paced { bbr, .. } => tell(bbr, now, sent, in_flight, is_app_limited, lost),
            Controller::Windowed { bbr, window, .. } => {
                tell(bbr, now, sent, in_flight, is_app_limited, lost);
                window.update(now, bbr);
            }
            Controller::Cubic(cubic) => {
                cubic.on_acknowledged(now, now - sent);
                if let Some((lost_sent, _)) = lost {
                    cubic.on_lost(now, lost_sent);
                }
            }
        }
    }

    /// When a pacer lets the next packet through, if that is what it waits for.
    pub(super) fn next_wake(&mut self, now: Instant) -> Option<Duration> {
        if self.is_waking || self.supply.is_some_and(|left| left < PACKET) {
            return None;
        }
        let in_flight = self.outstanding.in_flight();
        let wait = match &mut self.controller {
            Controller::Paced { bbr, next_send } if in_flight + PACKET <= bbr.window() => Some(*next_send - now),
            Controller::Windowed { bbr, window, pacer } if in_flight + PACKET < window.window() => {
                pacer.delay(now, window.window(), bbr.smoothed_rtt())
            }
            _ => None,
        };
        self.is_waking = wait.is_some();
        wait
    }
}

fn bbr(now: Instant, seed: u64) -> Bbr {
    Bbr::new(BbrConfig { initial_window_bytes: 10 * PACKET, segment_bytes: PACKET, seed }, now)
}

/// An acknowledgement, in the order in which quinn tells of it.
fn tell(
    bbr: &mut Bbr,
    now: Instant,
    sent: Instant,
    in_flight: u64,
    is_app_limited: bool,
    lost: Option<(Instant, u64)>,
) {
    bbr.on_acked(sent, PACKET);
    bbr.on_ack_end(now, in_flight, is_app_limited);
    if let Some((sent, bytes)) = lost {
        bbr.on_lost(now, sent, bytes);
    }
}

/// A pacer after quinn's: a window and a quarter in a smoothed round trip, in bursts of 2 ms.
pub(super) struct WindowPacer {
    tokens: f64,
    last: Instant,
}

impl WindowPacer {
    fn delay(&mut self, now: Instant, window: u64, rtt: Option<Duration>) -> Option<Duration> {
        let rtt = rtt.unwrap_or(Duration::from_millis(333)).as_secs_f64();
        let capacity = (window as f64 * 0.002 / rtt).clamp(10.0 * PACKET as f64, 256.0 * PACKET as f64);
        let rate = window as f64 * 1.25 / rtt;
        self.tokens = (self.tokens + rate * (now - self.last).as_secs_f64()).min(capacity);
        self.last = now;
        if self.tokens >= PACKET as f64 {
            return None;
        }
        // Timers have a granularity of a millisecond.
        Some(Duration::from_secs_f64((capacity - self.tokens) / rate).max(Duration::from_millis(1)))
    }
}

/// CUBIC after RFC 9438, without its Reno-friendly region and HyStart.
pub(super) struct Cubic {
    window: f64,
    window_max: f64,
    epoch: Option<Instant>,
    recovery: Instant,
    is_slow_start: bool,
}

impl Cubic {
    const C: f64 = 0.4;
    const BETA: f64 = 0.7;

    fn new(now: Instant) -> Self {
        Self { window: 10.0 * PACKET as f64, window_max: 0.0, epoch: None, recovery: now, is_slow_start: true }
    }

    fn on_acknowledged(&mut self, now: Instant, rtt: Duration) {
        if self.is_slow_start {
            self.window += PACKET as f64;
            return;
        }
        let epoch = *self.epoch.get_or_insert(now);
        // The RFC counts in segments of the usual size.
        let segments = |bytes: f64| bytes / 1500.0;
        let k = (segments(self.window_max) * (1.0 - Self::BETA) / Self::C).cbrt();
        let time = (now - epoch + rtt).as_secs_f64() - k;
        let target = (Self::C * time.powi(3) + segments(self.window_max)) * 1500.0;
        let target = target.clamp(self.window, 1.5 * self.window);
        self.window += (target - self.window) * PACKET as f64 / self.window;
    }

    fn on_lost(&mut self, now: Instant, sent: Instant) {
        if sent < self.recovery {
            return;
        }
        self.recovery = now;
        self.is_slow_start = false;
        self.window_max = self.window;
        self.window = (self.window * Self::BETA).max(4.0 * PACKET as f64);
        self.epoch = None;
    }
}
