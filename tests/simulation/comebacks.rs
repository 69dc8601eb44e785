//! Clients that come back again and again, while servers restart, clocks go on, certificates and anchors change, and lanes
//! fail: what is replay-safe may come early, and everything comes in order and once.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longhaul::base::{Direction, Side, StreamCode, StreamId, limits};
use longhaul::session::{CloseReason, LaneKind, SessionConfig};
use longhaul::stream::{Priority, StreamsConfig};
use longhaul::wire::PaddingPolicy;

use crate::app::{Answer, Reading};
use crate::faults::Fault;
use crate::identities::Authority;
use crate::link::Path;
use crate::node::Node;
use crate::random::Random;
use crate::returning::Returning;
use crate::seeds::{for_each_seed, milliseconds};
use crate::world::{CLIENT, SERVER, World};

/// Everything arrives within this time, once nothing is harmed any more.
const REST: Duration = Duration::from_secs(120);

/// What happens while a client is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// The server forgets its tickets.
    Restart,
    /// Half of a ticket's life goes by, and a little more.
    HalfDay,
    /// The server forgets this client's tickets.
    Denied,
    /// The server trusts another authority, too.
    AnchorAdded,
    /// The server trusts another authority instead, until it has refused this client.
    Untrusted,
    /// The client has a new certificate.
    Renewed,
    /// The client trusts another authority, too.
    ClientAnchorAdded,
    /// The server takes no early data this time.
    TakesNone,
    /// The server's clock is put forward.
    Skewed,
    /// The server grants less than every server does, this time.
    GrantsLess,
}

impl Change {
    const ALL: [Self; 11] = [
        Self::Nothing,
        Self::Restart,
        Self::HalfDay,
        Self::Denied,
        Self::AnchorAdded,
        Self::Untrusted,
        Self::Renewed,
        Self::ClientAnchorAdded,
        Self::TakesNone,
        Self::Skewed,
        Self::GrantsLess,
    ];
}

pub struct Authorities {
    pub ours: Authority,
    other: Authority,
}

pub static AUTHORITIES: LazyLock<Authorities> =
    LazyLock::new(|| Authorities { ours: Authority::new(), other: Authority::new() });

/// What is known of the client's newest tickets for one kind of handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ticket {
    /// There is none, or it is not good for early data.
    None,
    /// It is good until then, in seconds of the server's clock.
    Until(u64),
    /// Something failed on the way.
    Unknown,
}

struct Comebacks {
    world: World,
    random: Random,
    tickets: [Ticket; 2],
    /// When the full handshake was that the newest tickets follow from.
    lineages: [u64; 2],
    /// Whether something of what was written first has to arrive early, if it can.
    asked_early: bool,
    /// Whether the client that came last sent early data.
    was_early: bool,
}

fn draw_config(random: &mut Random) -> SessionConfig {
    let stream_window = random.between(10_000, 300_000);
    let session_window = stream_window * random.between(1, 4);
    SessionConfig {
        padding: random.pick(&[PaddingPolicy::None, PaddingPolicy::Block32, PaddingPolicy::Padme]),
        packet_bytes_max: random.pick(&[2048, 5000, 16_384, 65_536]),
        streams: StreamsConfig {
            stream_window,
            stream_window_max: stream_window * 4,
            session_window,
            session_window_max: session_window * 4,
            streams_max: random.between(2, 40),
            ..StreamsConfig::default()
        },
        ..SessionConfig::default()
    }
}

pub fn draw_path(random: &mut Random) -> Path {
    Path {
        delay: milliseconds(random.between(1, 100)),
        bytes_per_second: random.pick(&[200_000, 2_000_000, 50_000_000]),
        buffer_bytes: random.pick(&[16_000, 64_000, 400_000]),
    }
}

/// Opens a stream of the client that is replay-safe. With `is_said` the server is told so.
pub fn open_marked(world: &mut World, bytes: u64, is_said: bool) -> Option<StreamId> {
    let World { nodes, oracle, random, .. } = world;
    let Node { session, app, .. } = &mut nodes[CLIENT];
    let direction = random.pick(&[Direction::Bi, Direction::Uni]);
    let id = session.as_mut()?.open_replay_safe(direction, random.pick(&Priority::ALL)).ok()?;
    oracle.marked.insert(id);
    if !is_said {
        oracle.unsaid.insert(id);
    }
    app.start(oracle, Side::Client, id, bytes, 16 * 1024);
    Some(id)
}

impl Comebacks {
    fn begin(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (client, server) = (draw_config(&mut random), draw_config(&mut random));
        let mut world = World::new(random.fork().below(u64::MAX), client, server);
        world.returning = Some(Returning::new(&AUTHORITIES.ours));
        for node in &mut world.nodes {
            node.app.answer = Answer { bytes: random.sized(15), chunk_bytes: 1 + random.sized(13) as usize };
            node.app.reading = match random.below(3) {
                0 => Reading::Slowly(5000 + random.sized(15) as usize, milliseconds(random.between(1, 20))),
                _ => Reading::AtOnce,
            };
        }
        Self { world, random, tickets: [Ticket::None; 2], lineages: [0; 2], asked_early: false, was_early: false }
    }

    fn returning(&mut self) -> &mut Returning {
        self.world.returning.as_mut().expect("it was made with one")
    }

    fn server_time(&mut self) -> u64 {
        self.returning().clocks[SERVER].seconds()
    }

    /// Changes what the client comes back to. Its tickets are good for what is kept of them.
    fn change(&mut self, change: Change) {
        let Authorities { ours, other } = &*AUTHORITIES;
        let returning = self.returning();
        returning.takes_early = change != Change::TakesNone;
        returning.grants_less = change == Change::GrantsLess;
        match change {
            Change::Nothing | Change::TakesNone | Change::GrantsLess => return,
            Change::HalfDay => {
                let time = limits::TICKET_LINEAGE_TIME / 2 + Duration::from_secs(60);
                returning.clocks.iter().for_each(|clock| clock.advance(time));
                return;
            }
            Change::AnchorAdded => {
                let both = ours.anchors_and(other);
                return returning.server.trust().set("simulation.test", both).unwrap();
            }
            Change::Untrusted => {
                return returning.server.trust().set("simulation.test", other.anchors()).unwrap();
            }
            Change::Restart => returning.start_server(ours, "server", ours.anchors()),
            Change::Denied => {
                let name = returning.client.identity().node_id().clone();
                returning.server.tickets().purge(|peer| peer.node_id == name);
            }
            Change::Renewed => returning.client.replace_identity(ours.identity("client")).unwrap(),
            Change::ClientAnchorAdded => {
                let before = returning.client.trust().generation();
                returning.client.trust().set("simulation.test", ours.anchors_and(other)).unwrap();
                if returning.client.trust().generation() == before {
                    returning.client.trust().set("simulation.test", ours.anchors()).unwrap();
                }
            }
            Change::Skewed => returning.clocks[SERVER].advance(Duration::from_secs(120)),
        }
        self.tickets = [Ticket::None; 2];
    }

    /// Opens streams of the client, as many as it may now.
    fn open_some(&mut self) {
        for _ in 0..self.random.between(1, 5) {
            let bytes = self.random.sized(17);
            if self.random.one_in(3) {
                let Node { session, app, .. } = &mut self.world.nodes[CLIENT];
                let Some(session) = session else { return };
                let direction = self.random.pick(&[Direction::Bi, Direction::Uni]);
                app.open(session, &mut self.world.oracle, direction, Priority::default(), bytes);
            } else {
                let is_said = !self.random.one_in(3);
                open_marked(&mut self.world, bytes, is_said);
            }
        }
        self.world.settle();
    }

    /// What applications may do beside writing and reading.
    fn act(&mut self) {
        let side = self.random.below(2) as usize;
        let (now, code) = (self.world.now, StreamCode(0x100 + self.random.below(9)));
        let World { nodes, oracle, .. } = &mut self.world;
        let Node { session, app, .. } = &mut nodes[side];
        let Some(session) = session.as_mut().filter(|session| !session.is_ending()) else { return };
        let readable = app.readable_streams();
        match self.random.below(4) {
            0 => {
                let ids: Vec<_> = oracle.flows.keys().filter(|(_, writer)| *writer == session.side()).collect();
                if let Some(&&(id, _)) = ids.get(self.random.below(ids.len() as u64) as usize) {
                    app.reset(session, oracle, id, code);
                }
            }
            1 => {
                if let Some(&id) = readable.get(self.random.below(readable.len() as u64) as usize) {
                    app.stop(session, oracle, id, code, now);
                }
            }
            _ => self.open_some(),
        }
    }

    fn check(&mut self) {
        let Some(session) = &self.world.nodes[SERVER].session else { return };
        if session.is_early() {
            let held = session.held_bytes();
            let limit = limits::EARLY_WINDOW_BYTES + limits::EARLY_HELD_BYTES_MAX as u64;
            // What its own application has written waits, too.
            let answers: u64 = self.world.nodes[SERVER].app.accepted.len() as u64 * (1 << 15);
            assert!(held <= limit + answers, "{held} bytes held early");
            assert!(self.world.oracle.early_bytes() <= limits::EARLY_WINDOW_BYTES);
        }
    }

    /// The client comes, and something may happen to its lane. Whether it is connected in the end.
    fn come(&mut self, kind: LaneKind, has_faults: bool) -> bool {
        let path = draw_path(&mut self.random);
        self.world.come(kind, path);
        self.was_early = self.world.nodes[CLIENT].session.is_some();
        self.open_some();
        let oracle = &self.world.oracle;
        let is_written = |id: &StreamId| oracle.flows.get(&(*id, Side::Client)).is_some_and(|flow| flow.written > 0);
        self.asked_early = oracle.marked.iter().any(is_written) && !oracle.unsaid.iter().any(is_written);
        let deadline = self.world.now + limits::HANDSHAKE_TIMEOUT;
        loop {
            let pause = milliseconds(self.random.sized(7));
            self.world.run_for(pause);
            self.check();
            let client = &self.world.nodes[CLIENT];
            if client.is_connected() {
                return true;
            }
            if client.closed().is_some() || client.failure.is_some() || self.world.now >= deadline {
                return false;
            }
            if self.random.one_in(3) {
                self.act();
                self.check();
            }
            if has_faults && self.random.one_in(4) {
                let link = self.world.links.len() - 1;
                if !self.world.links[link].is_closed() {
                    let fault = self.random.pick(&Fault::ALL);
                    self.world.harm(link, fault);
                }
            }
        }
    }

    /// More streams, and more faults, until everything has arrived.
    fn go_on(&mut self, has_faults: bool) {
        for _ in 0..self.random.between(0, 6) {
            let pause = milliseconds(self.random.sized(8));
            self.world.run_for(pause);
            self.act();
            let link = self.random.below(self.world.links.len() as u64) as usize;
            if has_faults && !self.world.links[link].is_closed() {
                let fault = self.random.pick(&Fault::ALL);
                self.world.harm(link, fault);
            }
            self.keep_lanes();
        }
        let deadline = self.world.now + REST;
        while !self.world.is_all_read() {
            self.keep_lanes();
            self.world.run_until(milliseconds(300), |world| world.is_all_read());
            assert!(self.world.now < deadline, "stuck: {}", self.world.describe());
        }
        assert!(self.world.nodes.iter().all(|node| node.closed().is_none()), "{}", self.world.describe());
        assert!(self.world.nodes[SERVER].session.as_ref().is_some_and(|session| !session.is_early()));
        for node in &mut self.world.nodes {
            assert_eq!(node.app.writers.len(), 0);
        }
    }

    fn keep_lanes(&mut self) {
        let session = self.world.nodes[CLIENT].session();
        if session.healthy_lane_count() == 0 && !session.is_ending() {
            let path = draw_path(&mut self.random);
            self.world.join(LaneKind::Tcp, path);
        }
    }

    /// One session: whether what came early did so as it had to.
    fn round(&mut self, change: Change, kind: LaneKind, has_faults: bool) {
        self.change(change);
        let index = usize::from(kind == LaneKind::Quic);
        let before = self.server_time();
        // What a server of ours grants over QUIC cannot be less.
        let grants_less = change == Change::GrantsLess && index == 0;
        let is_good = match self.tickets[index] {
            Ticket::Unknown => None,
            Ticket::None => Some(false),
            Ticket::Until(end) => Some(before < end && change != Change::TakesNone && change != Change::Untrusted),
        };
        let used = |world: &World| {
            let counters = world.returning.as_ref().unwrap().server.tickets().counters();
            counters.used.load(Ordering::Relaxed)
        };
        let used_before = used(&self.world);
        let is_connected = self.come(kind, has_faults);
        if change == Change::Untrusted {
            assert!(!is_connected && self.world.oracle.early_bytes() == 0, "{}", self.world.describe());
            let ours = AUTHORITIES.ours.anchors();
            self.returning().server.trust().set("simulation.test", ours).unwrap();
        } else if grants_less && self.was_early {
            assert!(!is_connected, "{}", self.world.describe());
        } else if !has_faults {
            assert!(is_connected, "{change:?} over {kind:?}: {}", self.world.describe());
        }
        if !is_connected {
            self.world.give_up();
            self.check_failure();
            self.tickets[index] = if has_faults { Ticket::Unknown } else { Ticket::None };
            return self.world.part();
        }
        self.go_on(has_faults);
        let early = self.world.oracle.early_bytes();
        let is_resumed = used(&self.world) > used_before;
        if !is_resumed {
            self.lineages[index] = before;
        }
        if !has_faults
            && !grants_less
            && let Some(is_good) = is_good
        {
            assert!(is_good || early == 0, "{change:?} over {kind:?}: {early} bytes came early");
            assert!(!is_good || is_resumed, "{change:?} over {kind:?}: {:?}", self.tickets);
            assert!(!is_good || early > 0 || !self.asked_early, "{change:?} over {kind:?}: nothing came early");
        }
        let end = self.lineages[index] + limits::TICKET_LINEAGE_TIME.as_secs();
        self.tickets[index] = match change {
            _ if has_faults || is_good.is_none() => Ticket::Unknown,
            Change::TakesNone => Ticket::None,
            _ => Ticket::Until(end),
        };
        self.leave();
    }

    /// Nobody has taken a session for one that is connected, and nothing was read that must not be.
    fn check_failure(&mut self) {
        let client = &self.world.nodes[CLIENT];
        if client.session.is_some() {
            let closed = client.closed();
            assert!(matches!(closed, Some(CloseReason::NotAccepted | CloseReason::Fault(_))), "{closed:?}");
        }
        let server = &self.world.nodes[SERVER];
        if let Some(session) = &server.session {
            assert!(!session.is_early() || session.is_ending(), "{}", self.world.describe());
        }
    }

    fn leave(&mut self) {
        let now = self.world.now;
        self.world.nodes[CLIENT].session().close(longhaul::base::CloseCode::NO_ERROR, "", now);
        self.world.run_for(Duration::from_secs(2));
        self.world.part();
    }
}

fn run(seed: u64, has_faults: bool) {
    let mut comebacks = Comebacks::begin(seed);
    for _ in 0..comebacks.random.between(3, 9) {
        let change = match comebacks.random.below(2) {
            0 => Change::Nothing,
            _ => comebacks.random.pick(&Change::ALL),
        };
        let kind = comebacks.random.pick(&[LaneKind::Tcp, LaneKind::Tcp, LaneKind::Unix, LaneKind::Quic]);
        let has_faults = has_faults && !comebacks.random.one_in(3);
        comebacks.round(change, kind, has_faults);
    }
}

#[test]
fn clients_come_back_on_healthy_lanes() {
    for_each_seed("clients_come_back_on_healthy_lanes", |seed| run(seed, false));
}

#[test]
fn clients_come_back_whatever_happens_to_lanes() {
    for_each_seed("clients_come_back_whatever_happens_to_lanes", |seed| run(seed, true));
}
