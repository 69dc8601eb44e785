//! The bandwidth limit of one forward or service, in each direction, shared evenly by its connections.
//!
//! It is kept at the local socket. What may not go to the peer now is not read from the socket, so that TCP stops the
//! application; what may not go to the socket is not read from the stream, so that flow control stops the peer. Nothing is
//! held here, and the session's other streams are not concerned. Datagrams cannot be stopped: what would have to wait for
//! longer than a datagram may is dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::base::{Bandwidth, FairShare, Member, VirtualQueue};

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToPeer = 0,
    FromPeer = 1,
}

/// The limit of a forward or service.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    is_limited: AtomicBool,
    state: Mutex<State>,
    /// How long connections waited, in nanoseconds.
    waited: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct State {
    /// Another number for each time that there was no limit before: seats of earlier ones are void.
    generation: u64,
    ways: Option<[OneWay; 2]>,
}

#[derive(Debug)]
struct OneWay {
    share: FairShare,
    datagrams: VirtualQueue,
}

impl Throttle {
    pub(super) fn new(bandwidth: Option<Bandwidth>) -> Arc<Self> {
        let throttle = Arc::new(Self::default());
        throttle.set(bandwidth);
        throttle
    }

    /// Lets so much through from now on, also of connections that are open.
    pub(super) fn set(&self, bandwidth: Option<Bandwidth>) {
        let mut state = self.lock();
        match (bandwidth, &mut state.ways) {
            (Some(bandwidth), Some(ways)) => {
                let now = Instant::now();
                for way in ways {
                    way.share.set_bandwidth(now, bandwidth);
                    way.datagrams.set_bandwidth(bandwidth);
                }
            }
            (Some(bandwidth), none) => {
                let way = || OneWay { share: FairShare::new(bandwidth), datagrams: VirtualQueue::new(bandwidth) };
                *none = Some([way(), way()]);
                state.generation += 1;
            }
            (None, ways) => *ways = None,
        }
        self.is_limited.store(bandwidth.is_some(), Ordering::Release);
    }

    /// How long connections waited, all together.
    pub(super) fn waited(&self, way: Way) -> Duration {
        Duration::from_nanos(self.waited[way as usize].load(Ordering::Relaxed))
    }

    /// Whether a datagram passes, which may wait for `age_max`.
    pub(super) fn pass(&self, way: Way, bytes: usize, age_max: Duration) -> bool {
        if !self.is_limited.load(Ordering::Acquire) {
            return true;
        }
        match &mut self.lock().ways {
            Some(ways) => ways[way as usize].datagrams.pass(Instant::now(), bytes, age_max),
            None => true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one connection knows of the limit; next to nothing while there is none.
#[derive(Debug)]
pub(super) struct Pace {
    throttle: Arc<Throttle>,
    seat: Option<Box<Seat>>,
}

/// A connection's part of the limit.
#[derive(Debug)]
struct Seat {
    generation: u64,
    members: [Member; 2],
    /// Wakes the connection when it may ask again, and since when it waits.
    waiting: [Option<(Pin<Box<Sleep>>, Instant)>; 2],
}

impl Pace {
    pub(super) fn new(throttle: Arc<Throttle>) -> Self {
        Self { throttle, seat: None }
    }

    /// How many bytes may move now, or registers the task to be woken when some may.
    pub(super) fn poll_allowed(&mut self, way: Way, context: &mut Context<'_>) -> Poll<usize> {
        if !self.throttle.is_limited.load(Ordering::Acquire) {
            self.seat = None;
            return Poll::Ready(usize::MAX);
        }
        let mut state = self.throttle.lock();
        let State { generation, ways: Some(ways) } = &mut *state else { return Poll::Ready(usize::MAX) };
        if self.seat.as_ref().is_none_or(|seat| seat.generation != *generation) {
            let members = [ways[0].share.add(), ways[1].share.add()];
            self.seat = Some(Box::new(Seat { generation: *generation, members, waiting: [None, None] }));
        }
        let Some(seat) = &mut self.seat else { return Poll::Ready(usize::MAX) };
        loop {
            let waiting = &mut seat.waiting[way as usize];
            if let Some((sleep, since)) = waiting {
                if sleep.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                let waited = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.throttle.waited[way as usize].fetch_add(waited, Ordering::Relaxed);
                *waiting = None;
            }
            let now = Instant::now();
            match ways[way as usize].share.ask(now, seat.members[way as usize]) {
                Ok(bytes) => return Poll::Ready(bytes),
                Err(at) => *waiting = Some((Box::pin(tokio::time::sleep_until(at.into())), now)),
            }
        }
    }

    /// Bytes have moved.
    pub(super) fn on_moved(&mut self, way: Way, bytes: usize) {
        let Some(seat) = &self.seat else { return };
        let mut state = self.throttle.lock();
        if let State { generation, ways: Some(ways) } = &mut *state
            && *generation == seat.generation
        {
            ways[way as usize].share.spend(Instant::now(), seat.members[way as usize], bytes as i64);
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        let Some(seat) = self.seat.take() else { return };
        let mut state = self.throttle.lock();
        if let State { generation, ways: Some(ways) } = &mut *state
            && *generation == seat.generation
        {
            for (way, member) in ways.iter_mut().zip(seat.members) {
                way.share.remove(member);
            }
        }
    }
}
