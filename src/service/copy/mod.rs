//! Carries bytes between a socket and a stream, both ways, until both directions have ended.
//!
//! Ends are passed on as what they are: an end of one direction as the end of that direction (`upload`, `download`), a
//! reset as a reset, also while one side takes nothing. While nothing moves no buffer is held.

mod download;
mod scratch;
mod upload;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use self::download::Download;
pub(super) use self::scratch::with_scratch;
use self::upload::Upload;
use super::counters::Counters;
use super::signal::Signal;
use super::socket::Socket;
use super::throttle::Pace;
use crate::base::StreamCode;
use crate::node::{ReadError, RecvStream, SendStream, WriteError};
use crate::session::CloseReason;

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both directions reached their ends.
    Complete,
    /// The peer reset the stream.
    Reset(StreamCode),
    /// The socket failed, or was reset.
    Socket(io::Error),
    /// The session is over.
    Session(CloseReason),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("both directions ended"),
            Self::Reset(code) => write!(f, "peer reset the stream: {code}"),
            Self::Socket(error) => write!(f, "local socket failed: {error}"),
            Self::Session(reason) => write!(f, "session ended: {reason}"),
        }
    }
}

/// A connection.
pub(super) struct Copier {
    socket: Socket,
    send: SendStream,
    recv: RecvStream,
    upload: Upload,
    download: Download,
    wakers: Option<Wakers>,
    counters: Arc<Counters>,
    pace: Pace,
}

impl Copier {
    pub(super) fn new(socket: Socket, send: SendStream, recv: RecvStream, counters: Arc<Counters>, pace: Pace) -> Self {
        let (upload, download) = (Upload::default(), Download::default());
        Self { socket, send, recv, upload, download, wakers: None, counters, pace }
    }

    /// Bytes that go to the peer before those of the socket.
    pub(super) fn begin_upload_with(&mut self, first: Bytes) {
        self.upload.push(first);
    }

    /// Has somebody hear when the socket takes the first bytes.
    pub(super) fn on_first_download(&mut self, told: Box<dyn FnOnce() + Send>) {
        self.download.on_first(told);
    }

    /// Bytes that go to the socket before those of the peer.
    pub(super) fn begin_download_with(&mut self, first: Bytes) {
        self.download.push(first);
    }

    /// Carries until both directions have ended, and closes the socket and the stream accordingly.
    pub(super) async fn run(&mut self) -> End {
        let end = loop {
            if let Err(end) = poll_fn(|context| self.poll_both(context)).await {
                break end;
            }
            // Boxed: most connections are idle, and need no room for it.
            if let Err(end) = Box::pin(self.run_blocked()).await {
                break end;
            }
        };
        self.close(&end);
        end
    }

    /// Both directions, until the stream takes nothing more.
    fn poll_both(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Wakers { readable, writable } = Wakers::of(&mut self.wakers, context);
        let (socket, counters, pace) = (&mut self.socket, &*self.counters, &mut self.pace);
        let down = self.download.poll(context, socket, &mut self.recv, readable, counters, pace)?;
        let up = self.upload.poll(context, socket, &mut self.send, writable, counters, pace)?;
        match (up, down) {
            (Step::Over, Step::Over) => return Poll::Ready(Err(End::Complete)),
            (Step::More, _) | (_, Step::More) => go_on_later(context),
            _ if self.upload.is_blocked() => return Poll::Ready(Ok(())),
            _ => {}
        }
        Poll::Pending
    }

    /// One direction, until the stream takes more. Nobody reads the socket meanwhile, which would tell of its reset.
    async fn run_blocked(&mut self) -> Result<(), End> {
        let Self { socket, send, recv, upload, download, wakers, counters, pace } = self;
        let socket = &*socket;
        let mut broken = pin!(socket.broken());
        let poll = |context: &mut Context<'_>| {
            if let Poll::Ready(error) = broken.as_mut().poll(context) {
                return Poll::Ready(Err(End::Socket(error)));
            }
            let Wakers { readable, writable } = Wakers::of(wakers, context);
            let down = download.poll(context, socket, recv, readable, counters, pace)?;
            if upload.flush(send, writable)? {
                return Poll::Ready(Ok(()));
            }
            if down == Step::More {
                go_on_later(context);
            }
            Poll::Pending
        };
        poll_fn(poll).await
    }

    /// Ends both directions at once: the peer gets `code`, the socket a reset.
    pub(super) fn break_off(&mut self, code: StreamCode) -> End {
        self.send.reset(code);
        self.recv.stop(code);
        self.socket.reset_on_close();
        End::Reset(code)
    }

    /// Passes an end that was no orderly one on to the other side.
    fn close(&mut self, end: &End) {
        match end {
            End::Complete => {}
            End::Reset(_) | End::Session(_) => {
                self.send.reset(StreamCode::CONNECTION_RESET);
                self.socket.reset_on_close();
            }
            End::Socket(_) => {
                self.send.reset(StreamCode::CONNECTION_RESET);
                self.recv.stop(StreamCode::CONNECTION_RESET);
                self.socket.reset_on_close();
            }
        }
    }
}

/// Others of this thread go first.
fn go_on_later(context: &Context<'_>) {
    context.waker().wake_by_ref();
}

/// What a direction came to in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It waits for the socket or the stream.
    Waiting,
    /// It could go on, and lets others go first.
    More,
    /// It has ended.
    Over,
}

/// A waker of one half of the stream.
struct HalfWaker {
    signal: Arc<Signal>,
    waker: Waker,
}

impl HalfWaker {
    fn new(task: &Waker) -> Self {
        let signal = Signal::new(task);
        Self { waker: Waker::from(Arc::clone(&signal)), signal }
    }
}

struct Wakers {
    readable: HalfWaker,
    writable: HalfWaker,
}

impl Wakers {
    /// Those of the task that is polled now.
    fn of<'a>(kept: &'a mut Option<Self>, context: &Context<'_>) -> &'a Self {
        let wakers = match kept.take() {
            Some(wakers) if wakers.writable.signal.is_of(context) => wakers,
            _ => Self { readable: HalfWaker::new(context.waker()), writable: HalfWaker::new(context.waker()) },
        };
        kept.insert(wakers)
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(code),
            ReadError::Session(reason) => Self::Session(reason),
            // This side neither stops a stream that it reads nor bounds its length.
            ReadError::Closed | ReadError::TooLong(_) => Self::Reset(StreamCode::CANCELLED),
        }
    }
}

/// The end that a failed write stands for; `None` when only this direction is over.
fn end_of_write(error: WriteError) -> Option<End> {
    match error {
        WriteError::Session(reason) => Some(End::Session(reason)),
        WriteError::Stopped(_) | WriteError::Closed => None,
    }
}

/// Reads or writes of one direction before the other one, and other tasks, have their turn.
const ROUNDS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle connection costs its task, which is little more than this, and what the session keeps of its stream.
    #[test]
    fn a_connection_is_small() {
        fn size_of_future<F: Future>(_: impl FnOnce(&'static mut Copier) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of::<Copier>() + size_of_future(Copier::run);
        assert!(size <= 512, "{} + {} bytes", size_of::<Copier>(), size - size_of::<Copier>());
    }
}
