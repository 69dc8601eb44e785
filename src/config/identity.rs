//! Loads what `[identity]` names, and checks it as far as one node can: files, modes, pair, issuer, validity. How files
//! are read is for the caller to say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use toml::Spanned;

use super::problem::{Problem, Problems};
use super::{Files, file, guest, text};
use crate::crypto::identity::{
    Identity, IdentityError, NodeId, PeerVerifier, TlsSettings, Trust, TrustAnchors, VerifyFailure,
};
use crate::crypto::token::JoinToken;

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
    /// The files, to load them again; empty paths for a guest.
    pub files: IdentityFiles,
    /// Who the node is.
    pub identity: Identity,
    /// Whom it trusts; nobody if it is a guest, which knows its peer by the token.
    pub anchors: TrustAnchors,
    /// What a guest has in place of files.
    pub guest: Option<GuestIdentity>,
}

/// What a guest has in place of a certificate.
#[derive(Clone, Debug)]
pub struct GuestIdentity {
    /// Its token.
    pub token: JoinToken,
    /// The name that it asks for, if the token is for several.
    pub name: Option<String>,
}

impl LoadedIdentity {
    /// What TLS is made of: a certificate and anchors, or a guest's token.
    ///
    /// # Errors
    /// If rustls refuses the anchors.
    pub fn tls_settings(
        self,
        provider: Arc<CryptoProvider>,
        time: Arc<dyn TimeProvider>,
    ) -> Result<TlsSettings, IdentityError> {
        match self.guest {
            None => TlsSettings::new(self.identity, self.anchors, provider, time),
            Some(GuestIdentity { token, name }) => {
                TlsSettings::guest(token, self.identity.node_id().trust_domain(), name.as_deref(), provider, time)
            }
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
    let place = section.span();
    let section = section.get_ref();
    if section.token_file.is_some() {
        return guest::load(section, base, reader, problems);
    }
    guest::refuse_without_token(section, problems);
    let mut required = |name: &str, text: &file::Text| {
        if text.is_none() {
            let problem = Problem::new(format!("missing field `{name}`")).at(place.clone());
            problems.push(problem.help("give certificate, key and trust_anchors; or token_file, to be a guest"));
        }
        text.clone()
    };
    let certificate_text = required("certificate", &section.certificate);
    let key_text = required("key", &section.key);
    let anchors_text = required("trust_anchors", &section.trust_anchors);
    let (certificate_text, key_text, anchors_text) = (certificate_text?, key_text?, anchors_text?);
    let path = |value: &Spanned<String>| base.join(value.get_ref());
    let files = IdentityFiles {
        certificate: path(&certificate_text),
        key: path(&key_text),
        trust_anchors: path(&anchors_text),
    };
    let certificate = problems.check(certificate_text.span(), reader.read_public(&files.certificate));
    let key = problems.check(key_text.span(), reader.read_private(&files.key));
    let anchors = reader.read_public(&files.trust_anchors);
    let anchors = problems.check(anchors_text.span(), anchors).and_then(|pem| {
        let what = format!("{}: ", files.trust_anchors.display());
        problems.check(anchors_text.span(), TrustAnchors::from_pem(&pem).map_err(|e| what + &e.to_string()))
    });
    let (certificate, key) = (certificate?, key?);
    let what = format!("{}: ", files.certificate.display());
    let identity = Identity::from_pem(&certificate, &key, provider).map_err(|error| what + &error.to_string());
    let identity = problems.check(certificate_text.span(), identity)?;
    let anchors = anchors?;
    check_now(&identity, &anchors, [&certificate_text, &anchors_text], provider, problems);
    Some(LoadedIdentity { files, identity, anchors, guest: None })
}

/// Whether the certificate holds now and comes from one of the anchors.
fn check_now(
    identity: &Identity,
    anchors: &TrustAnchors,
    [certificate_text, anchors_text]: [&Spanned<String>; 2],
    provider: &Arc<CryptoProvider>,
    problems: &mut Problems,
) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if anchors.not_after_unix() < now.as_secs() {
        let message = format!("all trust anchors expired, the last at {}", text::date(anchors.not_after_unix()));
        problems.push(Problem::new(message).at(anchors_text.span()).help("make a new authority, or add it"));
    }
    let domain = identity.node_id().trust_domain();
    let verified = Trust::new(domain, anchors.clone(), Arc::clone(provider))
        .map_err(|error| VerifyFailure::Other { reason: error.to_string() })
        .and_then(|trust| {
            let now = UnixTime::since_unix_epoch(now);
            PeerVerifier::new(Arc::new(trust), None).verify_chain(identity.chain(), now)
        });
    if let Err(failure) = verified {
        problems.push(explain(&failure, identity.node_id(), now.as_secs()).at(certificate_text.span()));
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
