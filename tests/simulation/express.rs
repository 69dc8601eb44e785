//! Short messages beside a bulk transfer: a lane that is kept free for them, when and at what cost.

use std::time::Duration;

use longhaul::base::{Direction, Side, StreamId};
use longhaul::session::scheduler::Policy;
use longhaul::session::{LaneKind, SessionConfig};
use longhaul::stream::Priority;

use crate::app::Answer;
use crate::link::Path;
use crate::random::Random;
use crate::seeds::milliseconds;
use crate::world::{CLIENT, SERVER, World};

/// Bytes a second of the whole path, a packet of it, and how often losses are drawn.
const RATE: u64 = 500 * 125_000;
const PACKET_BYTES: f64 = 1448.0;
const STEP: Duration = milliseconds(1);

/// Lanes over one line, whose rate they share, and of which it loses packets.
struct Shared {
    world: World,
    /// One way, without a queue.
    delay: Duration,
    loss: f64,
    /// What the kernel sends of each lane waits in a queue of the line, that of the others included.
    has_queue: bool,
    /// What others have in that queue takes so long, whatever the lanes do.
    foreign_wait: Duration,
    random: Random,
    written: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Lanes {
    /// Four TCP connections.
    Tcp,
    /// The same; the path of the first is not known, as if it were another one.
    TcpAndOne,
    /// One QUIC connection with four streams.
    Quic,
    /// Four TCP connections over paths of their own.
    Apart,
}

impl Shared {
    fn new(lanes: Lanes, round_trip_ms: u64, loss: f64, config: SessionConfig) -> Self {
        let path =
            Path { delay: milliseconds(round_trip_ms / 2), bytes_per_second: RATE / 4, buffer_bytes: 128 * 1024 };
        let mut world = World::new(1, config.clone(), config);
        world.first_path = matches!(lanes, Lanes::Tcp).then_some(7);
        world.connect(if matches!(lanes, Lanes::Quic) { LaneKind::Quic } else { LaneKind::Tcp }, path);
        for number in 0..3 {
            match lanes {
                Lanes::Tcp | Lanes::TcpAndOne => world.join_over(7, path),
                Lanes::Quic => world.join_beside(0, path),
                Lanes::Apart => world.join_over(number, path),
            }
            .unwrap();
        }
        world.run_for(path.delay * 4 + milliseconds(50));
        let (random, written) = (Random::new(5), vec![0; 4]);
        Self { world, delay: path.delay, loss, has_queue: false, foreign_wait: Duration::ZERO, random, written }
    }

    /// Four TCP connections over one line, of which kernels keep so many round trips in its queue.
    fn queued(round_trip_ms: u64, queued_round_trips: f64, loss: f64) -> Self {
        let mut shared = Self::new(Lanes::Tcp, round_trip_ms, loss, SessionConfig::default());
        let queued_bytes = RATE as f64 * (round_trip_ms as f64 / 1e3) * queued_round_trips;
        for link in &mut shared.world.links {
            link.pipes[CLIENT].path.buffer_bytes = queued_bytes as usize / 4;
        }
        shared.has_queue = true;
        shared
    }

    /// The delay of each lane's next packet, as far as it is not its own bytes that it waits for.
    fn queue(&mut self) {
        let now = self.world.now;
        let waiting: Vec<_> = self.world.links.iter().map(|link| link.pipes[CLIENT].waiting_bytes(now)).collect();
        let queue = Duration::from_secs_f64(waiting.iter().sum::<usize>() as f64 / RATE as f64);
        for (link, waiting) in self.world.links.iter_mut().zip(waiting) {
            let path = &mut link.pipes[CLIENT].path;
            let own = Duration::from_secs_f64(waiting as f64 / path.bytes_per_second as f64);
            path.delay = self.delay + self.foreign_wait + queue.saturating_sub(own);
        }
    }

    /// Runs until something is true, and lets packets be lost meanwhile. Whether it became so.
    fn run_until(&mut self, time: Duration, mut is_done: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.world.now + time;
        while self.world.now < end {
            if self.world.run_until(STEP, &mut is_done) {
                return true;
            }
            let now = self.world.now;
            let sends = |pipe: &crate::link::Pipe| pipe.next_departure(now).is_some();
            let count = self.world.links.iter().filter(|link| sends(&link.pipes[CLIENT])).count() as u64;
            for (link, before) in self.world.links.iter_mut().zip(&mut self.written) {
                let pipe = &mut link.pipes[CLIENT];
                pipe.path.bytes_per_second = RATE / count.max(1);
                let packets = (pipe.written_bytes - *before) as f64 / PACKET_BYTES;
                *before = pipe.written_bytes;
                if self.random.below(1_000_000) as f64 / 1e6 < 1.0 - (1.0 - self.loss).powf(packets) {
                    pipe.lose(now);
                }
            }
            if self.has_queue {
                self.queue();
            }
        }
        false
    }

    fn open(&mut self, direction: Direction, priority: Priority, bytes: u64) -> StreamId {
        let node = &mut self.world.nodes[CLIENT];
        let session = node.session.as_mut().unwrap();
        let id = node.app.open(session, &mut self.world.oracle, direction, priority, bytes).unwrap();
        node.app.writers.get_mut(&id).unwrap().chunk_bytes = 128 * 1024;
        id
    }

    /// A transfer that has found its rate.
    fn begin_bulk(&mut self) -> StreamId {
        let id = self.open(Direction::Uni, Priority::Normal, 4_000_000_000);
        self.run_until(Duration::from_secs(3), |_| false);
        id
    }

    /// Requests of 200 bytes, each answered by as many, one after the other: the median.
    fn requests(&mut self, priority: Priority, count: usize) -> Duration {
        self.world.nodes[SERVER].app.answer = Answer { bytes: 200, chunk_bytes: 200 };
        let mut taken: Vec<_> = (0..count)
            .map(|_| {
                let since = self.world.now;
                let id = self.open(Direction::Bi, priority, 200);
                let is_answered =
                    self.run_until(Duration::from_secs(5), |world| world.oracle.flow(id, Side::Server).end_was_read);
                assert!(is_answered, "{}", self.world.describe());
                let taken = self.world.now - since;
                self.run_until(milliseconds(20), |_| false);
                taken
            })
            .collect();
        taken.sort();
        taken[count / 2]
    }

    fn read(&mut self, id: StreamId) -> u64 {
        self.world.oracle.flow(id, Side::Client).read
    }

    /// Bytes a second of a stream, for some seconds.
    fn rate(&mut self, id: StreamId, seconds: u64) -> f64 {
        let before = self.read(id);
        self.run_until(Duration::from_secs(seconds), |_| false);
        (self.read(id) - before) as f64 / seconds as f64
    }

    /// Bytes that each lane was given meanwhile.
    fn given(&self) -> Vec<u64> {
        self.world.links.iter().map(|link| link.pipes[CLIENT].written_bytes).collect()
    }

    /// Lanes that were given next to nothing since `before`.
    fn free_count(&self, before: &[u64]) -> usize {
        self.given().iter().zip(before).filter(|(now, before)| *now - *before < 100_000).count()
    }
}

#[test]
fn requests_beside_a_transfer_wait_for_no_repair_of_it() {
    for lanes in [Lanes::Tcp, Lanes::Quic] {
        for round_trip_ms in [50, 150] {
            let mut shared = Shared::new(lanes, round_trip_ms, 0.01, SessionConfig::default());
            let bulk = shared.begin_bulk();
            let alone = shared.rate(bulk, 3);
            let (begin, before) = (shared.world.now, shared.read(bulk));
            let taken = shared.requests(Priority::Interactive, 41);
            let beside = (shared.read(bulk) - before) as f64 / (shared.world.now - begin).as_secs_f64();
            assert!(
                taken <= milliseconds(round_trip_ms).mul_f64(1.3),
                "{lanes:?}, {round_trip_ms} ms: {taken:?} beside {:.0} Mbit/s",
                beside / 125e3
            );
            assert!(beside >= 0.95 * alone, "{lanes:?}, {round_trip_ms} ms: {beside} of {alone}");
        }
    }
}

#[test]
fn a_lane_is_kept_free_while_requests_come_and_no_longer() {
    for lanes in [Lanes::Tcp, Lanes::TcpAndOne, Lanes::Quic] {
        let mut shared = Shared::new(lanes, 50, 0.0, SessionConfig::default());
        let bulk = shared.begin_bulk();
        let before = shared.given();
        shared.rate(bulk, 1);
        assert_eq!(shared.free_count(&before), 0, "{lanes:?}: nobody waits for anything");
        shared.requests(Priority::Interactive, 20);
        let before = shared.given();
        shared.rate(bulk, 2);
        assert_eq!(shared.free_count(&before), 1, "{lanes:?}");
        shared.rate(bulk, 10);
        let before = shared.given();
        shared.rate(bulk, 2);
        assert_eq!(shared.free_count(&before), 0, "{lanes:?}: the last request is long ago");
    }
}

/// Its rate would be lost: no other lane carries what it does not.
#[test]
fn no_path_is_kept_free_as_a_whole() {
    let mut shared = Shared::new(Lanes::Apart, 50, 0.0, SessionConfig::default());
    let bulk = shared.begin_bulk();
    shared.requests(Priority::Interactive, 20);
    let before = shared.given();
    shared.rate(bulk, 1);
    assert_eq!(shared.free_count(&before), 0);
}

#[test]
fn shares_that_were_asked_for_are_kept() {
    for scheduler in [Policy::Weighted, Policy::RoundRobin, Policy::LeastLoaded] {
        let config = SessionConfig { scheduler, ..SessionConfig::default() };
        let mut shared = Shared::new(Lanes::Tcp, 50, 0.0, config);
        let bulk = shared.begin_bulk();
        shared.requests(Priority::Interactive, 20);
        let before = shared.given();
        shared.rate(bulk, 1);
        assert_eq!(shared.free_count(&before), 0, "{scheduler}");
    }
}

/// A transfer is helped by every lane, whatever its class.
#[test]
fn an_interactive_transfer_uses_every_lane() {
    let mut shared = Shared::new(Lanes::Tcp, 50, 0.0, SessionConfig::default());
    let bulk = shared.open(Direction::Uni, Priority::Interactive, 4_000_000_000);
    shared.rate(bulk, 3);
    let before = shared.given();
    let rate = shared.rate(bulk, 2);
    assert_eq!(shared.free_count(&before), 0);
    assert!(rate >= 0.95 * RATE as f64, "{:.0} Mbit/s", rate / 125e3);
}

#[test]
fn a_free_lane_that_dies_is_replaced_and_costs_nothing() {
    for told in [true, false] {
        let mut shared = Shared::new(Lanes::Tcp, 50, 0.0, SessionConfig::default());
        let bulk = shared.begin_bulk();
        shared.requests(Priority::Interactive, 20);
        let before = shared.given();
        shared.rate(bulk, 1);
        let given = shared.given();
        let free = (0..4).find(|&link| given[link] - before[link] < 100_000).expect("one is kept free");
        let sides: &[usize] = if told { &[CLIENT, SERVER] } else { &[] };
        shared.world.kill(free, sides);
        let taken = shared.requests(Priority::Interactive, 21);
        assert!(taken <= milliseconds(100), "told {told}: {taken:?}");
        let rate = shared.rate(bulk, 2);
        assert!(rate >= 0.9 * RATE as f64, "told {told}: {:.0} Mbit/s", rate / 125e3);
    }
}

/// The median of requests on a lane of their own, and what is left meanwhile of the rate of a transfer.
fn beside_queue(shared: &mut Shared) -> (Duration, f64) {
    let bulk = shared.begin_bulk();
    let alone = shared.rate(bulk, 3);
    // Until the queue is what it shall be.
    shared.requests(Priority::Interactive, 21);
    let (begin, before) = (shared.world.now, shared.read(bulk));
    let taken = shared.requests(Priority::Interactive, 41);
    let beside = (shared.read(bulk) - before) as f64 / (shared.world.now - begin).as_secs_f64();
    (taken, beside / alone)
}

/// Kernels would keep it at one and a half round trips: requests took two and a half.
#[test]
fn the_queue_of_a_path_is_short_while_requests_come() {
    for round_trip_ms in [50, 150] {
        for loss in [0.0, 0.01] {
            let (taken, part) = beside_queue(&mut Shared::queued(round_trip_ms, 1.5, loss));
            let round_trips = taken.as_secs_f64() * 1e3 / round_trip_ms as f64;
            let what = format!("{round_trip_ms} ms, {loss}: {round_trips:.2} round trips, {part:.2} of the rate");
            assert!(round_trips <= 1.7, "{what}");
            assert!(part >= 0.9, "{what}");
        }
    }
}

#[test]
fn kernels_may_fill_the_queue_again_when_no_more_requests_come() {
    let mut shared = Shared::queued(50, 1.5, 0.0);
    let queued = |shared: &Shared| {
        let now = shared.world.now;
        shared.world.links.iter().map(|link| link.pipes[CLIENT].waiting_bytes(now)).sum::<usize>()
    };
    let bulk = shared.begin_bulk();
    let before = queued(&shared);
    shared.requests(Priority::Interactive, 41);
    let during = queued(&shared);
    shared.rate(bulk, 12);
    let after = queued(&shared);
    assert!(during < before / 2 && after > before / 10 * 9, "{before} bytes, {during} meanwhile, {after} afterwards");
}

/// Sending less does not make it shorter.
#[test]
fn a_queue_of_others_costs_a_transfer_little() {
    for round_trip_ms in [50, 150] {
        let mut shared = Shared::queued(round_trip_ms, 0.5, 0.0);
        let bulk = shared.begin_bulk();
        let alone = shared.rate(bulk, 3);
        shared.foreign_wait = milliseconds(2 * round_trip_ms);
        let (begin, before) = (shared.world.now, shared.read(bulk));
        while shared.world.now < begin + Duration::from_secs(35) {
            shared.requests(Priority::Interactive, 5);
        }
        let beside = (shared.read(bulk) - before) as f64 / (shared.world.now - begin).as_secs_f64();
        assert!(beside >= 0.85 * alone, "{round_trip_ms} ms: {:.2} of the rate", beside / alone);
    }
}

/// What is new has a small window: that is not what the queue is made of.
#[test]
fn a_transfer_beside_a_queue_of_others_finds_its_rate() {
    let mut shared = Shared::queued(50, 0.5, 0.0);
    shared.requests(Priority::Interactive, 11);
    shared.foreign_wait = milliseconds(100);
    let bulk = shared.open(Direction::Uni, Priority::Normal, 4_000_000_000);
    shared.requests(Priority::Interactive, 21);
    let before = shared.read(bulk);
    let begin = shared.world.now;
    shared.requests(Priority::Interactive, 21);
    let rate = (shared.read(bulk) - before) as f64 / (shared.world.now - begin).as_secs_f64();
    assert!(rate >= 0.7 * RATE as f64, "{:.0} Mbit/s", rate / 125e3);
}
