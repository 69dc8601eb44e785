//! The writing side of a lane, which whoever has something to send may take while it is idle.
//!
//! A lane has a task that seals and writes. To wake it for a short message costs more than to send the message, so a task
//! that has one and knows that nothing follows does it itself: it takes the lane's [`LaneWriter`] out of the [`Outlet`],
//! writes without waiting, and puts it back. What the channel does not take at once is left to the lane's task, as are
//! messages that come while the writer is out, or closely one after the other ([`Pace`]). There is one writer, so the packets
//! of a lane stay in order.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::sync::Notify;

use super::shared::{Inner, Shared};
use crate::base::{LaneId, StreamId};
use crate::channel::WriteHalf;
use crate::session::Transmission;

/// Unsent bytes of streams that a task sends itself. With more, several tasks should work on them.
const AT_ONCE_BYTES_MAX: u64 = 4 * 1024;

/// Messages that follow one another this closely are left to the lane's task: until it runs several come together, and one packet
/// costs less than several.
const DENSE_INTERVAL: Duration = Duration::from_micros(100);

/// A longer packet may fill the channel, and the lane rests only when it was written.
const RESTING_PACKET_BYTES_MAX: usize = 8 * 1024;

/// What an idle lane keeps of the room for its packets.
const IDLE_BUFFER_BYTES_MAX: usize = 512;

/// Where a lane's writer waits.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    slot: Mutex<Slot>,
    /// The lane's task should take the writer, and ask for packets.
    woken: Notify,
}

/// ```text
/// Idle ──take──► Taken ──take──► Wanted
///   ▲──put back────┘               │
///   ▲──put back, the task is woken─┘
/// ```
#[derive(Debug, Default)]
enum Slot {
    Idle(LaneWriter),
    /// Somebody has it, or it is not there yet.
    #[default]
    Taken,
    /// The same, and somebody else has something to send meanwhile.
    Wanted,
}

impl Outlet {
    /// Has the lane's task ask for packets.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Waits for [`wake`](Self::wake). Cancel safe.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Takes the writer. Where somebody has it, the lane's task is woken when it is back.
    pub(super) fn take(&self) -> Option<LaneWriter> {
        let mut slot = self.lock();
        match std::mem::take(&mut *slot) {
            Slot::Idle(writer) => Some(writer),
            Slot::Taken | Slot::Wanted => {
                *slot = Slot::Wanted;
                None
            }
        }
    }

    /// Puts the writer there, or back.
    pub(super) fn put(&self, writer: LaneWriter) {
        let before = std::mem::replace(&mut *self.lock(), Slot::Idle(writer));
        debug_assert!(!matches!(before, Slot::Idle(_)), "a lane has one writer");
        if matches!(before, Slot::Wanted) {
            self.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().expect("nothing panics while it holds the slot")
    }
}

/// Seals and writes the packets of a lane.
#[derive(Debug)]
pub(super) struct LaneWriter {
    half: WriteHalf,
    /// The packet that is being written. Not empty between two of them only where somebody could not write all of it.
    buffer: BytesMut,
    /// What went wrong with somebody who has no use for it.
    error: Option<io::Error>,
}

impl LaneWriter {
    pub(super) fn new(half: WriteHalf) -> Self {
        Self { half, buffer: BytesMut::new(), error: None }
    }

    /// Seals and writes until the session has nothing for the lane.
    pub(super) async fn write_packets(&mut self, shared: &Shared, id: LaneId) -> io::Result<()> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let mut is_express = false;
        loop {
            let turn = self.half.turn(is_express).await;
            if !self.buffer.is_empty() {
                self.half.write_message(&mut self.buffer, &turn).await?;
            }
            let (transmission, is_last, round_trip);
            (transmission, is_last, is_express, round_trip) = shared.with_timer(|inner| {
                let now = Instant::now();
                let transmission = inner.session.poll_transmit(now, id);
                let is_last = transmission.as_ref().is_some_and(|packet| self.rests_after(packet, inner, now, id));
                (transmission, is_last, inner.session.is_express(id), inner.session.lane_round_trip_min(id))
            });
            let Some(transmission) = transmission else { break };
            self.half.set_round_trip(round_trip.unwrap_or_default());
            if is_last && self.write_now(&transmission)? {
                break;
            }
            if is_last {
                shared.with(|inner| inner.session.hold_lane(id));
                continue;
            }
            transmission.encode(&mut self.buffer).map_err(io::Error::other)?;
            drop(transmission);
            self.half.write_message(&mut self.buffer, &turn).await?;
        }
        // An idle lane holds no more than a small message needs.
        if self.buffer.capacity() > IDLE_BUFFER_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Seals a packet, and writes it without waiting: whether all of it was taken. The rest stays here.
    fn write_now(&mut self, packet: &Transmission) -> io::Result<bool> {
        packet.encode(&mut self.buffer).map_err(io::Error::other)?;
        self.flush_now()
    }

    /// Writes what the channel takes of the buffer without waiting: whether that was all. The rest stays there.
    fn flush_now(&mut self) -> io::Result<bool> {
        let mut written = 0;
        while written < self.buffer.len() {
            match self.half.try_write(&self.buffer[written..])? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(count) => written += count,
                None => {
                    self.buffer.advance(written);
                    return Ok(false);
                }
            }
        }
        self.buffer.clear();
        Ok(true)
    }

    /// Whether nothing follows a packet that will probably be written at once. The lane rests then, which saves the
    /// question after it.
    fn rests_after(&self, packet: &Transmission, inner: &mut Inner, now: Instant, id: LaneId) -> bool {
        let is_short = packet.message_bytes() <= RESTING_PACKET_BYTES_MAX;
        is_short && self.half.writes_through() && inner.session.rest_lane(now, id)
    }
}

/// Tells messages that follow one another closely from those that come alone. One stream that asks and waits for each answer
/// is alone, however quick the answers are: something has come between two messages of it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<(StreamId, Instant)>,
    /// Something has come since then.
    is_answered: bool,
}

impl Pace {
    /// A packet has come.
    pub(super) fn on_received(&mut self) {
        self.is_answered = true;
    }

    /// Whether the message that comes now follows another one closely.
    fn is_dense(&mut self, stream: StreamId, now: Instant) -> bool {
        let is_answered = std::mem::take(&mut self.is_answered);
        let Some((last, at)) = self.last.replace((stream, now)) else { return false };
        now.saturating_duration_since(at) < DENSE_INTERVAL && !(last == stream && is_answered)
    }
}

/// A packet that the task which caused it sends itself.
pub(super) struct Outgoing {
    lane: LaneId,
    outlet: Arc<Outlet>,
    writer: LaneWriter,
    packet: Transmission,
    /// The lane rests: nothing follows.
    is_last: bool,
}

impl Outgoing {
    /// The packet for the next lane that is to be woken, if it is a short one and the lane's writer is idle. Else its task
    /// is woken.
    pub(super) fn take(inner: &mut Inner, stream: StreamId, now: Instant) -> Option<Self> {
        if inner.pace.is_dense(stream, now) {
            return None;
        }
        if inner.session.streams().unsent_bytes() > AT_ONCE_BYTES_MAX {
            return None;
        }
        let lane = inner.session.poll_wake()?;
        let outlet = inner.outlet(lane)?;
        let Some(writer) = outlet.take() else {
            outlet.wake();
            return None;
        };
        let packet = writer.half.writes_through().then(|| inner.session.poll_transmit_woken(now, lane)).flatten();
        let Some(packet) = packet else {
            outlet.put(writer);
            outlet.wake();
            return None;
        };
        let is_last = writer.rests_after(&packet, inner, now, lane);
        Some(Self { lane, outlet, writer, packet, is_last })
    }

    /// Seals and writes it. Not to be called under the session's lock.
    pub(super) fn send(mut self, shared: &Shared) {
        let outcome = self.writer.write_now(&self.packet);
        let is_done = self.is_last && matches!(outcome, Ok(true));
        if self.is_last && !is_done {
            shared.with(|inner| inner.session.hold_lane(self.lane));
        }
        self.writer.error = outcome.err();
        self.outlet.put(self.writer);
        if !is_done {
            self.outlet.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::channel::Io;

    fn writer() -> (LaneWriter, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let (_, half) = Io::Unix(Arc::new(near)).split();
        (LaneWriter::new(half), far)
    }

    fn is_woken(outlet: &Outlet) -> bool {
        let woken = std::pin::pin!(outlet.woken());
        woken.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    /// What a full channel did not take is the lane's task's to write, in front of all that follows.
    #[tokio::test]
    async fn what_a_full_channel_does_not_take_stays() {
        let (mut writer, mut far) = writer();
        // More than a Unix socket holds.
        let data: Vec<u8> = (0..4 << 20).map(|index: u32| (index % 251) as u8).collect();
        writer.buffer.extend_from_slice(&data);
        assert!(!writer.flush_now().unwrap(), "it is full");
        let left = writer.buffer.len();
        assert!(left > 0 && left < data.len(), "{left}");
        assert!(!writer.flush_now().unwrap(), "it still is");
        assert_eq!(writer.buffer.len(), left);
        let mut arrived = vec![0; data.len()];
        let rest = async {
            let turn = writer.half.turn(false).await;
            writer.half.write_message(&mut writer.buffer, &turn).await
        };
        let (written, read) = tokio::join!(rest, far.read_exact(&mut arrived));
        written.unwrap();
        read.unwrap();
        assert!(arrived == data);
        assert!(writer.buffer.is_empty(), "nothing is left to be sent a second time");
    }

    #[test]
    fn messages_that_follow_closely_are_told_from_those_that_come_alone() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut is_dense = |stream, micros| pace.is_dense(StreamId(stream), start + Duration::from_micros(micros));
        let dense = [0, 150, 200, 250, 350, 351].map(|micros| is_dense(0, micros));
        assert_eq!(dense, [false, false, true, true, false, true]);
    }

    #[test]
    fn answers_tell_one_stream_that_asks_from_several() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let dense = [(0, 0), (0, 50), (0, 100), (4, 150), (4, 200), (0, 250)].map(|(stream, micros)| {
            pace.on_received();
            pace.is_dense(StreamId(stream), start + Duration::from_micros(micros))
        });
        assert_eq!(dense, [false, false, false, true, false, true]);
        assert!(pace.is_dense(StreamId(0), start + Duration::from_micros(300)), "nothing has come in between");
    }

    #[tokio::test]
    async fn who_finds_no_writer_leaves_it_to_the_task() {
        let (outlet, (writer, _far)) = (Outlet::default(), writer());
        assert!(outlet.take().is_none(), "it is not there yet");
        outlet.put(writer);
        assert!(is_woken(&outlet), "somebody asked for it");
        let writer = outlet.take().expect("it is idle");
        outlet.put(writer);
        assert!(!is_woken(&outlet), "nobody else asked");
        let writer = outlet.take().expect("it is idle");
        assert!(outlet.take().is_none() && outlet.take().is_none(), "there is one");
        assert!(!is_woken(&outlet), "it would find no writer");
        outlet.put(writer);
        assert!(is_woken(&outlet) && outlet.take().is_some());
    }
}
