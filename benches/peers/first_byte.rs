//! A peer for measurements: how long it takes from the begin of dialling until the first byte of an application is at the
//! service, for a link and for quinn alone.
//!
//! `first_byte serve ADDRESS FOLDER` and `first_byte dial ADDRESS FOLDER [--count N] [--after WHEN]`, where WHEN is
//! early, connected, running, resumed, zero-rtt or joined.
//! An address is `tcp://`, `tls://`, `quic://` or `unix://`, or `quinn://` for one connection of quinn without sessions. A link is
//! dialled afresh for each measurement and sends on its early session, on the connected one, or for `running` on a session
//! that is connected since long: then the time begins when the stream is opened. For `resumed` and `zero-rtt` it has had a
//! session before, which is closed when the time begins, and sends on the early session of the next one; for `zero-rtt` on
//! a stream that is replay-safe, as early data. For `joined` the only channel of a session is cut, so that what is sent goes out
//! with the channel that joins in its place; the time begins with the cut, but over `quic://`, where nothing tells of it and the
//! session has to find out, with the first packet of the new channel. What is sent is the time at which it began, so that
//! both sides have to run on one machine. The server leaves certificates in the folder, and prints the milliseconds of each
//! measurement.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use longhaul::channel::{Address, ListenOptions};
use longhaul::crypto::identity::{Identity, NodeId, TlsSettings, TrustAnchors, default_provider};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use longhaul::node::{LinkConfig, Node, Session};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

type Failure = Box<dyn Error + Send + Sync>;

const DOMAIN: &str = "bench";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [side, address, folder, flags @ ..] = &arguments[..] else {
        return Err("expected serve or dial, ADDRESS, and FOLDER".into());
    };
    let folder = Path::new(folder);
    match (side.as_str(), address.strip_prefix("quinn://")) {
        ("serve", None) => serve(address.parse()?, folder).await,
        ("serve", Some(address)) => serve_quinn(address.parse()?, folder).await,
        ("dial", quinn) => {
            let (mut count, mut after) = (5, "early");
            for pair in flags.chunks(2) {
                match pair {
                    [name, value] if name == "--count" => count = value.parse()?,
                    [name, value] if name == "--after" => after = value,
                    other => return Err(format!("{other:?} is no option with its value").into()),
                }
            }
            for _ in 0..count {
                match quinn {
                    Some(address) => dial_quinn(address.parse()?, folder).await?,
                    None => dial(address.parse()?, folder, after).await?,
                }
            }
            Ok(())
        }
        (other, _) => Err(format!("expected serve or dial, not {other}").into()),
    }
}

// ---- A link ----

async fn serve(address: Address, folder: &Path) -> Result<(), Failure> {
    let hour = || Validity::from_now(Duration::from_secs(3600));
    let authority = CertificateAuthority::generate(DOMAIN, KeyType::P256, hour())?;
    std::fs::write(folder.join("ca.crt"), authority.certificate_pem())?;
    for name in ["a", "b"] {
        let issued = authority.issue_node(name, KeyType::P256, hour())?;
        std::fs::write(folder.join(format!("{name}.crt")), &issued.certificate_pem)?;
        std::fs::write(folder.join(format!("{name}.key")), issued.key_pem.as_bytes())?;
    }
    let options = ListenOptions { early_data: true, ..ListenOptions::default() };
    let node = Node::builder(settings(folder, "b")?).listen(address, options).build().await?;
    report("ready");
    while let Some(session) = node.accept().await {
        tokio::spawn(answer_all(session));
    }
    Ok(())
}

async fn answer_all(session: Session) -> Result<(), Failure> {
    loop {
        let (mut send, mut recv) = session.accept_bi().await?;
        read_time(&mut recv).await?;
        send.write_all(b"!").await?;
        send.finish()?;
    }
}

async fn dial(address: Address, folder: &Path, after: &str) -> Result<(), Failure> {
    let node = Node::builder(settings(folder, "a")?).build().await?;
    let cut = Arc::new(Cut::default());
    let address = if after == "joined" { through_relay(&address, folder, Arc::clone(&cut)).await? } else { address };
    let is_quic = matches!(address, Address::Quic { .. });
    let mut began = SystemTime::now();
    let mut config = LinkConfig::new(NodeId::new(DOMAIN, "b")?, [address]);
    if after == "joined" {
        config.addresses[0].count = 1;
    }
    config.early_data = after == "zero-rtt";
    let link = node.link(config);
    let session = match after {
        "early" => link.early_session().await?,
        "connected" => link.session().await?,
        "running" => {
            let session = link.session().await?;
            // Until all channels have joined.
            tokio::time::sleep(Duration::from_secs(1)).await;
            began = SystemTime::now();
            session
        }
        "joined" => {
            let session = link.session().await?;
            // Until everything that the beginning has brought is acknowledged.
            tokio::time::sleep(Duration::from_secs(1)).await;
            began = SystemTime::now();
            if is_quic {
                cut.now.notify_one();
                cut.done.notified().await;
                // A path that is silent is found out by what is not answered, which nobody has to read.
                session.open_uni().await?.write_all(b"?").await?;
                cut.dialled.notified().await;
                began = SystemTime::now();
            } else {
                cut.now.notify_waiters();
            }
            session
        }
        "resumed" | "zero-rtt" => {
            let first = link.session().await?;
            // Until the tickets are there, and the other channels.
            tokio::time::sleep(Duration::from_secs(1)).await;
            began = SystemTime::now();
            first.close(longhaul::base::CloseCode::NO_ERROR, "");
            loop {
                let session = link.early_session().await?;
                if session.id() != first.id() {
                    break session;
                }
                // To ask at once would keep a core busy that the others need.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        other => return Err(format!("when is {other}?").into()),
    };
    let stream = session.stream();
    let (mut send, mut recv) = if after == "zero-rtt" { stream.replay_safe() } else { stream }.open_bi().await?;
    send.write_all(&time(began)).await?;
    recv.read_u8().await?;
    node.close(longhaul::base::CloseCode::NO_ERROR, "").await;
    Ok(())
}

// ---- Channels that are cut ----

/// Ends the channels that lead through a relay.
#[derive(Default)]
struct Cut {
    now: Notify,
    /// A relay of datagrams has cut.
    done: Notify,
    /// The first packet of a channel that was dialled after that has come.
    dialled: Notify,
}

/// An address on this host that leads to another one. What it carries is cut at each notice.
async fn through_relay(to: &Address, folder: &Path, cut: Arc<Cut>) -> Result<Address, Failure> {
    let (scheme, target) = match to {
        Address::Tcp { host, port } => ("tcp", format!("{host}:{port}")),
        Address::Tls { host, port } => ("tls", format!("{host}:{port}")),
        Address::Quic { host, port } => return through_udp_relay(format!("{host}:{port}"), cut).await,
        Address::Unix { path } => return through_unix_relay(path.clone(), folder, cut),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("{scheme}://{}", listener.local_addr()?).parse()?;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (target, cut) = (target.clone(), Arc::clone(&cut));
            tokio::spawn(async move {
                let far = TcpStream::connect(target).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                carry(near, far, &cut).await;
                Ok::<_, std::io::Error>(())
            });
        }
    });
    Ok(address)
}

fn through_unix_relay(target: PathBuf, folder: &Path, cut: Arc<Cut>) -> Result<Address, Failure> {
    let path = folder.join(format!("relay-{:x}", u128::from_be_bytes(time(SystemTime::now()))));
    let listener = UnixListener::bind(&path)?;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (target, cut) = (target.clone(), Arc::clone(&cut));
            tokio::spawn(async move {
                carry(near, UnixStream::connect(target).await?, &cut).await;
                Ok::<_, std::io::Error>(())
            });
        }
    });
    Ok(Address::Unix { path })
}

/// Carries bytes both ways, until the next cut.
async fn carry(mut near: impl AsyncRead + AsyncWrite + Unpin, mut far: impl AsyncRead + AsyncWrite + Unpin, cut: &Cut) {
    tokio::select! {
        // What fails ends the channel, which the measurement then waits for in vain.
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        () = cut.now.notified() => {}
    }
}

/// Each dial comes from a port of its own, and goes on from another one. A cut loses everything of those before.
async fn through_udp_relay(target: String, cut: Arc<Cut>) -> Result<Address, Failure> {
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
    let address = format!("quic://{}", near.local_addr()?).parse()?;
    tokio::spawn(async move {
        let mut packet = vec![0; 65_535];
        // `None` is one that was cut.
        let mut flows: HashMap<SocketAddr, Option<Flow>> = HashMap::new();
        let mut is_cut = false;
        loop {
            tokio::select! {
                biased;
                () = cut.now.notified() => {
                    flows.values_mut().for_each(|flow| *flow = None);
                    is_cut = true;
                    cut.done.notify_one();
                }
                Ok((size, from)) = near.recv_from(&mut packet) => {
                    let flow = match flows.entry(from) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(vacant) => {
                            if std::mem::take(&mut is_cut) {
                                cut.dialled.notify_one();
                            }
                            let flow = Flow::begin(&target, Arc::clone(&near), from).await;
                            vacant.insert(Some(flow.expect("a local port")))
                        }
                    };
                    if let Some(flow) = flow {
                        // What is lost is sent again.
                        drop(flow.far.send(&packet[..size]).await);
                    }
                }
            }
        }
    });
    Ok(address)
}

/// What one port of the client sends.
struct Flow {
    far: Arc<UdpSocket>,
    answers: JoinHandle<()>,
}

impl Flow {
    async fn begin(target: &str, near: Arc<UdpSocket>, client: SocketAddr) -> std::io::Result<Self> {
        let far = Arc::new(UdpSocket::bind("0.0.0.0:0").await?);
        far.connect(target).await?;
        let from = Arc::clone(&far);
        let answers = tokio::spawn(async move {
            let mut packet = vec![0; 65_535];
            while let Ok(size) = from.recv(&mut packet).await {
                drop(near.send_to(&packet[..size], client).await);
            }
        });
        Ok(Self { far, answers })
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

fn settings(folder: &Path, name: &str) -> Result<TlsSettings, Failure> {
    let read = |name: String| std::fs::read(folder.join(name));
    let provider = default_provider();
    let identity = Identity::from_pem(&read(format!("{name}.crt"))?, &read(format!("{name}.key"))?, &provider)?;
    let anchors = TrustAnchors::from_pem(&read("ca.crt".to_owned())?)?;
    Ok(TlsSettings::new(identity, anchors, provider, Arc::new(rustls::time_provider::DefaultTimeProvider))?)
}

// ---- quinn alone ----

async fn serve_quinn(address: SocketAddr, folder: &Path) -> Result<(), Failure> {
    let certified = rcgen::generate_simple_self_signed(vec![DOMAIN.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
    std::fs::write(folder.join("quinn.der"), certified.cert.der())?;
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let endpoint = Endpoint::server(config, address)?;
    report("ready");
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(answer_quinn(incoming));
    }
    Ok(())
}

async fn answer_quinn(incoming: quinn::Incoming) -> Result<(), Failure> {
    let connection = incoming.await?;
    let (mut send, mut recv) = connection.accept_bi().await?;
    read_time(&mut recv).await?;
    send.write_all(b"!").await?;
    send.finish()?;
    connection.closed().await;
    Ok(())
}

async fn dial_quinn(address: SocketAddr, folder: &Path) -> Result<(), Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(folder.join("quinn.der"))?))?;
    // Made anew each time: it remembers no tickets.
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let endpoint = Endpoint::client("0.0.0.0:0".parse()?)?;
    let began = SystemTime::now();
    let connection = endpoint.connect_with(config, address, DOMAIN)?.await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&time(began)).await?;
    recv.read_u8().await?;
    connection.close(0_u8.into(), b"");
    endpoint.wait_idle().await;
    Ok(())
}

/// With all suites: the first packets of QUIC are sealed with AES-128-GCM, which a node offers nowhere else.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}

// ---- The time ----

fn time(at: SystemTime) -> [u8; 16] {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_be_bytes()
}

/// Takes the time at which the other side began: prints how long ago that is.
async fn read_time(from: &mut (impl AsyncRead + Unpin)) -> Result<(), Failure> {
    let mut began = [0; 16];
    from.read_exact(&mut began).await?;
    let now = u128::from_be_bytes(time(SystemTime::now()));
    let taken = now.saturating_sub(u128::from_be_bytes(began));
    report(&format!("{:.2} ms", taken as f64 / 1e6));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the program's output")]
fn report(line: &str) {
    println!("{line}");
}
