//! `longhaul hub rotate`: from one authority to another, while all nodes stay connected.
//!
//! Each step can be given again after an end in its middle: what makes a step complete is written last.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Subcommand;
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::super::CliError;
use super::super::authority::{PassphraseArgs, decrypt, read_authority};
use super::super::cert::days;
use super::super::clock::now_unix;
use super::super::pem::pem;
use super::super::renewal::{replace_file, replace_pair};
use super::super::token::StateArgs;
use super::init::issuance;
use crate::config::secret_file::{read_private, read_public};
use crate::config::{IdentityFiles, SystemFiles};
use crate::crypto::identity::{PeerVerifier, Trust, TrustAnchors, default_provider};
use crate::enroll::store::Store;
use crate::enroll::{AuditEvent, Issuance, files, newest_of_each};
use crate::issue::{CertificateAuthority, KeyType, Validity};

/// Arguments of `longhaul hub rotate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(subcommand)]
    step: Step,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Step {
    /// Make the next authority, and trust both
    Begin {
        /// How long it holds
        #[arg(long, default_value_t = 3650, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Issue certificates by the next authority, from the next start of the hub on
    Switch {
        /// Go on although nodes have not heard of the next authority; they will have to join again
        #[arg(long)]
        force: bool,
    },
    /// Trust the old authority no more
    Finish {
        /// Go on although nodes have certificates of the old authority; they will have to join again
        #[arg(long)]
        force: bool,
    },
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let place = Place { directory: args.state.state.clone(), passphrase: &args.passphrase };
    let (step, next) = match args.step {
        Step::Begin { days } => ("begin", place.begin(days)?),
        Step::Switch { force } => ("switch", place.switch(&args.state, force)?),
        Step::Finish { force } => ("finish", place.finish(&args.state, force)?),
    };
    args.state.audit(&AuditEvent::AuthorityRotated { step })?;
    writeln!(io::stdout().lock(), "{next}")?;
    Ok(())
}

/// The authority's directory.
struct Place<'a> {
    directory: PathBuf,
    /// Of both authorities' keys, if they are encrypted.
    passphrase: &'a PassphraseArgs,
}

impl Place<'_> {
    fn begin(&self, length: u32) -> Result<&'static str, CliError> {
        let authority = read_authority(&self.directory, Some(self.passphrase))?;
        let anchors = self.anchors()?;
        let next = if self.path(NEXT_KEY).exists() {
            self.next()?
        } else {
            if anchors.count() > 1 {
                return Err(
                    anyhow!("{} has {} authorities already; finish with them first", ANCHORS, anchors.count()).into()
                );
            }
            let validity = Validity::from_now(days(length));
            let next = CertificateAuthority::generate(authority.trust_domain(), KeyType::P256, validity);
            let next = next.map_err(anyhow::Error::new)?;
            replace_file(&self.path(NEXT_CERTIFICATE), next.certificate_pem().as_bytes(), false)?;
            replace_file(&self.path(NEXT_KEY), self.passphrase.key_pem(&next)?.as_bytes(), true)?;
            next
        };
        self.trust(&[authority.certificate_der(), next.certificate_der()])?;
        Ok("both authorities are trusted; when all nodes have renewed their certificates: longhaul hub rotate switch")
    }

    fn switch(&self, state: &StateArgs, is_forced: bool) -> Result<&'static str, CliError> {
        let next = self.next()?;
        let store = state.open()?;
        let issued = newest(store.issuances().map_err(anyhow::Error::new)?);
        let mut all: Vec<_> = self.anchors()?.certificates().iter().map(|anchor| anchor.to_vec()).collect();
        all.sort_unstable();
        let all = digest(&SHA256, &all.concat());
        let untold = |issuance: &&Issuance| {
            issuance.token_id.is_some() && issuance.anchors_sha256.as_deref() != Some(all.as_ref())
        };
        refuse_for(issued.iter().filter(untold), "not heard of the next authority", is_forced)?;
        let own = issued.iter().find(|issuance| issuance.token_id.is_none());
        let own =
            own.ok_or_else(|| anyhow!("the state has no certificate of the hub; see how to replace a certificate"))?;
        let name = &own.name;
        let file = |ending: &str| self.path(&format!("{name}.{ending}"));
        let identity = IdentityFiles {
            certificate: file("crt"),
            key: file("key"),
            trust_anchors: self.path(files::AUTHORITY_CERTIFICATE),
        };
        let (before, anchors) = identity.read(&SystemFiles, &default_provider()).map_err(|reason| anyhow!(reason))?;
        let life = before.not_after_unix().saturating_sub(before.not_before_unix());
        let validity = Validity::from_now(std::time::Duration::from_secs(life));
        let node = next.issue_node(name, KeyType::P256, validity).map_err(anyhow::Error::new)?;
        store.record(&issuance(&node, now_unix())).map_err(anyhow::Error::new)?;
        replace_pair(&identity, &node.certificate_der, &node.key_pem, &before)?;
        // The first certificate is the authority's whose key it is; between these two the hub would not start.
        let others = anchors.certificates().iter().filter(|other| *other != next.certificate_der());
        let first = [next.certificate_der()];
        self.trust(&first.into_iter().chain(others).collect::<Vec<_>>())?;
        replace_file(&self.path(files::AUTHORITY_KEY), self.passphrase.key_pem(&next)?.as_bytes(), true)?;
        for done in [NEXT_KEY, NEXT_CERTIFICATE] {
            fs::remove_file(self.path(done)).with_context(|| format!("{done} cannot be removed"))?;
        }
        Ok("certificates come from the next authority once the hub is restarted; tokens from before are worth nothing \
            then. When all nodes have renewed their certificates: longhaul hub rotate finish")
    }

    fn finish(&self, state: &StateArgs, is_forced: bool) -> Result<&'static str, CliError> {
        if self.path(NEXT_KEY).exists() {
            return Err(anyhow!("the next authority is not in use yet; give the step before first: switch").into());
        }
        let authority = read_authority(&self.directory, Some(self.passphrase))?;
        let alone = TrustAnchors::from_certificates(vec![authority.certificate_der().clone()]);
        let trust = Trust::new(authority.trust_domain(), alone.map_err(anyhow::Error::new)?, default_provider());
        let verifier = PeerVerifier::new(Arc::new(trust.map_err(anyhow::Error::new)?), None);
        let store = state.open()?;
        let issued = newest(store.issuances().map_err(anyhow::Error::new)?);
        let is_old = |issuance: &&Issuance| {
            let chain: Vec<_> = issuance.certificate.iter().cloned().map(CertificateDer::from).collect();
            verifier.verify_chain(&chain, UnixTime::now()).is_err()
        };
        refuse_for(issued.iter().filter(is_old), "certificates of the old authority", is_forced)?;
        // So that every node takes the list again, which by now is signed by the authority that stays.
        if store.denylist_version().map_err(anyhow::Error::new)? > 0 {
            store.revise_denylist(now_unix()).map_err(anyhow::Error::new)?;
        }
        self.trust(&[authority.certificate_der()])?;
        Ok("the old authority is trusted no more; nodes hear of it with their next renewal")
    }

    fn trust(&self, certificates: &[&CertificateDer<'_>]) -> anyhow::Result<()> {
        let all: String = certificates.iter().map(|certificate| pem(certificate)).collect();
        replace_file(&self.path(ANCHORS), all.as_bytes(), false)
    }

    fn anchors(&self) -> anyhow::Result<TrustAnchors> {
        Ok(TrustAnchors::from_pem(&read_public(&self.path(ANCHORS))?)?)
    }

    fn next(&self) -> Result<CertificateAuthority, CliError> {
        let missing = || {
            format!("there is no next authority in {}; make it by: longhaul hub rotate begin", self.directory.display())
        };
        let certificate = read_public(&self.path(NEXT_CERTIFICATE)).with_context(missing)?;
        let key = read_private(&self.path(NEXT_KEY)).with_context(missing)?;
        decrypt(&certificate, &key, Some(self.passphrase))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Of each node the newest certificate that holds yet.
fn newest(all: Vec<Issuance>) -> Vec<Issuance> {
    let now = i64::try_from(now_unix()).unwrap_or(i64::MAX);
    newest_of_each(all.into_iter().filter(|issuance| issuance.not_after_unix > now))
}

fn refuse_for<'a>(nodes: impl Iterator<Item = &'a Issuance>, why: &str, is_forced: bool) -> anyhow::Result<()> {
    let names: Vec<_> = nodes.map(|issuance| issuance.name.as_str()).collect();
    if names.is_empty() || is_forced {
        return Ok(());
    }
    Err(anyhow!(
        "these nodes have {why}: {}; they renew by themselves within two thirds of a certificate's life, or at once by \
         `longhaul cert renew`; --force goes on without them",
        names.join(", ")
    ))
}

/// The trust anchors, of which the first is the authority.
const ANCHORS: &str = files::AUTHORITY_CERTIFICATE;

/// The next authority until it is the one.
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
