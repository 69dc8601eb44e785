//! The application's handle on a session.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use super::datagrams::DatagramFlow;
use super::error::SessionError;
use super::recv_stream::RecvStream;
use super::send_stream::SendStream;
use super::shared::Shared;
use super::stream_opener::StreamOpener;
use crate::base::{CloseCode, Direction, SessionId, Side, StreamId};
use crate::crypto::identity::PeerIdentity;
use crate::session::{CloseReason, OpenError, SessionStats};
use crate::stream::Priority;

/// A session with a peer. Clones are the same session; when the last one is dropped, the session is closed.
///
/// One that came from [`Link::early_session`](super::Link::early_session) may not be connected yet, and may never be:
/// [`connected`](Self::connected) tells.
#[derive(Clone)]
pub struct Session(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        close_silently(&self.shared);
    }
}

/// A session that its link has not taken. When this is dropped the session is closed, whoever else has a handle: an
/// application may have got an early one.
pub(super) struct Unclaimed(Option<Session>);

impl Unclaimed {
    pub(super) fn new(session: Session) -> Self {
        Self(Some(session))
    }

    /// The session, which from now on lives as long as its handles.
    pub(super) fn claim(mut self) -> Session {
        self.0.take().expect("only this takes it, and by value")
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            close_silently(&session.0.shared);
        }
    }
}

fn close_silently(shared: &Shared) {
    shared.with_timer(|inner| inner.session.close(CloseCode::NO_ERROR, "", Instant::now()));
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id()).field("peer", &self.0.shared.peer.node_id).finish()
    }
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Handle { shared }))
    }

    /// Whether it is over, or about to be.
    pub(super) fn is_ending(&self) -> bool {
        self.0.shared.look(|inner| inner.session.is_ending())
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// The session's name, the same at both ends.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.0.shared.look(|inner| inner.session.id())
    }

    /// Which side this is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.0.shared.look(|inner| inner.session.side())
    }

    /// Who the peer is, by its verified certificate.
    #[must_use]
    pub fn peer(&self) -> &PeerIdentity {
        &self.0.shared.peer
    }

    /// Whether the peer has accepted the session. Until then both know who the other one is only by this side's word: the
    /// peer may still refuse.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.shared.look(|inner| inner.session.is_connected())
    }

    /// Waits until the peer has accepted the session.
    ///
    /// # Errors
    /// [`SessionError::Closed`] when the session is over: why it is.
    pub async fn connected(&self) -> Result<(), SessionError> {
        self.0.shared.connected().await
    }

    /// Whether the peer has not shown yet that it is there now: what was read until then came in early data (0-RTT), and may
    /// be somebody's repetition of it. Only on accepted sessions, where a listener takes early data;
    /// [`connected`](Self::connected) waits for the end of that.
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.0.shared.look(|inner| inner.session.is_early())
    }

    /// Whether it was early once: early data was taken from its peer. It stays so.
    #[must_use]
    pub fn began_early(&self) -> bool {
        self.0.shared.look(|inner| inner.session.began_early())
    }

    /// A stream to be opened, with more to say about it.
    pub fn stream(&self) -> StreamOpener<'_> {
        StreamOpener::new(self)
    }

    /// Opens a stream for both directions; waits while the peer allows no more.
    ///
    /// # Errors
    /// [`SessionError`] when the session is over or the peer shuts down.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), SessionError> {
        self.open_bi_with(Priority::default()).await
    }

    /// Opens a stream for both directions with a priority, of which the peer learns.
    ///
    /// # Errors
    /// As [`open_bi`](Self::open_bi).
    pub async fn open_bi_with(&self, priority: Priority) -> Result<(SendStream, RecvStream), SessionError> {
        self.stream().priority(priority).open_bi().await
    }

    /// Opens a flow of datagrams; the peer gets a stream by [`accept_bi`](Self::accept_bi), and makes a flow of it
    /// ([`DatagramFlow::new`]). Waits until the session is connected: how large datagrams may be is not known before.
    ///
    /// # Errors
    /// As [`open_bi`](Self::open_bi).
    pub async fn open_datagrams(&self) -> Result<DatagramFlow, SessionError> {
        self.connected().await?;
        let (send, recv) = self.open_bi().await?;
        Ok(DatagramFlow::new(send, recv))
    }

    /// Opens a stream that only this side writes to.
    ///
    /// # Errors
    /// As [`open_bi`](Self::open_bi).
    pub async fn open_uni(&self) -> Result<SendStream, SessionError> {
        self.open_uni_with(Priority::default()).await
    }

    /// Opens a stream that only this side writes to, with a priority.
    ///
    /// # Errors
    /// As [`open_bi`](Self::open_bi).
    pub async fn open_uni_with(&self, priority: Priority) -> Result<SendStream, SessionError> {
        self.stream().priority(priority).open_uni().await
    }

    /// The next stream for both directions that the peer opens.
    ///
    /// # Errors
    /// [`SessionError`] when the session is over.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), SessionError> {
        let id = self.accept(Direction::Bi).await?;
        Ok(self.both(id))
    }

    /// The next stream that only the peer writes to.
    ///
    /// # Errors
    /// [`SessionError`] when the session is over.
    pub async fn accept_uni(&self) -> Result<RecvStream, SessionError> {
        let id = self.accept(Direction::Uni).await?;
        Ok(RecvStream::new(Arc::clone(&self.0.shared), id))
    }

    /// Asks the peer to open no more streams; those that are open go on.
    pub fn go_away(&self, code: CloseCode, reason: &str) {
        self.0.shared.with_timer(|inner| inner.session.go_away(code, reason));
    }

    /// Closes the session: its streams end at once at both sides. The reason is cut after 256 bytes.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.0.shared.with_timer(|inner| inner.session.close(code, reason, Instant::now()));
    }

    /// Waits until the session is over: why it is.
    pub async fn closed(&self) -> CloseReason {
        poll_fn(|context| {
            self.0.shared.with(|inner| match inner.closed() {
                Some(reason) => Poll::Ready(reason.clone()),
                None => {
                    inner.wait_closed(context);
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// Why the session is over, if it is.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.shared.closed()
    }

    /// Counters and estimates at this moment.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        self.0.shared.look(|inner| inner.session.stats())
    }

    /// Streams that are not over.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.0.shared.look(|inner| inner.session.stream_count())
    }

    /// Steps the traffic keys now, before their limits ask for it.
    pub fn update_keys(&self) {
        self.0.shared.with_timer(|inner| inner.session.update_keys(Instant::now()));
    }

    pub(super) fn both(&self, id: StreamId) -> (SendStream, RecvStream) {
        let shared = &self.0.shared;
        (SendStream::new(Arc::clone(shared), id), RecvStream::new(Arc::clone(shared), id))
    }

    pub(super) async fn open(
        &self,
        direction: Direction,
        priority: Priority,
        replay_safe: bool,
    ) -> Result<StreamId, SessionError> {
        let open = |session: &mut crate::session::Session| {
            if replay_safe { session.open_replay_safe(direction, priority) } else { session.open(direction, priority) }
        };
        poll_fn(|context| {
            self.0.shared.with(|inner| match open(&mut inner.session) {
                Ok(id) => Poll::Ready(Ok(id)),
                Err(OpenError::Blocked) => {
                    inner.wait_open(direction, context);
                    Poll::Pending
                }
                Err(OpenError::GoingAway(_)) => Poll::Ready(Err(SessionError::GoingAway)),
                Err(OpenError::Closed(reason)) => Poll::Ready(Err(SessionError::Closed(reason))),
            })
        })
        .await
    }

    async fn accept(&self, direction: Direction) -> Result<StreamId, SessionError> {
        poll_fn(|context| {
            self.0.shared.with(|inner| match (inner.session.accept(direction), inner.closed()) {
                (Some(id), _) => Poll::Ready(Ok(id)),
                (None, Some(reason)) => Poll::Ready(Err(SessionError::Closed(reason.clone()))),
                (None, None) => {
                    inner.wait_accept(direction, context);
                    Poll::Pending
                }
            })
        })
        .await
    }
}
