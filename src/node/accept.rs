//! The accepting side: what a fresh channel becomes.
//!
//! Its first message says: a handshake or a start makes a session, a join adds it to one. Until the peer is
//! authenticated everything is bounded, and every refusal looks the same from outside.

use std::sync::Arc;
use std::time::Instant;

use ring::hmac;
use rustls::ServerConfig;
use tokio::sync::mpsc;

use super::carrier::spawn_carrier;
use super::config::NodeConfig;
use super::enrolment::{Arrival, EnrolmentDoor};
use super::error::ConnectError;
use super::fresh::{FirstLane, Fresh, Terms};
use super::guest::GuestAdmission;
use super::lane::{Awaited, spawn_lane};
use super::observer::NodeEvent;
use super::outer::{lane_kind, outer_secrets, outer_tls_error};
use super::registry::Registry;
use super::session::Session;
use super::shared::Shared;
use crate::base::{LaneId, SessionId, Side, limits};
use crate::channel::{
    Accepted, ChannelKind, Connection, ListenOptions, QuicAccepted, QuicConnection, QuicEarly, TlsGreeting, accept_tls,
};
use crate::crypto::identity::{ALPN_QUIC, ALPN_TLS, IdentityError, TlsSettings, quic_initial_suite};
use crate::crypto::{LaneOpener, OpeningKeys};
use crate::session::{EarlyEstablished, EstablishError, Established, Establishing, LaneKind, LaneSetup};
use crate::wire::{Body, FrameMessage, decode_packet};

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

/// What a connection became.
enum Opened {
    /// A lane of a session.
    Lane(LaneId),
    /// No channel: a machine asks for a certificate.
    Machine(Box<TlsGreeting>, Arc<dyn EnrolmentDoor>),
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
        self.registry.on_accepted(&shared);
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

    /// What signs the stateless resets of QUIC: another key out of the same secret.
    pub(super) fn datagram_reset_key(&self) -> hmac::Key {
        let key = hmac::sign(&self.reset_key, b"longhaul quic stateless reset");
        hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
    }

    pub(super) fn reset_token(&self, session_id: SessionId) -> [u8; 16] {
        let mac = hmac::sign(&self.reset_key, &session_id.0);
        std::array::from_fn(|index| mac.as_ref()[index])
    }
}
