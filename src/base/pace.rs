//! Keeps what one sender sends below a bandwidth: says how much the next packet may carry, or when to ask again.
//!
//! Nothing is kept here. Who may not send leaves its bytes where they are, and flow control stops whoever writes them.

use std::time::{Duration, Instant};

use super::{Bandwidth, TokenBucket, limits};

/// A bandwidth, and how much of it is there to be used.
#[derive(Clone, Debug)]
pub struct Pacer {
    bandwidth: Bandwidth,
    bucket: TokenBucket,
}

impl Pacer {
    /// A bandwidth of which a burst may be used at once.
    #[must_use]
    pub fn new(bandwidth: Bandwidth) -> Self {
        let bucket = TokenBucket::with_rate(bandwidth.bytes_per_second() as f64, bandwidth.burst_bytes());
        Self { bandwidth, bucket }
    }

    /// The bandwidth.
    #[must_use]
    pub fn bandwidth(&self) -> Bandwidth {
        self.bandwidth
    }

    /// Keeps to another bandwidth from now on.
    pub fn set_bandwidth(&mut self, now: Instant, bandwidth: Bandwidth) {
        if bandwidth != self.bandwidth {
            self.bandwidth = bandwidth;
            self.bucket.set_rate(now, bandwidth.bytes_per_second() as f64, bandwidth.burst_bytes());
        }
    }

    /// How many bytes the next packet may carry.
    ///
    /// # Errors
    /// When to ask again: a whole packet may leave then.
    pub fn ask(&mut self, now: Instant) -> Result<usize, Instant> {
        let available = self.bucket.tokens(now);
        let packet = self.bandwidth.packet_bytes(1);
        allowed(available, packet).ok_or_else(|| {
            let missing = (packet - available) / self.bandwidth.bytes_per_second() as f64;
            now + Duration::from_secs_f64(missing).max(WAIT_MIN)
        })
    }

    /// Counts what was sent. Less than nothing gives back what was counted too much.
    pub fn spend(&mut self, now: Instant, bytes: i64) {
        self.bucket.spend(now, bytes as f64);
    }
}

/// A queue that is only reckoned with: what would wait in it for too long is dropped, everything else passes at once.
///
/// For datagrams of a sender that cannot be asked to wait. The same are lost as in a real queue of that length, and nothing
/// is kept.
#[derive(Clone, Debug)]
pub struct VirtualQueue {
    bandwidth: Bandwidth,
    /// When all that passed would have left.
    empty_at: Option<Instant>,
}

impl VirtualQueue {
    /// An empty queue, which this bandwidth empties.
    #[must_use]
    pub fn new(bandwidth: Bandwidth) -> Self {
        Self { bandwidth, empty_at: None }
    }

    /// Is emptied by another bandwidth from now on. What is in it counts as what it was.
    pub fn set_bandwidth(&mut self, bandwidth: Bandwidth) {
        self.bandwidth = bandwidth;
    }

    /// Whether a datagram passes, which may wait for `age_max`.
    pub fn pass(&mut self, now: Instant, bytes: usize, age_max: Duration) -> bool {
        let start = self.empty_at.map_or(now, |at| at.max(now));
        let passes = start.saturating_duration_since(now) <= age_max;
        if passes {
            self.empty_at =
                Some(start + Duration::from_secs_f64(bytes as f64 / self.bandwidth.bytes_per_second() as f64));
        }
        passes
    }
}

/// What a packet may carry of the tokens that there are: no more, unless it were too little for a packet.
pub(super) fn allowed(available: f64, packet: f64) -> Option<usize> {
    (available > 0.0).then(|| available.clamp(limits::PACED_PACKET_BYTES_MIN as f64, packet) as usize)
}

/// Nobody asks again sooner than this, which is as exact as timers are.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn megabytes(count: u64) -> Bandwidth {
        Bandwidth::from_bytes_per_second(count * 1_000_000)
    }

    /// Sends as much as it may for `time`, `late` behind each deadline: bytes sent.
    fn send_for(pacer: &mut Pacer, from: Instant, time: Duration, late: Duration) -> u64 {
        let (mut now, mut sent) = (from, 0);
        while now < from + time {
            match pacer.ask(now) {
                Ok(bytes) => {
                    pacer.spend(now, bytes as i64);
                    sent += bytes as u64;
                }
                Err(at) => {
                    assert!(at > now, "a time to ask again that has passed is a busy loop");
                    now = at + late;
                }
            }
        }
        sent
    }

    #[test]
    fn the_rate_is_kept_after_one_burst_at_any_bandwidth() {
        for bytes in [8000, 125_000, 12_500_000, 1_250_000_000] {
            let bandwidth = Bandwidth::from_bytes_per_second(bytes);
            let mut pacer = Pacer::new(bandwidth);
            let (start, time) = (Instant::now(), Duration::from_secs(10));
            let sent = send_for(&mut pacer, start, time, Duration::ZERO) as f64;
            let most = bytes as f64 * 10.0 + bandwidth.burst_bytes() + bandwidth.packet_bytes(1);
            assert!(sent <= most && sent >= bytes as f64 * 9.8, "{bandwidth}: {sent} bytes in 10 s");
        }
    }

    #[test]
    fn a_timer_that_is_late_costs_nothing() {
        let mut pacer = Pacer::new(megabytes(10));
        let sent = send_for(&mut pacer, Instant::now(), Duration::from_secs(10), Duration::from_millis(20));
        assert!(sent > 98_000_000, "{sent}");
    }

    #[test]
    fn a_pause_saves_a_burst_and_no_more() {
        let mut pacer = Pacer::new(megabytes(10));
        let start = Instant::now();
        send_for(&mut pacer, start, Duration::from_secs(1), Duration::ZERO);
        let later = start + Duration::from_secs(60);
        let mut burst = 0;
        while let Ok(bytes) = pacer.ask(later) {
            pacer.spend(later, bytes as i64);
            burst += bytes;
        }
        assert!((500_000..=502_048).contains(&burst), "{burst}");
    }

    #[test]
    fn another_bandwidth_holds_at_once() {
        let mut pacer = Pacer::new(megabytes(1));
        let start = Instant::now();
        send_for(&mut pacer, start, Duration::from_secs(1), Duration::ZERO);
        let now = start + Duration::from_secs(1);
        pacer.set_bandwidth(now, megabytes(100));
        let sent = send_for(&mut pacer, now, Duration::from_secs(1), Duration::ZERO);
        assert!(sent > 98_000_000, "{sent}");
        let now = now + Duration::from_secs(1);
        pacer.set_bandwidth(now, megabytes(1));
        let sent = send_for(&mut pacer, now, Duration::from_secs(1), Duration::ZERO);
        assert!(sent < 1_100_000, "{sent}");
    }

    #[test]
    fn a_virtual_queue_drops_what_would_wait_too_long() {
        let (mut queue, start, age) = (VirtualQueue::new(megabytes(1)), Instant::now(), Duration::from_millis(500));
        let burst = (0..1000).filter(|_| queue.pass(start, 1000, age)).count();
        assert_eq!(burst, 501, "half a second of them, and the one behind");
        let passed: usize =
            (1..=10_000).filter(|ms| queue.pass(start + Duration::from_millis(*ms), 2000, age)).count() * 2000;
        assert!((9_990_000..=10_010_000).contains(&passed), "{passed} bytes in 10 s");
    }

    #[test]
    fn what_was_counted_too_much_comes_back() {
        let mut pacer = Pacer::new(megabytes(1));
        let now = Instant::now();
        pacer.spend(now, 60_000);
        assert!(pacer.ask(now).is_err());
        pacer.spend(now, -30_000);
        assert!(pacer.ask(now).is_ok());
    }
}
