//! What anybody on the way can do to messages: it costs the channel, never the data, the session or its neighbours.

use std::sync::{Arc, Mutex};

use longhaul::node::{LinkConfig, Session};
use longhaul::session::scheduler::Policy;

use crate::common::{Pair, dialling, id, proxied_with};
use crate::proxy::{self, Proxy, Way, Wire};
use crate::transfer::{Transfer, both_ways, eventually, soon};

/// Messages of at least this size carry stream data.
const DATA_BYTES_MIN: usize = 1000;

/// A session with four channels, and another one at the same node that has nothing to do with it.
struct Stage {
    pair: Pair,
    proxy: Proxy,
    neighbour: [Session; 2],
    _link: longhaul::node::Link,
}

async fn stage(scheme: &str) -> Stage {
    // Each channel gets its share, the victim too.
    let policy = Policy::RoundRobin;
    let (pair, proxy) = proxied_with(
        scheme,
        |node| node.session.scheduler = policy,
        |link| (link.addresses[0].count, link.session.scheduler) = (4, policy),
    )
    .await;
    let c = dialling("c").await;
    let config = LinkConfig::new(id("b"), [pair.b.local_addresses()[0].clone()]);
    let (link, session_c) = c.connect(config).await.expect("a session");
    let other_end = pair.b.accept().await.expect("the other end");
    all_up(&pair, &proxy).await;
    Stage { pair, proxy, neighbour: [session_c, other_end], _link: link }
}

async fn all_up(pair: &Pair, proxy: &Proxy) {
    eventually("all channels up", || {
        let [a, b] = [&pair.session_a, &pair.session_b].map(|session| session.stats().lanes.len());
        a == 4 && b == 4 && proxy.passing().len() == 4
    })
    .await;
}

impl Stage {
    /// Tampers with one channel in both ways, one after the other, while data is under way.
    async fn tamper(&self, tamper: impl Fn(&Wire, Way)) {
        for way in [Way::ToListener, Way::ToDialler] {
            // A machine that stands still for a moment costs channels too, but not each time.
            let mut costs = Vec::new();
            while costs.len() < 5 && !costs.contains(&1) {
                costs.push(self.tamper_once(&tamper, way).await);
            }
            assert!(costs.contains(&1), "one channel, and no other: {costs:?}");
        }
        assert!(self.pair.session_a.close_reason().is_none() && self.pair.session_b.close_reason().is_none());
    }

    /// How many channels it costs.
    async fn tamper_once(&self, tamper: impl Fn(&Wire, Way), way: Way) -> u64 {
        let [a, b] = [&self.pair.session_a, &self.pair.session_b];
        all_up(&self.pair, &self.proxy).await;
        let lost_before = a.stats().lanes_lost;
        let mut transfer = Transfer::start(a, b, 7, 2 << 20).await;
        let victim = Arc::clone(&self.proxy.passing()[2]);
        tamper(&victim, way);
        while !victim.is_over() {
            soon(transfer.advance(64 * 1024)).await;
        }
        soon(transfer.finish()).await;
        a.stats().lanes_lost - lost_before
    }

    /// Nobody else has noticed anything.
    async fn leave(self) {
        let [c, other_end] = &self.neighbour;
        soon(both_ways(c, other_end, 3, 1 << 20)).await;
        assert!(c.close_reason().is_none() && other_end.close_reason().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_bytes_cost_the_channel() {
    let stage = stage("tcp").await;
    // The length, the head's fields, and what is sealed.
    for offset in [0, 1, 3, 4, 5, 6, 8, DATA_BYTES_MIN - 1] {
        stage.tamper(|wire, way| wire.filter(way, proxy::flip(DATA_BYTES_MIN, offset))).await;
    }
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_bytes_cost_the_channel_under_tls() {
    let stage = stage("tls").await;
    for offset in [0, 900] {
        stage.tamper(|wire, way| wire.filter(way, proxy::flip(DATA_BYTES_MIN, offset))).await;
    }
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_doubled_and_swapped_messages_cost_the_channel() {
    let stage = stage("tcp").await;
    stage.tamper(|wire, way| wire.filter(way, proxy::lose(DATA_BYTES_MIN))).await;
    stage.tamper(|wire, way| wire.filter(way, proxy::duplicate(DATA_BYTES_MIN))).await;
    stage.tamper(|wire, way| wire.filter(way, proxy::swap(DATA_BYTES_MIN))).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_message_costs_the_channel() {
    let stage = stage("tcp").await;
    // The rest never comes, nor does an end: only the missing acknowledgement tells.
    stage.tamper(|wire, way| wire.filter(way, proxy::truncate(DATA_BYTES_MIN, 500))).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_another_channel_or_of_the_past_cost_the_channel() {
    let stage = stage("tcp").await;
    let proxy = &stage.proxy;
    stage
        .tamper(|wire, way| {
            let box_of_messages = Arc::new(Mutex::new(None));
            let put = Arc::clone(&box_of_messages);
            let other = Arc::clone(&proxy.passing()[0]);
            other.filter(way, move |message, out| {
                put.lock().unwrap().get_or_insert_with(|| message.clone());
                out.push(message);
            });
            wire.filter(way, move |message, out| {
                out.extend(box_of_messages.lock().unwrap().take_if(|_| message.len() >= DATA_BYTES_MIN));
                out.push(message);
            });
        })
        .await;
    // Of the same channel, three messages ago.
    stage
        .tamper(|wire, way| {
            let (mut past, mut count) = (None, 0);
            wire.filter(way, move |message, out| {
                past.get_or_insert_with(|| message.clone());
                out.push(message);
                count += 1;
                if count == 4 {
                    out.extend(past.clone());
                }
            });
        })
        .await;
    stage.leave().await;
}
