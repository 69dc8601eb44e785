//! Clients that come back: handshakes with tickets and early data, on raw channels and on QUIC, driven as the node does.
//!
//! On a QUIC link the channel's own handshake travels in messages of its own, as quinn carries it beside the lanes, and is
//! run by rustls here, too: its tickets, keys and exporter are the real ones.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use longhaul::base::{LaneId, PacketNumber};
use longhaul::crypto::identity::{ALPN_QUIC, ALPN_SESSION, ClientTickets, ResumingClient, TlsSettings, TrustAnchors};
use longhaul::crypto::{Handshake, LaneOpener, OpeningKeys};
use longhaul::session::{
    EstablishError, Established, Establishing, LaneEnd, LaneKind, LaneSetup, Progress, Session, SessionConfig,
};
use longhaul::wire::{Body, ClearMessage, FrameMessage, HandshakeData, Head, decode_packet, encode_clear};

use crate::arrival::{RESET_TOKEN, SESSION_ID};
use crate::identities::{Authority, MovingClock};
use crate::link::{Link, Path, Phase};
use crate::node::Node;
use crate::world::{CLIENT, SERVER, World};

/// What both nodes keep from one session to the next.
#[derive(Clone)]
pub struct Returning {
    pub client: TlsSettings,
    pub server: TlsSettings,
    /// The wall clocks of the two.
    pub clocks: [Arc<MovingClock>; 2],
    resuming: [ResumingClient; 2],
    /// Whether the server takes early data.
    pub takes_early: bool,
    /// A server of another implementation, that grants less than every server does.
    pub grants_less: bool,
}

impl Returning {
    pub fn new(authority: &Authority) -> Self {
        let clocks = [MovingClock::new(), MovingClock::new()];
        let settings =
            |name, clock: &Arc<MovingClock>| authority.settings_at(name, authority.anchors(), Arc::clone(clock) as _);
        let (client, server) = (settings("client", &clocks[CLIENT]), settings("server", &clocks[SERVER]));
        let expected = server.identity().node_id().clone();
        let resuming = [ALPN_SESSION, ALPN_QUIC].map(|alpn| client.resuming_client(&expected, alpn, true).unwrap());
        Self { client, server, clocks, resuming, takes_early: true, grants_less: false }
    }

    /// A server of this name that begins to run now: it knows no tickets.
    pub fn start_server(&mut self, authority: &Authority, name: &str, anchors: TrustAnchors) {
        self.server = authority.settings_at(name, anchors, Arc::clone(&self.clocks[SERVER]) as _);
    }

    fn resuming(&self, kind: LaneKind) -> &ResumingClient {
        &self.resuming[usize::from(kind == LaneKind::Quic)]
    }

    /// What the client has for channels of a kind.
    pub fn tickets(&self, kind: LaneKind) -> &ClientTickets {
        &self.resuming(kind).tickets
    }

    fn server_config(&self, config: &SessionConfig) -> SessionConfig {
        if self.grants_less {
            let mut config = config.clone();
            config.streams.session_window = longhaul::base::limits::EARLY_WINDOW_BYTES / 2;
            return config;
        }
        config.clone().granting_early()
    }
}

impl World {
    fn returning(&self) -> &Returning {
        self.returning.as_ref().expect("a world in which clients come back")
    }

    /// The client dials anew: what it may send early leaves with the first flight.
    pub fn come(&mut self, kind: LaneKind, path: Path) {
        let (config, now) = (self.nodes[CLIENT].config.clone(), self.now);
        let setup = LaneSetup { usage: config.first_lane, ..LaneSetup::new(kind) };
        let version = config.versions[0];
        if kind == LaneKind::Quic {
            let link = self.open_quic(path);
            let handshake = self.links[link].handshakes[CLIENT].as_ref().expect("it has just begun");
            if handshake.early_key().is_some() {
                let start = Established::start_message(&config, SESSION_ID, version);
                self.nodes[CLIENT].session = Some(Session::early_client(SESSION_ID, config, setup, now));
                self.links[link].ends[CLIENT].phase = Phase::Resuming;
                self.write(link, CLIENT, start);
            }
            return;
        }
        self.links.push(Link::new(kind, path, Phase::Establishing, Phase::Establishing));
        let tls = Arc::clone(&self.returning().resuming(kind).config);
        let establishing = Establishing::client(tls, &config, SESSION_ID, version).expect("a usable configuration");
        let early = establishing.early_session(config, setup, [0; 16], now).expect("a client's own parameters");
        self.nodes[CLIENT].establishing = Some(establishing);
        let link = self.links.len() - 1;
        if let Some(early) = early {
            self.nodes[CLIENT].session = Some(early.session);
            self.links[link].ends[CLIENT].phase = Phase::Resuming;
        }
        self.flush_handshake(link, CLIENT);
    }

    /// Both forget the session, and what is on its way is gone. Tickets stay.
    pub fn part(&mut self) {
        self.links.clear();
        self.oracle = crate::oracle::Oracle::default();
        for node in &mut self.nodes {
            let app = std::mem::take(&mut node.app);
            *node = Node::new(node.side, node.config.clone());
            node.app.reading = app.reading;
            node.app.answer = app.answer;
        }
    }

    /// The node ends what was begun on a channel, and does not try the same tickets again.
    pub fn on_channel_failed(&mut self, link: usize, side: usize) {
        let Some(returning) = &self.returning else { return };
        let Some(session) = self.nodes[side].session.as_mut().filter(|session| !session.is_connected()) else { return };
        session.fail_handshake(self.now);
        if side == CLIENT {
            returning.tickets(self.links[link].kind).purge();
        }
    }

    /// A message of a handshake, or an early packet.
    pub fn take_returning(
        &mut self,
        link: usize,
        side: usize,
        message: FrameMessage,
        size: usize,
    ) -> Result<(), EstablishError> {
        if self.links[link].kind == LaneKind::Quic {
            return self.take_early_over_quic(link, side, message, size);
        }
        let kind = self.links[link].kind;
        if side == SERVER && self.nodes[SERVER].establishing.is_none() {
            let returning = self.returning();
            let tls = returning.server.resuming_server_config(ALPN_SESSION, returning.takes_early).unwrap();
            let config = returning.server_config(&self.nodes[SERVER].config);
            self.nodes[SERVER].establishing = Some(Establishing::server(tls, &config, &message.head)?);
        }
        let (now, takes_early) = (self.now, self.returning().takes_early);
        let config = self.returning().server_config(&self.nodes[side].config);
        let node = &mut self.nodes[side];
        let config = if side == SERVER { config } else { node.config.clone() };
        let establishing = node.establishing.as_mut().ok_or(EstablishError::Violation("no handshake runs"))?;
        if matches!(message.body, Body::SealedEarly(_)) {
            let mut frames = Vec::new();
            let Some(head) = establishing.open_early(message, &mut frames)? else { return Ok(()) };
            self.oracle.relabel(&mut frames);
            let session = node.session.as_mut().expect("it was made when the key was there");
            session.handle_packet(now, &head, true, &mut frames, size);
            return refuse_when_ended(session);
        }
        let progress = establishing.handle_message(message)?;
        let setup = LaneSetup { usage: config.first_lane, ..LaneSetup::new(kind) };
        let token = if side == SERVER { RESET_TOKEN } else { [0; 16] };
        if progress == Progress::Complete {
            self.flush_handshake(link, side);
            let node = &mut self.nodes[side];
            let establishing = node.establishing.take().expect("it was just used");
            let certificates = match &mut node.session {
                Some(session) => establishing.finish_early(session, now)?,
                None => {
                    let established = establishing.finish(config, setup, token, now)?;
                    node.session = Some(established.session);
                    established.peer_certificates
                }
            };
            assert!(!certificates.is_empty(), "whose session is it?");
            self.open(link, side, LaneId::FIRST);
            return Ok(());
        }
        if side == SERVER
            && takes_early
            && node.session.is_none()
            && let Some(early) = establishing.early_session(config, setup, token, now)?
        {
            assert!(!early.peer_certificates.is_empty(), "whose session is it?");
            node.session = Some(early.session);
        }
        self.flush_handshake(link, side);
        Ok(())
    }

    // ---- QUIC ----

    fn open_quic(&mut self, path: Path) -> usize {
        let tls = Arc::clone(&self.returning().resuming(LaneKind::Quic).config);
        let handshake = Handshake::client(tls, Vec::new()).expect("a usable configuration");
        let link = Link::new(LaneKind::Quic, path, Phase::Establishing, Phase::Establishing);
        self.links.push(Link { handshakes: [Some(handshake), None], ..link });
        let link = self.links.len() - 1;
        self.flush_channel(link, CLIENT);
        link
    }

    fn flush_channel(&mut self, link: usize, side: usize) {
        while let Some(flight) = self.links[link].handshakes[side].as_mut().and_then(Handshake::poll_flight) {
            let data = HandshakeData { level: flight.level, offset: flight.offset, data: flight.data.into() };
            let mut out = BytesMut::new();
            encode_clear(&mut out, &Head::default(), &ClearMessage::Handshake(data));
            self.write(link, side, out);
        }
    }

    /// Takes what belongs to a QUIC channel's own handshake. Anything else is given back.
    pub fn take_of_channel(
        &mut self,
        link: usize,
        side: usize,
        message: FrameMessage,
    ) -> Result<Option<FrameMessage>, EstablishError> {
        let Some(returning) = self.returning.as_ref().filter(|_| self.links[link].kind == LaneKind::Quic) else {
            return Ok(Some(message));
        };
        let Body::Handshake(data) = message.body else { return Ok(Some(message)) };
        let handshake = &mut self.links[link].handshakes[side];
        if handshake.is_none() {
            let tls = returning.server.resuming_server_config(ALPN_QUIC, returning.takes_early).unwrap();
            *handshake = Some(Handshake::server(tls, Vec::new())?);
        }
        let handshake = handshake.as_mut().expect("it was just made");
        let was_complete = handshake.is_complete();
        handshake.handle_data(data.level, data.offset, &data.data)?;
        let is_completed = handshake.is_complete() && !was_complete;
        self.flush_channel(link, side);
        if is_completed {
            match side {
                CLIENT => self.on_client_completed(link)?,
                _ => self.on_server_completed(link)?,
            }
        }
        Ok(None)
    }

    fn on_client_completed(&mut self, link: usize) -> Result<(), EstablishError> {
        let (config, now) = (self.nodes[CLIENT].config.clone(), self.now);
        let handshake = self.links[link].handshakes[CLIENT].as_ref().expect("it is complete");
        let complete = handshake.complete(SESSION_ID)?;
        let is_accepted = handshake.is_early_data_accepted();
        let version = config.versions[0];
        let was_early = matches!(self.links[link].ends[CLIENT].phase, Phase::Resuming);
        if was_early && !is_accepted {
            // The connection is left, and another one dialled for the same session.
            self.close_end(link, CLIENT);
            self.open_quic(self.links[link].pipes[CLIENT].path);
            return Ok(());
        }
        if !was_early {
            self.write(link, CLIENT, Established::start_message(&config, SESSION_ID, version));
        }
        match &mut self.nodes[CLIENT].session {
            Some(session) => session.complete_handshake(&complete.secrets, complete.suite, was_early, now),
            None => {
                let setup = LaneSetup { usage: config.first_lane, ..LaneSetup::new(LaneKind::Quic) };
                let (secrets, suite) = (complete.secrets, complete.suite);
                let session = Established::early_over_tls(SESSION_ID, secrets, suite, config, setup, now);
                self.nodes[CLIENT].session = Some(session);
            }
        }
        self.links[link].ends[CLIENT].phase = Phase::Starting { version };
        self.links[link].ends[CLIENT].is_active = true;
        Ok(())
    }

    fn on_server_completed(&mut self, link: usize) -> Result<(), EstablishError> {
        let Some(session) = &mut self.nodes[SERVER].session else { return Ok(()) };
        let handshake = self.links[link].handshakes[SERVER].as_ref().expect("it is complete");
        let complete = handshake.complete(SESSION_ID)?;
        session.complete_handshake(&complete.secrets, complete.suite, true, self.now);
        let config = self.returning().server_config(&self.nodes[SERVER].config);
        self.write(link, SERVER, Established::started_message(&config, SESSION_ID));
        self.open(link, SERVER, LaneId::FIRST);
        Ok(())
    }

    /// What came on a QUIC channel's first lane before the server has begun a session, or completed one that is early.
    fn take_early_over_quic(
        &mut self,
        link: usize,
        side: usize,
        message: FrameMessage,
        size: usize,
    ) -> Result<(), EstablishError> {
        let FrameMessage { head, body } = message;
        if side == CLIENT {
            return Err(EstablishError::Violation("a server that speaks too early"));
        }
        let (config, now) = (self.returning().server_config(&self.nodes[SERVER].config), self.now);
        let Some(handshake) = &self.links[link].handshakes[SERVER] else {
            return Err(EstablishError::Violation("a packet in front of the handshake"));
        };
        let setup = LaneSetup { usage: config.first_lane, ..LaneSetup::new(LaneKind::Quic) };
        let node = &mut self.nodes[SERVER];
        if handshake.is_complete() {
            let Body::Start(parameters) = body else { return Err(EstablishError::Violation("no start")) };
            let complete = handshake.complete(SESSION_ID)?;
            let (secrets, suite) = (complete.secrets, complete.suite);
            let started = Established::started_message(&config, SESSION_ID);
            let session = Established::over_tls(
                SESSION_ID,
                head.version,
                secrets,
                suite,
                &parameters,
                config,
                setup,
                RESET_TOKEN,
                now,
            )?;
            node.session = Some(session);
            self.write(link, SERVER, started);
            self.open(link, SERVER, LaneId::FIRST);
            return Ok(());
        }
        if handshake.early_key().is_none() {
            // The channel has no keys for it.
            return Ok(());
        }
        assert!(handshake.peer_certificates().is_some_and(|chain| !chain.is_empty()), "whose session is it?");
        match (body, &mut node.session) {
            (Body::Start(parameters), session @ None) => {
                let early = Established::early_over_channel(
                    SESSION_ID,
                    head.version,
                    &parameters,
                    config,
                    setup,
                    RESET_TOKEN,
                    now,
                )?;
                *session = Some(early);
                Ok(())
            }
            (Body::Plain(content), Some(session)) => {
                let expected: PacketNumber = session.expected_packet(LaneId::FIRST);
                let mut opener = LaneOpener::new(LaneId::FIRST, OpeningKeys::none()).starting_at(expected);
                opener.accept_plain(&head)?;
                let mut frames = Vec::new();
                let content: Bytes = content;
                decode_packet(&content, &mut frames)?;
                self.oracle.relabel(&mut frames);
                session.handle_packet(now, &head, false, &mut frames, size);
                refuse_when_ended(session)
            }
            _ => Err(EstablishError::Violation("early data that is no packet")),
        }
    }

    /// Gives up what has not become a session in its time, as both nodes do.
    pub fn give_up(&mut self) {
        for link in 0..self.links.len() {
            for side in [CLIENT, SERVER] {
                if !self.links[link].ends[side].phase.is_closed() {
                    self.fail_end(link, side, LaneEnd::ChannelClosed);
                }
            }
        }
        self.settle();
    }
}

fn refuse_when_ended(session: &Session) -> Result<(), EstablishError> {
    if session.is_ending() {
        return Err(EstablishError::Violation("early data that must not be"));
    }
    Ok(())
}
