//! Divides one bandwidth between several that send: equal shares of what is there, and what one does not use is the
//! others'.
//!
//! Each member has a bucket. What time brings is poured into those that are not full, in equal parts; so whoever sends all
//! the time gets the same as the others that do, however often each of them asks and however much at once. Those that send
//! nothing are soon full and take no part. What finds no room anywhere goes into a pool, up to a burst, of which the next
//! one may take. This is fluid fair queueing (Demers, Keshav and Shenker 1989) by token buckets: there is no queue here,
//! as members keep what they want to send.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::pace::{WAIT_MIN, allowed};
use super::{Bandwidth, limits};

/// One that sends, as long as it is not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member(u64);

#[derive(Debug, Default)]
struct Bucket {
    tokens: f64,
    /// Asked and got nothing: it has room for what comes until it asks again.
    is_waiting: bool,
    is_hungry: bool,
}

/// A bandwidth, and those that share it.
#[derive(Debug)]
pub struct FairShare {
    bandwidth: Bandwidth,
    buckets: HashMap<Member, Bucket>,
    /// Those that are not full.
    hungry: Vec<Member>,
    waiting_count: usize,
    pool: f64,
    filled: Option<Instant>,
    next: u64,
}

impl FairShare {
    /// A bandwidth that nobody uses yet.
    #[must_use]
    pub fn new(bandwidth: Bandwidth) -> Self {
        Self {
            bandwidth,
            buckets: HashMap::new(),
            hungry: Vec::new(),
            waiting_count: 0,
            pool: bandwidth.burst_bytes(),
            filled: None,
            next: 0,
        }
    }

    /// The bandwidth.
    #[must_use]
    pub fn bandwidth(&self) -> Bandwidth {
        self.bandwidth
    }

    /// Divides another bandwidth from now on.
    pub fn set_bandwidth(&mut self, now: Instant, bandwidth: Bandwidth) {
        if bandwidth == self.bandwidth {
            return;
        }
        self.fill(now);
        self.bandwidth = bandwidth;
        self.pool = self.pool.min(bandwidth.burst_bytes());
        let (room, room_waiting) = (self.room(false), self.room(true));
        for bucket in self.buckets.values_mut() {
            let room = if bucket.is_waiting { room_waiting } else { room };
            // A debt of the old bandwidth may be ages of the new one.
            bucket.tokens = bucket.tokens.clamp(-room, room);
        }
    }

    /// One more that sends.
    pub fn add(&mut self) -> Member {
        let member = Member(self.next);
        self.next += 1;
        self.buckets.insert(member, Bucket { is_hungry: true, ..Bucket::default() });
        self.hungry.push(member);
        member
    }

    /// One that sends no more.
    pub fn remove(&mut self, member: Member) {
        if let Some(bucket) = self.buckets.remove(&member) {
            self.waiting_count -= usize::from(bucket.is_waiting);
            self.hungry.retain(|hungry| *hungry != member);
        }
    }

    /// How many bytes the next packet of a member may carry.
    ///
    /// # Errors
    /// When to ask again, at the latest.
    pub fn ask(&mut self, now: Instant, member: Member) -> Result<usize, Instant> {
        self.fill(now);
        let Some(bucket) = self.buckets.get_mut(&member) else { return Ok(usize::MAX) };
        let available = bucket.tokens + self.pool;
        let is_waiting = available <= 0.0;
        if is_waiting != std::mem::replace(&mut bucket.is_waiting, is_waiting) {
            if is_waiting { self.waiting_count += 1 } else { self.waiting_count -= 1 }
        }
        let packet = self.bandwidth.packet_bytes(self.waiting_count);
        allowed(available, packet).ok_or_else(|| {
            let share = self.bandwidth.bytes_per_second() as f64 / self.hungry.len().max(1) as f64;
            let missing = Duration::from_secs_f64((packet - available) / share);
            now + missing.clamp(WAIT_MIN, limits::SHARE_RETRY_MAX)
        })
    }

    /// Counts what a member has sent. Less than nothing gives back what was counted too much.
    pub fn spend(&mut self, now: Instant, member: Member, bytes: i64) {
        self.fill(now);
        let room = self.room(false);
        let Some(bucket) = self.buckets.get_mut(&member) else { return };
        bucket.tokens -= bytes as f64;
        // Its own first; the pool has only what nobody had room for.
        let taken = (-bucket.tokens).clamp(0.0, self.pool);
        bucket.tokens += taken;
        self.pool -= taken;
        if bucket.tokens < room && !std::mem::replace(&mut bucket.is_hungry, true) {
            self.hungry.push(member);
        }
    }

    /// What a bucket holds. One that waits is looked after too late by as much as timers are late, and should not lose its
    /// share to others by that.
    fn room(&self, is_waiting: bool) -> f64 {
        let sharing = if is_waiting { self.waiting_count } else { self.buckets.len() };
        let part = self.bandwidth.burst_bytes() / sharing.max(1) as f64;
        part.max(2.0 * limits::PACED_PACKET_BYTES_MIN as f64)
    }

    /// Pours what time has brought into those that are not full.
    fn fill(&mut self, now: Instant) {
        let Some(filled) = self.filled.replace(self.filled.map_or(now, |filled| filled.max(now))) else { return };
        let elapsed = now.saturating_duration_since(filled).as_secs_f64();
        let mut amount = elapsed * self.bandwidth.bytes_per_second() as f64;
        let (room, room_waiting) = (self.room(false), self.room(true));
        while amount > 0.0 && !self.hungry.is_empty() {
            let share = amount / self.hungry.len() as f64;
            let (buckets, mut rest) = (&mut self.buckets, 0.0);
            let count = self.hungry.len();
            self.hungry.retain(|member| {
                let Some(bucket) = buckets.get_mut(member) else { return false };
                let missing = (if bucket.is_waiting { room_waiting } else { room } - bucket.tokens).max(0.0);
                bucket.tokens += share.min(missing);
                rest += share - share.min(missing);
                bucket.is_hungry = missing > share;
                bucket.is_hungry
            });
            // The rest is there for those that have room still; when nobody was filled there is none.
            amount = if self.hungry.len() < count { rest } else { 0.0 };
        }
        self.pool = (self.pool + amount).min(self.bandwidth.burst_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bandwidth() -> Bandwidth {
        Bandwidth::from_bytes_per_second(10_000_000)
    }

    /// A sender: what it wants in one packet, how late it is behind its deadlines, and when it sends.
    struct Sender {
        member: Member,
        packet_max: usize,
        late: Duration,
        active: std::ops::Range<u64>,
        wakes: Instant,
        sent: u64,
    }

    /// Lets senders send for `seconds`: what each has sent in the last of them.
    fn run(share: &mut FairShare, senders: &mut [Sender], seconds: u64) -> Vec<u64> {
        let start = senders[0].wakes;
        let is_active = |sender: &Sender, at: Instant| sender.active.contains(&(at - start).as_secs());
        let mut before = vec![0; senders.len()];
        let mut is_last = false;
        let end = start + Duration::from_secs(seconds);
        loop {
            let index = (0..senders.len()).min_by_key(|&index| senders[index].wakes).unwrap();
            let now = senders[index].wakes;
            if now >= end {
                return senders.iter().zip(&before).map(|(sender, before)| sender.sent - before).collect();
            }
            if !std::mem::replace(&mut is_last, now >= end - Duration::from_secs(1)) && is_last {
                before = senders.iter().map(|sender| sender.sent).collect();
            }
            let sender = &mut senders[index];
            if !is_active(sender, now) {
                sender.wakes = now + Duration::from_millis(10);
                continue;
            }
            match share.ask(now, sender.member) {
                Ok(bytes) => {
                    let bytes = bytes.min(sender.packet_max);
                    share.spend(now, sender.member, bytes as i64);
                    sender.sent += bytes as u64;
                }
                Err(at) => {
                    assert!(at > now);
                    sender.wakes = at + sender.late;
                }
            }
        }
    }

    fn sender(share: &mut FairShare, now: Instant) -> Sender {
        let member = share.add();
        Sender { member, packet_max: usize::MAX, late: Duration::ZERO, active: 0..u64::MAX, wakes: now, sent: 0 }
    }

    #[test]
    fn shares_are_equal_however_much_each_asks_for_at_once() {
        let (mut share, now) = (FairShare::new(bandwidth()), Instant::now());
        let mut senders: Vec<_> = (0..5).map(|_| sender(&mut share, now)).collect();
        senders[1].packet_max = 1400;
        senders[2].late = Duration::from_millis(3);
        senders[3].late = Duration::from_millis(15);
        let sent = run(&mut share, &mut senders, 5);
        assert!(sent.iter().all(|bytes| (1_900_000..2_100_000).contains(bytes)), "{sent:?}");
    }

    #[test]
    fn what_one_leaves_is_the_others() {
        let (mut share, now) = (FairShare::new(bandwidth()), Instant::now());
        let mut senders: Vec<_> = (0..10).map(|_| sender(&mut share, now)).collect();
        for idle in &mut senders[1..] {
            idle.active = 0..3;
        }
        let sent = run(&mut share, &mut senders, 5);
        assert!(sent[0] > 9_800_000 && sent[1..].iter().all(|bytes| *bytes == 0), "{sent:?}");
    }

    #[test]
    fn all_together_keep_to_the_bandwidth() {
        for count in [1, 2, 30, 300] {
            let (mut share, now) = (FairShare::new(bandwidth()), Instant::now());
            let mut senders: Vec<_> = (0..count).map(|_| sender(&mut share, now)).collect();
            run(&mut share, &mut senders, 10);
            let total: u64 = senders.iter().map(|sender| sender.sent).sum();
            // What each may owe at the end, and the burst of the beginning, come on top.
            let most = 100_000_000 + 500_000 + count * limits::PACED_PACKET_BYTES_MIN as u64;
            assert!(total <= most && total > 98_000_000, "{count}: {total}");
        }
    }

    #[test]
    fn one_that_comes_back_does_not_catch_up() {
        let (mut share, now) = (FairShare::new(bandwidth()), Instant::now());
        let mut senders: Vec<_> = (0..2).map(|_| sender(&mut share, now)).collect();
        senders[1].active = 3..u64::MAX;
        let sent = run(&mut share, &mut senders, 4);
        let (first, second) = (sent[0], sent[1]);
        assert!(second < first + 700_000 && first < second + 700_000, "{sent:?}");
    }

    #[test]
    fn members_that_are_gone_take_nothing() {
        let (mut share, now) = (FairShare::new(bandwidth()), Instant::now());
        let gone: Vec<_> = (0..100).map(|_| share.add()).collect();
        gone.iter().for_each(|member| assert!(share.ask(now, *member).is_ok()));
        gone.iter().for_each(|member| share.remove(*member));
        let mut senders = [sender(&mut share, now)];
        let sent = run(&mut share, &mut senders, 2);
        assert!(sent[0] > 9_800_000, "{sent:?}");
        assert_eq!((share.hungry.len(), share.buckets.len()), (1, 1));
        assert!(share.waiting_count <= 1);
    }
}
