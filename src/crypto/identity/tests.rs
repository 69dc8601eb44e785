//! Real handshakes in memory (`rustls::quic`, as sessions use it): who is accepted, and why another is refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls::pki_types::UnixTime;
use rustls::quic::{ClientConnection, Connection, ServerConnection, Version};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, Error, ServerConfig};

use super::test_ca::{NOW, TestCa, at};
use super::{
    ALPN_SESSION, ALPN_TLS, Identity, IdentityError, NodeId, PeerIdentity, TlsSettings, TrustAnchors, VerifyFailure,
    default_provider, server_name,
};

const A: &str = "spiffe://example/node/a";
const B: &str = "spiffe://example/node/b";

#[derive(Debug)]
struct FixedTime;

impl TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW)))
    }
}

fn settings(identity: Identity, anchors: TrustAnchors) -> TlsSettings {
    TlsSettings::new(identity, anchors, default_provider(), Arc::new(FixedTime)).unwrap()
}

/// Both ends after a handshake, or the first error with the side that found it.
pub(super) fn shake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<(Connection, Connection), (Side, Error)> {
    let params = b"parameters".to_vec();
    let client = ClientConnection::new(client, Version::V1, server_name(), params.clone());
    let mut client = Connection::Client(client.map_err(|error| (Side::Client, error))?);
    let mut server = Connection::Server(ServerConnection::new(server, Version::V1, params).unwrap());
    for _ in 0..8 {
        carry(&mut client, &mut server).map_err(|error| (Side::Server, error))?;
        carry(&mut server, &mut client).map_err(|error| (Side::Client, error))?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

/// Delivers what `from` has to say, a level at a time.
fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), Error> {
    loop {
        let mut bytes = Vec::new();
        let change = from.write_hs(&mut bytes);
        if bytes.is_empty() && change.is_none() {
            return Ok(());
        }
        to.read_hs(&bytes)?;
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Side {
    Client,
    Server,
}

/// Why a handshake between `client`, who expects `expected`, and `server` fails, and at whom.
fn refusal(client: &TlsSettings, server: &TlsSettings, expected: Option<&str>) -> (Side, VerifyFailure) {
    let expected = expected.map(|id| id.parse::<NodeId>().unwrap());
    let client = client.client_config(expected.as_ref(), ALPN_SESSION).unwrap();
    let (side, error) = shake(client, server.server_config(ALPN_SESSION).unwrap()).map(|_| ()).unwrap_err();
    (side, VerifyFailure::of(&error).unwrap_or_else(|| panic!("no reason in {error:?}")))
}

#[test]
fn two_nodes_of_a_domain_know_each_other() {
    let ca = TestCa::new();
    let (a, b) = (settings(ca.node(A), ca.anchors()), settings(ca.node(B), ca.anchors()));
    let expected = B.parse().unwrap();
    let client = a.client_config(Some(&expected), ALPN_SESSION).unwrap();
    let (client, server) = shake(client, b.server_config(ALPN_SESSION).unwrap()).unwrap();
    let at_client = PeerIdentity::from_chain(client.peer_certificates().unwrap()).unwrap();
    let at_server = PeerIdentity::from_chain(server.peer_certificates().unwrap()).unwrap();
    assert_eq!((at_client.node_id, at_client.spki_sha256), (expected, b.identity().spki_sha256()));
    assert_eq!((at_server.node_id.to_string().as_str(), at_server.not_after_unix), (A, NOW + 3600));
    assert_eq!(server.alpn_protocol(), Some(ALPN_SESSION));
    assert_eq!(a.check_own_chain(), Ok(()));
}

#[test]
fn nobody_in_particular_may_be_expected() {
    let ca = TestCa::new();
    let (a, b) = (settings(ca.node(A), ca.anchors()), settings(ca.node(B), ca.anchors()));
    assert!(shake(a.client_config(None, ALPN_SESSION).unwrap(), b.server_config(ALPN_SESSION).unwrap()).is_ok());
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let (a, b) = (settings(ca.node(A), ca.anchors()), settings(other.node(B), ca.anchors()));
    let (side, failure) = refusal(&a, &b, Some(B));
    assert_eq!(side, Side::Client);
    assert!(matches!(failure, VerifyFailure::UnknownIssuer { .. }), "{failure}");
    assert!(matches!(b.check_own_chain(), Err(VerifyFailure::UnknownIssuer { .. })));
}

#[test]
fn a_client_of_another_authority_is_refused() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let (a, b) = (settings(other.node(A), ca.anchors()), settings(ca.node(B), ca.anchors()));
    let (side, failure) = refusal(&a, &b, Some(B));
    assert_eq!(side, Side::Server);
    assert!(matches!(failure, VerifyFailure::UnknownIssuer { .. }), "{failure}");
}

#[test]
fn another_node_than_the_dialled_one_is_refused() {
    let ca = TestCa::new();
    let (a, b) = (settings(ca.node(A), ca.anchors()), settings(ca.node(B), ca.anchors()));
    let (side, failure) = refusal(&a, &b, Some("spiffe://example/node/c"));
    assert_eq!(side, Side::Client);
    let expected = "spiffe://example/node/c".parse().unwrap();
    assert_eq!(failure, VerifyFailure::OtherNode { expected, found: B.parse().unwrap() });
    assert_eq!(failure.to_string(), "the peer is spiffe://example/node/b; expected spiffe://example/node/c");
}

#[test]
fn a_foreign_trust_domain_is_refused_even_from_the_same_authority() {
    let ca = TestCa::new();
    let (a, b) = (settings(ca.node("spiffe://other/node/a"), ca.anchors()), settings(ca.node(B), ca.anchors()));
    a.trust().set("example", ca.anchors()).unwrap();
    let (side, failure) = refusal(&a, &b, Some(B));
    assert_eq!(side, Side::Server);
    assert!(matches!(failure, VerifyFailure::ForeignTrustDomain { .. }), "{failure}");
}

#[test]
fn an_added_trust_domain_is_accepted_from_its_own_authority_only() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let b = settings(ca.node(B), ca.anchors());
    b.trust().set("other", other.anchors()).unwrap();
    let a = settings(other.node("spiffe://other/node/a"), other.anchors());
    a.trust().set("example", ca.anchors()).unwrap();
    let client = a.client_config(Some(&B.parse().unwrap()), ALPN_SESSION).unwrap();
    assert!(shake(client, b.server_config(ALPN_SESSION).unwrap()).is_ok());

    let liar = settings(other.node(A), ca.anchors());
    let (side, failure) = refusal(&liar, &b, Some(B));
    assert_eq!(side, Side::Server);
    assert!(matches!(failure, VerifyFailure::UnknownIssuer { .. }), "{failure}");
}

#[test]
fn an_expired_certificate_is_refused_in_both_roles() {
    let ca = TestCa::new();
    let good = settings(ca.node(A), ca.anchors());
    let expired = settings(ca.rogue(&[B], |params| params.not_after = at(-1)), ca.anchors());
    for (client, server, finder) in [(&good, &expired, Side::Client), (&expired, &good, Side::Server)] {
        let (side, failure) = refusal(client, server, None);
        assert_eq!(side, finder);
        assert_eq!(
            failure,
            VerifyFailure::Expired { peer: B.parse().unwrap(), not_after: NOW - 1, now: NOW },
            "{failure}"
        );
    }
}

#[test]
fn a_certificate_of_tomorrow_is_refused_in_both_roles() {
    let ca = TestCa::new();
    let good = settings(ca.node(A), ca.anchors());
    let early = settings(ca.rogue(&[B], |params| params.not_before = at(60)), ca.anchors());
    for (client, server, finder) in [(&good, &early, Side::Client), (&early, &good, Side::Server)] {
        let (side, failure) = refusal(client, server, None);
        assert_eq!(side, finder);
        assert_eq!(
            failure,
            VerifyFailure::NotYetValid { peer: B.parse().unwrap(), not_before: NOW + 60, now: NOW },
            "{failure}"
        );
    }
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let ca = TestCa::new();
    let (a, b) = (settings(ca.node(A), ca.anchors()), settings(ca.node(B), ca.anchors()));
    let mut client = ClientConfig::clone(&a.client_config(None, ALPN_SESSION).unwrap());
    client.client_auth_cert_resolver = Arc::new(NoCertificate);
    let server = b.server_config(ALPN_SESSION).unwrap();
    let (side, error) = shake(Arc::new(client), server).map(|_| ()).unwrap_err();
    assert_eq!((side, VerifyFailure::of(&error)), (Side::Server, Some(VerifyFailure::NoCertificate)));
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn a_certificate_serves_only_in_the_role_that_it_was_issued_for() {
    let ca = TestCa::new();
    let good = settings(ca.node(A), ca.anchors());
    let only = |usage| settings(ca.rogue(&[B], |params| params.extended_key_usages = vec![usage]), ca.anchors());
    let for_client = only(ExtendedKeyUsagePurpose::ClientAuth);
    let for_server = only(ExtendedKeyUsagePurpose::ServerAuth);
    for (client, server, finder) in [(&good, &for_client, Side::Client), (&for_server, &good, Side::Server)] {
        let (side, failure) = refusal(client, server, None);
        assert_eq!(side, finder);
        assert!(matches!(failure, VerifyFailure::WrongUsage { .. }), "{failure}");
    }
    let client = for_client.client_config(None, ALPN_SESSION).unwrap();
    assert!(shake(client, for_server.server_config(ALPN_SESSION).unwrap()).is_ok());
}

#[test]
fn a_certificate_that_may_not_sign_handshakes_is_refused() {
    let ca = TestCa::new();
    let good = settings(ca.node(A), ca.anchors());
    let usages: [Vec<KeyUsagePurpose>; 3] = [
        vec![],
        vec![KeyUsagePurpose::KeyEncipherment],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
    ];
    for usages in usages {
        let bad = settings(ca.rogue(&[B], |params| params.key_usages = usages), ca.anchors());
        let (_, failure) = refusal(&bad, &good, None);
        assert!(matches!(failure, VerifyFailure::WrongUsage { .. }), "{failure}");
    }
}

#[test]
fn an_authority_is_no_node() {
    let ca = TestCa::new();
    let good = settings(ca.node(A), ca.anchors());
    let bad = |params: &mut rcgen::CertificateParams| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    };
    let authority = settings(ca.rogue(&[B], bad), ca.anchors());
    for (client, server) in [(&good, &authority), (&authority, &good)] {
        let (_, failure) = refusal(client, server, None);
        assert!(matches!(failure, VerifyFailure::WrongUsage { .. }), "{failure}");
    }
}

#[test]
fn a_certificate_without_one_node_name_is_refused() {
    let ca = TestCa::new();
    let good = settings(ca.node(A), ca.anchors());
    for uris in [&[][..], &["https://example/node/b"], &["spiffe://example/service/b"], &[A, B]] {
        let bad = settings(ca.rogue(uris, |_| {}), ca.anchors());
        bad.trust().set("example", ca.anchors()).unwrap();
        let (side, failure) = refusal(&bad, &good, None);
        assert_eq!(side, Side::Server);
        assert!(matches!(failure, VerifyFailure::NoSpiffeName(_)), "{failure}");
        let (certificate, key) = ca.issue(uris, |_| {});
        assert!(Identity::from_pem(certificate.as_bytes(), key.as_bytes(), &default_provider()).is_err());
    }
}

#[test]
fn protocols_do_not_mix() {
    let ca = TestCa::new();
    let (a, b) = (settings(ca.node(A), ca.anchors()), settings(ca.node(B), ca.anchors()));
    let client = a.client_config(None, ALPN_TLS).unwrap();
    let (_, error) = shake(client, b.server_config(ALPN_SESSION).unwrap()).map(|_| ()).unwrap_err();
    assert_eq!(error, Error::NoApplicationProtocol);
}

#[test]
fn nothing_is_resumed() {
    let ca = TestCa::new();
    let (a, b) = (settings(ca.node(A), ca.anchors()), settings(ca.node(B), ca.anchors()));
    let client = a.client_config(None, ALPN_SESSION).unwrap();
    let server = b.server_config(ALPN_SESSION).unwrap();
    for _ in 0..2 {
        let (client, _) = shake(Arc::clone(&client), Arc::clone(&server)).unwrap();
        assert_ne!(client.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    }
}

#[test]
fn a_renewed_identity_reaches_existing_configurations() {
    let ca = TestCa::new();
    let (a, b) = (settings(ca.node(A), ca.anchors()), settings(ca.node(B), ca.anchors()));
    let client = a.client_config(None, ALPN_SESSION).unwrap();
    let server = b.server_config(ALPN_SESSION).unwrap();
    let renewed = ca.node(B);
    b.clone().replace_identity(renewed.clone()).unwrap();
    let (client, _) = shake(client, server).unwrap();
    let seen = PeerIdentity::from_chain(client.peer_certificates().unwrap()).unwrap();
    assert_eq!(seen.spki_sha256, renewed.spki_sha256());
    let other = b.replace_identity(ca.node(A)).unwrap_err();
    assert!(matches!(other, IdentityError::OtherNode { .. }), "{other}");
}

#[test]
fn replaced_anchors_reach_existing_configurations() {
    let (ca, next) = (TestCa::new(), TestCa::new());
    let (a, b) = (settings(ca.node(A), ca.anchors()), settings(next.node(B), ca.anchors()));
    let client = a.client_config(None, ALPN_SESSION).unwrap();
    let server = b.server_config(ALPN_SESSION).unwrap();
    assert!(shake(Arc::clone(&client), Arc::clone(&server)).is_err());
    let both = format!("{}{}", ca.pem(), next.pem());
    a.trust().set("example", TrustAnchors::from_pem(both.as_bytes()).unwrap()).unwrap();
    assert!(shake(client, server).is_ok());
}

#[test]
fn an_identity_needs_its_own_key_and_both_roles() {
    let ca = TestCa::new();
    let provider = default_provider();
    let (certificate, key) = ca.issue(&[A], |_| {});
    let (_, other_key) = ca.issue(&[A], |_| {});
    let read = |certificate: &str, key: &str| Identity::from_pem(certificate.as_bytes(), key.as_bytes(), &provider);
    assert!(read(&certificate, &key).is_ok());
    assert_eq!(read(&certificate, &other_key).unwrap_err(), IdentityError::KeyMismatch);
    assert_eq!(read("", &key).unwrap_err(), IdentityError::NoCertificate);
    assert!(matches!(read(&certificate, "").unwrap_err(), IdentityError::BadPem { .. }));
    let (half, key) = ca.issue(&[A], |params| params.extended_key_usages.truncate(1));
    assert!(matches!(read(&half, &key).unwrap_err(), IdentityError::WrongUsage { .. }));
    let (free, key) = ca.issue(&[A], |params| params.extended_key_usages.clear());
    assert!(read(&free, &key).is_ok());
}

#[test]
fn an_anchor_has_to_be_an_authority() {
    let ca = TestCa::new();
    let (leaf, _) = ca.issue(&[A], |_| {});
    let error = TrustAnchors::from_pem(leaf.as_bytes()).unwrap_err();
    assert!(matches!(error, IdentityError::AnchorIsNoAuthority { .. }), "{error}");
    assert_eq!(TrustAnchors::from_pem(b"").unwrap_err(), IdentityError::NoCertificate);
}
