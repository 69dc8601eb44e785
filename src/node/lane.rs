//! The two tasks of a lane: one reads and opens, one seals and writes, both outside the session's lock. Others may write
//! in place of the second one (`outlet`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::messages::{MessageReader, ReadMessageError};
use super::outlet::LaneWriter;
use super::shared::{LaneControl, Shared};
use crate::base::{CloseCode, LaneId, limits};
use crate::channel::{AbortHandle, WriteHalf};
use crate::crypto::{LaneOpener, OpenError};
use crate::session::{EstablishError, JoinRequest, LaneEnd, LaneKind};
use crate::wire::{Body, Frame, FrameMessage, WireError, decode_packet};

/// Why a lane's channel was given up.
#[derive(Debug, thiserror::Error)]
enum LaneFault {
    #[error(transparent)]
    Read(#[from] ReadMessageError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("peer sent {0}")]
    Unexpected(&'static str),
    #[error("peer refused the join")]
    JoinRefused,
    #[error("peer's proof of the join is wrong")]
    WrongProof,
    #[error("peer did not answer the join in time")]
    JoinTimedOut,
    #[error("peer did not start the session")]
    NotStarted,
}

impl LaneFault {
    fn lane_end(&self) -> LaneEnd {
        match self {
            Self::Read(ReadMessageError::Io(_)) => LaneEnd::ChannelClosed,
            Self::Read(ReadMessageError::Wire(error)) | Self::Wire(error) => LaneEnd::Closed(error.close_code()),
            Self::Open(_) => LaneEnd::Closed(CloseCode::SEAL_ERROR),
            Self::Unexpected(_) | Self::NotStarted => LaneEnd::Closed(CloseCode::PROTOCOL_VIOLATION),
            Self::JoinRefused | Self::WrongProof | Self::JoinTimedOut => LaneEnd::Closed(CloseCode::JOIN_REFUSED),
        }
    }
}

/// What a lane runs on.
pub(super) struct LaneIo {
    pub(super) id: LaneId,
    pub(super) kind: LaneKind,
    pub(super) reader: MessageReader,
    pub(super) writer: WriteHalf,
    pub(super) abort: AbortHandle,
}

/// What the peer has to answer before packets come on a lane.
pub(super) enum Awaited {
    /// Nothing: both sides have admitted the lane.
    Nothing,
    /// The answer to a join.
    Joined(Box<JoinRequest>),
    /// The answer to a start in this version.
    Started(u32),
}

/// Starts the tasks of a lane. Packets may leave before the answer has come.
pub(super) fn spawn_lane(shared: &Arc<Shared>, io: LaneIo, awaited: Awaited) {
    let control = LaneControl::new(io.abort);
    shared.with_timer(|inner| inner.add_lane(io.id, control.clone()));
    let opener = shared.look(|inner| {
        // Some packets of a lane that began with early data, or with a guest's proof, have come already.
        LaneOpener::new(io.id, inner.session.opening_keys()).starting_at(inner.session.expected_packet(io.id))
    });
    let lane =
        Reading { shared: Arc::clone(shared), id: io.id, kind: io.kind, reader: io.reader, opener, frames: Vec::new() };
    tokio::spawn(lane.run(awaited));
    control.outlet.put(LaneWriter::new(io.writer));
    tokio::spawn(write(Arc::clone(shared), io.id, control));
}

struct Reading {
    shared: Arc<Shared>,
    id: LaneId,
    kind: LaneKind,
    reader: MessageReader,
    opener: LaneOpener,
    frames: Vec<Frame>,
}

impl Reading {
    async fn run(mut self, awaited: Awaited) {
        let answered = match awaited {
            Awaited::Nothing => Ok(()),
            Awaited::Joined(request) => self.await_joined(&request).await,
            Awaited::Started(version) => self.await_started(version).await,
        };
        let outcome = match answered {
            Ok(()) => self.read().await,
            Err(fault) => Err(fault),
        };
        let Err(fault) = outcome else { return };
        let id = self.id;
        self.shared.with_timer(|inner| {
            if inner.session.lane_state(id).is_some_and(|state| state != crate::session::LaneState::Dead) {
                tracing::debug!(session = %inner.session.id(), lane = %id, error = %fault, "channel ended");
            }
            inner.session.remove_lane(id, fault.lane_end(), Instant::now());
        });
    }

    /// The answer to a join comes in front of all packets.
    async fn await_joined(&mut self, request: &JoinRequest) -> Result<(), LaneFault> {
        let answer = tokio::time::timeout(request.timeout, self.reader.next()).await;
        let (message, _) = answer.map_err(|_| LaneFault::JoinTimedOut)??;
        match message.body {
            Body::Joined(joined) => {
                let is_right = self.shared.with_timer(|inner| inner.session.complete_join(request, &joined));
                if is_right { Ok(()) } else { Err(LaneFault::WrongProof) }
            }
            Body::SessionReset(token) => {
                self.shared.with_timer(|inner| inner.session.handle_reset(&token, Instant::now()));
                Err(LaneFault::JoinRefused)
            }
            Body::Refused => Err(LaneFault::JoinRefused),
            _ => Err(LaneFault::Unexpected("something else than the answer to a join")),
        }
    }

    /// The answer to a start comes in front of all packets. What is wrong with it is kept for whoever dialled.
    async fn await_started(&mut self, version: u32) -> Result<(), LaneFault> {
        let (message, _) = self.reader.next().await?;
        let outcome = match message.body {
            Body::Started(parameters) => {
                self.shared.with_timer(|inner| inner.session.handle_started(&parameters, version))
            }
            Body::Refused => Err(EstablishError::Refused),
            Body::VersionList(theirs) => {
                let ours = self.shared.look(|inner| inner.session.peer_parameters().versions.clone());
                Err(EstablishError::NoCommonVersion { theirs, ours })
            }
            _ => Err(EstablishError::Wire(WireError::Missing("started"))),
        };
        outcome.map_err(|error| {
            self.shared.with(|inner| inner.start_error = Some(error));
            LaneFault::NotStarted
        })
    }

    async fn read(&mut self) -> Result<(), LaneFault> {
        self.reader.set_size_max(limits::FRAME_MESSAGE_BYTES_MAX);
        loop {
            while let Some((message, size)) = self.reader.next_buffered()? {
                self.on_message(message, size)?;
            }
            self.reader.fill().await?;
        }
    }

    fn on_message(&mut self, message: FrameMessage, size: usize) -> Result<(), LaneFault> {
        let FrameMessage { head, body } = message;
        let is_sealed = matches!(body, Body::Sealed(_));
        let content = match body {
            Body::Sealed(sealed) => {
                if !self.opener.has_key(head.epoch) {
                    self.opener.set_keys(self.shared.look(|inner| inner.session.opening_keys()));
                }
                self.opener.open(&head, sealed)?
            }
            Body::Plain(content) if self.kind.protection() == crate::session::Protection::Channel => {
                self.opener.accept_plain(&head)?;
                content
            }
            Body::Refused => return Err(LaneFault::Unexpected("a refusal")),
            _ => return Err(LaneFault::Unexpected("a message that does not belong to a lane")),
        };
        decode_packet(&content, &mut self.frames)?;
        drop(content);
        let (now, frames) = (Instant::now(), &mut self.frames);
        self.shared.with_timer(|inner| {
            inner.pace.on_received();
            inner.session.handle_packet(now, &head, is_sealed, frames, size);
        });
        Ok(())
    }
}

/// Seals and writes what the session has for the lane, until the lane is over.
async fn write(shared: Arc<Shared>, id: LaneId, control: LaneControl) {
    let outcome = write_packets(&shared, id, &control).await;
    if let Err(error) = outcome {
        shared.with_timer(|inner| {
            tracing::debug!(session = %inner.session.id(), lane = %id, %error, "channel cannot be written to");
            inner.session.remove_lane(id, LaneEnd::ChannelClosed, Instant::now());
        });
    }
}

async fn write_packets(shared: &Shared, id: LaneId, control: &LaneControl) -> io::Result<()> {
    loop {
        // Whoever has the writer now wakes this task when it is back.
        if let Some(mut writer) = control.outlet.take() {
            writer.write_packets(shared, id).await?;
            if control.is_closed.load(Ordering::Acquire) {
                return Ok(());
            }
            control.outlet.put(writer);
        }
        control.outlet.woken().await;
    }
}
