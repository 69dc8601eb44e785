//! The dialling side: a channel that makes a session, and channels that join it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::carrier::spawn_carrier;
use super::config::LinkConfig;
use super::error::ConnectError;
use super::lane::{Awaited, LaneIo, spawn_lane};
use super::messages::MessageReader;
use super::observer::NodeEvent;
use super::registry::Registry;
use super::session::{self, Unclaimed};
use super::shared::{LaneEvent, Shared};
use crate::base::{Entropy, LaneId, SessionId, Side, SystemEntropy, limits};
use crate::channel::{
    Address, ChannelKind, Connection, DialError, DialOptions, OuterTls, QuicConnection, TlsError, connect_tls, dial,
    dial_quic,
};
use crate::crypto::SessionSecrets;
use crate::crypto::identity::{
    ALPN_QUIC, ALPN_SESSION, ALPN_TLS, PeerIdentity, TlsSettings, VerifyFailure, quic_initial_suite,
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
    connection: Connection,
    outer: Option<OuterTls>,
    /// Where further lanes are opened, on a channel that has several.
    quic: Option<QuicConnection>,
}

/// What a link and its dialling tasks share.
pub(super) struct Dialler {
    pub(super) tls: TlsSettings,
    pub(super) config: LinkConfig,
    pub(super) registry: Arc<Registry>,
}

impl Dialler {
    /// Dials an address, within `timeout`.
    pub(super) async fn dial(&self, address: &Address, timeout: Duration) -> Result<Dialled, ConnectError> {
        let options = DialOptions { timeout, ..self.config.dial.clone() };
        let dialling = async {
            if address.kind() == ChannelKind::Quic {
                let tls = self.tls.client_config(Some(&self.config.peer), ALPN_QUIC)?;
                let quic = dial_quic(address, &options, tls, quic_initial_suite()).await.map_err(quic_error)?;
                let lane = quic.open_lane().await.map_err(|error| told(error.into(), Some(&quic)))?;
                let (connection, outer) = (lane, Some(quic.outer().clone()));
                return Ok(Dialled { connection, outer, quic: Some(quic) });
            }
            let connection = dial(address, &options).await?;
            if connection.info.kind != ChannelKind::Tls {
                return Ok(Dialled { connection, outer: None, quic: None });
            }
            let config = self.tls.client_config(Some(&self.config.peer), ALPN_TLS)?;
            let tls = connect_tls(connection, config).await.map_err(|error| outer_tls_error(&error))?;
            Ok(Dialled { connection: tls.connection, outer: Some(tls.outer), quic: None })
        };
        tokio::time::timeout(timeout, dialling).await.map_err(|_| ConnectError::TimedOut(timeout))?
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
                let dialled = self.dial(address, limits::HANDSHAKE_TIMEOUT).await?;
                let mut session_id = SessionId([0; 16]);
                SystemEntropy::new().fill(&mut session_id.0);
                let setup = LaneSetup { usage, ..LaneSetup::new(lane_kind(dialled.connection.info.kind)) };
                let attempt = Attempt { dialler: self, session_id, version, setup };
                let quic = dialled.quic.as_ref();
                let made = match dialled.outer.clone() {
                    None => attempt.over_raw(dialled.connection).await?,
                    Some(outer) => {
                        attempt.over_tls(dialled.connection, &outer).await.map_err(|error| told(error, quic))?
                    }
                };
                let (session, peer, io, awaited) = match made {
                    Made::Session(made) => *made,
                    Made::Retry(other) => {
                        version = other;
                        continue;
                    }
                };
                // Of its own: the end of one that was not accepted concerns no other.
                let (listener, events) = mpsc::unbounded_channel();
                match self.start(session, peer, io, awaited, listener, &show_early).await {
                    Ok((shared, session)) => {
                        self.use_fully(&shared, LaneId::FIRST, dialled.quic, usage);
                        return Ok((session, events));
                    }
                    Err(ConnectError::Establish(EstablishError::NoCommonVersion { theirs, ours })) => {
                        let common = ours.iter().find(|ours| theirs.contains(ours) && **ours != version);
                        let error = EstablishError::NoCommonVersion { theirs: theirs.clone(), ours: ours.clone() };
                        version = *common.ok_or(error)?;
                        show_early(None);
                    }
                    Err(error) => return Err(told(error, dialled.quic.as_ref())),
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
            let setup = LaneSetup { usage, ..LaneSetup::new(lane_kind(dialled.connection.info.kind)) };
            let lane_id = join_over(shared, dialled.connection, dialled.outer.as_ref(), setup).await?;
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
        let setup = LaneSetup { usage, channel: Some(first), ..LaneSetup::new(LaneKind::Quic) };
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

    async fn start(
        &self,
        session: Session,
        peer: PeerIdentity,
        io: LaneIo,
        awaited: Awaited,
        listener: mpsc::UnboundedSender<LaneEvent>,
        show_early: impl Fn(Option<session::Session>),
    ) -> Result<(Arc<Shared>, Unclaimed), ConnectError> {
        let id = session.id();
        let shared = Shared::new(session, peer, Some(listener), self.registry.observer());
        self.registry.insert(id, &shared);
        spawn_lane(&shared, io, awaited);
        let registry = Arc::clone(&self.registry);
        let unclaimed = session::Session::new(Arc::clone(&shared));
        show_early(Some(unclaimed.clone()));
        let unclaimed = Unclaimed::new(unclaimed);
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
            Ok(()) => Ok((shared, unclaimed)),
            Err(error) => {
                registry.remove(id);
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
    let mut message = bytes::BytesMut::new();
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

enum Made {
    Session(Box<(Session, PeerIdentity, LaneIo, Awaited)>),
    Retry(u32),
}

/// One attempt to make a session.
struct Attempt<'a> {
    dialler: &'a Dialler,
    session_id: SessionId,
    version: u32,
    setup: LaneSetup,
}

impl Attempt<'_> {
    async fn over_raw(&self, connection: Connection) -> Result<Made, ConnectError> {
        let config = &SessionConfig { first_lane: self.setup.usage, ..self.dialler.config.session.clone() };
        let tls = self.dialler.tls.client_config(Some(&self.dialler.config.peer), ALPN_SESSION)?;
        let abort = connection.abort_handle();
        let (read, mut writer) = connection.io.split();
        let mut reader = MessageReader::new(read, limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX);
        let mut establishing = Establishing::client(tls, config, self.session_id, self.version)?;
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
        let made = establishing.finish(config.clone(), self.setup, [0; 16], Instant::now())?;
        let peer = self.check_peer(&made.peer_certificates)?;
        let io = LaneIo { id: LaneId::FIRST, kind: self.setup.kind, reader, writer, abort };
        Ok(Made::Session(Box::new((made.session, peer, io, Awaited::Nothing))))
    }

    async fn over_tls(&self, connection: Connection, outer: &OuterTls) -> Result<Made, ConnectError> {
        let config = SessionConfig { first_lane: self.setup.usage, ..self.dialler.config.session.clone() };
        let peer = self.check_peer(outer.peer_certificates())?;
        let (secrets, suite) = outer_secrets(outer, self.session_id)?;
        let abort = connection.abort_handle();
        let (read, mut writer) = connection.io.split();
        let reader = MessageReader::new(read, limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX);
        writer.write_all(&Established::start_message(&config, self.session_id, self.version)).await?;
        let session = Established::early_over_tls(self.session_id, secrets, suite, config, self.setup, Instant::now());
        let io = LaneIo { id: LaneId::FIRST, kind: self.setup.kind, reader, writer, abort };
        Ok(Made::Session(Box::new((session, peer, io, Awaited::Started(self.version)))))
    }

    fn check_peer(&self, certificates: &[rustls::pki_types::CertificateDer<'_>]) -> Result<PeerIdentity, ConnectError> {
        let peer = PeerIdentity::from_chain(certificates)?;
        let expected = &self.dialler.config.peer;
        if peer.node_id != *expected {
            return Err(ConnectError::WrongPeer { expected: expected.clone(), got: peer.node_id });
        }
        Ok(peer)
    }
}

/// The session's secrets and packet protection from a channel's own TLS.
pub(super) fn outer_secrets(
    outer: &OuterTls,
    session_id: SessionId,
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

/// The lane that a channel makes.
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
