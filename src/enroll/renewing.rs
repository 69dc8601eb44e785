//! Decides who gets a further certificate: who has one that this authority gave to the same node, and is not denied.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::registrar::{Failure, Registrar, sha256, unavailable};
use super::store::{RenewAsk, StoreError};
use super::{AuditEvent, Denied, Refusal};
use crate::base::limits;
use crate::crypto::identity::PeerIdentity;
use crate::crypto::token::TokenId;
use crate::issue::{CertificateRequest, SerialNumbers};
use crate::wire::{DenylistBody, RenewAnswer, RenewRequest, SignedDenylist};

/// A request with everything that is known about its sender.
#[derive(Clone, Debug)]
pub struct RenewVisit<'a> {
    /// What is asked for.
    pub request: &'a RenewRequest,
    /// Who asks, by the certificate that the connection was made with.
    pub peer: &'a PeerIdentity,
    /// Where it comes from; `None` for the hub itself.
    pub address: Option<IpAddr>,
    /// How long the certificate holds; `None` for what the operator chose for nodes.
    pub lifetime: Option<Duration>,
    /// Now.
    pub now: Instant,
    /// The same in seconds since 1970.
    pub now_unix: u64,
}

impl Registrar {
    /// Answers a request. Blocks for as long as the store does.
    pub fn renew(&self, visit: &RenewVisit<'_>) -> RenewAnswer {
        let anchors = self.anchors();
        // In an order of its own: which of them issues is another matter.
        let mut told = anchors.clone();
        told.sort_unstable();
        let issued = self.issue_again(visit, sha256(&told.concat())).and_then(|certificate| {
            let denylist = self.denylist_after(visit.request.denylist_version).map_err(|error| unavailable(&error))?;
            let denylist = denylist.map(|list| list.encode()).unwrap_or_default();
            Ok(RenewAnswer::Issued { certificate, anchors, denylist })
        });
        match issued {
            Ok(answer) => answer,
            Err(Failure::Refused(reason)) => {
                let name = visit.peer.node_id.name();
                tracing::warn!(node = name, address = ?visit.address, %reason, "renewal refused");
                let address = visit.address;
                let event = |suppressed_count| AuditEvent::RenewalRefused { name, address, reason, suppressed_count };
                self.audit_sometimes(event, visit.now, visit.now_unix);
                RenewAnswer::Refused
            }
            Err(Failure::Unavailable(reason)) => {
                tracing::error!(%reason, node = %visit.peer.node_id, "renewal is not possible");
                RenewAnswer::Unavailable
            }
        }
    }

    /// The denylist as it is in the store now, signed.
    ///
    /// # Errors
    /// Why there is none.
    pub fn denylist(&self) -> Result<SignedDenylist, StoreError> {
        let record = self.store().denylist()?;
        let (mut names, mut keys) = (Vec::new(), record.keys);
        for denial in record.denials {
            match denial.denied {
                Denied::Node(name) => names.push(name),
                Denied::Key(hash) => keys.push(hash),
                // The store gives the keys of what came by it.
                Denied::Token(_) => {}
            }
        }
        names.sort_unstable();
        names.dedup();
        keys.sort_unstable();
        keys.dedup();
        let room = limits::DENYLIST_ENTRIES_MAX.saturating_sub(names.len());
        if names.len() > limits::DENYLIST_ENTRIES_MAX || keys.len() > room {
            tracing::error!(
                names = names.len(),
                keys = keys.len(),
                max = limits::DENYLIST_ENTRIES_MAX,
                "the denylist is too long, and not all of it is told to the nodes; make a new authority"
            );
            names.truncate(limits::DENYLIST_ENTRIES_MAX);
            keys.truncate(room);
        }
        let trust_domain = self.authority().trust_domain().to_owned();
        let body = DenylistBody { trust_domain, version: record.version, names, keys };
        self.authority().sign_denylist(&body).map_err(|error| StoreError::Signature { reason: error.to_string() })
    }

    /// The same, if it is newer than `version`.
    ///
    /// # Errors
    /// As [`Registrar::denylist`].
    pub fn denylist_after(&self, version: u64) -> Result<Option<SignedDenylist>, StoreError> {
        let is_newer = self.store().denylist_version()? > version;
        is_newer.then(|| self.denylist()).transpose()
    }

    /// The tokens of guests that were revoked or denied: what came by them is to end.
    ///
    /// # Errors
    /// Why they are not known.
    pub fn revoked_guest_tokens(&self, now_unix: u64) -> Result<HashSet<TokenId>, StoreError> {
        Ok(self.store().revoked_guest_tokens(now_unix)?.into_iter().collect())
    }

    fn issue_again(&self, visit: &RenewVisit<'_>, anchors_sha256: [u8; 32]) -> Result<Vec<u8>, Failure> {
        let request = CertificateRequest::from_der(&visit.request.certificate_request)
            .map_err(|_| Failure::Refused(Refusal::BadCertificateRequest))?;
        if *request.spki_sha256() == visit.peer.spki_sha256 {
            // A new key each time: who has stolen one loses by it.
            return Err(Failure::Refused(Refusal::BadCertificateRequest));
        }
        if visit.peer.node_id.trust_domain() != self.authority().trust_domain() {
            return Err(Failure::Refused(Refusal::UnknownCertificate));
        }
        let lifetime = visit.lifetime.unwrap_or(self.certificate_lifetime());
        let validity = self.validity(visit.now_unix, lifetime)?;
        let ask = RenewAsk {
            name: visit.peer.node_id.name(),
            held_spki_sha256: visit.peer.spki_sha256,
            request_sha256: *request.sha256(),
            spki_sha256: *request.spki_sha256(),
            address: visit.address,
            now_unix: visit.now_unix,
            lifetime_secs: lifetime.as_secs(),
            anchors_sha256,
            serial: SerialNumbers::draw(),
            not_before_unix: validity.not_before_unix(),
            not_after_unix: validity.not_after_unix(),
        };
        let reserved = self.store().renew(&ask).map_err(|error| unavailable(&error))?;
        let issuance = reserved.map_err(Failure::Refused)?;
        let certificate = match &issuance.certificate {
            Some(certificate) => certificate.clone(),
            None => self.sign(issuance.token_id.unwrap_or(NO_TOKEN), &request, &issuance)?,
        };
        // Before the certificate leaves: what the audit log cannot say does not happen.
        let event = AuditEvent::CertificateRenewed {
            token_id: issuance.token_id,
            name: &issuance.name,
            address: visit.address,
            serial: issuance.serial,
            not_after_unix: issuance.not_after_unix,
        };
        self.audit().append(visit.now_unix, &event).map_err(|error| unavailable(&format!("audit log: {error}")))?;
        tracing::info!(node = issuance.name, address = ?visit.address, "node renewed its certificate");
        Ok(certificate)
    }
}

/// Under which the store keeps what came by no token.
const NO_TOKEN: TokenId = TokenId::from_bytes([0; TokenId::BYTES]);
