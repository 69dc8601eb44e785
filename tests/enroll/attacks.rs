//! What somebody on the path, or with half of what is needed, tries.

use std::sync::Arc;

use longhaul::base::{Secret, limits};
use longhaul::crypto::identity::{default_provider, enroll_client_config, server_name};
use longhaul::crypto::token::{ENROLL_EXPORTER_LABEL, EnrollProof, JoinToken};
use longhaul::enroll::{Join, JoinError};
use longhaul::issue::{CertificateAuthority, CertificateRequest, KeyType, NodeKey, Validity};
use longhaul::wire::{EnrollAnswer, EnrollRequest};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::time_provider::DefaultTimeProvider;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::common::Hub;

/// A connection on which nothing was asked yet.
pub(crate) async fn connect(port: u16, token: &JoinToken) -> TlsStream<TcpStream> {
    let time = Arc::new(DefaultTimeProvider);
    let config = enroll_client_config(*token.authority_pin(), default_provider(), time).unwrap();
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    TlsConnector::from(config).connect(server_name(), socket).await.unwrap()
}

/// A request as it is right on this connection.
pub(crate) fn request(stream: &TlsStream<TcpStream>, token: &JoinToken, csr: &[u8]) -> EnrollRequest {
    let id = token.id().to_string();
    let state = stream.get_ref().1;
    let exporter = state.export_keying_material([0; 32], ENROLL_EXPORTER_LABEL, Some(id.as_bytes())).unwrap();
    let parsed = CertificateRequest::from_der(csr).unwrap();
    let exporter = Secret::new(exporter);
    let asked = EnrollProof { exporter: &exporter, token_id: token.id(), request_sha256: parsed.sha256(), name: "" };
    EnrollRequest {
        token_id: *token.id().as_bytes(),
        name: String::new(),
        certificate_request: csr.to_vec(),
        proof: token.prove(&asked),
    }
}

pub(crate) async fn answer(mut stream: TlsStream<TcpStream>, message: &[u8]) -> EnrollAnswer {
    stream.write_all(message).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    EnrollAnswer::decode(&bytes).unwrap().unwrap().0
}

#[tokio::test]
async fn a_proof_that_is_relayed_over_another_connection_is_refused() {
    let hub = Hub::start();
    let token = hub.token(&["--name", "dc-b"]);
    let csr = NodeKey::generate(KeyType::P256).unwrap().request().unwrap();
    let (victims, attackers) = (connect(hub.enroll_port, &token).await, connect(hub.enroll_port, &token).await);
    let stolen = request(&victims, &token, &csr);
    assert_eq!(answer(attackers, &stolen.encode()).await, EnrollAnswer::Refused);
    assert!(hub.audit().contains("wrong-proof"), "{}", hub.audit());
    assert_eq!(hub.record(&token).use_count, 0);
    // On the connection that it was made for it is good, and a key of the attacker's in its place is not.
    let other = NodeKey::generate(KeyType::P256).unwrap().request().unwrap();
    let exchanged = EnrollRequest { certificate_request: other, ..stolen.clone() };
    let second = connect(hub.enroll_port, &token).await;
    assert_eq!(answer(second, &exchanged.encode()).await, EnrollAnswer::Refused);
    assert!(matches!(answer(victims, &stolen.encode()).await, EnrollAnswer::Issued { .. }));
}

#[tokio::test]
async fn what_is_no_request_is_refused_like_everything_else() {
    let hub = Hub::start();
    let token = hub.token(&["--name", "dc-b"]);
    let http = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(100));
    for message in [http.as_bytes(), &[0xff; 64], &[0, 0, 0, 0]] {
        let stream = connect(hub.enroll_port, &token).await;
        assert_eq!(answer(stream, message).await, EnrollAnswer::Refused);
    }
    assert!(hub.audit().contains("bad-request"), "{}", hub.audit());
    // The listener is for nothing else: neither plain bytes nor another protocol above TLS get an answer.
    let mut plain = TcpStream::connect(("127.0.0.1", hub.enroll_port)).await.unwrap();
    plain.write_all(b"hello").await.unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes).await;
    assert!(bytes.len() < 16, "an alert at most");
    let time = Arc::new(DefaultTimeProvider);
    let mut config = (*enroll_client_config(*token.authority_pin(), default_provider(), time).unwrap()).clone();
    config.alpn_protocols = vec![b"longhaul-tls/1".to_vec()];
    let socket = TcpStream::connect(("127.0.0.1", hub.enroll_port)).await.unwrap();
    assert!(TlsConnector::from(Arc::new(config)).connect(server_name(), socket).await.is_err());
}

#[tokio::test]
async fn wrong_proofs_lock_the_token_and_no_other() {
    let hub = Hub::start();
    let token = hub.token(&["--name", "dc-b"]);
    let csr = NodeKey::generate(KeyType::P256).unwrap().request().unwrap();
    for _ in 0..limits::WRONG_PROOFS_MAX {
        let stream = connect(hub.enroll_port, &token).await;
        let wrong = EnrollRequest { proof: [7; 64], ..request(&stream, &token, &csr) };
        assert_eq!(answer(stream, &wrong.encode()).await, EnrollAnswer::Refused);
    }
    let stream = connect(hub.enroll_port, &token).await;
    let right = request(&stream, &token, &csr);
    assert_eq!(answer(stream, &right.encode()).await, EnrollAnswer::Refused);
    assert!(hub.audit().contains("token-locked"), "{}", hub.audit());
    let other = hub.token(&["--name", "dc-c"]);
    let stream = connect(hub.enroll_port, &other).await;
    let right = request(&stream, &other, &csr);
    assert!(matches!(answer(stream, &right.encode()).await, EnrollAnswer::Issued { .. }));
}

/// Somebody else's hub that shows our authority's certificate as well, which anybody can have.
#[tokio::test]
async fn a_foreign_hub_with_our_authority_stapled_to_its_chain_gets_no_proof() {
    let validity = Validity::from_now(std::time::Duration::from_secs(3600));
    let make = || CertificateAuthority::generate("example", KeyType::P256, validity).unwrap();
    let (ours, foreign) = (make(), make());
    let token = JoinToken::generate(ours.spki_sha256(), &mut longhaul::base::SystemEntropy::new());
    let leaf = foreign.issue_node("hub", KeyType::P256, validity).unwrap();
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let leaf_der = der(&leaf.certificate_pem);
    let (ours_der, foreign_der) = (ours.certificate_der().clone(), foreign.certificate_der().clone());
    let chains = [
        vec![leaf_der.clone(), ours_der.clone()],
        vec![leaf_der.clone(), foreign_der.clone(), ours_der.clone()],
        vec![leaf_der.clone(), ours_der, foreign_der],
        vec![leaf_der],
    ];
    for chain in chains {
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(default_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"longhaul-enroll/1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let rogue = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(socket).await else { return 0 };
            stream.read_u8().await.map_or(0, |_| 1)
        });
        let csr = NodeKey::generate(KeyType::P256).unwrap().request().unwrap();
        let join = Join {
            host: "127.0.0.1",
            port,
            token: &token,
            name: "",
            certificate_request: &csr,
            provider: default_provider(),
            time: Arc::new(DefaultTimeProvider),
        };
        let error = join.run().await.unwrap_err();
        assert!(matches!(error, JoinError::NotTheHub { .. }), "{error}");
        assert_eq!(rogue.await.unwrap(), 0, "not a byte was sent");
    }
}
