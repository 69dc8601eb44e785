//! What can be chosen for a session.

use std::time::Duration;

use super::scheduler::Policy;
use crate::base::{SessionId, limits};
use crate::stream::StreamsConfig;
use crate::wire::{self, LaneUsage, PaddingPolicy, TransportParameters};

/// What can be chosen for a session. The defaults are those of [`limits`].
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Versions of the protocol that may be used, best first.
    pub versions: Vec<u32>,
    /// Windows and counts of streams.
    pub streams: StreamsConfig,
    /// Sizes that packets are padded to.
    pub padding: PaddingPolicy,
    /// Which lane carries the next packet.
    pub scheduler: Policy,
    /// How the lane is to be used that a client's handshake goes over.
    pub first_lane: LaneUsage,
    /// Longest message that this side sends, in bytes.
    pub packet_bytes_max: usize,
    /// Seal packets on channels that are TLS themselves, too.
    pub seal_always: bool,
    /// How long streams wait when there is no channel.
    pub survive: Duration,
    /// The longest life of a session. Certificates may end it earlier.
    pub age_max: Duration,
    /// Silence after which a lane is pinged.
    pub ping_interval: Duration,
    /// Silence after which a lane is given up.
    pub idle_timeout: Duration,
    /// Shortest time without an acknowledgement after which a lane is given up.
    pub dead_timeout: Duration,
    /// Packets under one key.
    pub key_packets_max: u64,
    /// Bytes under one key.
    pub key_bytes_max: u64,
    /// Time under one key.
    pub key_age_max: Duration,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            versions: vec![wire::VERSION],
            streams: StreamsConfig::default(),
            padding: PaddingPolicy::default(),
            scheduler: Policy::default(),
            first_lane: LaneUsage::default(),
            packet_bytes_max: limits::FRAME_MESSAGE_BYTES_MAX,
            seal_always: false,
            survive: limits::SURVIVE,
            age_max: limits::SESSION_AGE_MAX,
            ping_interval: limits::PING_INTERVAL,
            idle_timeout: limits::LANE_IDLE_TIMEOUT,
            dead_timeout: limits::DEAD_TIMEOUT_MIN,
            key_packets_max: limits::KEY_PACKETS_MAX,
            key_bytes_max: limits::KEY_BYTES_MAX,
            key_age_max: limits::KEY_AGE_MAX,
        }
    }
}

impl SessionConfig {
    /// What a server uses: clients send before they have heard of its windows where the channel's own handshake is the
    /// session's, and wherever they come back with a ticket. So the windows are raised to what every server grants.
    #[must_use]
    pub fn granting_early(self) -> Self {
        Self { streams: self.streams.granting_early(), ..self }
    }

    /// The parameters to tell the peer.
    #[must_use]
    pub fn parameters(&self, session_id: SessionId) -> TransportParameters {
        TransportParameters {
            versions: self.versions.clone(),
            session_id,
            max_data: self.streams.session_window,
            max_stream_data: self.streams.stream_window,
            max_streams_bi: self.streams.streams_max,
            max_streams_uni: self.streams.streams_max,
            max_lanes: limits::LANE_CREDIT,
            packet_bytes_max: limits::FRAME_MESSAGE_BYTES_MAX as u32,
            ack_delay_max: limits::ACK_DELAY_MAX,
            idle_timeout: self.idle_timeout,
            survive: self.survive,
            software: concat!("longhaul/", env!("CARGO_PKG_VERSION")).to_owned(),
            first_lane: self.first_lane,
            datagram_bytes_max: self.streams.datagram_bytes_max.min(limits::DATAGRAM_BYTES_MAX) as u32,
        }
    }
}
