//! An authenticated peer that says what it likes: its handshake and its seals are right, its frames are whatever a test
//! gives it. No session of the core stands behind it, which would keep to the protocol.

use bytes::{Bytes, BytesMut};
use longhaul::base::{CloseCode, Entropy, LaneId, PacketNumber, SessionId, Side, SystemEntropy, limits};
use longhaul::channel::Address;
use longhaul::crypto::identity::ALPN_SESSION;
use longhaul::crypto::{Flight, Handshake, KeySchedule, LaneOpener, SealedKeys};
use longhaul::session::SessionConfig;
use longhaul::wire::{
    Body, ClearMessage, Frame, FrameMessage, HandshakeData, HandshakeLevel, Head, PaddingPolicy, SealedKind, VERSION,
    decode_packet, encode_clear, encode_packet_message,
};
use rustls::quic::PacketKey;

use crate::common::settings;
use crate::rogue::{Raw, client_config};

/// The dialling side of a session with one TCP lane.
pub(crate) struct Liar {
    /// The session's name.
    pub(crate) id: SessionId,
    raw: Raw,
    keys: KeySchedule,
    opener: LaneOpener,
    sent: PacketNumber,
}

impl Liar {
    /// Dials as node `name` until it is accepted: a machine that stands still for a moment may miss a deadline.
    pub(crate) async fn dial(name: &str, address: &Address) -> Self {
        loop {
            if let Some(liar) = Self::dial_once(name, address).await {
                return liar;
            }
        }
    }

    async fn dial_once(name: &str, address: &Address) -> Option<Self> {
        let base = settings(name);
        let config = client_config(&base, &base.identity().certified_key(), ALPN_SESSION);
        // A name that the node still remembers would be refused.
        let mut id = SessionId([0; SessionId::LEN]);
        SystemEntropy::new().fill(&mut id.0);
        let parameters = SessionConfig::default().parameters(id).encode();
        let mut handshake = Handshake::client(config, parameters).expect("a configuration");
        let mut raw = Raw::dial(address).await;
        let mut number = PacketNumber(0);
        loop {
            while let Some(flight) = handshake.poll_flight() {
                raw.send(&encode_flight(&handshake, flight, id, &mut number)).await;
            }
            if handshake.is_complete() {
                break;
            }
            let message = raw.next().await?;
            if message.body == Body::Refused {
                return None;
            }
            handle_flight(&mut handshake, message);
        }
        let complete = handshake.complete(id).expect("it is complete");
        let keys = KeySchedule::new(complete.suite, Side::Client, &complete.secrets);
        let opener = LaneOpener::new(LaneId::FIRST, keys.opening_keys());
        let mut liar = Self { id, raw, keys, opener, sent: PacketNumber(0) };
        let first = liar.next().await?;
        assert!(first.iter().any(|frame| matches!(frame, Frame::Accepted { .. })), "{first:?}");
        Some(liar)
    }

    /// Sends one packet of these frames.
    pub(crate) async fn send(&mut self, frames: &[Frame]) {
        let head =
            Head { lane_id: LaneId::FIRST, epoch: self.keys.epoch(), packet_number: self.sent, ..Head::default() };
        self.sent = self.sent.next().expect("few packets");
        let mut out = BytesMut::new();
        let layout = encode_packet_message(
            &mut out,
            &head,
            SealedKind::Traffic,
            frames,
            PaddingPolicy::None,
            limits::FRAME_MESSAGE_BYTES_MAX,
        );
        let key = SealedKeys(self.keys.current().local.clone());
        key.seal(&head, &mut out[layout.message], layout.header_len).expect("room for the tag");
        self.raw.send(&out).await;
    }

    /// Steps the keys: the next packet is sealed with those of the next epoch, whatever the node thinks of it.
    pub(crate) fn step_keys(&mut self) {
        assert!(self.keys.advance());
        self.opener.set_keys(self.keys.opening_keys());
    }

    /// The frames of the node's next packet; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<Frame>> {
        let FrameMessage { head, body } = self.raw.next().await?;
        let sealed = match body {
            Body::Sealed(sealed) => sealed,
            Body::Refused => return None,
            other => panic!("a node seals: {other:?}"),
        };
        let content = self.opener.open(&head, sealed).expect("the node's packet");
        let mut frames = Vec::new();
        decode_packet(&content, &mut frames).expect("the node's frames");
        Some(frames)
    }

    /// Reads to the end: the code with which the node closed the session, if it said one.
    pub(crate) async fn closed(&mut self) -> Option<CloseCode> {
        let mut told = None;
        while let Some(frames) = self.next().await {
            let close = |frame: Frame| if let Frame::Close { code, .. } = frame { Some(code) } else { None };
            told = told.or(frames.into_iter().find_map(close));
        }
        told
    }
}

fn encode_flight(handshake: &Handshake, flight: Flight, id: SessionId, number: &mut PacketNumber) -> BytesMut {
    let mut out = BytesMut::new();
    let (level, opens) = (flight.level, flight.level == HandshakeLevel::Initial && flight.offset == 0);
    let part = HandshakeData { level, offset: flight.offset, data: flight.data.into() };
    match level {
        HandshakeLevel::Initial => {
            let (version, session_id) = if opens { (VERSION, Some(id)) } else { (0, None) };
            let head = Head { version, session_id, ..Head::default() };
            encode_clear(&mut out, &head, &ClearMessage::Handshake(part));
        }
        HandshakeLevel::Handshake => {
            let head = Head { packet_number: *number, ..Head::default() };
            *number = number.next().expect("few packets");
            let key = handshake.sealing_key().expect("keys of this level");
            let layout = encode_packet_message(
                &mut out,
                &head,
                SealedKind::Handshake,
                &[Frame::Handshake(part)],
                PaddingPolicy::None,
                limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX,
            );
            let (header, content) = out[layout.message].split_at_mut(layout.header_len);
            let (content, tag_room) = content.split_at_mut(content.len() - limits::SEAL_TAG_BYTES);
            let tag = key.encrypt_in_place_for_path(0, head.packet_number.0, header, content).expect("a tag");
            tag_room.copy_from_slice(tag.as_ref());
        }
        HandshakeLevel::Traffic => panic!("a client has no tickets to give"),
    }
    out
}

fn handle_flight(handshake: &mut Handshake, message: FrameMessage) {
    match message.body {
        Body::Handshake(data) => {
            handshake.handle_data(data.level, data.offset, &data.data).expect("the server's hello");
        }
        Body::SealedHandshake(mut sealed) => {
            let key: &dyn PacketKey = handshake.opening_key().expect("keys of this level");
            let (header, content) = sealed.parts_mut();
            let opened = key.decrypt_in_place_for_path(0, message.head.packet_number.0, header, content);
            let size = opened.expect("the server's packet").len();
            let mut frames = Vec::new();
            let content: Bytes = sealed.into_plaintext(size).freeze();
            decode_packet(&content, &mut frames).expect("frames");
            for frame in frames {
                let Frame::Handshake(data) = frame else { panic!("a handshake: {frame:?}") };
                handshake.handle_data(data.level, data.offset, &data.data).expect("the server's flight");
            }
        }
        other => panic!("a handshake: {other:?}"),
    }
}
