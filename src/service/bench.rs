//! Workloads over a session, for `longhaul bench`: a stream's first byte says what the other end does with the rest.
//!
//! What is reported as sent was counted at the receiver: the time includes the last byte's way.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::node::{ReadError, RecvStream, SendStream, Session};
use crate::wire::ServiceRequest;

/// Reads everything, then answers with the count.
const SINK: u8 = b'S';
/// Sends everything back.
const ECHO: u8 = b'E';

/// A workload could not be run to its end.
#[derive(Debug, thiserror::Error)]
#[error("benchmark failed: {0}")]
pub struct BenchError(String);

fn failed(error: impl std::error::Error) -> BenchError {
    BenchError(error.to_string())
}

/// Bytes that arrived in a time.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Bytes at the receiver.
    pub bytes: u64,
    /// From the first write to the receiver's answer.
    pub elapsed: Duration,
}

impl Throughput {
    /// Bytes a second.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64()
    }
}

/// Times of requests and their answers, one at a time.
#[derive(Clone, Debug)]
pub struct Latency {
    sorted: Vec<Duration>,
}

impl Latency {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { sorted: times }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The time that this share of the requests stayed below.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }
}

/// Serves the workloads of a peer, until the session ends.
pub async fn serve(session: Session) {
    while let Ok((send, recv)) = session.accept_bi().await {
        tokio::spawn(async move {
            // A stream that ends early is the other end's business.
            let _ = serve_stream(send, recv, Bytes::new()).await;
        });
    }
}

/// Serves one workload on a stream, of which `first` was read already.
///
/// # Errors
/// [`BenchError`] when the stream ends early.
pub async fn serve_stream(mut send: SendStream, mut recv: RecvStream, first: Bytes) -> Result<(), BenchError> {
    let mut chunk = first;
    while chunk.is_empty() {
        chunk = recv.read_chunk(usize::MAX).await.map_err(failed)?.ok_or(BenchError("stream is empty".to_owned()))?;
    }
    let kind = chunk.split_to(1)[0];
    let mut count = 0_u64;
    loop {
        count += chunk.len() as u64;
        if kind == ECHO && !chunk.is_empty() {
            send.write_chunk(chunk).await.map_err(failed)?;
        }
        match recv.read_chunk(usize::MAX).await.map_err(failed)? {
            Some(next) => chunk = next,
            None => break,
        }
    }
    if kind == SINK {
        send.write_u64(count).await.map_err(failed)?;
    }
    send.finish().map_err(failed)
}

/// Where workloads go: the streams of a session, each begun by a request where the peer expects one.
#[derive(Clone, Debug)]
pub struct Workload {
    session: Session,
    request: Bytes,
}

impl Workload {
    /// To a peer that [serves](serve) the whole session.
    #[must_use]
    pub fn direct(session: Session) -> Self {
        Self { session, request: Bytes::new() }
    }

    /// To a service of the peer whose target is [`Target::Bench`](super::Target::Bench).
    #[must_use]
    pub fn service(session: Session, name: &str) -> Self {
        let request = ServiceRequest { service: name.to_owned(), ..ServiceRequest::default() };
        Self { session, request: request.encode().into() }
    }

    async fn open(&self, kind: u8) -> Result<(SendStream, RecvStream), BenchError> {
        let (mut send, recv) = self.session.open_bi().await.map_err(failed)?;
        let mut head = self.request.to_vec();
        head.push(kind);
        send.write_chunk(head.into()).await.map_err(failed)?;
        Ok((send, recv))
    }
}

/// Sends for a time on some streams at once, in writes of `write_size` bytes.
///
/// # Errors
/// [`BenchError`] when the session ends early.
pub async fn throughput(
    workload: &Workload,
    streams: usize,
    time: Duration,
    write_size: usize,
) -> Result<Throughput, BenchError> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let (send, recv) = workload.open(SINK).await?;
        tasks.spawn(fill(send, recv, start + time, write_size));
    }
    let mut bytes = 0;
    while let Some(task) = tasks.join_next().await {
        bytes += task.map_err(failed)??;
    }
    Ok(Throughput { bytes, elapsed: start.elapsed() })
}

async fn fill(mut send: SendStream, mut recv: RecvStream, end: Instant, write_size: usize) -> Result<u64, BenchError> {
    /// A look at the clock costs as much as a small write.
    const WRITES_PER_LOOK: usize = 64;
    /// Larger writes are handed over as they are, as a program does that has its data in `Bytes`.
    const CHUNK_BYTES_MIN: usize = 4096;
    let message = Bytes::from(vec![0x2a; write_size]);
    while Instant::now() < end {
        if write_size >= CHUNK_BYTES_MIN {
            send.write_chunk(message.clone()).await.map_err(failed)?;
        } else {
            for _ in 0..WRITES_PER_LOOK {
                send.write_all(&message).await.map_err(failed)?;
            }
        }
    }
    send.finish().map_err(failed)?;
    recv.read_u64().await.map_err(failed)
}

/// Sends requests of `size` bytes for a time, each after the answer to the one before.
///
/// # Errors
/// [`BenchError`] when the session ends early.
pub async fn latency(workload: &Workload, time: Duration, size: usize) -> Result<Latency, BenchError> {
    let (mut send, mut recv) = workload.open(ECHO).await?;
    let mut message = vec![7; size];
    let end = Instant::now() + time;
    let mut times = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        send.write_all(&message).await.map_err(failed)?;
        recv.read_exact(&mut message).await.map_err(failed)?;
        times.push(start.elapsed());
    }
    send.finish().map_err(failed)?;
    Ok(Latency::new(times))
}

/// Opens streams for a time, one after the other, each with one byte that comes back.
///
/// # Errors
/// [`BenchError`] when the session ends early.
pub async fn opens(workload: &Workload, time: Duration) -> Result<Latency, BenchError> {
    let end = Instant::now() + time;
    let mut times = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        let (mut send, mut recv) = workload.open(ECHO).await?;
        send.write_chunk(Bytes::from_static(&[1])).await.map_err(failed)?;
        send.finish().map_err(failed)?;
        match recv.read_to_end(1).await {
            Ok(_) => times.push(start.elapsed()),
            Err(ReadError::TooLong(_)) => return Err(BenchError("echo is longer than what was sent".to_owned())),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Latency::new(times))
}
