//! Keys that change many times while data is under way on several channels: no byte is lost, and no channel.

use std::sync::{Arc, Mutex};

use longhaul::base::CloseCode;
use longhaul::node::{Node, NodeEvent, Observer, Session};
use longhaul::session::scheduler::Policy;
use longhaul::session::{LaneEnd, SessionConfig};

use crate::common::{Pair, proxied_between, settings};
use crate::proxy::Proxy;
use crate::transfer::{Transfer, eventually, soon};

/// Channels of the link.
const COUNT: usize = 4;

/// Key updates of each run.
const EPOCHS: u32 = 30;

/// A link whose channels all get their share, with `change` for both ends, and whose ends tell `watched`.
async fn linked(watched: &Arc<Faults>, change: impl Fn(&mut SessionConfig)) -> (Pair, Proxy) {
    let change = |session: &mut SessionConfig| {
        session.scheduler = Policy::RoundRobin;
        change(session);
    };
    let observer = || Arc::clone(watched) as Arc<dyn Observer>;
    let builders = ["a", "b"].map(|name| Node::builder(settings(name)).observer(observer()));
    let node = |node: &mut longhaul::node::NodeConfig| change(&mut node.session);
    let (pair, proxy) = proxied_between(builders, "tcp", node, |link| {
        link.addresses[0].count = COUNT as u32;
        change(&mut link.session);
    })
    .await;
    all_up(&pair, &proxy).await;
    (pair, proxy)
}

/// The channels that ended because of what came on them. Those that were killed, and those that a machine costs which stands
/// still for a moment, say nothing here.
#[derive(Default)]
struct Faults(Mutex<Vec<LaneEnd>>);

impl Observer for Faults {
    fn on_event(&self, event: &NodeEvent<'_>) {
        if let NodeEvent::LaneEnded { end: end @ (LaneEnd::Closed(code) | LaneEnd::ClosedByPeer(code)), .. } = event
            && !EXPECTED.contains(code)
        {
            self.0.lock().unwrap().push(*end);
        }
    }
}

/// What is said of channels that are not needed, that broke, and that joined too late.
const EXPECTED: [CloseCode; 4] =
    [CloseCode::NO_ERROR, CloseCode::LANE_SURPLUS, CloseCode::TRANSPORT_ERROR, CloseCode::JOIN_REFUSED];

impl Faults {
    fn all(&self) -> Vec<LaneEnd> {
        self.0.lock().unwrap().clone()
    }
}

async fn all_up(pair: &Pair, proxy: &Proxy) {
    eventually("all channels up", || {
        let [a, b] = [&pair.session_a, &pair.session_b].map(|session| session.stats().lanes.len());
        a == COUNT && b == COUNT && proxy.passing().len() == COUNT
    })
    .await;
}

fn epoch(session: &Session) -> u32 {
    session.stats().epoch.0
}

/// Sends both ways until the keys of both ends were updated often, calling `at_epoch` after each update.
async fn transfer(pair: &Pair, mut at_epoch: impl FnMut(u32)) {
    let [a, b] = [&pair.session_a, &pair.session_b];
    let mut transfer = Transfer::start(a, b, 3, 1 << 20).await;
    let mut seen = 0;
    while epoch(a) < EPOCHS || epoch(b) < EPOCHS {
        soon(transfer.advance(64 * 1024)).await;
        let now = epoch(a).min(epoch(b));
        if now > seen {
            at_epoch(now);
            seen = now;
        }
    }
    // Compares each byte.
    soon(transfer.finish()).await;
    assert!(epoch(a).abs_diff(epoch(b)) <= 1, "{} {}", epoch(a), epoch(b));
    assert!(a.close_reason().is_none() && b.close_reason().is_none());
}

/// The same, and no channel ends because a packet could not be opened.
async fn costs_no_channel(change: impl Fn(&mut SessionConfig), drive: impl Fn(&Pair)) {
    let faults = Arc::default();
    let (pair, _proxy) = linked(&faults, change).await;
    drive(&pair);
    transfer(&pair, |_| drive(&pair)).await;
    assert_eq!(faults.all(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_after_so_many_packets() {
    costs_no_channel(|session| session.key_packets_max = 20, |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_after_so_many_bytes() {
    costs_no_channel(|session| session.key_bytes_max = 500_000, |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_may_change_keys_at_once() {
    let update = |pair: &Pair| [&pair.session_a, &pair.session_b].into_iter().for_each(Session::update_keys);
    // The limit asks again when both were asked too early.
    costs_no_channel(|session| session.key_packets_max = 200, update).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_may_die_and_join_while_keys_change() {
    let faults = Arc::default();
    let (pair, proxy) = linked(&faults, |session| session.key_packets_max = 20).await;
    transfer(&pair, |epoch| {
        let passing = proxy.passing();
        if epoch % 3 == 0 && passing.len() > 1 {
            Arc::clone(&passing[epoch as usize % passing.len()]).kill();
        }
    })
    .await;
    assert!(pair.session_a.stats().lanes_lost > 0, "{:?}", pair.session_a.stats());
    assert_eq!(faults.all(), []);
    all_up(&pair, &proxy).await;
}
