//! All channels gone at once: sessions wait for `survive`, data goes on as soon as there is a path, and a peer that was
//! restarted is known at once.

use std::time::{Duration, Instant};

use longhaul::base::CloseCode;
use longhaul::channel::ListenOptions;
use longhaul::node::{LinkConfig, Node, Session};
use longhaul::session::CloseReason;

use crate::common::{Pair, dialling, id, proxied, proxied_with, settings};
use crate::proxy::{Door, Proxy};
use crate::transfer::{Transfer, both_ways, eventually, soon};

/// From a path's return to data, at the usual: half a second is what is promised.
const RESUME_MAX: Duration = Duration::from_millis(500);

/// The same when the machine has other things to do.
const RESUME_BUSY_MAX: Duration = Duration::from_secs(5);

/// Lets outages of these lengths happen to a transfer: `cut` takes the path away, `mend` gives it back.
async fn outlive(seconds: &[f64], cut: impl Fn(&Proxy), mend: impl Fn(&Proxy)) {
    let (pair, proxy) = proxied("tcp", 4).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, 10 << 20).await;
    let mut pauses = Vec::new();
    for length in seconds {
        soon(transfer.advance(1 << 20)).await;
        cut(&proxy);
        // The outage itself.
        tokio::time::sleep(Duration::from_secs_f64(*length)).await;
        let before = transfer.received();
        mend(&proxy);
        let since = Instant::now();
        soon(transfer.advance(1)).await;
        pauses.push(since.elapsed());
        assert!(transfer.received()[0] > before[0] && transfer.received()[1] > before[1]);
    }
    soon(transfer.finish()).await;
    pauses.sort();
    assert!(pauses[pauses.len() / 2] < RESUME_MAX && pauses[pauses.len() - 1] < RESUME_BUSY_MAX, "{pauses:?}");
    assert!(pair.session_a.close_reason().is_none() && pair.session_b.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_outlives_refused_connections() {
    outlive(&[10.0, 0.5, 0.5], Proxy::cut, |proxy| proxy.set_door(Door::Open)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_outlives_connections_that_are_reset_at_once() {
    let cut = |proxy: &Proxy| {
        proxy.set_door(Door::Reset);
        proxy.wires().iter().for_each(|wire| wire.reset());
    };
    outlive(&[0.5, 1.5, 0.5], cut, |proxy| proxy.set_door(Door::Open)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_outlives_silence_of_which_nothing_comes_back() {
    // What was connected before and during the silence stays silent, as behind a firewall that forgot it.
    outlive(&[1.0, 3.5, 1.0], Proxy::swallow, |proxy| proxy.set_door(Door::Open)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_outlives_silence_that_ends() {
    let mend = |proxy: &Proxy| {
        proxy.set_door(Door::Open);
        proxy.wires().iter().for_each(|wire| wire.release());
    };
    outlive(&[1.0, 3.5, 1.0], Proxy::swallow, mend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_outlives_an_outage() {
    let (pair, proxy) = proxied("tcp", 4).await;
    both_ways(&pair.session_a, &pair.session_b, 1, 1 << 16).await;
    proxy.cut();
    eventually("both ends are alone", || {
        pair.session_a.stats().lanes.is_empty() && pair.session_b.stats().lanes.is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.set_door(Door::Open);
    soon(both_ways(&pair.session_a, &pair.session_b, 2, 1 << 16)).await;
    assert_eq!(pair.link.status().session.expect("a session").id(), pair.session_a.id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_longer_than_survive_ends_both_ends() {
    let survive = Duration::from_secs(1);
    let (mut pair, proxy) = proxied_with(
        "tcp",
        |node| node.session.survive = survive,
        |link| (link.session.survive, link.backoff_max) = (survive, Duration::from_millis(300)),
    )
    .await;
    let transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, u64::MAX).await;
    proxy.cut();
    let since = Instant::now();
    for session in [&pair.session_a, &pair.session_b] {
        let reason = soon(session.closed()).await;
        assert_eq!(reason, CloseReason::ChannelsLost { after: survive });
        assert!(since.elapsed() >= survive, "{:?}", since.elapsed());
        let error = session.open_bi().await.err().expect("no session, no stream").to_string();
        assert_eq!(error, "session ended: no channel to the peer for 1 s");
        assert!(session.accept_bi().await.is_err());
    }
    for outcome in soon(transfer.outcomes()).await {
        assert_eq!(outcome, Err("session ended: no channel to the peer for 1 s".to_owned()));
    }
    // The link makes another one as soon as it can.
    proxy.set_door(Door::Open);
    work_again(&mut pair).await;
}

/// Waits for the next session of the link, and uses it.
async fn work_again(pair: &mut Pair) {
    let old = pair.session_a.id();
    eventually("another session", || pair.link.status().session.is_some_and(|session| session.id() != old)).await;
    pair.session_a = pair.link.session().await.expect("a session");
    pair.session_b = accepted(&pair.b, &pair.session_a).await;
    soon(both_ways(&pair.session_a, &pair.session_b, 5, 1 << 20)).await;
}

/// The other end of a session.
async fn accepted(node: &Node, session: &Session) -> Session {
    loop {
        let other = soon(node.accept()).await.expect("the node runs");
        if other.id() == session.id() {
            return other;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_known_at_once() {
    let tls = settings("b");
    let build = |address| Node::builder(tls.clone()).listen(address, ListenOptions::default()).build();
    let b = build("tcp://127.0.0.1:0".parse().expect("an address")).await.expect("a node");
    let address = b.local_addresses()[0].clone();
    let proxy = Proxy::to(&address);
    let a = dialling("a").await;
    let (link, session_a) = a.connect(LinkConfig::new(id("b"), [proxy.address()])).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    both_ways(&session_a, &session_b, 1, 1 << 16).await;
    let waiting = tokio::spawn({
        let session = session_a.clone();
        async move {
            let (_send, mut recv) = session.open_bi().await.expect("a stream");
            recv.read_chunk(1).await
        }
    });

    // As if the power failed: nothing is said any more.
    proxy.cut();
    eventually("nobody is connected", || session_b.stats().lanes.is_empty()).await;
    drop((session_b, b));
    let mut restarted = build(address.clone()).await;
    while restarted.is_err() {
        tokio::task::yield_now().await;
        restarted = build(address.clone()).await;
    }
    let b = restarted.expect("it was checked");
    proxy.set_door(Door::Open);
    let since = Instant::now();

    assert_eq!(soon(session_a.closed()).await, CloseReason::Reset);
    let error = soon(waiting).await.expect("no panic").expect_err("the stream ends with the session");
    assert_eq!(error.to_string(), "session ended: peer does not know the session: it was restarted");
    let mut pair = Pair { a, b, link, session_b: session_a.clone(), session_a };
    work_again(&mut pair).await;
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_peer_closes_is_made_anew() {
    let (mut pair, _proxy) = proxied("tcp", 2).await;
    // A join that comes after the end is told that the session is not known, which may be quicker than the reason.
    eventually("two channels", || pair.session_b.stats().lanes.len() == 2).await;
    pair.session_b.close(CloseCode::SHUTTING_DOWN, "maintenance");
    let reason = soon(pair.session_a.closed()).await;
    assert_eq!(reason, CloseReason::Peer { code: CloseCode::SHUTTING_DOWN, reason: "maintenance".to_owned() });
    work_again(&mut pair).await;
}
