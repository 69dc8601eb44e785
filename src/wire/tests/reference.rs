//! Our values as the generated types, so that prost can be asked for their bytes.

use bytes::Bytes;

use crate::base::Direction;
use crate::wire::proto::{self, frame::Kind, frame_message};
use crate::wire::{Body, ClearMessage, Frame, FrameMessage, HandshakeData, Head, Join, Joined};

pub(super) fn packet(frames: &[Frame], zeroes: usize) -> proto::Packet {
    proto::Packet { frame: frames.iter().map(frame).collect(), padding: vec![0; zeroes].into() }
}

pub(super) fn frame(frame: &Frame) -> proto::Frame {
    let unidirectional = |direction: &Direction| *direction == Direction::Uni;
    let kind = match frame.clone() {
        Frame::Stream(frame) => Kind::StreamData(proto::StreamData {
            stream_id: frame.stream_id.0,
            offset: frame.offset,
            fin: frame.fin,
            data: frame.data.to_bytes(),
        }),
        Frame::StreamOpen { stream_id, priority, replay_safe } => {
            Kind::StreamOpen(proto::StreamOpen { stream_id: stream_id.0, priority: priority.into(), replay_safe })
        }
        Frame::StreamReset { stream_id, code, final_size } => {
            Kind::StreamReset(proto::StreamReset { stream_id: stream_id.0, code: code.0, final_size })
        }
        Frame::StreamStop { stream_id, code } => {
            Kind::StreamStop(proto::StreamStop { stream_id: stream_id.0, code: code.0 })
        }
        Frame::Ack(ack) => Kind::Ack(proto::Ack {
            lane_id: ack.lane_id.0,
            next_packet_number: ack.next_packet_number.0,
            delay_us: ack.delay_us,
            range: ack.ranges.iter().map(|&(gap, length)| proto::AckRange { gap, length }).collect(),
        }),
        Frame::MaxData { maximum } => Kind::MaxData(proto::MaxData { maximum }),
        Frame::MaxStreamData { stream_id, maximum } => {
            Kind::MaxStreamData(proto::MaxStreamData { stream_id: stream_id.0, maximum })
        }
        Frame::MaxStreams { direction, maximum } => {
            Kind::MaxStreams(proto::MaxStreams { unidirectional: unidirectional(&direction), maximum })
        }
        Frame::DataBlocked { limit } => Kind::DataBlocked(proto::DataBlocked { limit }),
        Frame::StreamDataBlocked { stream_id, limit } => {
            Kind::StreamDataBlocked(proto::StreamDataBlocked { stream_id: stream_id.0, limit })
        }
        Frame::StreamsBlocked { direction, limit } => {
            Kind::StreamsBlocked(proto::StreamsBlocked { unidirectional: unidirectional(&direction), limit })
        }
        Frame::Ping { sequence } => Kind::Ping(proto::Ping { sequence }),
        Frame::Pong { sequence, delay_us } => Kind::Pong(proto::Pong { sequence, delay_us }),
        Frame::KeyUpdate { epoch } => Kind::KeyUpdate(proto::KeyUpdate { epoch: epoch.0 }),
        Frame::Handshake(data) => Kind::Handshake(handshake(&data)),
        Frame::Accepted { reset_token } => Kind::Accepted(proto::Accepted { reset_token: copy(reset_token.expose()) }),
        Frame::MaxLanes { maximum } => Kind::MaxLanes(proto::MaxLanes { maximum }),
        Frame::LaneClose { lane_id, code } => Kind::LaneClose(proto::LaneClose { lane_id: lane_id.0, code: code.0 }),
        Frame::Close { code, reason } => Kind::Close(proto::Close { code: code.0, reason }),
        Frame::GoAway { code, reason } => Kind::GoAway(proto::GoAway { code: code.0, reason }),
        Frame::JoinConfirm { nonce } => Kind::JoinConfirm(proto::JoinConfirm { nonce: copy(&nonce) }),
        Frame::Guest(credential) => {
            let (id, proof, name) = (credential.token_id(), credential.proof(), credential.name().as_bytes());
            Kind::Guest(proto::Guest { credential: [&id[..], &proof, name].concat().into() })
        }
        Frame::Datagram(datagram) => Kind::Datagram(proto::Datagram {
            stream_id: datagram.stream_id.0,
            number: datagram.piece.map_or(0, |piece| piece.number),
            size: datagram.piece.map_or(0, |piece| piece.size),
            offset: datagram.piece.map_or(0, |piece| piece.offset),
            data: datagram.data,
        }),
    };
    proto::Frame { kind: Some(kind) }
}

pub(super) fn clear(message: &ClearMessage) -> frame_message::Body {
    match message {
        ClearMessage::Handshake(data) => frame_message::Body::Handshake(handshake(data)),
        ClearMessage::Join(message) => join(message),
        ClearMessage::Joined(message) => joined(message),
        ClearMessage::Start(parameters) => frame_message::Body::Start(proto::Start { parameters: parameters.clone() }),
        ClearMessage::Started(parameters) => {
            frame_message::Body::Started(proto::Started { parameters: parameters.clone() })
        }
        ClearMessage::VersionList(versions) => {
            frame_message::Body::VersionList(proto::VersionList { version: versions.clone() })
        }
        ClearMessage::Refused => frame_message::Body::Refused(proto::Refused {}),
        ClearMessage::SessionReset(token) => {
            frame_message::Body::SessionReset(proto::SessionReset { token: copy(token) })
        }
    }
}

pub(super) fn with_head(head: &Head, body: frame_message::Body) -> proto::FrameMessage {
    proto::FrameMessage {
        version: head.version,
        session_id: head.session_id.map_or_else(Bytes::new, |id| copy(&id.0)),
        lane_id: head.lane_id.0,
        epoch: head.epoch.0,
        packet_number: head.packet_number.0,
        body: Some(body),
    }
}

/// What our decoder gave, as prost would give it.
pub(super) fn decoded(mut message: FrameMessage) -> proto::FrameMessage {
    let body = match &mut message.body {
        Body::SealedEarly(sealed) => frame_message::Body::SealedEarly(copy(sealed.parts_mut().1)),
        Body::SealedHandshake(sealed) => frame_message::Body::SealedHandshake(copy(sealed.parts_mut().1)),
        Body::Sealed(sealed) => frame_message::Body::Sealed(copy(sealed.parts_mut().1)),
        Body::Plain(content) => frame_message::Body::Plain(content.clone()),
        body => clear(&as_clear(body).expect("packets were matched above")),
    };
    with_head(&message.head, body)
}

/// The body as what would be encoded, unless it is a packet.
pub(super) fn as_clear(body: &Body) -> Option<ClearMessage> {
    Some(match body {
        Body::Handshake(data) => ClearMessage::Handshake(data.clone()),
        Body::Join(join) => ClearMessage::Join(join.clone()),
        Body::Joined(joined) => ClearMessage::Joined(*joined),
        Body::Start(parameters) => ClearMessage::Start(parameters.clone()),
        Body::Started(parameters) => ClearMessage::Started(parameters.clone()),
        Body::VersionList(versions) => ClearMessage::VersionList(versions.clone()),
        Body::Refused => ClearMessage::Refused,
        Body::SessionReset(token) => ClearMessage::SessionReset(*token),
        Body::SealedEarly(_) | Body::SealedHandshake(_) | Body::Sealed(_) | Body::Plain(_) => return None,
    })
}

fn handshake(data: &HandshakeData) -> proto::Handshake {
    proto::Handshake { level: data.level as i32, offset: data.offset, data: data.data.clone() }
}

fn join(join: &Join) -> frame_message::Body {
    frame_message::Body::Join(proto::Join {
        kind: join.kind,
        nonce: copy(&join.nonce),
        channel_binding: join.channel_binding.clone(),
        lane_count: join.lane_count,
        mac: copy(&join.mac),
        weight: join.usage.weight,
        priority: join.usage.priority,
        role: join.usage.role as u32,
    })
}

fn joined(joined: &Joined) -> frame_message::Body {
    frame_message::Body::Joined(proto::Joined { nonce: copy(&joined.nonce), mac: copy(&joined.mac) })
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
