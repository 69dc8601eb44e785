//! Links over several addresses: the kind that is preferred, standby, failover, and addresses that change.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use longhaul::channel::{Address, ChannelKind};
use longhaul::node::{Entrances, LaneRole, LinkConfig, NodeConfig, Session};
use longhaul::session::LaneKind;
use socket2::{Domain, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::common::{Pair, dialling, id, listening_with};
use crate::proxy::{Door, Proxy, Way};
use crate::transfer::{Transfer, eventually, soon};

/// From the start of a link to data, when the address that it would like best swallows everything. What is promised.
const START_MAX: Duration = Duration::from_secs(2);

/// The same when the machine has other things to do.
const START_BUSY_MAX: Duration = Duration::from_secs(8);

/// A listener whose backlog is full, so that dials of its address get no answer: a black hole.
struct FullListener {
    address: SocketAddr,
    _sockets: Vec<Socket>,
}

impl FullListener {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut sockets = vec![listener];
        for _ in 0..3 {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&address.into());
            sockets.push(client);
        }
        Self { address, _sockets: sockets }
    }
}

/// A node with a TCP and a TLS address behind a proxy each.
async fn two_kinds() -> (longhaul::node::Node, [Proxy; 2]) {
    let b = listening_with("b", &["tcp://127.0.0.1:0", "tls://127.0.0.1:0"], NodeConfig::default()).await;
    let proxies = [0, 1].map(|index: usize| Proxy::to(&b.local_addresses()[index]));
    (b, proxies)
}

async fn linked(b: longhaul::node::Node, config: LinkConfig) -> Pair {
    let a = dialling("a").await;
    let link = a.link(config);
    let session_a = soon(link.session()).await.expect("a session");
    let session_b = soon(b.accept()).await.expect("the other end");
    Pair { a, b, link, session_a, session_b }
}

/// Bytes that went out on lanes of a kind.
fn sent(session: &Session, kind: LaneKind) -> u64 {
    session.stats().lanes.iter().filter(|lane| lane.kind == kind).map(|lane| lane.bytes_sent).sum()
}

fn lanes(session: &Session, kind: LaneKind) -> usize {
    session.stats().lanes.iter().filter(|lane| lane.kind == kind).count()
}

/// Waits until data goes over one kind alone, both ways.
async fn carried_by(pair: &Pair, transfer: &mut Transfer, kind: LaneKind, other: LaneKind) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "never carried by {kind:?} alone");
        let before = [&pair.session_a, &pair.session_b].map(|session| [sent(session, kind), sent(session, other)]);
        soon(transfer.advance(2 << 20)).await;
        let after = [&pair.session_a, &pair.session_b].map(|session| [sent(session, kind), sent(session, other)]);
        let is_so = before.iter().zip(&after).all(|(before, after)| {
            after[0] > before[0].saturating_add(500_000) && after[1].saturating_sub(before[1]) < 20_000
        });
        if is_so {
            return;
        }
    }
}

/// With the preferred kind blocked, data flows over the other one; when it is back it is used again.
async fn prefers(kind: ChannelKind, block: impl Fn(&Proxy)) -> Duration {
    let (b, [tcp, tls]) = two_kinds().await;
    let lane = |kind| if kind == ChannelKind::Tls { LaneKind::Tls } else { LaneKind::Tcp };
    let other = if kind == ChannelKind::Tls { ChannelKind::Tcp } else { ChannelKind::Tls };
    let preferred = if kind == ChannelKind::Tls { &tls } else { &tcp };
    block(preferred);
    let mut config = LinkConfig::new(id("b"), [tcp.address(), tls.address()]);
    config.addresses.iter_mut().for_each(|address| address.count = 2);
    config.prefer = Some(kind);
    let since = Instant::now();
    let pair = linked(b, config).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, 1 << 20).await;
    soon(transfer.advance(1)).await;
    let taken = since.elapsed();
    soon(transfer.advance(4 << 20)).await;
    assert_eq!(lanes(&pair.session_b, lane(kind)), 0);

    // It is back, without a restart.
    preferred.set_door(Door::Open);
    carried_by(&pair, &mut transfer, lane(kind), lane(other)).await;
    // The other kind is kept up, for the next time.
    eventually("the other kind stands by", || lanes(&pair.session_a, lane(other)) == 2).await;
    preferred.swallow();
    carried_by(&pair, &mut transfer, lane(other), lane(kind)).await;
    soon(transfer.finish()).await;
    assert!(pair.session_a.close_reason().is_none());
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_kind_carries_while_the_preferred_one_is_blocked() {
    let mut times = Vec::new();
    for kind in [ChannelKind::Tls, ChannelKind::Tcp] {
        times.push(prefers(kind, |proxy| proxy.set_door(Door::Swallow)).await);
        times.push(prefers(kind, |proxy| proxy.set_door(Door::Refuse)).await);
    }
    times.sort();
    assert!(times[1] < START_MAX && times[3] < START_BUSY_MAX, "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_answers_nothing_delays_a_link_by_its_head_start() {
    let black_hole = FullListener::new();
    let (b, [tcp, _tls]) = two_kinds().await;
    let addresses = [format!("tls://{}", black_hole.address).parse().unwrap(), tcp.address()];
    let mut config = LinkConfig::new(id("b"), addresses);
    config.prefer = Some(ChannelKind::Tls);
    let since = Instant::now();
    let pair = linked(b, config).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, 1 << 20).await;
    soon(transfer.advance(1)).await;
    assert!(since.elapsed() < START_BUSY_MAX, "{:?}", since.elapsed());
    soon(transfer.finish()).await;
}

/// Two entrances of one node, of the same kind.
async fn two_entrances(entrances: Entrances) -> (Pair, [Proxy; 2]) {
    let addresses = ["tcp://127.0.0.1:0"; 2];
    let b = listening_with("b", &addresses, NodeConfig::default()).await;
    let proxies = [0, 1].map(|index: usize| Proxy::to(&b.local_addresses()[index]));
    let mut config = LinkConfig::new(id("b"), proxies.each_ref().map(Proxy::address));
    config.addresses.iter_mut().for_each(|address| address.count = 2);
    config.entrances = entrances;
    (linked(b, config).await, proxies)
}

fn carried(proxy: &Proxy) -> u64 {
    let wires = proxy.wires();
    wires.iter().map(|wire| wire.carried_bytes(Way::ToListener) + wire.carried_bytes(Way::ToDialler)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spread_uses_all_entrances() {
    let (pair, [first, second]) = two_entrances(Entrances::Spread).await;
    eventually("channels to both", || first.passing().len() == 2 && second.passing().len() == 2).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, 4 << 20).await;
    while [&first, &second].iter().any(|proxy| carried(proxy) < 1 << 20) {
        soon(transfer.advance(1 << 20)).await;
    }
    soon(transfer.finish()).await;
}

/// `fail` takes the first entrance away.
async fn fails_over(fail: impl Fn(&Proxy)) {
    let (pair, [first, second]) = two_entrances(Entrances::Failover).await;
    eventually("channels to the first", || first.passing().len() == 2).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, 1 << 20).await;
    soon(transfer.advance(4 << 20)).await;
    assert_eq!(second.wires().len(), 0, "the second is not dialled while the first one works");

    fail(&first);
    soon(transfer.advance(8 << 20)).await;
    eventually("channels to the second", || second.passing().len() == 2).await;

    first.set_door(Door::Open);
    eventually("channels to the first again", || first.passing().len() == 2).await;
    let mut transfer = transfer;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !second.passing().is_empty() {
        assert!(Instant::now() < deadline, "the second is never left");
        soon(transfer.advance(1 << 20)).await;
    }
    let before = carried(&first);
    // What was on its way by then had come through it already.
    while carried(&first) < before + (1 << 20) {
        assert!(Instant::now() < deadline, "the first carries nothing");
        soon(transfer.advance(1 << 20)).await;
    }
    soon(transfer.finish()).await;
    assert!(pair.session_a.close_reason().is_none() && pair.session_b.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_leaves_an_entrance_that_refuses_and_returns() {
    fails_over(Proxy::cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_leaves_an_entrance_that_swallows_everything_and_returns() {
    fails_over(Proxy::swallow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_begins_with_the_second_entrance_when_the_first_is_away() {
    let b = listening_with("b", &["tcp://127.0.0.1:0"], NodeConfig::default()).await;
    let black_hole = FullListener::new();
    let second = Proxy::to(&b.local_addresses()[0]);
    let first: Address = format!("tcp://{}", black_hole.address).parse().unwrap();
    let mut config = LinkConfig::new(id("b"), [first, second.address()]);
    config.entrances = Entrances::Failover;
    let pair = linked(b, config).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, 1 << 20).await;
    soon(transfer.advance(1 << 20)).await;
    soon(transfer.finish()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_takes_over_what_was_on_its_way() {
    let (b, [tcp, tls]) = two_kinds().await;
    let mut config = LinkConfig::new(id("b"), [tls.address(), tcp.address()]);
    config.addresses.iter_mut().for_each(|address| address.count = 1);
    config.addresses[0].role = LaneRole::Standby;
    let pair = linked(b, config).await;
    eventually("both are up", || [LaneKind::Tcp, LaneKind::Tls].iter().all(|kind| lanes(&pair.session_b, *kind) == 1))
        .await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, 1 << 20).await;
    carried_by(&pair, &mut transfer, LaneKind::Tcp, LaneKind::Tls).await;
    tcp.swallow();
    carried_by(&pair, &mut transfer, LaneKind::Tls, LaneKind::Tcp).await;
    tcp.set_door(Door::Open);
    carried_by(&pair, &mut transfer, LaneKind::Tcp, LaneKind::Tls).await;
    soon(transfer.finish()).await;
}

/// The dialling side has another address, or its NAT has forgotten it: what was connected is silent for ever, and what is
/// dialled anew works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_when_the_dialling_side_has_another_address() {
    let (b, [tcp, _tls]) = two_kinds().await;
    let pair = linked(b, LinkConfig::new(id("b"), [tcp.address()])).await;
    eventually("all channels", || lanes(&pair.session_b, LaneKind::Tcp) == 4).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, 1 << 20).await;
    soon(transfer.advance(1 << 20)).await;
    let old: Vec<_> = pair.session_b.stats().lanes.iter().map(|lane| lane.id).collect();
    tcp.wires().iter().for_each(|wire| wire.hold());
    soon(transfer.advance(4 << 20)).await;
    for session in [&pair.session_a, &pair.session_b] {
        eventually("no zombies, and all channels", || {
            let lanes = session.stats().lanes;
            lanes.len() == 4 && lanes.iter().all(|lane| !old.contains(&lane.id))
        })
        .await;
    }
    soon(transfer.finish()).await;
    assert!(pair.session_a.close_reason().is_none());
}

/// Carries connections from one Unix socket to another one, until it is dropped.
struct Forwarder {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Forwarder {
    fn new(path: PathBuf, target: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).expect("a socket");
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.expect("a connection");
                let target = target.clone();
                connections.spawn(async move {
                    let mut far = UnixStream::connect(target).await.expect("the node listens");
                    // Either end may go first.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { path, task }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A name that leads elsewhere from now on.
fn point(name: &Path, target: &Path) {
    let fresh = name.with_extension("new");
    std::os::unix::fs::symlink(target, &fresh).expect("a link");
    std::fs::rename(fresh, name).expect("it is put in place");
}

/// Names are looked up at each dial. A symbolic link stands for the name: what resolves it is the system, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_when_the_name_leads_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let b = listening_with("b", &[&format!("unix://{}", at("node").display())], NodeConfig::default()).await;
    let (first, second) = (Forwarder::new(at("first"), at("node")), Forwarder::new(at("second"), at("node")));
    let name = at("name");
    point(&name, &first.path);
    let address: Address = format!("unix://{}", name.display()).parse().expect("an address");
    let pair = linked(b, LinkConfig::new(id("b"), [address])).await;
    let mut transfer = Transfer::start(&pair.session_a, &pair.session_b, 1, 1 << 20).await;
    soon(transfer.advance(1 << 20)).await;
    point(&name, &second.path);
    drop(first);
    soon(transfer.advance(1 << 20)).await;
    soon(transfer.finish()).await;
    assert_eq!(pair.session_a.id(), pair.session_b.id());
}
