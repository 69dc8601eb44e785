//! The values of all instruments that are observed, from what was seen.

use std::time::Duration;

use opentelemetry::KeyValue;

use super::output::{Point, Points};
use super::process::ProcessSnapshot;
use super::state::{Channel, Link, State};
use super::table;
use super::windows::{WINDOWS, Window, WindowStats};
use super::words;
use crate::node::NodeMeter;
use crate::service::{Counters, Gateway, Refusal};
use crate::session::LimitedBy;
use crate::stream::DatagramDrop;

/// Collects values by instrument.
#[derive(Debug, Default)]
pub(super) struct Collected(pub(super) Points);

impl Collected {
    /// Adds a value of an instrument of the table.
    pub(super) fn add(&mut self, name: &'static str, value: f64, attributes: &[KeyValue]) {
        debug_assert!(has_attributes(name, attributes), "{name} has other attributes in the table");
        self.0.entry(name).or_default().push(Point { attributes: attributes.to_vec(), value });
    }

    fn count(&mut self, name: &'static str, value: u64, attributes: &[KeyValue]) {
        self.add(name, value as f64, attributes);
    }

    /// Both directions of something.
    fn both(&mut self, name: &'static str, sent: f64, received: f64, attributes: &[KeyValue]) {
        for (direction, value) in [("transmit", sent), ("receive", received)] {
            self.add(name, value, &with(attributes, "direction", direction));
        }
    }

    /// What was seen of peers.
    pub(super) fn add_state(&mut self, state: &State) {
        for (peer, link) in &state.links {
            self.add_link(link, &[KeyValue::new("peer", peer.clone())]);
        }
        self.count("longhaul.telemetry.dropped", state.samples_dropped, &[]);
    }

    fn add_link(&mut self, link: &Link, peer: &[KeyValue]) {
        self.count("longhaul.link.session", link.now.sessions.len() as u64, peer);
        self.count("longhaul.link.stream", link.now.stream_count, peer);
        self.count("longhaul.link.unsent", link.now.unsent_bytes, peer);
        self.count("longhaul.link.held", link.now.held_bytes, peer);
        self.add("longhaul.link.outage", link.now.outage.unwrap_or_default().as_secs_f64(), peer);
        for window in WINDOWS {
            self.add_window(window, &link.series.window(window), peer);
        }
        let blocked = [
            ("session", link.blocked.session),
            ("stream", link.blocked.stream),
            ("stream-count", link.blocked.stream_count),
        ];
        for (limit, count) in blocked {
            self.count("longhaul.link.window.blocked", count, &with(peer, "limit", limit));
        }
        for by in LimitedBy::ALL {
            let time = link.throttled[by as usize];
            // Where nothing is limited there is nothing to say.
            if !time.is_zero() {
                self.add("longhaul.link.throttled", time.as_secs_f64(), &with(peer, "limit", by.as_str()));
            }
        }
        let decisions = [
            ("taken", link.decisions.taken),
            ("passed-on", link.decisions.passed_on),
            ("held-back", link.decisions.held_back),
            ("copied", link.decisions.copied),
        ];
        for (decision, count) in decisions {
            self.count("longhaul.link.scheduler.decision", count, &with(peer, "decision", decision));
        }
        for ((kind, reason), count) in &link.lanes_ended {
            let attributes = with(&with(peer, "transport", kind.as_str()), "reason", *reason);
            self.count("longhaul.link.channel.ended", *count, &attributes);
        }
        for (reason, count) in &link.sessions_ended {
            self.count("longhaul.link.session.ended", *count, &with(peer, "reason", *reason));
        }
        let datagrams = &link.datagrams;
        self.both("longhaul.link.datagram", datagrams.sent as f64, datagrams.received as f64, peer);
        for reason in DatagramDrop::ALL {
            let count = datagrams.dropped[reason as usize];
            self.count("longhaul.link.datagram.dropped", count, &with(peer, "reason", reason.as_str()));
        }
        for (number, channel) in &link.channels {
            self.add_channel(channel, &with(peer, "channel", i64::from(*number)));
        }
        self.add_channel_states(link, peer);
    }

    /// How many channels are in which state. A state that a kind of channel has been in stays, with none in it.
    fn add_channel_states(&mut self, link: &Link, peer: &[KeyValue]) {
        let kinds: std::collections::BTreeSet<_> =
            link.channels.values().flat_map(|channel| channel.totals.keys().copied()).collect();
        for kind in kinds {
            for state in ["joining", "active", "suspect"] {
                let living = link.channels.values().filter_map(|channel| channel.now.as_ref());
                let is_such = |at: &&super::state::Living| at.kind == kind && words::lane_state(at.state) == state;
                let attributes = with(&with(peer, "transport", kind.as_str()), "state", state);
                self.count("longhaul.link.channel", living.filter(is_such).count() as u64, &attributes);
            }
        }
    }

    fn add_window(&mut self, window: Window, stats: &WindowStats, peer: &[KeyValue]) {
        let attributes = &with(peer, "window", window.name);
        let (sent, received) = (stats.sent_bytes_per_second, stats.received_bytes_per_second);
        self.both("longhaul.link.bandwidth", sent, received, attributes);
        let (sent, received) = (stats.packets_sent as f64, stats.packets_received as f64);
        self.both("longhaul.link.packet.current", sent, received, attributes);
        let (sent, received) = (stats.fragments_sent as f64, stats.fragments_received as f64);
        self.both("longhaul.link.fragment.current", sent, received, attributes);
        self.add("longhaul.link.padding", stats.padding_ratio, attributes);
        self.count("longhaul.link.retransmitted.current", stats.retransmitted_bytes, attributes);
        self.count("longhaul.link.reinjected.current", stats.reinjected_bytes, attributes);
        if let Some(latency) = stats.latency_mean_seconds {
            self.add("longhaul.link.latency", latency, attributes);
        }
        if let Some(loss) = stats.loss_ratio {
            self.add("longhaul.link.loss.current", loss, attributes);
        }
    }

    fn add_channel(&mut self, channel: &Channel, numbered: &[KeyValue]) {
        for (kind, totals) in &channel.totals {
            let attributes = &with(numbered, "transport", kind.as_str());
            self.both("longhaul.channel.io", totals.bytes_sent as f64, totals.bytes_received as f64, attributes);
            let (sent, received) = (totals.packets_sent as f64, totals.packets_received as f64);
            self.both("longhaul.channel.packet", sent, received, attributes);
            let (sent, received) = (totals.fragments_sent as f64, totals.fragments_received as f64);
            self.both("longhaul.channel.fragment", sent, received, attributes);
            self.count("longhaul.channel.padding", totals.padding_bytes, attributes);
            self.count("longhaul.channel.reinjected", totals.reinjected_bytes, attributes);
            self.count("longhaul.channel.transport.packet", totals.transport_packets_sent, attributes);
            self.count("longhaul.channel.transport.lost", totals.transport_packets_lost, attributes);
            self.count("longhaul.channel.transport.retransmitted", totals.retransmitted_bytes, attributes);
        }
        let Some(living) = &channel.now else { return };
        let attributes = &with(numbered, "transport", living.kind.as_str());
        for window in WINDOWS {
            let (stats, attributes) = (channel.series.window(window), &with(attributes, "window", window.name));
            let (sent, received) = (stats.sent_bytes_per_second, stats.received_bytes_per_second);
            self.both("longhaul.channel.bandwidth", sent, received, attributes);
            if let Some(latency) = stats.latency_mean_seconds {
                self.add("longhaul.channel.latency", latency, attributes);
            }
            if let Some(loss) = stats.loss_ratio {
                self.add("longhaul.channel.loss", loss, attributes);
            }
        }
        if let Some(rate) = living.delivery_rate() {
            self.add("longhaul.channel.delivery_rate", rate, attributes);
        }
        if let Some(path) = &living.path {
            self.count("longhaul.channel.congestion_window", path.congestion_window_bytes, attributes);
            if let Some(unsent) = path.unsent_bytes {
                self.count("longhaul.channel.unsent", unsent, attributes);
            }
        }
    }

    /// What services and forwards counted.
    pub(super) fn add_gateway(&mut self, gateway: &Gateway) {
        for service in gateway.services().all() {
            let attributes = &[KeyValue::new("service", service.config().name.clone())];
            let names = ["longhaul.service.io", "longhaul.service.connection", "longhaul.service.refused"];
            self.add_counters(names, service.counters(), attributes);
            self.add_throttled("longhaul.service.throttled", service.throttled(), attributes);
            self.count("longhaul.service.connection.open", service.open_connections().into(), attributes);
        }
        for forward in gateway.forwards() {
            let config = forward.config();
            let attributes =
                &[KeyValue::new("peer", config.peer.to_string()), KeyValue::new("service", config.service.clone())];
            let names = ["longhaul.forward.io", "longhaul.forward.connection", "longhaul.forward.refused"];
            self.add_counters(names, forward.counters(), attributes);
            self.add_throttled("longhaul.forward.throttled", forward.throttled(), attributes);
            self.count("longhaul.forward.connection.open", forward.open_connections().into(), attributes);
        }
        let counters = gateway.services().counters();
        let refused = [
            (Refusal::UnknownService, counters.unknown_service()),
            (Refusal::BadRequest, counters.bad_request()),
            (Refusal::ShuttingDown, counters.shutting_down()),
        ];
        for (reason, count) in refused {
            let attributes = &[KeyValue::new("reason", reason.as_str())];
            self.count("longhaul.service.request.refused", count, attributes);
        }
    }

    fn add_counters(&mut self, names: [&'static str; 3], counters: &Counters, attributes: &[KeyValue]) {
        let [io, connection, refused] = names;
        self.both(io, counters.bytes_to_peer() as f64, counters.bytes_from_peer() as f64, attributes);
        self.count(connection, counters.connections(), attributes);
        for reason in Refusal::ALL {
            let count = counters.refused(reason);
            // Most never happen: a series for each would be most of what is sent.
            if count > 0 {
                self.count(refused, count, &with(attributes, "reason", reason.as_str()));
            }
        }
    }

    /// Nothing is said of what was never limited.
    fn add_throttled(&mut self, name: &'static str, waited: [Duration; 2], attributes: &[KeyValue]) {
        let [to_peer, from_peer] = waited.map(|time| time.as_secs_f64());
        if to_peer + from_peer > 0.0 {
            self.both(name, to_peer, from_peer, attributes);
        }
    }

    /// What the node's listeners did.
    pub(super) fn add_node(&mut self, node: &NodeMeter) {
        for (reason, count) in node.gates() {
            self.count("longhaul.listener.refused", count, &[KeyValue::new("reason", reason)]);
        }
        self.count("longhaul.listener.pending", node.pending_handshakes().into(), &[]);
    }

    /// What the process uses.
    pub(super) fn add_process(&mut self, process: &ProcessSnapshot) {
        for (mode, seconds) in [("user", process.cpu_user_seconds), ("system", process.cpu_system_seconds)] {
            self.add("process.cpu.time", seconds, &[KeyValue::new("cpu.mode", mode)]);
        }
        self.count("process.memory.usage", process.memory_bytes, &[]);
        self.count("process.unix.file_descriptor.count", process.file_descriptor_count, &[]);
        self.count("process.thread.count", process.thread_count, &[]);
    }
}

/// The attributes with one more.
pub(super) fn with(
    attributes: &[KeyValue],
    name: &'static str,
    value: impl Into<opentelemetry::Value>,
) -> Vec<KeyValue> {
    let mut attributes = attributes.to_vec();
    attributes.push(KeyValue::new(name, value));
    attributes
}

/// Whether these are the attributes that the table names.
pub(super) fn has_attributes(name: &str, attributes: &[KeyValue]) -> bool {
    let found = table::find(name).map(|instrument| instrument.attributes);
    found.is_some_and(|wanted| {
        wanted.len() == attributes.len() && attributes.iter().all(|found| wanted.contains(&found.key.as_str()))
    })
}
