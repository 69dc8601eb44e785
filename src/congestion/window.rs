//! A pacing rate for transports that take a window and nothing else.
//!
//! Such a transport sends while less than its window is in flight, and spreads a window over a round trip at some rate of
//! its own that is higher than BBR's. What holds it to BBR's rate is then the window: the credit that accrues at the
//! pacing rate is put on top of what is in flight, so that each acknowledgement lets through what the rate has earned
//! since the last. Sending leaves the window alone, as it moves credit into flight.
//!
//! The transport looks at the window when something happens to it, which with data in flight is an acknowledgement or a
//! timer. Where acknowledgements are far apart credit runs into its bound; so that this never starves the flow, the window
//! is not below what the rate keeps in flight on the path without a queue. In Startup, where BBR's window is what bounds the
//! growth, that window is told, with more on top for the transport's own pacer.

use std::time::{Duration, Instant};

use super::bandwidth::scale;
use super::bbr::Bbr;
use super::state::State;

/// BBR's window and rate as one window.
#[derive(Clone, Debug)]
pub struct PacedWindow {
    window: u64,
    credit: u64,
    in_flight: u64,
    last: Instant,
}

/// Time for which credit accrues at least: a process may be late by this much without losing rate.
const CREDIT_TIME_MIN: Duration = Duration::from_millis(10);

/// Segments of credit at least: quinn's pacer sends ten at a time, and at a low rate earns them for long.
const CREDIT_SEGMENTS_MIN: u64 = 20;

/// What is told in Startup while BBR's window is not reached, as a part of that. To double its rate each round a flow has to send
/// 1.39 windows in a round trip (Startup's pacing gain of 4 ln 2, at half a window delivered), and what spreads a window and a
/// quarter over it by timers that are late sends no more than one. What goes beyond BBR's window is what is sent between two
/// acknowledgements.
const STARTUP_WINDOW_GAIN: f64 = 1.5;

/// The part of the RTT for which credit accrues. More would let a pause of the application become a burst into the queue.
const CREDIT_RTT_PART: u32 = 16;

impl PacedWindow {
    /// The window before anything was sent.
    #[must_use]
    pub fn new(bbr: &Bbr, now: Instant) -> Self {
        Self { window: bbr.window(), credit: 0, in_flight: 0, last: now }
    }

    /// The bytes that may be in flight now.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// `bytes` were sent; `bbr` knows already.
    pub fn on_sent(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_sub(bytes);
        self.in_flight += bytes;
    }

    /// Acknowledgements or losses came in; `bbr` knows already.
    pub fn update(&mut self, now: Instant, bbr: &Bbr) {
        let rate = bbr.pacing_rate();
        let bound_time = CREDIT_TIME_MIN.max(bbr.smoothed_rtt().unwrap_or_default() / CREDIT_RTT_PART);
        let bound = rate.bytes_in(bound_time).max(CREDIT_SEGMENTS_MIN * bbr.segment_bytes());
        let earned = rate.bytes_in(now.saturating_duration_since(self.last));
        self.credit = (self.credit + earned).min(bound);
        self.last = self.last.max(now);
        self.in_flight = bbr.in_flight();
        let Some(min_rtt) = bbr.min_rtt() else {
            self.window = bbr.window();
            return;
        };
        let floor = rate.bytes_in(min_rtt) + bbr.send_quantum();
        let is_doubling = bbr.state() == State::Startup && self.in_flight < bbr.window();
        let most = if is_doubling { scale(bbr.window(), STARTUP_WINDOW_GAIN) } else { bbr.window() };
        self.window = (self.in_flight + self.credit).max(floor).min(most);
    }
}
