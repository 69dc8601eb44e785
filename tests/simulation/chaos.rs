//! Drawn operations and drawn faults: whatever happens, streams keep their promise and go on.

use std::time::Duration;

use longhaul::base::{CloseCode, Direction, StreamCode};
use longhaul::session::scheduler::Policy;
use longhaul::session::{CloseReason, LaneKind, SessionConfig};
use longhaul::stream::{Priority, StreamsConfig};
use longhaul::wire::PaddingPolicy;

use crate::app::{Answer, Reading};
use crate::faults::Fault;
use crate::link::Path;
use crate::random::Random;
use crate::seeds::{for_each_seed, milliseconds};
use crate::world::{CLIENT, SERVER, World};

/// Once nothing is harmed any more, everything arrives within this time. Reckoned for the slowest link, the smallest
/// window and lanes that have to be found dead first.
const REST: Duration = Duration::from_secs(200);

fn draw_config(random: &mut Random) -> SessionConfig {
    let paddings = [
        PaddingPolicy::None,
        PaddingPolicy::Block32,
        PaddingPolicy::Block48,
        PaddingPolicy::Block64,
        PaddingPolicy::Padme,
        PaddingPolicy::Constant(1400),
    ];
    let stream_window = random.between(10_000, 400_000);
    let session_window = stream_window * random.between(1, 4);
    SessionConfig {
        scheduler: random.pick(&Policy::ALL),
        padding: random.pick(&paddings),
        packet_bytes_max: random.pick(&[2048, 5000, 16_384, 65_536]),
        seal_always: random.one_in(4),
        key_packets_max: random.pick(&[30, 300, 1 << 22]),
        key_bytes_max: random.pick(&[300_000, 64 << 30]),
        key_age_max: random.pick(&[Duration::from_secs(2), Duration::from_secs(3600)]),
        streams: StreamsConfig {
            stream_window,
            stream_window_max: stream_window * random.between(1, 20),
            session_window,
            session_window_max: session_window * random.between(1, 20),
            streams_max: random.between(2, 40),
            ..StreamsConfig::default()
        },
        ..SessionConfig::default()
    }
}

fn draw_path(random: &mut Random) -> Path {
    Path {
        delay: milliseconds(random.sized(8)),
        bytes_per_second: random.pick(&[200_000, 2_000_000, 50_000_000]),
        buffer_bytes: random.pick(&[16_000, 64_000, 400_000]),
    }
}

fn draw_kind(random: &mut Random) -> LaneKind {
    random.pick(&[LaneKind::Tcp, LaneKind::Tcp, LaneKind::Unix, LaneKind::Tls, LaneKind::Quic])
}

/// One run: operations and faults for a while, then peace until everything has arrived, then an end.
struct Chaos {
    world: World,
    random: Random,
    lanes_wanted: usize,
    faults: bool,
}

impl Chaos {
    fn begin(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (client, server) = (draw_config(&mut random), draw_config(&mut random));
        let mut world = World::new(random.fork().below(u64::MAX), client, server);
        for node in &mut world.nodes {
            node.app.answer = Answer { bytes: random.sized(18), chunk_bytes: 1 + random.sized(15) as usize };
            node.app.reading = match random.below(3) {
                0 => Reading::Slowly(5000 + random.sized(17) as usize, milliseconds(random.between(1, 40))),
                _ => Reading::AtOnce,
            };
        }
        let kind = draw_kind(&mut random);
        world.connect(kind, draw_path(&mut random));
        Self { world, lanes_wanted: random.between(1, 6) as usize, faults: true, random }
    }

    /// The client dials what is missing.
    fn keep_lanes(&mut self) {
        let session = self.world.nodes[CLIENT].session();
        if session.healthy_lane_count() < self.lanes_wanted && !session.is_ending() {
            let (kind, path) = (draw_kind(&mut self.random), draw_path(&mut self.random));
            let mut links = self.world.links.iter();
            match links.rposition(|link| link.kind == LaneKind::Quic && link.is_open()) {
                Some(link) if self.random.one_in(2) => self.world.join_beside(link, path),
                _ => self.world.join(kind, path),
            };
        }
    }

    fn act(&mut self) {
        let side = self.random.below(2) as usize;
        let now = self.world.now;
        let node = &mut self.world.nodes[side];
        let session = node.session.as_mut().unwrap();
        let oracle = &mut self.world.oracle;
        match self.random.below(16) {
            0..6 => {
                let direction = self.random.pick(&[Direction::Bi, Direction::Uni]);
                let priority = self.random.pick(&Priority::ALL);
                let bytes = self.random.sized(20);
                let id = node.app.open(session, oracle, direction, priority, bytes);
                if let Some(writer) = id.and_then(|id| node.app.writers.get_mut(&id)) {
                    writer.chunk_bytes = writer.chunk_bytes_min + self.random.sized(17) as usize;
                }
            }
            6 => {
                let ids: Vec<_> = oracle.flows.keys().map(|(id, _)| *id).collect();
                let id = ids.get(self.random.below(ids.len() as u64) as usize).copied();
                if let Some(id) = id.filter(|id| id.is_writable_by(session.side())) {
                    node.app.reset(session, oracle, id, StreamCode(0x100 + self.random.below(9)));
                }
            }
            7 => {
                let ids = node.app.readable_streams();
                if let Some(&id) = ids.get(self.random.below(ids.len() as u64) as usize) {
                    node.app.stop(session, oracle, id, StreamCode(0x200 + self.random.below(9)), now);
                }
            }
            8 => session.update_keys(now),
            9 => {
                let ids: Vec<_> = node.app.writers.keys().copied().collect();
                if let Some(&id) = ids.get(self.random.below(ids.len() as u64) as usize) {
                    session.set_priority(id, self.random.pick(&Priority::ALL));
                }
            }
            10 | 11 => self.keep_lanes(),
            _ if self.faults => {
                let link = self.random.below(self.world.links.len() as u64) as usize;
                if !self.world.links[link].is_closed() {
                    let fault = self.random.pick(&Fault::ALL);
                    self.world.harm(link, fault);
                }
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        for side in [CLIENT, SERVER] {
            let peer = self.world.nodes[1 - side].config.streams.session_window_max;
            let node = &mut self.world.nodes[side];
            let chunks: u64 = node.app.writers.values().map(|writer| 1_000_000 + writer.chunk_bytes as u64).sum();
            let finished: u64 = self.world.oracle.flows.len() as u64 * 1_000_000;
            let limit = node.config.streams.session_window_max + peer + chunks + finished;
            let held = node.session().held_bytes();
            assert!(held <= limit, "{held} bytes held, {limit} are explained");
            assert_eq!(node.closed(), None, "the session ended");
        }
    }

    fn settle_down(&mut self) {
        let deadline = self.world.now + REST;
        while !self.world.is_all_read() {
            self.keep_lanes();
            self.world.run_until(milliseconds(300), |world| world.is_all_read());
            self.check();
            assert!(self.world.now < deadline, "stuck: {}", self.world.describe());
        }
    }

    /// Nothing may be left over by streams that ended, least of all credits: more than any window goes through.
    fn check_leaks(&mut self) {
        for side in [CLIENT, SERVER] {
            let bytes = self.world.nodes[1 - side].config.streams.session_window_max.min(3_000_000) + 100_000;
            let deadline = self.world.now + REST;
            while !self.open_uni(side, bytes) {
                assert!(self.world.now < deadline, "no credit for a stream: {}", self.world.describe());
                self.keep_lanes();
                self.world.run_for(milliseconds(300));
            }
        }
        self.world.nodes.iter_mut().for_each(|node| node.app.reading = Reading::AtOnce);
        self.settle_down();
        self.keep_lanes();
        self.world.run_for(Duration::from_secs(15));
        for node in &mut self.world.nodes {
            assert_eq!(node.session().stream_count(), 0, "{:?}: streams are left over", node.side);
            assert_eq!(node.session().held_bytes(), 0, "{:?}: bytes are left over", node.side);
        }
    }

    fn open_uni(&mut self, side: usize, bytes: u64) -> bool {
        let node = &mut self.world.nodes[side];
        let session = node.session.as_mut().unwrap();
        node.app.open(session, &mut self.world.oracle, Direction::Uni, Priority::Normal, bytes).is_some()
    }

    fn end(&mut self) {
        if self.random.one_in(3) {
            for link in 0..self.world.links.len() {
                self.world.kill(link, &[self.random.below(2) as usize]);
            }
            self.world.run_for(Duration::from_secs(240));
            for node in &self.world.nodes {
                assert!(matches!(node.closed(), Some(CloseReason::ChannelsLost { .. })), "{:?}", node.closed());
            }
        } else {
            let (side, now) = (self.random.below(2) as usize, self.world.now);
            self.keep_lanes();
            self.world.run_for(Duration::from_secs(2));
            self.world.nodes[side].session().close(CloseCode(0x321), "the end", now);
            self.world.run_for(Duration::from_secs(3));
            let expected = CloseReason::Peer { code: CloseCode(0x321), reason: "the end".to_owned() };
            assert_eq!(self.world.nodes[1 - side].closed(), Some(&expected));
            assert!(self.world.nodes[side].closed().is_some());
        }
        assert!(self.world.nodes.iter_mut().all(|node| node.session().next_timeout().is_none()));
    }
}

fn run(seed: u64, faults: bool) {
    let mut chaos = Chaos::begin(seed);
    chaos.faults = faults;
    for _ in 0..chaos.random.between(10, 120) {
        let pause = milliseconds(chaos.random.sized(9));
        chaos.world.run_for(pause);
        chaos.act();
        chaos.check();
    }
    chaos.settle_down();
    chaos.check_leaks();
    chaos.end();
}

#[test]
fn streams_keep_their_promise_whatever_happens_to_lanes() {
    for_each_seed("streams_keep_their_promise_whatever_happens_to_lanes", |seed| run(seed, true));
}

#[test]
fn streams_keep_their_promise_on_healthy_lanes() {
    for_each_seed("streams_keep_their_promise_on_healthy_lanes", |seed| run(seed, false));
}

/// Lanes that each left out the other one.
#[test]
fn seeds_that_were_stuck_once_are_not() {
    [147, 1426].into_iter().for_each(|seed| run(seed, false));
    run(1446, true);
}
