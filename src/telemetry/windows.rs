//! What moved of late: counts over the last 1, 5, 15 and 60 seconds. Pure: time and counts come in as arguments.
//!
//! A [`Series`] keeps what was added at each tick. A window sums the ticks that lie in it, and says how much time they
//! cover: a second after the start that is a second, whichever window is asked for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

/// The windows, longest last.
pub const WINDOWS: [Window; 4] =
    [Window::new(1, "1s"), Window::new(5, "5s"), Window::new(15, "15s"), Window::new(60, "60s")];

/// How often what moved is added up: the shortest window.
pub const TICK: Duration = Duration::from_secs(1);

/// A length of time to look back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// In seconds.
    pub seconds: u64,
    /// The word for it in metrics.
    pub name: &'static str,
}

impl Window {
    const fn new(seconds: u64, name: &'static str) -> Self {
        Self { seconds, name }
    }

    /// Its length.
    #[must_use]
    pub const fn length(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What moved, as counts: of a channel, of a link, or of all of them. Totals since the start, or those of some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// Bytes of packets that were sent.
    pub bytes_sent: u64,
    /// Bytes of packets that were received.
    pub bytes_received: u64,
    /// Packets that were sent.
    pub packets_sent: u64,
    /// Packets that were received.
    pub packets_received: u64,
    /// Pieces of streams that were sent.
    pub fragments_sent: u64,
    /// Pieces of streams that were received.
    pub fragments_received: u64,
    /// Bytes of padding among those sent.
    pub padding_bytes: u64,
    /// Stream bytes that went out again on another channel.
    pub reinjected_bytes: u64,
    /// Packets that the transports sent: TCP's segments with data, QUIC's packets.
    pub transport_packets_sent: u64,
    /// Those of them that were found lost: what TCP sent again, what QUIC gave up.
    pub transport_packets_lost: u64,
    /// Bytes that the transports had to send again.
    pub retransmitted_bytes: u64,
}

impl Flow {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        for (field, value) in self.fields_mut().into_iter().zip(other.fields()) {
            *field += value;
        }
    }

    /// What was added since `before`. A count that was set back has added nothing.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut difference = *self;
        for (field, value) in difference.fields_mut().into_iter().zip(before.fields()) {
            *field = field.saturating_sub(value);
        }
        difference
    }

    fn fields(&self) -> [u64; 11] {
        let mut copy = *self;
        copy.fields_mut().map(|field| *field)
    }

    fn fields_mut(&mut self) -> [&mut u64; 11] {
        [
            &mut self.bytes_sent,
            &mut self.bytes_received,
            &mut self.packets_sent,
            &mut self.packets_received,
            &mut self.fragments_sent,
            &mut self.fragments_received,
            &mut self.padding_bytes,
            &mut self.reinjected_bytes,
            &mut self.transport_packets_sent,
            &mut self.transport_packets_lost,
            &mut self.retransmitted_bytes,
        ]
    }
}

/// Times that were measured: how many, and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// All together.
    pub sum: Duration,
}

impl Latency {
    /// Adds a measurement.
    pub fn on_sample(&mut self, time: Duration) {
        self.count += 1;
        self.sum = self.sum.saturating_add(time);
    }

    /// Adds those of another one.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Their mean.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        (self.count > 0).then(|| self.sum.div_f64(self.count as f64))
    }
}

/// What moved in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct WindowStats {
    /// Length of the window, in seconds.
    pub window_seconds: u64,
    /// How much of it was watched, in seconds. 0: nothing is known yet.
    pub covered_seconds: f64,
    /// Bytes a second that were sent.
    pub sent_bytes_per_second: f64,
    /// Bytes a second that were received.
    pub received_bytes_per_second: f64,
    /// Packets that were sent.
    pub packets_sent: u64,
    /// Packets that were received.
    pub packets_received: u64,
    /// Pieces of streams that were sent.
    pub fragments_sent: u64,
    /// Pieces of streams that were received.
    pub fragments_received: u64,
    /// Mean round-trip time, in seconds, if one was measured.
    pub latency_mean_seconds: Option<f64>,
    /// Share of the transports' packets that were lost, those that TCP repaired included; `None` when none were sent, or
    /// nobody tells.
    pub loss_ratio: Option<f64>,
    /// Bytes that the transports sent again.
    pub retransmitted_bytes: u64,
    /// Stream bytes that went out again on another channel.
    pub reinjected_bytes: u64,
    /// Share of padding in the bytes that were sent.
    pub padding_ratio: f64,
}

/// What was added at each tick of the last minute.
#[derive(Clone, Debug)]
pub struct Series {
    /// Where the oldest tick begins.
    begin: Instant,
    /// End of each tick, and what was added in it.
    ticks: VecDeque<(Instant, Flow, Latency)>,
}

impl Series {
    /// Nothing yet, from `now` on.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { begin: now, ticks: VecDeque::new() }
    }

    /// Adds what moved since the last tick.
    pub fn on_tick(&mut self, now: Instant, flow: Flow, latency: Latency) {
        self.ticks.push_back((now, flow, latency));
        let keep = WINDOWS[WINDOWS.len() - 1].length() + TICK;
        while let Some((end, ..)) = self.ticks.front()
            && (now.saturating_duration_since(*end) > keep || self.ticks.len() > TICKS_MAX)
        {
            self.begin = *end;
            self.ticks.pop_front();
        }
    }

    /// What moved in the window that ended with the last tick.
    #[must_use]
    pub fn window(&self, window: Window) -> WindowStats {
        let Some((end, ..)) = self.ticks.back() else { return WindowStats::of(window, 0.0, &Flow::default(), None) };
        // Ticks come a little early or late: one that has most of itself in the window belongs to it.
        let earliest = window.length() + TICK / 2;
        let (mut flow, mut latency, mut covered) = (Flow::default(), Latency::default(), Duration::ZERO);
        for index in (0..self.ticks.len()).rev() {
            let begin = index.checked_sub(1).map_or(self.begin, |before| self.ticks[before].0);
            let reach = end.saturating_duration_since(begin);
            if reach > earliest && covered > Duration::ZERO {
                break;
            }
            covered = reach;
            flow.add(&self.ticks[index].1);
            latency.add(&self.ticks[index].2);
        }
        WindowStats::of(window, covered.as_secs_f64(), &flow, latency.mean())
    }

    /// All windows.
    #[must_use]
    pub fn windows(&self) -> [WindowStats; 4] {
        WINDOWS.map(|window| self.window(window))
    }
}

impl WindowStats {
    fn of(window: Window, covered_seconds: f64, flow: &Flow, latency: Option<Duration>) -> Self {
        let rate = |bytes: u64| if covered_seconds > 0.0 { bytes as f64 / covered_seconds } else { 0.0 };
        Self {
            window_seconds: window.seconds,
            covered_seconds,
            sent_bytes_per_second: rate(flow.bytes_sent),
            received_bytes_per_second: rate(flow.bytes_received),
            packets_sent: flow.packets_sent,
            packets_received: flow.packets_received,
            fragments_sent: flow.fragments_sent,
            fragments_received: flow.fragments_received,
            latency_mean_seconds: latency.map(|mean| mean.as_secs_f64()),
            loss_ratio: loss_ratio(flow),
            retransmitted_bytes: flow.retransmitted_bytes,
            reinjected_bytes: flow.reinjected_bytes,
            padding_ratio: share(flow.padding_bytes, flow.bytes_sent).unwrap_or_default(),
        }
    }
}

/// Share of the transports' packets that were lost. What was lost may have been sent before, so that it can be more than
/// was sent.
#[must_use]
pub fn loss_ratio(flow: &Flow) -> Option<f64> {
    let sent = flow.transport_packets_sent.max(flow.transport_packets_lost);
    share(flow.transport_packets_lost, sent)
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Ticks that are kept, should they come faster than they ought to.
const TICKS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(bytes: u64) -> Flow {
        Flow { bytes_sent: bytes, bytes_received: 2 * bytes, packets_sent: 10, ..Flow::default() }
    }

    /// A series with one tick a second, of so many bytes each.
    fn series(start: Instant, bytes: impl IntoIterator<Item = u64>) -> Series {
        let mut series = Series::new(start);
        for (second, bytes) in bytes.into_iter().enumerate() {
            series.on_tick(start + TICK * (second as u32 + 1), flow(bytes), Latency::default());
        }
        series
    }

    #[test]
    fn each_window_has_its_own_rate() {
        let bytes = (0..100).map(|second| {
            if second == 99 {
                600
            } else if second >= 85 {
                150
            } else {
                0
            }
        });
        let series = series(Instant::now(), bytes);
        let rates = series.windows().map(|stats| stats.sent_bytes_per_second);
        assert_eq!(rates, [600.0, (600.0 + 4.0 * 150.0) / 5.0, (600.0 + 14.0 * 150.0) / 15.0, 45.0]);
        assert_eq!(series.windows().map(|stats| stats.covered_seconds), [1.0, 5.0, 15.0, 60.0]);
        assert_eq!(series.windows().map(|stats| stats.packets_sent), [10, 50, 150, 600]);
    }

    #[test]
    fn a_young_series_says_how_little_it_has_seen() {
        let series = series(Instant::now(), [100, 200]);
        let minute = series.window(WINDOWS[3]);
        assert_eq!((minute.covered_seconds, minute.sent_bytes_per_second), (2.0, 150.0));
        assert_eq!((minute.window_seconds, minute.received_bytes_per_second), (60, 300.0));
        let fresh = Series::new(Instant::now()).window(WINDOWS[0]);
        assert_eq!((fresh.covered_seconds, fresh.sent_bytes_per_second), (0.0, 0.0));
    }

    #[test]
    fn a_late_tick_counts_for_the_time_that_it_covers() {
        let start = Instant::now();
        let mut series = series(start, [100; 10]);
        series.on_tick(start + Duration::from_secs(14), flow(400), Latency::default());
        assert_eq!(series.window(WINDOWS[0]).covered_seconds, 4.0, "the last tick, whatever it is");
        assert_eq!(series.window(WINDOWS[0]).sent_bytes_per_second, 100.0);
        assert_eq!(series.window(WINDOWS[1]).covered_seconds, 5.0);
    }

    #[test]
    fn ticks_of_an_uneven_clock_fill_the_window() {
        let start = Instant::now();
        let mut series = Series::new(start);
        for tick in 1..=60_u64 {
            let jitter = if tick % 2 == 0 { 30 } else { 0 };
            series.on_tick(start + Duration::from_millis(tick * 1000 + jitter), flow(100), Latency::default());
        }
        let five = series.window(WINDOWS[1]);
        assert_eq!(five.packets_sent, 50);
        assert!((five.sent_bytes_per_second - 100.0).abs() < 2.0, "{five:?}");
    }

    #[test]
    fn what_tcp_repaired_is_loss() {
        let mut series = Series::new(Instant::now());
        let lost = Flow {
            transport_packets_sent: 200,
            transport_packets_lost: 3,
            retransmitted_bytes: 4344,
            bytes_sent: 1000,
            padding_bytes: 20,
            ..Flow::default()
        };
        series.on_tick(Instant::now() + TICK, lost, Latency::default());
        let stats = series.window(WINDOWS[0]);
        assert_eq!((stats.loss_ratio, stats.retransmitted_bytes), (Some(0.015), 4344));
        assert_eq!(stats.padding_ratio, 0.02);
    }

    #[test]
    fn nothing_sent_is_no_loss_and_no_latency() {
        let series = series(Instant::now(), [0]);
        let stats = series.window(WINDOWS[0]);
        assert_eq!((stats.loss_ratio, stats.latency_mean_seconds), (None, None));
        let late = Flow { transport_packets_lost: 5, transport_packets_sent: 1, ..Flow::default() };
        assert_eq!(loss_ratio(&late), Some(1.0), "losses of packets that were sent before");
    }

    #[test]
    fn latency_is_the_mean_of_the_samples_in_the_window() {
        let start = Instant::now();
        let mut series = Series::new(start);
        for (second, milliseconds) in [100, 10, 20].into_iter().enumerate() {
            let mut latency = Latency::default();
            (0..4).for_each(|_| latency.on_sample(Duration::from_millis(milliseconds)));
            series.on_tick(start + TICK * (second as u32 + 1), Flow::default(), latency);
        }
        assert_eq!(series.window(WINDOWS[0]).latency_mean_seconds, Some(0.02));
        let all = series.window(WINDOWS[3]).latency_mean_seconds.unwrap();
        assert!((all - 0.13 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn memory_is_bounded_however_often_it_ticks() {
        let start = Instant::now();
        let mut series = Series::new(start);
        for tick in 0..10_000_u32 {
            series.on_tick(start + Duration::from_millis(1) * tick, flow(1), Latency::default());
        }
        assert!(series.ticks.len() <= TICKS_MAX);
    }

    #[test]
    fn counts_that_were_set_back_add_nothing() {
        let (before, after) = (flow(1000), flow(10));
        assert_eq!(after.since(&before).bytes_sent, 0);
        assert_eq!(before.since(&after).bytes_sent, 990);
        let mut sum = before;
        sum.add(&after);
        assert_eq!(sum.bytes_sent, 1010);
    }
}
