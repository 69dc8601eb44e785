//! A channel that was accepted, in its first seconds.

use std::net::IpAddr;
use std::sync::Weak;

use super::lane::LaneIo;
use super::messages::MessageReader;
use super::outer::lane_kind;
use super::shared::Shared;
use crate::base::{LaneId, limits};
use crate::channel::{AbortHandle, ChannelInfo, ChannelKind, Connection, OuterTls, TlsConnection, WriteHalf};
use crate::session::Establishing;

/// What a listener lets peers do in their first seconds.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// Peers that come back may send early data.
    pub(super) early_data: bool,
    /// Peers may come without a certificate, and prove a token.
    pub(super) takes_guests: bool,
    /// Machines may come that ask for a certificate.
    pub(super) enrolls: bool,
}

/// A channel in its first seconds.
pub(super) struct Fresh {
    pub(super) reader: MessageReader,
    pub(super) writer: WriteHalf,
    pub(super) abort: AbortHandle,
    pub(super) kind: ChannelKind,
    pub(super) outer: Option<OuterTls>,
    pub(super) peer_address: String,
    pub(super) peer_ip: Option<IpAddr>,
    /// As [`ChannelInfo::path`].
    pub(super) path: Option<u64>,
    pub(super) terms: Terms,
    /// When its first message has to be there.
    pub(super) first_until: tokio::time::Instant,
    /// Of a channel that has a lane already.
    pub(super) first: Option<FirstLane>,
}

/// The lane that brought a channel into a session. The channel's other lanes have to be of the same one.
#[derive(Clone)]
pub(super) struct FirstLane {
    pub(super) session: Weak<Shared>,
    pub(super) id: LaneId,
}

impl Fresh {
    pub(super) fn new(connection: Connection, outer: Option<OuterTls>, terms: Terms) -> Self {
        let abort = connection.abort_handle();
        let reader = Self::reader(&connection);
        let (_, writer) = connection.io.split();
        let path = connection.info.path();
        let ChannelInfo { kind, peer: peer_address, peer_ip, .. } = connection.info;
        let first_until = Self::first_until();
        Self { reader, writer, abort, kind, outer, peer_address, peer_ip, path, terms, first_until, first: None }
    }

    pub(super) fn over_tls(tls: TlsConnection, terms: Terms) -> Self {
        Self::new(tls.connection, Some(tls.outer), terms)
    }

    /// Reads its messages, as strangers may send them.
    pub(super) fn reader(connection: &Connection) -> MessageReader {
        let (read, _) = connection.io.clone().split();
        MessageReader::new(read, limits::FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX)
    }

    pub(super) fn first_until() -> tokio::time::Instant {
        tokio::time::Instant::now() + limits::FIRST_MESSAGE_TIMEOUT
    }

    /// The one answer that strangers get.
    pub(super) async fn refuse(&mut self) {
        // A peer that is gone cannot be told, and does not have to be.
        let _ = self.writer.write_all(&Establishing::refusal()).await;
        let _ = self.writer.shutdown().await;
    }

    pub(super) fn into_lane(self, id: LaneId) -> LaneIo {
        LaneIo { id, kind: lane_kind(self.kind), reader: self.reader, writer: self.writer, abort: self.abort }
    }
}
