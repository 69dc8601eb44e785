//! Somebody repeats a client's first flight: before it arrives or after, whole, cut or damaged, at the server that it is for,
//! at that server restarted, and at another one. One of them at most reads what came early.

use std::time::Duration;

use bytes::BytesMut;
use longhaul::base::{Direction, Side, limits};
use longhaul::session::{LaneKind, SessionConfig};
use longhaul::stream::Priority;

use crate::comebacks::{AUTHORITIES, open_marked};
use crate::link::{Link, Path, Phase};
use crate::node::Node;
use crate::oracle::{Flow, Oracle};
use crate::random::Random;
use crate::returning::Returning;
use crate::seeds::{for_each_seed, milliseconds};
use crate::world::{CLIENT, SERVER, World};

const PATH: Path = Path { delay: milliseconds(40), bytes_per_second: 50_000_000, buffer_bytes: 400_000 };

/// A client that has had a session, and has come back: its first flight is on its way.
struct Flight {
    world: World,
    kind: LaneKind,
    /// What was written, write by write.
    writes: Vec<BytesMut>,
    /// All servers of the domain: the one that it is for, the same restarted, and another one.
    servers: [Returning; 3],
}

impl Flight {
    fn begin(random: &mut Random) -> Self {
        let kind = random.pick(&[LaneKind::Tcp, LaneKind::Unix, LaneKind::Quic]);
        let config = SessionConfig::default();
        let mut world = World::new(random.fork().below(u64::MAX), config.clone(), config);
        let returning = Returning::new(&AUTHORITIES.ours);
        let servers = [None, Some("server"), Some("another")].map(|name| {
            let mut server = returning.clone();
            if let Some(name) = name {
                server.start_server(&AUTHORITIES.ours, name, AUTHORITIES.ours.anchors());
            }
            server
        });
        world.returning = Some(returning);
        world.come(kind, PATH);
        assert!(world.run_until(Duration::from_secs(5), |world| world.nodes.iter().all(Node::is_connected)));
        world.run_for(Duration::from_secs(1));
        world.part();
        world.come(kind, PATH);
        for _ in 0..random.between(1, 4) {
            open_marked(&mut world, 1 + random.sized(13), true).expect("an early stream");
            if random.one_in(2) {
                open_marked(&mut world, 1 + random.sized(13), false).expect("an early stream");
            }
        }
        let World { nodes, oracle, .. } = &mut world;
        let Node { session, app, .. } = &mut nodes[CLIENT];
        let session = session.as_mut().expect("it has tickets");
        app.open(session, oracle, Direction::Bi, Priority::default(), 1000).expect("a stream");
        world.settle();
        let writes = world.links[0].pipes[CLIENT].writes.iter().map(|write| write.bytes.clone()).collect();
        Self { world, kind, writes, servers }
    }

    /// A copy of the flight comes to a server, whole or not. Returns the server's view of it.
    fn copy(&self, random: &mut Random, whom: usize) -> World {
        let mut bytes: Vec<u8> = self.writes.concat();
        match random.below(6) {
            0 => bytes.truncate(random.below(bytes.len() as u64) as usize),
            // On QUIC the channel's own protection finds it.
            1 if self.kind != LaneKind::Quic => {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
            2 if self.kind != LaneKind::Quic => bytes.extend(bytes.clone()),
            _ => {}
        }
        let config = SessionConfig::default();
        let mut world = World::new(random.fork().below(u64::MAX), config.clone(), config);
        world.returning = Some(self.servers[whom].clone());
        // What the client has written, and nobody has read.
        let Oracle { flows, marked, unsaid } = &self.world.oracle;
        let flows = flows.iter().filter(|((_, writer), _)| *writer == Side::Client);
        let flows = flows.map(|(key, flow)| {
            let Flow { written, is_finished, .. } = *flow;
            (*key, Flow { written, is_finished, ..Flow::default() })
        });
        world.oracle = Oracle { flows: flows.collect(), marked: marked.clone(), unsaid: unsaid.clone() };
        world.links.push(Link::new(self.kind, PATH, Phase::Closed, Phase::Establishing));
        for part in bytes.chunks(1 + random.sized(14) as usize) {
            world.receive(0, SERVER, part);
            world.settle();
        }
        world.run_for(milliseconds(random.sized(14)));
        assert!(!world.nodes[SERVER].is_connected(), "nobody is at the other end");
        if random.one_in(2) {
            world.give_up();
        }
        world
    }
}

/// Nobody but the client itself has a session, and what is not replay-safe is not read.
fn check_copy(copy: &World) {
    let read: u64 = copy.oracle.flows.values().map(|flow| flow.read).sum();
    assert_eq!(read, copy.oracle.early_bytes(), "{}", copy.describe());
    assert!(!copy.nodes[SERVER].is_connected());
    if let Some(session) = &copy.nodes[SERVER].session {
        let held = limits::EARLY_WINDOW_BYTES + limits::EARLY_HELD_BYTES_MAX as u64;
        assert!(session.held_bytes() <= held, "{} bytes held", session.held_bytes());
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut flight = Flight::begin(&mut random);
    let before = random.below(4);
    let mut copies = Vec::new();
    for _ in 0..before {
        let whom = random.below(3) as usize;
        copies.push((whom, flight.copy(&mut random, whom)));
    }
    // Somebody who was faster at this very server may have used the ticket up.
    let was_overtaken = copies.iter().any(|(whom, _)| *whom == 0);
    flight.world.run_until_all_read(Duration::from_secs(10));
    let original = flight.world.oracle.early_bytes();
    for _ in 0..random.between(1, 6) {
        let whom = random.below(3) as usize;
        copies.push((whom, flight.copy(&mut random, whom)));
    }
    let mut readers = usize::from(original > 0);
    for (whom, copy) in &copies {
        check_copy(copy);
        let is_read = copy.oracle.early_bytes() > 0;
        assert!(!is_read || *whom == 0, "a server that has not given the ticket");
        readers += usize::from(is_read);
    }
    assert!(readers <= 1, "{readers} have read what came early");
    assert!(was_overtaken || original > 0, "{}", flight.world.describe());
    // The client goes on, whoever was faster.
    assert!(flight.world.nodes.iter().all(Node::is_connected));
}

#[test]
fn repeated_flights_have_one_effect() {
    for_each_seed("repeated_flights_have_one_effect", run);
}
