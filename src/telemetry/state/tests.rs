//! Sessions and channels come and go; totals, numbers and windows stay right. Virtual time.

use super::*;
use crate::session::Samples;

/// Notes what histograms would get.
#[derive(Debug, Default)]
struct Noted(Vec<String>);

impl Recorder for Noted {
    fn on_round_trip(&mut self, peer: &str, channel: u32, kind: LaneKind, time: Duration) {
        self.0.push(format!("rtt {} {channel} {} {}", short(peer), kind.as_str(), time.as_millis()));
    }

    fn on_path_round_trip(&mut self, peer: &str, channel: u32, kind: LaneKind, time: Duration) {
        self.0.push(format!("path {} {channel} {} {}", short(peer), kind.as_str(), time.as_millis()));
    }

    fn on_ack_delay(&mut self, _peer: &str, time: Duration) {
        self.0.push(format!("ack {}", time.as_millis()));
    }

    fn on_queue_delay(&mut self, _peer: &str, time: Duration) {
        self.0.push(format!("queue {}", time.as_millis()));
    }

    fn on_outage(&mut self, _peer: &str, time: Duration, is_survived: bool) {
        self.0.push(format!("outage {} {is_survived}", time.as_millis()));
    }

    fn on_loss(&mut self, _peer: &str, window: &'static str, ratio: f64) {
        self.0.push(format!("loss {window} {ratio}"));
    }
}

fn short(peer: &str) -> &str {
    peer.rsplit('/').next().unwrap_or_default()
}

const A: SessionId = SessionId([1; 16]);
const B: SessionId = SessionId([2; 16]);
const PEER: &str = "spiffe://example/node/dc-b";

fn peer() -> NodeId {
    PEER.parse().unwrap()
}

fn lane(id: u32, bytes: u64, state: LaneState) -> LaneStats {
    LaneStats {
        id: LaneId(id),
        channel: LaneId(id),
        kind: LaneKind::Tcp,
        state,
        round_trip: None,
        round_trip_min: None,
        round_trip_latest: Duration::ZERO,
        bytes_per_second: None,
        in_flight_bytes: 0,
        packets_sent: bytes / 100,
        packets_received: 0,
        bytes_sent: bytes,
        bytes_received: 0,
        fragments_sent: 0,
        fragments_received: 0,
        padding_bytes: 0,
        reinjected_bytes: 0,
    }
}

fn reading(lanes: Vec<LaneStats>) -> Reading {
    Reading {
        lanes,
        stream_count: 1,
        unsent_bytes: 0,
        held_bytes: 0,
        lanes_lost: 0,
        epoch: 0,
        datagrams: DatagramStats::default(),
        decisions: Decisions::default(),
        blocked: Blocked::default(),
        throttled: Default::default(),
        samples: Samples::default(),
    }
}

fn session(id: SessionId, reading: Reading) -> SessionReading {
    SessionReading {
        id,
        peer: peer(),
        side: Side::Client,
        is_connected: true,
        outage: None,
        reading,
        paths: Vec::new(),
    }
}

/// A state whose clock moves by ticks.
struct World {
    state: State,
    noted: Noted,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self { state: State::new(now), noted: Noted::default(), now }
    }

    fn tick(&mut self, readings: Vec<SessionReading>) {
        self.now += Duration::from_secs(1);
        self.state.on_readings(readings, self.now, &mut self.noted);
        self.state.on_tick(self.now, &mut self.noted);
    }

    fn end(&mut self, id: SessionId, lanes: Vec<LaneStats>) {
        let reading = reading(lanes);
        let ended = Ended { id, peer: &peer(), reading: &reading, reason: "local", outage: None };
        self.state.on_session_ended(&ended, self.now, &mut self.noted);
    }

    fn link(&self) -> &Link {
        &self.state.links[PEER]
    }

    fn numbers(&self) -> Vec<(u32, u64)> {
        let channels = self.link().channels.iter();
        channels.map(|(number, channel)| (*number, channel.totals[&LaneKind::Tcp].bytes_sent)).collect()
    }
}

#[test]
fn totals_go_on_over_sessions_and_count_to_the_last_byte() {
    let mut world = World::new();
    world.tick(vec![session(A, reading(vec![lane(0, 1000, LaneState::Active)]))]);
    world.tick(vec![session(A, reading(vec![lane(0, 1500, LaneState::Active)]))]);
    world.end(A, vec![lane(0, 1700, LaneState::Dead)]);
    world.tick(vec![]);
    world.tick(vec![session(B, reading(vec![lane(0, 300, LaneState::Active)]))]);
    assert_eq!(world.link().totals.bytes_sent, 2000);
    assert_eq!(world.link().sessions_ended["local"], 1);
    assert_eq!(world.link().now.sessions, [B]);
    assert_eq!(world.state.total.window(WINDOWS[1]).packets_sent, 20);
}

#[test]
fn a_reading_from_before_the_end_adds_nothing_after_it() {
    let mut world = World::new();
    world.tick(vec![session(A, reading(vec![lane(0, 1000, LaneState::Active)]))]);
    world.end(A, vec![lane(0, 1700, LaneState::Dead)]);
    world.tick(vec![session(A, reading(vec![lane(0, 1600, LaneState::Active)]))]);
    assert_eq!(world.link().totals.bytes_sent, 1700);
    assert!(world.link().now.sessions.is_empty(), "it is over");
    world.tick(vec![]);
    world.tick(vec![]);
    assert!(world.state.sessions.is_empty(), "and forgotten");
}

#[test]
fn a_session_counts_from_before_it_is_connected() {
    let mut world = World::new();
    let early =
        |bytes| SessionReading { is_connected: false, ..session(A, reading(vec![lane(0, bytes, LaneState::Active)])) };
    world.tick(vec![early(100)]);
    world.tick(vec![early(200)]);
    assert!(world.link().now.sessions.is_empty(), "it may yet be refused");
    world.tick(vec![session(A, reading(vec![lane(0, 300, LaneState::Active)]))]);
    world.tick(vec![session(A, reading(vec![lane(0, 400, LaneState::Active)]))]);
    assert_eq!((world.link().totals.bytes_sent, &world.link().now.sessions[..]), (400, &[A][..]));
}

#[test]
fn numbers_of_dead_channels_are_used_again() {
    let mut world = World::new();
    let living = |id, bytes| lane(id, bytes, LaneState::Active);
    world.tick(vec![session(A, reading(vec![living(0, 100), living(1, 10)]))]);
    let dead = lane(0, 150, LaneState::Dead);
    world.tick(vec![session(A, reading(vec![dead.clone(), living(1, 20)]))]);
    assert_eq!(world.numbers(), [(0, 150), (1, 20)]);
    world.tick(vec![session(A, reading(vec![dead.clone(), living(1, 30), living(7, 5)]))]);
    assert_eq!(world.numbers(), [(0, 155), (1, 30)], "lane 7 has the number that lane 0 had");
    world.tick(vec![session(A, reading(vec![living(1, 30), living(7, 5)]))]);
    assert_eq!(world.numbers(), [(0, 155), (1, 30)], "the dead one is forgotten");
}

#[test]
fn a_channel_that_died_between_two_readings_is_counted() {
    let mut world = World::new();
    world.tick(vec![session(A, reading(vec![lane(0, 100, LaneState::Active), lane(3, 40, LaneState::Dead)]))]);
    assert_eq!(world.link().totals.bytes_sent, 140);
    assert_eq!(world.link().channels.values().filter(|channel| channel.now.is_some()).count(), 1);
}

#[test]
fn numbers_are_bounded() {
    let mut world = World::new();
    let lanes = (0..CHANNELS_MAX + 50).map(|id| lane(id, 100, LaneState::Active)).collect();
    world.tick(vec![session(A, reading(lanes))]);
    assert_eq!(world.link().channels.len(), CHANNELS_MAX as usize);
    assert_eq!(world.numbers().last(), Some(&(CHANNELS_MAX - 1, 5100)));
}

#[test]
fn peers_are_bounded() {
    let mut world = World::new();
    for number in 0..PEERS_MAX + 5 {
        let id = SessionId([number as u8; 16].map(|byte| byte ^ (number >> 8) as u8));
        let id = SessionId(std::array::from_fn(|at| if at == 0 { (number >> 8) as u8 } else { id.0[at] }));
        let peer = format!("spiffe://example/node/n{number}").parse().unwrap();
        let reading = SessionReading { peer, ..session(id, reading(vec![lane(0, 100, LaneState::Active)])) };
        world.tick(vec![reading]);
    }
    assert_eq!(world.state.links.len(), PEERS_MAX + 1);
    assert_eq!(world.state.links[OTHER_PEERS].totals.bytes_sent, 500);
}

#[test]
fn lanes_of_one_channel_are_one_channel() {
    let mut world = World::new();
    let lanes = (0..4).map(|id| LaneStats {
        channel: LaneId(0),
        kind: LaneKind::Quic,
        ..lane(id, 100, if id == 0 { LaneState::Suspect } else { LaneState::Active })
    });
    world.tick(vec![session(A, reading(lanes.collect()))]);
    let channel = &world.link().channels[&0];
    assert_eq!(channel.totals[&LaneKind::Quic].bytes_sent, 400);
    let living = channel.now.as_ref().unwrap();
    assert_eq!((living.lane_count, living.state), (4, LaneState::Active));
}

#[test]
fn transports_tell_of_loss_and_round_trips() {
    let mut world = World::new();
    let path = |sent, lost| PathStats {
        packets_sent: sent,
        packets_lost: lost,
        bytes_lost: lost * 1000,
        round_trip: Duration::from_millis(30),
        ..PathStats::default()
    };
    for second in 1..=5 {
        let mut reading = session(A, reading(vec![lane(0, 100, LaneState::Active)]));
        reading.paths = vec![(LaneId(0), path(second * 100, second * 2))];
        world.tick(vec![reading]);
    }
    assert_eq!(world.link().totals.transport_packets_lost, 10);
    assert_eq!(world.link().series.window(WINDOWS[1]).loss_ratio, Some(0.02));
    assert_eq!(world.link().loss.counts.iter().sum::<u64>(), 1);
    let told = |what: &str| world.noted.0.iter().filter(|line| *line == what).count();
    assert_eq!((told("loss 1s 0.02"), told("loss 5s 0.02"), told("path dc-b 0 tcp 30")), (5, 1, 5));
}

#[test]
fn samples_reach_histograms_windows_and_links() {
    let mut world = World::new();
    let mut one = reading(vec![lane(0, 100, LaneState::Active)]);
    one.samples = Samples {
        round_trips: vec![(LaneId(0), LaneKind::Tcp, Duration::from_millis(40))],
        ack_delays: vec![Duration::from_millis(25)],
        queue_delays: vec![Duration::from_millis(3)],
        outages: vec![Duration::from_millis(700)],
        dropped: 2,
    };
    world.tick(vec![session(A, one)]);
    assert_eq!(world.noted.0, ["rtt dc-b 0 tcp 40", "ack 25", "queue 3", "outage 700 true"]);
    assert_eq!((world.link().outages_survived, world.state.samples_dropped), (1, 2));
    assert_eq!(world.link().series.window(WINDOWS[0]).latency_mean_seconds, Some(0.04));
    assert_eq!(world.link().latency.counts[7], 1, "above 30 ms, at most 45 ms");
}

#[test]
fn a_link_with_two_sessions_is_out_only_when_both_are() {
    let mut world = World::new();
    let out = |id| SessionReading { outage: Some(Duration::from_secs(9)), ..session(id, reading(vec![])) };
    world.tick(vec![out(A), session(B, reading(vec![]))]);
    assert_eq!(world.link().now.outage, None);
    world.tick(vec![out(A), out(B)]);
    assert_eq!(world.link().now.outage, Some(Duration::from_secs(9)));
    world.end(A, vec![]);
    assert_eq!(world.link().outages_fatal, 0);
}
