//! Transport parameters: what each side tells about itself in the handshake.

use std::time::Duration;

use prost::Message as _;

use super::decode::{usage, versions};
use super::error::WireError;
use super::fields::{Fields, Schema, bit};
use super::frame::array;
use super::message::LaneUsage;
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
    /// How the first lane is to be used; only the client's counts.
    pub first_lane: LaneUsage,
    /// Largest datagram that the side takes, in bytes; 0 for none.
    pub datagram_bytes_max: u32,
}

impl TransportParameters {
    /// What every server grants before the client has heard of its parameters, on channels whose own handshake was the
    /// session's.
    #[must_use]
    pub fn early(versions: Vec<u32>, session_id: SessionId) -> Self {
        Self {
            versions,
            session_id,
            max_data: limits::EARLY_WINDOW_BYTES,
            max_stream_data: limits::EARLY_WINDOW_BYTES,
            max_streams_bi: limits::EARLY_STREAMS,
            max_streams_uni: limits::EARLY_STREAMS,
            max_lanes: 1,
            packet_bytes_max: limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX as u32,
            ack_delay_max: limits::ACK_DELAY_MAX,
            idle_timeout: limits::LANE_IDLE_TIMEOUT,
            survive: limits::SURVIVE,
            software: String::new(),
            first_lane: LaneUsage::default(),
            datagram_bytes_max: 0,
        }
    }

    /// Whether a server grants what every one does.
    #[must_use]
    pub fn grants_early(&self) -> bool {
        let windows = [self.max_data, self.max_stream_data].iter().all(|window| *window >= limits::EARLY_WINDOW_BYTES);
        let streams = [self.max_streams_bi, self.max_streams_uni].iter().all(|max| *max >= limits::EARLY_STREAMS);
        windows && streams
    }

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
            first_lane_weight: self.first_lane.weight,
            first_lane_priority: self.first_lane.priority,
            first_lane_role: self.first_lane.role as u32,
            datagram_bytes_max: self.datagram_bytes_max,
        }
        .encode_to_vec()
    }

    /// Reads the protobuf encoding.
    ///
    /// # Errors
    /// [`WireError`] when it is none, or a value is outside of its range.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > limits::CONTROL_MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong { size: bytes.len() as u64, size_max: limits::CONTROL_MESSAGE_BYTES_MAX });
        }
        let fields = Fields::read(bytes, SCHEMA)?;
        if fields.range(12).len() > SOFTWARE_BYTES_MAX {
            return Err(WireError::Range("software"));
        }
        if (3..=6).any(|number| fields.varint(number) >= 1 << 60) {
            return Err(WireError::Range("credit"));
        }
        let packet_bytes_max = fields.varint_u32(8, "packet size")?;
        let sizes = limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX..=limits::FRAME_MESSAGE_BYTES_MAX;
        if !sizes.contains(&(packet_bytes_max as usize)) {
            return Err(WireError::Range("packet size"));
        }
        let max_lanes = fields.varint_u32(7, "lanes")?;
        if max_lanes == 0 {
            return Err(WireError::Range("lanes"));
        }
        Ok(Self {
            versions: versions(bytes)?,
            session_id: SessionId(array(bytes, &fields, 2, "session id")?),
            max_data: fields.varint(3),
            max_stream_data: fields.varint(4),
            max_streams_bi: fields.varint(5),
            max_streams_uni: fields.varint(6),
            max_lanes,
            packet_bytes_max,
            ack_delay_max: Duration::from_micros(fields.varint(9)),
            idle_timeout: Duration::from_millis(fields.varint(10)),
            survive: Duration::from_millis(fields.varint(11)),
            software: fields.text(bytes, 12, "software")?,
            first_lane: usage(&fields, [13, 15, 16])?,
            datagram_bytes_max: fields.varint_u32(14, "datagram size")?,
        })
    }
}

/// Later versions may add fields.
const SCHEMA: Schema = Schema {
    bytes: bit(2) | bit(12),
    repeated: bit(1),
    ..Schema::varints(
        bit(3)
            | bit(4)
            | bit(5)
            | bit(6)
            | bit(7)
            | bit(8)
            | bit(9)
            | bit(10)
            | bit(11)
            | bit(13)
            | bit(14)
            | bit(15)
            | bit(16),
    )
};
