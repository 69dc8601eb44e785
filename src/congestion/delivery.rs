//! Delivery rate samples (draft-ietf-ccwg-bbr, "Delivery Rate Samples").
//!
//! The caller has no packet numbers here, only the time at which a packet was sent; so what the draft keeps with a packet
//! is kept for a moment of sending, and moments closer together than a part of an RTT share one record. Records are
//! bounded, whatever the rate.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::bandwidth::Bandwidth;
use super::parameters::{RECORDS_MAX, RECORDS_PER_RTT};

/// Per-packet (P) state: the connection as it was when something was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentRecord {
    sent: Instant,
    first_sent: Instant,
    delivered_at: Instant,
    pub(super) delivered: u64,
    pub(super) is_app_limited: bool,
    /// P.tx_in_flight: what was in flight, this included.
    pub(super) in_flight: u64,
    /// P.lost: what had been lost so far.
    pub(super) lost: u64,
}

/// Rate sample (RS) of one acknowledgement.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateSample {
    pub(super) rtt: Option<Duration>,
    /// Zero without a sample.
    pub(super) delivery_rate: Bandwidth,
    pub(super) delivered: u64,
    pub(super) prior_delivered: u64,
    pub(super) is_app_limited: bool,
    pub(super) tx_in_flight: u64,
    pub(super) lost: u64,
    pub(super) newly_acked: u64,
}

/// Per-connection (C) state of delivery.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    records: VecDeque<SentRecord>,
    /// C.delivered.
    pub(super) delivered: u64,
    /// C.lost.
    pub(super) lost: u64,
    delivered_at: Instant,
    first_sent: Instant,
    /// C.app_limited: the end of the bubble, as an amount delivered.
    app_limited_until: Option<u64>,
    newly_acked: u64,
    newest_acked: Option<Instant>,
}

impl Delivery {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            records: VecDeque::new(),
            delivered: 0,
            lost: 0,
            delivered_at: now,
            first_sent: now,
            app_limited_until: None,
            newly_acked: 0,
            newest_acked: None,
        }
    }

    pub(super) fn is_app_limited(&self) -> bool {
        self.app_limited_until.is_some()
    }

    /// OnPacketSent: `in_flight` is what is in flight with this included, `was_idle` whether nothing was before.
    pub(super) fn on_sent(&mut self, now: Instant, in_flight: u64, was_idle: bool, rtt: Option<Duration>) {
        if was_idle {
            (self.first_sent, self.delivered_at) = (now, now);
        }
        let (lost, is_app_limited) = (self.lost, self.is_app_limited());
        let granule = rtt.unwrap_or_default() / RECORDS_PER_RTT;
        if let Some(last) = self.records.back_mut().filter(|_| !was_idle)
            && now.saturating_duration_since(last.sent) <= granule
        {
            last.in_flight = in_flight;
            last.is_app_limited |= is_app_limited;
            return;
        }
        if self.records.len() == RECORDS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(SentRecord {
            sent: now,
            first_sent: self.first_sent,
            delivered_at: self.delivered_at,
            delivered: self.delivered,
            is_app_limited,
            in_flight,
            lost,
        });
    }

    /// MarkConnectionAppLimited: what is in flight now, and what is sent until it is delivered, tells nothing of the path.
    pub(super) fn mark_app_limited(&mut self, in_flight: u64) {
        self.app_limited_until = Some(self.delivered + in_flight);
    }

    /// UpdateRateSample, for one packet sent at `sent`.
    pub(super) fn on_acked(&mut self, sent: Instant, bytes: u64) {
        self.delivered += bytes;
        self.newly_acked += bytes;
        self.newest_acked = Some(self.newest_acked.map_or(sent, |newest| newest.max(sent)));
    }

    /// Counts a loss, and returns the record of the packet.
    pub(super) fn on_lost(&mut self, sent: Instant, bytes: u64) -> Option<SentRecord> {
        self.lost += bytes;
        self.record(sent)
    }

    /// GenerateRateSample, when all packets of an acknowledgement were taken in.
    pub(super) fn sample(&mut self, now: Instant, min_rtt: Option<Duration>) -> RateSample {
        let mut sample = RateSample { newly_acked: self.newly_acked, ..RateSample::default() };
        if self.newly_acked > 0 {
            self.delivered_at = now;
        }
        self.newly_acked = 0;
        if self.app_limited_until.is_some_and(|until| self.delivered > until) {
            self.app_limited_until = None;
        }
        let Some(sent) = self.newest_acked.take() else { return sample };
        sample.rtt = Some(now.saturating_duration_since(sent));
        let Some(record) = self.record(sent) else { return sample };
        self.first_sent = self.first_sent.max(sent);
        sample.prior_delivered = record.delivered;
        sample.delivered = self.delivered - record.delivered;
        sample.is_app_limited = record.is_app_limited;
        sample.tx_in_flight = record.in_flight;
        sample.lost = self.lost - record.lost;
        let send_elapsed = record.sent.saturating_duration_since(record.first_sent);
        let interval = send_elapsed.max(now.saturating_duration_since(record.delivered_at));
        if min_rtt.is_none_or(|min_rtt| interval >= min_rtt) {
            sample.delivery_rate = Bandwidth::over(sample.delivered, interval);
        }
        self.forget_before(sent, sample.rtt.unwrap_or_default());
        sample
    }

    /// The record that covers a time of sending: the last one that began no later.
    fn record(&self, sent: Instant) -> Option<SentRecord> {
        let after = self.records.partition_point(|record| record.sent <= sent);
        self.records.get(after.checked_sub(1)?).copied()
    }

    /// Drops what is older than the newest acknowledged by more than three round trips: packets that late are lost.
    fn forget_before(&mut self, newest: Instant, rtt: Duration) {
        let is_old = |record: &SentRecord| newest.saturating_duration_since(record.sent) > rtt * 3;
        while self.records.get(1).is_some_and(is_old) {
            self.records.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends `bytes` each millisecond, and acknowledges each after `rtt`, for `steps`; returns the samples.
    fn steady(delivery: &mut Delivery, start: Instant, bytes: u64, rtt: u32, steps: u32) -> Vec<RateSample> {
        let mut samples = Vec::new();
        for step in 0..steps {
            let now = start + MS * step;
            if step >= rtt {
                delivery.on_acked(now - MS * rtt, bytes);
                samples.push(delivery.sample(now, Some(MS * rtt)));
            }
            let in_flight = bytes * u64::from(rtt.min(step + 1));
            delivery.on_sent(now, in_flight, step == 0, Some(MS * rtt));
        }
        samples
    }

    #[test]
    fn a_steady_flow_is_measured_at_its_rate() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        let samples = steady(&mut delivery, start, 10_000, 50, 500);
        let rates: Vec<_> = samples.iter().skip(60).map(|sample| sample.delivery_rate.bytes_per_second()).collect();
        assert!(rates.iter().all(|rate| (9_700_000..=10_300_000).contains(rate)), "{rates:?}");
        assert!(samples.iter().all(|sample| sample.rtt == Some(MS * 50)));
        assert_eq!(samples.last().map(|sample| sample.tx_in_flight), Some(500_000));
    }

    #[test]
    fn compressed_acknowledgements_do_not_raise_the_rate() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        let rtt = Some(MS * 50);
        for step in 0..50 {
            delivery.on_sent(start + MS * step, 10_000 * u64::from(step + 1), step == 0, rtt);
        }
        for step in 0..50 {
            delivery.on_acked(start + MS * step, 10_000);
            let sample = delivery.sample(start + MS * 100, rtt);
            assert!(sample.delivery_rate.bytes_per_second() <= 10_200_000, "{sample:?}");
        }
    }

    #[test]
    fn a_bubble_of_the_application_marks_what_is_sent_in_it() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        let rtt = Some(MS * 50);
        delivery.on_sent(start, 1000, true, rtt);
        delivery.mark_app_limited(1000);
        delivery.on_sent(start + MS * 10, 2000, false, rtt);
        delivery.on_acked(start, 1000);
        assert!(!delivery.sample(start + MS * 50, None).is_app_limited);
        delivery.on_acked(start + MS * 10, 1000);
        assert!(delivery.sample(start + MS * 60, None).is_app_limited);
        assert!(!delivery.is_app_limited(), "the bubble was delivered");
    }

    #[test]
    fn records_stay_bounded_and_old_packets_give_no_sample() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        for step in 0..3 * RECORDS_MAX as u32 {
            delivery.on_sent(start + MS * step, 1000, false, Some(MS));
        }
        assert_eq!(delivery.records.len(), RECORDS_MAX);
        delivery.on_acked(start, 1000);
        let sample = delivery.sample(start + MS * 3 * RECORDS_MAX as u32, None);
        assert_eq!(sample.delivery_rate, Bandwidth::ZERO);
        assert_eq!(sample.newly_acked, 1000);
    }

    #[test]
    fn sends_of_one_moment_share_a_record() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        for step in 0..100_u32 {
            delivery.on_sent(start + Duration::from_micros(10) * step, 1000, false, Some(MS * 100));
        }
        assert!(delivery.records.len() <= 7, "{}", delivery.records.len());
    }
}
