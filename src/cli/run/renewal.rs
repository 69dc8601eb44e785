//! Renews the certificate of a running node when two thirds of its time are over, and tries again until it is done.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::{Entropy, SystemEntropy, limits};
use crate::cli::renewal::{self, Failure};
use crate::config::{IdentityFiles, RenewConfig, text};
use crate::crypto::identity::{Identity, TlsSettings};
use crate::service::Denylists;

/// Runs as long as the node.
pub(super) async fn keep(config: RenewConfig, files: IdentityFiles, tls: TlsSettings, denylists: Denylists) {
    let mut failures = Failures::default();
    let mut due = Due::draw(&tls.identity());
    loop {
        due.arrives(&tls).await;
        match renewal::renew(&config, &files, &tls).await {
            Ok((identity, denylist)) => {
                if let Some(Err(error)) = denylist.map(|denylist| denylists.take(denylist)) {
                    tracing::warn!(%error, "the hub sent a denylist that does not count");
                }
                tracing::info!(until = text::date(identity.not_after_unix()), "certificate renewed");
                failures = Failures::default();
                due = Due::draw(&identity);
            }
            Err(failure) => tokio::time::sleep(failures.on_failure(&failure, &tls.identity())).await,
        }
    }
}

/// When a certificate is to be renewed.
pub(super) struct Due {
    spki_sha256: [u8; 32],
    at_unix: u64,
}

impl Due {
    /// At two thirds of its time and up to a fifteenth later, so that not all nodes come at once that joined at once.
    pub(super) fn draw(identity: &Identity) -> Self {
        let part = SystemEntropy::new().next_u64() % 1000;
        Self { spki_sha256: identity.spki_sha256(), at_unix: due_unix(identity, part) }
    }

    /// Waits for it. Somebody else may have exchanged the certificate meanwhile, and the clock may be set.
    pub(super) async fn arrives(&mut self, tls: &TlsSettings) {
        loop {
            let identity = tls.identity();
            if identity.spki_sha256() != self.spki_sha256 {
                *self = Self::draw(&identity);
            }
            let left = Duration::from_secs(self.at_unix.saturating_sub(now_unix()));
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
        }
    }
}

/// `part` of a thousand parts is where it is in its range.
fn due_unix(identity: &Identity, part: u64) -> u64 {
    let life = identity.not_after_unix().saturating_sub(identity.not_before_unix());
    identity.not_before_unix() + life * 2 / 3 + life * part / 15_000
}

/// Attempts that failed one after the other.
#[derive(Default)]
pub(super) struct Failures {
    count: u32,
    is_urgent_told: bool,
    last: String,
}

impl Failures {
    /// Tells of it once, and once more when the certificate is about to end: how long to wait.
    pub(super) fn on_failure(&mut self, failure: &Failure, identity: &Identity) -> Duration {
        let left = identity.not_after_unix().saturating_sub(now_unix());
        let life = identity.not_after_unix().saturating_sub(identity.not_before_unix());
        let reason = failure.to_string();
        let until = text::date(identity.not_after_unix());
        if left * 10 < life && !self.is_urgent_told {
            self.is_urgent_told = true;
            tracing::error!(%reason, until, "certificate is not renewed yet, and will end soon");
        } else if reason != self.last {
            tracing::warn!(%reason, until, "certificate cannot be renewed now; trying on");
        } else {
            tracing::debug!(%reason, attempts = self.count, "certificate cannot be renewed now");
        }
        self.last = reason;
        let pause = PAUSE_MIN.saturating_mul(1 << self.count.min(16)).min(limits::RENEW_PAUSE_MAX);
        self.count = self.count.saturating_add(1);
        // Between three quarters and five: a hub that comes back is not asked by all at once.
        pause * 3 / 4 + pause * u32::try_from(SystemEntropy::new().next_u64() % 512).unwrap_or(0) / 1024
    }
}

fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A clock that is set, or a certificate that somebody else exchanged, is noticed within this time.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// After the first attempt that failed.
const PAUSE_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::identity::default_provider;
    use crate::issue::{CertificateAuthority, KeyType, Validity};

    #[test]
    fn a_certificate_is_due_between_two_thirds_and_eleven_fifteenths() {
        let validity = Validity::between(1_000_000, 2_000_000);
        let authority = CertificateAuthority::generate("example", KeyType::P256, validity).unwrap();
        let node = authority.issue_node("n", KeyType::P256, Validity::between(1_000_000, 1_015_000)).unwrap();
        let (certificate, key) = (node.certificate_pem.as_bytes(), node.key_pem.as_bytes());
        let identity = Identity::from_pem(certificate, key, &default_provider()).unwrap();
        assert_eq!([0, 500, 999].map(|part| due_unix(&identity, part)), [1_010_000, 1_010_500, 1_010_999]);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let validity = Validity::from_now(Duration::from_secs(86_400));
        let authority = CertificateAuthority::generate("example", KeyType::P256, validity).unwrap();
        let node = authority.issue_node("n", KeyType::P256, validity).unwrap();
        let (certificate, key) = (node.certificate_pem.as_bytes(), node.key_pem.as_bytes());
        let identity = Identity::from_pem(certificate, key, &default_provider()).unwrap();
        let mut failures = Failures::default();
        let failure = Failure::Files(anyhow::anyhow!("full"));
        let pauses: Vec<_> = (0..40).map(|_| failures.on_failure(&failure, &identity)).collect();
        assert!(pauses[0] <= Duration::from_millis(1250) && pauses[0] >= Duration::from_millis(750), "{pauses:?}");
        assert!(pauses[39] >= limits::RENEW_PAUSE_MAX * 3 / 4 && pauses[39] <= limits::RENEW_PAUSE_MAX * 5 / 4);
    }
}
