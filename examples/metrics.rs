//! Two nodes that measure themselves, and show it as Prometheus reads it.
//!
//! Run with `cargo run --example metrics`: data goes through a link whose TCP channels break for a moment, and some of
//! what the near node has measured is printed. With two addresses, as in `cargo run --example metrics -- 127.0.0.1:9101
//! 127.0.0.1:9102`, it goes on until it is ended, and both nodes answer `GET /metrics` there. What is limited, checked and
//! refused is so that each instrument of the dashboard has something to say.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod common;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use longhaul::channel::{Address, ListenOptions};
use longhaul::crypto::identity::NodeId;
use longhaul::node::{BandwidthLimits, LinkConfig, Node};
use longhaul::service::{
    Allow, CheckKind, CheckOptions, Endpoint, ForwardConfig, Gateway, ServiceConfig, Services, TargetConfig, Targets,
};
use longhaul::telemetry::{Authority, OtlpSettings, PROMETHEUS_CONTENT_TYPE, Settings, Telemetry};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let shown: Vec<_> = std::env::args().skip(1).collect();
    let authority = common::authority()?;
    let far_telemetry = Telemetry::new("spiffe://example/node/far", &Settings::default())?;
    let far = Node::builder(common::settings(&authority, "far")?)
        .listen("tcp://127.0.0.1:0".parse()?, ListenOptions::default())
        .listen("quic://127.0.0.1:0".parse()?, ListenOptions::default())
        .observer(far_telemetry.observer())
        .build()
        .await?;
    let [tcp, quic] = far.local_addresses() else { return Err("there are two listeners".into()) };
    let (relay, is_cut) = relay(tcp.clone()).await?;
    let quic = quic.clone();
    let nobody: Address = "tcp://127.0.0.1:9".parse()?;
    let far = Arc::new(Gateway::start(far, Services::new(services(&nobody).await?)));
    // On its way the data meets the forward's limit, the service's and this one: each has to be lower than the one before, or
    // nothing would wait for it.
    let each_peer = Some("8Mbit/s".parse()?);
    far.node().set_bandwidth_limits(BandwidthLimits { each_peer, ..BandwidthLimits::default() });
    far_telemetry.watch(far.node());
    far_telemetry.watch_gateway(&far);
    far_telemetry.watch_authority(|| Some(hub()));

    // A collector that is not there costs nothing, and is counted.
    let otlp = OtlpSettings {
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        interval: Some(Duration::from_secs(1)),
        ..OtlpSettings::default()
    };
    let near_telemetry =
        Telemetry::new("spiffe://example/node/near", &Settings { otlp: Some(otlp), ..Settings::default() })?;
    let near = Node::builder(common::settings(&authority, "near")?).observer(near_telemetry.observer()).build().await?;
    let near = Arc::new(Gateway::start(near, Services::new([])));
    near_telemetry.watch(near.node());
    near_telemetry.watch_gateway(&near);
    let peer: NodeId = "spiffe://example/node/far".parse()?;
    // Tests of metrics need both kinds of channels to carry something.
    let mut link = LinkConfig::new(peer.clone(), [relay, quic]);
    link.session.scheduler = "round-robin".parse()?;
    near.add_link(near.node().link(link));
    near.add_link(near.node().link(LinkConfig::new("spiffe://example/node/away".parse()?, [nobody])));
    let mut forwards = Vec::new();
    for service in ["echo", "broken", "unknown", "single"] {
        let mut forward = ForwardConfig::new("tcp://127.0.0.1:0".parse::<Address>()?, peer.clone(), service);
        forward.bandwidth_limit = Some("32Mbit/s".parse()?);
        forwards.push(near.forward(forward).await?.local_address().clone());
    }
    // The one connection that this service lets a peer have.
    let _held = hold(&forwards[3]).await?;

    let [near_address, far_address] = &shown[..] else {
        for turn in 0..4 {
            exercise(&forwards).await?;
            is_cut.send_replace(turn % 2 == 0);
        }
        for line in near_telemetry.render_prometheus().lines().filter(|line| line.contains("_io_bytes_total{")) {
            println!("{line}");
        }
        for link in near_telemetry.snapshot().links {
            println!("{}: {} channels, outages survived: {}", link.peer, link.channels.len(), link.outages_survived);
        }
        return Ok(());
    };
    tokio::spawn(show(TcpListener::bind(near_address).await?, near_telemetry));
    tokio::spawn(show(TcpListener::bind(far_address).await?, far_telemetry));
    println!("http://{near_address}/metrics http://{far_address}/metrics");
    for turn in 0_u32.. {
        exercise(&forwards).await?;
        // TCP breaks for some seconds in each dozen; QUIC goes on.
        is_cut.send_replace(turn % 12 >= 9);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// One service that works, at two targets and a third that is not there and is left out; one whose only target is checked
/// and not there; one that lets a peer have one connection.
async fn services(nobody: &Address) -> Result<[ServiceConfig; 3], Box<dyn Error>> {
    let targets = [echo().await?, echo().await?, nobody.clone()].map(TargetConfig::new);
    let mut echoes = ServiceConfig::new("echo", Targets::new(targets)?, Allow::Everyone);
    echoes.bandwidth_limit = Some("16Mbit/s".parse()?);
    let mut broken = ServiceConfig::new("broken", nobody.clone(), Allow::Everyone);
    broken.check = Some(CheckOptions { interval: Duration::from_secs(1), ..CheckOptions::new(CheckKind::Connect) });
    let mut single = ServiceConfig::new("single", echo().await?, Allow::Everyone);
    single.connections_per_peer_max = 1;
    Ok([echoes, broken, single])
}

/// Numbers as a hub has them. A real one reads them from the state of its authority: `Overview::counts` of `enroll`.
fn hub() -> Authority {
    Authority {
        tokens: vec![("valid", 2), ("used up", 1), ("expired", 0), ("revoked", 1)],
        nodes: vec![("valid", 2), ("expired", 0), ("revoked", 1)],
        certificates_issued: 7,
        denied: 1,
        events: vec![("certificate-issued", 7), ("enrolment-refused", 1)],
    }
}

/// A connection that is open as long as what is returned.
async fn hold(forward: &Endpoint) -> Result<TcpStream, Box<dyn Error>> {
    let Endpoint::Stream(Address::Tcp { host, port }) = forward else { return Err("the forward is TCP".into()) };
    let mut stream = TcpStream::connect((host.as_str(), *port)).await?;
    // The answer tells that the target has it.
    stream.write_all(&[7]).await?;
    stream.read_exact(&mut [0]).await?;
    Ok(stream)
}

/// Sends a megabyte through the first forward and back, and tries the others, whose connections are closed.
async fn exercise(forwards: &[Endpoint]) -> Result<(), Box<dyn Error>> {
    for (index, forward) in forwards.iter().enumerate() {
        let Endpoint::Stream(Address::Tcp { host, port }) = forward else { continue };
        let stream = match TcpStream::connect((host.as_str(), *port)).await {
            Ok(stream) => stream,
            Err(error) if index == 0 => return Err(error.into()),
            // Reset before it was known to be connected.
            Err(_) => continue,
        };
        let (mut read, mut write) = stream.into_split();
        let sending = async {
            // The others are reset, which is what they are for.
            let sent = write.write_all(&vec![7; if index == 0 { 1 << 20 } else { 1 }]).await;
            sent.and(write.shutdown().await)
        };
        let mut answer = Vec::new();
        let (sent, received) = tokio::join!(sending, read.read_to_end(&mut answer));
        if index == 0 {
            sent.and(received.map(|_| ()))?;
        }
    }
    Ok(())
}

/// Answers every request with the metrics.
async fn show(listener: TcpListener, telemetry: Telemetry) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let telemetry = telemetry.clone();
        tokio::spawn(async move {
            // A request in one piece is enough for an example; a server of HTTP would read to its end.
            if stream.read(&mut [0; 4096]).await? == 0 {
                return Ok(());
            }
            let text = telemetry.render_prometheus();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {PROMETHEUS_CONTENT_TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                text.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(text.as_bytes()).await
        });
    }
}

/// A path that can be cut: its connections end, and new ones end at once.
async fn relay(target: Address) -> Result<(Address, watch::Sender<bool>), Box<dyn Error>> {
    let Address::Tcp { host, port } = target else { return Err("the target is TCP".into()) };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("tcp://{}", listener.local_addr()?).parse()?;
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (mut is_cut, host) = (is_cut.clone(), host.clone());
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect((host.as_str(), port)).await else { return };
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = is_cut.wait_for(|is_cut| *is_cut) => {}
                }
            });
        }
    });
    Ok((address, cut))
}

/// A target that sends back what it gets.
async fn echo() -> Result<Address, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("tcp://{}", listener.local_addr()?).parse()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                copy(&mut read, &mut write).await
            });
        }
    });
    Ok(address)
}
