//! What the first message of an accepted channel says is done here: a handshake or a start makes a session, a join adds the
//! channel's lane to one.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;

use super::accept::Acceptor;
use super::early::Unfinished;
use super::error::ConnectError;
use super::fresh::Fresh;
use super::guest::Door;
use super::lane::{Awaited, spawn_lane};
use super::outer::{channel_binding, lane_kind, outer_secrets};
use super::revocation::{self, is_revoked};
use super::session::Session;
use super::shared::Shared;
use crate::base::{LaneId, SystemEntropy};
use crate::crypto::identity::{ALPN_SESSION, IdentityError, PeerIdentity};
use crate::session::{EarlyEstablished, EstablishError, Established, Establishing, LaneSetup, Progress};
use crate::wire::{Body, ClearMessage, FrameMessage, Head, Join, encode_clear};

impl Acceptor {
    pub(super) async fn handshake(
        &self,
        mut fresh: Fresh,
        first: FrameMessage,
    ) -> Result<(Arc<Shared>, LaneId), ConnectError> {
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
            self.registry.on_accepted(&shared);
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

    pub(super) async fn start(
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
    pub(super) async fn ask_guest(
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

    /// A session is made: from here on it belongs to the application.
    pub(super) async fn begin(
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
        self.registry.on_accepted(&shared);
        spawn_lane(&shared, fresh.into_lane(LaneId::FIRST), Awaited::Nothing);
        self.hand_out(&shared)?;
        Ok((shared, LaneId::FIRST))
    }

    /// A session whose client has sent early data: the application gets it at once.
    pub(super) async fn begin_early(
        &self,
        fresh: &mut Fresh,
        made: EarlyEstablished,
    ) -> Result<Unfinished, ConnectError> {
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

    pub(super) async fn register(
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

    pub(super) fn hand_out(&self, shared: &Arc<Shared>) -> Result<(), ConnectError> {
        let session = Session::new(Arc::clone(shared));
        // A full backlog refuses: an application that takes no sessions must not make this node hold them all.
        self.sessions.try_send(session).map_err(|_| ConnectError::NotJoinable)
    }

    pub(super) async fn join(
        &self,
        mut fresh: Fresh,
        head: &Head,
        join: &Join,
    ) -> Result<(Arc<Shared>, LaneId), ConnectError> {
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
}
