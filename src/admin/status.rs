//! `/status`: everything about a node at one moment, as JSON, and whether it is ready. `docs/reference/admin.md` has
//! every field; what is there is only added to within one [`VERSION`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Control;
use super::monitor::{DeadChannel, Monitor, now_unix_ms};
use super::targets::{self, TargetStatus};
use crate::base::Side;
use crate::config::LinkConfig;
use crate::node::{Bandwidth, BandwidthLimits, DatagramDrop, LimitedBy, Link, Session, SessionStats};
use crate::service::{Counters, DatagramLoss, Refusal, Service, ServicesCounters};
use crate::session::{LaneKind, LaneState};

/// The version of the JSON: another one when a field changes its meaning or goes.
pub(super) const VERSION: u32 = 1;

/// A status, the state of the authority, and what telemetry has measured.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    #[serde(flatten)]
    pub(super) status: Status,
    pub(super) authority: Option<serde_json::Value>,
    pub(super) measurements: Option<serde_json::Value>,
}

#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: u32,
    time_unix_ms: u64,
    ready: bool,
    not_ready: Vec<String>,
    node: Node,
    bandwidth_limits: BandwidthStatus,
    certificate: Certificate,
    listeners: Vec<String>,
    links: Vec<LinkStatus>,
    sessions: Vec<SessionStatus>,
    dead_channels: Vec<DeadChannel>,
    services: Vec<ServiceStatus>,
    refused_without_service: BTreeMap<&'static str, u64>,
    forwards: Vec<ForwardStatus>,
}

#[derive(Debug, Serialize)]
struct Node {
    id: String,
    name: String,
    software: &'static str,
    uptime_seconds: u64,
    memory_max_bytes: u64,
    /// Whether the keys of sessions are written to a file.
    key_log: bool,
}

/// Limits in bytes a second; `null` for none.
#[derive(Debug, Serialize)]
struct BandwidthStatus {
    node: Option<u64>,
    each_peer: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    not_before_unix: u64,
    not_after_unix: u64,
    anchors_not_after_unix: u64,
}

#[derive(Debug, Serialize)]
struct LinkStatus {
    peer: String,
    required: bool,
    /// `up`, `outage` (a session whose channels are all gone), or `down`.
    state: &'static str,
    session: Option<String>,
    addresses: Vec<String>,
    channels_wanted: u32,
    channels_up: usize,
    scheduler: String,
    padding: String,
    bandwidth_limit: Option<u64>,
    failed_attempts: u32,
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct SessionStatus {
    id: String,
    peer: String,
    side: &'static str,
    connected: bool,
    peer_certificate_not_after_unix: u64,
    streams: usize,
    unsent_bytes: u64,
    /// What this node sends to the peer at most, over all sessions.
    peer_bandwidth_limit: Option<u64>,
    /// How long data waited for a limit, by limit.
    throttled_seconds: BTreeMap<&'static str, f64>,
    round_trip_ms: Option<f64>,
    packets_sent: u64,
    packets_received: u64,
    bytes_sent: u64,
    bytes_received: u64,
    padding_bytes: u64,
    reinjected_bytes: u64,
    channels_lost: u64,
    key_epoch: u32,
    datagrams_sent: u64,
    datagrams_received: u64,
    datagrams_dropped: BTreeMap<&'static str, u64>,
    channels: Vec<Channel>,
}

/// A channel at one moment; sums over its lanes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Channel {
    pub(super) id: u32,
    pub(super) kind: &'static str,
    /// `joining`, `active`, `suspect` or `dead`.
    pub(super) state: &'static str,
    lanes: u32,
    pub(super) round_trip_ms: Option<f64>,
    round_trip_min_ms: Option<f64>,
    round_trip_latest_ms: f64,
    /// What it delivers, as far as it was asked to.
    bytes_per_second: Option<f64>,
    in_flight_bytes: u64,
    packets_sent: u64,
    packets_received: u64,
    bytes_sent: u64,
    bytes_received: u64,
    padding_bytes: u64,
    reinjected_bytes: u64,
}

#[derive(Debug, Serialize)]
struct ServiceStatus {
    name: String,
    target: String,
    strategy: &'static str,
    required: bool,
    targets: Vec<TargetStatus>,
    open: u32,
    bandwidth_limit: Option<u64>,
    /// How long connections waited for the limit, all together: towards peers, and from them.
    throttled_seconds: [f64; 2],
    #[serde(flatten)]
    counters: CountersStatus,
}

#[derive(Debug, Serialize)]
struct ForwardStatus {
    listen: String,
    peer: String,
    service: String,
    open: u32,
    bandwidth_limit: Option<u64>,
    /// How long connections waited for the limit, all together: towards peers, and from them.
    throttled_seconds: [f64; 2],
    #[serde(flatten)]
    counters: CountersStatus,
}

#[derive(Debug, Serialize)]
struct CountersStatus {
    connections: u64,
    bytes_to_peer: u64,
    bytes_from_peer: u64,
    datagrams_to_peer: u64,
    datagrams_from_peer: u64,
    refused: BTreeMap<&'static str, u64>,
    datagrams_lost: BTreeMap<&'static str, u64>,
}

impl Channel {
    /// What rates are made of: bytes sent, received, and sent again.
    pub(super) fn totals(&self) -> [u64; 3] {
        [self.bytes_sent, self.bytes_received, self.reinjected_bytes]
    }
}

/// Everything at this moment.
pub(super) fn status<C: Control>(control: &C, monitor: &Monitor, started: Instant) -> Status {
    let (config, gateway) = (control.config(), control.gateway());
    let (node, identity) = (gateway.node(), &config.identity);
    let not_ready = not_ready(control);
    let links = gateway.links();
    let link = |config| {
        let link = links.iter().find(|link| link.peer() == &LinkConfig::clone(config).peer);
        link_status(config, link)
    };
    let mut services: Vec<_> = gateway.services().all();
    let limits = node.bandwidth_limits();
    services.sort_by(|a, b| a.config().name.cmp(&b.config().name));
    Status {
        version: VERSION,
        time_unix_ms: now_unix_ms(),
        ready: not_ready.is_empty(),
        not_ready,
        node: Node {
            id: node.id().to_string(),
            name: node.id().name().to_owned(),
            software: env!("CARGO_PKG_VERSION"),
            uptime_seconds: started.elapsed().as_secs(),
            memory_max_bytes: config.node.memory_bytes_max,
            key_log: config.key_log_file.is_some(),
        },
        bandwidth_limits: BandwidthStatus {
            node: limits.node.map(Bandwidth::bytes_per_second),
            each_peer: limits.each_peer.map(Bandwidth::bytes_per_second),
        },
        certificate: Certificate {
            not_before_unix: identity.identity.not_before_unix(),
            not_after_unix: identity.identity.not_after_unix(),
            anchors_not_after_unix: identity.anchors.not_after_unix(),
        },
        listeners: node.local_addresses().iter().map(ToString::to_string).collect(),
        links: config.links.iter().map(link).collect(),
        sessions: sessions(&gateway.peers().all(), &limits),
        dead_channels: monitor.dead_channels(),
        services: services.iter().map(|service| service_status(service)).collect(),
        refused_without_service: refused(gateway.services().counters()),
        forwards: gateway
            .forwards()
            .iter()
            .map(|forward| ForwardStatus {
                listen: forward.local_address().to_string(),
                peer: forward.config().peer.name().to_owned(),
                service: forward.config().service.clone(),
                open: forward.open_connections(),
                bandwidth_limit: forward.config().bandwidth_limit.map(Bandwidth::bytes_per_second),
                throttled_seconds: forward.throttled().map(|time| time.as_secs_f64()),
                counters: counters(forward.counters()),
            })
            .collect(),
    }
}

/// Why the node is not ready: that it ends, every link that is required and has no channel that works, and every service
/// that is required and has no target that is known to work.
pub(super) fn not_ready<C: Control>(control: &C) -> Vec<String> {
    let (config, links) = (control.config(), control.gateway().links());
    let required = config.links.iter().filter(|link| link.required);
    let reason = |config: &LinkConfig| {
        let link = links.iter().find(|link| *link.peer() == config.peer);
        match link_state(link) {
            ("up", _) => None,
            ("outage", _) => Some(format!("link {}: no channel works", config.peer.name())),
            _ => Some(format!("link {} is down", config.peer.name())),
        }
    };
    let stopping = control.is_stopping().then(|| "the node is shutting down".to_owned());
    let services = targets::not_ready(control.gateway().services());
    stopping.into_iter().chain(required.filter_map(reason)).chain(services).collect()
}

/// How a link is doing, and its session.
fn link_state(link: Option<&Link>) -> (&'static str, Option<Session>) {
    let session = link.and_then(|link| link.status().session);
    let Some(session) = session.filter(Session::is_connected) else { return ("down", None) };
    let works = session.stats().lanes.iter().any(|lane| lane.state == LaneState::Active);
    (if works { "up" } else { "outage" }, Some(session))
}

fn link_status(config: &LinkConfig, link: Option<&Link>) -> LinkStatus {
    let (state, session) = link_state(link);
    let status = link.map(Link::status).unwrap_or_default();
    let channels = session.as_ref().map(|session| channels_of(&session.stats())).unwrap_or_default();
    LinkStatus {
        peer: config.peer.name().to_owned(),
        required: config.required,
        state,
        session: session.map(|session| session.id().to_string()),
        addresses: config.addresses.iter().map(|address| address.address.to_string()).collect(),
        channels_wanted: config.addresses.iter().map(|address| address.count).sum(),
        channels_up: channels.iter().filter(|channel| channel.state == "active").count(),
        scheduler: config.scheduler.to_string(),
        padding: config.padding.to_string(),
        bandwidth_limit: config.bandwidth_limit.map(Bandwidth::bytes_per_second),
        failed_attempts: status.failure_count,
        last_error: status.last_error.map(|error| error.to_string()),
    }
}

fn service_status(service: &Service) -> ServiceStatus {
    let config = service.config();
    ServiceStatus {
        name: config.name.clone(),
        target: config.targets.to_string(),
        strategy: config.balance.strategy.as_str(),
        required: config.required,
        targets: targets::targets(service),
        open: service.open_connections(),
        bandwidth_limit: config.bandwidth_limit.map(Bandwidth::bytes_per_second),
        throttled_seconds: service.throttled().map(|time| time.as_secs_f64()),
        counters: counters(service.counters()),
    }
}

fn sessions(sessions: &[Session], limits: &BandwidthLimits) -> Vec<SessionStatus> {
    let mut all: Vec<_> = sessions.iter().map(|session| session_status(session, limits)).collect();
    all.sort_by(|a, b| (&a.peer, &a.id).cmp(&(&b.peer, &b.id)));
    all
}

fn session_status(session: &Session, limits: &BandwidthLimits) -> SessionStatus {
    let stats = session.stats();
    let dropped = |reason: DatagramDrop| (reason.as_str(), stats.datagrams.dropped(reason));
    SessionStatus {
        id: session.id().to_string(),
        peer: session.peer().node_id.name().to_owned(),
        side: match session.side() {
            Side::Client => "dialled",
            Side::Server => "accepted",
        },
        connected: session.is_connected(),
        peer_certificate_not_after_unix: session.peer().not_after_unix,
        streams: stats.stream_count,
        unsent_bytes: stats.unsent_bytes,
        peer_bandwidth_limit: limits.of_peer(&session.peer().node_id).map(Bandwidth::bytes_per_second),
        throttled_seconds: LimitedBy::ALL
            .into_iter()
            .map(|by| (by.as_str(), stats.throttled[by as usize].as_secs_f64()))
            .filter(|(_, seconds)| *seconds > 0.0)
            .collect(),
        round_trip_ms: stats.round_trip.map(milliseconds),
        packets_sent: stats.packets_sent,
        packets_received: stats.packets_received,
        bytes_sent: stats.bytes_sent,
        bytes_received: stats.bytes_received,
        padding_bytes: stats.padding_bytes,
        reinjected_bytes: stats.reinjected_bytes,
        channels_lost: stats.lanes_lost,
        key_epoch: stats.epoch.0,
        datagrams_sent: stats.datagrams.sent,
        datagrams_received: stats.datagrams.received,
        datagrams_dropped: DatagramDrop::ALL.into_iter().map(dropped).filter(|(_, count)| *count > 0).collect(),
        channels: channels_of(&stats),
    }
}

/// The channels of a session: its lanes, those of one channel taken together.
pub(super) fn channels_of(stats: &SessionStats) -> Vec<Channel> {
    let mut channels: BTreeMap<u32, Channel> = BTreeMap::new();
    for lane in &stats.lanes {
        let id = lane.channel.0;
        let channel = channels.entry(id).or_insert_with(|| Channel {
            id,
            kind: kind_of(lane.kind),
            state: state_of(lane.state),
            lanes: 0,
            round_trip_ms: None,
            round_trip_min_ms: None,
            round_trip_latest_ms: 0.0,
            bytes_per_second: None,
            in_flight_bytes: 0,
            packets_sent: 0,
            packets_received: 0,
            bytes_sent: 0,
            bytes_received: 0,
            padding_bytes: 0,
            reinjected_bytes: 0,
        });
        // It is as good as the best of its lanes.
        if lane.state == LaneState::Active {
            channel.state = state_of(LaneState::Active);
        }
        let least = |known: Option<f64>, new: Option<Duration>| match (known, new.map(milliseconds)) {
            (Some(known), Some(new)) => Some(known.min(new)),
            (known, new) => known.or(new),
        };
        channel.lanes += 1;
        channel.round_trip_ms = least(channel.round_trip_ms, lane.round_trip);
        channel.round_trip_min_ms = least(channel.round_trip_min_ms, lane.round_trip_min);
        channel.round_trip_latest_ms = milliseconds(lane.round_trip_latest);
        channel.bytes_per_second = channel.bytes_per_second.or(lane.bytes_per_second);
        channel.in_flight_bytes += lane.in_flight_bytes;
        channel.packets_sent += lane.packets_sent;
        channel.packets_received += lane.packets_received;
        channel.bytes_sent += lane.bytes_sent;
        channel.bytes_received += lane.bytes_received;
        channel.padding_bytes += lane.padding_bytes;
        channel.reinjected_bytes += lane.reinjected_bytes;
    }
    channels.into_values().collect()
}

fn kind_of(kind: LaneKind) -> &'static str {
    match kind {
        LaneKind::Tcp => "tcp",
        LaneKind::Unix => "unix",
        LaneKind::Tls => "tls",
        LaneKind::Quic => "quic",
    }
}

fn state_of(state: LaneState) -> &'static str {
    match state {
        LaneState::Joining => "joining",
        LaneState::Active => "active",
        LaneState::Suspect => "suspect",
        LaneState::Dead => "dead",
    }
}

fn counters(counters: &Counters) -> CountersStatus {
    let refused = |reason: Refusal| (reason.as_str(), counters.refused(reason));
    let lost = |reason: DatagramLoss| (reason.as_str(), counters.datagrams_lost(reason));
    CountersStatus {
        connections: counters.connections(),
        bytes_to_peer: counters.bytes_to_peer(),
        bytes_from_peer: counters.bytes_from_peer(),
        datagrams_to_peer: counters.datagrams_to_peer(),
        datagrams_from_peer: counters.datagrams_from_peer(),
        refused: Refusal::ALL.into_iter().map(refused).filter(|(_, count)| *count > 0).collect(),
        datagrams_lost: DatagramLoss::ALL.into_iter().map(lost).filter(|(_, count)| *count > 0).collect(),
    }
}

fn refused(counters: &ServicesCounters) -> BTreeMap<&'static str, u64> {
    [
        (Refusal::UnknownService, counters.unknown_service()),
        (Refusal::BadRequest, counters.bad_request()),
        (Refusal::ShuttingDown, counters.shutting_down()),
    ]
    .map(|(reason, count)| (reason.as_str(), count))
    .into()
}

/// Milliseconds, to the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
