//! Sealing and opening packets, outside the session's lock: the keys are shared and read-only.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::quic::PacketKey;

use super::schedule::OpeningKeys;
use crate::base::{Epoch, LaneId, PacketNumber, limits};
use crate::wire::{Head, Sealed};

/// The key for one packet to be sent.
#[derive(Clone)]
pub struct SealedKeys(pub Arc<dyn PacketKey>);

impl SealedKeys {
    /// Seals the content of an encoded message in place. `message` is the whole message: `header_len` bytes that are
    /// authenticated as they are, the content, and room for the tag.
    ///
    /// # Errors
    /// What the AEAD reports: it has none for messages of an allowed size.
    pub fn seal(&self, head: &Head, message: &mut [u8], header_len: usize) -> Result<(), rustls::Error> {
        seal_with(&*self.0, head, message, header_len)
    }
}

/// Seals with a given key, as [`SealedKeys::seal`] does.
pub(crate) fn seal_with(
    key: &dyn PacketKey,
    head: &Head,
    message: &mut [u8],
    header_len: usize,
) -> Result<(), rustls::Error> {
    let (header, content) = message.split_at_mut(header_len);
    let (content, tag_room) = content.split_at_mut(content.len() - limits::SEAL_TAG_BYTES);
    let tag = key.encrypt_in_place_for_path(head.lane_id.0, head.packet_number.0, header, content)?;
    tag_room.copy_from_slice(tag.as_ref());
    Ok(())
}

/// Opens with a given key: the content of the message, without its padding removed.
pub(crate) fn open_with(key: &dyn PacketKey, head: &Head, mut sealed: Sealed) -> Result<Bytes, OpenError> {
    let (header, content) = sealed.parts_mut();
    let length = key
        .decrypt_in_place_for_path(head.lane_id.0, head.packet_number.0, header, content)
        .map_err(|_| OpenError::Forged)?
        .len();
    Ok(BytesMut::freeze(sealed.into_plaintext(length)))
}

/// Why a packet could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The packet names another lane than the one that it came on.
    #[error("packet of lane {got} came on lane {expected}")]
    WrongLane {
        /// The lane that it came on.
        expected: LaneId,
        /// The lane that it names.
        got: LaneId,
    },
    /// An ordered lane delivers packets in order: this one was replayed, dropped or reordered on the way.
    #[error("packet number {} came, {} was expected", got.0, expected.0)]
    WrongPacketNumber {
        /// The number that had to come.
        expected: PacketNumber,
        /// The number that came.
        got: PacketNumber,
    },
    /// No key of that epoch is in use on the lane.
    #[error("packet of epoch {} cannot be opened", .0.0)]
    WrongEpoch(Epoch),
    /// The seal does not match.
    #[error("packet is forged or damaged")]
    Forged,
    /// The lane has used up its packet numbers.
    #[error("lane has no packet numbers left")]
    Exhausted,
}

/// Opens the packets of one ordered lane, in the order in which they arrive.
pub struct LaneOpener {
    lane_id: LaneId,
    /// `None` when the numbers are used up.
    expected: Option<PacketNumber>,
    epoch: Epoch,
    keys: OpeningKeys,
}

impl LaneOpener {
    /// An opener for the packets of a lane from number 0 on.
    #[must_use]
    pub fn new(lane_id: LaneId, keys: OpeningKeys) -> Self {
        Self { lane_id, expected: Some(PacketNumber(0)), epoch: Epoch(0), keys }
    }

    /// The same, for a lane some packets of which came before.
    #[must_use]
    pub fn starting_at(self, expected: PacketNumber) -> Self {
        Self { expected: Some(expected), ..self }
    }

    /// Whether the keys at hand can open a packet of an epoch; else newer ones have to be
    /// [given](Self::set_keys) first.
    #[must_use]
    pub fn has_key(&self, epoch: Epoch) -> bool {
        self.keys.key(epoch).is_some()
    }

    /// Takes a newer snapshot of the session's keys.
    pub fn set_keys(&mut self, keys: OpeningKeys) {
        self.keys = keys;
    }

    /// Opens a sealed packet in place. Nothing of the opener changes before the seal was found right.
    ///
    /// # Errors
    /// Any [`OpenError`]: the lane cannot go on after it.
    pub fn open(&mut self, head: &Head, sealed: Sealed) -> Result<Bytes, OpenError> {
        self.check(head)?;
        let key = self.keys.key(head.epoch).filter(|_| head.epoch >= self.epoch);
        let content = open_with(&**key.ok_or(OpenError::WrongEpoch(head.epoch))?, head, sealed)?;
        self.advance(head);
        Ok(content)
    }

    /// Takes a packet of a lane whose channel protects it itself.
    ///
    /// # Errors
    /// As [`open`](Self::open), except that there is no seal.
    pub fn accept_plain(&mut self, head: &Head) -> Result<(), OpenError> {
        self.check(head)?;
        self.advance(head);
        Ok(())
    }

    fn check(&self, head: &Head) -> Result<(), OpenError> {
        if head.lane_id != self.lane_id {
            return Err(OpenError::WrongLane { expected: self.lane_id, got: head.lane_id });
        }
        let expected = self.expected.ok_or(OpenError::Exhausted)?;
        if head.packet_number != expected {
            return Err(OpenError::WrongPacketNumber { expected, got: head.packet_number });
        }
        Ok(())
    }

    fn advance(&mut self, head: &Head) {
        self.expected = head.packet_number.next();
        self.epoch = self.epoch.max(head.epoch);
    }
}
