//! What somebody sees who records all of a link, from its first byte: neither who talks, nor with which certificate or token.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use longhaul::base::SystemEntropy;
use longhaul::channel::{Address, ListenOptions};
use longhaul::crypto::identity::{
    ALPN_QUIC, ALPN_SESSION, ALPN_TLS, NodeId, PeerIdentity, TlsSettings, default_provider, quic_initial_suite,
};
use longhaul::crypto::token::{JoinToken, PROOF_BYTES};
use longhaul::node::{GuestAdmission, GuestRefusal, GuestVisit, LinkConfig, Node};
use rustls::Side;
use rustls::pki_types::CertificateDer;
use rustls::quic::{Keys, Version};
use rustls::time_provider::DefaultTimeProvider;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};

use crate::common::{authority, id, settings};
use crate::rogue::socket_address;
use crate::transfer::{both_ways, eventually, soon};

/// Everything that went by, of all connections and both ways.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<u8>>>);

impl Tape {
    fn record(&self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }

    fn has(&self, needle: &[u8]) -> bool {
        assert!(needle.len() >= 8, "shorter ones come by chance");
        self.0.lock().unwrap().windows(needle.len()).any(|window| window == needle)
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A way to a listener on which everything is recorded: where to dial.
async fn tapped(to: &Address, tape: Tape) -> Address {
    match to.clone() {
        Address::Unix { path } => {
            let tap = path.with_extension("tap");
            let listener = UnixListener::bind(&tap).unwrap();
            tokio::spawn(async move {
                while let Ok((dialler, _)) = listener.accept().await {
                    tokio::spawn(carry(dialler, UnixStream::connect(path.clone()).await.unwrap(), tape.clone()));
                }
            });
            Address::Unix { path: tap }
        }
        Address::Quic { host, port } => {
            let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            let address = format!("quic://{}", front.local_addr().unwrap()).parse().unwrap();
            tokio::spawn(carry_datagrams(front, format!("{host}:{port}").parse().unwrap(), tape));
            address
        }
        _ => {
            let (listener, target) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), socket_address(to));
            let address = format!("{}://{}", to.kind(), listener.local_addr().unwrap()).parse().unwrap();
            tokio::spawn(async move {
                while let Ok((dialler, _)) = listener.accept().await {
                    tokio::spawn(carry(dialler, TcpStream::connect(&target).await.unwrap(), tape.clone()));
                }
            });
            address
        }
    }
}

async fn carry(
    dialler: impl AsyncRead + AsyncWrite + Send + 'static,
    listener: impl AsyncRead + AsyncWrite + Send + 'static,
    tape: Tape,
) {
    let (from_dialler, to_dialler) = tokio::io::split(dialler);
    let (from_listener, to_listener) = tokio::io::split(listener);
    tokio::join!(copy(from_dialler, to_listener, &tape), copy(from_listener, to_dialler, &tape));
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, tape: &Tape) {
    let mut buffer = vec![0; 65_536];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        tape.record(&buffer[..size]);
        if to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Datagrams; and what is under the seal of a first one, whose key everybody can make (RFC 9001 §5.2).
async fn carry_datagrams(front: Arc<UdpSocket>, target: SocketAddr, tape: Tape) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let chosen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let mut buffer = vec![0; 65_536];
    while let Ok((size, dialler)) = front.recv_from(&mut buffer).await {
        let datagram = &buffer[..size];
        tape.record(datagram);
        unsealed(datagram, Side::Server, &mut chosen.lock().unwrap(), &tape);
        if let Entry::Vacant(vacant) = backs.entry(dialler) {
            let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            back.connect(target).await.unwrap();
            vacant.insert(Arc::clone(&back));
            let (front, tape, chosen) = (Arc::clone(&front), tape.clone(), Arc::clone(&chosen));
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                while let Ok(size) = back.recv(&mut buffer).await {
                    tape.record(&buffer[..size]);
                    unsealed(&buffer[..size], Side::Client, &mut chosen.lock().unwrap(), &tape);
                    let _ = front.send_to(&buffer[..size], dialler).await;
                }
            });
        }
        let _ = backs[&dialler].send(datagram).await;
    }
}

/// Records the content of an Initial packet at the front of a datagram, as the end on `side` reads it. `chosen` are the
/// connection ids that the client has chosen or was told, of which one gives the key.
fn unsealed(datagram: &[u8], side: Side, chosen: &mut Vec<Vec<u8>>, tape: &Tape) -> Option<()> {
    let mut rest = datagram;
    let [first, _, _, _, version] = *take(&mut rest, 5)? else { return None };
    // A long header, version 1, Initial (RFC 9000 §17.2.2).
    if first & 0xf0 != 0xc0 || version != 1 {
        return None;
    }
    let length = usize::from(take(&mut rest, 1)?[0]);
    let destination = take(&mut rest, length)?.to_vec();
    let length = usize::from(take(&mut rest, 1)?[0]);
    take(&mut rest, length)?;
    let token_len = varint(&mut rest)?;
    take(&mut rest, token_len)?;
    let length = varint(&mut rest)?;
    if side == Side::Server && !chosen.contains(&destination) {
        chosen.push(destination);
    }
    let header_len = datagram.len() - rest.len();
    let suite = quic_initial_suite();
    for id in chosen.iter() {
        let keys = Keys::initial(Version::V1, suite.suite, suite.quic, id, side).remote;
        let mut packet = datagram.get(..header_len + length)?.to_vec();
        let sample = packet.get(header_len + 4..header_len + 4 + keys.header.sample_len())?.to_vec();
        let (head, number) = packet.split_at_mut(header_len);
        if keys.header.decrypt_in_place(&sample, &mut head[0], &mut number[..4]).is_err() {
            continue;
        }
        let number_len = usize::from(packet[0] & 3) + 1;
        let (head, payload) = packet.split_at_mut(header_len + number_len);
        let number = head[header_len..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        if let Ok(content) = keys.packet.decrypt_in_place(number, head, payload) {
            tape.record(content);
            return Some(());
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// RFC 9000 §16.
fn varint(rest: &mut &[u8]) -> Option<usize> {
    let first = take(rest, 1)?[0];
    let more = take(rest, (1 << (first >> 6)) - 1)?;
    Some(more.iter().fold(usize::from(first & 0x3f), |value, byte| value << 8 | usize::from(*byte)))
}

/// Names and bytes that must not be on a tape.
fn hidden(tape: &Tape, scheme: &str, needles: &[(&str, &[u8])]) {
    for (what, needle) in needles {
        assert!(!tape.has(needle), "{scheme}: {what} is in clear");
    }
}

/// Each part of a certificate that is long enough to mean something.
fn parts(certificate: &CertificateDer<'_>) -> Vec<Vec<u8>> {
    certificate.chunks(16).filter(|part| part.len() >= 12).map(<[u8]>::to_vec).collect()
}

fn address(scheme: &str, folder: &tempfile::TempDir) -> Address {
    match scheme {
        "unix" => Address::Unix { path: PathBuf::from(folder.path()).join("b.sock") },
        scheme => format!("{scheme}://127.0.0.1:0").parse().unwrap(),
    }
}

/// What everybody sees: without it the tape would prove nothing.
fn in_clear(scheme: &str) -> &'static [u8] {
    match scheme {
        "tls" => ALPN_TLS,
        "quic" => ALPN_QUIC,
        _ => ALPN_SESSION,
    }
}

const SCHEMES: [&str; 4] = ["tcp", "tls", "unix", "quic"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_talks_is_not_to_be_seen() {
    for scheme in SCHEMES {
        let folder = tempfile::tempdir().unwrap();
        let (a_tls, b_tls) = (settings("recorded-dialler"), settings("recorded-listener"));
        let chains = [a_tls.identity().chain()[0].clone(), b_tls.identity().chain()[0].clone()];
        let b = Node::builder(b_tls).listen(address(scheme, &folder), ListenOptions::default()).build().await.unwrap();
        let tape = Tape::default();
        let address = tapped(&b.local_addresses()[0], tape.clone()).await;
        let a = Node::builder(a_tls).build().await.unwrap();
        // Several channels: joins and tickets are on the tape, too.
        let (_link, session) = soon(a.connect(LinkConfig::new(id("recorded-listener"), [address]))).await.unwrap();
        let accepted = soon(b.accept()).await.unwrap();
        both_ways(&session, &accepted, 7, 100_000).await;
        if scheme != "unix" {
            eventually("the others join", || session.stats().lanes.len() >= 4).await;
        }
        assert!(tape.len() > 200_000, "{scheme}: {} bytes", tape.len());
        assert!(tape.has(in_clear(scheme)), "{scheme}: the protocol's name is in every hello");
        hidden(
            &tape,
            scheme,
            &[
                ("the dialler's name", b"recorded-dialler"),
                ("the listener's name", b"recorded-listener"),
                ("a SPIFFE ID", b"spiffe://"),
            ],
        );
        for (whose, chain) in ["dialler", "listener"].iter().zip(&chains) {
            for part in parts(chain) {
                assert!(!tape.has(&part), "{scheme}: a part of the {whose}'s certificate is in clear");
            }
        }
    }
}

/// Lets everybody in, and keeps the proofs.
#[derive(Debug, Default)]
struct Porter(Mutex<Vec<[u8; PROOF_BYTES]>>);

impl GuestAdmission for Porter {
    fn authority(&self) -> CertificateDer<'static> {
        authority().certificate_der().clone()
    }

    fn admit(&self, visit: &GuestVisit<'_>) -> Result<PeerIdentity, GuestRefusal> {
        self.0.lock().unwrap().push(*visit.proof);
        Ok(PeerIdentity::unverified(NodeId::guest("test", visit.name).unwrap()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guests_token_and_name_are_not_to_be_seen() {
    for scheme in SCHEMES {
        let folder = tempfile::tempdir().unwrap();
        let token = JoinToken::generate(authority().spki_sha256(), &mut SystemEntropy::new());
        let porter = Arc::new(Porter::default());
        let options = ListenOptions { takes_guests: true, ..ListenOptions::default() };
        let builder = Node::builder(settings("b")).guests(Arc::clone(&porter) as Arc<dyn GuestAdmission>);
        let b = builder.listen(address(scheme, &folder), options).build().await.unwrap();
        let tape = Tape::default();
        let address = tapped(&b.local_addresses()[0], tape.clone()).await;
        let time = Arc::new(DefaultTimeProvider);
        let tls = TlsSettings::guest(token.clone(), "test", Some("recorded-guest"), default_provider(), time).unwrap();
        let guest = Node::builder(tls).build().await.unwrap();
        let (_link, session) = soon(guest.connect(LinkConfig::new(id("b"), [address]))).await.unwrap();
        let accepted = soon(b.accept()).await.unwrap();
        assert_eq!(accepted.peer().node_id.name(), "recorded-guest");
        both_ways(&session, &accepted, 7, 10_000).await;
        assert!(tape.has(in_clear(scheme)), "{scheme}: the protocol's name is in every hello");
        let proofs = porter.0.lock().unwrap().clone();
        assert!(!proofs.is_empty());
        hidden(
            &tape,
            scheme,
            &[
                ("the token's id", token.id().as_bytes()),
                ("the token's id as text", token.id().to_string().as_bytes()),
                ("the guest's name", b"recorded-guest"),
                ("the guest's proof", &proofs[0][..32]),
                ("the token's key", &token.public_key()),
            ],
        );
    }
}
