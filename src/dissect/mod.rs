//! Looks inside recorded links: captures of TCP, or the bytes of a lane, and what a key log opens of them.
//!
//! Reads files that anybody may have written: everything is bounded, and what cannot be read is told or counted. Knows no
//! session's state: packets are shown as they were sent, in the order of the capture, again when they were sent again.
//! Channels that are TLS or QUIC are for Wireshark, which takes the same key log.

mod capture;
mod connection;
mod reassembly;
mod segment;
mod show;

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;

use self::connection::Connection;
use self::reassembly::Reassembly;
use self::segment::Segment;
use crate::base::{SessionId, Side};
use crate::crypto::{NotOpened, RecordedKeys, RecordedOpener};
use crate::wire::{Frame, Head, WireError};

pub use capture::{Capture, CaptureError, Packet};
pub use show::{json, text};

/// Connections of a capture that are followed; those of further ones are left out, and counted.
const CONNECTIONS_MAX: usize = 4096;

/// Sessions that are remembered with the epochs that they have reached.
const SESSIONS_MAX: usize = 1 << 16;

/// Bytes of a lane that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// One message of a lane.
#[derive(Debug)]
pub struct Record {
    /// Who sent it.
    pub side: Side,
    /// Of which session; `None` when the beginning of the connection was not seen.
    pub session_id: Option<SessionId>,
    /// What it says in the clear.
    pub head: Head,
    /// Its kind, as in `proto/longhaul.proto`; `damaged` for what is none.
    pub kind: &'static str,
    /// Its size on the wire, in bytes.
    pub message_bytes: usize,
    /// What is in it.
    pub outcome: Outcome,
}

/// What is in a message.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the clear: numbers by name.
    Clear(Vec<(&'static str, u64)>),
    /// A packet.
    Opened {
        /// Its frames, in order.
        frames: Vec<Frame>,
        /// What is behind them, in bytes.
        padding_bytes: usize,
    },
    /// A packet that stays closed.
    Closed(NotOpened),
    /// It says nothing; the direction cannot be read on if it is no message at all.
    Damaged(WireError),
}

/// Where and when a record was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Since 1970, in a capture.
    pub time: Option<Duration>,
    /// From where to where, in a capture.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

/// What a capture came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages that were understood.
    pub message_count: u64,
    /// Packets among them that were opened.
    pub opened_count: u64,
    /// Packets among them that stayed closed.
    pub closed_count: u64,
    /// Messages, or what is in them, that say nothing.
    pub damaged_count: u64,
    /// Connections of Longhaul.
    pub connection_count: u64,
    /// Connections of something else, or whose beginning is not there.
    pub other_count: u64,
    /// Directions of Longhaul's of which bytes are missing.
    pub gap_count: u64,
    /// Connections for which there was no room.
    pub omitted_count: u64,
    /// The capture ends in the middle of a packet.
    pub is_cut: bool,
}

/// Keys, and how far they have come.
struct Keys {
    recorded: RecordedKeys,
    openers: HashMap<SessionId, Option<RecordedOpener>>,
}

impl Keys {
    fn opener(&mut self, id: SessionId) -> Option<&mut RecordedOpener> {
        if self.openers.len() >= SESSIONS_MAX && !self.openers.contains_key(&id) {
            return None;
        }
        let recorded = &self.recorded;
        self.openers.entry(id).or_insert_with(|| recorded.opener(id)).as_mut()
    }
}

/// Takes what is shown.
pub type Sink<'a> = &'a mut dyn FnMut(&Place, &Record) -> io::Result<()>;

/// Looks inside captures and streams.
pub struct Dissector {
    keys: Keys,
    connections: HashMap<(SocketAddr, SocketAddr), Followed>,
    /// Segments of all connections that wait, in bytes.
    held_total: usize,
    summary: Summary,
}

/// A connection of a capture: the first direction is that of the smaller address.
#[derive(Default)]
struct Followed {
    connection: Connection,
    directions: [Reassembly; 2],
}

impl Dissector {
    /// Opens what these keys open.
    #[must_use]
    pub fn new(keys: RecordedKeys) -> Self {
        Self {
            keys: Keys { recorded: keys, openers: HashMap::new() },
            connections: HashMap::new(),
            held_total: 0,
            summary: Summary::default(),
        }
    }

    /// Shows all messages of the TCP connections of a capture.
    ///
    /// # Errors
    /// [`CaptureError`]: it is no capture, or is damaged. What came before was shown.
    pub fn capture(&mut self, reader: impl Read, sink: Sink<'_>) -> Result<(), CaptureError> {
        let mut capture = Capture::new(reader)?;
        loop {
            match capture.next_packet() {
                Ok(Some(packet)) => {
                    if let Some(segment) = Segment::of(&packet) {
                        self.segment(packet.time, &segment, sink)?;
                    }
                }
                Ok(None) => return Ok(()),
                // What there is has been shown.
                Err(CaptureError::Cut) => {
                    self.summary.is_cut = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Shows all messages of a lane, of which these are the bytes that each side sent.
    ///
    /// # Errors
    /// What the system says.
    pub fn streams(&mut self, streams: [Option<Box<dyn Read>>; 2], sink: Sink<'_>) -> io::Result<()> {
        let mut connection = Connection::default();
        connection.set_side(0, Side::Client);
        for (direction, reader) in streams.into_iter().enumerate() {
            let Some(mut reader) = reader else { continue };
            let (mut buffer, mut chunk) = (BytesMut::new(), vec![0; READ_BYTES]);
            loop {
                let count = match reader.read(&mut chunk) {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                if count == 0 || connection.is_over(direction) {
                    break;
                }
                buffer.extend_from_slice(&chunk[..count]);
                while let Some(record) = connection.next(direction, &mut buffer, &mut self.keys) {
                    self.summary.count(&record);
                    sink(&Place::default(), &record)?;
                }
            }
            self.summary.gap_count += u64::from(!buffer.is_empty());
        }
        self.summary.count_connection(&connection);
        Ok(())
    }

    /// What it came to. To be called at the end.
    #[must_use]
    pub fn finish(mut self) -> Summary {
        for (_, followed) in self.connections.drain() {
            self.summary.count_followed(&followed);
        }
        self.summary
    }

    fn segment(&mut self, time: Duration, segment: &Segment<'_>, sink: Sink<'_>) -> io::Result<()> {
        let (source, destination) = (segment.source, segment.destination);
        let key = (source.min(destination), source.max(destination));
        let direction = usize::from(source > destination);
        if segment.is_syn && !segment.is_ack {
            let is_other = |followed: &Followed| followed.directions[direction].is_of_another(segment.sequence);
            if self.connections.get(&key).is_some_and(is_other)
                && let Some(mut before) = self.connections.remove(&key)
            {
                self.summary.count_followed(&before);
                before.directions.iter_mut().for_each(|direction| direction.give_up(&mut self.held_total));
            }
        }
        if self.connections.len() >= CONNECTIONS_MAX && !self.connections.contains_key(&key) {
            self.summary.omitted_count += u64::from(segment.is_syn && !segment.is_ack);
            return Ok(());
        }
        let Followed { connection, directions } = self.connections.entry(key).or_default();
        let reassembly = &mut directions[direction];
        let mut sequence = segment.sequence;
        if segment.is_syn {
            reassembly.begin_after(sequence);
            connection.set_side(direction, if segment.is_ack { Side::Server } else { Side::Client });
            // Data with a SYN come behind it.
            sequence = sequence.wrapping_add(1);
        }
        reassembly.push(sequence, segment.payload, segment.is_cut, &mut self.held_total);
        let place = Place { time: Some(time), addresses: Some((source, destination)) };
        while let Some(record) = connection.next(direction, &mut reassembly.ready, &mut self.keys) {
            self.summary.count(&record);
            sink(&place, &record)?;
        }
        if connection.is_over(direction) {
            reassembly.give_up(&mut self.held_total);
        }
        Ok(())
    }
}

impl Summary {
    fn count(&mut self, record: &Record) {
        self.message_count += u64::from(record.kind != "damaged");
        match &record.outcome {
            Outcome::Clear(_) => {}
            Outcome::Opened { .. } => self.opened_count += 1,
            Outcome::Closed(_) => self.closed_count += 1,
            Outcome::Damaged(_) => self.damaged_count += 1,
        }
    }

    fn count_connection(&mut self, connection: &Connection) {
        let count = if connection.is_known() { &mut self.connection_count } else { &mut self.other_count };
        *count += 1;
    }

    fn count_followed(&mut self, followed: &Followed) {
        self.count_connection(&followed.connection);
        if followed.connection.is_known() {
            let has_gap = |index: &usize| !followed.connection.is_over(*index) && followed.directions[*index].has_gap();
            self.gap_count += [0, 1].iter().filter(|index| has_gap(index)).count() as u64;
        }
    }
}
