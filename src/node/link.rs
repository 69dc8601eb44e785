//! A link: the session with one peer, and the channels under it, kept up.
//!
//! The session is made over whichever address answers first (`race`), its channels are kept up by a `pool`, and when its
//! time has come another one takes its place.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::config::LinkConfig;
use super::dial::Dialler;
use super::error::ConnectError;
use super::places::{Place, places};
use super::pool::{Pool, sleep_until};
use super::race::{self, Lost, Won};
use super::registry::Registry;
use super::session::Session;
use super::shared::LaneEvent;
use super::slot::backoff;
use crate::base::CloseCode;
use crate::crypto::identity::{NodeId, TlsSettings};
use crate::session::CloseReason;

/// The link to one peer. It is closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Link {
    peer: NodeId,
    status: watch::Receiver<LinkStatus>,
    /// Dropped with the last clone, which tells the supervising task to end.
    _alive: Arc<mpsc::Sender<()>>,
}

/// How a link is doing.
#[derive(Clone, Debug, Default)]
pub struct LinkStatus {
    /// The session, while there is one.
    pub session: Option<Session>,
    /// While there is none: the one that is being made, if it may send already. The peer may still refuse it.
    pub early_session: Option<Session>,
    /// Why the last attempt failed.
    pub last_error: Option<Arc<ConnectError>>,
    /// Attempts that failed since there was a session.
    pub failure_count: u32,
}

impl Link {
    pub(super) fn start(tls: TlsSettings, config: LinkConfig, registry: Arc<Registry>) -> Self {
        let (sender, status) = watch::channel(LinkStatus::default());
        let (alive, stopped) = mpsc::channel(1);
        let peer = config.peer.clone();
        let dialler = Arc::new(Dialler::new(tls, config, registry));
        tokio::spawn(Supervisor { dialler, status: sender, stopped }.run());
        Self { peer, status, _alive: Arc::new(alive) }
    }

    /// The peer.
    #[must_use]
    pub fn peer(&self) -> &NodeId {
        &self.peer
    }

    /// The session; waits until there is one.
    ///
    /// # Errors
    /// [`ConnectError::LinkClosed`] when the node was closed.
    pub async fn session(&self) -> Result<Session, ConnectError> {
        let mut status = self.status.clone();
        let found = status.wait_for(|status| status.session.is_some()).await;
        found.ok().and_then(|status| status.session.clone()).ok_or(ConnectError::LinkClosed)
    }

    /// The session, as soon as it may send; waits until there is one.
    ///
    /// That is one round trip before the peer's word that it accepts the session, so that the first bytes leave with the
    /// last message of the handshake. Once there is a connected one it is the same as [`session`](Self::session).
    ///
    /// By then the peer's identity is verified, and nobody can replay or read what is sent. But the peer may still refuse
    /// this node (it does not trust its certificate, or takes no more sessions), and another address may turn out to be
    /// the better one. The session then ends, and its streams with its error; what was sent on them the peer may have
    /// processed or not. The next session, which this gives again, starts anew. [`Session::connected`] tells how it went.
    ///
    /// With [`LinkConfig::early_data`](super::LinkConfig::early_data) and a ticket it comes before the peer was heard at all.
    /// Then streams that are opened as [replay-safe](super::StreamOpener::replay_safe) alone send by then, and what they send
    /// can be replayed.
    ///
    /// Until the peer has answered, 16 streams of each direction and 64 KiB leave on `quic://` and `tls://` channels; more
    /// waits. Datagrams of a flow that was
    /// made by hand are refused by then; [`Session::open_datagrams`] waits.
    ///
    /// # Errors
    /// [`ConnectError::LinkClosed`] when the node was closed.
    pub async fn early_session(&self) -> Result<Session, ConnectError> {
        let mut status = self.status.clone();
        let mut found = None;
        // Noted at the look: a moment later it may be over.
        let look = |status: &LinkStatus| {
            found = status.sending_session().cloned();
            found.is_some()
        };
        drop(status.wait_for(look).await);
        found.ok_or(ConnectError::LinkClosed)
    }

    /// The session, or why the first attempt failed.
    ///
    /// # Errors
    /// The [`ConnectError`] of the last attempt.
    pub async fn session_or_error(&self) -> Result<Session, Arc<ConnectError>> {
        let mut status = self.status.clone();
        let found = status.wait_for(|status| status.session.is_some() || status.last_error.is_some()).await;
        let Ok(found) = found else { return Err(Arc::new(ConnectError::LinkClosed)) };
        match (&found.session, &found.last_error) {
            (Some(session), _) => Ok(session.clone()),
            (None, Some(error)) => Err(Arc::clone(error)),
            (None, None) => Err(Arc::new(ConnectError::LinkClosed)),
        }
    }

    /// How the link is doing now.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        self.status.borrow().clone()
    }

    /// Waits until the status changes, which begins and ends of sessions, early ones included, and failed attempts do.
    pub async fn changed(&mut self) {
        // A closed channel means that the link is over: nothing changes any more.
        if self.status.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl LinkStatus {
    /// The session that streams may be opened on, the early one included. One that is over is none, even if the link has
    /// not noticed yet.
    fn sending_session(&self) -> Option<&Session> {
        self.session.as_ref().or(self.early_session.as_ref()).filter(|session| !session.is_ending())
    }
}

/// Keeps one link up.
struct Supervisor {
    dialler: Arc<Dialler>,
    status: watch::Sender<LinkStatus>,
    stopped: mpsc::Receiver<()>,
}

impl Supervisor {
    async fn run(mut self) {
        let places: Arc<[Place]> = places(&self.dialler.config).into();
        let mut failure_count = 0;
        loop {
            let dialler = Arc::clone(&self.dialler);
            let show_early = |session| self.status.send_modify(|status| status.early_session = session);
            // An end comes first: sessions are closed right after it, and should not be made anew.
            let attempt = tokio::select! {
                biased;
                _ = self.stopped.recv() => return,
                attempt = race::establish(&dialler, &places, failure_count, show_early) => attempt,
            };
            match attempt {
                Ok(Won { address, session, events }) => {
                    failure_count = 0;
                    let session = session.claim();
                    let chosen = &dialler.config.addresses[address].address;
                    tracing::info!(peer = %dialler.config.peer, session = %session.id(), address = %chosen, "session connected");
                    self.status.send_replace(LinkStatus { session: Some(session.clone()), ..LinkStatus::default() });
                    let kept = Kept::new(&dialler, &places, session, address, events);
                    let Some(reason) = self.keep(kept, &places).await else { return };
                    tracing::warn!(peer = %dialler.config.peer, %reason, "session ended");
                    self.status.send_replace(LinkStatus::default());
                }
                Err(Lost { address, error }) => {
                    failure_count += 1;
                    let tried = &dialler.config.addresses[address].address;
                    let pause = backoff(failure_count, dialler.config.backoff_max);
                    tracing::warn!(peer = %dialler.config.peer, address = %tried, %error, retry_in_ms = pause.as_millis() as u64, "peer cannot be reached");
                    self.status.send_replace(LinkStatus {
                        last_error: Some(Arc::new(error)),
                        failure_count,
                        ..LinkStatus::default()
                    });
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = self.stopped.recv() => return,
                    }
                }
            }
        }
    }
}

impl Supervisor {
    /// Keeps a session up until it ends, and replaces it when its time has come: why the last one has ended, or `None`
    /// when the link was dropped.
    async fn keep(&mut self, mut kept: Kept, places: &Arc<[Place]>) -> Option<CloseReason> {
        let dialler = Arc::clone(&self.dialler);
        let mut draining = JoinSet::new();
        let mut failure_count = 0;
        let mut replaced_at = kept.replaced_at();
        loop {
            tokio::select! {
                biased;
                _ = self.stopped.recv() => return None,
                reason = &mut kept.keeping => return Some(reason),
                Some(_) = draining.join_next(), if !draining.is_empty() => continue,
                () = sleep_until(replaced_at) => {}
            }
            // Nobody waits for it: there is one that works.
            let attempt = tokio::select! {
                biased;
                _ = self.stopped.recv() => return None,
                reason = &mut kept.keeping => return Some(reason),
                attempt = race::establish(&dialler, places, failure_count, |_| {}) => attempt,
            };
            match attempt {
                Ok(Won { address, session, events }) => {
                    failure_count = 0;
                    let session = session.claim();
                    tracing::info!(peer = %dialler.config.peer, old = %kept.session.id(), session = %session.id(), "session replaced");
                    self.status.send_replace(LinkStatus { session: Some(session.clone()), ..LinkStatus::default() });
                    let next = Kept::new(&dialler, places, session, address, events);
                    draining.spawn(std::mem::replace(&mut kept, next).drain());
                    replaced_at = kept.replaced_at();
                }
                Err(Lost { error, .. }) => {
                    failure_count += 1;
                    let pause = backoff(failure_count, dialler.config.backoff_max);
                    tracing::warn!(peer = %dialler.config.peer, %error, retry_in_ms = pause.as_millis() as u64, "session cannot be replaced yet");
                    replaced_at = Some(Instant::now() + pause);
                }
            }
        }
    }
}

/// A session and what keeps its channels up.
struct Kept {
    session: Session,
    /// Ends with the session.
    keeping: Pin<Box<dyn Future<Output = CloseReason> + Send>>,
}

impl Kept {
    fn new(
        dialler: &Arc<Dialler>,
        places: &Arc<[Place]>,
        session: Session,
        address: usize,
        events: mpsc::UnboundedReceiver<LaneEvent>,
    ) -> Self {
        let (dialler, places, kept) = (Arc::clone(dialler), Arc::clone(places), session.clone());
        let keeping = async move { Pool::new(&dialler, &places, kept, address).run(events).await };
        Self { session, keeping: Box::pin(keeping) }
    }

    /// When another session should take its place.
    fn replaced_at(&self) -> Option<Instant> {
        self.session.shared().look(|inner| inner.session.replaced_at())
    }

    /// Lets streams end, as long as the session lives, and then closes it.
    async fn drain(mut self) {
        let code = CloseCode::SESSION_EXPIRED;
        self.session.go_away(code, "another session takes new streams");
        let drained = async {
            while self.session.stream_count() > 0 {
                tokio::time::sleep(DRAINED_INTERVAL).await;
            }
        };
        tokio::select! {
            _ = &mut self.keeping => return,
            () = drained => self.session.close(code, "another session has taken its place"),
        }
        self.keeping.await;
    }
}

/// How often a session that was replaced is looked at: whether its last stream has ended.
const DRAINED_INTERVAL: Duration = Duration::from_millis(100);
