//! A peer for measurements: one QUIC connection by quinn alone, with a choice of congestion control, so that what a
//! controller reaches on a path is seen without sessions.
//!
//! `quic_bulk server LISTEN` and `quic_bulk client ADDRESS [--congestion cubic|bbr-quinn|bbr|new-reno] [--seconds N]
//! [--window BYTES] [--socket-buffer BYTES] [--streams N] [--trace MILLISECONDS]`. The client uploads for N seconds, over
//! several streams, as quinn ends a connection when one stream has more than a thousand gaps. The server counts, and prints what arrived in each second and in all; the client prints loss and RTT.

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use longhaul::channel::{PathObserver, QuicCongestion};
use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

const INITIAL_WINDOW_BYTES: u64 = 14_720;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [side, address, flags @ ..] = &arguments[..] else {
        return Err("expected server LISTEN or client ADDRESS".into());
    };
    let address: SocketAddr = address.parse()?;
    let flags = Flags::parse(flags)?;
    match side.as_str() {
        "server" => serve(address, &flags).await,
        "client" => upload(address, &flags).await,
        other => Err(format!("expected server or client, not {other}").into()),
    }
}

/// What was asked for.
struct Flags {
    congestion: String,
    seconds: u64,
    window: u32,
    socket_buffer: usize,
    streams: usize,
    trace: Option<Duration>,
}

impl Flags {
    fn parse(words: &[String]) -> Result<Self, Box<dyn Error>> {
        let mut flags = Self {
            congestion: "bbr".to_owned(),
            seconds: 15,
            window: 128 << 20,
            socket_buffer: 8 << 20,
            streams: 8,
            trace: None,
        };
        for pair in words.chunks(2) {
            let [name, value] = pair else { return Err(format!("{pair:?} has no value").into()) };
            match name.as_str() {
                "--congestion" => flags.congestion.clone_from(value),
                "--seconds" => flags.seconds = value.parse()?,
                "--window" => flags.window = value.parse()?,
                "--socket-buffer" => flags.socket_buffer = value.parse()?,
                "--streams" => flags.streams = value.parse()?,
                "--trace" => flags.trace = Some(Duration::from_millis(value.parse()?)),
                other => return Err(format!("{other} is no flag").into()),
            }
        }
        Ok(flags)
    }

    fn transport(&self, seen: &Arc<Seen>) -> Result<Arc<TransportConfig>, Box<dyn Error>> {
        let mut transport = TransportConfig::default();
        let observer = || Some(Arc::clone(seen) as Arc<dyn PathObserver>);
        let kind = match self.congestion.as_str() {
            "cubic" => Some(QuicCongestion::Cubic),
            "bbr" => Some(QuicCongestion::Bbr),
            "new-reno" => Some(QuicCongestion::NewReno),
            "bbr-quinn" => None,
            other => return Err(format!("{other} is no congestion control").into()),
        };
        match kind {
            Some(kind) => transport.congestion_controller_factory(kind.factory(INITIAL_WINDOW_BYTES, observer())),
            None => transport.congestion_controller_factory(Arc::new(BbrConfig::default())),
        };
        transport.stream_receive_window(self.window.into());
        transport.receive_window(self.window.into());
        transport.send_window(self.window.into());
        transport.mtu_discovery_config(Some(MtuDiscoveryConfig::default()));
        Ok(Arc::new(transport))
    }

    fn endpoint(&self, address: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint, Box<dyn Error>> {
        let socket = UdpSocket::bind(address)?;
        let buffers = socket2::SockRef::from(&socket);
        buffers.set_recv_buffer_size(self.socket_buffer)?;
        buffers.set_send_buffer_size(self.socket_buffer)?;
        Ok(Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(quinn::TokioRuntime))?)
    }
}

/// What the controller of this side heard.
#[derive(Default)]
struct Seen {
    rtt_micros: AtomicU64,
    acked_bytes: AtomicU64,
    lost_bytes: AtomicU64,
}

impl PathObserver for Seen {
    fn on_rtt(&self, rtt: Duration) {
        self.rtt_micros.store(rtt.as_micros() as u64, Ordering::Relaxed);
    }

    fn on_acked(&self, bytes: u64) {
        self.acked_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn on_lost(&self, bytes: u64) {
        self.lost_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

async fn serve(address: SocketAddr, flags: &Flags) -> Result<(), Box<dyn Error>> {
    let certified = rcgen::generate_simple_self_signed(vec!["bulk".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    server.transport_config(flags.transport(&Arc::default())?);
    // The client trusts what it is given here: a certificate that lives as long as this process.
    std::fs::write(certificate_file(), certified.cert.der())?;
    let endpoint = flags.endpoint(address, Some(server))?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Err(error) = receive(incoming).await {
                report(&format!("ended by {error}"));
            }
        });
    }
    Ok(())
}

async fn receive(incoming: quinn::Incoming) -> Result<(), Box<dyn Error + Send + Sync>> {
    let connection = incoming.await?;
    let received = Arc::<AtomicU64>::default();
    let mut first = connection.accept_uni().await?;
    let start = Instant::now();
    let by_second = tokio::spawn(count_by_second(Arc::clone(&received)));
    let others = tokio::spawn(accept_others(connection.clone(), Arc::clone(&received)));
    drain(&mut first, &received).await?;
    let total = received.load(Ordering::Relaxed);
    by_second.abort();
    others.abort();
    report(&format!("received {:.1} Mbit/s", mbit(total, start.elapsed())));
    connection.close(0_u8.into(), b"");
    Ok(())
}

async fn accept_others(connection: Connection, received: Arc<AtomicU64>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let received = Arc::clone(&received);
        // A stream that failed ends with the connection, which tells why.
        tokio::spawn(async move { drain(&mut stream, &received).await.is_ok() });
    }
}

async fn drain(stream: &mut quinn::RecvStream, received: &AtomicU64) -> Result<(), quinn::ReadError> {
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
        received.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

async fn count_by_second(received: Arc<AtomicU64>) {
    let mut last = 0;
    loop {
        let start = Instant::now();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let total = received.load(Ordering::Relaxed);
        report(&format!("{:.0}", mbit(total - last, start.elapsed())));
        last = total;
    }
}

async fn upload(address: SocketAddr, flags: &Flags) -> Result<(), Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(certificate_file())?))?;
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let seen = Arc::<Seen>::default();
    client.transport_config(flags.transport(&seen)?);
    let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let endpoint = flags.endpoint(local.parse()?, None)?;
    let connection = endpoint.connect_with(client, address, "bulk")?.await?;
    if let Some(interval) = flags.trace {
        tokio::spawn(trace(connection.clone(), Arc::clone(&seen), interval));
    }
    let end = Instant::now() + Duration::from_secs(flags.seconds);
    let senders = (0..flags.streams.max(1)).map(|_| tokio::spawn(send(connection.clone(), end)));
    for sender in senders.collect::<Vec<_>>() {
        sender.await?.map_err(|error| error as Box<dyn Error>)?;
    }
    connection.closed().await;
    let path = connection.stats().path;
    report(&format!(
        "{}: sent {} packets, lost {} ({:.2} %), congestion events {}, rtt {:?}, mtu {}",
        flags.congestion,
        path.sent_packets,
        path.lost_packets,
        path.lost_packets as f64 * 100.0 / path.sent_packets.max(1) as f64,
        path.congestion_events,
        path.rtt,
        path.current_mtu,
    ));
    endpoint.close(0_u8.into(), b"");
    endpoint.wait_idle().await;
    Ok(())
}

async fn send(connection: Connection, end: Instant) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut stream = connection.open_uni().await?;
    let chunk = bytes::Bytes::from(vec![0x5a; 256 << 10]);
    while Instant::now() < end {
        stream.write_chunk(chunk.clone()).await?;
    }
    // What is in the buffers is still sent: the receiver's clock runs until it has come.
    stream.finish()?;
    Ok(())
}

/// Prints what the path did in each interval.
async fn trace(connection: Connection, seen: Arc<Seen>, interval: Duration) {
    let (start, mut last_acked, mut last_lost) = (Instant::now(), 0, 0);
    loop {
        tokio::time::sleep(interval).await;
        let (acked, lost) = (seen.acked_bytes.load(Ordering::Relaxed), seen.lost_bytes.load(Ordering::Relaxed));
        report(&format!(
            "{:6.2} s: {:6.1} Mbit/s, lost {:7} bytes, rtt {:6.1} ms, window {:9}",
            start.elapsed().as_secs_f64(),
            mbit(acked - last_acked, interval),
            lost - last_lost,
            seen.rtt_micros.load(Ordering::Relaxed) as f64 / 1000.0,
            connection.stats().path.cwnd,
        ));
        (last_acked, last_lost) = (acked, lost);
    }
}

/// With all suites: the first packets of QUIC are sealed with AES-128-GCM, which a node offers nowhere else.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}

/// Where the server leaves its certificate for the client.
fn certificate_file() -> std::path::PathBuf {
    std::env::temp_dir().join("quic_bulk.der")
}

fn mbit(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8.0 / time.as_secs_f64() / 1e6
}

#[expect(clippy::print_stdout, reason = "the program's output")]
fn report(line: &str) {
    println!("{line}");
}
