//! What all examples need and none of them is about: an authority, and certificates that last as long as the example.
//! Real ones come from `longhaul cert` or from the CA that is there already, and are read from files.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use longhaul::crypto::identity::{Identity, TlsSettings, TrustAnchors, default_provider};
use longhaul::issue::{CertificateAuthority, KeyType, Validity};

/// An authority for the nodes `spiffe://example/node/…`.
pub(crate) fn authority() -> Result<CertificateAuthority, Box<dyn Error>> {
    Ok(CertificateAuthority::generate("example", KeyType::P256, one_hour())?)
}

/// What a node is built from: who it is, and whom it trusts, which is every node that the authority names.
pub(crate) fn settings(authority: &CertificateAuthority, name: &str) -> Result<TlsSettings, Box<dyn Error>> {
    let issued = authority.issue_node(name, KeyType::P256, one_hour())?;
    let provider = default_provider();
    let identity = Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes(), &provider)?;
    let anchors = TrustAnchors::from_pem(authority.certificate_pem().as_bytes())?;
    Ok(TlsSettings::new(identity, anchors, provider, Arc::new(rustls::time_provider::DefaultTimeProvider))?)
}

fn one_hour() -> Validity {
    Validity::from_now(Duration::from_secs(3600))
}
