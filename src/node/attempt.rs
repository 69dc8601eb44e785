//! One attempt to make a session on a channel that was dialled, over each kind of channel.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::BytesMut;
use tokio::sync::mpsc;

use super::dial::{Dialled, Dialler};
use super::error::ConnectError;
use super::lane::{Awaited, LaneIo, spawn_lane};
use super::messages::MessageReader;
use super::outer::{outer_secrets, told};
use super::session::{self, Unclaimed};
use super::shared::{Inner, LaneControl, LaneEvent, Shared};
use crate::base::{LaneId, SessionId, limits};
use crate::channel::{AbortHandle, Address, ChannelKind, Connection, OuterTls, QuicEarly, WriteHalf};
use crate::crypto::identity::{PeerIdentity, ResumingClient};
use crate::session::{CloseReason, Established, Establishing, LaneSetup, Progress, Session, SessionConfig};

/// A session that may send, and that the peer has not accepted yet.
pub(super) struct Begun {
    pub(super) shared: Arc<Shared>,
    pub(super) unclaimed: Unclaimed,
    pub(super) session: session::Session,
    pub(super) events: mpsc::UnboundedReceiver<LaneEvent>,
    /// Whose tickets it may have begun with.
    pub(super) client: Option<ResumingClient>,
}

/// What an attempt has made.
pub(super) enum Made {
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
pub(super) struct Attempt<'a> {
    pub(super) dialler: &'a Dialler,
    pub(super) session_id: SessionId,
    pub(super) version: u32,
    pub(super) setup: LaneSetup,
}

impl Attempt<'_> {
    pub(super) async fn over_raw(
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
    pub(super) async fn over_early_quic(
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

    pub(super) async fn over_tls(&self, connection: Connection, outer: &OuterTls) -> Result<Made, ConnectError> {
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
