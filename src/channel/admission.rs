//! Who may begin a handshake: bounds on how many are pending and how fast one source begins them.
//!
//! Pure: time comes in as an argument, and nothing here knows a socket. [`Gate`](super::Gate) shares it among tasks.
//! A source is an IPv4 address or the /64 of an IPv6 one, as a /64 is what one host is commonly given.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::address_range::AddressRange;
use crate::base::TokenBucket;

/// Bounds on handshakes that are not finished. `None` is no bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Where peers may come from; empty for everywhere. Peers without an IP address are not looked at.
    pub allow_addresses: Vec<AddressRange>,
    /// Pending handshakes in total; Unix peers and loopback addresses count.
    pub pending_max: Option<u32>,
    /// Pending handshakes of one source.
    pub pending_per_source_max: Option<u32>,
    /// New handshakes of one source.
    pub rate_per_source: Option<SourceRate>,
    /// Sources that are remembered. When that many are, others are refused.
    pub sources_max: usize,
    /// Leaves loopback addresses out of the two bounds a source, as every program of this host comes from there.
    pub loopback_exempt: bool,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            allow_addresses: Vec::new(),
            pending_max: Some(1024),
            pending_per_source_max: Some(16),
            rate_per_source: Some(SourceRate { per_second: 20, burst: 40 }),
            sources_max: 65_536,
            loopback_exempt: true,
        }
    }
}

impl AdmissionLimits {
    /// Whether a peer may come from there at all.
    fn allows(&self, peer: Option<IpAddr>) -> bool {
        let ranges = &self.allow_addresses;
        ranges.is_empty() || peer.is_none_or(|ip| ranges.iter().any(|range| range.contains(ip)))
    }
}

/// How fast one source may begin handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRate {
    /// A second, on average.
    pub per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Its address is none of those that are allowed.
    #[error("its address is not allowed")]
    Address,
    /// Too many handshakes are pending.
    #[error("too many handshakes are pending")]
    Pending,
    /// Too many handshakes of the source are pending.
    #[error("too many handshakes of this source are pending")]
    PendingOfSource,
    /// The source begins handshakes too fast.
    #[error("this source begins handshakes too fast")]
    Rate,
    /// Too many sources are remembered, and this one is not among them.
    #[error("too many sources at once")]
    Sources,
}

/// The handshakes that are pending, and how fast their sources were.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    pending: u32,
    sources: HashMap<Source, Entry>,
    sweep_at: usize,
    swept: Option<Instant>,
}

impl Admission {
    /// Nothing pending yet.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        Self { limits, pending: 0, sources: HashMap::new(), sweep_at: SWEEP_MIN, swept: None }
    }

    /// Begins a handshake of a peer; `None` is one without an IP address. Each that is admitted is
    /// [`release`](Self::release)d once.
    ///
    /// # Errors
    ///
    /// The bound that refuses it. Nothing is counted then.
    pub fn admit(&mut self, peer: Option<IpAddr>, now: Instant) -> Result<(), Refusal> {
        if !self.limits.allows(peer) {
            return Err(Refusal::Address);
        }
        if self.limits.pending_max.is_some_and(|max| self.pending >= max) {
            return Err(Refusal::Pending);
        }
        if let Some(source) = self.bounded_source(peer) {
            self.admit_source(source, now)?;
        }
        self.pending = self.pending.saturating_add(1);
        Ok(())
    }

    /// Ends a handshake that was admitted, however it ended.
    pub fn release(&mut self, peer: Option<IpAddr>, now: Instant) {
        debug_assert!(self.pending > 0, "what is released was admitted");
        self.pending = self.pending.saturating_sub(1);
        let Some(source) = self.bounded_source(peer) else { return };
        if let Some(entry) = self.sources.get_mut(&source) {
            entry.pending = entry.pending.saturating_sub(1);
            if entry.is_idle(now) {
                self.sources.remove(&source);
            }
        }
    }

    /// Whether a peer may come from there, whatever is pending.
    #[must_use]
    pub fn allows(&self, peer: Option<IpAddr>) -> bool {
        self.limits.allows(peer)
    }

    /// Handshakes that are pending.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// Sources that are remembered.
    #[must_use]
    pub fn source_count(&self) -> usize {
        self.sources.len()
    }

    fn bounded_source(&self, peer: Option<IpAddr>) -> Option<Source> {
        if self.limits.pending_per_source_max.is_none() && self.limits.rate_per_source.is_none() {
            return None;
        }
        let ip = peer?.to_canonical();
        if self.limits.loopback_exempt && ip.is_loopback() {
            return None;
        }
        Some(match ip {
            IpAddr::V4(ip) => Source::V4(ip),
            IpAddr::V6(ip) => Source::v6(ip),
        })
    }

    fn admit_source(&mut self, source: Source, now: Instant) -> Result<(), Refusal> {
        if !self.sources.contains_key(&source) {
            self.sweep(now);
            if self.sources.len() >= self.limits.sources_max {
                return Err(Refusal::Sources);
            }
        }
        let rate = self.limits.rate_per_source;
        let entry = self.sources.entry(source).or_insert_with(|| Entry::new(rate));
        if self.limits.pending_per_source_max.is_some_and(|max| entry.pending >= max) {
            return Err(Refusal::PendingOfSource);
        }
        if entry.bucket.as_mut().is_some_and(|bucket| !bucket.take(now)) {
            return Err(Refusal::Rate);
        }
        entry.pending = entry.pending.saturating_add(1);
        Ok(())
    }

    /// Forgets sources of which nothing need be known, when enough have come since the last time: the cost of a sweep
    /// is spread over the entries that made it due. At the bound, a sweep a second at most.
    fn sweep(&mut self, now: Instant) {
        let full = self.sources.len() >= self.limits.sources_max;
        let waited = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL);
        if (self.sources.len() < self.sweep_at || full) && !(full && waited) {
            return;
        }
        self.swept = Some(now);
        self.sources.retain(|_, entry| !entry.is_idle(now));
        self.sweep_at = (self.sources.len() * 2).max(SWEEP_MIN);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4(Ipv4Addr),
    /// The network of 64 bits.
    V6([u8; 8]),
}

impl Source {
    fn v6(ip: Ipv6Addr) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = ip.octets();
        Self::V6([a, b, c, d, e, f, g, h])
    }
}

#[derive(Debug)]
struct Entry {
    pending: u32,
    bucket: Option<TokenBucket>,
}

impl Entry {
    fn new(rate: Option<SourceRate>) -> Self {
        Self { pending: 0, bucket: rate.map(|rate| TokenBucket::new(rate.per_second, rate.burst)) }
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        self.pending == 0 && self.bucket.as_mut().is_none_or(|bucket| bucket.is_full(now))
    }
}

/// Below this many sources nothing is swept.
const SWEEP_MIN: usize = 1024;

/// Between sweeps of a full table, as each looks at all of it.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn second(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn only_allowed_addresses_are_admitted() {
        let ranges = ["192.0.2.0/24", "2001:db8::/32"].map(|range| range.parse().unwrap());
        let limits = AdmissionLimits { allow_addresses: ranges.to_vec(), ..AdmissionLimits::default() };
        let mut admission = Admission::new(limits);
        let now = Instant::now();
        for (ip, is_allowed) in [
            ("192.0.2.9", true),
            ("::ffff:192.0.2.9", true),
            ("2001:db8::1", true),
            ("127.0.0.1", false),
            ("::1", false),
        ] {
            let outcome = admission.admit(Some(ip.parse().unwrap()), now);
            assert_eq!(outcome, if is_allowed { Ok(()) } else { Err(Refusal::Address) }, "{ip}");
        }
        assert_eq!(admission.admit(None, now), Ok(()), "a Unix socket has no address");
        assert_eq!(admission.pending(), 4);
    }

    #[test]
    fn pending_handshakes_are_bounded_in_total() {
        let now = Instant::now();
        let mut admission = Admission::new(AdmissionLimits { pending_max: Some(2), ..AdmissionLimits::default() });
        assert_eq!(admission.admit(None, now), Ok(()));
        assert_eq!(admission.admit(ip("127.0.0.1"), now), Ok(()));
        assert_eq!(admission.admit(None, now), Err(Refusal::Pending));
        admission.release(None, now);
        assert_eq!(admission.admit(ip("192.0.2.1"), now), Ok(()));
    }

    #[test]
    fn pending_handshakes_are_bounded_by_source() {
        let now = Instant::now();
        let mut admission = Admission::new(AdmissionLimits::default());
        assert!((0..16).all(|_| admission.admit(ip("192.0.2.1"), now).is_ok()));
        assert_eq!(admission.admit(ip("192.0.2.1"), now), Err(Refusal::PendingOfSource));
        assert_eq!(admission.admit(ip("::ffff:192.0.2.1"), now), Err(Refusal::PendingOfSource));
        assert_eq!(admission.admit(ip("192.0.2.2"), now), Ok(()));
        admission.release(ip("192.0.2.1"), now);
        assert_eq!(admission.admit(ip("192.0.2.1"), now), Ok(()));
    }

    #[test]
    fn a_v6_network_of_64_bits_is_one_source() {
        let now = Instant::now();
        let limits = AdmissionLimits { pending_per_source_max: Some(1), ..AdmissionLimits::default() };
        let mut admission = Admission::new(limits);
        assert_eq!(admission.admit(ip("2001:db8::1"), now), Ok(()));
        assert_eq!(admission.admit(ip("2001:db8::ffff:2"), now), Err(Refusal::PendingOfSource));
        assert_eq!(admission.admit(ip("2001:db8:0:1::1"), now), Ok(()));
    }

    #[test]
    fn a_source_that_is_too_fast_waits_for_its_rate() {
        let start = Instant::now();
        let mut admission = Admission::new(AdmissionLimits::default());
        let mut admitted = |now: Instant| {
            let outcome = admission.admit(ip("192.0.2.1"), now);
            if outcome.is_ok() {
                admission.release(ip("192.0.2.1"), now);
            }
            outcome
        };
        assert!((0..40).all(|_| admitted(start).is_ok()));
        assert_eq!(admitted(start), Err(Refusal::Rate));
        assert_eq!((0..100).filter(|_| admitted(start + second(1)).is_ok()).count(), 20);
    }

    #[test]
    fn loopback_is_exempt_unless_configured() {
        let now = Instant::now();
        let mut admission = Admission::new(AdmissionLimits::default());
        assert!((0..800).all(|_| admission.admit(ip("127.0.0.1"), now).is_ok()));
        assert_eq!(admission.source_count(), 0);
        let mut admission = Admission::new(AdmissionLimits { loopback_exempt: false, ..AdmissionLimits::default() });
        assert_eq!((0..800).filter(|_| admission.admit(ip("::1"), now).is_ok()).count(), 16);
    }

    #[test]
    fn no_bound_is_no_bound() {
        let now = Instant::now();
        let limits = AdmissionLimits {
            pending_max: None,
            pending_per_source_max: None,
            rate_per_source: None,
            ..AdmissionLimits::default()
        };
        let mut admission = Admission::new(limits);
        assert!((0..5000).all(|_| admission.admit(ip("192.0.2.1"), now).is_ok()));
        assert_eq!((admission.pending(), admission.source_count()), (5000, 0));
    }

    #[test]
    fn a_full_table_refuses_strangers_until_sources_are_forgotten() {
        let start = Instant::now();
        let mut admission = Admission::new(AdmissionLimits { sources_max: 3, ..AdmissionLimits::default() });
        for host in 1..=3 {
            let peer = ip(&format!("192.0.2.{host}"));
            assert_eq!(admission.admit(peer, start), Ok(()));
            if host > 1 {
                admission.release(peer, start);
            }
        }
        assert_eq!(admission.admit(ip("192.0.2.4"), start), Err(Refusal::Sources));
        assert_eq!(admission.admit(ip("192.0.2.1"), start), Ok(()));
        assert_eq!(admission.admit(ip("192.0.2.4"), start + second(2)), Ok(()));
        assert_eq!(admission.source_count(), 2);
    }

    #[test]
    fn sources_that_come_once_do_not_pile_up() {
        let start = Instant::now();
        let mut admission = Admission::new(AdmissionLimits::default());
        for number in 0..100_000_u32 {
            let peer = Some(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number)));
            let now = start + Duration::from_millis(u64::from(number));
            assert_eq!(admission.admit(peer, now), Ok(()));
            admission.release(peer, now);
        }
        assert!(admission.source_count() <= SWEEP_MIN);
    }
}
