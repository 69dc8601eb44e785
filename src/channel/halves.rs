//! The two halves of a channel.
//!
//! Both wait without a buffer (`readable`, `writable`) and then move bytes without waiting (`try_read`, `try_write`):
//! an idle channel holds no buffer of ours. On TCP and Unix sockets these allocate nothing.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::sync::OwnedSemaphorePermit;

use super::connection::Io;
use super::quic::QuicIo;
use super::unsent_bound::UnsentBound;

/// The receiving half of a channel.
#[derive(Debug)]
pub struct ReadHalf {
    io: Io,
    /// An error that came after bytes in the same call, for the next one.
    deferred: Option<io::Error>,
}

impl ReadHalf {
    pub(crate) fn new(io: Io) -> Self {
        Self { io, deferred: None }
    }

    /// Waits until [`try_read`](Self::try_read) has something to say: bytes, the end, or an error. It may still find
    /// nothing. Cancel safe.
    ///
    /// # Errors
    ///
    /// The channel has failed.
    pub async fn readable(&mut self) -> io::Result<()> {
        if self.deferred.is_some() {
            return Ok(());
        }
        match &self.io {
            // Not `readable()`, which keeps a list for any number of tasks: this half has one.
            Io::Tcp(stream) => poll_fn(|context| stream.poll_read_ready(context)).await,
            Io::Unix(stream) => poll_fn(|context| stream.poll_read_ready(context)).await,
            Io::Quic(lane) => poll_fn(|context| lane.poll_readable(context)).await,
            Io::Tls(tls) => match poll_fn(|context| tls.0.poll_readable(context)).await {
                Ok(()) => Ok(()),
                Err(error) => {
                    // rustls tells some errors once only.
                    self.deferred = Some(error);
                    Ok(())
                }
            },
        }
    }

    /// Reads into the spare capacity of `buffer`, at its end, without waiting. `None`: nothing is there yet. `Some(0)`:
    /// the other end has finished.
    ///
    /// # Errors
    ///
    /// The channel has failed, which for TLS includes an end without its notice (`UnexpectedEof`); or `InvalidInput` when `buffer` has no spare capacity, which the caller reserves.
    pub fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        if buffer.capacity() == buffer.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the buffer has no spare capacity to read into"));
        }
        match &self.io {
            Io::Tcp(stream) => {
                read_once(buffer, |read| stream.try_io(Interest::READABLE, read), |buffer| stream.try_read_buf(buffer))
            }
            Io::Unix(stream) => {
                read_once(buffer, |read| stream.try_io(Interest::READABLE, read), |buffer| stream.try_read_buf(buffer))
            }
            Io::Tls(tls) => tls.0.try_read(buffer, &mut self.deferred),
            Io::Quic(lane) => lane.try_read(buffer),
        }
    }

    /// Reads into the spare capacity of `buffer`, at its end: waits for the first byte. 0: the other end has finished.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`try_read`](Self::try_read).
    pub async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            if let Some(count) = self.try_read(buffer)? {
                return Ok(count);
            }
            self.readable().await?;
        }
    }
}

/// The sending half of a channel.
#[derive(Debug)]
pub struct WriteHalf {
    io: Io,
    /// Taken for a QUIC lane, and not yet with quinn.
    staged: Bytes,
    unsent: UnsentBound,
}

impl WriteHalf {
    pub(crate) fn new(io: Io) -> Self {
        Self { io, staged: Bytes::new(), unsent: UnsentBound::default() }
    }

    /// Waits until [`try_write`](Self::try_write) takes bytes, or fails. It may still take none. Cancel safe.
    ///
    /// On TLS and QUIC this first hands on what an earlier [`try_write`](Self::try_write) could not.
    ///
    /// # Errors
    ///
    /// The channel has failed.
    pub async fn writable(&mut self) -> io::Result<()> {
        match &self.io {
            Io::Tcp(stream) => stream.writable().await,
            Io::Unix(stream) => stream.writable().await,
            Io::Quic(lane) => write_staged(lane, &mut self.staged).await,
            Io::Tls(tls) => {
                poll_fn(|context| tls.0.poll_flush(context)).await?;
                tls.0.socket().writable().await
            }
        }
    }

    /// Tells the shortest round trip of the channel, by which the kernel holds more or less unsent.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.unsent.set_round_trip(round_trip);
    }

    /// Lets the bound of unsent bytes follow the rate, where it does.
    fn note_written(&mut self, count: usize) {
        let tcp = match &self.io {
            Io::Tcp(tcp) => tcp,
            Io::Tls(tls) => tls.0.socket(),
            Io::Unix(_) | Io::Quic(_) => return,
        };
        if self.unsent.is_of_use()
            && tcp.adapts_notsent_lowat()
            && let Some(bytes) = self.unsent.on_written(Instant::now(), count)
        {
            tcp.set_notsent_lowat(bytes);
        }
    }

    /// Whether what [`try_write`](Self::try_write) takes is with the system at once, so that nobody has to flush it.
    #[must_use]
    pub fn writes_through(&self) -> bool {
        matches!(self.io, Io::Tcp(_) | Io::Unix(_))
    }

    /// Writes a part of `bytes` without waiting; how much is returned. `None`: nothing could be taken now.
    ///
    /// On TLS and QUIC, some of what was taken may stay behind: the next `try_write`, [`writable`](Self::writable) or
    /// [`flush`](Self::flush) sends them. So who has nothing more to write calls `flush`.
    ///
    /// # Errors
    ///
    /// The channel has failed.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match &self.io {
            Io::Tcp(stream) => {
                let count = unless_blocked(stream.try_write(bytes))?;
                self.note_written(count.unwrap_or(0));
                Ok(count)
            }
            Io::Unix(stream) => unless_blocked(stream.try_write(bytes)),
            Io::Tls(tls) => tls.0.try_write(bytes),
            Io::Quic(lane) => {
                let mut context = Context::from_waker(Waker::noop());
                if !self.staged.is_empty() && lane.poll_write(&mut context, &mut self.staged)?.is_pending() {
                    return Ok(None);
                }
                if !self.staged.is_empty() {
                    return Ok(None);
                }
                let count = bytes.len().min(STAGED_BYTES_MAX);
                self.staged = Bytes::copy_from_slice(&bytes[..count]);
                // What stays behind is handed on by whoever calls next.
                let _ = lane.poll_write(&mut context, &mut self.staged)?;
                Ok(Some(count))
            }
        }
    }

    /// Writes all of `bytes` and hands them to the system. When the future is dropped, a part may have been written.
    ///
    /// # Errors
    ///
    /// The channel has failed.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let _turn = self.turn(false).await;
        while !bytes.is_empty() {
            let written = match &self.io {
                Io::Tls(tls) => {
                    let count = poll_fn(|context| tls.0.poll_write(context, bytes)).await?;
                    self.note_written(count);
                    count
                }
                Io::Tcp(_) | Io::Unix(_) | Io::Quic(_) => match self.try_write(bytes)? {
                    Some(written) => written,
                    None => {
                        self.writable().await?;
                        continue;
                    }
                },
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
        }
        self.flush().await
    }

    /// Waits until this lane may write. Lanes of one connection write in turns, a message each: between several that wait
    /// for room, quinn gives it to the last one again and again. At once on channels of one lane. Cancel safe.
    ///
    /// With `is_express`, for short messages, at once as well, and what is written goes out before what others wrote.
    pub async fn turn(&self, is_express: bool) -> Turn {
        match &self.io {
            Io::Quic(lane) => Turn(lane.turn(is_express).await),
            Io::Tcp(_) | Io::Unix(_) | Io::Tls(_) => Turn(None),
        }
    }

    /// As [`write_all`](Self::write_all), in the lane's turn, and empties `buffer`: a QUIC lane takes its memory over
    /// instead of copying it.
    ///
    /// # Errors
    ///
    /// The channel has failed.
    pub async fn write_message(&mut self, buffer: &mut BytesMut, _turn: &Turn) -> io::Result<()> {
        let Io::Quic(lane) = &self.io else {
            let outcome = self.write_all(buffer).await;
            buffer.clear();
            return outcome;
        };
        write_staged(lane, &mut self.staged).await?;
        self.staged = buffer.split().freeze();
        write_staged(lane, &mut self.staged).await
    }

    /// Waits until everything written is with the system, or with quinn; at once for sockets. Cancel safe.
    ///
    /// # Errors
    ///
    /// The channel has failed.
    pub async fn flush(&mut self) -> io::Result<()> {
        match &self.io {
            Io::Tcp(_) | Io::Unix(_) => Ok(()),
            Io::Tls(tls) => poll_fn(|context| tls.0.poll_flush(context)).await,
            Io::Quic(lane) => write_staged(lane, &mut self.staged).await,
        }
    }

    /// Ends this direction: the other end reads what was written, then the end.
    ///
    /// # Errors
    ///
    /// The channel has failed.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        match &self.io {
            Io::Tcp(stream) => SockRef::from(&***stream).shutdown(Shutdown::Write),
            Io::Unix(stream) => SockRef::from(&**stream).shutdown(Shutdown::Write),
            Io::Tls(tls) => poll_fn(|context| tls.0.poll_shutdown(context)).await,
            Io::Quic(lane) => {
                write_staged(lane, &mut self.staged).await?;
                lane.finish();
                Ok(())
            }
        }
    }
}

/// The right to write, until it is dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held, not looked at")] Option<OwnedSemaphorePermit>);

async fn write_staged(lane: &QuicIo, staged: &mut Bytes) -> io::Result<()> {
    while !staged.is_empty() {
        poll_fn(|context| lane.poll_write(context, staged)).await?;
    }
    Ok(())
}

/// What one call of [`WriteHalf::try_write`] takes for a QUIC lane, at most.
const STAGED_BYTES_MAX: usize = 64 << 10;

/// Reads, and when that left room in the buffer, marks the socket as not readable: there is nothing more, and asking the
/// system again to hear so would cost a call for each message. What arrives meanwhile marks it anew, as the mark is of
/// the moment before the read.
fn read_once(
    buffer: &mut BytesMut,
    try_io: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
    mut read: impl FnMut(&mut BytesMut) -> io::Result<usize>,
) -> io::Result<Option<usize>> {
    let room = buffer.capacity() - buffer.len();
    let mut count = None;
    let outcome = try_io(&mut || {
        let read = *count.insert(read(buffer)?);
        if (1..room).contains(&read) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match (count, outcome) {
        (Some(count), _) => Ok(Some(count)),
        (None, outcome) => unless_blocked(outcome.map(|()| 0)),
    }
}

fn unless_blocked(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;
    #[cfg(feature = "issue")]
    use crate::channel::tls::tests::tls_pair;
    use crate::channel::unsent_bound::UNSENT_BYTES_MIN;
    use crate::channel::{NotsentLowat, TcpIo};

    async fn tcp_pair() -> (Io, Io) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let io = |stream| Io::Tcp(Arc::new(TcpIo::new(stream, NotsentLowat::Auto)));
        (io(dialled.unwrap()), io(accepted.unwrap().0))
    }

    async fn pairs() -> Vec<(&'static str, Io, Io)> {
        let (tcp, unix) = (tcp_pair().await, UnixStream::pair().unwrap());
        #[cfg_attr(not(feature = "issue"), expect(unused_mut, reason = "certificates need the feature"))]
        let mut pairs = vec![("tcp", tcp.0, tcp.1), ("unix", Io::Unix(Arc::new(unix.0)), Io::Unix(Arc::new(unix.1)))];
        #[cfg(feature = "issue")]
        {
            let (client, server) = tls_pair().await;
            pairs.push(("tls", client.connection.io, server.connection.io));
        }
        pairs
    }

    #[tokio::test]
    async fn nothing_there_is_none_and_the_end_is_zero() {
        for (name, one, other) in pairs().await {
            let ((_one_read, mut write), (mut read, _other_write)) = (one.split(), other.split());
            let mut buffer = BytesMut::with_capacity(8);
            assert!(read.try_read(&mut buffer).unwrap().is_none(), "{name}");
            write.write_all(b"abc").await.unwrap();
            read.readable().await.unwrap();
            assert_eq!(read.read(&mut buffer).await.unwrap(), 3, "{name}");
            assert!(read.try_read(&mut buffer).unwrap().is_none(), "{name}");
            write.write_all(b"de").await.unwrap();
            assert_eq!(read.read(&mut buffer).await.unwrap(), 2, "{name}");
            assert_eq!(&buffer[..], b"abcde", "{name}");
            write.shutdown().await.unwrap();
            assert_eq!(read.read(&mut buffer).await.unwrap(), 0, "{name}");
            assert_eq!(buffer.capacity(), 8, "{name}");
        }
    }

    #[tokio::test]
    async fn a_full_buffer_is_the_callers_fault() {
        for (name, one, other) in pairs().await {
            let ((_one_read, mut write), (mut read, _other_write)) = (one.split(), other.split());
            write.write_all(b"abcdef").await.unwrap();
            let mut buffer = BytesMut::with_capacity(4);
            assert_eq!(read.read(&mut buffer).await.unwrap(), 4, "{name}");
            assert_eq!(read.try_read(&mut buffer).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
            buffer.reserve(4);
            read.readable().await.unwrap();
            assert_eq!(read.read(&mut buffer).await.unwrap(), 2, "{name}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_looked_once_is_still_woken() {
        for (name, one, other) in pairs().await {
            let ((_one_read, mut write), (mut read, other_write)) = (one.split(), other.split());
            let reading = tokio::spawn(async move {
                let mut buffer = BytesMut::with_capacity(8);
                assert!(read.try_read(&mut buffer).unwrap().is_none());
                read.readable().await.unwrap();
                read.read(&mut buffer).await.unwrap()
            });
            tokio::task::yield_now().await;
            write.write_all(b"x").await.unwrap();
            assert_eq!(reading.await.unwrap(), 1, "{name}");
            drop(other_write);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_writer_is_stopped_and_goes_on_without_loss() {
        const TOTAL: usize = 16 << 20;
        for (name, one, other) in pairs().await {
            let ((_one_read, mut write), (mut read, _other_write)) = (one.split(), other.split());
            let chunk: Vec<u8> = (0..=250).cycle().take(251 * 256).collect();
            let mut written = 0;
            while let Some(count) = write.try_write(&chunk[written % 251..]).unwrap() {
                written += count;
                assert!(written < TOTAL, "{name}: nobody reads, so the writer is stopped");
            }
            let writing = tokio::spawn(async move {
                while written < TOTAL {
                    write.writable().await.unwrap();
                    let rest = (TOTAL - written).min(chunk.len() - 251);
                    let from = written % 251;
                    written += write.try_write(&chunk[from..from + rest]).unwrap().unwrap_or(0);
                }
                write.flush().await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut buffer = BytesMut::with_capacity(64 * 1024);
            let mut received = 0;
            while read.read(&mut buffer).await.unwrap() > 0 {
                for byte in &buffer {
                    assert_eq!(usize::from(*byte), received % 251, "{name}");
                    received += 1;
                }
                buffer.clear();
            }
            assert_eq!(received, TOTAL, "{name}");
            writing.await.unwrap();
        }
    }

    /// The bound of unsent bytes after so many bytes were written for two tenths of a second.
    #[cfg(target_os = "linux")]
    async fn notsent_lowat_after_writing(lowat: NotsentLowat) -> u32 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let socket = Arc::new(TcpIo::new(dialled.unwrap(), lowat));
        let (_read, mut write) = Io::Tcp(Arc::clone(&socket)).split();
        let (mut read, _write) = Io::Tcp(Arc::new(TcpIo::new(accepted.unwrap().0, lowat))).split();
        SockRef::from(&**socket).set_tcp_notsent_lowat(UNSENT_BYTES_MIN).unwrap();
        write.set_round_trip(Duration::from_millis(150));
        let reading = async {
            let mut buffer = BytesMut::with_capacity(64 * 1024);
            while read.read(&mut buffer).await.unwrap() > 0 {
                buffer.clear();
            }
        };
        let writing = async {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(200) {
                write.write_all(&[7; 64 * 1024]).await.unwrap();
            }
            write.shutdown().await.unwrap();
        };
        tokio::join!(reading, writing);
        SockRef::from(&**socket).tcp_notsent_lowat().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_fast_channel_over_a_long_path_holds_more_unsent() {
        assert!(notsent_lowat_after_writing(NotsentLowat::Auto).await > UNSENT_BYTES_MIN);
        assert_eq!(notsent_lowat_after_writing(NotsentLowat::Bytes(UNSENT_BYTES_MIN)).await, UNSENT_BYTES_MIN);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn both_directions_run_at_once() {
        for (name, one, other) in pairs().await {
            let copy = |io: Io| {
                let (mut read, mut write) = io.split();
                let sending = async move {
                    for _ in 0..64 {
                        write.write_all(&[7; 40_000]).await.unwrap();
                    }
                    write
                };
                let receiving = async move {
                    let (mut buffer, mut received) = (BytesMut::with_capacity(16 * 1024), 0);
                    while received < 64 * 40_000 {
                        received += read.read(&mut buffer).await.unwrap();
                        buffer.clear();
                    }
                    (read, received)
                };
                tokio::spawn(async move { tokio::join!(sending, receiving) })
            };
            let (one, other) = (copy(one), copy(other));
            assert_eq!(one.await.unwrap().1.1, 64 * 40_000, "{name}");
            assert_eq!(other.await.unwrap().1.1, 64 * 40_000, "{name}");
        }
    }
}
