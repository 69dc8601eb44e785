//! The accepting side: what a fresh channel becomes.
//!
//! Its first message says: a handshake or a start makes a session, a join adds it to one. Until the peer is
//! authenticated everything is bounded, and every refusal looks the same from outside.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::BytesMut;
use ring::hmac;
use rustls::ServerConfig;
use tokio::sync::mpsc;

use super::carrier::spawn_carrier;
use super::config::NodeConfig;
use super::dial::{channel_binding, lane_kind, outer_secrets, outer_tls_error};
use super::early::Unfinished;
use super::enrolment::{Arrival, EnrolmentDoor};
use super::error::ConnectError;
use super::guest::{Door, GuestAdmission};
use super::lane::{Awaited, LaneIo, spawn_lane};
use super::messages::MessageReader;
use super::observer::NodeEvent;
use super::registry::Registry;
use super::revocation::{self, is_revoked};
use super::session::Session;
use super::shared::Shared;
use crate::base::{LaneId, SessionId, Side, SystemEntropy, limits};
use crate::channel::{
    Accepted, ChannelInfo, ChannelKind, Connection, ListenOptions, OuterTls, QuicAccepted, QuicConnection, QuicEarly,
    TlsConnection, TlsGreeting, accept_tls,
};
use crate::crypto::identity::{
    ALPN_QUIC, ALPN_SESSION, ALPN_TLS, IdentityError, PeerIdentity, TlsSettings, quic_initial_suite,
};
use crate::crypto::{LaneOpener, OpeningKeys};
use crate::session::{EarlyEstablished, EstablishError, Established, Establishing, LaneKind, LaneSetup, Progress};
use crate::wire::{Body, ClearMessage, FrameMessage, Head, Join, decode_packet, encode_clear};

/// What all channels of a node's listeners share.
pub(super) struct Acceptor {
    pub(super) tls: TlsSettings,
    pub(super) config: NodeConfig,
    pub(super) registry: Arc<Registry>,
    pub(super) sessions: mpsc::Sender<Session>,
    /// Proves to a client that this node, restarted, does not know its session.
    pub(super) reset_key: hmac::Key,
    /// New sessions are refused while the memory limit is reached.
    pub(super) is_full: std::sync::atomic::AtomicBool,
    /// Judges peers without a certificate.
    pub(super) guests: Option<Arc<dyn GuestAdmission>>,
    /// Answers machines that ask for a certificate.
    pub(super) enrolment: Option<Arc<dyn EnrolmentDoor>>,
}

/// What a listener lets peers do in their first seconds.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// Peers that come back may send early data.
    early_data: bool,
    /// Peers may come without a certificate, and prove a token.
    takes_guests: bool,
    /// Machines may come that ask for a certificate.
    enrolls: bool,
}

/// What a connection became.
enum Opened {
    /// A lane of a session.
    Lane(LaneId),
    /// No channel: a machine asks for a certificate.
    Machine(Box<TlsGreeting>, Arc<dyn EnrolmentDoor>),
}

/// A channel in its first seconds.
pub(super) struct Fresh {
    reader: MessageReader,
    writer: crate::channel::WriteHalf,
    abort: crate::channel::AbortHandle,
    kind: ChannelKind,
    outer: Option<OuterTls>,
    peer_address: String,
    peer_ip: Option<IpAddr>,
    /// As [`ChannelInfo::path`].
    path: Option<u64>,
    terms: Terms,
    /// When its first message has to be there.
    first_until: tokio::time::Instant,
    /// Of a channel that has a lane already.
    first: Option<FirstLane>,
}

/// The lane that brought a channel into a session. The channel's other lanes have to be of the same one.
#[derive(Clone)]
struct FirstLane {
    session: Weak<Shared>,
    id: LaneId,
}

impl Acceptor {
    /// Takes a channel through its first seconds. Errors are for the log: the peer gets the generic answer, or none.
    pub(super) async fn take(self: Arc<Self>, accepted: Accepted, terms: Terms) {
        let Accepted { connection, permit, .. } = accepted;
        let peer_address = connection.info.peer.clone();
        let timeout = limits::HANDSHAKE_TIMEOUT;
        let kind = lane_kind(connection.info.kind);
        let begun = Instant::now();
        let outcome = match tokio::time::timeout(timeout, self.open(connection, terms)).await {
            Ok(Ok(Opened::Machine(greeting, door))) => {
                if let Err(error) = door.serve(*greeting).await {
                    tracing::debug!(peer = %peer_address, %error, "enrolment connection ended");
                }
                return drop(permit);
            }
            Ok(Ok(Opened::Lane(lane))) => Ok(lane),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ConnectError::TimedOut(timeout)),
        };
        drop(permit);
        self.tell(begun, kind, outcome.as_ref());
        if let Err(error) = outcome {
            tracing::info!(peer = %peer_address, %error, "channel refused");
        }
    }

    /// Takes a QUIC channel through its first seconds, and then the lanes that its peer opens.
    pub(super) async fn take_quic(self: Arc<Self>, accepted: QuicAccepted, terms: Terms) {
        let peer_address = accepted.peer;
        let timeout = limits::HANDSHAKE_TIMEOUT;
        let begun = Instant::now();
        let outcome = match tokio::time::timeout(timeout, self.receive_quic(accepted, terms)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::TimedOut(timeout)),
        };
        self.tell(begun, LaneKind::Quic, outcome.as_ref().map(|(_, first)| &first.id));
        match outcome {
            Ok((connection, channel)) => self.take_lanes(connection, channel, terms).await,
            Err(error) => tracing::info!(peer = %peer_address, %error, "channel refused"),
        }
    }

    /// Tells what a channel became. One that failed early is counted as a handshake: it never said what it wanted.
    fn tell(&self, begun: Instant, kind: LaneKind, outcome: Result<&LaneId, &ConnectError>) {
        let (side, kind, time, error) = (Side::Server, Some(kind), begun.elapsed(), outcome.err());
        let is_join = match outcome {
            Ok(lane) => *lane != LaneId::FIRST,
            Err(error) => matches!(error, ConnectError::JoinRefused),
        };
        self.registry.tell(&match is_join {
            true => NodeEvent::Join { side, kind, time, error },
            false => NodeEvent::Handshake { side, kind, time, error },
        });
    }

    async fn receive_quic(
        &self,
        accepted: QuicAccepted,
        terms: Terms,
    ) -> Result<(QuicConnection, FirstLane), ConnectError> {
        let tls = self.server_config(ALPN_QUIC, terms)?;
        let (mut early, permit) = accepted.begin(&tls, quic_initial_suite())?;
        let connection = early.connection().clone();
        let lane = tokio::select! {
            biased;
            outcome = &mut early => outcome.map(|_| None)?,
            lane = connection.accept_lane(), if terms.early_data => lane.ok(),
        };
        // Without a ticket nobody is known by now, and nothing counts.
        let lane = match lane {
            Some(lane) if !connection.known_certificates().is_empty() => {
                let (shared, lane, connection) = Box::pin(self.receive_early_quic(early, lane, terms)).await?;
                spawn_carrier(&shared, lane, connection.clone());
                drop(permit);
                return Ok((connection, FirstLane { session: Arc::downgrade(&shared), id: lane }));
            }
            Some(lane) => {
                early.await?;
                Some(lane)
            }
            None => None,
        };
        let connection = connection.completed();
        if let Some(lane) = lane {
            let (shared, lane) = self.receive(Fresh::new(lane, Some(connection.outer().clone()), terms)).await?;
            spawn_carrier(&shared, lane, connection.clone());
            drop(permit);
            return Ok((connection, FirstLane { session: Arc::downgrade(&shared), id: lane }));
        }
        let first = tokio::time::timeout(limits::FIRST_MESSAGE_TIMEOUT, connection.accept_lane()).await;
        let first = first.map_err(|_| ConnectError::TimedOut(limits::FIRST_MESSAGE_TIMEOUT))??;
        let (shared, lane) = self.receive(Fresh::new(first, Some(connection.outer().clone()), terms)).await?;
        spawn_carrier(&shared, lane, connection.clone());
        drop(permit);
        Ok((connection, FirstLane { session: Arc::downgrade(&shared), id: lane }))
    }

    /// A session that a client begins with early data, and then the end of its handshake.
    async fn receive_early_quic(
        &self,
        mut handshake: QuicEarly,
        lane: Connection,
        terms: Terms,
    ) -> Result<(Arc<Shared>, LaneId, QuicConnection), ConnectError> {
        let connection = handshake.connection().clone();
        let mut fresh = Fresh::new(lane, None, terms);
        let first = tokio::time::timeout(limits::FIRST_MESSAGE_TIMEOUT, fresh.reader.next()).await;
        let (message, _) =
            first.map_err(|_| ConnectError::TimedOut(limits::FIRST_MESSAGE_TIMEOUT))?.map_err(std::io::Error::from)?;
        let FrameMessage { head, body: Body::Start(parameters) } = message else {
            return Err(EstablishError::Violation("early data that begins no session").into());
        };
        let session_id = head.session_id.ok_or(EstablishError::Violation("start without a session id"))?;
        if !self.config.session.versions.contains(&head.version) {
            // It is told when it can be: the client has to be there.
            handshake.await?;
            fresh.writer.write_all(&Establishing::unsupported_version(&self.config.session, &head)).await?;
            let ours = self.config.session.versions.clone();
            return Err(EstablishError::NoCommonVersion { theirs: vec![head.version], ours }.into());
        }
        let session = Established::early_over_channel(
            session_id,
            head.version,
            &parameters,
            self.config.session.clone(),
            LaneSetup { path: fresh.path, ..LaneSetup::new(lane_kind(fresh.kind)) },
            self.reset_token(session_id),
            Instant::now(),
        )?;
        let peer_certificates = connection.known_certificates();
        let unfinished = self.begin_early(&mut fresh, EarlyEstablished { session, peer_certificates }).await?;
        let mut opener = LaneOpener::new(LaneId::FIRST, OpeningKeys::none());
        let mut frames = Vec::new();
        loop {
            let (FrameMessage { head, body }, size) = tokio::select! {
                biased;
                outcome = &mut handshake => {
                    outcome?;
                    break;
                }
                message = fresh.reader.next() => message.map_err(std::io::Error::from)?,
            };
            let Body::Plain(content) = body else {
                return Err(EstablishError::Violation("early data that is no packet").into());
            };
            opener.accept_plain(&head).map_err(EstablishError::from)?;
            decode_packet(&content, &mut frames).map_err(EstablishError::from)?;
            if !unfinished.handle_packet(&head, false, &mut frames, size) {
                return Err(EstablishError::Violation("early data that must not be").into());
            }
        }
        let connection = connection.completed();
        let (secrets, suite) = outer_secrets(connection.outer(), session_id, self.tls.key_log())?;
        fresh.writer.write_all(&Established::started_message(&self.config.session, session_id)).await?;
        let completed: Result<_, ConnectError> = unfinished.complete(|session, now| {
            session.complete_handshake(&secrets, suite, true, now);
            Ok(())
        });
        let shared = completed?;
        tracing::info!(session = %session_id, "client of an early session is authenticated");
        spawn_lane(&shared, fresh.into_lane(LaneId::FIRST), Awaited::Nothing);
        Ok((shared, LaneId::FIRST, connection))
    }

    /// Further lanes. A peer that opens one and does not join it is told nothing and loses the channel.
    async fn take_lanes(self: Arc<Self>, connection: QuicConnection, first: FirstLane, terms: Terms) {
        while let Ok(lane) = connection.accept_lane().await {
            let (acceptor, connection, first) = (Arc::clone(&self), connection.clone(), first.clone());
            tokio::spawn(async move {
                let fresh = Fresh { first: Some(first), ..Fresh::new(lane, Some(connection.outer().clone()), terms) };
                if let Err(error) = acceptor.receive(fresh).await {
                    tracing::info!(peer = %connection.info().peer, %error, "lane refused");
                    connection.close();
                }
            });
        }
    }

    /// Makes of a channel or a lane what its first message says: the session, and the lane in it.
    async fn receive(&self, mut fresh: Fresh) -> Result<(Arc<Shared>, LaneId), ConnectError> {
        let first = tokio::time::timeout_at(fresh.first_until, fresh.reader.next()).await;
        let (message, _) =
            first.map_err(|_| ConnectError::TimedOut(limits::FIRST_MESSAGE_TIMEOUT))?.map_err(std::io::Error::from)?;
        let FrameMessage { head, body } = message;
        // On the heap: a channel that stays silent holds no memory for what would follow.
        match body {
            Body::Join(join) => Box::pin(self.join(fresh, &head, &join)).await,
            Body::Start(parameters) if fresh.outer.is_some() && fresh.first.is_none() => {
                Box::pin(self.start(fresh, &head, &parameters)).await
            }
            Body::Handshake(_) if fresh.outer.is_none() => {
                Box::pin(self.handshake(fresh, FrameMessage { head, body })).await
            }
            _ => {
                fresh.refuse().await;
                Err(EstablishError::Violation("first message that opens nothing").into())
            }
        }
    }

    async fn open(&self, connection: Connection, terms: Terms) -> Result<Opened, ConnectError> {
        let has_tls = connection.info.kind == ChannelKind::Tls;
        let door = self.enrolment.as_ref().filter(|_| terms.enrolls && connection.info.kind != ChannelKind::Unix);
        let fresh = match door {
            Some(door) => {
                let first_until = Fresh::first_until();
                match Arrival::of(connection).await? {
                    Arrival::Machine(greeting) => return Ok(Opened::Machine(greeting, Arc::clone(door))),
                    Arrival::Tls(greeting) => {
                        let tls = Box::pin(greeting.accept_channel(self.outer_config(terms)?)).await;
                        Fresh::over_tls(tls.map_err(|error| outer_tls_error(&error))?, terms)
                    }
                    Arrival::Raw(connection, reader) => {
                        Fresh { reader, first_until, ..Fresh::new(connection, None, terms) }
                    }
                }
            }
            None if has_tls => {
                let tls = accept_tls(connection, self.outer_config(terms)?).await;
                Fresh::over_tls(tls.map_err(|error| outer_tls_error(&error))?, terms)
            }
            None => Fresh::new(connection, None, terms),
        };
        self.receive(fresh).await.map(|(_, lane)| Opened::Lane(lane))
    }

    /// For a `tls://` channel. Without early data: tokio-rustls hands it out only when the handshake is complete.
    fn outer_config(&self, terms: Terms) -> Result<Arc<ServerConfig>, IdentityError> {
        self.server_config(ALPN_TLS, Terms { early_data: false, ..terms })
    }

    async fn handshake(&self, mut fresh: Fresh, first: FrameMessage) -> Result<(Arc<Shared>, LaneId), ConnectError> {
        // Whether or not early data is taken now: a client may hold a ticket from a time when it was.
        let config = &self.config.session.clone().granting_early();
        let tls = self.server_config(ALPN_SESSION, fresh.terms)?;
        let mut establishing = match Establishing::server(tls, config, &first.head) {
            Ok(establishing) => establishing,
            Err(error @ EstablishError::NoCommonVersion { .. }) => {
                fresh.writer.write_all(&Establishing::unsupported_version(config, &first.head)).await?;
                return Err(error.into());
            }
            Err(error) => {
                fresh.refuse().await;
                return Err(error.into());
            }
        };
        let session_id = establishing.session_id();
        let setup = LaneSetup { path: fresh.path, ..LaneSetup::new(lane_kind(fresh.kind)) };
        let (mut next, mut size) = (first, 0);
        let mut early: Option<Unfinished> = None;
        let mut frames = Vec::new();
        loop {
            if matches!(next.body, Body::SealedEarly(_)) {
                let outcome = establishing.open_early(next, &mut frames);
                let taken = outcome.map(|head| Some((head?, early.as_ref()?))).map(|packet| {
                    packet.is_none_or(|(head, session)| session.handle_packet(&head, true, &mut frames, size))
                });
                match taken {
                    Ok(true) => {}
                    Ok(false) => return Err(EstablishError::Violation("early data that must not be").into()),
                    Err(error) => {
                        fresh.refuse().await;
                        return Err(error.into());
                    }
                }
            } else {
                let progress = match establishing.handle_message(next) {
                    Ok(progress) => progress,
                    Err(error) => {
                        fresh.refuse().await;
                        return Err(error.into());
                    }
                };
                while let Some(message) = establishing.poll_output() {
                    fresh.writer.write_all(&message).await?;
                }
                if progress == Progress::Complete {
                    break;
                }
                if fresh.terms.early_data && early.is_none() {
                    let token = self.reset_token(session_id);
                    let made = establishing.early_session(config.clone(), setup, token, Instant::now());
                    early = match made {
                        Ok(Some(made)) => Some(self.begin_early(&mut fresh, made).await?),
                        Ok(None) => None,
                        Err(error) => {
                            fresh.refuse().await;
                            return Err(error.into());
                        }
                    };
                }
            }
            (next, size) = fresh.reader.next().await.map_err(std::io::Error::from)?;
        }
        if let Some(early) = early {
            let completed = early.complete(|session, now| establishing.finish_early(session, now));
            let shared = match completed {
                Ok(shared) => shared,
                Err(error) => {
                    fresh.refuse().await;
                    return Err(error.into());
                }
            };
            tracing::info!(session = %session_id, "client of an early session is authenticated");
            spawn_lane(&shared, fresh.into_lane(LaneId::FIRST), Awaited::Nothing);
            return Ok((shared, LaneId::FIRST));
        }
        let made = establishing.finish(config.clone(), setup, self.reset_token(session_id), Instant::now());
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                fresh.refuse().await;
                return Err(error.into());
            }
        };
        let mut session = made.session;
        let peer = match &made.peer_certificates[..] {
            [] => self.ask_guest(&mut fresh, &mut session).await?,
            chain => PeerIdentity::from_chain(chain)?,
        };
        self.begin(fresh, session, peer).await
    }

    async fn start(
        &self,
        mut fresh: Fresh,
        head: &Head,
        parameters: &[u8],
    ) -> Result<(Arc<Shared>, LaneId), ConnectError> {
        let config = &self.config.session;
        let outer = fresh.outer.clone().ok_or(EstablishError::Violation("start on a raw channel"))?;
        let node = match outer.peer_certificates() {
            [] => None,
            chain => Some(PeerIdentity::from_chain(chain)?),
        };
        let session_id = head.session_id.ok_or(EstablishError::Violation("start without a session id"))?;
        if !config.versions.contains(&head.version) {
            fresh.writer.write_all(&Establishing::unsupported_version(config, head)).await?;
            let ours = config.versions.clone();
            return Err(EstablishError::NoCommonVersion { theirs: vec![head.version], ours }.into());
        }
        let (secrets, suite) = outer_secrets(&outer, session_id, self.tls.key_log())?;
        let setup = LaneSetup { path: fresh.path, ..LaneSetup::new(lane_kind(fresh.kind)) };
        let session = Established::over_tls(
            session_id,
            head.version,
            secrets,
            suite,
            parameters,
            config.clone(),
            setup,
            self.reset_token(session_id),
            Instant::now(),
        );
        match session {
            Ok(mut session) => {
                if node.is_none() {
                    session.await_guest();
                }
                fresh.writer.write_all(&Established::started_message(config, session_id)).await?;
                let peer = match node {
                    Some(peer) => peer,
                    None => self.ask_guest(&mut fresh, &mut session).await?,
                };
                self.begin(fresh, session, peer).await
            }
            Err(error) => {
                fresh.refuse().await;
                Err(error.into())
            }
        }
    }

    /// Who a client without a certificate is, by the token that it proves.
    async fn ask_guest(
        &self,
        fresh: &mut Fresh,
        session: &mut crate::session::Session,
    ) -> Result<PeerIdentity, ConnectError> {
        let Some(guests) = self.guests.as_ref().filter(|_| fresh.terms.takes_guests) else {
            fresh.refuse().await;
            return Err(IdentityError::NoCertificate.into());
        };
        let kind = lane_kind(fresh.kind);
        let (reader, writer, address) = (&mut fresh.reader, &mut fresh.writer, fresh.peer_ip);
        Door { session, reader, writer, kind, address }.ask(guests).await
    }

    /// What a listener with these options lets peers do. Who takes guests takes no early data: it would be a way round
    /// their token.
    pub(super) fn terms(&self, options: &ListenOptions) -> Terms {
        let takes_guests = options.takes_guests && self.guests.is_some();
        let enrolls = options.enrolls && self.enrolment.is_some();
        Terms { early_data: options.early_data && !takes_guests, takes_guests, enrolls }
    }

    /// For one connection. Where guests are taken nobody resumes.
    pub(super) fn server_config(&self, alpn: &[u8], terms: Terms) -> Result<Arc<ServerConfig>, IdentityError> {
        match self.guests.as_ref().filter(|_| terms.takes_guests) {
            Some(guests) => self.tls.guest_server_config(alpn, guests.authority()),
            None => self.tls.resuming_server_config(alpn, terms.early_data),
        }
    }

    /// A session is made: from here on it belongs to the application.
    async fn begin(
        &self,
        mut fresh: Fresh,
        session: crate::session::Session,
        peer: PeerIdentity,
    ) -> Result<(Arc<Shared>, LaneId), ConnectError> {
        if self.is_full.load(std::sync::atomic::Ordering::Relaxed) {
            fresh.refuse().await;
            return Err(ConnectError::NotJoinable);
        }
        let shared = self.register(&mut fresh, session, peer).await?;
        spawn_lane(&shared, fresh.into_lane(LaneId::FIRST), Awaited::Nothing);
        self.hand_out(&shared)?;
        Ok((shared, LaneId::FIRST))
    }

    /// A session whose client has sent early data: the application gets it at once.
    async fn begin_early(&self, fresh: &mut Fresh, made: EarlyEstablished) -> Result<Unfinished, ConnectError> {
        if self.is_full.load(std::sync::atomic::Ordering::Relaxed) {
            fresh.refuse().await;
            return Err(ConnectError::NotJoinable);
        }
        let peer = PeerIdentity::from_chain(&made.peer_certificates)?;
        let shared = self.register(fresh, made.session, peer).await?;
        let unfinished = Unfinished::new(Arc::clone(&shared));
        self.hand_out(&shared)?;
        Ok(unfinished)
    }

    async fn register(
        &self,
        fresh: &mut Fresh,
        mut session: crate::session::Session,
        peer: PeerIdentity,
    ) -> Result<Arc<Shared>, ConnectError> {
        let (id, early) = (session.id(), session.is_early());
        session.limit_life(self.tls.life_of(peer.not_after_unix));
        tracing::info!(session = %id, peer = %peer.node_id, address = %fresh.peer_address, kind = %fresh.kind, early, "session accepted");
        session.set_send_limit(self.registry.limiter().session(&peer.node_id, false));
        let shared = Shared::new(session, peer, None, self.registry.observer());
        if !self.registry.insert(id, &shared) {
            fresh.refuse().await;
            return Err(EstablishError::Violation("session id that is in use").into());
        }
        if is_revoked(&shared, &self.registry, self.tls.trust()) {
            fresh.refuse().await;
            revocation::close(&shared);
            return Err(ConnectError::Revoked);
        }
        Ok(shared)
    }

    fn hand_out(&self, shared: &Arc<Shared>) -> Result<(), ConnectError> {
        let session = Session::new(Arc::clone(shared));
        // A full backlog refuses: an application that takes no sessions must not make this node hold them all.
        self.sessions.try_send(session).map_err(|_| ConnectError::NotJoinable)
    }

    async fn join(&self, mut fresh: Fresh, head: &Head, join: &Join) -> Result<(Arc<Shared>, LaneId), ConnectError> {
        let session_id = head.session_id.ok_or(EstablishError::Violation("join without a session id"))?;
        let Some(shared) = self.registry.find(session_id).filter(|shared| shared.closed().is_none()) else {
            let mut answer = BytesMut::new();
            let head = Head { session_id: Some(session_id), ..Head::default() };
            encode_clear(&mut answer, &head, &ClearMessage::SessionReset(self.reset_token(session_id)));
            fresh.writer.write_all(&answer).await?;
            return Err(EstablishError::Violation("join to a session that is not known").into());
        };
        if is_revoked(&shared, &self.registry, self.tls.trust()) {
            fresh.refuse().await;
            return Err(ConnectError::Revoked);
        }
        if shared.peer.is_guest() && !fresh.terms.takes_guests {
            fresh.refuse().await;
            return Err(EstablishError::Violation("guest at a listener that takes none").into());
        }
        let mut binding = Vec::new();
        if let Some(outer) = &fresh.outer {
            // A guest has none to show on further channels either. That it is the guest, the proof of the join says.
            if !(shared.peer.is_guest() && outer.peer_certificates().is_empty()) {
                let peer = PeerIdentity::from_chain(outer.peer_certificates())?;
                if peer.node_id != shared.peer.node_id {
                    fresh.refuse().await;
                    return Err(ConnectError::WrongPeer { expected: shared.peer.node_id.clone(), got: peer.node_id });
                }
            }
            binding = channel_binding(outer)?.to_vec();
        }
        let channel = match &fresh.first {
            Some(first) if !std::ptr::eq(first.session.as_ptr(), Arc::as_ptr(&shared)) => {
                fresh.refuse().await;
                return Err(EstablishError::Violation("lane of another session than the first of its channel").into());
            }
            first => first.as_ref().map(|first| first.id),
        };
        let setup = LaneSetup { channel, path: fresh.path, ..LaneSetup::new(lane_kind(fresh.kind)) };
        let joined = shared.with_timer(|inner| {
            inner.session.handle_join(head, join, setup, &binding, &mut SystemEntropy::new(), Instant::now())
        });
        match joined {
            Ok(joined) => {
                let mut answer = BytesMut::new();
                encode_clear(&mut answer, &Head::default(), &ClearMessage::Joined(joined));
                let written = fresh.writer.write_all(&answer).await;
                spawn_lane(&shared, fresh.into_lane(head.lane_id), Awaited::Nothing);
                written?;
                Ok((shared, head.lane_id))
            }
            Err(error) => {
                fresh.refuse().await;
                tracing::debug!(session = %session_id, %error, "join refused");
                Err(ConnectError::JoinRefused)
            }
        }
    }

    /// What signs the stateless resets of QUIC: another key out of the same secret.
    pub(super) fn datagram_reset_key(&self) -> hmac::Key {
        let key = hmac::sign(&self.reset_key, b"longhaul quic stateless reset");
        hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
    }

    fn reset_token(&self, session_id: SessionId) -> [u8; 16] {
        let mac = hmac::sign(&self.reset_key, &session_id.0);
        std::array::from_fn(|index| mac.as_ref()[index])
    }
}

impl Fresh {
    fn new(connection: Connection, outer: Option<OuterTls>, terms: Terms) -> Self {
        let abort = connection.abort_handle();
        let reader = Self::reader(&connection);
        let (_, writer) = connection.io.split();
        let path = connection.info.path();
        let ChannelInfo { kind, peer: peer_address, peer_ip, .. } = connection.info;
        let first_until = Self::first_until();
        Self { reader, writer, abort, kind, outer, peer_address, peer_ip, path, terms, first_until, first: None }
    }

    fn over_tls(tls: TlsConnection, terms: Terms) -> Self {
        Self::new(tls.connection, Some(tls.outer), terms)
    }

    /// Reads its messages, as strangers may send them.
    pub(super) fn reader(connection: &Connection) -> MessageReader {
        let (read, _) = connection.io.clone().split();
        MessageReader::new(read, limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX)
    }

    fn first_until() -> tokio::time::Instant {
        tokio::time::Instant::now() + limits::FIRST_MESSAGE_TIMEOUT
    }

    /// The one answer that strangers get.
    async fn refuse(&mut self) {
        // A peer that is gone cannot be told, and does not have to be.
        let _ = self.writer.write_all(&Establishing::refusal()).await;
        let _ = self.writer.shutdown().await;
    }

    fn into_lane(self, id: LaneId) -> LaneIo {
        LaneIo { id, kind: lane_kind(self.kind), reader: self.reader, writer: self.writer, abort: self.abort }
    }
}
