//! Opening streams with more to say than a direction.

use super::error::SessionError;
use super::recv_stream::RecvStream;
use super::send_stream::SendStream;
use super::session::Session;
use crate::base::Direction;
use crate::stream::Priority;

/// A stream to be opened; from [`Session::stream`].
///
/// ```no_run
/// # async fn example(session: longhaul::node::Session) -> Result<(), longhaul::node::SessionError> {
/// let (send, recv) = session.stream().replay_safe().open_bi().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is opened yet"]
pub struct StreamOpener<'a> {
    session: &'a Session,
    priority: Priority,
    replay_safe: bool,
}

impl<'a> StreamOpener<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        Self { session, priority: Priority::default(), replay_safe: false }
    }

    /// How urgent it is; the peer learns of it.
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// What is asked for on it may happen twice without harm, as with a read. On a session that resumes, with a peer that
    /// takes early data, its first bytes then leave before the peer has answered anything, and are delivered by then.
    ///
    /// They may be delivered a second time, to this peer after a restart or to another node with the same name, by somebody
    /// who has recorded them; and they have no forward secrecy against who reads the peer's memory within a day.
    pub fn replay_safe(self) -> Self {
        Self { replay_safe: true, ..self }
    }

    /// Opens it for both directions; waits while the peer allows no more.
    ///
    /// # Errors
    /// [`SessionError`] when the session is over or the peer shuts down.
    pub async fn open_bi(self) -> Result<(SendStream, RecvStream), SessionError> {
        let id = self.session.open(Direction::Bi, self.priority, self.replay_safe).await?;
        Ok(self.session.both(id))
    }

    /// Opens it for this side to write only.
    ///
    /// # Errors
    /// As [`open_bi`](Self::open_bi).
    pub async fn open_uni(self) -> Result<SendStream, SessionError> {
        let id = self.session.open(Direction::Uni, self.priority, self.replay_safe).await?;
        Ok(self.session.both(id).0)
    }
}
