//! An authority for this module's tests, which can also issue what `crate::issue` rightly cannot.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::{Identity, TrustAnchors, default_provider};

/// The time of all tests of this module, in seconds since 1970.
pub(super) const NOW: u64 = 1_800_000_000;

/// A certificate authority.
pub(super) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl TestCa {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(super) fn anchors(&self) -> TrustAnchors {
        TrustAnchors::from_pem(self.pem.as_bytes()).unwrap()
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for `uri`, valid at [`NOW`], changed by `change`; with its key, both PEM.
    pub(super) fn issue(&self, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = at(-3600);
        params.not_after = at(3600);
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A node's identity.
    pub(super) fn node(&self, uri: &str) -> Identity {
        let (certificate, key) = self.issue(&[uri], |_| {});
        Identity::from_pem(certificate.as_bytes(), key.as_bytes(), &default_provider()).unwrap()
    }

    /// An identity that [`Identity::from_pem`] would refuse: a misused certificate in the hands of an attacker.
    pub(super) fn rogue(&self, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let (certificate, key) = self.issue(uris, change);
        Identity::unchecked(certificate.as_bytes(), key.as_bytes(), &default_provider())
    }
}

/// A time, in seconds from [`NOW`].
pub(super) fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW as i64 + seconds).unwrap()
}
