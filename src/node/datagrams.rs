//! Datagrams of a stream: messages that arrive whole or not at all, and are dropped rather than late.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::{DatagramError, ReadError};
use super::recv_stream::RecvStream;
use super::send_stream::SendStream;
use super::shared::{Shared, Wait};
use crate::base::{StreamId, limits};
use crate::stream;

/// A flow of datagrams in both directions. It lives as long as the bidirectional stream whose halves it holds: when the
/// peer ends or resets that, the flow is over, and dropping the flow tells the peer.
///
/// ```no_run
/// # async fn example(session: longhaul::node::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use bytes::Bytes;
/// use longhaul::node::DatagramFlow;
///
/// // At one side:
/// let mut flow = session.open_datagrams().await?;
/// flow.send(Bytes::from_static(b"ping"))?;
/// let answer = flow.recv().await?;
///
/// // At the other:
/// let (send, recv) = session.accept_bi().await?;
/// let mut flow = DatagramFlow::new(send, recv);
/// while let Some(datagram) = flow.recv().await? {
///     flow.send(datagram)?;
/// }
/// # Ok(()) }
/// ```
pub struct DatagramFlow {
    sender: DatagramSender,
    send: SendStream,
    recv: RecvStream,
}

impl DatagramFlow {
    /// The datagrams of a stream, of which both sides make a flow. Bytes that come on the stream itself from now on are
    /// dropped: what has to be said first is said before.
    #[must_use]
    pub fn new(send: SendStream, recv: RecvStream) -> Self {
        debug_assert_eq!(send.id(), recv.id(), "both halves are of one stream");
        let (shared, id) = (Arc::clone(recv.shared()), recv.id());
        shared.with(|inner| inner.session.take_datagrams(id));
        Self { sender: DatagramSender { shared, id, age_max: limits::DATAGRAM_AGE_MAX }, send, recv }
    }

    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.sender.id
    }

    /// Sets how long a datagram may wait for a lane before it is dropped; half a second when nothing else is said.
    /// Senders that were made before keep theirs.
    pub fn set_age_max(&mut self, age_max: Duration) {
        self.sender.age_max = age_max;
    }

    /// What sends on the flow from elsewhere.
    #[must_use]
    pub fn sender(&self) -> DatagramSender {
        self.sender.clone()
    }

    /// Sends a datagram, as [`DatagramSender::send`].
    ///
    /// # Errors
    /// [`DatagramError`].
    pub fn send(&self, data: Bytes) -> Result<(), DatagramError> {
        self.sender.send(data)
    }

    /// The next datagram; `None` when the peer has ended the flow. Cancel safe.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn recv(&mut self) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// The next datagram, or registers the task to be woken when there is one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn poll_recv(&mut self, context: &Context<'_>) -> Poll<Result<Option<Bytes>, ReadError>> {
        let DatagramSender { shared, id, .. } = &self.sender;
        let datagram = shared.with(|inner| {
            let datagram = inner.session.read_datagram(*id);
            if datagram.is_none() {
                inner.wait(Wait::Datagram(*id), context);
            }
            datagram
        });
        if datagram.is_some() {
            return Poll::Ready(Ok(datagram));
        }
        loop {
            match self.recv.poll_read_chunk(context, usize::MAX) {
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The halves of the stream, to end it with a code.
    pub fn stream(&mut self) -> (&mut SendStream, &mut RecvStream) {
        (&mut self.send, &mut self.recv)
    }

    /// Ends the flow in order: the peer reads its end. Datagrams that wait for a lane may be lost.
    pub fn finish(mut self) {
        // It may be over already, which is what is wanted.
        let _ = self.send.finish();
    }
}

impl Drop for DatagramFlow {
    fn drop(&mut self) {
        let DatagramSender { shared, id, .. } = &self.sender;
        shared.with(|inner| {
            inner.forget(Wait::Datagram(*id));
            inner.session.release_datagrams(*id);
        });
    }
}

impl fmt::Debug for DatagramFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatagramFlow").field(&self.id()).finish()
    }
}

/// Sends on a flow of datagrams. Clones send on the same one; they do not keep it alive.
#[derive(Clone)]
pub struct DatagramSender {
    shared: Arc<Shared>,
    id: StreamId,
    age_max: Duration,
}

impl DatagramSender {
    /// Sends a datagram, at once or as soon as a lane takes it; too old by then, it is dropped and counted
    /// ([`SessionStats::datagrams`](super::SessionStats)). It arrives whole or not at all, in no order.
    ///
    /// # Errors
    /// [`DatagramError`].
    pub fn send(&self, data: Bytes) -> Result<(), DatagramError> {
        let (id, age_max) = (self.id, self.age_max);
        self.shared.with_timer(|inner| {
            let sent = inner.session.send_datagram(id, data, age_max, Instant::now());
            sent.map_err(|error| match (inner.closed(), error) {
                (Some(reason), _) => DatagramError::Session(reason.clone()),
                (None, stream::DatagramError::TooLarge { size, size_max }) => {
                    DatagramError::TooLarge { size, size_max }
                }
                (None, stream::DatagramError::Closed) => DatagramError::Closed,
            })
        })
    }

    /// Largest datagram that the peer takes, in bytes; 0 when it takes none.
    #[must_use]
    pub fn size_max(&self) -> usize {
        self.shared.look(|inner| inner.session.datagram_bytes_max())
    }
}

impl fmt::Debug for DatagramSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatagramSender").field(&self.id).finish()
    }
}
