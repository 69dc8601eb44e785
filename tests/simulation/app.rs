//! The application of a simulated node: writes, reads and accepts streams, and acts only on what it is told. A notice
//! that is missing stops it for ever, which the oracle then sees.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use longhaul::base::{Direction, Side, StreamCode, StreamId};
use longhaul::session::Session;
use longhaul::stream::{Priority, ReadError, ReadOutcome, StreamNotice, WriteError};

use crate::oracle::Oracle;

/// Chunks that one stream is written in.
const CHUNKS_MAX: u64 = 300;

/// A stream that is being written.
#[derive(Debug)]
pub struct Writer {
    pub remaining: u64,
    pub chunk_bytes: usize,
    /// Smaller chunks would make too many for a test.
    pub chunk_bytes_min: usize,
    /// By [`Session::write_chunk`], without copying.
    pub by_chunk: bool,
    pub finish: bool,
    is_blocked: bool,
}

/// How fast the application reads.
#[derive(Clone, Copy, Debug, Default)]
pub enum Reading {
    #[default]
    AtOnce,
    /// So many bytes, then a pause.
    Slowly(usize, Duration),
    Never,
}

#[derive(Debug, Default)]
struct Reader {
    is_readable: bool,
    paused_until: Option<Instant>,
}

/// What the application answers to a stream that the peer opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    pub bytes: u64,
    pub chunk_bytes: usize,
}

#[derive(Debug, Default)]
pub struct App {
    pub writers: BTreeMap<StreamId, Writer>,
    readers: BTreeMap<StreamId, Reader>,
    pub reading: Reading,
    pub answer: Answer,
    to_accept: [bool; 2],
    /// Streams whose bytes all arrived, as far as the session said so.
    pub finished: Vec<StreamId>,
    pub accepted: Vec<StreamId>,
    /// Whether the datagrams of streams that the peer opens are taken.
    pub takes_datagrams: bool,
    /// Streams that have datagrams to be taken.
    to_take: Vec<StreamId>,
    /// Datagrams that arrived.
    pub datagrams: Vec<(Instant, StreamId, Bytes)>,
}

impl App {
    /// Opens a stream and begins to write.
    pub fn open(
        &mut self,
        session: &mut Session,
        oracle: &mut Oracle,
        direction: Direction,
        priority: Priority,
        bytes: u64,
    ) -> Option<StreamId> {
        let id = session.open(direction, priority).ok()?;
        self.start(oracle, session.side(), id, bytes, 16 * 1024);
        Some(id)
    }

    /// Begins to write to a stream, and to read where there is something to be read.
    pub fn start(&mut self, oracle: &mut Oracle, side: Side, id: StreamId, bytes: u64, chunk_bytes: usize) {
        if id.is_writable_by(side) {
            oracle.flow(id, side);
            let by_chunk = bytes % 2 == 1;
            let chunk_bytes_min = (bytes / CHUNKS_MAX) as usize + 1;
            let chunk_bytes = chunk_bytes.max(chunk_bytes_min);
            let writer =
                Writer { remaining: bytes, chunk_bytes, chunk_bytes_min, by_chunk, finish: true, is_blocked: false };
            self.writers.insert(id, writer);
        }
        if id.is_writable_by(side.peer()) {
            self.readers.insert(id, Reader { is_readable: true, paused_until: None });
        }
    }

    pub fn reset(&mut self, session: &mut Session, oracle: &mut Oracle, id: StreamId, code: StreamCode) {
        let flow = oracle.flow(id, session.side());
        if self.writers.remove(&id).is_some() || flow.is_finished {
            let is_news = !session.streams().is_finished(id) && session.streams().stopped(id).is_none();
            if is_news {
                flow.reset = Some(code);
            }
            session.reset(id, code);
        }
    }

    pub fn stop(&mut self, session: &mut Session, oracle: &mut Oracle, id: StreamId, code: StreamCode, now: Instant) {
        if self.readers.remove(&id).is_some() {
            oracle.flow(id, session.side().peer()).stopped = Some(code);
            session.stop(id, code, now);
        }
    }

    pub fn readable_streams(&self) -> Vec<StreamId> {
        self.readers.keys().copied().collect()
    }

    pub fn on_notice(&mut self, session: &mut Session, oracle: &mut Oracle, notice: StreamNotice) {
        match notice {
            StreamNotice::Opened(direction) => self.to_accept[direction as usize] = true,
            StreamNotice::Readable(id) => {
                if let Some(reader) = self.readers.get_mut(&id) {
                    reader.is_readable = true;
                }
            }
            StreamNotice::Writable(id) => {
                if let Some(code) = session.streams().stopped(id) {
                    oracle.flow(id, session.side()).reset.get_or_insert(code);
                    if self.writers.remove(&id).is_some() {
                        session.reset(id, code);
                    }
                }
                if let Some(writer) = self.writers.get_mut(&id) {
                    writer.is_blocked = false;
                }
            }
            StreamNotice::Finished(id) => self.finished.push(id),
            StreamNotice::Datagram(id) => self.to_take.push(id),
            StreamNotice::Available(_) => {}
        }
    }

    /// Does what can be done now. Returns whether there was anything.
    pub fn work(&mut self, session: &mut Session, oracle: &mut Oracle, now: Instant) -> bool {
        let mut progress = self.accept(session, oracle);
        progress |= self.take(session, now);
        if session.is_ending() {
            return progress;
        }
        progress |= self.write(session, oracle);
        progress | self.read(session, oracle, now)
    }

    /// When a pause of a reader ends.
    pub fn next_time(&self) -> Option<Instant> {
        self.readers.values().filter(|reader| reader.is_readable).filter_map(|reader| reader.paused_until).min()
    }

    fn accept(&mut self, session: &mut Session, oracle: &mut Oracle) -> bool {
        let mut progress = false;
        for direction in [Direction::Bi, Direction::Uni] {
            if std::mem::take(&mut self.to_accept[direction as usize]) {
                while let Some(id) = session.accept(direction) {
                    self.accepted.push(id);
                    if self.takes_datagrams && direction == Direction::Bi {
                        session.take_datagrams(id);
                        self.to_take.push(id);
                    }
                    self.start(oracle, session.side(), id, self.answer.bytes, self.answer.chunk_bytes.max(1));
                    progress = true;
                }
            }
        }
        progress
    }

    fn take(&mut self, session: &mut Session, now: Instant) -> bool {
        let ids = std::mem::take(&mut self.to_take);
        for id in ids.iter().filter(|_| self.takes_datagrams) {
            self.datagrams.extend(std::iter::from_fn(|| session.read_datagram(*id)).map(|data| (now, *id, data)));
        }
        !ids.is_empty()
    }

    fn write(&mut self, session: &mut Session, oracle: &mut Oracle) -> bool {
        let (side, mut progress) = (session.side(), false);
        for (&id, writer) in &mut self.writers {
            let flow = oracle.flow(id, side);
            while writer.remaining > 0 && !writer.is_blocked {
                let size = writer.remaining.min(writer.chunk_bytes as u64) as usize;
                let data = Oracle::content(id, side, flow.written, size);
                let taken = match writer.by_chunk {
                    true => session.write_chunk(id, data.clone()).map(|()| data.len()),
                    false => session.write(id, &data),
                };
                match taken {
                    Ok(taken) => {
                        flow.written += taken as u64;
                        writer.remaining -= taken as u64;
                        progress = true;
                    }
                    Err(WriteError::Blocked) => writer.is_blocked = true,
                    Err(WriteError::Stopped(_)) => writer.remaining = 0,
                    Err(WriteError::Closed) => panic!("{id}: closed under its writer"),
                }
            }
        }
        self.writers.retain(|&id, writer| {
            if writer.remaining > 0 || !writer.finish {
                return true;
            }
            let flow = oracle.flow(id, side);
            match session.finish(id) {
                Ok(()) => flow.is_finished = true,
                Err(error) => {
                    // The peer's application wants no more: ours gives up, as a proxy would.
                    let WriteError::Stopped(code) = error else { panic!("{id}: {error} under its writer") };
                    flow.reset.get_or_insert(code);
                    session.reset(id, code);
                }
            }
            progress = true;
            false
        });
        progress
    }

    fn read(&mut self, session: &mut Session, oracle: &mut Oracle, now: Instant) -> bool {
        let (side, mut progress) = (session.side(), false);
        let reading = self.reading;
        self.readers.retain(|&id, reader| {
            if !reader.is_readable || reader.paused_until.is_some_and(|until| until > now) {
                return true;
            }
            let (size_max, pause) = match reading {
                Reading::AtOnce => (usize::MAX, None),
                Reading::Slowly(size, pause) => (size, Some(pause)),
                Reading::Never => return true,
            };
            reader.paused_until = None;
            loop {
                match session.read(id, size_max, now) {
                    Ok(ReadOutcome::Data(data)) => {
                        oracle.on_read(id, side, &data);
                        if session.is_early() {
                            oracle.on_early_read(id, &data);
                        }
                        progress = true;
                        if let Some(pause) = pause {
                            reader.paused_until = Some(now + pause);
                            return true;
                        }
                    }
                    Ok(ReadOutcome::End) => {
                        oracle.on_end(id, side);
                        return false;
                    }
                    Err(ReadError::Blocked) => {
                        reader.is_readable = false;
                        return true;
                    }
                    Err(ReadError::Reset(code)) => {
                        oracle.on_reset_read(id, side, code);
                        return false;
                    }
                    Err(ReadError::Closed) => panic!("{id}: closed under its reader"),
                }
            }
        });
        progress
    }
}
