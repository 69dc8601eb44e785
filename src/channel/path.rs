//! What the transport under a channel says about its path, for statistics.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::abort::AbortHandle;
use super::quic::{PathObserver, WeakQuicIo};

/// A channel's path, as its transport sees it: the kernel's TCP, or QUIC. Counters are those of the connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathStats {
    /// Smoothed round-trip time.
    pub round_trip: Duration,
    /// Shortest round-trip time, where it is told.
    pub round_trip_min: Option<Duration>,
    /// Packets sent: segments with data of TCP, datagrams of QUIC; what was sent again included.
    pub packets_sent: u64,
    /// Packets that were found lost. TCP repairs them by sending them again, which is what the kernel counts; QUIC sends
    /// what was in them.
    pub packets_lost: u64,
    /// Bytes sent with those packets, what was sent again included.
    pub bytes_sent: u64,
    /// Bytes that were in the lost packets.
    pub bytes_lost: u64,
    /// Congestion window, in bytes.
    pub congestion_window_bytes: u64,
    /// Bytes a second that were delivered of late, where it is told.
    pub delivery_rate: Option<u64>,
    /// Bytes that the kernel holds and has not sent, where it is told.
    pub unsent_bytes: Option<u64>,
    /// Single round trips since the path was looked at last, where they are told.
    pub round_trips: Vec<Duration>,
}

/// Looks at the paths of channels.
#[derive(Debug, Default)]
pub struct PathReader {
    #[cfg(target_os = "linux")]
    tcp: Option<super::tcp_info::TcpInfo>,
}

impl PathReader {
    /// A reader, which asks the kernel where it can.
    #[must_use]
    pub fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            tcp: super::tcp_info::TcpInfo::open(),
        }
    }

    /// What a channel's transport says; `None` where it says nothing: of Unix sockets, of channels that have ended, and
    /// of TCP where the system does not tell.
    pub fn read(&mut self, channel: &AbortHandle) -> Option<PathStats> {
        channel.looked_at_by(|stream| self.read_tcp(stream), WeakQuicIo::path_stats)
    }

    #[cfg(target_os = "linux")]
    fn read_tcp(&mut self, stream: &TcpStream) -> Option<PathStats> {
        self.tcp.as_mut()?.ask(stream.local_addr().ok()?, stream.peer_addr().ok()?)
    }

    #[cfg(not(target_os = "linux"))]
    fn read_tcp(&mut self, _stream: &TcpStream) -> Option<PathStats> {
        None
    }
}

/// Collects single round trips of a QUIC connection between two looks at it.
#[derive(Debug, Default)]
pub(super) struct PathMeter(Mutex<Collected>);

#[derive(Debug, Default)]
struct Collected {
    round_trips: Vec<Duration>,
    newest_at: Option<Instant>,
    /// When the peer acknowledged anything last.
    heard_at: Option<Instant>,
}

impl PathMeter {
    /// What was collected since the last call.
    pub(super) fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut self.lock().round_trips)
    }

    /// When the peer acknowledged anything last.
    pub(super) fn heard_at(&self) -> Option<Instant> {
        self.lock().heard_at
    }

    fn collect(&self, rtt: Duration, now: Instant) {
        let mut collected = self.lock();
        collected.heard_at = Some(now);
        let is_due = collected.newest_at.is_none_or(|at| now.saturating_duration_since(at) >= SAMPLE_INTERVAL);
        if is_due && collected.round_trips.len() < SAMPLES_MAX {
            collected.round_trips.push(rtt);
            collected.newest_at = Some(now);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Collected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PathObserver for PathMeter {
    fn on_rtt(&self, rtt: Duration) {
        self.collect(rtt, Instant::now());
    }

    // quinn's own statistics count both.
    fn on_acked(&self, _bytes: u64) {}

    fn on_lost(&self, _bytes: u64) {}
}

/// Time between two round trips that are kept: acknowledgements may come a hundred thousand times a second, and a
/// distribution over time needs no more than this.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(1);

/// Round trips that are kept until somebody looks: a second of them.
const SAMPLES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_spread_over_time_and_bounded() {
        let (meter, start) = (PathMeter::default(), Instant::now());
        for step in 0..10_000_u32 {
            meter.collect(Duration::from_millis(5), start + Duration::from_micros(100) * step);
        }
        assert_eq!(meter.take().len(), 1000, "one a millisecond, in a second of one in 100 µs");
        assert!(meter.take().is_empty());
        for step in 0..5000_u32 {
            meter.collect(Duration::from_millis(5), start + Duration::from_secs(5) + SAMPLE_INTERVAL * step);
        }
        assert_eq!(meter.take().len(), SAMPLES_MAX);
    }
}
