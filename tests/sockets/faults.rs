//! Channels that die, stall and fall silent while data is under way: streams do not notice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use longhaul::base::LaneId;
use longhaul::node::NodeConfig;
use longhaul::session::LaneState;
use longhaul::session::scheduler::Policy;

use crate::common::{Pair, proxied, proxied_with};
use crate::proxy::{Door, Proxy, Way, Wire, dying};
use crate::transfer::{Transfer, eventually, soon};

/// Channels of a link.
const COUNT: usize = 4;

/// Least of what is sent each way.
const BYTES: u64 = 10 << 20;

/// A link whose channels all get their share: one that carries nothing is found silent by its pings only, and late.
async fn proxied_for_faults(scheme: &str) -> (Pair, Proxy) {
    let policy = Policy::RoundRobin;
    let node = |node: &mut NodeConfig| node.session.scheduler = policy;
    proxied_with(scheme, node, |link| (link.addresses[0].count, link.session.scheduler) = (COUNT as u32, policy)).await
}

/// Breaks one of the passing channels `times` times, never the last one, while a transfer goes on.
async fn break_often(pair: &Pair, proxy: &Proxy, times: usize, pause: Duration, break_one: impl Fn(&Wire)) {
    all_up(pair, proxy).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, BYTES).await;
    for turn in 0..times {
        soon(transfer.advance(64 * 1024)).await;
        eventually("two channels", || proxy.passing().len() > 1).await;
        let passing = proxy.passing();
        break_one(&passing[turn % passing.len()]);
        // How often, not when: nothing waits for this.
        tokio::time::sleep(pause).await;
    }
    let [to_b, to_a] = soon(transfer.finish()).await;
    assert!(to_b >= BYTES && to_a >= BYTES);
    assert!(pair.session_a.close_reason().is_none() && pair.session_b.close_reason().is_none());
    assert!(pair.session_a.stats().lanes_lost >= times as u64 / 2, "{:?}", pair.session_a.stats());
    all_up(pair, proxy).await;
}

/// Waits until the link has all its channels, both ends agree, and each carries data.
async fn all_up(pair: &Pair, proxy: &Proxy) {
    eventually("all channels up", || {
        let up = |session: &longhaul::node::Session| {
            let lanes = session.stats().lanes;
            lanes.len() == COUNT && lanes.iter().all(|lane| lane.state == LaneState::Active)
        };
        up(&pair.session_a) && up(&pair.session_b) && proxy.passing().len() >= COUNT
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_end_are_replaced_under_a_transfer() {
    let (pair, proxy) = proxied_for_faults("tcp").await;
    break_often(&pair, &proxy, 12, Duration::from_millis(100), Wire::kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_are_reset_are_replaced_under_a_transfer() {
    let (pair, proxy) = proxied_for_faults("tcp").await;
    break_often(&pair, &proxy, 12, Duration::from_millis(100), Wire::reset).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_fall_silent_are_replaced_under_a_transfer() {
    let (pair, proxy) = proxied_for_faults("tcp").await;
    break_often(&pair, &proxy, 10, Duration::from_millis(200), Wire::hold).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_channels_that_end_are_replaced_under_a_transfer() {
    let (pair, proxy) = proxied_for_faults("tls").await;
    break_often(&pair, &proxy, 10, Duration::from_millis(100), Wire::kill).await;
    break_often(&pair, &proxy, 5, Duration::from_millis(200), Wire::hold).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_channel_is_noticed_and_its_data_sent_on_others() {
    let (pair, proxy) = proxied_for_faults("tcp").await;
    all_up(&pair, &proxy).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, BYTES).await;
    soon(transfer.advance(1 << 20)).await;
    let silent = proxy.passing();
    let silent = &silent[1];
    silent.hold();
    let since = Instant::now();
    // What the silent one has swallowed blocks the stream until it is sent again.
    soon(transfer.advance(8 << 20)).await;
    let noticed_after = since.elapsed();
    soon(transfer.finish()).await;
    assert!(noticed_after < Duration::from_secs(5), "{noticed_after:?}");
    let [a, b] = [&pair.session_a, &pair.session_b].map(|session| session.stats().reinjected_bytes);
    assert!(a > 0 || b > 0);
    eventually("the silent channel is closed", || silent.is_over() || proxy.wires().len() > COUNT).await;
    silent.release();
    all_up(&pair, &proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_stalls_for_a_moment_is_used_again() {
    let (pair, proxy) = proxied("tcp", 1).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, BYTES).await;
    for _ in 0..4 {
        soon(transfer.advance(64 * 1024)).await;
        let wires = proxy.wires();
        wires.iter().for_each(|wire| wire.hold());
        tokio::time::sleep(Duration::from_millis(150)).await;
        wires.iter().for_each(|wire| wire.release());
    }
    soon(transfer.finish()).await;
    eventually("one channel", || pair.session_a.stats().lanes.len() == 1).await;
    assert!(proxy.wires()[0].carried_bytes(Way::ToListener) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_never_arrives_harms_nobody() {
    let (pair, proxy) = proxied("tcp", 2).await;
    eventually("two channels", || pair.session_b.stats().lanes.len() == 2).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, BYTES).await;
    // The client's lane begins with its join, and ends before the server has heard of it.
    proxy.set_door(Door::Swallow);
    proxy.wires()[1].kill();
    eventually("a join under way", || proxy.wires().len() == 2 && pair.session_a.stats().lanes.len() == 2).await;
    let swallowed = Arc::clone(&proxy.wires()[1]);
    swallowed.reset();
    soon(transfer.advance(64 * 1024)).await;
    proxy.set_door(Door::Open);
    eventually("two channels again", || pair.session_b.stats().lanes.len() == 2).await;
    soon(transfer.finish()).await;
    assert!(pair.session_a.close_reason().is_none() && pair.session_b.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_channel_that_falls_silent_is_found_by_its_pings() {
    let interval = Duration::from_millis(200);
    let (pair, proxy) =
        proxied_with("tcp", |_| {}, |link| (link.addresses[0].count, link.session.ping_interval) = (2, interval)).await;
    eventually("two channels", || pair.session_b.stats().lanes.len() == 2).await;
    let silent = Arc::clone(&proxy.wires()[0]);
    silent.hold();
    let is_given_up = || pair.session_a.stats().lanes.iter().all(|lane| lane.id != LaneId::FIRST);
    eventually("it is given up", is_given_up).await;
    silent.release();
    eventually("the silent one is closed", || silent.is_over()).await;
    eventually("two channels again", || pair.session_b.stats().lanes.len() == 2).await;
    assert!(pair.session_a.close_reason().is_none());
}

/// The lane counts as joined at both ends before it dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_die_right_after_they_joined_are_dialled_ever_more_rarely() {
    let (pair, proxy) = proxied("tcp", 2).await;
    eventually("two channels", || pair.session_b.stats().lanes.len() == 2).await;
    let dialled = dying(&proxy);
    let since = Instant::now();
    proxy.wires()[1].kill();
    eventually("six attempts", || dialled.load(Ordering::Relaxed) >= 6).await;
    // At once, and after pauses of at least 100, 200, 400 and 800 ms.
    assert!(since.elapsed() >= Duration::from_millis(1500), "{:?}", since.elapsed());
    eventually("the other channel alone", || pair.session_b.stats().lanes.len() == 1).await;
    assert!(pair.session_a.close_reason().is_none() && pair.session_b.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_die_again_after_an_outage_are_not_dialled_without_pause() {
    let (pair, proxy) = proxied("tcp", 4).await;
    eventually("four channels", || pair.session_b.stats().lanes.len() == 4).await;
    proxy.cut();
    eventually("both ends are alone", || pair.session_a.stats().lanes.is_empty()).await;
    let dialled = dying(&proxy);
    let since = Instant::now();
    proxy.set_door(Door::Open);
    // While no channel works, attempts begin at intervals of 75 ms at least: five in this time. Each of the four slots
    // may begin one at once, after 100 ms and after 200 ms more.
    eventually("twenty attempts", || dialled.load(Ordering::Relaxed) >= 20).await;
    assert!(since.elapsed() >= Duration::from_millis(300), "{:?}", since.elapsed());
    assert!(pair.session_a.close_reason().is_none() && pair.session_b.close_reason().is_none());
}
