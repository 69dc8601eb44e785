//! Single measurements of links, as values of histograms.

use std::time::Duration;

use opentelemetry::KeyValue;

use super::Shared;
use super::state::Recorder;
use crate::session::LaneKind;

/// Records for all ways out.
pub(super) struct Recording<'a>(&'a Shared);

impl<'a> Recording<'a> {
    pub(super) fn of(shared: &'a Shared) -> Self {
        Self(shared)
    }

    fn record(&self, name: &'static str, time: Duration, attributes: &[KeyValue]) {
        self.0.record(name, time.as_secs_f64(), attributes);
    }
}

fn peer_attribute(peer: &str) -> KeyValue {
    KeyValue::new("peer", peer.to_owned())
}

fn channel_attributes(peer: &str, channel: u32, kind: LaneKind) -> [KeyValue; 3] {
    [peer_attribute(peer), KeyValue::new("channel", i64::from(channel)), KeyValue::new("transport", kind.as_str())]
}

impl Recorder for Recording<'_> {
    fn on_round_trip(&mut self, peer: &str, channel: u32, kind: LaneKind, time: Duration) {
        self.record("longhaul.channel.rtt", time, &channel_attributes(peer, channel, kind));
    }

    fn on_path_round_trip(&mut self, peer: &str, channel: u32, kind: LaneKind, time: Duration) {
        self.record("longhaul.channel.transport.rtt", time, &channel_attributes(peer, channel, kind));
    }

    fn on_ack_delay(&mut self, peer: &str, time: Duration) {
        self.record("longhaul.link.ack.delay", time, &[peer_attribute(peer)]);
    }

    fn on_queue_delay(&mut self, peer: &str, time: Duration) {
        self.record("longhaul.link.queue.delay", time, &[peer_attribute(peer)]);
    }

    fn on_outage(&mut self, peer: &str, time: Duration, is_survived: bool) {
        let attributes = [peer_attribute(peer), KeyValue::new("survived", is_survived)];
        self.record("longhaul.link.outage.duration", time, &attributes);
    }

    fn on_loss(&mut self, peer: &str, window: &'static str, ratio: f64) {
        self.0.record("longhaul.link.loss", ratio, &[peer_attribute(peer), KeyValue::new("window", window)]);
    }
}
