//! Bytes both ways over one stream, compared as they arrive: nothing lost, doubled, moved or changed.

use std::time::Duration;

use bytes::Bytes;
use longhaul::node::{RecvStream, SendStream, Session};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::common::pattern;

/// Written at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Progress of both ways. Ends when it is told to, after at least so many bytes.
pub(crate) struct Transfer {
    is_enough: watch::Sender<bool>,
    received: [watch::Receiver<Result<u64, String>>; 2],
    tasks: [JoinHandle<Result<u64, String>>; 4],
}

impl Transfer {
    /// Begins: a opens the stream.
    pub(crate) async fn start(a: &Session, b: &Session, seed: u64, bytes_min: u64) -> Self {
        let (send_a, recv_a) = a.open_bi().await.expect("a stream");
        let (send_b, recv_b) = b.accept_bi().await.expect("the stream");
        Self::over(send_a, recv_a, send_b, recv_b, seed, bytes_min)
    }

    /// Begins on a stream that is open already.
    pub(crate) fn over(
        send_a: SendStream,
        recv_a: RecvStream,
        send_b: SendStream,
        recv_b: RecvStream,
        seed: u64,
        bytes_min: u64,
    ) -> Self {
        let (is_enough, stop) = watch::channel(false);
        let (at_b, received_b) = watch::channel(Ok(0));
        let (at_a, received_a) = watch::channel(Ok(0));
        let tasks = [
            tokio::spawn(write(send_a, seed, bytes_min, stop.clone())),
            tokio::spawn(read(recv_b, seed, at_b)),
            tokio::spawn(write(send_b, !seed, bytes_min, stop)),
            tokio::spawn(read(recv_a, !seed, at_a)),
        ];
        Self { is_enough, received: [received_b, received_a], tasks }
    }

    /// Bytes that arrived at b and at a.
    pub(crate) fn received(&self) -> [u64; 2] {
        [0, 1].map(|index| self.received[index].borrow().clone().expect("the transfer goes on"))
    }

    /// Waits until so many bytes more have arrived at both sides.
    pub(crate) async fn advance(&mut self, bytes: u64) {
        for received in &mut self.received {
            let goal = received.borrow().clone().expect("the transfer goes on") + bytes;
            let reached = |count: &Result<u64, String>| count.as_ref().is_ok_and(|count| *count >= goal);
            let now = received.wait_for(|count| count.is_err() || reached(count)).await;
            now.expect("the transfer is not over").as_ref().expect("the transfer goes on");
        }
    }

    /// Waits until everything has arrived at both sides, and is the same: how many bytes.
    pub(crate) async fn finish(self) -> [u64; 2] {
        self.is_enough.send_replace(true);
        let [written_a, read_b, written_b, read_a] = self.outcomes().await.map(|outcome| outcome.expect("transfer"));
        assert_eq!((written_a, written_b), (read_b, read_a));
        [read_b, read_a]
    }

    /// How the tasks end: writing at a, reading at b, writing at b, reading at a.
    pub(crate) async fn outcomes(self) -> [Result<u64, String>; 4] {
        let [first, second, third, fourth] = self.tasks;
        let (first, second, third, fourth) = tokio::join!(first, second, third, fourth);
        [first, second, third, fourth].map(|outcome| outcome.expect("no task panics"))
    }
}

/// As much as `bytes` each way, from the beginning to the end.
pub(crate) async fn both_ways(a: &Session, b: &Session, seed: u64, bytes: u64) {
    Transfer::start(a, b, seed, bytes).await.finish().await;
}

/// Waits for something that has to happen, for as long as a slow machine may need.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), what).await.expect("it happens in time")
}

/// Looks again and again until something is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn write(
    mut send: SendStream,
    seed: u64,
    bytes_min: u64,
    mut is_enough: watch::Receiver<bool>,
) -> Result<u64, String> {
    let (pattern, mut offset) = (Pattern::new(seed), 0);
    // Whoever dropped the other end wants no more, too.
    while offset < bytes_min || !(is_enough.has_changed().is_err() || *is_enough.borrow_and_update()) {
        let chunk = pattern.bytes(offset, CHUNK_BYTES);
        send.write_chunk(chunk).await.map_err(|error| error.to_string())?;
        offset += CHUNK_BYTES as u64;
    }
    send.finish().map_err(|error| error.to_string())?;
    send.finished().await.map_err(|error| error.to_string())?;
    Ok(offset)
}

async fn read(mut recv: RecvStream, seed: u64, progress: watch::Sender<Result<u64, String>>) -> Result<u64, String> {
    let (pattern, mut offset) = (Pattern::new(seed), 0);
    loop {
        let outcome = match recv.read_chunk(usize::MAX).await {
            Ok(Some(chunk)) => pattern.check(offset, &chunk).map(|()| chunk.len()),
            Ok(None) => return Ok(offset),
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(len) => offset += len as u64,
            Err(error) => {
                let _ = progress.send(Err(error.clone()));
                return Err(error);
            }
        }
        // Nobody may be looking.
        let _ = progress.send(Ok(offset));
    }
}

/// Bytes that say where they belong: they repeat after a prime number, which no size in the program is a multiple of.
#[derive(Clone)]
pub(crate) struct Pattern(Bytes);

impl Pattern {
    const PERIOD: usize = 262_139;

    /// The pattern of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut bytes = pattern(Self::PERIOD, seed);
        // Room to cut any chunk without copying.
        bytes.extend_from_within(..);
        Self(bytes.into())
    }

    /// At most a period of the bytes from `offset` on.
    pub(crate) fn bytes(&self, offset: u64, len: usize) -> Bytes {
        let start = (offset % Self::PERIOD as u64) as usize;
        self.0.slice(start..start + len.min(Self::PERIOD))
    }

    /// Whether bytes are those from `offset` on.
    fn check(&self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let mut at = offset;
        for part in bytes.chunks(Self::PERIOD) {
            let expected = self.bytes(at, part.len());
            if let Some(differing) = (expected != part).then(|| expected.iter().zip(part).position(|(a, b)| a != b)) {
                return Err(format!("byte {} is another one", at + differing.unwrap_or(0) as u64));
            }
            at += part.len() as u64;
        }
        Ok(())
    }
}
