//! Loads what `[identity]` names, and checks it as far as one node can: files, modes, pair, issuer, validity. How files
//! are read is for the caller to say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use toml::Spanned;

use super::problem::{Problem, Problems};
use super::{Files, file, text};
use crate::crypto::identity::{Identity, IdentityError, NodeId, PeerVerifier, Trust, TrustAnchors, VerifyFailure};

/// Where the node's certificates and key are; absolute, or relative to the working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The authorities of the trust domain.
    pub trust_anchors: PathBuf,
}

/// The identity with where it came from.
#[derive(Clone, Debug)]
pub struct LoadedIdentity {
    /// The files, to load them again.
    pub files: IdentityFiles,
    /// Who the node is.
    pub identity: Identity,
    /// Whom it trusts.
    pub anchors: TrustAnchors,
}

impl IdentityFiles {
    /// Reads them again: who the node is, and whom it trusts.
    ///
    /// # Errors
    /// What is wrong, with the file.
    pub fn read(&self, reader: &dyn Files, provider: &Arc<CryptoProvider>) -> Result<(Identity, TrustAnchors), String> {
        let certificate = reader.read_public(&self.certificate).map_err(|error| error.to_string())?;
        let key = reader.read_private(&self.key).map_err(|error| error.to_string())?;
        let anchors = reader.read_public(&self.trust_anchors).map_err(|error| error.to_string())?;
        let of = |path: &Path, error: IdentityError| format!("{}: {error}", path.display());
        let anchors = TrustAnchors::from_pem(&anchors).map_err(|error| of(&self.trust_anchors, error))?;
        let identity = Identity::from_pem(&certificate, &key, provider);
        Ok((identity.map_err(|error| of(&self.certificate, error))?, anchors))
    }

    fn new(section: &file::Identity, base: &Path) -> Self {
        let path = |value: &Spanned<String>| base.join(value.get_ref());
        Self {
            certificate: path(&section.certificate),
            key: path(&section.key),
            trust_anchors: path(&section.trust_anchors),
        }
    }
}

/// Loads and checks the identity; what is wrong goes to `problems`.
pub(super) fn load(
    section: Option<&Spanned<file::Identity>>,
    base: &Path,
    reader: &dyn Files,
    provider: &Arc<CryptoProvider>,
    problems: &mut Problems,
) -> Option<LoadedIdentity> {
    let Some(section) = section else {
        problems.push(
            Problem::new("the section [identity] is missing")
                .help("add certificate, key and trust_anchors; `longhaul cert ca` and `longhaul cert node` make them"),
        );
        return None;
    };
    let section = section.get_ref();
    let files = IdentityFiles::new(section, base);
    let certificate = problems.check(section.certificate.span(), reader.read_public(&files.certificate));
    let key = problems.check(section.key.span(), reader.read_private(&files.key));
    let anchors = reader.read_public(&files.trust_anchors);
    let anchors = problems.check(section.trust_anchors.span(), anchors).and_then(|pem| {
        let what = format!("{}: ", files.trust_anchors.display());
        problems.check(section.trust_anchors.span(), TrustAnchors::from_pem(&pem).map_err(|e| what + &e.to_string()))
    });
    let (certificate, key) = (certificate?, key?);
    let what = format!("{}: ", files.certificate.display());
    let identity = Identity::from_pem(&certificate, &key, provider).map_err(|error| what + &error.to_string());
    let identity = problems.check(section.certificate.span(), identity)?;
    let anchors = anchors?;
    check_now(&identity, &anchors, section, provider, problems);
    Some(LoadedIdentity { files, identity, anchors })
}

/// Whether the certificate holds now and comes from one of the anchors.
fn check_now(
    identity: &Identity,
    anchors: &TrustAnchors,
    section: &file::Identity,
    provider: &Arc<CryptoProvider>,
    problems: &mut Problems,
) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if anchors.not_after_unix() < now.as_secs() {
        let message = format!("all trust anchors expired, the last at {}", text::date(anchors.not_after_unix()));
        problems.push(Problem::new(message).at(section.trust_anchors.span()).help("make a new authority, or add it"));
    }
    let domain = identity.node_id().trust_domain();
    let verified = Trust::new(domain, anchors.clone(), Arc::clone(provider))
        .map_err(|error| VerifyFailure::Other { reason: error.to_string() })
        .and_then(|trust| {
            let now = UnixTime::since_unix_epoch(now);
            PeerVerifier::new(Arc::new(trust), None).verify_chain(identity.chain(), now)
        });
    if let Err(failure) = verified {
        problems.push(explain(&failure, identity.node_id(), now.as_secs()).at(section.certificate.span()));
    }
}

/// Why peers would refuse the certificate, and what to do about it.
fn explain(failure: &VerifyFailure, node: &NodeId, now: u64) -> Problem {
    let now = text::date(now);
    match failure {
        VerifyFailure::Expired { not_after, .. } => {
            Problem::new(format!("the certificate of {node} expired at {} (now {now})", text::date(*not_after)))
                .help(format!("make a new one: longhaul cert node {} --ca DIR --out DIR --force", node.name()))
        }
        VerifyFailure::NotYetValid { not_before, .. } => {
            Problem::new(format!("the certificate of {node} holds from {} (now {now})", text::date(*not_before)))
                .help("check this machine's clock")
        }
        VerifyFailure::UnknownIssuer { .. } => {
            Problem::new(format!("the certificate of {node} was issued by none of the trust anchors"))
                .help("give the authority's certificate (ca.crt) that came with it as trust_anchors")
        }
        other => Problem::new(other.to_string()),
    }
}
