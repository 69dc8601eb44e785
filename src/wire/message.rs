//! The outermost message as values.

use bytes::{Bytes, BytesMut};

use super::frame::HandshakeData;
use crate::base::{Epoch, LaneId, PacketNumber, SessionId};

/// What is in the clear of every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Version of the protocol, on messages that open something; else 0.
    pub version: u32,
    /// The session, on messages that open something and on answers to them.
    pub session_id: Option<SessionId>,
    /// The lane; part of the nonce.
    pub lane_id: LaneId,
    /// The traffic keys.
    pub epoch: Epoch,
    /// The position among the packets of this direction of the lane.
    pub packet_number: PacketNumber,
}

/// The outermost message.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameMessage {
    /// What is in the clear of every message.
    pub head: Head,
    /// The rest.
    pub body: Body,
}

/// What a message carries; see `proto/longhaul.proto`.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// TLS bytes in the clear.
    Handshake(HandshakeData),
    /// A packet under the keys of early data.
    SealedEarly(Sealed),
    /// A packet under the handshake keys.
    SealedHandshake(Sealed),
    /// A packet under the traffic keys.
    Sealed(Sealed),
    /// A packet on a channel that is TLS itself.
    Plain(Bytes),
    /// Asks to bind the channel to a session.
    Join(Join),
    /// Binds it.
    Joined(Joined),
    /// Starts a session; encoded transport parameters.
    Start(Bytes),
    /// Answers a start; encoded transport parameters.
    Started(Bytes),
    /// The versions that the server speaks.
    VersionList(Vec<u32>),
    /// Refused, for a reason that strangers are not told.
    Refused,
    /// The session is not known; its reset token.
    SessionReset([u8; 16]),
}

/// Asks to bind a channel to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Kind of the channel.
    pub kind: u32,
    /// The client's nonce.
    pub nonce: [u8; 16],
    /// The exporter of the channel's own TLS, empty on raw channels.
    pub channel_binding: Bytes,
    /// How many consecutive lanes the channel has.
    pub lane_count: u32,
    /// The client's proof.
    pub mac: [u8; 32],
    /// How both sides are to use the lanes.
    pub usage: LaneUsage,
}

/// How a lane is to be used, in both directions: what the dialling side says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneUsage {
    /// Share under the scheduler `weighted`: 1 to [`LANE_WEIGHT_MAX`](crate::base::limits::LANE_WEIGHT_MAX).
    pub weight: u32,
    /// Lanes with a higher number carry data only while none with a lower one works; at most
    /// [`LANE_PRIORITY_MAX`](crate::base::limits::LANE_PRIORITY_MAX).
    pub priority: u32,
    /// Whether it carries data, or waits for the others to fail.
    pub role: LaneRole,
}

impl LaneUsage {
    /// As all others are used.
    pub const PLAIN: Self = Self { weight: 1, priority: 0, role: LaneRole::Active };
}

impl Default for LaneUsage {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// Whether a lane carries data. The numbers stand on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneRole {
    /// It carries data.
    #[default]
    Active = 0,
    /// It is kept up, and carries data only while no active lane works.
    Standby = 1,
}

impl LaneRole {
    /// The role of a number on the wire.
    #[must_use]
    pub fn from_wire(number: u64) -> Option<Self> {
        [Self::Active, Self::Standby].into_iter().find(|role| *role as u64 == number)
    }
}

/// Binds a channel to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The server's nonce.
    pub nonce: [u8; 16],
    /// The server's proof.
    pub mac: [u8; 32],
}

/// A sealed packet as it was received: the bytes in front of the ciphertext are the seal's additional data.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    pub(super) message: BytesMut,
    pub(super) header_len: usize,
}

impl Sealed {
    /// The additional data, and the ciphertext with its tag.
    pub fn parts_mut(&mut self) -> (&[u8], &mut [u8]) {
        let (header, content) = self.message.split_at_mut(self.header_len);
        (header, content)
    }

    /// Size of the ciphertext with its tag, in bytes.
    #[must_use]
    pub fn ciphertext_len(&self) -> usize {
        self.message.len() - self.header_len
    }

    /// The first `len` bytes of what was opened in place.
    #[must_use]
    pub fn into_plaintext(mut self, len: usize) -> BytesMut {
        let mut content = self.message.split_off(self.header_len);
        content.truncate(len);
        content
    }
}
