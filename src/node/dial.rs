//! The dialling side: a channel that makes a session, and channels that join it.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::mpsc;

use super::carrier::spawn_carrier;
use super::config::LinkConfig;
use super::error::ConnectError;
use super::lane::{Awaited, LaneIo, spawn_lane};
use super::messages::MessageReader;
use super::observer::NodeEvent;
use super::registry::Registry;
use super::revocation::{self, is_revoked};
use super::session::{self, Unclaimed};
use super::shared::{Inner, LaneControl, LaneEvent, Shared};
use crate::base::{CloseCode, Entropy, LaneId, SessionId, Side, SystemEntropy, limits};
use crate::channel::{
    AbortHandle, Address, ChannelInfo, ChannelKind, Connection, DialError, DialOptions, OuterTls, QuicConnection,
    QuicDialled, QuicEarly, TlsError, WriteHalf, connect_tls, dial, dial_quic, dial_quic_early,
};
use crate::crypto::SessionSecrets;
use crate::crypto::identity::{
    ALPN_QUIC, ALPN_SESSION, ALPN_TLS, PeerIdentity, ResumingClient, TlsSettings, VerifyFailure, quic_initial_suite,
};
use crate::session::{
    CloseReason, EstablishError, Established, Establishing, LaneEnd, LaneKind, LaneSetup, Progress, Session,
    SessionConfig,
};
use crate::wire::{ClearMessage, LaneUsage, encode_clear};

/// Exporter of RFC 9266: what a join over TLS is bound to.
const CHANNEL_BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// A channel that was dialled, its own TLS finished where it has one.
pub(super) struct Dialled {
    /// `None` when its lane is in use already.
    connection: Option<Connection>,
    outer: Option<OuterTls>,
    /// Where further lanes are opened, on a channel that has several.
    quic: Option<QuicConnection>,
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
    fn client(&self, kind: ChannelKind) -> Result<&ResumingClient, ConnectError> {
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

    async fn first_lane(&self, quic: QuicConnection) -> Result<Dialled, ConnectError> {
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

    fn begin(&self, mut session: Session, peer: PeerIdentity, client: Option<&ResumingClient>) -> Begun {
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

/// A session that may send, and that the peer has not accepted yet.
struct Begun {
    shared: Arc<Shared>,
    unclaimed: Unclaimed,
    session: session::Session,
    events: mpsc::UnboundedReceiver<LaneEvent>,
    /// Whose tickets it may have begun with.
    client: Option<ResumingClient>,
}

/// What dialling for a session gave.
enum Either {
    Ready(Box<Dialled>),
    Early(Box<QuicEarly>),
}

enum Made {
    Session(Box<(Session, PeerIdentity, LaneIo, Awaited)>),
    /// It has been shown, and its lane runs.
    Begun(Begun),
    Retry(u32),
}

/// A QUIC channel's first lane, which may have to be given up for that of another one.
struct FirstLaneIo {
    reader: MessageReader,
    writer: WriteHalf,
    abort: AbortHandle,
}

impl FirstLaneIo {
    fn new(lane: Connection) -> Self {
        let abort = lane.abort_handle();
        let (read, writer) = lane.io.split();
        let reader = MessageReader::new(read, limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX);
        Self { reader, writer, abort }
    }
}

/// One attempt to make a session.
struct Attempt<'a> {
    dialler: &'a Dialler,
    session_id: SessionId,
    version: u32,
    setup: LaneSetup,
}

impl Attempt<'_> {
    async fn over_raw(
        &self,
        connection: Connection,
        show_early: impl Fn(Option<session::Session>),
    ) -> Result<Made, ConnectError> {
        let config = &SessionConfig { first_lane: self.setup.usage, ..self.dialler.config.session.clone() };
        let client = self.dialler.client(connection.info.kind)?;
        let tls = Arc::clone(&client.config);
        let abort = connection.abort_handle();
        let (read, mut writer) = connection.io.split();
        let mut reader = MessageReader::new(read, limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX);
        let mut establishing = Establishing::client(tls, config, self.session_id, self.version)?;
        let early = establishing.early_session(config.clone(), self.setup, [0; 16], Instant::now())?;
        if let (Some(early), Some(server)) = (early, client.tickets.server()) {
            let begun = self.dialler.begin(early.session, server, Some(client));
            let io = LaneIo { id: LaneId::FIRST, kind: self.setup.kind, reader, writer, abort };
            let outcome = self.complete_early(establishing, &begun, io, show_early).await;
            if outcome.is_err() {
                // What made this session may fail every other one that the tickets would begin.
                client.tickets.purge();
                begun.shared.with_timer(|inner| inner.session.fail_handshake(Instant::now()));
                self.dialler.registry.remove(self.session_id);
            }
            return Ok(outcome?.map_or(Made::Begun(begun), Made::Retry));
        }
        loop {
            while let Some(message) = establishing.poll_output() {
                writer.write_all(&message).await?;
            }
            let (message, _) = reader.next().await.map_err(std::io::Error::from)?;
            let progress = match establishing.handle_message(message) {
                Ok(progress) => progress,
                Err(error) => {
                    // The peer should not have to wait for its timeout. What went wrong is not told to strangers.
                    let _ = writer.write_all(&Establishing::refusal()).await;
                    return Err(error.into());
                }
            };
            match progress {
                Progress::Continue => {}
                Progress::Retry(version) => return Ok(Made::Retry(version)),
                Progress::Complete => break,
            }
        }
        while let Some(message) = establishing.poll_output() {
            writer.write_all(&message).await?;
        }
        let mut made = establishing.finish(config.clone(), self.setup, [0; 16], Instant::now())?;
        self.present_guest(&mut made.session);
        let peer = self.check_peer(&made.peer_certificates)?;
        let io = LaneIo { id: LaneId::FIRST, kind: self.setup.kind, reader, writer, abort };
        Ok(Made::Session(Box::new((made.session, peer, io, Awaited::Nothing))))
    }

    /// Begins a session with early data over QUIC, and waits for the end of the handshake.
    async fn over_early_quic(
        &self,
        address: &Address,
        mut handshake: QuicEarly,
        show_early: impl Fn(Option<session::Session>),
    ) -> Result<(Dialled, Begun), ConnectError> {
        let client = self.dialler.client(ChannelKind::Quic)?;
        let server = client.tickets.server().ok_or(ConnectError::NotJoinable)?;
        let config = SessionConfig { first_lane: self.setup.usage, ..self.dialler.config.session.clone() };
        let start = Established::start_message(&config, self.session_id, self.version);
        let quic = handshake.connection().clone();
        let session = Session::early_client(self.session_id, config, self.setup, Instant::now());
        let begun = self.dialler.begin(session, server, Some(client));
        let outcome = async {
            let lane = quic.open_lane().await?;
            let mut io = FirstLaneIo::new(lane);
            let control = LaneControl::new(io.abort.clone());
            begun.shared.with_timer(|inner| inner.add_lane(LaneId::FIRST, control.clone()));
            show_early(Some(begun.session.clone()));
            let is_accepted = self.send_early(&mut handshake, &mut io, &start, &begun.shared, &control).await?;
            let quic = if is_accepted {
                quic.completed()
            } else {
                quic.close();
                let dialled = self.dialler.dial(address, limits::HANDSHAKE_TIMEOUT).await?;
                let (Some(lane), Some(quic)) = (dialled.connection, dialled.quic) else {
                    return Err(ConnectError::NotJoinable);
                };
                io = FirstLaneIo::new(lane);
                io.writer.write_all(&start).await.map_err(|error| told(error.into(), Some(&quic)))?;
                quic
            };
            self.check_peer(quic.outer().peer_certificates())?;
            let (secrets, suite) = outer_secrets(quic.outer(), self.session_id, self.dialler.tls.key_log())?;
            begun.shared.with_timer(|inner| {
                inner.session.complete_handshake(&secrets, suite, is_accepted, Instant::now());
            });
            let FirstLaneIo { reader, writer, abort } = io;
            let io = LaneIo { id: LaneId::FIRST, kind: self.setup.kind, reader, writer, abort };
            spawn_lane(&begun.shared, io, Awaited::Started(self.version));
            Ok(quic)
        };
        match outcome.await {
            Ok(quic) => Ok((Dialled { connection: None, outer: Some(quic.outer().clone()), quic: Some(quic) }, begun)),
            Err(error) => {
                client.tickets.purge();
                begun.shared.with_timer(|inner| inner.session.fail_handshake(Instant::now()));
                self.dialler.registry.remove(self.session_id);
                Err(error)
            }
        }
    }

    /// Writes what leaves early, until the handshake is complete: whether the server has taken it.
    async fn send_early(
        &self,
        handshake: &mut QuicEarly,
        io: &mut FirstLaneIo,
        start: &[u8],
        shared: &Shared,
        control: &LaneControl,
    ) -> Result<bool, ConnectError> {
        let mut packet = BytesMut::from(start);
        loop {
            let mut is_written = true;
            if !packet.is_empty() {
                let mut writing = pin!(io.writer.write_all(&packet));
                tokio::select! {
                    biased;
                    // What is rejected is never sent, so that there may never be room for more.
                    outcome = &mut *handshake => {
                        let is_accepted = outcome?;
                        if is_accepted {
                            writing.await?;
                        }
                        return Ok(is_accepted);
                    }
                    outcome = &mut writing => is_written = outcome.is_ok(),
                }
            }
            packet.clear();
            let next = || shared.with_timer(|inner| inner.session.poll_transmit(Instant::now(), LaneId::FIRST));
            if is_written && let Some(transmission) = next() {
                transmission.encode(&mut packet).map_err(std::io::Error::other)?;
                continue;
            }
            if control.is_closed.load(Ordering::Acquire) {
                return Err(ConnectError::Closed(shared.closed().unwrap_or(CloseReason::NotAccepted)));
            }
            tokio::select! {
                biased;
                outcome = &mut *handshake => return Ok(outcome?),
                () = control.outlet.woken(), if is_written => {}
            }
        }
    }

    /// Runs the handshake of a session that sends by then. Returns another version, if the peer wants one.
    async fn complete_early(
        &self,
        mut establishing: Establishing,
        begun: &Begun,
        mut io: LaneIo,
        show_early: impl Fn(Option<session::Session>),
    ) -> Result<Option<u32>, ConnectError> {
        let control = LaneControl::new(io.abort.clone());
        begun.shared.with_timer(|inner| inner.add_lane(LaneId::FIRST, control.clone()));
        show_early(Some(begun.session.clone()));
        let mut packet = BytesMut::new();
        loop {
            while let Some(message) = establishing.poll_output() {
                io.writer.write_all(&message).await?;
            }
            let next = || begun.shared.with_timer(|inner| inner.session.poll_transmit(Instant::now(), LaneId::FIRST));
            while let Some(transmission) = next() {
                packet.clear();
                transmission.encode(&mut packet).map_err(std::io::Error::other)?;
                io.writer.write_all(&packet).await?;
            }
            if control.is_closed.load(Ordering::Acquire) {
                let reason = begun.shared.closed().unwrap_or(CloseReason::NotAccepted);
                return Err(ConnectError::Closed(reason));
            }
            let message = tokio::select! {
                message = io.reader.next() => message.map_err(std::io::Error::from)?.0,
                () = control.outlet.woken() => continue,
            };
            match establishing.handle_message(message) {
                Ok(Progress::Continue) => {}
                Ok(Progress::Complete) => break,
                Ok(Progress::Retry(version)) => {
                    show_early(None);
                    return Ok(Some(version));
                }
                Err(error) => {
                    let _ = io.writer.write_all(&Establishing::refusal()).await;
                    return Err(error.into());
                }
            }
        }
        while let Some(message) = establishing.poll_output() {
            io.writer.write_all(&message).await?;
        }
        let finish = |inner: &mut Inner| establishing.finish_early(&mut inner.session, Instant::now());
        let certificates = begun.shared.with_timer(finish)?;
        self.check_peer(&certificates)?;
        spawn_lane(&begun.shared, io, Awaited::Nothing);
        Ok(None)
    }

    async fn over_tls(&self, connection: Connection, outer: &OuterTls) -> Result<Made, ConnectError> {
        let config = SessionConfig { first_lane: self.setup.usage, ..self.dialler.config.session.clone() };
        let peer = self.check_peer(outer.peer_certificates())?;
        let (secrets, suite) = outer_secrets(outer, self.session_id, self.dialler.tls.key_log())?;
        let abort = connection.abort_handle();
        let (read, mut writer) = connection.io.split();
        let reader = MessageReader::new(read, limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX);
        writer.write_all(&Established::start_message(&config, self.session_id, self.version)).await?;
        let mut session =
            Established::early_over_tls(self.session_id, secrets, suite, config, self.setup, Instant::now());
        self.present_guest(&mut session);
        let io = LaneIo { id: LaneId::FIRST, kind: self.setup.kind, reader, writer, abort };
        Ok(Made::Session(Box::new((session, peer, io, Awaited::Started(self.version)))))
    }

    /// A guest shows its token in place of a certificate.
    fn present_guest(&self, session: &mut Session) {
        if let (Some(guest), Some(exporter)) = (self.dialler.tls.guest_token(), session.guest_exporter()) {
            session.present_guest(guest.credential(exporter));
        }
    }

    fn check_peer(&self, certificates: &[rustls::pki_types::CertificateDer<'_>]) -> Result<PeerIdentity, ConnectError> {
        let peer = PeerIdentity::from_chain(certificates)?;
        let expected = &self.dialler.config.peer;
        if peer.node_id != *expected {
            return Err(ConnectError::WrongPeer { expected: expected.clone(), got: peer.node_id });
        }
        // A session that was resumed did not see it again.
        if self.dialler.tls.now_unix().is_some_and(|now| now >= peer.not_after_unix) {
            return Err(ConnectError::Expired { peer: peer.node_id });
        }
        Ok(peer)
    }
}

/// The session's secrets and packet protection from a channel's own TLS.
pub(super) fn outer_secrets(
    outer: &OuterTls,
    session_id: SessionId,
    key_log: &dyn rustls::KeyLog,
) -> Result<(SessionSecrets, rustls::quic::Suite), ConnectError> {
    let secrets = SessionSecrets::from_exporter(session_id, |output, label, context| {
        outer.export_keying_material(label, Some(context)).map(|bytes| output.copy_from_slice(&bytes))
    })
    .map_err(|error| ConnectError::OuterTls(error.to_string()))?;
    let suite = outer
        .cipher_suite()
        .tls13()
        .and_then(rustls::Tls13CipherSuite::quic_suite)
        .ok_or_else(|| ConnectError::OuterTls("its cipher suite protects no packets".to_owned()))?;
    secrets.tell(key_log, session_id, &suite);
    Ok((secrets, suite))
}

/// What went wrong in the handshake of a `tls://` channel, in the verifier's words if it was that.
pub(super) fn outer_tls_error(error: &TlsError) -> ConnectError {
    let verified = match error {
        TlsError::Handshake(io) => io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    ConnectError::OuterTls(verified.map_or_else(|| error.to_string(), VerifyFailure::explain))
}

/// What went wrong in the handshake of a `quic://` channel, in the verifier's words if it was that.
fn quic_error(error: DialError) -> ConnectError {
    match error {
        DialError::Quic { source, .. } => source.into(),
        other => other.into(),
    }
}

/// What went wrong on a channel whose handshake is over at this side: a server learns who we are only then, and its
/// refusal ends whatever was begun.
fn told(error: ConnectError, quic: Option<&QuicConnection>) -> ConnectError {
    if quic.is_some_and(QuicConnection::is_refused) { EstablishError::Refused.into() } else { error }
}

/// What a join over TLS is bound to.
pub(super) fn channel_binding(outer: &OuterTls) -> Result<[u8; 32], ConnectError> {
    outer
        .export_keying_material(CHANNEL_BINDING_LABEL, Some(b""))
        .map_err(|error| ConnectError::OuterTls(error.to_string()))
}

/// The lane that a dialled channel makes.
fn lane_setup(info: &ChannelInfo, usage: LaneUsage) -> LaneSetup {
    LaneSetup { usage, path: info.path(), ..LaneSetup::new(lane_kind(info.kind)) }
}

pub(super) fn lane_kind(kind: ChannelKind) -> LaneKind {
    match kind {
        ChannelKind::Tcp => LaneKind::Tcp,
        ChannelKind::Unix => LaneKind::Unix,
        ChannelKind::Tls => LaneKind::Tls,
        ChannelKind::Quic => LaneKind::Quic,
    }
}

fn preferred_version(config: &SessionConfig) -> u32 {
    config.versions.first().copied().unwrap_or(crate::wire::VERSION)
}
