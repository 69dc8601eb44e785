//! Lets guests in: peers without a certificate that prove a token in their session. One use of the token is one session.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;

use super::registrar::{Failure, unavailable};
use super::store::GuestAsk;
use super::{AuditEvent, Registrar};
use crate::crypto::identity::{NodeId, PeerIdentity};
use crate::crypto::token::GuestProof;
use crate::node::{GuestAdmission, GuestRefusal, GuestVisit};

impl Registrar {
    fn let_in(&self, visit: &GuestVisit<'_>, now: Instant, now_unix: u64) -> Result<PeerIdentity, Failure> {
        let (id, address) = (visit.token_id, address(visit));
        let asked = GuestProof { exporter: visit.exporter, token_id: id, name: visit.name };
        self.check(id, |public_key| asked.verify(public_key, visit.proof), address, now, now_unix)?;
        let ask = GuestAsk { token_id: id, name: visit.name, address, now_unix };
        let taken = self.store.take_guest_use(&ask).map_err(|error| unavailable(&error))?;
        let (name, token) = taken.map_err(Failure::Refused)?;
        let node_id = NodeId::guest(self.authority.trust_domain(), &name).map_err(|error| unavailable(&error))?;
        // Before the guest is told: what the audit log cannot say does not happen.
        let event = AuditEvent::GuestAdmitted { token_id: id, name: &name, address };
        self.audit.append(now_unix, &event).map_err(|error| unavailable(&format!("audit log: {error}")))?;
        Ok(PeerIdentity {
            spki_sha256: spki_sha256(&token.public_key),
            token_id: Some(id),
            not_after_unix: token.not_after_unix,
            ..PeerIdentity::unverified(node_id)
        })
    }
}

impl GuestAdmission for Registrar {
    fn authority(&self) -> CertificateDer<'static> {
        self.authority.certificate_der().clone()
    }

    fn admit(&self, visit: &GuestVisit<'_>) -> Result<PeerIdentity, GuestRefusal> {
        let (now, now_unix) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let now_unix = now_unix.as_secs();
        self.let_in(visit, now, now_unix).map_err(|failure| match failure {
            Failure::Refused(reason) => {
                let (token_id, address) = (visit.token_id, address(visit));
                let event = |suppressed_count| AuditEvent::GuestRefused { token_id, address, reason, suppressed_count };
                self.audit_sometimes(event, now, now_unix);
                GuestRefusal::Refused
            }
            Failure::Unavailable(reason) => {
                tracing::error!(%reason, "tokens of guests cannot be judged");
                GuestRefusal::Unavailable
            }
        })
    }
}

/// A Unix socket has none: what no range but those of all addresses has stands for it.
fn address(visit: &GuestVisit<'_>) -> IpAddr {
    visit.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Of the token's key, as a certificate would have it (RFC 8410 §4).
fn spki_sha256(public_key: &[u8; 32]) -> [u8; 32] {
    const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let digest = ring::digest::digest(&ring::digest::SHA256, &[&HEAD[..], public_key].concat());
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}
