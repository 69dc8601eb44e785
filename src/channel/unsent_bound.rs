//! How many unsent bytes the kernel should hold of a TCP channel (`TCP_NOTSENT_LOWAT`), by its rate and round trip.
//!
//! What the kernel holds unsent can be sent on no other channel, so it should be little. But a socket that runs dry, be it for
//! a moment, tells the kernel's congestion control that the application limits it, and what is measured for a round trip from
//! then on does not count. BBR then does not see that the path is full, stays in its startup, and overflows the queue. A task
//! may be late by milliseconds; the longer the round trip, the more each such moment costs. So the socket holds what it
//! sends in a part of a round trip.

use std::time::{Duration, Instant};

/// The bound at first, and the least: what can be written at once without many calls.
pub(super) const UNSENT_BYTES_MIN: u32 = 128 * 1024;

/// The largest: enough for a gigabit a second at 100 ms, and bounds what the kernel holds of many channels.
const UNSENT_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// The bound is what is written in this part of a round trip. The socket becomes writable at half of it.
const ROUND_TRIP_PART: u32 = 3;

/// With a shorter round trip the least bound is enough, and what is measured wrongly is soon measured again.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(5);

/// What is written in such a time gives the rate. A bound that grows lets more through than is sent, in this time less than a
/// third of it, so that it does not grow by itself.
const INTERVAL: Duration = Duration::from_millis(50);

/// A bound that is lowered becomes no more than this part: what is written varies.
const LOWERED_PART: u32 = 4;

/// The bound of a channel, and what it follows.
#[derive(Debug)]
pub(super) struct UnsentBound {
    bytes: u32,
    round_trip: Duration,
    since: Option<Instant>,
    written_bytes: u64,
}

impl Default for UnsentBound {
    fn default() -> Self {
        Self { bytes: UNSENT_BYTES_MIN, round_trip: Duration::ZERO, since: None, written_bytes: 0 }
    }
}

impl UnsentBound {
    /// Takes the shortest round trip of the channel.
    pub(super) fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// Whether the round trip is one for which the bound is more than the least.
    pub(super) fn is_of_use(&self) -> bool {
        self.round_trip >= ROUND_TRIP_MIN
    }

    /// `count` bytes were written: the bound, when it becomes another one.
    pub(super) fn on_written(&mut self, now: Instant, count: usize) -> Option<u32> {
        self.written_bytes += count as u64;
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed < INTERVAL {
            return None;
        }
        let bytes_per_second = self.written_bytes as f64 / elapsed.as_secs_f64();
        (self.since, self.written_bytes) = (Some(now), 0);
        let wanted = bytes_per_second * self.round_trip.as_secs_f64() / f64::from(ROUND_TRIP_PART);
        // In powers of two: the socket is told rarely.
        let wanted = (wanted as u32).clamp(UNSENT_BYTES_MIN, UNSENT_BYTES_MAX).next_power_of_two();
        let is_another = wanted > self.bytes || wanted <= self.bytes / LOWERED_PART;
        is_another.then(|| {
            self.bytes = wanted;
            wanted
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Writes `bytes` each millisecond for a second: the bounds that were set.
    fn bounds(bound: &mut UnsentBound, start: Instant, bytes: usize) -> Vec<u32> {
        (0..1000).filter_map(|step| bound.on_written(start + MS * step, bytes)).collect()
    }

    #[test]
    fn a_fast_channel_over_a_long_path_holds_a_third_of_a_round_trip() {
        let (mut bound, start) = (UnsentBound::default(), Instant::now());
        bound.set_round_trip(150 * MS);
        // 15 MB/s, of which 50 ms are 750 kB.
        assert_eq!(bounds(&mut bound, start, 15_000), [1 << 20]);
        assert_eq!(bounds(&mut bound, start + 1000 * MS, 1_000_000).last(), Some(&UNSENT_BYTES_MAX));
    }

    #[test]
    fn a_slow_channel_and_a_short_path_hold_the_least() {
        let start = Instant::now();
        let mut slow = UnsentBound::default();
        slow.set_round_trip(150 * MS);
        assert!(bounds(&mut slow, start, 1000).is_empty());
        let mut short = UnsentBound::default();
        short.set_round_trip(MS);
        assert!(!short.is_of_use() && slow.is_of_use());
    }

    #[test]
    fn a_channel_that_becomes_slow_holds_less_again() {
        let (mut bound, start) = (UnsentBound::default(), Instant::now());
        bound.set_round_trip(150 * MS);
        bounds(&mut bound, start, 15_000);
        assert!(bounds(&mut bound, start + 1000 * MS, 8_000).is_empty(), "half as much is no other rate");
        assert_eq!(bounds(&mut bound, start + 2000 * MS, 1000), [UNSENT_BYTES_MIN]);
    }

    /// Each larger bound is filled at once, beside what the path takes.
    #[test]
    fn a_bound_does_not_grow_by_itself() {
        let (mut bound, start, mut room) = (UnsentBound::default(), Instant::now(), 0);
        bound.set_round_trip(150 * MS);
        let mut set = Vec::new();
        let mut held = UNSENT_BYTES_MIN;
        for step in 0..10_000 {
            if let Some(bytes) = bound.on_written(start + MS * step, 5_000 + std::mem::take(&mut room)) {
                room = bytes.saturating_sub(held) as usize;
                held = bytes;
                set.push(bytes);
            }
        }
        // 5 MB/s, of which 50 ms are 250 kB.
        assert!(set.iter().all(|bytes| *bytes <= 512 * 1024), "{set:?}");
    }
}
