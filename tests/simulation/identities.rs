//! Certificates for all simulated nodes, made once: an authority, a client and a server.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use longhaul::crypto::identity::{ALPN_SESSION, Identity, TlsSettings, TrustAnchors, default_provider};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};
use time::OffsetDateTime;

/// The time at which certificates are checked, in seconds since 1970.
const NOW_UNIX: u64 = 1_800_000_000;

/// The certificate verifiers' clock: it stands still.
#[derive(Debug)]
struct StandingClock;

impl TimeProvider for StandingClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW_UNIX)))
    }
}

/// An authority and what it has issued.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The settings of a node that this authority names and that trusts this authority.
    pub fn settings(&self, name: &str) -> TlsSettings {
        self.settings_that_trust(name, self)
    }

    /// The settings of a node that this authority names and that trusts another one.
    pub fn settings_that_trust(&self, name: &str, trusted: &Self) -> TlsSettings {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://simulation.test/node/{name}");
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = OffsetDateTime::from_unix_timestamp(NOW_UNIX as i64 - 3600).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(NOW_UNIX as i64 + 3600).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let provider = default_provider();
        let identity = Identity::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes(), &provider).unwrap();
        let anchors = TrustAnchors::from_pem(trusted.pem.as_bytes()).unwrap();
        TlsSettings::new(identity, anchors, provider, Arc::new(StandingClock)).unwrap()
    }
}

/// TLS configurations of the two simulated nodes.
pub struct Identities {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
}

pub static IDENTITIES: LazyLock<Identities> = LazyLock::new(|| {
    let authority = Authority::new();
    Identities {
        client: authority.settings("client").client_config(None, ALPN_SESSION).unwrap(),
        server: authority.settings("server").server_config(ALPN_SESSION).unwrap(),
    }
});
