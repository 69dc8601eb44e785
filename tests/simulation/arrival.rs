//! What a node does with bytes that arrive: messages, handshakes, joins, packets.

use bytes::BytesMut;
use longhaul::base::{CloseCode, LaneId, limits};
use longhaul::crypto::{LaneOpener, SessionSecrets};
use longhaul::session::{EstablishError, Established, Establishing, LaneEnd, LaneKind, LaneSetup, Progress};
use longhaul::wire::{
    Body, ClearMessage, FrameMessage, Head, decode_message, decode_packet, encode_clear, message_size,
};

use crate::identities::IDENTITIES;
use crate::link::{Link, Path, Phase};
use crate::random::Random;
use crate::world::{CLIENT, SERVER, World};
use longhaul::base::{Entropy, SessionId};

/// The name of every simulated session.
pub const SESSION_ID: SessionId = SessionId([0x5e; 16]);

/// What every simulated server proves a reset with.
pub const RESET_TOKEN: [u8; 16] = [0x7e; 16];

/// Why a link cannot go on.
#[derive(Debug)]
pub enum Broken {
    Wire,
    Seal,
    Join,
    Violation,
    Establish(EstablishError),
}

impl Broken {
    fn code(&self) -> CloseCode {
        match self {
            Self::Wire => CloseCode::ENCODING_ERROR,
            Self::Seal => CloseCode::SEAL_ERROR,
            Self::Join => CloseCode::JOIN_REFUSED,
            Self::Violation => CloseCode::PROTOCOL_VIOLATION,
            Self::Establish(_) => CloseCode::HANDSHAKE_FAILED,
        }
    }
}

impl World {
    /// Opens the first link; the handshake is under way.
    pub fn dial(&mut self, kind: LaneKind, path: Path) -> usize {
        let version = self.nodes[CLIENT].config.versions[0];
        self.dial_version(kind, path, version)
    }

    pub fn dial_version(&mut self, kind: LaneKind, path: Path, version: u32) -> usize {
        let link = Link::new(kind, path, Phase::Establishing, Phase::Establishing);
        self.links.push(Link { shared_path: self.first_path, ..link });
        let link = self.links.len() - 1;
        let config = &self.nodes[CLIENT].config;
        if kind == LaneKind::Tls || kind == LaneKind::Quic {
            let start = Established::start_message(config, SESSION_ID, version);
            let setup = LaneSetup { usage: config.first_lane, ..LaneSetup::new(kind) };
            let session =
                Established::early_over_tls(SESSION_ID, shared_secrets(), suite(), config.clone(), setup, self.now);
            self.nodes[CLIENT].session = Some(session);
            self.links[link].ends[CLIENT].phase = Phase::Starting { version };
            self.write(link, CLIENT, start);
        } else {
            let tls = self.client_tls.clone().unwrap_or_else(|| IDENTITIES.client.clone());
            let establishing = Establishing::client(tls, config, SESSION_ID, version);
            self.nodes[CLIENT].establishing = Some(establishing.expect("a usable configuration"));
            self.flush_handshake(link, CLIENT);
        }
        link
    }

    /// Takes everything that has arrived.
    pub fn deliver(&mut self) {
        for link in 0..self.links.len() {
            for side in [CLIENT, SERVER] {
                self.deliver_to(link, side);
            }
        }
    }

    /// Takes what has arrived at one end of a link.
    pub fn deliver_to(&mut self, link: usize, side: usize) {
        if self.nodes[side].is_stopped {
            return;
        }
        while let Some(bytes) = self.links[link].pipes[1 - side].read(self.now) {
            self.receive(link, side, &bytes);
        }
        if self.links[link].pipes[1 - side].poll_end() && !self.links[link].ends[side].phase.is_closed() {
            self.fail_end(link, side, LaneEnd::ChannelClosed);
        }
    }

    /// Bytes come in parts that have nothing to do with messages.
    pub fn receive(&mut self, link: usize, side: usize, bytes: &[u8]) {
        let cut = if self.random.one_in(4) { self.random.below(bytes.len() as u64 + 1) as usize } else { 0 };
        for part in [&bytes[..cut], &bytes[cut..]] {
            self.links[link].ends[side].buffer.extend_from_slice(part);
            if let Err(broken) = self.take_messages(link, side) {
                let code = broken.code();
                if let Broken::Establish(error) = broken {
                    self.nodes[side].failure.get_or_insert(error);
                }
                self.fail_end(link, side, LaneEnd::Closed(code));
            }
        }
    }

    fn take_messages(&mut self, link: usize, side: usize) -> Result<(), Broken> {
        loop {
            let end = &mut self.links[link].ends[side];
            let size_max = match end.phase {
                Phase::Closed => return Ok(()),
                Phase::Open { .. } => limits::FRAME_MESSAGE_BYTES_MAX,
                _ => limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX,
            };
            let size = message_size(&end.buffer, size_max).map_err(|_| Broken::Wire)?;
            let Some(message) = decode_message(&mut end.buffer, size_max).map_err(|_| Broken::Wire)? else {
                return Ok(());
            };
            self.take_message(link, side, message, size.unwrap_or(0))?;
        }
    }

    fn take_message(&mut self, link: usize, side: usize, message: FrameMessage, size: usize) -> Result<(), Broken> {
        let taken = self.take_of_channel(link, side, message).map_err(Broken::Establish)?;
        let Some(message) = taken else { return Ok(()) };
        match &mut self.links[link].ends[side].phase {
            Phase::Closed => Ok(()),
            Phase::Establishing | Phase::Resuming if self.returning.is_some() => {
                self.take_returning(link, side, message, size).map_err(Broken::Establish)
            }
            Phase::Resuming => Err(Broken::Violation),
            Phase::Establishing => self.take_handshake(link, side, message).map_err(Broken::Establish),
            Phase::Starting { version } => {
                let version = *version;
                self.take_started(link, version, message.body).map_err(Broken::Establish)
            }
            Phase::Joining { request, lane, .. } => {
                let Body::Joined(joined) = message.body else { return Err(Broken::Violation) };
                let (lane, session) = (*lane, self.nodes[CLIENT].session());
                if !session.complete_join(request, &joined) {
                    return Err(Broken::Join);
                }
                self.open(link, side, lane);
                Ok(())
            }
            Phase::Accepting => self.take_join(link, message),
            Phase::Open { opener, .. } => {
                let session = self.nodes[side].session.as_mut().expect("an open link has a session");
                let FrameMessage { head, body } = message;
                let (content, is_sealed) = match body {
                    Body::Sealed(sealed) => {
                        if !opener.has_key(head.epoch) {
                            opener.set_keys(session.opening_keys());
                        }
                        (opener.open(&head, sealed).map_err(|_| Broken::Seal)?, true)
                    }
                    Body::Plain(content) => {
                        opener.accept_plain(&head).map_err(|_| Broken::Seal)?;
                        (content, false)
                    }
                    _ => return Err(Broken::Violation),
                };
                let mut frames = Vec::new();
                decode_packet(&content, &mut frames).map_err(|_| Broken::Wire)?;
                session.handle_packet(self.now, &head, is_sealed, &mut frames, size);
                Ok(())
            }
        }
    }

    fn take_handshake(&mut self, link: usize, side: usize, message: FrameMessage) -> Result<(), EstablishError> {
        let kind = self.links[link].kind;
        if kind == LaneKind::Tls || kind == LaneKind::Quic {
            return self.take_start(link, message);
        }
        let now = self.now;
        let node = &mut self.nodes[side];
        if side == SERVER && node.establishing.is_none() {
            let tls = self.server_tls.clone().unwrap_or_else(|| IDENTITIES.server.clone());
            match Establishing::server(tls, &node.config, &message.head) {
                Ok(establishing) => node.establishing = Some(establishing),
                Err(error) => {
                    if matches!(error, EstablishError::NoCommonVersion { .. }) {
                        let answer = Establishing::unsupported_version(&node.config, &message.head);
                        self.write(link, side, answer);
                    }
                    return Err(error);
                }
            }
        }
        let establishing = node.establishing.as_mut().ok_or(EstablishError::Violation("no handshake runs"))?;
        let progress = establishing.handle_message(message)?;
        self.flush_handshake(link, side);
        match progress {
            Progress::Continue => {}
            Progress::Retry(version) => {
                self.close_end(link, side);
                self.nodes[SERVER].failure = None;
                self.dial_version(kind, self.links[link].pipes[side].path, version);
            }
            Progress::Complete => {
                let node = &mut self.nodes[side];
                let establishing = node.establishing.take().expect("it was just used");
                let path = self.links[link].shared_path;
                let setup = LaneSetup { usage: node.config.first_lane, path, ..LaneSetup::new(kind) };
                let token = if side == SERVER { RESET_TOKEN } else { [0; 16] };
                let established = establishing.finish(node.config.clone(), setup, token, now)?;
                assert!(!established.peer_certificates.is_empty());
                node.session = Some(established.session);
                self.open(link, side, LaneId::FIRST);
            }
        }
        Ok(())
    }

    pub fn flush_handshake(&mut self, link: usize, side: usize) {
        while let Some(out) = self.nodes[side].establishing.as_mut().and_then(Establishing::poll_output) {
            self.write(link, side, out);
        }
    }

    /// The answer to a start: on another version the session that has begun is nothing, and another one begins.
    fn take_started(&mut self, link: usize, version: u32, body: Body) -> Result<(), EstablishError> {
        match body {
            Body::Started(parameters) => {
                self.nodes[CLIENT].session().handle_started(&parameters, version)?;
                self.open(link, CLIENT, LaneId::FIRST);
                Ok(())
            }
            Body::VersionList(theirs) => {
                let ours = self.nodes[CLIENT].config.versions.clone();
                let common = ours.iter().copied().find(|ours| theirs.contains(ours) && *ours != version);
                let version = common.ok_or(EstablishError::NoCommonVersion { theirs, ours })?;
                self.close_end(link, CLIENT);
                self.nodes[SERVER].failure = None;
                self.dial_version(self.links[link].kind, self.links[link].pipes[CLIENT].path, version);
                Ok(())
            }
            _ => Err(EstablishError::Violation("no answer to a start")),
        }
    }

    /// A channel that is TLS itself: both sides know the exporter's secrets and each other.
    fn take_start(&mut self, link: usize, message: FrameMessage) -> Result<(), EstablishError> {
        let (node, kind) = (&mut self.nodes[SERVER], self.links[link].kind);
        let Body::Start(parameters) = message.body else { return Err(EstablishError::Violation("no start")) };
        node.config = node.config.clone().granting_early();
        let (ours, theirs) = (node.config.versions.clone(), message.head.version);
        if !ours.contains(&theirs) {
            let answer = Establishing::unsupported_version(&node.config, &message.head);
            self.write(link, SERVER, answer);
            return Err(EstablishError::NoCommonVersion { theirs: vec![theirs], ours });
        }
        let session = Established::over_tls(
            SESSION_ID,
            message.head.version,
            shared_secrets(),
            suite(),
            &parameters,
            node.config.clone(),
            LaneSetup { usage: node.config.first_lane, ..LaneSetup::new(kind) },
            RESET_TOKEN,
            self.now,
        )?;
        let mut started = Established::started_message(&node.config, SESSION_ID);
        if let Some(parameters) = &self.started {
            started.clear();
            encode_clear(&mut started, &Head::default(), &ClearMessage::Started(parameters.encode().into()));
        }
        node.session = Some(session);
        self.write(link, SERVER, started);
        self.open(link, SERVER, LaneId::FIRST);
        Ok(())
    }

    fn take_join(&mut self, link: usize, message: FrameMessage) -> Result<(), Broken> {
        let Body::Join(join) = message.body else { return Err(Broken::Violation) };
        let binding = Self::channel_binding(self.links[link].kind, link);
        let (now, mut random) = (self.now, self.random.fork());
        let Link { kind, channel, shared_path, .. } = self.links[link];
        let setup = LaneSetup { channel, path: shared_path, ..LaneSetup::new(kind) };
        let session = self.nodes[SERVER].session.as_mut().ok_or(Broken::Violation)?;
        let joined =
            session.handle_join(&message.head, &join, setup, &binding, &mut random, now).map_err(|_| Broken::Join)?;
        let mut out = BytesMut::new();
        encode_clear(&mut out, &Head::default(), &ClearMessage::Joined(joined));
        self.write(link, SERVER, out);
        self.open(link, SERVER, message.head.lane_id);
        Ok(())
    }

    pub fn open(&mut self, link: usize, side: usize, lane: LaneId) {
        let session = self.nodes[side].session();
        // Some packets of a lane that began with early data have come already.
        let opener = LaneOpener::new(lane, session.opening_keys()).starting_at(session.expected_packet(lane));
        let end = &mut self.links[link].ends[side];
        end.phase = Phase::Open { lane, opener };
        end.is_active = true;
    }
}

/// Secrets as two exporters of one TLS connection would give them.
pub fn shared_secrets() -> SessionSecrets {
    SessionSecrets::from_exporter(SESSION_ID, |out, label, context| {
        let seed = label.iter().chain(context).fold(1, |sum: u64, byte| sum.wrapping_mul(257) + u64::from(*byte));
        Random::new(seed).fill(out);
        Ok::<_, ()>(())
    })
    .expect("a generator does not fail")
}

/// The packet protection that the simulated TLS channels negotiated.
pub fn suite() -> rustls::quic::Suite {
    let provider = longhaul::crypto::identity::default_provider();
    provider.cipher_suites[0].tls13().and_then(rustls::Tls13CipherSuite::quic_suite).expect("AES-256-GCM")
}
