//! One connection, which is one lane: splits messages off the bytes of both directions, and opens them.

use bytes::{Bytes, BytesMut};

use super::{Keys, Outcome, Record};
use crate::base::{LaneId, SessionId, Side, limits};
use crate::crypto::NotOpened;
use crate::wire::{Body, Frame, FrameMessage, HandshakeData, HandshakeLevel, Head, decode_message, decode_packet};

/// What was seen of a connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    session_id: Option<SessionId>,
    /// The random of the client's TLS handshake, which its key lines go by.
    client_random: Option<[u8; 32]>,
    /// Of the two directions.
    ends: [End; 2],
}

/// One direction.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    side: Option<Side>,
    message_count: u64,
    is_over: bool,
}

impl Connection {
    /// Says which side one direction comes from, if that is known.
    pub(super) fn set_side(&mut self, direction: usize, side: Side) {
        self.ends[direction].side = Some(side);
        self.ends[1 - direction].side = Some(side.peer());
    }

    /// Whether anything was understood.
    pub(super) fn is_known(&self) -> bool {
        self.ends.iter().any(|end| end.message_count > 0)
    }

    /// Whether a direction cannot be read on.
    pub(super) fn is_over(&self, direction: usize) -> bool {
        self.ends[direction].is_over
    }

    /// The next message of a direction, opened if it can be.
    pub(super) fn next(&mut self, direction: usize, buffer: &mut BytesMut, keys: &mut Keys) -> Option<Record> {
        if self.ends[direction].is_over {
            buffer.clear();
            return None;
        }
        let before = buffer.len();
        match decode_message(buffer, limits::FRAME_MESSAGE_BYTES_MAX) {
            Ok(Some(message)) => {
                self.ends[direction].message_count += 1;
                Some(self.take(direction, message, before - buffer.len(), keys))
            }
            Ok(None) => None,
            Err(error) => {
                self.ends[direction].is_over = true;
                buffer.clear();
                // Whatever else goes over the same network is passed over in silence.
                let side = self.ends[direction].side.unwrap_or(Side::Client);
                self.is_known().then(|| Record {
                    side,
                    session_id: self.session_id,
                    head: Head::default(),
                    kind: "damaged",
                    message_bytes: before,
                    outcome: Outcome::Damaged(error),
                })
            }
        }
    }

    fn take(&mut self, direction: usize, message: FrameMessage, message_bytes: usize, keys: &mut Keys) -> Record {
        let FrameMessage { head, body } = message;
        self.session_id = self.session_id.or(head.session_id);
        if self.ends[direction].side.is_none() {
            self.set_side(direction, sender_of(&body));
        }
        let side = self.ends[direction].side.unwrap_or(Side::Client);
        let kind = kind_of(&body);
        let outcome = match body {
            Body::Handshake(data) => {
                self.learn_random(side, &data);
                Outcome::Clear(vec![("level", 0), ("offset", data.offset), ("size", data.data.len() as u64)])
            }
            Body::Join(join) => Outcome::Clear(vec![
                ("channel", u64::from(join.kind)),
                ("lanes", u64::from(join.lane_count)),
                ("weight", u64::from(join.usage.weight)),
                ("priority", u64::from(join.usage.priority)),
                ("role", join.usage.role as u64),
            ]),
            Body::Start(parameters) | Body::Started(parameters) => {
                Outcome::Clear(vec![("size", parameters.len() as u64)])
            }
            Body::VersionList(versions) => {
                Outcome::Clear(versions.into_iter().map(|version| ("version", u64::from(version))).collect())
            }
            Body::Joined(_) | Body::Refused | Body::SessionReset(_) => Outcome::Clear(Vec::new()),
            Body::Plain(content) => opened(&content),
            Body::Sealed(sealed) => {
                let opener = self.session_id.and_then(|id| keys.opener(id));
                content_or_reason(opener.map_or(Err(NotOpened::NoKeys), |opener| opener.open(side, &head, sealed)))
            }
            Body::SealedHandshake(sealed) => content_or_reason(match &self.client_random {
                Some(random) => keys.recorded.open_handshake(random, side, &head, sealed),
                None => Err(NotOpened::NoKeys),
            }),
            Body::SealedEarly(sealed) => content_or_reason(match &self.client_random {
                Some(random) => keys.recorded.open_early(random, &head, sealed),
                None => Err(NotOpened::NoKeys),
            }),
        };
        Record { side, session_id: self.session_id, head, kind, message_bytes, outcome }
    }

    /// A ClientHello begins with its type, its size, a version, and the random (RFC 8446 §4.1.2).
    fn learn_random(&mut self, side: Side, data: &HandshakeData) {
        if side == Side::Client
            && data.level == HandshakeLevel::Initial
            && data.offset == 0
            && let Some(random) = data.data.get(6..38)
        {
            self.client_random = random.try_into().ok();
        }
    }
}

fn content_or_reason(content: Result<Bytes, NotOpened>) -> Outcome {
    match content {
        Ok(content) => opened(&content),
        Err(reason) => Outcome::Closed(reason),
    }
}

fn opened(content: &Bytes) -> Outcome {
    let mut frames = Vec::new();
    match decode_packet(content, &mut frames) {
        Ok(()) => {
            let frame_bytes: usize = frames.iter().map(Frame::encoded_len).sum();
            Outcome::Opened { frames, padding_bytes: content.len().saturating_sub(frame_bytes) }
        }
        Err(error) => Outcome::Damaged(error),
    }
}

/// Who sends a message of this kind, where the beginning of the connection was not seen.
fn sender_of(body: &Body) -> Side {
    const SERVER_HELLO: u8 = 2;
    match body {
        Body::Handshake(data) if data.data.first() == Some(&SERVER_HELLO) => Side::Server,
        Body::Joined(_) | Body::Started(_) | Body::VersionList(_) | Body::Refused | Body::SessionReset(_) => {
            Side::Server
        }
        _ => Side::Client,
    }
}

/// The word for a kind of message, as in `proto/longhaul.proto`.
fn kind_of(body: &Body) -> &'static str {
    match body {
        Body::Handshake(_) => "handshake",
        Body::SealedEarly(_) => "sealed_early",
        Body::SealedHandshake(_) => "sealed_handshake",
        Body::Sealed(_) => "sealed",
        Body::Plain(_) => "plain",
        Body::Join(_) => "join",
        Body::Joined(_) => "joined",
        Body::Start(_) => "start",
        Body::Started(_) => "started",
        Body::VersionList(_) => "version_list",
        Body::Refused => "refused",
        Body::SessionReset(_) => "session_reset",
    }
}

impl Record {
    /// The lane of the message.
    #[must_use]
    pub fn lane(&self) -> LaneId {
        self.head.lane_id
    }
}
