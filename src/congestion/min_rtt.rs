//! The RTT as the model needs it (draft-ietf-ccwg-bbr, "BBR.min_rtt"): the lowest of ten seconds, the lowest of the
//! interval between ProbeRTTs, a smoothed one, and a lowest of longer memory that tells a queue from the path.

use std::time::{Duration, Instant};

use super::parameters::{
    EMPTY_QUEUE_PART, MIN_RTT_FILTER, PROBE_RTT_INTERVAL, PROBE_RTT_POSTPONED_MAX, QUEUE_DELAY_MIN, QUEUE_DELAY_SHARE,
    QUEUE_REFERENCE_FILTER,
};

/// The lowest value seen and when.
#[derive(Clone, Copy, Debug)]
struct Lowest {
    rtt: Duration,
    stamp: Instant,
}

/// RTT samples, filtered.
#[derive(Clone, Debug, Default)]
pub(super) struct MinRtt {
    min: Option<Lowest>,
    probe_rtt_min: Option<Lowest>,
    /// When this flow last kept next to nothing in flight: at its start, and in each ProbeRTT.
    probed_at: Option<Instant>,
    /// The lowest of this and of the last period of half the reference filter.
    reference: [Option<Lowest>; 2],
    smoothed: Option<Duration>,
    /// The lowest of this and of the last period of a few milliseconds.
    recent: [Option<Lowest>; 2],
    /// Whether the lowest of the probing interval is due for a refresh.
    pub(super) probe_rtt_expired: bool,
    /// The lowest when the flow began to send less than is delivered.
    before_drain: Option<Duration>,
}

impl MinRtt {
    /// Takes in a sample of an acknowledgement (UpdateMinRTT).
    pub(super) fn update(&mut self, now: Instant, rtt: Option<Duration>) {
        let probed_at = *self.probed_at.get_or_insert(now);
        if let Some((rtt, lowest)) = rtt.zip(self.probe_rtt_min.as_mut())
            && rtt <= lowest.rtt + lowest.rtt / EMPTY_QUEUE_PART
            && now <= probed_at + PROBE_RTT_POSTPONED_MAX
        {
            lowest.stamp = now;
        }
        self.probe_rtt_expired = self.probe_rtt_min.is_some_and(|lowest| now > lowest.stamp + PROBE_RTT_INTERVAL);
        let Some(rtt) = rtt else { return };
        let sample = Lowest { rtt, stamp: now };
        self.smoothed = Some(self.smoothed.map_or(rtt, |smoothed| (smoothed * 7 + rtt) / 8));
        let recent_period = self.smoothed.unwrap_or(rtt) / RECENT_RTT_PART;
        update_periods(&mut self.recent, sample, recent_period);
        if let Some(rtt) = self.confirmed() {
            update_periods(&mut self.reference, Lowest { rtt, ..sample }, QUEUE_REFERENCE_FILTER / 2);
        }
        if self.probe_rtt_expired || self.probe_rtt_min.is_none_or(|lowest| rtt < lowest.rtt) {
            self.probe_rtt_min = Some(sample);
        }
        let is_expired = self.min.is_none_or(|lowest| now > lowest.stamp + MIN_RTT_FILTER);
        let is_lower = self.probe_rtt_min.zip(self.min).is_some_and(|(probe, lowest)| probe.rtt < lowest.rtt);
        if is_expired || is_lower {
            self.min = self.probe_rtt_min;
        }
    }

    /// The lowest RTT that two periods in a row have had. A machine that pauses between looking at its clock and at its socket
    /// takes what arrived meanwhile for earlier than it was, once. Below the path's RTT by a queue's worth, that would be a queue
    /// for as long as the reference lasts.
    fn confirmed(&self) -> Option<Duration> {
        let [current, last] = self.recent;
        current.zip(last).map(|(current, last)| current.rtt.max(last.rtt))
    }

    /// ProbeRTT ended: the next one is due an interval from now.
    pub(super) fn schedule_probe_rtt(&mut self, now: Instant) {
        self.probed_at = Some(now);
        if let Some(lowest) = &mut self.probe_rtt_min {
            lowest.stamp = now;
        }
    }

    /// The flow begins to send less than is delivered.
    pub(super) fn start_drain(&mut self) {
        self.before_drain = self.min();
    }

    /// Whether the RTT has become well lower since: the lowest was that of a queue.
    pub(super) fn has_fallen(&self) -> bool {
        let is_lower = |(before, min): (Duration, Duration)| min + before / EMPTY_QUEUE_PART < before;
        self.before_drain.zip(self.min()).is_some_and(is_lower)
    }

    /// BBR.min_rtt; nothing before the first sample.
    pub(super) fn min(&self) -> Option<Duration> {
        self.min.map(|lowest| lowest.rtt)
    }

    /// The smoothed RTT, an eighth an acknowledgement.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The lowest RTT of the last quarter of a round trip. A queue raises it; a pause of the machine, after which what
    /// was sent last comes in with the RTT of the path, does not.
    pub(super) fn recent(&self) -> Option<Duration> {
        lowest(&self.recent)
    }

    /// Whether the RTT of late shows a queue, ours or a neighbour's.
    pub(super) fn is_queue_present(&self) -> bool {
        let reference = lowest(&self.reference);
        reference.zip(self.recent()).is_some_and(|(reference, rtt)| rtt > reference + queue_delay(reference))
    }
}

fn lowest(periods: &[Option<Lowest>; 2]) -> Option<Duration> {
    periods.iter().flatten().map(|lowest| lowest.rtt).min()
}

/// Takes a sample into the period at hand; the stamp is when that began.
fn update_periods([current, last]: &mut [Option<Lowest>; 2], sample: Lowest, period: Duration) {
    if current.is_some_and(|lowest| sample.stamp > lowest.stamp + period) {
        *last = current.take();
    }
    match current {
        Some(lowest) => lowest.rtt = lowest.rtt.min(sample.rtt),
        None => *current = Some(sample),
    }
}

/// The part of the RTT that two of make the recent past.
const RECENT_RTT_PART: u32 = 8;

/// How far above `rtt` a queue begins.
pub(super) fn queue_delay(rtt: Duration) -> Duration {
    rtt.mul_f64(QUEUE_DELAY_SHARE).max(QUEUE_DELAY_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lower_sample_counts_at_once_and_a_higher_one_after_ten_seconds() {
        let start = Instant::now();
        let mut rtt = MinRtt::default();
        rtt.update(start, Some(50 * MS));
        rtt.update(start + 100 * MS, Some(40 * MS));
        assert_eq!(rtt.min(), Some(40 * MS));
        for step in 1..=110 {
            rtt.update(start + 100 * MS * (step + 1), Some(90 * MS));
            let expected = if step <= 100 { 40 * MS } else { 90 * MS };
            assert_eq!(rtt.min(), Some(expected), "after {step} steps");
        }
    }

    #[test]
    fn a_probe_is_due_five_seconds_after_the_lowest_sample() {
        let start = Instant::now();
        let mut rtt = MinRtt::default();
        rtt.update(start, Some(50 * MS));
        rtt.update(start + PROBE_RTT_INTERVAL, Some(53 * MS));
        assert!(!rtt.probe_rtt_expired);
        rtt.update(start + PROBE_RTT_INTERVAL + MS, Some(53 * MS));
        assert!(rtt.probe_rtt_expired);
        rtt.schedule_probe_rtt(start + 6000 * MS);
        rtt.update(start + 7000 * MS, Some(53 * MS));
        assert!(!rtt.probe_rtt_expired);
    }

    #[test]
    fn a_queue_that_empties_by_itself_puts_a_probe_off_for_half_a_minute() {
        let start = Instant::now();
        let mut rtt = MinRtt::default();
        rtt.update(start, Some(50 * MS));
        let mut expired_at = None;
        // Empty for a moment each two seconds.
        for step in 1..=400_u32 {
            let is_empty = step % 20 == 0;
            rtt.update(start + 100 * MS * step, Some(if is_empty { 52 * MS } else { 60 * MS }));
            if rtt.probe_rtt_expired {
                expired_at = Some(100 * MS * step);
                break;
            }
        }
        let expired_at = expired_at.expect("it is not put off for ever");
        let times = PROBE_RTT_POSTPONED_MAX..=PROBE_RTT_POSTPONED_MAX + PROBE_RTT_INTERVAL + 100 * MS;
        assert!(times.contains(&expired_at), "{expired_at:?}");
        assert_eq!(rtt.min(), Some(50 * MS), "the lowest stays what it is");
    }

    #[test]
    fn a_pause_of_the_machine_is_no_queue() {
        let start = Instant::now();
        let mut rtt = MinRtt::default();
        for step in 0..100 {
            rtt.update(start + MS * step, Some(50 * MS));
        }
        // Thirty milliseconds of acknowledgements at once, the oldest of them first.
        for late in (0..30).rev() {
            rtt.update(start + 130 * MS, Some((50 + late) * MS));
        }
        assert!(!rtt.is_queue_present());
    }

    #[test]
    fn what_arrives_before_it_can_is_no_measure_of_the_path() {
        let start = Instant::now();
        let mut rtt = MinRtt::default();
        rtt.update(start, Some(40 * MS));
        for step in 50..200 {
            rtt.update(start + MS * step, Some(50 * MS));
            assert!(!rtt.is_queue_present(), "the first one, after {step} ms");
        }
        // Twenty milliseconds of acknowledgements, by a clock that was looked at before.
        for early in 0..20 {
            rtt.update(start + MS * 200, Some(50 * MS - MS * early));
        }
        for step in 220..400 {
            rtt.update(start + MS * step, Some(50 * MS));
            assert!(!rtt.is_queue_present(), "after {step} ms");
        }
        for step in 400..500 {
            rtt.update(start + MS * step, Some(58 * MS));
        }
        assert!(rtt.is_queue_present(), "a queue still shows");
    }

    #[test]
    fn a_queue_shows_above_the_lowest_of_half_a_minute() {
        let start = Instant::now();
        let mut rtt = MinRtt::default();
        for step in 0..10 {
            rtt.update(start + 10 * MS * step, Some(50 * MS));
        }
        assert!(!rtt.is_queue_present());
        let mut at = start + 100 * MS;
        while at < start + 14_000 * MS {
            at += 10 * MS;
            rtt.update(at, Some(80 * MS));
        }
        assert_eq!(rtt.min(), Some(80 * MS), "the model has forgotten the lowest");
        assert!(rtt.is_queue_present(), "this has not");
        while at < start + 50_000 * MS {
            at += 10 * MS;
            rtt.update(at, Some(80 * MS));
        }
        assert!(!rtt.is_queue_present(), "the path is longer now");
    }
}
