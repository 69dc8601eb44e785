//! What was seen of each peer's link: totals that never go back, what is there now, and the last minute.
//!
//! Sessions and channels come and go; a link, which here is everything shared with one peer, and the numbers of its
//! channels stay. Both are bounded, so that what is shown has a bounded number of series. Pure: readings and time come
//! in as arguments, single measurements go out to a [`Recorder`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::histogram::{self, Histogram};
use super::windows::{Flow, Latency, Series, WINDOWS, loss_ratio};
use crate::base::{LaneId, SessionId, Side};
use crate::channel::PathStats;
use crate::crypto::identity::NodeId;
use crate::node::SessionReading;
use crate::session::{Blocked, Decisions, LaneKind, LaneState, LaneStats, LimitedBy, Reading};
use crate::stream::{DatagramDrop, DatagramStats};

/// Links that are told apart. A node with more peers shows the others as one, [`OTHER_PEERS`].
pub(super) const PEERS_MAX: usize = 1000;

/// The name under which peers above [`PEERS_MAX`] are counted together.
pub(super) const OTHER_PEERS: &str = "other";

/// Numbers of channels of one link; those above are counted under the last one. A link dials at most 63, and a peer may
/// have a session in each direction.
pub(super) const CHANNELS_MAX: u32 = 128;

/// Takes single measurements, for histograms.
pub(super) trait Recorder {
    /// A round trip, as the session measured it.
    fn on_round_trip(&mut self, peer: &str, channel: u32, kind: LaneKind, time: Duration);
    /// A round trip, as the transport measured it.
    fn on_path_round_trip(&mut self, peer: &str, channel: u32, kind: LaneKind, time: Duration);
    /// How long a peer kept an acknowledgement back.
    fn on_ack_delay(&mut self, peer: &str, time: Duration);
    /// How long bytes waited before they were sent.
    fn on_queue_delay(&mut self, peer: &str, time: Duration);
    /// An outage is over. Survived: a channel came back before the session was given up.
    fn on_outage(&mut self, peer: &str, time: Duration, is_survived: bool);
    /// The loss of a window that has just ended.
    fn on_loss(&mut self, peer: &str, window: &'static str, ratio: f64);
}

/// Everything that was seen.
#[derive(Debug)]
pub(super) struct State {
    /// By peer.
    pub(super) links: BTreeMap<String, Link>,
    pub(super) total: Series,
    pub(super) samples_dropped: u64,
    sessions: HashMap<SessionId, Known>,
    /// Those of the last readings, early ones included.
    living: HashSet<SessionId>,
    /// Since the last tick.
    pending: (Flow, Latency),
    tick_count: u64,
}

/// A session that is over.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub(super) id: SessionId,
    pub(super) peer: &'a NodeId,
    /// The last one.
    pub(super) reading: &'a Reading,
    pub(super) reason: &'static str,
    /// How long no channel had worked, if it ended in an outage.
    pub(super) outage: Option<Duration>,
}

/// What is shared with one peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) series: Series,
    pub(super) totals: Flow,
    pub(super) channels: BTreeMap<u32, Channel>,
    pub(super) decisions: Decisions,
    pub(super) blocked: Blocked,
    pub(super) throttled: [Duration; LimitedBy::ALL.len()],
    pub(super) datagrams: Datagrams,
    pub(super) outages_survived: u64,
    pub(super) outages_fatal: u64,
    pub(super) lanes_ended: BTreeMap<(LaneKind, &'static str), u64>,
    pub(super) sessions_ended: BTreeMap<&'static str, u64>,
    pub(super) latency: Histogram,
    pub(super) loss: Histogram,
    pub(super) now: Now,
    pending: (Flow, Latency),
    /// What moved since the window began, for each window.
    windows: [Flow; WINDOWS.len()],
}

/// What is there at this moment, all sessions of a link together.
#[derive(Clone, Debug, Default)]
pub(super) struct Now {
    pub(super) sessions: Vec<SessionId>,
    pub(super) dialled_count: u32,
    pub(super) stream_count: u64,
    pub(super) unsent_bytes: u64,
    pub(super) held_bytes: u64,
    /// How long no channel has worked, if none does.
    pub(super) outage: Option<Duration>,
    /// Steps of the traffic keys, of the newest session.
    pub(super) epoch: u32,
}

/// A numbered place for a channel. The number is used again for another one.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) series: Series,
    /// Totals of all channels that had the number, by what carried them.
    pub(super) totals: BTreeMap<LaneKind, Flow>,
    pub(super) now: Option<Living>,
    owner: Option<(SessionId, LaneId)>,
    pending: (Flow, Latency),
}

/// The channel that has the number.
#[derive(Clone, Debug)]
pub(super) struct Living {
    pub(super) session: SessionId,
    pub(super) lane: LaneId,
    pub(super) kind: LaneKind,
    pub(super) state: LaneState,
    pub(super) lane_count: u32,
    pub(super) round_trip: Option<Duration>,
    pub(super) in_flight_bytes: u64,
    pub(super) bytes_per_second: Option<f64>,
    pub(super) path: Option<PathStats>,
}

/// Datagrams of a link, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Datagrams {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) dropped: [u64; DatagramDrop::ALL.len()],
}

/// What was read of a session last, to find what was added since.
#[derive(Debug, Default)]
struct Known {
    lanes: HashMap<LaneId, Flow>,
    paths: HashMap<LaneId, Flow>,
    numbers: HashMap<LaneId, u32>,
    decisions: Decisions,
    blocked: Blocked,
    throttled: [Duration; LimitedBy::ALL.len()],
    datagrams: Datagrams,
    has_ended: bool,
}

impl State {
    /// Nothing seen yet.
    #[must_use]
    pub(super) fn new(now: Instant) -> Self {
        Self {
            links: BTreeMap::new(),
            total: Series::new(now),
            samples_dropped: 0,
            sessions: HashMap::new(),
            living: HashSet::new(),
            pending: Default::default(),
            tick_count: 0,
        }
    }

    /// Takes readings of all sessions that live.
    pub(super) fn on_readings(&mut self, readings: Vec<SessionReading>, now: Instant, recorder: &mut dyn Recorder) {
        for link in self.links.values_mut() {
            link.now = Now::default();
            link.channels.values_mut().for_each(|channel| channel.now = None);
        }
        self.living = readings.iter().map(|reading| reading.id).collect();
        for reading in readings {
            self.on_reading(reading, now, recorder);
        }
    }

    fn on_reading(&mut self, session: SessionReading, now: Instant, recorder: &mut dyn Recorder) {
        let SessionReading { id, peer, side, is_connected, outage, reading, paths } = session;
        let peer = self.peer_name(&peer);
        self.count(id, &peer, &reading, &paths, now, recorder);
        let Some(known) = self.sessions.get(&id).filter(|known| !known.has_ended) else { return };
        let Some(link) = self.links.get_mut(&peer) else { return };
        // An early one may yet be refused.
        if is_connected {
            link.now.sessions.push(id);
            link.now.dialled_count += u32::from(side == Side::Client);
            // With two sessions, the link is up when one of them is.
            link.now.outage = match link.now.sessions.len() {
                1 => outage,
                _ => link.now.outage.and_then(|first| Some(first.min(outage?))),
            };
        }
        link.now.stream_count += reading.stream_count as u64;
        link.now.unsent_bytes += reading.unsent_bytes;
        link.now.held_bytes += reading.held_bytes;
        link.now.epoch = reading.epoch;
        let mut paths: HashMap<_, _> = paths.into_iter().collect();
        for lane in reading.lanes.iter().filter(|lane| lane.state != LaneState::Dead) {
            let Some(number) = known.numbers.get(&lane.channel) else { continue };
            let Some(channel) = link.channels.get_mut(number) else { continue };
            channel.look(id, lane, &mut paths);
        }
    }

    /// A session is over: its last reading.
    pub(super) fn on_session_ended(&mut self, ended: &Ended<'_>, now: Instant, recorder: &mut dyn Recorder) {
        let Ended { id, reading, reason, outage, .. } = *ended;
        let peer = self.peer_name(ended.peer);
        self.count(id, &peer, reading, &[], now, recorder);
        if let Some(known) = self.sessions.get_mut(&id) {
            known.has_ended = true;
        }
        let link = self.link(&peer, now);
        *link.sessions_ended.entry(reason).or_default() += 1;
        if let Some(outage) = outage {
            link.outages_fatal += 1;
            recorder.on_outage(&peer, outage, false);
        }
    }

    /// A lane is over.
    pub(super) fn on_lane_ended(&mut self, peer: &NodeId, kind: LaneKind, reason: &'static str, now: Instant) {
        let peer = self.peer_name(peer);
        *self.link(&peer, now).lanes_ended.entry((kind, reason)).or_default() += 1;
    }

    /// Ends a tick: what was added since the last one goes into the windows.
    pub(super) fn on_tick(&mut self, now: Instant, recorder: &mut dyn Recorder) {
        self.tick_count += 1;
        let (flow, latency) = std::mem::take(&mut self.pending);
        self.total.on_tick(now, flow, latency);
        for (peer, link) in &mut self.links {
            let (flow, latency) = std::mem::take(&mut link.pending);
            link.series.on_tick(now, flow, latency);
            for (window, moved) in WINDOWS.iter().zip(&mut link.windows) {
                moved.add(&flow);
                if self.tick_count.is_multiple_of(window.seconds) {
                    if let Some(ratio) = loss_ratio(moved) {
                        recorder.on_loss(peer, window.name, ratio);
                        if window.seconds == LOSS_SHOWN_SECONDS {
                            link.loss.record(ratio);
                        }
                    }
                    *moved = Flow::default();
                }
            }
            for channel in link.channels.values_mut() {
                let (flow, latency) = std::mem::take(&mut channel.pending);
                channel.series.on_tick(now, flow, latency);
            }
        }
        let living = &self.living;
        // One that has ended is remembered until no reading can be under way that still has it.
        self.sessions.retain(|id, known| living.contains(id) || !std::mem::replace(&mut known.has_ended, true));
    }

    /// Adds what a session has counted since it was read last.
    fn count(
        &mut self,
        id: SessionId,
        peer: &str,
        reading: &Reading,
        paths: &[(LaneId, PathStats)],
        now: Instant,
        recorder: &mut dyn Recorder,
    ) {
        self.link(peer, now);
        let Some(link) = self.links.get_mut(peer) else { return };
        let known = self.sessions.entry(id).or_default();
        // What was read before the end of the session was told, and comes after it.
        if known.has_ended {
            return;
        }
        known.assign(id, link, reading, now);
        let mut moved = (Flow::default(), Latency::default());
        for lane in &reading.lanes {
            let total = flow_of(lane);
            let before = known.lanes.insert(lane.id, total).unwrap_or_default();
            let Some(number) = known.numbers.get(&lane.channel) else { continue };
            link.channel(*number, now).add(lane.kind, &total.since(&before));
            moved.0.add(&total.since(&before));
        }
        for (id, path) in paths {
            let Some(number) = known.numbers.get(id) else { continue };
            let Some(kind) = reading.lanes.iter().find(|lane| lane.id == *id).map(|lane| lane.kind) else { continue };
            let total = Flow {
                transport_packets_sent: path.packets_sent,
                transport_packets_lost: path.packets_lost,
                retransmitted_bytes: path.bytes_lost,
                ..Flow::default()
            };
            let before = known.paths.insert(*id, total).unwrap_or_default();
            link.channel(*number, now).add(kind, &total.since(&before));
            moved.0.add(&total.since(&before));
            let is_told_singly = !path.round_trips.is_empty();
            let smoothed = (!is_told_singly && kind != LaneKind::Quic).then_some(path.round_trip);
            for time in path.round_trips.iter().copied().chain(smoothed) {
                recorder.on_path_round_trip(peer, *number, kind, time);
            }
        }
        for (channel, kind, time) in &reading.samples.round_trips {
            let number = known.numbers.get(channel).copied().unwrap_or(CHANNELS_MAX - 1);
            recorder.on_round_trip(peer, number, *kind, *time);
            link.channel(number, now).pending.1.on_sample(*time);
            link.latency.record(time.as_secs_f64());
            moved.1.on_sample(*time);
        }
        reading.samples.ack_delays.iter().for_each(|time| recorder.on_ack_delay(peer, *time));
        reading.samples.queue_delays.iter().for_each(|time| recorder.on_queue_delay(peer, *time));
        for time in &reading.samples.outages {
            link.outages_survived += 1;
            recorder.on_outage(peer, *time, true);
        }
        known.count_events(link, reading);
        known.release(id, link, reading);
        link.totals.add(&moved.0);
        link.pending.0.add(&moved.0);
        link.pending.1.add(&moved.1);
        self.pending.0.add(&moved.0);
        self.pending.1.add(&moved.1);
        self.samples_dropped += reading.samples.dropped;
    }

    /// The name of a peer's link: that of the node, or the common one of those that are too many.
    pub(super) fn peer_name(&self, peer: &NodeId) -> String {
        let name = peer.to_string();
        if self.links.contains_key(&name) || self.links.len() < PEERS_MAX { name } else { OTHER_PEERS.to_owned() }
    }

    fn link(&mut self, peer: &str, now: Instant) -> &mut Link {
        self.links.entry(peer.to_owned()).or_insert_with(|| Link::new(now))
    }
}

impl Link {
    fn new(now: Instant) -> Self {
        Self {
            series: Series::new(now),
            totals: Flow::default(),
            channels: BTreeMap::new(),
            decisions: Decisions::default(),
            blocked: Blocked::default(),
            throttled: Default::default(),
            datagrams: Datagrams::default(),
            outages_survived: 0,
            outages_fatal: 0,
            lanes_ended: BTreeMap::new(),
            sessions_ended: BTreeMap::new(),
            latency: Histogram::new(&histogram::SECONDS),
            loss: Histogram::new(&histogram::RATIO),
            now: Now::default(),
            pending: Default::default(),
            windows: Default::default(),
        }
    }

    fn channel(&mut self, number: u32, now: Instant) -> &mut Channel {
        self.channels.entry(number).or_insert_with(|| Channel {
            series: Series::new(now),
            totals: BTreeMap::new(),
            now: None,
            owner: None,
            pending: Default::default(),
        })
    }

    /// The lowest number that no channel has; the last one is shared by all that are too many.
    fn free_number(&self) -> u32 {
        let is_free = |number: &u32| self.channels.get(number).is_none_or(|channel| channel.owner.is_none());
        (0..CHANNELS_MAX - 1).find(is_free).unwrap_or(CHANNELS_MAX - 1)
    }
}

impl Channel {
    fn add(&mut self, kind: LaneKind, flow: &Flow) {
        self.totals.entry(kind).or_default().add(flow);
        self.pending.0.add(flow);
    }

    /// Notes how a lane of the channel is doing. Lanes of one channel are shown together.
    fn look(&mut self, session: SessionId, lane: &LaneStats, paths: &mut HashMap<LaneId, PathStats>) {
        let living = self.now.get_or_insert(Living {
            session,
            lane: lane.channel,
            kind: lane.kind,
            state: lane.state,
            lane_count: 0,
            round_trip: None,
            in_flight_bytes: 0,
            bytes_per_second: None,
            path: None,
        });
        living.lane_count += 1;
        living.in_flight_bytes += lane.in_flight_bytes;
        living.round_trip = living.round_trip.into_iter().chain(lane.round_trip).min();
        living.bytes_per_second = living.bytes_per_second.or(lane.bytes_per_second);
        if rank(lane.state) < rank(living.state) {
            living.state = lane.state;
        }
        if let Some(path) = paths.remove(&lane.id) {
            living.path = Some(path);
        }
    }
}

impl Living {
    /// Bytes a second that it delivered of late: by the transport where it tells, by the session otherwise.
    pub(super) fn delivery_rate(&self) -> Option<f64> {
        let told = self.path.as_ref().and_then(|path| path.delivery_rate);
        told.map(|rate| rate as f64).or(self.bytes_per_second)
    }
}

impl Known {
    /// Gives each channel a number that no other one has. One that died between two readings gets one all the same, for
    /// what it carried.
    fn assign(&mut self, id: SessionId, link: &mut Link, reading: &Reading, now: Instant) {
        for lane in &reading.lanes {
            let is_unknown = lane.state != LaneState::Dead || !self.lanes.contains_key(&lane.id);
            if is_unknown && !self.numbers.contains_key(&lane.channel) {
                let number = link.free_number();
                self.numbers.insert(lane.channel, number);
                link.channel(number, now).owner = Some((id, lane.channel));
            }
        }
    }

    /// Gives back the numbers of channels that are over. What comes late is still counted under them.
    fn release(&mut self, id: SessionId, link: &mut Link, reading: &Reading) {
        let lives = |of: LaneId| reading.lanes.iter().any(|lane| lane.channel == of && lane.state != LaneState::Dead);
        for channel in link.channels.values_mut() {
            channel.owner.take_if(|(session, lane)| *session == id && !lives(*lane));
        }
        let is_there = |id: &LaneId| reading.lanes.iter().any(|lane| lane.id == *id);
        self.lanes.retain(|id, _| is_there(id));
        self.paths.retain(|id, _| is_there(id));
        self.numbers.retain(|of, _| reading.lanes.iter().any(|lane| lane.channel == *of));
    }

    /// Adds what the session decided and met.
    fn count_events(&mut self, link: &mut Link, reading: &Reading) {
        let (now, before) = (reading.decisions, std::mem::replace(&mut self.decisions, reading.decisions));
        link.decisions.taken += now.taken - before.taken;
        link.decisions.passed_on += now.passed_on - before.passed_on;
        link.decisions.held_back += now.held_back - before.held_back;
        link.decisions.copied += now.copied - before.copied;
        let (now, before) = (reading.blocked, std::mem::replace(&mut self.blocked, reading.blocked));
        link.blocked.session += now.session - before.session;
        link.blocked.stream += now.stream - before.stream;
        link.blocked.stream_count += now.stream_count - before.stream_count;
        let before = std::mem::replace(&mut self.throttled, reading.throttled);
        for (total, (now, before)) in link.throttled.iter_mut().zip(reading.throttled.into_iter().zip(before)) {
            *total += now - before;
        }
        let now = Datagrams::of(&reading.datagrams);
        let before = std::mem::replace(&mut self.datagrams, now);
        link.datagrams.sent += now.sent - before.sent;
        link.datagrams.received += now.received - before.received;
        for (reason, total) in link.datagrams.dropped.iter_mut().enumerate() {
            *total += now.dropped[reason] - before.dropped[reason];
        }
    }
}

impl Datagrams {
    fn of(stats: &DatagramStats) -> Self {
        Self { sent: stats.sent, received: stats.received, dropped: DatagramDrop::ALL.map(|drop| stats.dropped(drop)) }
    }
}

fn flow_of(lane: &LaneStats) -> Flow {
    Flow {
        bytes_sent: lane.bytes_sent,
        bytes_received: lane.bytes_received,
        packets_sent: lane.packets_sent,
        packets_received: lane.packets_received,
        fragments_sent: lane.fragments_sent,
        fragments_received: lane.fragments_received,
        padding_bytes: lane.padding_bytes,
        reinjected_bytes: lane.reinjected_bytes,
        ..Flow::default()
    }
}

/// The best state of its lanes is that of a channel.
fn rank(state: LaneState) -> u8 {
    match state {
        LaneState::Active => 0,
        LaneState::Joining => 1,
        LaneState::Suspect => 2,
        LaneState::Dead => 3,
    }
}

/// The window whose loss is shown as a distribution without a metrics system: long enough that a share means something.
const LOSS_SHOWN_SECONDS: u64 = 5;

#[cfg(test)]
mod tests;
