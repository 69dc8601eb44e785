//! Certificates for all simulated nodes, made once: an authority, a client and a server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use longhaul::crypto::identity::{ALPN_SESSION, Identity, TlsSettings, TrustAnchors, default_provider};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};

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

/// A clock that the test moves.
#[derive(Debug)]
pub struct MovingClock(AtomicU64);

impl MovingClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(NOW_UNIX)))
    }

    pub fn advance(&self, time: Duration) {
        self.0.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    pub fn seconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TimeProvider for MovingClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.seconds())))
    }
}

/// An authority and what it has issued.
pub struct Authority(CertificateAuthority);

impl Authority {
    pub fn new() -> Self {
        Self(CertificateAuthority::generate("simulation.test", KeyType::default(), validity()).unwrap())
    }

    /// The settings of a node that this authority names and that trusts this authority.
    pub fn settings(&self, name: &str) -> TlsSettings {
        self.settings_that_trust(name, self)
    }

    /// The settings of a node that this authority names and that trusts another one.
    pub fn settings_that_trust(&self, name: &str, trusted: &Self) -> TlsSettings {
        self.settings_at(name, trusted.anchors(), Arc::new(StandingClock))
    }

    /// The same by another clock.
    pub fn settings_at(&self, name: &str, anchors: TrustAnchors, clock: Arc<dyn TimeProvider>) -> TlsSettings {
        TlsSettings::new(self.identity(name), anchors, default_provider(), clock).unwrap()
    }

    /// A certificate, and its key, made for this call.
    pub fn identity(&self, name: &str) -> Identity {
        let node = self.0.issue_node(name, KeyType::default(), validity()).unwrap();
        let (certificate, key) = (node.certificate_pem.as_bytes(), node.key_pem.as_bytes());
        Identity::from_pem(certificate, key, &default_provider()).unwrap()
    }

    pub fn anchors(&self) -> TrustAnchors {
        TrustAnchors::from_pem(self.0.certificate_pem().as_bytes()).unwrap()
    }

    /// The anchors of somebody who trusts this authority and another one.
    pub fn anchors_and(&self, other: &Self) -> TrustAnchors {
        let both = self.anchors().certificates().iter().chain(other.anchors().certificates()).cloned().collect();
        TrustAnchors::from_certificates(both).unwrap()
    }
}

fn validity() -> Validity {
    Validity::between(NOW_UNIX as i64 - 3600, NOW_UNIX as i64 + 60 * 86_400)
}

/// TLS configurations of the two simulated nodes.
pub struct Identities {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
    pub client_certificate: CertificateDer<'static>,
}

pub static IDENTITIES: LazyLock<Identities> = LazyLock::new(|| {
    let authority = Authority::new();
    let client = authority.settings("client");
    Identities {
        client_certificate: client.identity().chain()[0].clone(),
        client: client.client_config(None, ALPN_SESSION).unwrap(),
        server: authority.settings("server").server_config(ALPN_SESSION).unwrap(),
    }
});
