//! One link over channels of several kinds: a session carries on over those that are left.

use longhaul::channel::{Address, ChannelKind, DialOptions, dial, dial_quic};
use longhaul::crypto::identity::{ALPN_QUIC, quic_initial_suite};
use longhaul::node::{LinkConfig, NodeConfig, Session};
use longhaul::session::LaneKind;
use longhaul::session::scheduler::Policy;

use crate::common::{Pair, dialling, id, listening_with, settings};
use crate::proxy::{Door, Proxy};
use crate::transfer::{Transfer, eventually, soon};

fn kinds(session: &Session) -> Vec<LaneKind> {
    let mut kinds: Vec<_> = session.stats().lanes.iter().map(|lane| lane.kind).collect();
    kinds.sort_by_key(|kind| *kind as u32);
    kinds
}

/// A link over TCP, TLS and a Unix socket, the first two through proxies.
async fn mixed(folder: &tempfile::TempDir, order: [ChannelKind; 3]) -> (Pair, Proxy, Proxy) {
    let unix = format!("unix://{}/b.sock", folder.path().display());
    let mut config = NodeConfig::default();
    config.session.scheduler = Policy::RoundRobin;
    let b = listening_with("b", &["tcp://127.0.0.1:0", "tls://127.0.0.1:0", &unix], config).await;
    let [tcp, tls] = [0, 1].map(|index: usize| Proxy::to(&b.local_addresses()[index]));
    let a = dialling("a").await;
    let addresses = order.map(|kind| match kind {
        ChannelKind::Tcp => tcp.address(),
        ChannelKind::Tls => tls.address(),
        _ => unix.parse::<Address>().expect("an address"),
    });
    let mut config = LinkConfig::new(id("b"), addresses);
    config.addresses.iter_mut().for_each(|address| address.count = 1);
    config.session.scheduler = Policy::RoundRobin;
    let (link, session_a) = a.connect(config).await.expect("a session");
    let session_b = b.accept().await.expect("the other end");
    (Pair { a, b, link, session_a, session_b }, tcp, tls)
}

async fn all_up(pair: &Pair) {
    let all = [LaneKind::Tcp, LaneKind::Unix, LaneKind::Tls];
    eventually("a channel of each kind", || kinds(&pair.session_a) == all && kinds(&pair.session_b) == all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_kind_makes_the_session_the_others_join() {
    use ChannelKind::{Tcp, Tls, Unix};
    for order in [[Tcp, Tls, Unix], [Tls, Unix, Tcp], [Unix, Tcp, Tls]] {
        let folder = tempfile::tempdir().expect("a folder");
        let (pair, _tcp, _tls) = mixed(&folder, order).await;
        all_up(&pair).await;
        let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, 4 << 20).await;
        soon(transfer.advance(1 << 20)).await;
        soon(transfer.finish()).await;
        for session in [&pair.session_a, &pair.session_b] {
            let lanes = session.stats().lanes;
            for kind in [LaneKind::Tcp, LaneKind::Unix, LaneKind::Tls] {
                let used = lanes.iter().any(|lane| lane.kind == kind && lane.bytes_sent > 100_000);
                assert!(used, "{kind:?} of {lanes:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_is_blocked_is_carried_by_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let order = [ChannelKind::Tls, ChannelKind::Unix, ChannelKind::Tcp];
    let (pair, tcp, tls) = mixed(&folder, order).await;
    all_up(&pair).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, 8 << 20).await;
    for proxy in [&tls, &tcp] {
        soon(transfer.advance(1 << 20)).await;
        proxy.cut();
        soon(transfer.advance(1 << 20)).await;
    }
    eventually("the Unix socket is alone", || kinds(&pair.session_a) == [LaneKind::Unix]).await;
    soon(transfer.advance(1 << 20)).await;
    for proxy in [&tls, &tcp] {
        proxy.set_door(Door::Open);
    }
    all_up(&pair).await;
    soon(transfer.finish()).await;
}

/// Else what one of them keeps in a queue would not be known to be in the way of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_of_all_kinds_between_two_addresses_share_a_path() {
    for host in ["127.0.0.1", "[::1]"] {
        let addresses = [format!("tcp://{host}:0"), format!("quic://{host}:0")];
        let b = listening_with("b", &addresses.each_ref().map(String::as_str), NodeConfig::default()).await;
        let [tcp, quic] = [0, 1].map(|index: usize| &b.local_addresses()[index]);
        let options = DialOptions::default();
        let tcp = soon(dial(tcp, &options)).await.expect("a connection");
        let config = settings("a").client_config(Some(&id("b")), ALPN_QUIC).expect("settings");
        let quic = soon(dial_quic(quic, &options, config, quic_initial_suite())).await.expect("a connection");
        let path = tcp.info.path();
        assert!(path.is_some() && path == quic.info().path(), "{:?} and {:?}", tcp.info, quic.info());
    }
}
