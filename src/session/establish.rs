//! From a fresh channel to a session.
//!
//! On a raw channel the TLS handshake runs inside frame_messages, and [`Establishing`] drives it: messages in, messages
//! out, until it is complete. On a channel that is TLS itself, the channel's handshake is the session's, and the two
//! sides only exchange their parameters: [`Established::over_tls`].
//!
//! ```text
//! client                                             server
//!   handshake{initial: ClientHello}             ──►
//!                                               ◄──  handshake{initial: ServerHello}
//!                                               ◄──  sealed_handshake{EncryptedExtensions … Finished}
//!   sealed_handshake{Certificate … Finished}    ──►  (the client is verified here)
//!   sealed{stream data …}                       ──►
//!                                               ◄──  sealed{accepted, …}   both sides are connected
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};

use super::config::SessionConfig;
use super::early::{EarlyKey, SessionKeys};
use super::lane::LaneSetup;
use super::state::{Session, SessionParts};
use crate::base::{PacketNumber, SessionId, Side, limits};
use crate::crypto::{Handshake, HandshakeError, OpenError, SessionSecrets, open_with, seal_with};
use crate::wire::{
    Body, ClearMessage, Frame, FrameMessage, HandshakeData, HandshakeLevel, Head, PaddingPolicy, SealedKind,
    TransportParameters, WireError, decode_packet, encode_clear, encode_packet_message,
};

/// Handshake bytes in one message: a flight with large certificates is split, so that each message stays below the
/// limit before authentication.
const HANDSHAKE_DATA_BYTES_MAX: usize = 8 * 1024;

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
pub enum EstablishError {
    /// The TLS handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The peer sent bytes that are no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A packet of the handshake could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The peer broke the protocol.
    #[error("peer broke the protocol: {0}")]
    Violation(&'static str),
    /// The peer refused us, and strangers are not told why.
    #[error(
        "the peer refused the handshake; its log says why (usual reasons: it does not trust this node's certificate, or limits new connections)"
    )]
    Refused,
    /// The peer speaks no version that this program speaks.
    #[error("the peer speaks the protocol versions {theirs:?}, this program {ours:?}")]
    NoCommonVersion {
        /// The peer's versions.
        theirs: Vec<u32>,
        /// Ours.
        ours: Vec<u32>,
    },
    /// Somebody on the way made the two sides use a lesser version.
    #[error("version {used} was negotiated, but both sides speak {best}: somebody tampered with the negotiation")]
    Downgrade {
        /// The version that was used.
        used: u32,
        /// The best that both speak.
        best: u32,
    },
}

/// How far a handshake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More messages are needed.
    Continue,
    /// [`Establishing::finish`] gives the session.
    Complete,
    /// The server does not speak the version: try again on a fresh channel with this one.
    Retry(u32),
}

/// A session, and whose it is.
pub struct Established {
    /// The session.
    pub session: Session,
    /// The peer's certificates, leaf first, verified by the TLS configuration's verifier. Empty for a client that showed
    /// none where none was needed: its session [awaits a token](Session::await_guest).
    pub peer_certificates: Vec<CertificateDer<'static>>,
}

/// A session before its handshake is complete, and whose it is.
pub struct EarlyEstablished {
    /// The session.
    pub session: Session,
    /// At a server the client's certificates, leaf first, from the handshake that its ticket comes from. Empty at a client.
    pub peer_certificates: Vec<CertificateDer<'static>>,
}

/// A handshake in progress on a raw channel.
pub struct Establishing {
    side: Side,
    session_id: SessionId,
    version: u32,
    versions: Vec<u32>,
    handshake: Handshake,
    sent: PacketNumber,
    received: PacketNumber,
    output: VecDeque<BytesMut>,
    scratch: Vec<Frame>,
    is_opened: bool,
    /// At a server, once it is complete: TLS messages that hold the client's tickets.
    tickets: Vec<HandshakeData>,
    /// Bytes of early packets that were thrown away.
    skipped_bytes: usize,
    /// The early packet that comes next.
    early_received: PacketNumber,
}

impl Establishing {
    /// The dialling side. `version` is the one to try; its first message is ready.
    ///
    /// # Errors
    /// [`EstablishError::Handshake`] when the configuration cannot be used.
    pub fn client(
        tls: Arc<ClientConfig>,
        config: &SessionConfig,
        session_id: SessionId,
        version: u32,
    ) -> Result<Self, EstablishError> {
        let handshake = Handshake::client(tls, config.parameters(session_id).encode())?;
        let mut establishing = Self::new(handshake, config, session_id, version);
        establishing.send_flights()?;
        Ok(establishing)
    }

    /// The accepting side, when the first message on a channel has come. The message itself is then given to
    /// [`handle_message`](Self::handle_message).
    ///
    /// # Errors
    /// [`EstablishError::NoCommonVersion`], after which [`poll_output`](Self::unsupported_version) has the answer for
    /// the peer; [`EstablishError::Violation`] when the message does not begin a session.
    pub fn server(tls: Arc<ServerConfig>, config: &SessionConfig, first: &Head) -> Result<Self, EstablishError> {
        let session_id = first.session_id.ok_or(EstablishError::Violation("first message without a session id"))?;
        if !config.versions.contains(&first.version) {
            return Err(EstablishError::NoCommonVersion { theirs: vec![first.version], ours: config.versions.clone() });
        }
        let handshake = Handshake::server(tls, config.parameters(session_id).encode())?;
        Ok(Self::new(handshake, config, session_id, first.version))
    }

    /// The answer to a version that is not spoken.
    #[must_use]
    pub fn unsupported_version(config: &SessionConfig, first: &Head) -> BytesMut {
        let head = Head { session_id: first.session_id, ..Head::default() };
        let mut out = BytesMut::new();
        encode_clear(&mut out, &head, &ClearMessage::VersionList(config.versions.clone()));
        out
    }

    /// The answer to everything that is refused before authentication.
    #[must_use]
    pub fn refusal() -> BytesMut {
        let mut out = BytesMut::new();
        encode_clear(&mut out, &Head::default(), &ClearMessage::Refused);
        out
    }

    fn new(handshake: Handshake, config: &SessionConfig, session_id: SessionId, version: u32) -> Self {
        Self {
            side: handshake.side(),
            session_id,
            version,
            versions: config.versions.clone(),
            handshake,
            sent: PacketNumber(0),
            received: PacketNumber(0),
            output: VecDeque::new(),
            scratch: Vec::new(),
            is_opened: false,
            tickets: Vec::new(),
            skipped_bytes: 0,
            early_received: PacketNumber(0),
        }
    }

    /// The session that the handshake makes.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// The next message to send.
    pub fn poll_output(&mut self) -> Option<BytesMut> {
        self.output.pop_front()
    }

    /// Takes the peer's next message.
    ///
    /// # Errors
    /// [`EstablishError`]; the channel has to be closed.
    pub fn handle_message(&mut self, message: FrameMessage) -> Result<Progress, EstablishError> {
        let FrameMessage { head, body } = message;
        match body {
            Body::Handshake(data) if data.level == HandshakeLevel::Initial => {
                self.handshake.handle_data(data.level, data.offset, &data.data)?;
            }
            Body::SealedHandshake(sealed) => {
                if head.packet_number != self.received || head.lane_id.0 != 0 {
                    return Err(EstablishError::Violation("handshake packet out of order"));
                }
                let key = self.handshake.opening_key().ok_or(EstablishError::Violation("sealed packet before keys"))?;
                let content = open_with(key, &head, sealed)?;
                self.received = head.packet_number.next().ok_or(EstablishError::Violation("packet number"))?;
                self.handle_packet(&content)?;
            }
            Body::VersionList(theirs) if self.side == Side::Client && !self.is_opened => {
                return self.choose_version(theirs);
            }
            Body::Refused => return Err(EstablishError::Refused),
            _ => return Err(EstablishError::Violation("message that does not belong to a handshake")),
        }
        self.is_opened = true;
        self.send_flights()?;
        Ok(if self.handshake.is_complete() { Progress::Complete } else { Progress::Continue })
    }

    /// The session of a complete handshake.
    ///
    /// # Errors
    /// [`EstablishError`] when the peer's parameters are wrong or a version was tampered with.
    pub fn finish(
        self,
        config: SessionConfig,
        first_lane: LaneSetup,
        reset_token: [u8; 16],
        now: Instant,
    ) -> Result<Established, EstablishError> {
        let complete = self.handshake.complete(self.session_id)?;
        let parameters = check_parameters(&complete.peer_parameters, self.session_id, &config, self.version)?;
        let parts = SessionParts {
            side: self.side,
            session_id: self.session_id,
            keys: SessionKeys::Complete { secrets: complete.secrets, suite: complete.suite },
            peer_parameters: parameters,
            first_lane,
            reset_token,
        };
        let mut session = Session::new(parts, config, now);
        if self.side == Side::Server && complete.peer_certificates.is_empty() {
            session.await_guest();
        }
        self.hand_over_tickets(&mut session);
        Ok(Established { session, peer_certificates: complete.peer_certificates })
    }

    /// The session that may be used before the handshake is complete: a client's when it resumes and the server takes
    /// early data, a server's when it has accepted some. [`finish_early`](Self::finish_early) completes it.
    ///
    /// # Errors
    /// [`EstablishError`] when the client's parameters are wrong.
    pub fn early_session(
        &self,
        config: SessionConfig,
        first_lane: LaneSetup,
        reset_token: [u8; 16],
        now: Instant,
    ) -> Result<Option<EarlyEstablished>, EstablishError> {
        let Some(key) = self.handshake.early_key() else { return Ok(None) };
        let session_id = self.session_id;
        let (peer_parameters, peer_certificates) = match self.side {
            Side::Client => (TransportParameters::early(config.versions.clone(), session_id), Vec::new()),
            Side::Server => {
                let parameters = self.handshake.peer_parameters().unwrap_or_default();
                let certificates = self.handshake.peer_certificates().unwrap_or_default().to_vec();
                (check_parameters(parameters, session_id, &config, self.version)?, certificates)
            }
        };
        let keys = SessionKeys::Pending(Some(EarlyKey(key)));
        let parts = SessionParts { side: self.side, session_id, keys, peer_parameters, first_lane, reset_token };
        Ok(Some(EarlyEstablished { session: Session::new(parts, config, now), peer_certificates }))
    }

    /// Completes an early session. Returns the peer's certificates, leaf first, verified.
    ///
    /// # Errors
    /// [`EstablishError`] when the peer's parameters are wrong or grant less than everybody has to; the session has to be
    /// closed.
    pub fn finish_early(
        self,
        session: &mut Session,
        now: Instant,
    ) -> Result<Vec<CertificateDer<'static>>, EstablishError> {
        let complete = self.handshake.complete(self.session_id)?;
        let parameters = check_parameters(&complete.peer_parameters, self.session_id, session.config(), self.version)?;
        if self.side == Side::Client {
            if !parameters.grants_early() {
                return Err(EstablishError::Violation("server that grants less than every server does"));
            }
            session.take_peer_parameters(parameters);
        }
        let is_accepted = self.handshake.is_early_data_accepted();
        session.complete_handshake(&complete.secrets, complete.suite, is_accepted, now);
        self.hand_over_tickets(session);
        Ok(complete.peer_certificates)
    }

    /// Opens an early packet of a client: its frames are `frames` then. `None` when early data is not accepted: the
    /// client sends it again.
    ///
    /// # Errors
    /// [`EstablishError`] when it was forged, or is more than a client may send.
    pub fn open_early(
        &mut self,
        message: FrameMessage,
        frames: &mut Vec<Frame>,
    ) -> Result<Option<Head>, EstablishError> {
        let FrameMessage { head, body: Body::SealedEarly(sealed) } = message else {
            return Err(EstablishError::Violation("message that is no early packet"));
        };
        let Some(key) = self.handshake.early_key() else {
            self.skipped_bytes += sealed.ciphertext_len();
            let is_allowed = self.side == Side::Server && self.is_opened;
            return if is_allowed && self.skipped_bytes <= limits::EARLY_SKIPPED_BYTES_MAX {
                Ok(None)
            } else {
                Err(EstablishError::Violation("early packets that no client sends"))
            };
        };
        if head.packet_number != self.early_received || head.lane_id.0 != 0 || self.side == Side::Client {
            return Err(EstablishError::Violation("early packet out of order"));
        }
        let content = open_with(&*key, &head, sealed)?;
        self.early_received = head.packet_number.next().ok_or(EstablishError::Violation("packet number"))?;
        decode_packet(&content, frames)?;
        Ok(Some(head))
    }

    /// Tickets are given and taken in packets of the session.
    fn hand_over_tickets(self, session: &mut Session) {
        match self.side {
            Side::Client => session.take_tickets_with(self.handshake),
            Side::Server => session.send_tickets(self.tickets),
        }
    }

    fn handle_packet(&mut self, content: &Bytes) -> Result<(), EstablishError> {
        decode_packet(content, &mut self.scratch)?;
        for frame in std::mem::take(&mut self.scratch) {
            let Frame::Handshake(data) = frame else {
                return Err(EstablishError::Violation("frame that does not belong to a handshake"));
            };
            if data.level != HandshakeLevel::Handshake {
                return Err(EstablishError::Violation("handshake bytes under the keys of another level"));
            }
            self.handshake.handle_data(data.level, data.offset, &data.data)?;
        }
        Ok(())
    }

    fn choose_version(&self, theirs: Vec<u32>) -> Result<Progress, EstablishError> {
        let common = self.versions.iter().find(|version| theirs.contains(version) && **version != self.version);
        common
            .map(|version| Progress::Retry(*version))
            .ok_or(EstablishError::NoCommonVersion { theirs, ours: self.versions.clone() })
    }

    fn send_flights(&mut self) -> Result<(), EstablishError> {
        while let Some(flight) = self.handshake.poll_flight() {
            let data = Bytes::from(flight.data);
            for start in (0..data.len()).step_by(HANDSHAKE_DATA_BYTES_MAX) {
                let part = data.slice(start..data.len().min(start + HANDSHAKE_DATA_BYTES_MAX));
                let part = HandshakeData { level: flight.level, offset: flight.offset + start as u64, data: part };
                self.send_part(part)?;
            }
        }
        Ok(())
    }

    fn send_part(&mut self, part: HandshakeData) -> Result<(), EstablishError> {
        let mut out = BytesMut::new();
        match part.level {
            HandshakeLevel::Initial => {
                let opens = self.side == Side::Client && part.offset == 0;
                let head = Head {
                    version: if opens { self.version } else { 0 },
                    session_id: opens.then_some(self.session_id),
                    ..Head::default()
                };
                encode_clear(&mut out, &head, &ClearMessage::Handshake(part));
            }
            HandshakeLevel::Handshake => {
                let head = Head { packet_number: self.sent, ..Head::default() };
                self.sent = self.sent.next().ok_or(EstablishError::Violation("packet number"))?;
                let key = self.handshake.sealing_key().ok_or(EstablishError::Violation("flight before keys"))?;
                let frames = [Frame::Handshake(part)];
                // Certificates differ in size: the coarsest blocks hide the most of it at no cost that matters here.
                let layout = encode_packet_message(
                    &mut out,
                    &head,
                    SealedKind::Handshake,
                    &frames,
                    PaddingPolicy::Block64,
                    limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX,
                );
                seal_with(key, &head, &mut out[layout.message], layout.header_len)
                    .map_err(|source| HandshakeError::Tls { source, alert: None })?;
            }
            // For the client, in packets of the session.
            HandshakeLevel::Traffic => {
                self.tickets.push(part);
                return Ok(());
            }
        }
        self.output.push_back(out);
        Ok(())
    }
}

impl Established {
    /// The client's first message on a channel that is TLS itself.
    #[must_use]
    pub fn start_message(config: &SessionConfig, session_id: SessionId, version: u32) -> BytesMut {
        let head = Head { version, session_id: Some(session_id), ..Head::default() };
        let mut out = BytesMut::new();
        encode_clear(&mut out, &head, &ClearMessage::Start(config.parameters(session_id).encode().into()));
        out
    }

    /// The server's answer to a start, with windows as [`SessionConfig::granting_early`] has them.
    #[must_use]
    pub fn started_message(config: &SessionConfig, session_id: SessionId) -> BytesMut {
        let mut out = BytesMut::new();
        let parameters = config.clone().granting_early().parameters(session_id).encode();
        encode_clear(&mut out, &Head::default(), &ClearMessage::Started(parameters.into()));
        out
    }

    /// The server's session on a channel whose own handshake is under way, when the client has sent its start as early
    /// data.
    ///
    /// # Errors
    /// As [`over_tls`](Self::over_tls).
    pub fn early_over_channel(
        session_id: SessionId,
        version: u32,
        peer_parameters: &[u8],
        config: SessionConfig,
        first_lane: LaneSetup,
        reset_token: [u8; 16],
        now: Instant,
    ) -> Result<Session, EstablishError> {
        let peer_parameters = check_parameters(peer_parameters, session_id, &config, version)?;
        let (side, keys) = (Side::Server, SessionKeys::Pending(None));
        let parts = SessionParts { side, session_id, keys, peer_parameters, first_lane, reset_token };
        Ok(Session::new(parts, config.granting_early(), now))
    }

    /// The server's session on a channel whose own handshake is over. `secrets` and `suite` come from the channel's
    /// exporter and cipher suite, `peer_parameters` from the client's start.
    ///
    /// # Errors
    /// [`EstablishError`] when the peer's parameters are wrong or a version was tampered with.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a handshake gives, and what the node adds; a struct would be built once"
    )]
    pub fn over_tls(
        session_id: SessionId,
        version: u32,
        secrets: SessionSecrets,
        suite: rustls::quic::Suite,
        peer_parameters: &[u8],
        config: SessionConfig,
        first_lane: LaneSetup,
        reset_token: [u8; 16],
        now: Instant,
    ) -> Result<Session, EstablishError> {
        let peer_parameters = check_parameters(peer_parameters, session_id, &config, version)?;
        let (side, keys) = (Side::Server, SessionKeys::Complete { secrets, suite });
        let parts = SessionParts { side, session_id, keys, peer_parameters, first_lane, reset_token };
        Ok(Session::new(parts, config.granting_early(), now))
    }
}

impl Established {
    /// The client's session on a channel whose own handshake is over, before the server has answered the start. It may
    /// send, within what every server grants; [`Session::handle_started`] takes the answer.
    #[must_use]
    pub fn early_over_tls(
        session_id: SessionId,
        secrets: SessionSecrets,
        suite: rustls::quic::Suite,
        config: SessionConfig,
        first_lane: LaneSetup,
        now: Instant,
    ) -> Session {
        let peer_parameters = TransportParameters::early(config.versions.clone(), session_id);
        let (side, reset_token) = (Side::Client, [0; 16]);
        let keys = SessionKeys::Complete { secrets, suite };
        let parts = SessionParts { side, session_id, keys, peer_parameters, first_lane, reset_token };
        Session::new(parts, config, now)
    }
}

impl Session {
    /// Takes the server's answer to a start in `version`: what it told about itself.
    ///
    /// # Errors
    /// [`EstablishError`] when its parameters are wrong, grant less than everybody has to, or a version was tampered with;
    /// the session has to be closed.
    pub fn handle_started(&mut self, parameters: &[u8], version: u32) -> Result<(), EstablishError> {
        let parameters = check_parameters(parameters, self.id(), self.config(), version)?;
        if !parameters.grants_early() {
            return Err(EstablishError::Violation("server that grants less than every server does"));
        }
        self.take_peer_parameters(parameters);
        Ok(())
    }

    /// The version that the session was made in, once the peer's parameters are known.
    pub(super) fn version(&self) -> u32 {
        best_common(&self.config().versions, &self.peer_parameters().versions).unwrap_or(crate::wire::VERSION)
    }
}

/// Checks what the transcript has authenticated: that both mean the same session, and that nobody chose a lesser
/// version for them (RFC 9368 §4).
fn check_parameters(
    bytes: &[u8],
    session_id: SessionId,
    config: &SessionConfig,
    used: u32,
) -> Result<TransportParameters, EstablishError> {
    let parameters = TransportParameters::decode(bytes)?;
    if parameters.session_id != session_id {
        return Err(EstablishError::Violation("transport parameters of another session"));
    }
    match best_common(&config.versions, &parameters.versions) {
        Some(best) if best == used => Ok(parameters),
        Some(best) => Err(EstablishError::Downgrade { used, best }),
        None => Err(EstablishError::Violation("peer does not list the version in use")),
    }
}

/// The version that two sides use.
fn best_common(ours: &[u32], theirs: &[u32]) -> Option<u32> {
    ours.iter().copied().filter(|version| theirs.contains(version)).max()
}
