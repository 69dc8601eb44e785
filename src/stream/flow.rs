//! Credits for one stream or for a whole session (RFC 9000 §4), and windows that grow to the path's need.

use std::time::{Duration, Instant};

/// What the peer lets us send.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendWindow {
    maximum: u64,
    used: u64,
    /// The maximum at which a blocked signal was sent.
    blocked_at: Option<u64>,
}

impl SendWindow {
    /// A window with a credit.
    #[must_use]
    pub fn new(maximum: u64) -> Self {
        Self { maximum, used: 0, blocked_at: None }
    }

    /// Bytes that may be sent now.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.maximum - self.used
    }

    /// Counts new bytes as sent.
    pub fn consume(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.available());
        self.used += bytes;
    }

    /// Takes a new maximum; a lower one is old news. Returns whether it opened a closed window, and whether it was news.
    pub fn set_maximum(&mut self, maximum: u64) -> (bool, bool) {
        let was_closed = self.available() == 0;
        let is_news = maximum > self.maximum;
        self.maximum = self.maximum.max(maximum);
        (was_closed && self.available() > 0, is_news)
    }

    /// The limit to complain about, once for each limit, when nothing may be sent.
    pub fn poll_blocked(&mut self) -> Option<u64> {
        let news = self.available() == 0 && self.blocked_at != Some(self.maximum);
        news.then(|| {
            self.blocked_at = Some(self.maximum);
            self.maximum
        })
    }
}

/// What a line may carry that a window has to be large enough for without a second wait: 1 Gbit/s.
const FAST_BYTES_PER_SECOND: f64 = 125e6;

/// What a window has to hold, in round trips of that: what follows a gap waits for two and more, and a credit is news only after
/// half of one.
const NEEDED_ROUND_TRIPS: f64 = 4.0;

/// Of a window, the part that is used up when a new credit is told. With less of it used, fewer round trips of what the peer may
/// send depend on news that is late.
const RENEWED_SHARE: u64 = 4;

/// Of a window, the part behind a gap from which on it grows. A sender that doubles its rate each round trip has sent as much
/// again when it hears of that, and what follows a gap waits for more than one: this reaches it in time.
const GAP_SHARE: u64 = 4;

/// Of a window, the part that the application has to have taken since it last grew, so that it grows beyond what the path needs:
/// one that takes little is what holds the peer up, whatever else is late.
const TAKEN_SHARE: u64 = 8;

/// Of a first window, the part that the peer has used when it grows to what the path needs, and the part that may wait for the
/// application then: one that takes little is not sent more.
const REACHED_SHARE: u64 = 4;
const READY_SHARE: u64 = 16;

/// What we let the peer send.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveWindow {
    /// The credit that was given, as an offset.
    maximum: u64,
    /// Bytes that the application has taken.
    consumed: u64,
    window: u64,
    window_max: u64,
    updated: Option<Instant>,
    /// The credit that was given when the window last changed.
    resized_at: u64,
    /// What the application had taken then.
    consumed_at_resize: u64,
}

impl ReceiveWindow {
    /// A window of a size, which may grow.
    #[must_use]
    pub fn new(window: u64, window_max: u64) -> Self {
        Self {
            maximum: window,
            consumed: 0,
            window,
            window_max: window_max.max(window),
            updated: None,
            resized_at: window,
            consumed_at_resize: 0,
        }
    }

    /// The highest offset that the peer may reach.
    #[must_use]
    pub fn maximum(&self) -> u64 {
        self.maximum
    }

    /// The current size, in bytes.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Counts bytes that the application has taken.
    pub fn consume(&mut self, bytes: u64) {
        self.consumed += bytes;
    }

    /// A new credit to tell the peer, once a quarter of the window is used up. At a rate that uses up all of it in less than four
    /// round trips the window may be what holds the peer up, and it doubles.
    pub fn poll_update(&mut self, now: Instant, round_trip: Duration) -> Option<u64> {
        let used = self.consumed + self.window - self.maximum;
        if used < (self.window / RENEWED_SHARE).max(1) {
            return None;
        }
        let all_used_in = |elapsed: Duration| elapsed.as_secs_f64() * self.window as f64 / used as f64;
        if let Some(updated) = self.updated
            && all_used_in(now.saturating_duration_since(updated)) < round_trip.as_secs_f64() * NEEDED_ROUND_TRIPS
        {
            return Some(self.grow(self.window * 2, now));
        }
        self.updated = Some(now);
        self.maximum = self.consumed + self.window;
        Some(self.maximum)
    }

    /// The peer has used up the credit `limit`, and the application has taken what there was to take: the window is
    /// what holds the peer up. Each such wait is a round trip lost, so it grows at once to what a fast line of that round
    /// trip needs, and then to the fourfold, if the application takes what comes. A new credit to tell the peer, unless it has
    /// grown since that one was given, or cannot. The round trip is zero when it is not known.
    ///
    /// Where lanes lose packets, most of a window waits behind a gap, and a quarter is used up too seldom for
    /// [`poll_update`](Self::poll_update) to see that.
    pub fn on_blocked(&mut self, limit: u64, now: Instant, round_trip: Duration) -> Option<u64> {
        if limit < self.resized_at { None } else { self.grow_towards(4, self.is_taken(), now, round_trip) }
    }

    /// The same for a window that several share: those that take nothing should not hold up the others, and have windows of
    /// their own.
    pub fn on_shared_blocked(&mut self, limit: u64, now: Instant, round_trip: Duration) -> Option<u64> {
        if limit < self.resized_at { None } else { self.grow_towards(4, true, now, round_trip) }
    }

    /// So many bytes wait behind what is missing. The window should not be used up before that is repaired, which the peer
    /// would say a round trip too late: it grows in advance to what a fast line of that round trip needs, and then doubles, if
    /// the application takes what comes. A new credit to tell the peer, if there is one.
    pub fn on_gap(&mut self, waiting: u64, now: Instant, round_trip: Duration) -> Option<u64> {
        if waiting <= self.window / GAP_SHARE { None } else { self.grow_towards(2, self.is_taken(), now, round_trip) }
    }

    /// The peer has sent up to the offset `highest`, and the application has taken all but `ready` bytes of it. A peer that
    /// doubles its rate each round trip uses up the rest of a window before it hears of more, so that one in which a good part
    /// is used grows to what a fast line of that round trip needs, once. A new credit to tell the peer, if there is one.
    pub fn on_reached(&mut self, highest: u64, ready: u64, now: Instant, round_trip: Duration) -> Option<u64> {
        let is_early = self.maximum.saturating_sub(highest) > self.window - self.window / REACHED_SHARE;
        let is_untaken = ready > self.window / READY_SHARE;
        if is_early || is_untaken { None } else { self.grow_towards(1, false, now, round_trip) }
    }

    fn is_taken(&self) -> bool {
        self.consumed - self.consumed_at_resize >= self.window / TAKEN_SHARE
    }

    /// Grows to what the path needs, or by a factor.
    fn grow_towards(&mut self, factor: u64, by_factor: bool, now: Instant, round_trip: Duration) -> Option<u64> {
        let by_factor = if by_factor { self.window * factor } else { 0 };
        let window = needed_bytes(round_trip).max(by_factor).min(self.window_max);
        (window > self.window).then(|| self.grow(window, now))
    }

    /// One of several that share this window has grown to `window`: this one should have room for it and others beside it. A
    /// new credit to tell the peer, if there is one.
    pub fn make_room_for(&mut self, window: u64, now: Instant) -> Option<u64> {
        let wanted = window.saturating_add(window / 2).min(self.window_max);
        (wanted > self.window).then(|| self.grow(wanted, now))
    }

    fn grow(&mut self, window: u64, now: Instant) -> u64 {
        self.window = window.min(self.window_max);
        self.updated = Some(now);
        self.maximum = self.consumed + self.window;
        (self.resized_at, self.consumed_at_resize) = (self.maximum, self.consumed);
        self.maximum
    }
}

/// A window that a fast line of this round trip does not use up.
fn needed_bytes(round_trip: Duration) -> u64 {
    (FAST_BYTES_PER_SECOND * NEEDED_ROUND_TRIPS * round_trip.as_secs_f64()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_until_it_fills_the_path() {
        // 150 ms at 1 Gbit/s are 18.75 MB; the reader takes everything at once.
        let round_trip = Duration::from_millis(150);
        let mut now = Instant::now();
        let mut window = ReceiveWindow::new(1 << 20, 128 << 20);
        let mut sent = 0;
        for _ in 0..20 {
            let take = window.maximum().min(sent + 18_750_000) - sent;
            sent += take;
            window.consume(take);
            now += round_trip;
            window.poll_update(now, round_trip);
        }
        assert!(window.window() >= 18_750_000, "{}", window.window());
        assert!(window.window() <= 128 << 20);
    }

    #[test]
    fn a_slow_reader_keeps_a_small_window() {
        let mut now = Instant::now();
        let mut window = ReceiveWindow::new(1000, 100_000);
        for _ in 0..50 {
            window.consume(500);
            now += Duration::from_secs(1);
            window.poll_update(now, Duration::from_millis(10));
        }
        assert_eq!(window.window(), 1000);
    }

    #[test]
    fn a_window_that_is_used_up_behind_a_gap_grows() {
        let (now, short) = (Instant::now(), Duration::ZERO);
        let mut window = ReceiveWindow::new(1000, 10_000);
        window.consume(200);
        assert_eq!(window.on_blocked(999, now, short), None, "an old signal");
        assert_eq!(window.on_blocked(1000, now, short), Some(4200));
        assert_eq!(window.on_blocked(1000, now, short), None);
        window.consume(3000);
        assert_eq!(window.poll_update(now + Duration::from_secs(1), Duration::ZERO), Some(7200));
        // The signal crossed the update: it is about the grown window all the same.
        assert_eq!(window.on_blocked(4200, now, short), Some(13_200));
        assert_eq!(window.on_blocked(13_200, now, short), None, "it is as large as it may be");
    }

    /// A machine that has other things to do lets lanes wait for one another, too.
    #[test]
    fn a_reader_that_takes_little_keeps_a_small_window_whatever_is_late() {
        let (now, short) = (Instant::now(), Duration::from_millis(1));
        let mut window = ReceiveWindow::new(1 << 20, 128 << 20);
        window.consume(64 << 10);
        assert_eq!(window.on_gap(1 << 19, now, short), None);
        assert_eq!(window.on_blocked(1 << 20, now, short), None);
        window.consume(64 << 10);
        assert_eq!(window.on_gap(1 << 19, now, short), Some((2 << 20) + (128 << 10)));
        window.consume(128 << 10);
        assert_eq!(window.on_gap(1 << 20, now, short), None, "it has to take some of each");
        assert_eq!(window.on_blocked(window.maximum(), now, short), None);
        window.consume(128 << 10);
        assert_eq!(window.on_blocked(window.maximum(), now, short), Some((8 << 20) + (384 << 10)));
    }

    #[test]
    fn a_shared_window_grows_although_nobody_takes_anything() {
        let mut window = ReceiveWindow::new(1 << 20, 3 << 20);
        assert_eq!(window.on_shared_blocked(1 << 20, Instant::now(), Duration::ZERO), Some(3 << 20));
    }

    #[test]
    fn a_window_that_is_used_up_on_a_long_path_grows_to_its_need_at_once() {
        let mut window = ReceiveWindow::new(1 << 20, 128 << 20);
        let round_trip = Duration::from_millis(150);
        assert_eq!(window.on_blocked(1 << 20, Instant::now(), round_trip), Some(75_000_000));
    }

    #[test]
    fn a_window_grows_before_what_waits_behind_a_gap_has_used_it_up() {
        let (now, long, short) = (Instant::now(), Duration::from_millis(150), Duration::from_millis(1));
        let mut window = ReceiveWindow::new(1 << 20, 128 << 20);
        assert_eq!(window.on_gap(1 << 18, now, long), None, "it is not much yet");
        assert_eq!(window.on_gap((1 << 18) + 1, now, long), Some(75_000_000));
        assert_eq!(window.on_gap((1 << 18) + 1, now, long), None, "of the grown window that is little");
        window.consume(10_000_000);
        assert_eq!(window.on_gap(20_000_000, now, long), Some(10_000_000 + (128 << 20)));
        let mut window = ReceiveWindow::new(1 << 20, 3 << 20);
        window.consume(1 << 20);
        assert_eq!(window.on_gap(1 << 20, now, short), Some(3 << 20));
        window.consume(1 << 20);
        assert_eq!(window.on_gap(1 << 20, now, short), Some(5 << 20));
        window.consume(1 << 20);
        assert_eq!(window.on_gap(3 << 20, now, short), None, "it is as large as it may be");
    }

    #[test]
    fn a_first_window_grows_to_the_need_of_the_path_before_it_is_used_up() {
        let (now, long, short) = (Instant::now(), Duration::from_millis(150), Duration::from_millis(1));
        let mut window = ReceiveWindow::new(1 << 20, 128 << 20);
        assert_eq!(window.on_reached((1 << 18) - 1, 0, now, long), None, "it is not much yet");
        assert_eq!(window.on_reached(1 << 18, (1 << 16) + 1, now, long), None, "nobody takes it");
        assert_eq!(window.on_reached(1 << 18, 0, now, short), None, "a short path needs no more");
        assert_eq!(window.on_reached(1 << 18, 1 << 16, now, long), Some(75_000_000));
        assert_eq!(window.on_reached(75_000_000, 0, now, long), None, "once");
    }

    #[test]
    fn a_new_credit_is_told_when_a_quarter_is_used() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut window = ReceiveWindow::new(1000, 100_000);
        window.consume(249);
        assert_eq!(window.poll_update(now, second / 10), None);
        window.consume(1);
        assert_eq!(window.poll_update(now, second / 10), Some(1250));
        window.consume(250);
        assert_eq!(window.poll_update(now + second / 10, second / 10), Some(1500), "all of it in four round trips");
        window.consume(250);
        assert_eq!(window.poll_update(now + second / 6, second / 10), Some(2750), "in less");
        window.consume(500);
        assert_eq!(window.poll_update(now + second, second / 10), Some(3250), "slowly");
    }

    #[test]
    fn nothing_used_is_no_news_in_the_smallest_window() {
        let now = Instant::now();
        let mut window = ReceiveWindow::new(1, 1);
        assert_eq!(window.poll_update(now, Duration::ZERO), None);
        window.consume(1);
        assert_eq!(window.poll_update(now, Duration::ZERO), Some(2));
    }

    #[test]
    fn a_shared_window_makes_room_for_one_that_grows_and_others() {
        let now = Instant::now();
        let mut window = ReceiveWindow::new(16 << 20, 192 << 20);
        window.consume(100);
        assert_eq!(window.make_room_for(8 << 20, now), None, "it has it");
        assert_eq!(window.make_room_for(32 << 20, now), Some(100 + (48 << 20)));
        assert_eq!(window.make_room_for(u64::MAX, now), Some(100 + (192 << 20)));
        assert_eq!(window.make_room_for(u64::MAX, now), None);
    }

    #[test]
    fn old_credits_and_repeated_complaints_are_ignored() {
        let mut window = SendWindow::new(10);
        window.consume(10);
        assert_eq!(window.poll_blocked(), Some(10));
        assert_eq!(window.poll_blocked(), None);
        assert_eq!(window.set_maximum(5), (false, false));
        assert_eq!(window.set_maximum(12), (true, true));
        assert_eq!(window.available(), 2);
    }
}
