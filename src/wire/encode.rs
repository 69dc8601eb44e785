//! Writes messages: the same bytes that prost would write, the content of a packet copied once.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{Frame, HandshakeData, handshake_len};
use super::message::{Head, Join, Joined};
use super::padding::PaddingPolicy;
use super::varint::{bytes_field_len, put_varint, uint_field_len, varint_len};
use crate::base::{SessionId, limits};

/// Which keys protect a packet, as the number of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedKind {
    /// The keys of early data.
    Early = 7,
    /// The handshake keys.
    Handshake = 9,
    /// The traffic keys.
    Traffic = 10,
    /// The channel itself.
    Plain = 11,
}

impl SealedKind {
    /// Bytes of tag behind the content.
    #[must_use]
    pub fn tag_len(self) -> usize {
        match self {
            Self::Early | Self::Handshake | Self::Traffic => limits::SEAL_TAG_BYTES,
            Self::Plain => 0,
        }
    }
}

/// Where the parts of an encoded packet lie in the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedLayout {
    /// The whole message, delimiter and room for the tag included.
    pub message: Range<usize>,
    /// Size of what is in front of the content: the additional data.
    pub header_len: usize,
    /// Bytes of padding, its key and length included.
    pub padding_bytes: usize,
}

/// The most that a message adds to the frames of its packet: delimiter, head, body's key and length, tag.
#[must_use]
pub const fn packet_overhead_max() -> usize {
    const U32: usize = 1 + 5;
    const U64: usize = 1 + 9;
    3 + U32 + (2 + SessionId::LEN) + U32 + U32 + U64 + (1 + 3) + limits::SEAL_TAG_BYTES
}

/// Sizes of a packet's message, which are known before it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketSizes {
    frames_len: usize,
    content_len: usize,
    body_len: usize,
    /// Without the delimiter.
    message_len: usize,
}

impl PacketSizes {
    /// Those of a packet whose frames take `frames_len` bytes. Padding ends below `message_bytes_max`; the caller sees to
    /// it that the frames do.
    #[must_use]
    pub fn of(
        head: &Head,
        kind: SealedKind,
        frames_len: usize,
        padding: PaddingPolicy,
        message_bytes_max: usize,
    ) -> Self {
        let content_len = padding.padded_len(frames_len, message_bytes_max - packet_overhead_max());
        let body_len = content_len + kind.tag_len();
        let message_len = head_len(head) + 1 + varint_len(body_len as u64) + body_len;
        Self { frames_len, content_len, body_len, message_len }
    }

    /// Size of the message, delimiter and tag included.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        varint_len(self.message_len as u64) + self.message_len
    }

    /// Bytes of padding, its key and length included.
    #[must_use]
    pub fn padding_bytes(&self) -> usize {
        self.content_len - self.frames_len
    }
}

/// Appends a packet: header, frames, padding, and room for the tag. Padding ends below `message_bytes_max`; the caller
/// sees to it that the frames do.
pub fn encode_packet_message(
    out: &mut BytesMut,
    head: &Head,
    kind: SealedKind,
    frames: &[Frame],
    padding: PaddingPolicy,
    message_bytes_max: usize,
) -> SealedLayout {
    let frames_len = frames.iter().map(Frame::encoded_len).sum();
    let sizes = PacketSizes::of(head, kind, frames_len, padding, message_bytes_max);
    encode_sized_packet_message(out, head, kind, frames, &sizes)
}

/// The same of a packet whose sizes are known. They have to be those of its head and its frames.
pub fn encode_sized_packet_message(
    out: &mut BytesMut,
    head: &Head,
    kind: SealedKind,
    frames: &[Frame],
    sizes: &PacketSizes,
) -> SealedLayout {
    let start = out.len();
    out.reserve(sizes.message_bytes());
    put_varint(out, sizes.message_len as u64);
    put_head(out, head);
    out.put_u8((kind as u8) << 3 | 2);
    put_varint(out, sizes.body_len as u64);
    let header_len = out.len() - start;
    for frame in frames {
        frame.encode(out);
    }
    put_padding(out, sizes.padding_bytes());
    out.put_bytes(0, kind.tag_len());
    debug_assert_eq!(out.len() - start, sizes.message_bytes(), "sizes of another packet");
    SealedLayout { message: start..out.len(), header_len, padding_bytes: sizes.padding_bytes() }
}

/// Appends the content of a packet alone, frames and padding, for a carrier that needs no message around it. Padding ends
/// at `size_max`; the caller sees to it that the frames do. Returns the bytes of padding.
pub fn encode_packet(out: &mut BytesMut, frames: &[Frame], padding: PaddingPolicy, size_max: usize) -> usize {
    let frames_len: usize = frames.iter().map(Frame::encoded_len).sum();
    let content_len = padding.padded_len(frames_len, size_max);
    out.reserve(content_len);
    for frame in frames {
        frame.encode(out);
    }
    put_padding(out, content_len - frames_len);
    content_len - frames_len
}

/// A message that is not a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the same as in `Body`")]
pub enum ClearMessage {
    Handshake(HandshakeData),
    Join(Join),
    Joined(Joined),
    Start(Bytes),
    Started(Bytes),
    VersionList(Vec<u32>),
    Refused,
    SessionReset([u8; 16]),
}

/// Appends a message that is not a packet.
pub fn encode_clear(out: &mut BytesMut, head: &Head, message: &ClearMessage) {
    let mut body = BytesMut::new();
    let kind: u8 = match message {
        ClearMessage::Handshake(data) => {
            body.reserve(handshake_len(data));
            put_uint(&mut body, 1, data.level as u64);
            put_uint(&mut body, 2, data.offset);
            put_bytes(&mut body, 3, &data.data);
            8
        }
        ClearMessage::Join(join) => {
            put_uint(&mut body, 1, u64::from(join.kind));
            put_bytes(&mut body, 2, &join.nonce);
            put_bytes(&mut body, 3, &join.channel_binding);
            put_uint(&mut body, 4, u64::from(join.lane_count));
            put_bytes(&mut body, 5, &join.mac);
            put_uint(&mut body, 6, u64::from(join.usage.weight));
            put_uint(&mut body, 7, u64::from(join.usage.priority));
            put_uint(&mut body, 8, join.usage.role as u64);
            12
        }
        ClearMessage::Joined(joined) => {
            put_bytes(&mut body, 1, &joined.nonce);
            put_bytes(&mut body, 2, &joined.mac);
            13
        }
        ClearMessage::Start(parameters) => {
            put_bytes(&mut body, 1, parameters);
            14
        }
        ClearMessage::Started(parameters) => {
            put_bytes(&mut body, 1, parameters);
            15
        }
        ClearMessage::VersionList(versions) => {
            let mut packed = BytesMut::new();
            versions.iter().for_each(|version| put_varint(&mut packed, u64::from(*version)));
            put_bytes(&mut body, 1, &packed);
            16
        }
        ClearMessage::Refused => 17,
        ClearMessage::SessionReset(token) => {
            put_bytes(&mut body, 1, token);
            18
        }
    };
    let key = u64::from(kind) << 3 | 2;
    let message_len = head_len(head) + varint_len(key) + varint_len(body.len() as u64) + body.len();
    out.reserve(varint_len(message_len as u64) + message_len);
    put_varint(out, message_len as u64);
    put_head(out, head);
    put_varint(out, key);
    put_varint(out, body.len() as u64);
    out.extend_from_slice(&body);
}

fn head_len(head: &Head) -> usize {
    uint_field_len(u64::from(head.version))
        + head.session_id.map_or(0, |_| bytes_field_len(SessionId::LEN))
        + uint_field_len(u64::from(head.lane_id.0))
        + uint_field_len(u64::from(head.epoch.0))
        + uint_field_len(head.packet_number.0)
}

fn put_head(out: &mut BytesMut, head: &Head) {
    put_uint(out, 1, u64::from(head.version));
    if let Some(id) = &head.session_id {
        put_bytes(out, 2, &id.0);
    }
    put_uint(out, 3, u64::from(head.lane_id.0));
    put_uint(out, 4, u64::from(head.epoch.0));
    put_uint(out, 5, head.packet_number.0);
}

fn put_uint(out: &mut BytesMut, number: u8, value: u64) {
    if value != 0 {
        out.put_u8(number << 3);
        put_varint(out, value);
    }
}

fn put_bytes(out: &mut BytesMut, number: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.put_u8(number << 3 | 2);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// Appends the padding field, so that it takes exactly `len` bytes.
fn put_padding(out: &mut BytesMut, len: usize) {
    if len == 0 {
        return;
    }
    let zeroes = super::padding::zeroes_for(len);
    out.put_u8(2 << 3 | 2);
    put_varint(out, zeroes as u64);
    out.put_bytes(0, zeroes);
}
