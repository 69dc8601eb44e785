//! What is known at one moment, as plain data for JSON: what the page and the commands show.
//!
//! Fields are only added; a change of meaning raises [`VERSION`]. Times are seconds, sizes bytes, shares 0 to 1.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::histogram::Histogram;
use super::process::ProcessSnapshot;
use super::state::{Channel, Link, State};
use super::windows::{Flow, WindowStats};
use super::words;

/// Version of the form.
pub const VERSION: u32 = 1;

/// Everything that is known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// [`VERSION`].
    pub version: u32,
    /// When it was made, in seconds since 1970.
    pub at_unix_seconds: f64,
    /// All links together, in the windows of 1, 5, 15 and 60 s.
    pub windows: [WindowStats; 4],
    /// All links together, since the start.
    pub totals: Flow,
    /// By peer.
    pub links: Vec<LinkSnapshot>,
    /// What the process uses, where the system tells.
    pub process: Option<ProcessSnapshot>,
}

/// Everything that is shared with one peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkSnapshot {
    /// Its name; `other` for those that are too many to be told apart.
    pub peer: String,
    /// Sessions that are connected.
    pub session_count: usize,
    /// How long no channel has worked, if none does.
    pub outage_seconds: Option<f64>,
    /// Streams that are not over.
    pub stream_count: u64,
    /// Bytes that wait for channels or credit.
    pub unsent_bytes: u64,
    /// Steps of the traffic keys.
    pub key_epoch: u32,
    /// Outages after which streams went on.
    pub outages_survived: u64,
    /// Outages in which a session ended.
    pub outages_fatal: u64,
    /// The windows of 1, 5, 15 and 60 s.
    pub windows: [WindowStats; 4],
    /// Since the start.
    pub totals: Flow,
    /// Round trips since the start, in seconds.
    pub latency: Histogram,
    /// Loss of each 5 s since the start, as a share.
    pub loss: Histogram,
    /// Its channels, by number; those that live.
    pub channels: Vec<ChannelSnapshot>,
    /// Sessions that ended, by reason.
    pub sessions_ended: BTreeMap<&'static str, u64>,
}

/// A channel that lives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChannelSnapshot {
    /// Its number, which is another one's after its end.
    pub channel: u32,
    /// Its session.
    pub session: String,
    /// The first of its lanes.
    pub lane: u32,
    /// How many lanes it has.
    pub lane_count: u32,
    /// What carries it: tcp, tls, quic, unix.
    pub transport: &'static str,
    /// How it is doing: joining, active, suspect.
    pub state: &'static str,
    /// Smoothed round trip, by the session.
    pub round_trip_seconds: Option<f64>,
    /// The same, by the transport.
    pub transport_round_trip_seconds: Option<f64>,
    /// Bytes sent and not acknowledged by the peer's session.
    pub in_flight_bytes: u64,
    /// What the transport lets be on its way, in bytes.
    pub congestion_window_bytes: Option<u64>,
    /// Bytes a second that it delivers, as far as it was asked to.
    pub delivery_bytes_per_second: Option<f64>,
    /// The windows of 1, 5, 15 and 60 s.
    pub windows: [WindowStats; 4],
    /// Since the start, of all channels that had the number.
    pub totals: Flow,
}

impl Snapshot {
    pub(super) fn of(state: &State, at: SystemTime) -> Self {
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut totals = Flow::default();
        state.links.values().for_each(|link| totals.add(&link.totals));
        Self {
            version: VERSION,
            at_unix_seconds: at.as_secs_f64(),
            windows: state.total.windows(),
            totals,
            links: state.links.iter().map(|(peer, link)| LinkSnapshot::of(peer, link)).collect(),
            process: ProcessSnapshot::read(),
        }
    }
}

impl LinkSnapshot {
    fn of(peer: &str, link: &Link) -> Self {
        Self {
            peer: peer.to_owned(),
            session_count: link.now.sessions.len(),
            outage_seconds: link.now.outage.map(|outage| outage.as_secs_f64()),
            stream_count: link.now.stream_count,
            unsent_bytes: link.now.unsent_bytes,
            key_epoch: link.now.epoch,
            outages_survived: link.outages_survived,
            outages_fatal: link.outages_fatal,
            windows: link.series.windows(),
            totals: link.totals,
            latency: link.latency.clone(),
            loss: link.loss.clone(),
            channels: link
                .channels
                .iter()
                .filter_map(|(number, channel)| ChannelSnapshot::of(*number, channel))
                .collect(),
            sessions_ended: link.sessions_ended.clone(),
        }
    }
}

impl ChannelSnapshot {
    fn of(number: u32, channel: &Channel) -> Option<Self> {
        let living = channel.now.as_ref()?;
        let mut totals = Flow::default();
        channel.totals.values().for_each(|flow| totals.add(flow));
        let path = living.path.as_ref();
        Some(Self {
            channel: number,
            session: living.session.to_string(),
            lane: living.lane.0,
            lane_count: living.lane_count,
            transport: living.kind.as_str(),
            state: words::lane_state(living.state),
            round_trip_seconds: living.round_trip.map(|time| time.as_secs_f64()),
            transport_round_trip_seconds: path.map(|path| path.round_trip.as_secs_f64()),
            in_flight_bytes: living.in_flight_bytes,
            congestion_window_bytes: path.map(|path| path.congestion_window_bytes),
            delivery_bytes_per_second: living.delivery_rate(),
            windows: channel.series.windows(),
            totals,
        })
    }
}
