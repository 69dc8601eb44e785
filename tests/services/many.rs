//! Many connections at once, and one after the other.

use longhaul::channel::Address;
use longhaul::service::{ForwardConfig, ServiceConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::common::{Net, client, connect_unix, echo, echo_unix, exchange, id, open_service, pattern, soon, tcp};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_share_a_link() {
    const COUNT: usize = 2000;
    let service = ServiceConfig { connections_max: 4096, ..open_service("echo", echo().await) };
    let net = Net::new([service]).await;
    let config = ForwardConfig { connections_max: 4096, ..ForwardConfig::new(tcp(0), id("b"), "echo") };
    let forward = net.a.forward(config).await.unwrap();
    let mut clients = JoinSet::new();
    for index in 0..COUNT {
        let mut client = client(&forward).await;
        clients.spawn(async move {
            let data = pattern(3000, index as u64);
            client.write_all(&data[..1000]).await.unwrap();
            let mut answer = vec![0; 1000];
            client.read_exact(&mut answer).await.unwrap();
            assert!(answer == data[..1000]);
            (client, data)
        });
    }
    let clients = soon(clients.join_all()).await;
    assert_eq!(forward.open_connections(), COUNT as u32);
    assert_eq!(net.b.services().get("echo").unwrap().open_connections(), COUNT as u32);
    let mut rest = JoinSet::new();
    for (client, data) in clients {
        rest.spawn(async move { assert!(exchange(client, &data[1000..]).await.unwrap() == data[1000..]) });
    }
    soon(rest.join_all()).await;
    soon(forward.ended()).await;
    soon(net.b.services().ended()).await;
}

/// Bytes that this process has in memory.
#[cfg(target_os = "linux")]
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Set in the process that has this test for itself.
#[cfg(target_os = "linux")]
const ALONE: &str = "LONGHAUL_TEST_ALONE";

/// `LONGHAUL_TEST_CONNECTIONS` chooses how many.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_connections_leave_nothing_behind() {
    if std::env::var_os(ALONE).is_some() {
        return connect_often().await;
    }
    // What other tests allocate meanwhile would be counted too.
    let process = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "many::short_connections_leave_nothing_behind"])
        .env(ALONE, "1")
        .output();
    let output = process.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[cfg(target_os = "linux")]
async fn connect_often() {
    let count = std::env::var("LONGHAUL_TEST_CONNECTIONS").map_or(4000, |count| count.parse().unwrap());
    let net = Net::new([]).await;
    let front = net.path("forward.sock");
    net.b.services().replace([open_service("echo", echo_unix(net.path("target.sock")))]);
    let config = ForwardConfig::new(Address::Unix { path: front.clone() }, id("b"), "echo");
    let forward = net.a.forward(config).await.unwrap();
    let session = soon(net.a.links()[0].session()).await.unwrap();
    let run = async |count: usize| {
        for round in 0..count / 20 {
            let mut clients = JoinSet::new();
            for _ in 0..20 {
                let client = connect_unix(&front).await;
                clients.spawn(async move { exchange(client, b"hello").await.unwrap() });
            }
            assert!(clients.join_all().await.iter().all(|answer| answer == b"hello"), "round {round}");
        }
        soon(forward.ended()).await;
        soon(net.b.services().ended()).await;
        crate::common::until(|| session.stream_count() == 0).await;
    };
    run(2000).await;
    let before = resident_bytes();
    run(count).await;
    let growth = resident_bytes().saturating_sub(before);
    assert!(growth < count * 64 + (2 << 20), "{growth} bytes more after {count} connections");
}
