//! How much quinn was given and has not sent yet.
//!
//! What quinn holds cannot be sent on another channel instead, and what is urgent waits behind it, so little is let in:
//! about a packet or two, as `TCP_NOTSENT_LOWAT` does for sockets. quinn's own send window does not serve for that: it
//! counts what waits for its acknowledgement in order, which on a path that loses is several times what is in flight.
//!
//! quinn tells of bytes sent and lost to congestion controllers alone, so [`Metered`] puts a meter around them. The
//! heads of packets are guessed too long rather than too short: then what is unsent seems more than it is, until quinn has
//! nothing left to send and says so, which sets the count right.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use tokio::sync::Notify;

/// The meter of one connection, or of its path: a new path has a new one. Counts bytes of streams and datagrams.
#[derive(Debug)]
pub(super) struct Unsent {
    written: AtomicU64,
    sent: AtomicU64,
    /// What may be unsent when more is written.
    limit: AtomicU64,
    room: Notify,
}

impl Unsent {
    /// Of a connection with this congestion window.
    fn new(window: u64) -> Self {
        let counter = || AtomicU64::new(0);
        Self { written: counter(), sent: counter(), limit: AtomicU64::new(limit(window)), room: Notify::new() }
    }

    /// The meter of a connection's current path.
    pub(super) fn of(connection: &quinn::Connection) -> Arc<Self> {
        let meter = connection.congestion_state().into_any().downcast::<Meter>();
        meter.map_or_else(|_| Arc::new(Self::new(LIMIT_BYTES)), |meter| meter.0)
    }

    pub(super) fn on_written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether more may be written.
    pub(super) fn has_room(&self) -> bool {
        let written = self.written.load(Ordering::Relaxed);
        written.saturating_sub(self.sent.load(Ordering::Relaxed)) < self.limit.load(Ordering::Relaxed)
    }

    /// Waits until there may be room.
    pub(super) async fn room(&self) {
        let notified = self.room.notified();
        if !self.has_room() {
            notified.await;
        }
    }

    fn on_sent(&self, bytes: u64) {
        let sent = self.sent.load(Ordering::Relaxed) + bytes;
        self.set_sent(sent.min(self.written.load(Ordering::Relaxed)));
    }

    fn on_lost(&self, bytes: u64) {
        // It is sent once more, and counted again.
        let sent = self.sent.load(Ordering::Relaxed);
        self.sent.store(sent.saturating_sub(bytes), Ordering::Relaxed);
    }

    fn on_nothing_left(&self) {
        self.set_sent(self.written.load(Ordering::Relaxed));
    }

    fn set_sent(&self, sent: u64) {
        // The connection's lock is held by all who come here.
        self.sent.store(sent, Ordering::Relaxed);
        if self.has_room() {
            self.room.notify_one();
        }
    }
}

/// A factory of controllers that keep a meter, around one of controllers that do not.
pub(super) struct Metered(pub(super) Arc<dyn ControllerFactory + Send + Sync>);

impl ControllerFactory for Metered {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.0).build(now, current_mtu);
        let unsent = Arc::new(Unsent::new(inner.window()));
        Box::new(MeteredController { inner, unsent, mtu: current_mtu.into() })
    }
}

struct MeteredController {
    inner: Box<dyn Controller>,
    unsent: Arc<Unsent>,
    mtu: u64,
}

impl MeteredController {
    /// Of so many bytes in packets, those of streams and datagrams, at least.
    fn payload(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(bytes.div_ceil(self.mtu.max(1)) * PACKET_OVERHEAD_BYTES)
    }
}

impl Controller for MeteredController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.unsent.on_sent(self.payload(bytes));
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
        self.unsent.limit.store(limit(self.inner.window()), Ordering::Relaxed);
        if app_limited {
            self.unsent.on_nothing_left();
        }
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.unsent.on_lost(self.payload(lost_bytes));
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), unsent: Arc::clone(&self.unsent), mtu: self.mtu })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(Meter(self.unsent))
    }
}

/// What is found in a connection's controller.
struct Meter(Arc<Unsent>);

/// What is written while so much is unsent waits there.
fn limit(window: u64) -> u64 {
    (window / LIMIT_SHARE).max(window.min(LIMIT_BYTES))
}

/// Two packets of full size, or what a round trip takes, if that is less: on a path that was just found again, what is
/// known of the peer a round trip later decides what is worth sending.
const LIMIT_BYTES: u64 = 128 << 10;

/// On fast paths an eighth of the congestion window, so that the connection always has enough for its next burst.
const LIMIT_SHARE: u64 = 8;

/// Head, frame and tag of a packet take about 36 bytes, and acknowledgements ride along.
const PACKET_OVERHEAD_BYTES: u64 = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::QuicCongestion;
    use super::*;

    const MTU: u64 = 1200;

    /// On a path that takes much.
    fn metered() -> (Box<dyn Controller>, Arc<Unsent>) {
        metered_with(1 << 20)
    }

    fn metered_with(window: u64) -> (Box<dyn Controller>, Arc<Unsent>) {
        let factory = Arc::new(Metered(QuicCongestion::Cubic.factory(window, None)));
        let controller = factory.build(Instant::now(), MTU as u16);
        let meter = controller.clone_box().into_any().downcast::<Meter>().map(|meter| meter.0);
        (controller, meter.expect("it has a meter"))
    }

    #[test]
    fn room_closes_when_enough_waits_and_opens_when_it_was_sent() {
        let (mut controller, unsent) = metered();
        unsent.on_written(LIMIT_BYTES as usize - 1);
        assert!(unsent.has_room());
        unsent.on_written(10_000);
        assert!(!unsent.has_room());
        for _ in 0..9 {
            controller.on_sent(Instant::now(), MTU, 0);
        }
        assert!(unsent.has_room());
    }

    #[test]
    fn a_fresh_connection_is_given_no_more_than_its_window_in_advance() {
        let (mut controller, unsent) = metered_with(14_720);
        unsent.on_written(14_719);
        assert!(unsent.has_room());
        unsent.on_written(1);
        assert!(!unsent.has_room());
        controller.on_sent(Instant::now(), MTU, 0);
        assert!(unsent.has_room());
    }

    #[test]
    fn what_was_lost_has_to_be_sent_again() {
        let (mut controller, unsent) = metered();
        unsent.on_written(LIMIT_BYTES as usize + 10_000);
        controller.on_sent(Instant::now(), 20 * MTU, 0);
        assert!(unsent.has_room());
        controller.on_congestion_event(Instant::now(), Instant::now(), false, 20 * MTU);
        assert!(!unsent.has_room());
    }

    #[test]
    fn a_connection_with_nothing_left_takes_more_whatever_was_counted() {
        let (mut controller, unsent) = metered();
        unsent.on_written(10 << 20);
        controller.on_end_acks(Instant::now(), 0, false, None);
        assert!(!unsent.has_room());
        controller.on_end_acks(Instant::now(), 0, true, None);
        assert!(unsent.has_room());
        // What is sent beyond that, as acknowledgements are, opens no room for later.
        controller.on_sent(Instant::now(), 10 << 20, 0);
        unsent.on_written(LIMIT_BYTES as usize);
        assert!(!unsent.has_room());
    }

    #[tokio::test]
    async fn whoever_waits_for_room_is_woken() {
        let (mut controller, unsent) = metered();
        unsent.on_written(10 << 20);
        let waiting = tokio::spawn({
            let unsent = Arc::clone(&unsent);
            async move { unsent.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        controller.on_end_acks(Instant::now(), 0, true, None);
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it is woken").unwrap();
    }
}
