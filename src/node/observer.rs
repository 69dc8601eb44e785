//! What a node tells whoever watches it: events when they happen, and readings of its sessions when they are asked for.
//!
//! Making statistics of both is the business of the watcher, for whom this is the whole interface.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::ConnectError;
use super::registry::Registry;
use super::shared::Shared;
use crate::base::{LaneId, SessionId, Side};
use crate::channel::{Gate, PathReader, PathStats};
use crate::crypto::identity::NodeId;
use crate::session::{CloseReason, LaneEnd, LaneKind, Reading};
use crate::wire::TraceContext;

/// Hears what happens. Called from within tasks, and under the lock of a session: has to return at once, and may not
/// touch the node.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn on_event(&self, event: &NodeEvent<'_>);

    /// A connection of a forward begins: the trace that is made of it, if one is.
    fn begin_trace(&self) -> Option<TraceContext> {
        None
    }
}

/// Something happened in a node.
#[derive(Debug)]
pub enum NodeEvent<'a> {
    /// A channel was made into a session, or was to be.
    Handshake {
        /// Which side this is.
        side: Side,
        /// What carries it; `None` when it never became known.
        kind: Option<LaneKind>,
        /// From the dial or the accepted connection to both sides' word.
        time: Duration,
        /// Why there is no session.
        error: Option<&'a ConnectError>,
    },
    /// A channel joined a session, or was to.
    Join {
        /// Which side this is.
        side: Side,
        /// What carries it; `None` when it never became known.
        kind: Option<LaneKind>,
        /// From the dial or the accepted connection to the join.
        time: Duration,
        /// Why it did not.
        error: Option<&'a ConnectError>,
    },
    /// A lane is over.
    LaneEnded {
        /// Whose.
        peer: &'a NodeId,
        /// What carried it.
        kind: LaneKind,
        /// Why.
        end: LaneEnd,
    },
    /// A session is over. Nothing more is read of it.
    SessionEnded {
        /// Whose.
        peer: &'a NodeId,
        /// Which.
        id: SessionId,
        /// Why.
        reason: &'a CloseReason,
        /// The last reading.
        reading: &'a Reading,
        /// How long no lane had worked, if it ended in an outage.
        outage: Option<Duration>,
    },
    /// An application's stream was opened, or could not be.
    StreamOpened {
        /// To whom.
        peer: &'a NodeId,
        /// How long it took, which is the time that it waited for a session and for credit.
        time: Duration,
        /// Whether there is a stream.
        is_open: bool,
        /// The span that it is, if it is traced.
        trace: Option<TraceContext>,
    },
    /// The target of a service was connected to for a peer's request that belongs to a trace, or was to be.
    ServiceConnected {
        /// Whose request.
        peer: &'a NodeId,
        /// Which service.
        service: &'a str,
        /// From the request to the target's connection.
        time: Duration,
        /// The trace, and the peer's span.
        trace: TraceContext,
        /// Why there is no connection.
        error: Option<String>,
    },
    /// The first byte of an answer reached the application.
    FirstByte {
        /// From whom.
        peer: &'a NodeId,
        /// Of which service.
        service: &'a str,
        /// Since the application's connection was taken.
        time: Duration,
    },
}

/// A session at one moment.
#[derive(Debug)]
pub struct SessionReading {
    /// Its name.
    pub id: SessionId,
    /// Who is at the other end.
    pub peer: NodeId,
    /// Which side this is.
    pub side: Side,
    /// Whether the peer has accepted it.
    pub is_connected: bool,
    /// How long no lane has worked, while none does.
    pub outage: Option<Duration>,
    /// What it measured and counted.
    pub reading: Reading,
    /// What the transports say, by channel.
    pub paths: Vec<(LaneId, PathStats)>,
}

/// Reads a node's sessions and gates. Holding it does not keep the node running.
#[derive(Clone)]
pub struct NodeMeter {
    registry: Arc<Registry>,
    paths: Arc<Mutex<PathReader>>,
}

impl NodeMeter {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, paths: Arc::new(Mutex::new(PathReader::new())) }
    }

    /// Reads all sessions, and takes their samples: for one reader.
    #[must_use]
    pub fn read(&self) -> Vec<SessionReading> {
        self.registry.all().iter().map(|shared| self.read_session(shared)).collect()
    }

    fn read_session(&self, shared: &Shared) -> SessionReading {
        let now = Instant::now();
        let ((id, side, is_connected, outage, reading), controls) = shared.with(|inner| {
            let session = &mut inner.session;
            let outage = session.outage_since().map(|since| now.saturating_duration_since(since));
            let facts = (session.id(), session.side(), session.is_connected(), outage, session.read_meter());
            (facts, inner.channel_aborts())
        });
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = controls.into_iter().filter_map(|(id, abort)| Some((id, paths.read(&abort)?))).collect();
        SessionReading { id, peer: shared.peer.node_id.clone(), side, is_connected, outage, reading, paths }
    }

    /// What the node's listeners refused, by reason, and how often accepting failed; those of peers, since the start.
    #[must_use]
    pub fn gates(&self) -> Vec<(&'static str, u64)> {
        let mut totals = GATE_REASONS.map(|reason| (reason, 0));
        for gate in self.registry.gates() {
            let counters = gate.counters();
            let values = [
                &counters.refused_pending,
                &counters.refused_pending_of_source,
                &counters.refused_rate,
                &counters.refused_sources,
                &counters.refused_address,
                &counters.refused_credentials,
                &counters.accept_errors,
            ];
            for (total, value) in totals.iter_mut().zip(values) {
                total.1 += value.load(Ordering::Relaxed);
            }
        }
        totals.to_vec()
    }

    /// Handshakes that are pending at the node's listeners.
    #[must_use]
    pub fn pending_handshakes(&self) -> u32 {
        self.registry.gates().iter().map(Gate::pending).sum()
    }
}

impl fmt::Debug for NodeMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeMeter")
    }
}

/// The words for what gates refuse, in the order in which they are read.
const GATE_REASONS: [&str; 7] =
    ["pending", "pending-of-source", "rate", "sources", "address", "credentials", "accept-error"];

impl ConnectError {
    /// The word for it in metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Dial(_) => "unreachable",
            Self::Establish(_) => "handshake",
            Self::Io(_) => "broken-off",
            Self::TimedOut(_) => "timed-out",
            Self::WrongPeer { .. } => "wrong-peer",
            Self::Closed(_) => "closed",
            Self::JoinRefused => "join-refused",
            Self::NotJoinable => "not-joinable",
            Self::Identity(_) => "certificate",
            Self::OuterTls(_) => "outer-tls",
            Self::Expired { .. } => "expired",
            Self::GuestRefused => "guest-refused",
            Self::Revoked => "revoked",
            Self::LinkClosed => "link-closed",
        }
    }
}
