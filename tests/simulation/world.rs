//! Two nodes and the links between them in virtual time. The driver does what the node does with sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use longhaul::base::{LaneId, Side};
use longhaul::session::{Event, LaneEnd, LaneKind, LaneSetup, Session, SessionConfig};
use longhaul::stream::StreamNotice;
use longhaul::wire::{LaneUsage, TransportParameters};

use crate::link::{Link, Path, Phase};
use crate::node::Node;
use crate::oracle::Oracle;
use crate::random::Random;
use crate::returning::Returning;

/// More rounds than this at one moment are a loop.
const ROUNDS_MAX: u32 = 20_000;

/// More steps than this in one run are a loop, too.
const STEPS_MAX: u32 = 30_000;

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub random: Random,
    pub nodes: [Node; 2],
    /// What the path of the first link is known as, by those that share it.
    pub first_path: Option<u64>,
    pub links: Vec<Link>,
    pub oracle: Oracle,
    /// Everything that was written to a link, to look for what must not be there.
    pub transcript: Option<Vec<u8>>,
    /// The byte to be damaged, among all that are written.
    pub damage_at: Option<usize>,
    written: usize,
    /// Instead of the usual TLS configurations.
    pub client_tls: Option<Arc<rustls::ClientConfig>>,
    pub server_tls: Option<Arc<rustls::ServerConfig>>,
    /// What the server answers to a start, instead of what it grants.
    pub started: Option<TransportParameters>,
    /// What a client comes back with.
    pub returning: Option<Returning>,
}

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;

/// A lane rests after packets no longer than this, when nothing follows.
const RESTING_PACKET_BYTES_MAX: usize = 8 * 1024;

impl World {
    /// Two nodes that do not know each other yet.
    pub fn new(seed: u64, client: SessionConfig, server: SessionConfig) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            random: Random::new(seed),
            nodes: [Node::new(Side::Client, client), Node::new(Side::Server, server)],
            first_path: None,
            links: Vec::new(),
            oracle: Oracle::default(),
            transcript: None,
            damage_at: None,
            written: 0,
            client_tls: None,
            server_tls: None,
            started: None,
            returning: None,
        }
    }

    /// Two nodes with default settings and a session over `lanes` links of one kind.
    pub fn connected(seed: u64, lanes: usize, path: Path) -> Self {
        Self::connected_with(seed, lanes, path, SessionConfig::default())
    }

    pub fn connected_with(seed: u64, lanes: usize, path: Path, config: SessionConfig) -> Self {
        let mut world = Self::new(seed, config.clone(), config);
        world.connect(LaneKind::Tcp, path);
        for _ in 1..lanes {
            world.join(LaneKind::Tcp, path).expect("a fresh session has lanes left");
        }
        world.run_for(path.delay * 4 + Duration::from_millis(50));
        assert_eq!(world.nodes[SERVER].session().lane_count(), lanes);
        world
    }

    /// Runs the handshake until both sides are connected.
    pub fn connect(&mut self, kind: LaneKind, path: Path) {
        self.dial(kind, path);
        let is_connected = self.run_until(Duration::from_secs(10), |world| {
            world.nodes.iter().all(Node::is_connected) || world.nodes.iter().any(|node| node.failure.is_some())
        });
        assert!(is_connected, "the handshake got stuck");
        let failures: Vec<_> = self.nodes.iter().filter_map(|node| node.failure.as_ref()).collect();
        assert!(failures.is_empty(), "{failures:?}");
    }

    /// Joins another link to the session, if it takes one.
    pub fn join(&mut self, kind: LaneKind, path: Path) -> Option<usize> {
        self.join_as(kind, path, LaneUsage::default())
    }

    /// The same, with a role of its own.
    pub fn join_as(&mut self, kind: LaneKind, path: Path, usage: LaneUsage) -> Option<usize> {
        self.join_with(path, LaneSetup { usage, ..LaneSetup::new(kind) })
    }

    /// A further lane of the QUIC connection that a link belongs to, which is held up by itself.
    pub fn join_beside(&mut self, first: usize, path: Path) -> Option<usize> {
        let channel = self.links[first].channel.or_else(|| self.lane_of(first));
        self.join_with(path, LaneSetup { channel, ..LaneSetup::new(LaneKind::Quic) })
    }

    /// A channel over a path that it shares with others of the same name.
    pub fn join_over(&mut self, shared_path: u64, path: Path) -> Option<usize> {
        self.join_with(path, LaneSetup { path: Some(shared_path), ..LaneSetup::new(LaneKind::Tcp) })
    }

    fn join_with(&mut self, path: Path, setup: LaneSetup) -> Option<usize> {
        let LaneSetup { kind, channel, path: shared_path, .. } = setup;
        let binding = Self::channel_binding(kind, self.links.len());
        let (now, mut random) = (self.now, self.random.fork());
        let session = self.nodes[CLIENT].session.as_mut()?;
        let request = session.begin_join(setup, &binding, &mut random, now)?;
        let mut out = BytesMut::new();
        let message = longhaul::wire::ClearMessage::Join(request.join.clone());
        longhaul::wire::encode_clear(&mut out, &request.head, &message);
        let lane = request.head.lane_id;
        let link = Link::new(kind, path, Phase::Joining { request, lane, since: now }, Phase::Accepting);
        self.links.push(Link { channel, shared_path, ..link });
        self.write(self.links.len() - 1, CLIENT, out);
        self.settle();
        Some(self.links.len() - 1)
    }

    /// What both ends of a channel that is TLS itself draw from its exporter.
    pub fn channel_binding(kind: LaneKind, link: usize) -> Vec<u8> {
        match kind {
            LaneKind::Tcp | LaneKind::Unix => Vec::new(),
            LaneKind::Tls | LaneKind::Quic => vec![link as u8; 32],
        }
    }

    // ---- Time ----

    /// Runs until something is true. Returns whether it became so within `time`.
    pub fn run_until(&mut self, time: Duration, mut is_done: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = self.now + time;
        for step in 0.. {
            assert!(step < STEPS_MAX, "too many steps: {}", self.describe());
            self.settle();
            if is_done(self) {
                return true;
            }
            self.nodes.iter_mut().for_each(Node::arm);
            match self.next_time() {
                Some(next) if next <= deadline => self.now = self.now.max(next),
                _ => {
                    self.now = deadline;
                    return is_done(self);
                }
            }
            self.deliver();
            self.expire();
        }
        unreachable!("the steps are limited")
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(time, |_| false);
        assert_eq!(self.now, end);
    }

    /// Runs until every stream was read to its end.
    pub fn run_until_all_read(&mut self, time: Duration) {
        let is_done = self.run_until(time, |world| world.is_all_read());
        assert!(is_done, "{}", self.describe());
    }

    /// Whether every stream was written and read to its end.
    pub fn is_all_read(&self) -> bool {
        self.oracle.is_all_over() && self.nodes.iter().all(|node| node.app.writers.is_empty())
    }

    fn next_time(&self) -> Option<Instant> {
        let links = self.links.iter().flat_map(|link| {
            let runs = |side: &usize| !self.nodes[*side].is_stopped;
            let readers = [SERVER, CLIENT].into_iter().zip(&link.pipes).filter(move |(reader, _)| runs(reader));
            let arrivals = readers.filter_map(|(_, pipe)| pipe.next_arrival(self.now));
            let rooms = [CLIENT, SERVER].into_iter().filter(runs).filter_map(|side| {
                let end = &link.ends[side];
                let waits = end.is_active && end.phase.sending_lane().is_some();
                waits.then(|| link.pipes[side].next_departure(self.now)).flatten()
            });
            let dialling = link.ends.iter().take(usize::from(runs(&CLIENT)));
            let joins = dialling.filter_map(|end| match end.phase {
                Phase::Joining { since, .. } => Some(since + longhaul::base::limits::JOIN_TIMEOUT),
                _ => None,
            });
            arrivals.chain(rooms).chain(joins).collect::<Vec<_>>()
        });
        let timeouts = self.nodes.iter().filter(|node| !node.is_stopped).flat_map(|node| {
            let session = node.session.as_ref();
            // Nobody reads on a session that is over.
            let reads = session.is_some_and(|session| !session.is_ending()).then(|| node.app.next_time());
            [node.armed(), reads.flatten()].into_iter().flatten()
        });
        links.chain(timeouts).min()
    }

    /// Timeouts of sessions and joins.
    pub fn expire(&mut self) {
        let now = self.now;
        for node in self.nodes.iter_mut().filter(|node| !node.is_stopped) {
            node.expire(now);
        }
        for link in 0..self.links.len() {
            if let Phase::Joining { since, lane, .. } = self.links[link].ends[CLIENT].phase
                && !self.nodes[CLIENT].is_stopped
                && since + longhaul::base::limits::JOIN_TIMEOUT <= now
            {
                self.nodes[CLIENT].session().remove_lane(lane, LaneEnd::NotConfirmed, now);
                self.close_end(link, CLIENT);
            }
        }
    }

    // ---- Outputs ----

    /// Lets everything happen that can happen now.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "does not come to rest: {}", self.describe());
            let mut progress = false;
            for side in [CLIENT, SERVER] {
                progress |= self.drain(side);
            }
            for link in 0..self.links.len() {
                for side in [CLIENT, SERVER] {
                    progress |= self.transmit(link, side);
                }
            }
            if !progress {
                return;
            }
        }
    }

    fn drain(&mut self, side: usize) -> bool {
        let node = &mut self.nodes[side];
        let Some(session) = node.session.as_mut().filter(|_| !node.is_stopped) else { return false };
        let mut progress = false;
        let mut downs = Vec::new();
        loop {
            while let Some(event) = session.poll_event() {
                progress = true;
                match event {
                    Event::Stream(notice) => {
                        let is_early = session.side() == Side::Client && !session.is_connected();
                        // These follow from what this side does, and from the answer to a start.
                        let is_own = matches!(notice, StreamNotice::Writable(_) | StreamNotice::Available(_));
                        assert!(!is_early || is_own || session.is_ending(), "{notice:?} in front of the accept");
                        node.app.on_notice(session, &mut self.oracle, notice);
                    }
                    event => {
                        if let Event::LaneDown(lane, _) = event {
                            downs.push(lane);
                        }
                        node.events.push((self.now, event));
                    }
                }
            }
            if !node.app.work(session, &mut self.oracle, self.now) {
                break;
            }
            progress = true;
        }
        while let Some(lane) = session.poll_wake() {
            for link in &mut self.links {
                if link.ends[side].phase.sending_lane() == Some(lane) {
                    link.ends[side].is_active = true;
                    progress = true;
                }
            }
        }
        for lane in downs {
            if let Some(link) = self.link_of(side, lane) {
                self.close_end(link, side);
            }
        }
        progress
    }

    /// One packet, if the link takes one and the session has one.
    fn transmit(&mut self, link: usize, side: usize) -> bool {
        let end = &mut self.links[link].ends[side];
        let Some(lane) = end.phase.sending_lane().filter(|_| end.is_active) else { return false };
        if self.nodes[side].is_stopped || !self.links[link].pipes[side].has_room(self.now) {
            return false;
        }
        let session = self.nodes[side].session();
        let Some(transmission) = session.poll_transmit(self.now, lane) else {
            self.links[link].ends[side].is_active = false;
            return true;
        };
        let mut out = BytesMut::new();
        transmission.encode(&mut out).expect("sealing does not fail");
        // As nodes do: a lane that has nothing after a short packet need not ask again.
        if out.len() <= RESTING_PACKET_BYTES_MAX && session.rest_lane(self.now, lane) {
            self.links[link].ends[side].is_active = false;
        }
        assert_eq!(out.len(), transmission.message_bytes(), "the size that was counted");
        let size_max = self.nodes[side].config.packet_bytes_max;
        assert!(out.len() <= size_max, "a message of {} bytes, {size_max} are allowed", out.len());
        self.write(link, side, out);
        true
    }

    pub fn write(&mut self, link: usize, side: usize, mut bytes: BytesMut) {
        if let Some(byte) = self.damage_at.and_then(|at| bytes.get_mut(at.checked_sub(self.written)?)) {
            *byte ^= 0x20;
        }
        self.written += bytes.len();
        if let Some(transcript) = &mut self.transcript {
            transcript.extend_from_slice(&bytes);
        }
        self.links[link].pipes[side].write(self.now, bytes);
    }

    // ---- Links ----

    pub fn link_of(&self, side: usize, lane: LaneId) -> Option<usize> {
        self.links.iter().position(|link| link.ends[side].phase.sending_lane() == Some(lane))
    }

    /// The lane of a link, while it has one.
    pub fn lane_of(&self, link: usize) -> Option<LaneId> {
        self.links[link].ends.iter().find_map(|end| end.phase.sending_lane())
    }

    /// One side closes its channel; the other one is told after the last byte.
    pub fn close_end(&mut self, link: usize, side: usize) {
        self.links[link].ends[side].phase = Phase::Closed;
        self.links[link].pipes[side].close();
    }

    /// A side finds that its channel failed.
    pub fn fail_end(&mut self, link: usize, side: usize, end: LaneEnd) {
        let lane = self.links[link].ends[side].phase.sending_lane();
        self.close_end(link, side);
        if let (Some(lane), Some(session)) = (lane, &mut self.nodes[side].session) {
            session.remove_lane(lane, end, self.now);
        }
        self.on_channel_failed(link, side);
    }

    /// Everything on the link is gone; `told` are the sides that notice.
    pub fn kill(&mut self, link: usize, told: &[usize]) {
        let now = self.now;
        self.links[link].pipes.iter_mut().for_each(|pipe| pipe.black_hole(now));
        for &side in told {
            if !self.links[link].ends[side].phase.is_closed() {
                self.fail_end(link, side, LaneEnd::ChannelClosed);
            }
        }
        self.settle();
    }

    /// The state of things, for messages of failed tests.
    pub fn describe(&self) -> String {
        let mut text = format!("after {:?}:", self.now - self.start);
        for node in &self.nodes {
            let stats = node.session.as_ref().map(Session::stats);
            let state = node.session.as_ref().map(|session| (session.is_connected(), session.close_reason().cloned()));
            text += &format!("\n{:?}: {state:?}\n  {stats:?}\n  writers {:?}", node.side, node.app.writers);
            let late = node.events.len().saturating_sub(8);
            text += &format!("\n  last events {:?}", &node.events[late..]);
        }
        for ((id, writer), flow) in self.oracle.flows.iter().filter(|(_, flow)| !flow.is_over()) {
            text += &format!("\n{id} by {writer:?}: {flow:?}");
        }
        text
    }
}
