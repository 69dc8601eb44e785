//! A channel between the two nodes: two byte pipes with delay, rate and a bounded buffer, which can be harmed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use longhaul::base::LaneId;
use longhaul::crypto::{Handshake, LaneOpener};
use longhaul::session::{JoinRequest, LaneKind};

/// How good a pipe is.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// One way.
    pub delay: Duration,
    pub bytes_per_second: u64,
    /// Bytes that may wait to be sent.
    pub buffer_bytes: usize,
}

impl Default for Path {
    fn default() -> Self {
        Self { delay: Duration::from_millis(10), bytes_per_second: 100_000_000, buffer_bytes: 256 * 1024 }
    }
}

impl Path {
    fn time_of(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64)
    }
}

/// A transport that begins: besides its first window, twice as much may have left as was acknowledged.
#[derive(Debug)]
struct SlowStart {
    window: usize,
    departed_bytes: usize,
    /// How much had left in all, and when the last of it did.
    departures: VecDeque<(usize, Instant)>,
}

impl SlowStart {
    /// When the last of these bytes leaves, if nothing else keeps them from `start` on.
    fn departure(&mut self, start: Instant, bytes: usize, path: &Path) -> Instant {
        let (mut departs, mut rest) = (start, bytes);
        while rest > 0 {
            // What it waits for has to have left before.
            let piece = rest.min(self.window / 2);
            self.departed_bytes += piece;
            let awaited = self.departed_bytes.saturating_sub(self.window).div_ceil(2);
            while self.departures.front().is_some_and(|(departed, _)| *departed < awaited) {
                self.departures.pop_front();
            }
            if let Some((_, departed)) = self.departures.front().filter(|_| awaited > 0) {
                departs = departs.max(*departed + path.delay * 2);
            }
            departs += path.time_of(piece);
            self.departures.push_back((self.departed_bytes, departs));
            rest -= piece;
        }
        departs
    }
}

/// What was written in one go.
#[derive(Debug)]
pub struct Write {
    pub departs: Instant,
    pub arrives: Instant,
    pub bytes: BytesMut,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Pipe {
    pub path: Path,
    pub writes: VecDeque<Write>,
    /// All that was ever written.
    pub written_bytes: u64,
    free_at: Option<Instant>,
    slow_start: Option<SlowStart>,
    /// Nothing leaves any more, and nobody is told.
    is_black_hole: bool,
    /// The writer closed it: the reader is told after the last byte.
    is_closed: bool,
    is_end_told: bool,
}

impl Pipe {
    pub fn new(path: Path) -> Self {
        Self {
            path,
            writes: VecDeque::new(),
            written_bytes: 0,
            free_at: None,
            slow_start: None,
            is_black_hole: false,
            is_closed: false,
            is_end_told: false,
        }
    }

    /// The transport begins with this window from now on, in bytes.
    pub fn begin_slowly(&mut self, window: usize) {
        self.slow_start = Some(SlowStart { window, departed_bytes: 0, departures: VecDeque::new() });
    }

    /// Bytes that have not left.
    pub fn waiting_bytes(&self, now: Instant) -> usize {
        self.writes.iter().filter(|write| write.departs > now).map(|write| write.bytes.len()).sum()
    }

    /// Whether a writer would not be blocked.
    pub fn has_room(&self, now: Instant) -> bool {
        self.waiting_bytes(now) < self.path.buffer_bytes
    }

    /// When the next bytes leave, which makes room.
    pub fn next_departure(&self, now: Instant) -> Option<Instant> {
        if self.is_black_hole {
            return None;
        }
        self.writes.iter().map(|write| write.departs).find(|departs| *departs > now)
    }

    pub fn write(&mut self, now: Instant, bytes: BytesMut) {
        if self.is_closed {
            return;
        }
        let start = self.free_at.map_or(now, |free_at| free_at.max(now));
        let departs = match &mut self.slow_start {
            None => start + self.path.time_of(bytes.len()),
            Some(slow_start) => slow_start.departure(start, bytes.len(), &self.path),
        };
        self.free_at = Some(departs);
        self.written_bytes += bytes.len() as u64;
        // What was held up before it holds it up, too.
        let before = self.writes.back().map_or(departs, |write| write.arrives);
        self.writes.push_back(Write { departs, arrives: before.max(departs + self.path.delay), bytes });
    }

    /// When the reader has something to do.
    pub fn next_arrival(&self, now: Instant) -> Option<Instant> {
        if self.is_black_hole {
            return None;
        }
        match self.writes.front() {
            Some(write) => Some(write.arrives),
            None => (self.is_closed && !self.is_end_told).then_some(now),
        }
    }

    /// The next bytes that have arrived.
    pub fn read(&mut self, now: Instant) -> Option<Bytes> {
        if self.is_black_hole || self.writes.front().is_none_or(|write| write.arrives > now) {
            return None;
        }
        self.writes.pop_front().map(|write| write.bytes.freeze())
    }

    /// Whether the reader is to be told, now and once, that nothing more comes.
    pub fn poll_end(&mut self) -> bool {
        let is_end = self.is_closed && !self.is_black_hole && self.writes.is_empty() && !self.is_end_told;
        self.is_end_told |= is_end;
        is_end
    }

    /// A packet of what leaves next is lost: it comes a round trip later, and what follows it not before.
    pub fn lose(&mut self, now: Instant) {
        let mut least = None;
        for write in self.writes.iter_mut().filter(|write| write.departs > now) {
            let repaired = *least.get_or_insert(write.departs + self.path.delay * 3);
            write.arrives = write.arrives.max(repaired);
        }
    }

    /// Nothing moves for a while.
    pub fn stall(&mut self, now: Instant, time: Duration) {
        for write in self.writes.iter_mut().filter(|write| write.arrives > now) {
            write.arrives += time;
            if write.departs > now {
                write.departs += time;
            }
        }
        self.free_at = Some(self.free_at.map_or(now, |free_at| free_at.max(now)) + time);
    }

    /// From now on everything disappears, and nobody is told.
    pub fn black_hole(&mut self, now: Instant) {
        self.is_black_hole = true;
        // What has not left keeps its room: a writer is blocked in the end, as with TCP.
        let never = now + Duration::from_secs(1_000_000);
        self.writes.retain(|write| write.departs > now);
        self.writes.iter_mut().for_each(|write| write.departs = never);
        self.free_at = Some(never);
    }

    pub fn close(&mut self) {
        self.is_closed = true;
    }
}

/// How far one end of a link is.
pub enum Phase {
    /// The handshake runs.
    Establishing,
    /// A client whose handshake runs, and that sends early data.
    Resuming,
    /// A client that waits for the answer to its start, and sends already.
    Starting {
        version: u32,
    },
    /// A client that waits for the answer to its join, and sends already.
    Joining {
        request: JoinRequest,
        lane: LaneId,
        since: Instant,
    },
    /// A server that waits for a join.
    Accepting,
    /// Packets flow.
    Open {
        lane: LaneId,
        opener: LaneOpener,
    },
    Closed,
}

impl Phase {
    /// The lane that may send.
    pub fn sending_lane(&self) -> Option<LaneId> {
        match self {
            Self::Resuming | Self::Starting { .. } => Some(LaneId::FIRST),
            Self::Joining { lane, .. } | Self::Open { lane, .. } => Some(*lane),
            Self::Establishing | Self::Accepting | Self::Closed => None,
        }
    }

    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

/// One end of a link.
pub struct LinkEnd {
    pub phase: Phase,
    /// Bytes that are no whole message yet.
    pub buffer: BytesMut,
    /// The session may have a packet: it is asked as soon as there is room.
    pub is_active: bool,
}

impl LinkEnd {
    pub fn new(phase: Phase) -> Self {
        Self { phase, buffer: BytesMut::new(), is_active: true }
    }
}

/// A channel: `pipes[side]` is what `side` writes, `ends[side]` is what it knows.
pub struct Link {
    pub kind: LaneKind,
    /// The first lane of the channel, for a lane that shares one.
    pub channel: Option<LaneId>,
    /// What names the path that it shares with others.
    pub shared_path: Option<u64>,
    pub pipes: [Pipe; 2],
    pub ends: [LinkEnd; 2],
    /// Of a QUIC channel whose own handshake is simulated, too.
    pub handshakes: [Option<Handshake>; 2],
}

impl Link {
    pub fn new(kind: LaneKind, path: Path, client: Phase, server: Phase) -> Self {
        Self {
            kind,
            channel: None,
            shared_path: None,
            pipes: [Pipe::new(path), Pipe::new(path)],
            ends: [LinkEnd::new(client), LinkEnd::new(server)],
            handshakes: [None, None],
        }
    }

    pub fn is_closed(&self) -> bool {
        self.ends.iter().all(|end| end.phase.is_closed())
    }

    pub fn is_open(&self) -> bool {
        self.ends.iter().all(|end| matches!(end.phase, Phase::Open { .. }))
    }
}
