//! Transport parameters: what each side tells about itself in the handshake.

use std::time::Duration;

use prost::Message;

use super::error::WireError;
use super::proto;
use crate::base::{SessionId, limits};

const SOFTWARE_BYTES_MAX: usize = 64;

/// What a side tells about itself; see `proto/parameters.proto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportParameters {
    /// All versions that the side speaks, best first.
    pub versions: Vec<u32>,
    /// The session that the handshake makes.
    pub session_id: SessionId,
    /// First credit for all streams, in bytes.
    pub max_data: u64,
    /// First credit for each stream, in bytes.
    pub max_stream_data: u64,
    /// Bidirectional streams that the peer may open.
    pub max_streams_bi: u64,
    /// Unidirectional streams that the peer may open.
    pub max_streams_uni: u64,
    /// From the server: lane ids below this one may be used for joins.
    pub max_lanes: u32,
    /// Longest message that the side takes, in bytes.
    pub packet_bytes_max: u32,
    /// Longest time that the side holds back an acknowledgement.
    pub ack_delay_max: Duration,
    /// Silence after which the side gives a lane up.
    pub idle_timeout: Duration,
    /// How long the side keeps a session that has no channel.
    pub survive: Duration,
    /// Name and version of the program.
    pub software: String,
    /// Share of the first lane under the scheduler `weighted`; only the client's counts.
    pub first_lane_weight: u32,
}

impl TransportParameters {
    /// The protobuf encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        proto::TransportParameters {
            version: self.versions.clone(),
            session_id: self.session_id.0.to_vec().into(),
            max_data: self.max_data,
            max_stream_data: self.max_stream_data,
            max_streams_bi: self.max_streams_bi,
            max_streams_uni: self.max_streams_uni,
            max_lanes: self.max_lanes,
            packet_bytes_max: self.packet_bytes_max,
            ack_delay_max_us: us(self.ack_delay_max),
            idle_timeout_ms: ms(self.idle_timeout),
            survive_ms: ms(self.survive),
            software: self.software.clone(),
            first_lane_weight: self.first_lane_weight,
        }
        .encode_to_vec()
    }

    /// Reads the protobuf encoding.
    ///
    /// # Errors
    /// [`WireError`] when it is none, or a value is outside of its range.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        // The general decoder: safe here, as a flat message of this size cannot grow far (a packed version takes
        // four bytes for one).
        if bytes.len() > limits::CONTROL_MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong { size: bytes.len() as u64, size_max: limits::CONTROL_MESSAGE_BYTES_MAX });
        }
        let message = proto::TransportParameters::decode(bytes).map_err(|_| WireError::Range("parameters"))?;
        if message.version.len() > limits::VERSIONS_MAX {
            return Err(WireError::TooMany("versions"));
        }
        if message.software.len() > SOFTWARE_BYTES_MAX {
            return Err(WireError::Range("software"));
        }
        let credits = [message.max_data, message.max_stream_data, message.max_streams_bi, message.max_streams_uni];
        if credits.iter().any(|credit| *credit >= 1 << 60) {
            return Err(WireError::Range("credit"));
        }
        let size_max = message.packet_bytes_max as usize;
        let sizes = limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX..=limits::FRAME_MESSAGE_BYTES_MAX;
        if !sizes.contains(&size_max) {
            return Err(WireError::Range("packet size"));
        }
        if message.max_lanes == 0 {
            return Err(WireError::Range("lanes"));
        }
        Ok(Self {
            versions: message.version,
            session_id: SessionId(message.session_id[..].try_into().map_err(|_| WireError::Range("session id"))?),
            max_data: message.max_data,
            max_stream_data: message.max_stream_data,
            max_streams_bi: message.max_streams_bi,
            max_streams_uni: message.max_streams_uni,
            max_lanes: message.max_lanes,
            packet_bytes_max: message.packet_bytes_max,
            ack_delay_max: Duration::from_micros(message.ack_delay_max_us),
            idle_timeout: Duration::from_millis(message.idle_timeout_ms),
            survive: Duration::from_millis(message.survive_ms),
            software: message.software,
            first_lane_weight: super::decode::weight(u64::from(message.first_lane_weight))?,
        })
    }
}
