//! Decides who gets a certificate, and gives it: reserve, issue, commit, answer, in this order.
//!
//! A crash between any two of these steps leaves a state from which the same request leads to the same certificate: the
//! reservation holds its serial number and times, and only a committed certificate leaves the process.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::audit::ADMISSION_EVENTS;
use super::store::{Ask, Store, StoreError};
use super::throttle::Throttle;
use super::{AuditEvent, AuditLog, Issuance, Overview, Refusal};
use crate::base::{Secret, TokenBucket};
use crate::channel::Address;
use crate::crypto::identity::{Roles, Trust};
use crate::crypto::token::{EnrollProof, TokenId};
use crate::issue::{CertificateAuthority, CertificateRequest, SerialNumbers, Validity};
use crate::wire::{EnrollAnswer, EnrollRequest};

/// The authority at work.
#[derive(Debug)]
pub struct Registrar {
    pub(super) store: Box<dyn Store>,
    pub(super) authority: Arc<CertificateAuthority>,
    pub(super) audit: AuditLog,
    settings: RegistrarSettings,
    throttle: Mutex<Throttle>,
    refusals: Mutex<(TokenBucket, u64)>,
    trust: Option<Arc<Trust>>,
}

/// What an operator can choose.
#[derive(Clone, Debug)]
pub struct RegistrarSettings {
    /// How long certificates hold.
    pub certificate_lifetime: Duration,
    /// Where joined nodes should dial.
    pub addresses: Vec<Address>,
}

/// A request with everything that is known about its sender.
#[derive(Clone, Debug)]
pub struct Visit<'a> {
    /// What is asked for.
    pub request: &'a EnrollRequest,
    /// The connection's exporter for this token.
    pub exporter: &'a Secret<32>,
    /// Where it comes from.
    pub address: IpAddr,
    /// Now.
    pub now: Instant,
    /// The same in seconds since 1970.
    pub now_unix: u64,
}

impl Registrar {
    /// Issues with `authority` what `store` allows.
    #[must_use]
    pub fn new(
        store: Box<dyn Store>,
        authority: Arc<CertificateAuthority>,
        audit: AuditLog,
        settings: RegistrarSettings,
    ) -> Self {
        let refusals = Mutex::new((TokenBucket::new(REFUSALS_PER_SECOND, REFUSALS_BURST), 0));
        Self { store, authority, audit, settings, throttle: Mutex::default(), refusals, trust: None }
    }

    /// Tells nodes that renew all anchors of the domain in `trust`, and not the authority alone.
    #[must_use]
    pub fn with_trust(mut self, trust: Arc<Trust>) -> Self {
        self.trust = Some(trust);
        self
    }

    /// What there is to be shown of the state. Blocks for as long as the store does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn overview(&self) -> Result<Overview, StoreError> {
        Overview::read(self.store())
    }

    /// How often machines and guests were let in, or not, since the start, by the name of the event in the audit log; those
    /// that did not happen are there, too.
    #[must_use]
    pub fn event_counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.audit.counts();
        ADMISSION_EVENTS.into_iter().map(|event| (event, counts.get(event).copied().unwrap_or_default())).collect()
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(super) fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    pub(super) fn audit(&self) -> &AuditLog {
        &self.audit
    }

    pub(super) fn certificate_lifetime(&self) -> Duration {
        self.settings.certificate_lifetime
    }

    /// All trust anchors of the domain, DER.
    pub(super) fn anchors(&self) -> Vec<Vec<u8>> {
        let anchors = self.trust.as_ref().and_then(|trust| trust.anchors(self.authority.trust_domain()));
        match anchors {
            Some(anchors) => anchors.certificates().iter().map(|certificate| certificate.to_vec()).collect(),
            None => vec![self.authority.certificate_der().to_vec()],
        }
    }

    /// Answers a request. Blocks for as long as the store does.
    pub fn enroll(&self, visit: &Visit<'_>) -> EnrollAnswer {
        match self.issue(visit) {
            Ok(certificate) => EnrollAnswer::Issued {
                certificate,
                authority: self.authority.certificate_der().to_vec(),
                addresses: self.settings.addresses.iter().map(ToString::to_string).collect(),
            },
            Err(Failure::Refused(reason)) => {
                self.refuse(Some(TokenId::from_bytes(visit.request.token_id)), reason, visit);
                EnrollAnswer::Refused
            }
            Err(Failure::Unavailable(reason)) => {
                tracing::error!(%reason, address = %visit.address, "enrolment is not possible");
                EnrollAnswer::Unavailable
            }
        }
    }

    /// Answers what is no request.
    pub fn refuse_unread(&self, address: IpAddr, now: Instant, now_unix: u64) -> EnrollAnswer {
        self.audit_refusal(None, Refusal::BadRequest, address, now, now_unix);
        EnrollAnswer::Refused
    }

    fn issue(&self, visit: &Visit<'_>) -> Result<Vec<u8>, Failure> {
        let id = TokenId::from_bytes(visit.request.token_id);
        self.check_proof(id, visit)?;
        let request = CertificateRequest::from_der(&visit.request.certificate_request)
            .map_err(|_| Failure::Refused(Refusal::BadCertificateRequest))?;
        let issuance = self.reserve(id, &request, visit)?;
        let certificate = match &issuance.certificate {
            Some(certificate) => certificate.clone(),
            None => self.sign(id, &request, &issuance)?,
        };
        // Before the certificate leaves: what the audit log cannot say does not happen.
        let event = AuditEvent::CertificateIssued {
            token_id: id,
            name: &issuance.name,
            address: visit.address,
            serial: issuance.serial,
            not_after_unix: issuance.not_after_unix,
        };
        self.audit.append(visit.now_unix, &event).map_err(|error| unavailable(&format!("audit log: {error}")))?;
        tracing::info!(token = %id, node = issuance.name, address = %visit.address, "node joined");
        Ok(certificate)
    }

    fn check_proof(&self, id: TokenId, visit: &Visit<'_>) -> Result<(), Failure> {
        let request_sha256 = sha256(&visit.request.certificate_request);
        let asked = EnrollProof {
            exporter: visit.exporter,
            token_id: id,
            request_sha256: &request_sha256,
            name: &visit.request.name,
        };
        let is_right = |public_key: &[u8; 32]| asked.verify(public_key, &visit.request.proof);
        self.check(id, is_right, visit.address, visit.now, visit.now_unix)
    }

    /// Unknown tokens take as long as wrong proofs do.
    pub(super) fn check(
        &self,
        id: TokenId,
        is_right: impl Fn(&[u8; 32]) -> bool,
        address: IpAddr,
        now: Instant,
        now_unix: u64,
    ) -> Result<(), Failure> {
        let token = self.store.token(id).map_err(|error| unavailable(&error))?;
        let public_key = token.as_ref().map_or(NOBODYS_KEY, |token| token.public_key);
        let is_right = is_right(&public_key);
        if token.is_none() {
            return Err(Failure::Refused(Refusal::UnknownToken));
        }
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        if throttle.is_locked(id, now) {
            return Err(Failure::Refused(Refusal::Locked));
        }
        if is_right {
            throttle.on_right(id);
            return Ok(());
        }
        if throttle.on_wrong(id, now) {
            tracing::warn!(token = %id, %address, "token locked after wrong proofs");
            let event = AuditEvent::TokenLocked { token_id: id, address };
            self.audit.append(now_unix, &event).map_err(|error| unavailable(&error))?;
        }
        Err(Failure::Refused(Refusal::WrongProof))
    }

    fn reserve(&self, id: TokenId, request: &CertificateRequest, visit: &Visit<'_>) -> Result<Issuance, Failure> {
        let validity = self.validity(visit.now_unix, self.settings.certificate_lifetime)?;
        let ask = Ask {
            token_id: id,
            request_sha256: *request.sha256(),
            spki_sha256: *request.spki_sha256(),
            name: &visit.request.name,
            address: visit.address,
            now_unix: visit.now_unix,
            serial: SerialNumbers::draw(),
            not_before_unix: validity.not_before_unix(),
            not_after_unix: validity.not_after_unix(),
        };
        self.store.reserve(&ask).map_err(|error| unavailable(&error))?.map_err(Failure::Refused)
    }

    /// When a certificate holds that is made now.
    pub(super) fn validity(&self, now_unix: u64, lifetime: Duration) -> Result<Validity, Failure> {
        let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let validity = Validity::between(now.saturating_sub(BACKDATE_SECS), now.saturating_add(lifetime));
        self.authority.fit(validity).map_err(|error| unavailable(&error))
    }

    pub(super) fn sign(
        &self,
        id: TokenId,
        request: &CertificateRequest,
        issuance: &Issuance,
    ) -> Result<Vec<u8>, Failure> {
        let validity = Validity::between(issuance.not_before_unix, issuance.not_after_unix);
        let roles = Roles::new(issuance.roles.iter().cloned()).map_err(|error| unavailable(&error))?;
        let certificate = self.authority.issue_requested(&issuance.name, &roles, request, issuance.serial, validity);
        let certificate = certificate.map_err(|error| unavailable(&error))?;
        self.store.commit(id, issuance.request_sha256, &certificate).map_err(|error| unavailable(&error))
    }

    fn refuse(&self, token_id: Option<TokenId>, reason: Refusal, visit: &Visit<'_>) {
        self.audit_refusal(token_id, reason, visit.address, visit.now, visit.now_unix);
    }

    fn audit_refusal(&self, token_id: Option<TokenId>, reason: Refusal, address: IpAddr, now: Instant, now_unix: u64) {
        let event = |suppressed_count| AuditEvent::EnrolmentRefused { token_id, address, reason, suppressed_count };
        self.audit_sometimes(event, now, now_unix);
    }

    /// Strangers can cause these as often as they connect: so many a second, and the others are counted.
    pub(super) fn audit_sometimes<'a>(&self, event: impl Fn(u64) -> AuditEvent<'a>, now: Instant, now_unix: u64) {
        let suppressed_count = {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            if !refusals.0.take(now) {
                refusals.1 += 1;
                return;
            }
            std::mem::take(&mut refusals.1)
        };
        if let Err(error) = self.audit.append(now_unix, &event(suppressed_count)) {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }
}

/// Why there is no certificate, or a guest does not come in.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(Refusal),
    Unavailable(String),
}

pub(super) fn unavailable(error: &impl ToString) -> Failure {
    Failure::Unavailable(error.to_string())
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// Certificates begin a little earlier, because clocks differ.
const BACKDATE_SECS: i64 = 5 * 60;

/// The key that proofs of unknown tokens are checked with, for the time that it takes; whether they fit is not looked at.
/// It is the base point of the curve (RFC 8032 §5.1), as a key that is no point would be refused sooner.
const NOBODYS_KEY: [u8; 32] = {
    let mut key = [0x66; 32];
    key[0] = 0x58;
    key
};

/// Lines about refusals in the audit log.
const REFUSALS_PER_SECOND: u32 = 2;
const REFUSALS_BURST: u32 = 20;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::{SystemEntropy, limits};
    use crate::crypto::token::JoinToken;
    use crate::enroll::store::RedbStore;
    use crate::enroll::{TokenRecord, files};
    use crate::issue::{KeyType, NodeKey};

    const NOW: u64 = 1_800_000_000;
    const EXPORTER: [u8; 32] = [9; 32];

    struct Hub {
        directory: tempfile::TempDir,
        authority: Arc<CertificateAuthority>,
    }

    impl Hub {
        fn new() -> Self {
            let validity = Validity::between(NOW as i64 - 1000, NOW as i64 + 1_000_000);
            let authority = Arc::new(CertificateAuthority::generate("example", KeyType::P256, validity).unwrap());
            let directory = tempfile::tempdir().unwrap();
            RedbStore::create(&directory.path().join(files::STATE)).unwrap();
            Self { directory, authority }
        }

        fn path(&self) -> &Path {
            self.directory.path()
        }

        fn store(&self) -> RedbStore {
            RedbStore::open(&self.path().join(files::STATE)).unwrap()
        }

        /// A process of its own: nothing is shared but the directory.
        fn registrar(&self) -> Registrar {
            self.registrar_with_audit(&self.path().join(files::AUDIT))
        }

        fn registrar_with_audit(&self, audit: &Path) -> Registrar {
            let settings =
                RegistrarSettings { certificate_lifetime: Duration::from_secs(86_400), addresses: Vec::new() };
            Registrar::new(Box::new(self.store()), Arc::clone(&self.authority), AuditLog::new(audit), settings)
        }

        fn token(&self, name: &str, uses_max: u32) -> JoinToken {
            let token = JoinToken::generate(self.authority.spki_sha256(), &mut SystemEntropy::new());
            let record = TokenRecord {
                id: token.id(),
                public_key: token.public_key(),
                is_for_guests: false,
                name: name.parse().unwrap(),
                roles: Vec::new(),
                address_range: None,
                created_unix: NOW,
                not_after_unix: NOW + 3600,
                uses_max,
                use_count: 0,
                revoked_unix: None,
            };
            self.store().add_token(&record).unwrap();
            token
        }

        fn audit(&self) -> String {
            std::fs::read_to_string(self.path().join(files::AUDIT)).unwrap_or_default()
        }
    }

    fn request(token: &JoinToken, key: &NodeKey, exporter: [u8; 32]) -> EnrollRequest {
        // Ed25519 signatures are deterministic, ECDSA's are not: the request is made once for each key.
        let certificate_request = key.request().unwrap();
        let asked = EnrollProof {
            exporter: &Secret::new(exporter),
            token_id: token.id(),
            request_sha256: &sha256(&certificate_request),
            name: "",
        };
        EnrollRequest {
            token_id: *token.id().as_bytes(),
            name: String::new(),
            proof: token.prove(&asked),
            certificate_request,
        }
    }

    fn answer(registrar: &Registrar, request: &EnrollRequest, now: Instant) -> EnrollAnswer {
        let exporter = Secret::new(EXPORTER);
        let address = "192.0.2.7".parse().unwrap();
        registrar.enroll(&Visit { request, exporter: &exporter, address, now, now_unix: NOW })
    }

    fn key() -> NodeKey {
        NodeKey::generate(KeyType::Ed25519).unwrap()
    }

    #[test]
    fn a_crash_between_any_two_steps_gives_one_certificate() {
        let hub = Hub::new();
        let token = hub.token("dc-b", 1);
        let request = request(&token, &key(), EXPORTER);
        let parsed = CertificateRequest::from_der(&request.certificate_request).unwrap();
        let exporter = Secret::new(EXPORTER);
        let address = "192.0.2.7".parse().unwrap();
        let visit = Visit { request: &request, exporter: &exporter, address, now: Instant::now(), now_unix: NOW };
        // After the reservation.
        let reserved = hub.registrar().reserve(token.id(), &parsed, &visit).unwrap();
        assert_eq!(hub.registrar().reserve(token.id(), &parsed, &visit).unwrap(), reserved);
        // After issuing and before committing: the certificate was lost with the process, and nobody has it.
        let validity = Validity::between(reserved.not_before_unix, reserved.not_after_unix);
        hub.authority.issue_requested("dc-b", &Roles::none(), &parsed, reserved.serial, validity).unwrap();
        // After committing and before the audit log, which cannot be written: nothing is handed out.
        let blind = hub.registrar_with_audit(&hub.path().join("missing/audit"));
        assert_eq!(blind.enroll(&visit), EnrollAnswer::Unavailable);
        let committed = hub.store().issuances().unwrap().remove(0).certificate.unwrap();
        // After the answer, which was lost on its way.
        for _ in 0..3 {
            let EnrollAnswer::Issued { certificate, .. } = hub.registrar().enroll(&visit) else { panic!() };
            assert_eq!(certificate, committed);
        }
        assert_eq!(hub.store().token(token.id()).unwrap().unwrap().use_count, 1);
        assert_eq!(hub.audit().matches("certificate-issued").count(), 3);
    }

    #[test]
    fn a_proof_of_another_connection_is_worth_nothing() {
        let hub = Hub::new();
        let token = hub.token("dc-b", 1);
        let relayed = request(&token, &key(), [8; 32]);
        assert_eq!(answer(&hub.registrar(), &relayed, Instant::now()), EnrollAnswer::Refused);
        assert!(hub.audit().contains("wrong-proof"), "{}", hub.audit());
        assert_eq!(hub.store().token(token.id()).unwrap().unwrap().use_count, 0);
    }

    #[test]
    fn guesses_lock_a_token_and_no_other() {
        let hub = Hub::new();
        let (token, other) = (hub.token("dc-b", 1), hub.token("dc-c", 1));
        let registrar = hub.registrar();
        let now = Instant::now();
        let wrong = request(&token, &key(), [8; 32]);
        for _ in 0..200 {
            assert_eq!(answer(&registrar, &wrong, now), EnrollAnswer::Refused);
        }
        let right = request(&token, &key(), EXPORTER);
        assert_eq!(answer(&registrar, &right, now), EnrollAnswer::Refused);
        assert!(matches!(answer(&registrar, &request(&other, &key(), EXPORTER), now), EnrollAnswer::Issued { .. }));
        let later = now + limits::WRONG_PROOFS_LOCK;
        assert!(matches!(answer(&registrar, &right, later), EnrollAnswer::Issued { .. }));
        let audit = hub.audit();
        assert_eq!(audit.matches("token-locked").count(), 1);
        assert!(registrar.event_counts().contains(&("token-locked", 1)), "{:?}", registrar.event_counts());
        assert!(audit.lines().count() < 30, "strangers cannot fill the disk");
    }

    #[test]
    fn every_refusal_looks_the_same_and_is_told_in_the_audit_log() {
        let hub = Hub::new();
        let registrar = hub.registrar();
        let now = Instant::now();
        let unknown = JoinToken::generate([0; 32], &mut SystemEntropy::new());
        assert_eq!(answer(&registrar, &request(&unknown, &key(), EXPORTER), now), EnrollAnswer::Refused);
        let token = hub.token("dc-b", 1);
        let mut no_request = request(&token, &key(), EXPORTER);
        no_request.certificate_request = b"no request".to_vec();
        let asked = EnrollProof {
            exporter: &Secret::new(EXPORTER),
            token_id: token.id(),
            request_sha256: &sha256(b"no request"),
            name: "",
        };
        no_request.proof = token.prove(&asked);
        assert_eq!(answer(&registrar, &no_request, now), EnrollAnswer::Refused);
        assert!(matches!(answer(&registrar, &request(&token, &key(), EXPORTER), now), EnrollAnswer::Issued { .. }));
        assert_eq!(answer(&registrar, &request(&token, &key(), EXPORTER), now), EnrollAnswer::Refused);
        hub.store().revoke_token(token.id(), NOW).unwrap();
        assert_eq!(answer(&registrar, &request(&token, &key(), EXPORTER), now), EnrollAnswer::Refused);
        let audit = hub.audit();
        for reason in ["unknown-token", "bad-certificate-request", "used-up", "revoked"] {
            assert!(audit.contains(&format!("\"reason\":\"{reason}\"")), "{reason}\n{audit}");
        }
        assert!(!audit.contains("lhjoin_"), "{audit}");
    }

    #[test]
    fn a_state_that_is_gone_is_unavailable_and_comes_back() {
        let hub = Hub::new();
        let token = hub.token("dc-b", 1);
        let registrar = hub.registrar();
        let request = request(&token, &key(), EXPORTER);
        let (state, away) = (hub.path().join(files::STATE), hub.path().join("away"));
        std::fs::rename(&state, &away).unwrap();
        assert_eq!(answer(&registrar, &request, Instant::now()), EnrollAnswer::Unavailable);
        std::fs::rename(&away, &state).unwrap();
        assert!(matches!(answer(&registrar, &request, Instant::now()), EnrollAnswer::Issued { .. }));
    }
}
