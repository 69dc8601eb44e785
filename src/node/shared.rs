//! A session behind its lock, with everybody who waits for it.
//!
//! All changes go through [`Shared::with`]: it drains the session's outputs after each one, and wakes whom they
//! concern after the lock is released.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::{Notify, mpsc};

use super::error::SessionError;
use super::observer::{NodeEvent, Observer};
use super::outlet::{Outgoing, Outlet, Pace};
use crate::base::{Direction, IdMap, LaneId, StreamId};
use crate::channel::AbortHandle;
use crate::crypto::identity::{NodeId, PeerIdentity};
use crate::session::{CloseReason, EstablishError, Event, LaneState, Session};
use crate::stream::StreamNotice;

/// Something about a session's lanes, for the link that keeps them up.
#[derive(Clone, Debug)]
pub(super) enum LaneEvent {
    Up(LaneId),
    Suspect(LaneId),
    Recovered(LaneId),
    Down(LaneId),
    Closed(CloseReason),
}

/// How the tasks of a lane are reached.
#[derive(Clone)]
pub(super) struct LaneControl {
    /// Wakes the task that writes, and has what it writes with.
    pub(super) outlet: Arc<Outlet>,
    /// The task that sends datagrams beside the lane should ask for a packet.
    pub(super) datagram_wake: Arc<Notify>,
    /// The lane is over.
    pub(super) is_closed: Arc<AtomicBool>,
    /// Ends the channel under it.
    pub(super) abort: AbortHandle,
}

impl LaneControl {
    pub(super) fn new(abort: AbortHandle) -> Self {
        Self {
            outlet: Arc::default(),
            datagram_wake: Arc::new(Notify::new()),
            is_closed: Arc::new(AtomicBool::new(false)),
            abort,
        }
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.outlet.wake();
        self.datagram_wake.notify_one();
        self.abort.kill();
    }
}

/// What a waiting task waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Wait {
    Readable(StreamId),
    Writable(StreamId),
    Finished(StreamId),
    Datagram(StreamId),
}

/// What is behind the lock.
pub(super) struct Inner {
    pub(super) session: Session,
    waiting: IdMap<Wait, Waker>,
    accepting: [Vec<Waker>; 2],
    opening: [Vec<Waker>; 2],
    /// Wait for the session to be connected, or to fail.
    connecting: Vec<Waker>,
    ending: Vec<Waker>,
    due: Vec<Waker>,
    lanes: IdMap<LaneId, LaneControl>,
    /// When the timer task wakes.
    armed: Option<Instant>,
    /// Of messages that their tasks may send themselves.
    pub(super) pace: Pace,
    listener: Option<mpsc::UnboundedSender<LaneEvent>>,
    closed: Option<CloseReason>,
    /// Who hears what happens to it, and whose session it is.
    observer: Option<(Arc<dyn Observer>, NodeId)>,
    /// Why the peer did not start the session.
    pub(super) start_error: Option<EstablishError>,
    /// It was closed by the change under way.
    has_ended: bool,
}

/// A session that many tasks share.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    timer: Notify,
    pub(super) peer: PeerIdentity,
}

impl Shared {
    pub(super) fn new(
        session: Session,
        peer: PeerIdentity,
        listener: Option<mpsc::UnboundedSender<LaneEvent>>,
        observer: Option<&Arc<dyn Observer>>,
    ) -> Arc<Self> {
        let mut session = session;
        let observer = observer.map(|observer| (Arc::clone(observer), peer.node_id.clone()));
        if observer.is_some() {
            session.begin_measuring();
        }
        let inner = Inner {
            session,
            waiting: IdMap::default(),
            accepting: Default::default(),
            opening: Default::default(),
            connecting: Vec::new(),
            ending: Vec::new(),
            due: Vec::new(),
            lanes: IdMap::default(),
            armed: None,
            pace: Pace::default(),
            listener,
            closed: None,
            observer,
            start_error: None,
            has_ended: false,
        };
        let shared = Arc::new(Self { inner: Mutex::new(inner), timer: Notify::new(), peer });
        tokio::spawn(Arc::clone(&shared).run_timer());
        shared
    }

    /// Changes the session, and tells everybody whom the change concerns.
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.lock();
        let result = change(&mut inner);
        self.tell(inner, false);
        result
    }

    /// As [`with`](Self::with), and sets the timer anew: for changes that may make something due.
    pub(super) fn with_timer<R>(&self, change: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.lock();
        let result = change(&mut inner);
        let is_armed = inner.arm();
        self.tell(inner, is_armed);
        result
    }

    /// As [`with`](Self::with), and sends what little is to be sent then in this task, if a lane is idle: for whoever knows
    /// that nothing follows soon. Others leave it to the lanes, which send together what comes until they run.
    pub(super) fn with_sending<R>(&self, stream: StreamId, change: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.lock();
        let result = change(&mut inner);
        let outgoing = Outgoing::take(&mut inner, stream, Instant::now());
        let is_armed = outgoing.is_some() && inner.arm();
        self.tell(inner, is_armed);
        if let Some(outgoing) = outgoing {
            outgoing.send(self);
        }
        result
    }

    /// Ends a change.
    fn tell(&self, mut inner: MutexGuard<'_, Inner>, is_armed: bool) {
        inner.drain();
        let due = std::mem::take(&mut inner.due);
        let has_ended = std::mem::take(&mut inner.has_ended);
        drop(inner);
        if has_ended || is_armed {
            self.timer.notify_one();
        }
        due.into_iter().for_each(Waker::wake);
    }

    /// Looks at the session without changing it.
    pub(super) fn look<R>(&self, at: impl FnOnce(&Inner) -> R) -> R {
        at(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock is a defect of ours; going on with whatever state it left would be another.
        self.inner.lock().expect("no task panics while it holds the session")
    }

    async fn run_timer(self: Arc<Self>) {
        loop {
            let (armed, is_closed) = self.look(|inner| (inner.armed, inner.closed.is_some()));
            if is_closed {
                return;
            }
            let notified = self.timer.notified();
            match armed {
                Some(at) => tokio::select! {
                    () = notified => continue,
                    () = tokio::time::sleep_until(at.into()) => {}
                },
                None => {
                    notified.await;
                    continue;
                }
            }
            self.with(|inner| {
                inner.hear_transports();
                inner.session.handle_timeout(Instant::now());
                inner.armed = inner.session.next_timeout();
            });
        }
    }

    /// Waits until both sides are verified.
    pub(super) async fn connected(&self) -> Result<(), SessionError> {
        poll_fn(|context| {
            self.with(|inner| {
                if let Some(reason) = inner.closed() {
                    return Poll::Ready(Err(SessionError::Closed(reason.clone())));
                }
                if inner.session.is_connected() {
                    return Poll::Ready(Ok(()));
                }
                inner.wait_connected(context);
                Poll::Pending
            })
        })
        .await
    }

    /// Whether the session is over.
    pub(super) fn closed(&self) -> Option<CloseReason> {
        self.look(|inner| inner.closed.clone())
    }
}

impl Inner {
    /// Why the session is over, if it is.
    pub(super) fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }

    /// Remembers the task that polls, until what it waits for happens.
    pub(super) fn wait(&mut self, wait: Wait, context: &Context<'_>) {
        match self.waiting.get_mut(&wait) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                self.waiting.insert(wait, context.waker().clone());
            }
        }
    }

    /// Forgets the task that waited.
    pub(super) fn forget(&mut self, wait: Wait) {
        self.waiting.remove(&wait);
    }

    pub(super) fn wait_accept(&mut self, direction: Direction, context: &Context<'_>) {
        remember(&mut self.accepting[direction as usize], context);
    }

    pub(super) fn wait_open(&mut self, direction: Direction, context: &Context<'_>) {
        remember(&mut self.opening[direction as usize], context);
    }

    pub(super) fn wait_connected(&mut self, context: &Context<'_>) {
        remember(&mut self.connecting, context);
    }

    pub(super) fn wait_closed(&mut self, context: &Context<'_>) {
        remember(&mut self.ending, context);
    }

    /// Takes the next deadline, if it is earlier than the one that the timer task waits for: whether it has to know.
    fn arm(&mut self) -> bool {
        let next = self.session.next_timeout_before(self.armed);
        if next.is_some() {
            self.armed = next;
        }
        next.is_some()
    }

    /// What a lane writes with, while it lives.
    pub(super) fn outlet(&self, lane: LaneId) -> Option<Arc<Outlet>> {
        self.lanes.get(&lane).map(|control| Arc::clone(&control.outlet))
    }

    /// How the tasks of a lane are reached, while it lives.
    pub(super) fn lane_control(&self, lane: LaneId) -> Option<LaneControl> {
        self.lanes.get(&lane).cloned()
    }

    /// The living channels, by the first of their lanes.
    pub(super) fn channel_aborts(&self) -> Vec<(LaneId, AbortHandle)> {
        let firsts = self.lanes.iter().filter(|(id, _)| self.session.channel_of(**id) == Some(**id));
        firsts.map(|(id, control)| (*id, control.abort.clone())).collect()
    }

    /// Tells the session what the transports under its channels have heard.
    fn hear_transports(&mut self) {
        for (lane, control) in &self.lanes {
            if let (Some(channel), Some(at)) = (self.session.channel_of(*lane), control.abort.heard_at()) {
                self.session.handle_transport_word(channel, at);
            }
        }
    }

    /// Registers the tasks of a lane.
    pub(super) fn add_lane(&mut self, id: LaneId, control: LaneControl) {
        if self.session.lane_state(id).is_none_or(|state| state == LaneState::Dead) {
            control.close();
        } else {
            self.lanes.insert(id, control);
        }
    }

    fn drain(&mut self) {
        while let Some(lane) = self.session.poll_datagram_wake() {
            if let Some(control) = self.lanes.get(&lane) {
                control.datagram_wake.notify_one();
            }
        }
        while let Some(lane) = self.session.poll_wake() {
            if let Some(control) = self.lanes.get(&lane) {
                control.outlet.wake();
            }
        }
        while let Some(event) = self.session.poll_event() {
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Stream(notice) => self.on_notice(notice),
            Event::Connected => {
                self.due.append(&mut self.connecting);
            }
            // Shown before the session got here, and never again.
            Event::GuestProof(_) => {}
            Event::LaneUp(id) => self.tell(LaneEvent::Up(id)),
            Event::LaneSuspect(id) => {
                tracing::debug!(session = %self.session.id(), lane = %id, "lane acknowledges nothing");
                self.tell(LaneEvent::Suspect(id));
            }
            Event::LaneRecovered(id) => self.tell(LaneEvent::Recovered(id)),
            Event::LaneDown(id, end) => {
                tracing::debug!(session = %self.session.id(), lane = %id, reason = %end, "lane is down");
                if let Some(control) = self.lanes.remove(&id) {
                    control.close();
                }
                self.due.append(&mut self.connecting);
                if let (Some((observer, peer)), Some(kind)) = (&self.observer, self.session.lane_kind(id)) {
                    observer.on_event(&NodeEvent::LaneEnded { peer, kind, end });
                }
                self.tell(LaneEvent::Down(id));
            }
            Event::KeysUpdated(epoch) => tracing::debug!(session = %self.session.id(), epoch = epoch.0, "keys updated"),
            Event::GoAway { code, .. } => {
                tracing::info!(session = %self.session.id(), reason = %code, "peer takes no new streams");
                for direction in 0..2 {
                    self.due.append(&mut self.opening[direction]);
                }
            }
            Event::Closed(reason) => {
                self.closed = Some(reason.clone());
                if let Some((observer, peer)) = &self.observer {
                    let (id, reading) = (self.session.id(), self.session.read_meter());
                    let now = Instant::now();
                    let outage = self.session.outage_since().map(|since| now.saturating_duration_since(since));
                    observer.on_event(&NodeEvent::SessionEnded {
                        peer,
                        id,
                        reason: &reason,
                        reading: &reading,
                        outage,
                    });
                }
                self.has_ended = true;
                self.due.extend(self.waiting.drain().map(|(_, waker)| waker));
                for direction in 0..2 {
                    self.due.append(&mut self.accepting[direction]);
                    self.due.append(&mut self.opening[direction]);
                }
                self.due.append(&mut self.ending);
                self.due.append(&mut self.connecting);
                for (_, control) in self.lanes.drain() {
                    control.close();
                }
                self.tell(LaneEvent::Closed(reason));
            }
        }
    }

    fn on_notice(&mut self, notice: StreamNotice) {
        let wait = match notice {
            StreamNotice::Opened(direction) => return self.due.append(&mut self.accepting[direction as usize]),
            StreamNotice::Available(direction) => return self.due.append(&mut self.opening[direction as usize]),
            StreamNotice::Readable(id) => Wait::Readable(id),
            StreamNotice::Writable(id) => Wait::Writable(id),
            StreamNotice::Finished(id) => Wait::Finished(id),
            StreamNotice::Datagram(id) => Wait::Datagram(id),
        };
        self.due.extend(self.waiting.remove(&wait));
    }

    fn tell(&mut self, event: LaneEvent) {
        if let Some(listener) = &self.listener
            && listener.send(event).is_err()
        {
            self.listener = None;
        }
    }
}

/// Adds the task that polls, once.
fn remember(waiting: &mut Vec<Waker>, context: &Context<'_>) {
    if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
        waiting.push(context.waker().clone());
    }
}
