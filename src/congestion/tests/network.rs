//! A bottleneck: a rate, a drop-tail queue, delays by flow, random loss; and a loop of events over virtual time.
//!
//! Packets are long, so that half a gigabit a second can be simulated in a test. Loss is found as quinn finds it: when a
//! packet sent three later has been acknowledged.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::super::random::Random;
use super::flow::Flow;

/// Bytes of a packet.
pub(super) const PACKET: u64 = 9000;

/// What the path is like. May change while it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) bytes_per_second: u64,
    /// Round trip without a queue.
    pub(super) rtt: Duration,
    pub(super) queue: Duration,
    /// Share of packets lost at random.
    pub(super) loss: f64,
    /// How long acknowledgements are kept back at most, by chance, to arrive together: machines are late.
    pub(super) lateness: Duration,
}

impl Path {
    /// Half a gigabit a second, a queue of 100 ms, and what else is asked for.
    pub(super) fn half_gigabit(rtt_ms: u64, loss: f64) -> Self {
        Self {
            bytes_per_second: 62_500_000,
            rtt: Duration::from_millis(rtt_ms),
            queue: Duration::from_millis(100),
            loss,
            lateness: Duration::ZERO,
        }
    }
}

/// A packet that was sent: by whom, which one, when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    flow: usize,
    number: u64,
    sent: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Acknowledge(Packet),
    Wake(usize),
}

/// The path and the flows on it.
pub(super) struct Network {
    pub(super) path: Path,
    pub(super) flows: Vec<Flow>,
    /// Since the start.
    pub(super) elapsed: Duration,
    start: Instant,
    random: Random,
    /// When the bottleneck has sent what is in its queue.
    free: Duration,
    /// When the acknowledgements that are kept back arrive.
    batch_end: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    event_count: u64,
    /// Packets that did not fit into the queue.
    pub(super) dropped_count: u64,
    /// The longest queue since it was last asked for.
    pub(super) queue_max: Duration,
}

impl Network {
    pub(super) fn new(path: Path, seed: u64) -> Self {
        Self {
            path,
            flows: Vec::new(),
            elapsed: Duration::ZERO,
            start: Instant::now(),
            random: Random::new(seed),
            free: Duration::ZERO,
            batch_end: Duration::ZERO,
            events: BinaryHeap::new(),
            event_count: 0,
            dropped_count: 0,
            queue_max: Duration::ZERO,
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    /// Adds a flow that begins to send now.
    pub(super) fn add(&mut self, flow: impl FnOnce(Instant) -> Flow) -> usize {
        let flow = flow(self.now());
        self.flows.push(flow);
        let index = self.flows.len() - 1;
        self.push(Duration::ZERO, Event::Wake(index));
        index
    }

    /// Lets `time` pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.elapsed + time;
        while self.events.peek().is_some_and(|Reverse((at, _, _))| *at <= end) {
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.elapsed = at;
            match event {
                Event::Wake(flow) => self.flows[flow].is_waking = false,
                Event::Acknowledge(packet) => self.acknowledge(packet),
            }
            let flow = match event {
                Event::Wake(flow) => flow,
                Event::Acknowledge(packet) => packet.flow,
            };
            self.send(flow);
        }
        self.elapsed = end;
    }

    /// Lets `time` pass, and returns what each flow got delivered in it, as bytes a second.
    pub(super) fn measure(&mut self, time: Duration) -> Vec<u64> {
        let before: Vec<_> = self.flows.iter().map(|flow| flow.delivered).collect();
        self.run(time);
        let rates = self
            .flows
            .iter()
            .zip(before)
            .map(|(flow, before)| ((flow.delivered - before) as f64 / time.as_secs_f64()) as u64);
        rates.collect()
    }

    /// Lets the application of a flow go on, or stop, or send as much.
    pub(super) fn set_supply(&mut self, flow: usize, bytes: Option<u64>) {
        self.flows[flow].supply = bytes;
        self.push(Duration::ZERO, Event::Wake(flow));
    }

    fn push(&mut self, after: Duration, event: Event) {
        self.event_count += 1;
        self.events.push(Reverse((self.elapsed + after, self.event_count, event)));
    }

    fn acknowledge(&mut self, packet: Packet) {
        let now = self.now();
        self.flows[packet.flow].on_acknowledged(now, packet.number, self.start + packet.sent);
    }

    fn send(&mut self, index: usize) {
        while self.flows[index].may_send(self.start + self.elapsed) {
            let now = self.start + self.elapsed;
            let number = self.flows[index].on_sent(now);
            self.transmit(Packet { flow: index, number, sent: self.elapsed });
        }
        let now = self.now();
        if let Some(wait) = self.flows[index].next_wake(now) {
            self.push(wait, Event::Wake(index));
        }
    }

    fn transmit(&mut self, packet: Packet) {
        let queued = self.free.saturating_sub(self.elapsed);
        if queued > self.path.queue {
            self.dropped_count += 1;
            return;
        }
        self.free =
            self.free.max(self.elapsed) + Duration::from_secs_f64(PACKET as f64 / self.path.bytes_per_second as f64);
        let queued = self.free - self.elapsed;
        self.queue_max = self.queue_max.max(queued);
        if self.random.share() >= self.path.loss {
            let arrival = self.elapsed + queued + self.path.rtt;
            if arrival > self.batch_end {
                let is_late = !self.path.lateness.is_zero();
                let share = if is_late { self.random.share() } else { 0.0 };
                self.batch_end = arrival + self.path.lateness.mul_f64(share);
            }
            self.push(self.batch_end - self.elapsed, Event::Acknowledge(packet));
        }
    }
}

/// The packets of a flow that are neither acknowledged nor lost.
#[derive(Default)]
pub(super) struct Outstanding {
    packets: VecDeque<(u64, Instant)>,
    pub(super) next_number: u64,
}

/// How many later packets have to be acknowledged before one is lost (RFC 9002 §6.1.1).
const PACKET_THRESHOLD: u64 = 3;

impl Outstanding {
    pub(super) fn in_flight(&self) -> u64 {
        self.packets.len() as u64 * PACKET
    }

    pub(super) fn sent(&mut self, now: Instant) -> u64 {
        self.packets.push_back((self.next_number, now));
        self.next_number += 1;
        self.next_number - 1
    }

    /// Removes an acknowledged packet; false if it was lost before.
    pub(super) fn acknowledged(&mut self, number: u64) -> bool {
        let at = self.packets.binary_search_by_key(&number, |(other, _)| *other);
        at.is_ok_and(|at| self.packets.remove(at).is_some())
    }

    /// Removes what is lost when `number` was acknowledged: the newest time of sending, and the bytes.
    pub(super) fn lost(&mut self, number: u64) -> Option<(Instant, u64)> {
        let mut lost = None;
        while let Some((first, sent)) = self.packets.front().copied() {
            if first + PACKET_THRESHOLD > number {
                break;
            }
            self.packets.pop_front();
            let bytes = lost.map_or(0, |(_, bytes)| bytes);
            lost = Some((sent, bytes + PACKET));
        }
        lost
    }
}
