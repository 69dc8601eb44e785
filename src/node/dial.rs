//! The dialling side: a channel that makes a session, and channels that join it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::mpsc;

use super::attempt::{Attempt, Begun, Made};
use super::carrier::spawn_carrier;
use super::config::LinkConfig;
use super::error::ConnectError;
use super::lane::{Awaited, LaneIo, spawn_lane};
use super::messages::MessageReader;
use super::observer::NodeEvent;
use super::outer::{channel_binding, lane_kind, lane_setup, outer_tls_error, quic_error, told};
use super::registry::Registry;
use super::revocation::{self, is_revoked};
use super::session::{self, Unclaimed};
use super::shared::{LaneEvent, Shared};
use crate::base::{CloseCode, Entropy, LaneId, SessionId, Side, SystemEntropy, limits};
use crate::channel::{
    Address, ChannelKind, Connection, DialOptions, OuterTls, QuicConnection, QuicDialled, QuicEarly, connect_tls, dial,
    dial_quic, dial_quic_early,
};
use crate::crypto::identity::{
    ALPN_QUIC, ALPN_SESSION, ALPN_TLS, PeerIdentity, ResumingClient, TlsSettings, quic_initial_suite,
};
use crate::session::{CloseReason, EstablishError, LaneEnd, LaneKind, LaneSetup, Session, SessionConfig};
use crate::wire::{ClearMessage, LaneUsage, encode_clear};

/// A channel that was dialled, its own TLS finished where it has one.
pub(super) struct Dialled {
    /// `None` when its lane is in use already.
    pub(super) connection: Option<Connection>,
    pub(super) outer: Option<OuterTls>,
    /// Where further lanes are opened, on a channel that has several.
    pub(super) quic: Option<QuicConnection>,
}

/// What a link and its dialling tasks share.
pub(super) struct Dialler {
    pub(super) tls: TlsSettings,
    pub(super) config: LinkConfig,
    pub(super) registry: Arc<Registry>,
    /// What the peer's tickets are used by, for each kind of handshake.
    clients: [OnceLock<ResumingClient>; 3],
}

impl Dialler {
    pub(super) fn new(tls: TlsSettings, config: LinkConfig, registry: Arc<Registry>) -> Self {
        Self { tls, config, registry, clients: Default::default() }
    }

    /// The TLS configuration for a kind of channel, with its tickets.
    pub(super) fn client(&self, kind: ChannelKind) -> Result<&ResumingClient, ConnectError> {
        // Without early data on TLS channels: tokio-rustls hands it out only when the handshake is complete.
        let (index, alpn, early_data) = match kind {
            ChannelKind::Tcp | ChannelKind::Unix => (0, ALPN_SESSION, self.config.early_data),
            ChannelKind::Tls => (1, ALPN_TLS, false),
            ChannelKind::Quic => (2, ALPN_QUIC, self.config.early_data),
        };
        if let Some(client) = self.clients[index].get() {
            return Ok(client);
        }
        let client = self.tls.resuming_client(&self.config.peer, alpn, early_data)?;
        Ok(self.clients[index].get_or_init(|| client))
    }

    /// Dials an address, within `timeout`.
    pub(super) async fn dial(&self, address: &Address, timeout: Duration) -> Result<Dialled, ConnectError> {
        let options = DialOptions { timeout, ..self.config.dial.clone() };
        let dialling = async {
            if address.kind() == ChannelKind::Quic {
                let tls = Arc::clone(&self.client(ChannelKind::Quic)?.config);
                let quic = dial_quic(address, &options, tls, quic_initial_suite()).await.map_err(quic_error)?;
                return self.first_lane(quic).await;
            }
            let connection = dial(address, &options).await?;
            if connection.info.kind != ChannelKind::Tls {
                return Ok(Dialled { connection: Some(connection), outer: None, quic: None });
            }
            let config = Arc::clone(&self.client(ChannelKind::Tls)?.config);
            let tls = connect_tls(connection, config).await.map_err(|error| outer_tls_error(&error))?;
            Ok(Dialled { connection: Some(tls.connection), outer: Some(tls.outer), quic: None })
        };
        tokio::time::timeout(timeout, dialling).await.map_err(|_| ConnectError::TimedOut(timeout))?
    }

    /// Dials an address for a session, which may begin before the channel's own handshake is complete.
    async fn dial_early(&self, address: &Address) -> Result<Either, ConnectError> {
        let timeout = limits::HANDSHAKE_TIMEOUT;
        // Who seals inside the channel has no keys for that by then.
        let is_early = self.config.early_data && !self.config.session.seal_always;
        if address.kind() != ChannelKind::Quic || !is_early || self.client(ChannelKind::Quic)?.tickets.count() == 0 {
            return self.dial(address, timeout).await.map(|dialled| Either::Ready(Box::new(dialled)));
        }
        let options = DialOptions { timeout, ..self.config.dial.clone() };
        let tls = Arc::clone(&self.client(ChannelKind::Quic)?.config);
        let dialled = dial_quic_early(address, &options, tls, quic_initial_suite()).await.map_err(quic_error)?;
        match dialled {
            QuicDialled::Early(quic) => Ok(Either::Early(Box::new(quic))),
            QuicDialled::Ready(quic) => self.first_lane(quic).await.map(|dialled| Either::Ready(Box::new(dialled))),
        }
    }

    pub(super) async fn first_lane(&self, quic: QuicConnection) -> Result<Dialled, ConnectError> {
        let lane = quic.open_lane().await.map_err(|error| told(error.into(), Some(&quic)))?;
        let (connection, outer) = (lane, Some(quic.outer().clone()));
        Ok(Dialled { connection: Some(connection), outer, quic: Some(quic) })
    }

    /// Makes a session on a fresh channel, and waits until the peer has accepted it: the session, and what happens to its
    /// lanes. `show_early` gets one that may send already, and `None` when that one is over and another begins.
    pub(super) async fn establish(
        &self,
        address: &Address,
        usage: LaneUsage,
        show_early: impl Fn(Option<session::Session>),
    ) -> Result<(Unclaimed, mpsc::UnboundedReceiver<LaneEvent>), ConnectError> {
        let establishing = async {
            let mut version = preferred_version(&self.config.session);
            loop {
                let mut session_id = SessionId([0; 16]);
                SystemEntropy::new().fill(&mut session_id.0);
                let mut early = None;
                let dialled = match self.dial_early(address).await? {
                    Either::Ready(dialled) => *dialled,
                    Either::Early(quic) => {
                        let setup = LaneSetup { usage, ..LaneSetup::new(LaneKind::Quic) };
                        let attempt = Attempt { dialler: self, session_id, version, setup };
                        let (dialled, begun) = attempt.over_early_quic(address, *quic, &show_early).await?;
                        early = Some(begun);
                        dialled
                    }
                };
                let quic = dialled.quic.as_ref();
                let made = match (early, dialled.connection, dialled.outer.clone()) {
                    (Some(begun), ..) => Made::Begun(begun),
                    (None, None, _) => return Err(ConnectError::NotJoinable),
                    (None, Some(connection), outer) => {
                        let setup = lane_setup(&connection.info, usage);
                        let attempt = Attempt { dialler: self, session_id, version, setup };
                        match outer {
                            None => attempt.over_raw(connection, &show_early).await?,
                            Some(outer) => {
                                attempt.over_tls(connection, &outer).await.map_err(|error| told(error, quic))?
                            }
                        }
                    }
                };
                let begun = match made {
                    Made::Session(made) => {
                        let (session, peer, io, awaited) = *made;
                        let begun = self.begin(session, peer, None);
                        spawn_lane(&begun.shared, io, awaited);
                        show_early(Some(begun.session.clone()));
                        begun
                    }
                    Made::Begun(begun) => begun,
                    Made::Retry(other) => {
                        version = other;
                        continue;
                    }
                };
                let client = begun.client.clone();
                match self.accepted(begun).await {
                    Ok((shared, session, events)) => {
                        self.use_fully(&shared, LaneId::FIRST, dialled.quic, usage);
                        return Ok((session, events));
                    }
                    Err(ConnectError::Establish(EstablishError::NoCommonVersion { theirs, ours })) => {
                        let common = ours.iter().find(|ours| theirs.contains(ours) && **ours != version);
                        let error = EstablishError::NoCommonVersion { theirs: theirs.clone(), ours: ours.clone() };
                        version = *common.ok_or(error)?;
                        show_early(None);
                    }
                    Err(error) => {
                        if let Some(client) = client {
                            client.tickets.purge();
                        }
                        return Err(told(error, dialled.quic.as_ref()));
                    }
                }
            }
        };
        let (timeout, begun) = (limits::HANDSHAKE_TIMEOUT, Instant::now());
        let made = tokio::time::timeout(timeout, establishing).await.unwrap_or(Err(ConnectError::TimedOut(timeout)));
        let (kind, time) = (Some(lane_kind(address.kind())), begun.elapsed());
        let error = made.as_ref().err();
        self.registry.tell(&NodeEvent::Handshake { side: Side::Client, kind, time, error });
        made
    }

    /// Joins a fresh channel to a session; data may leave with the join itself. Returns the lane.
    pub(super) async fn join(
        &self,
        shared: &Arc<Shared>,
        address: &Address,
        usage: LaneUsage,
        timeout: Duration,
    ) -> Result<LaneId, ConnectError> {
        let begun = Instant::now();
        let joining = async {
            let dialled = self.dial(address, timeout).await?;
            let connection = dialled.connection.ok_or(ConnectError::NotJoinable)?;
            let setup = lane_setup(&connection.info, usage);
            let lane_id = join_over(shared, connection, dialled.outer.as_ref(), setup).await?;
            self.use_fully(shared, lane_id, dialled.quic, usage);
            Ok(lane_id)
        };
        let joined = joining.await;
        let (kind, time) = (Some(lane_kind(address.kind())), begun.elapsed());
        self.registry.tell(&NodeEvent::Join { side: Side::Client, kind, time, error: joined.as_ref().err() });
        joined
    }

    /// Opens what a QUIC channel has besides its first lane, which has joined or is about to: the carrier of datagrams,
    /// and the other lanes. They come and go with it.
    fn use_fully(&self, shared: &Arc<Shared>, first: LaneId, quic: Option<QuicConnection>, usage: LaneUsage) {
        let Some(quic) = quic else { return };
        spawn_carrier(shared, first, quic.clone());
        let (shared, count) = (Arc::clone(shared), self.config.dial.quic.lane_count);
        let setup = LaneSetup { channel: Some(first), ..lane_setup(quic.info(), usage) };
        tokio::spawn(async move {
            for _ in 1..count {
                let outcome = match quic.open_lane().await {
                    Ok(connection) => join_over(&shared, connection, Some(quic.outer()), setup).await,
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = outcome {
                    tracing::debug!(peer = %quic.info().peer, %error, "lane cannot be opened");
                    return;
                }
            }
        });
    }

    pub(super) fn begin(&self, mut session: Session, peer: PeerIdentity, client: Option<&ResumingClient>) -> Begun {
        // Of its own: the end of one that was not accepted concerns no other.
        let (listener, events) = mpsc::unbounded_channel();
        let id = session.id();
        session.limit_life(self.tls.life_of(peer.not_after_unix));
        session.set_send_limit(self.registry.limiter().session(&peer.node_id, true));
        let shared = Shared::new(session, peer, Some(listener), self.registry.observer());
        self.registry.insert(id, &shared);
        if is_revoked(&shared, &self.registry, self.tls.trust()) {
            revocation::close(&shared);
        }
        let session = session::Session::new(Arc::clone(&shared));
        Begun { shared, unclaimed: Unclaimed::new(session.clone()), session, events, client: client.cloned() }
    }

    /// Waits until the peer has accepted a session.
    async fn accepted(
        &self,
        begun: Begun,
    ) -> Result<(Arc<Shared>, Unclaimed, mpsc::UnboundedReceiver<LaneEvent>), ConnectError> {
        let Begun { shared, unclaimed, session, events, client: _ } = begun;
        let id = session.id();
        drop(session);
        if is_revoked(&shared, &self.registry, self.tls.trust()) {
            self.registry.remove(id);
            revocation::close(&shared);
            return Err(ConnectError::Revoked);
        }
        // The peer's word that it has verified us: before it, a refused certificate looks like success (the client of
        // a TLS 1.3 handshake is done before the server has seen its certificate).
        let connected = std::future::poll_fn(|context| {
            shared.with(|inner| {
                if let Some(error) = inner.start_error.take() {
                    return std::task::Poll::Ready(Err(error.into()));
                }
                match inner.closed() {
                    Some(CloseReason::NotAccepted) => {
                        return std::task::Poll::Ready(Err(EstablishError::Refused.into()));
                    }
                    Some(CloseReason::Peer { code: CloseCode::GUEST_REFUSED, .. }) => {
                        return std::task::Poll::Ready(Err(ConnectError::GuestRefused));
                    }
                    Some(reason) => return std::task::Poll::Ready(Err(ConnectError::Closed(reason.clone()))),
                    None => {}
                }
                if inner.session.is_connected() {
                    return std::task::Poll::Ready(Ok(()));
                }
                inner.wait_connected(context);
                std::task::Poll::Pending
            })
        })
        .await;
        match connected {
            Ok(()) => Ok((shared, unclaimed, events)),
            Err(error) => {
                self.registry.remove(id);
                Err(error)
            }
        }
    }
}

/// Joins a channel's lane to a session; data may leave with the join itself.
async fn join_over(
    shared: &Arc<Shared>,
    connection: Connection,
    outer: Option<&OuterTls>,
    setup: LaneSetup,
) -> Result<LaneId, ConnectError> {
    let mut binding = Vec::new();
    if let Some(outer) = outer {
        let peer = PeerIdentity::from_chain(outer.peer_certificates())?;
        if peer.node_id != shared.peer.node_id {
            return Err(ConnectError::WrongPeer { expected: shared.peer.node_id.clone(), got: peer.node_id });
        }
        binding = channel_binding(outer)?.to_vec();
    }
    let request = shared
        .with_timer(|inner| inner.session.begin_join(setup, &binding, &mut SystemEntropy::new(), Instant::now()))
        .ok_or(ConnectError::NotJoinable)?;
    let mut message = BytesMut::new();
    encode_clear(&mut message, &request.head, &ClearMessage::Join(request.join.clone()));
    let lane_id = request.head.lane_id;
    let abort = connection.abort_handle();
    let (read, mut writer) = connection.io.split();
    if let Err(error) = writer.write_all(&message).await {
        shared.with_timer(|inner| inner.session.remove_lane(lane_id, LaneEnd::ChannelClosed, Instant::now()));
        return Err(error.into());
    }
    let reader = MessageReader::new(read, limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX);
    spawn_lane(
        shared,
        LaneIo { id: lane_id, kind: setup.kind, reader, writer, abort },
        Awaited::Joined(Box::new(request)),
    );
    Ok(lane_id)
}

/// What dialling for a session gave.
enum Either {
    Ready(Box<Dialled>),
    Early(Box<QuicEarly>),
}

fn preferred_version(config: &SessionConfig) -> u32 {
    config.versions.first().copied().unwrap_or(crate::wire::VERSION)
}
