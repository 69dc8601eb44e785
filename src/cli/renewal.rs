//! Renews the certificate of a node: a new key, a certificate for it from the hub, and both in the place of those before.
//!
//! Certificate and key are two files, and a node may end between any two steps. So the key's file has both keys until the
//! certificate is replaced; whoever reads the files at any moment finds a pair. The new key is on the disk before the hub
//! is asked: a directory that takes nothing costs no certificate.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::pem::pem;
use crate::config::secret_file::{read_private, read_public};
use crate::config::{IdentityFiles, RenewConfig, SystemFiles};
use crate::crypto::identity::{Identity, TlsSettings, TrustAnchors};
use crate::enroll::{RenewError, Renewal, Renewed};
use crate::issue::{KeyType, NodeKey};
use crate::wire::SignedDenylist;

/// Why nothing was renewed.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Failure {
    /// The hub, or the way to it.
    #[error(transparent)]
    Hub(#[from] RenewError),
    /// The files.
    #[error("{0:#}")]
    Files(#[from] anyhow::Error),
}

/// A new key on the disk, for which there is no certificate yet.
pub(in crate::cli) struct Staged {
    files: IdentityFiles,
    key: NodeKey,
    request: Vec<u8>,
    place: PathBuf,
    /// Held until this is dropped, so that a command and a running node do not mix their files.
    _turn: File,
}

/// Asks the hub, and puts what it gives in its place; the node goes on with it at once. A newer denylist is for the caller.
pub(in crate::cli) async fn renew(
    config: &RenewConfig,
    files: &IdentityFiles,
    tls: &TlsSettings,
) -> Result<(Identity, Option<SignedDenylist>), Failure> {
    let staged = stage(files).await?;
    let renewal =
        Renewal { host: &config.host, port: config.port, hub: &config.hub, tls, certificate_request: staged.request() };
    let mut renewed = renewal.run().await?;
    let denylist = renewed.denylist.take();
    Ok((install(staged, renewed, tls).await?, denylist))
}

/// Makes a new key.
pub(in crate::cli) async fn stage(files: &IdentityFiles) -> anyhow::Result<Staged> {
    let files = files.clone();
    tokio::task::spawn_blocking(move || Staged::new(files)).await?
}

/// Puts a certificate for the new key in its place.
pub(in crate::cli) async fn install(staged: Staged, renewed: Renewed, tls: &TlsSettings) -> Result<Identity, Failure> {
    let tls = tls.clone();
    let installing = tokio::task::spawn_blocking(move || {
        staged.install(&renewed.certificate, &renewed.anchors, &tls.identity())?;
        let (identity, anchors) = staged.files.read(&SystemFiles, tls.provider()).map_err(anyhow::Error::msg)?;
        tls.exchange(identity.clone(), anchors)?;
        Ok::<_, anyhow::Error>(identity)
    });
    Ok(installing.await.map_err(anyhow::Error::new)??)
}

impl Staged {
    fn new(files: IdentityFiles) -> anyhow::Result<Self> {
        let turn = File::open(directory(&files.key)).and_then(|directory| directory.lock().map(|()| directory));
        let turn = turn.with_context(|| format!("{} cannot be locked", directory(&files.key).display()))?;
        let key = NodeKey::generate(KeyType::P256)?;
        let request = key.request()?;
        let mut place = files.key.clone().into_os_string();
        place.push(".next");
        let place = PathBuf::from(place);
        write(&place, &key.to_pem(), true)?;
        Ok(Self { files, key, request, place, _turn: turn })
    }

    /// The certificate request, DER.
    pub(in crate::cli) fn request(&self) -> &[u8] {
        &self.request
    }

    fn install(
        &self,
        certificate: &CertificateDer<'_>,
        anchors: &TrustAnchors,
        before: &Identity,
    ) -> anyhow::Result<()> {
        let old = read_public(&self.files.trust_anchors)?;
        let old = TrustAnchors::from_pem(&old)?;
        let is_same = old.certificates() == anchors.certificates();
        if !is_same {
            let added = anchors.certificates().iter().filter(|anchor| !old.certificates().contains(anchor));
            let both: String = old.certificates().iter().chain(added).map(|anchor| pem(anchor)).collect();
            write(&self.files.trust_anchors, &both, false)?;
        }
        replace_pair(&self.files, certificate, &self.key.to_pem(), before)?;
        if !is_same {
            let all: String = anchors.certificates().iter().map(|anchor| pem(anchor)).collect();
            write(&self.files.trust_anchors, &all, false)?;
        }
        // What is left of it is worth nothing: the next renewal writes over it.
        let _ = std::fs::remove_file(&self.place);
        Ok(())
    }
}

/// Replaces a certificate and its key; whoever reads them at any moment finds a pair.
pub(in crate::cli) fn replace_pair(
    files: &IdentityFiles,
    certificate: &[u8],
    key: &str,
    before: &Identity,
) -> anyhow::Result<()> {
    let alone = Zeroizing::new(format!("{}{key}", *before.reset_secret_line()));
    let old = read_private(&files.key)?;
    let old = std::str::from_utf8(&old).with_context(|| format!("{} is not PEM", files.key.display()))?;
    let both = Zeroizing::new(format!("{}{old}", *alone));
    write(&files.key, &both, true)?;
    write(&files.certificate, &pem(certificate), false)?;
    write(&files.key, &alone, true)
}

fn write(path: &Path, contents: &str, is_private: bool) -> anyhow::Result<()> {
    replace_file(path, contents.as_bytes(), is_private)
}

/// Replaces a file in one step, which is on the disk when this returns. What an end in the middle left is written over.
pub(in crate::cli) fn replace_file(path: &Path, contents: &[u8], is_private: bool) -> anyhow::Result<()> {
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let replaced = || {
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mode = if is_private { 0o600 } else { 0o644 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        // A rename is on the disk when its directory is.
        File::open(directory(path))?.sync_all()
    };
    replaced().map_err(|error: io::Error| {
        // Best effort: the error that matters is the one above.
        let _ = std::fs::remove_file(&temporary);
        anyhow::Error::new(error).context(format!("{} cannot be written", path.display()))
    })
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::crypto::identity::{Roles, default_provider};
    use crate::issue::{CertificateAuthority, CertificateRequest, SerialNumbers, Validity};

    struct Place {
        directory: tempfile::TempDir,
        authority: CertificateAuthority,
    }

    fn authority() -> CertificateAuthority {
        let validity = Validity::from_now(Duration::from_secs(3600));
        CertificateAuthority::generate("example", KeyType::P256, validity).unwrap()
    }

    impl Place {
        fn new() -> Self {
            let place = Self { directory: tempfile::tempdir().unwrap(), authority: authority() };
            let node = place.authority.issue_node("n", KeyType::P256, Validity::from_now(Duration::from_secs(600)));
            let node = node.unwrap();
            write(&place.files().certificate, &node.certificate_pem, false).unwrap();
            write(&place.files().key, &node.key_pem, true).unwrap();
            write(&place.files().trust_anchors, place.authority.certificate_pem(), false).unwrap();
            place
        }

        fn files(&self) -> IdentityFiles {
            let path = |name| self.directory.path().join(name);
            IdentityFiles { certificate: path("n.crt"), key: path("n.key"), trust_anchors: path("ca.crt") }
        }

        fn read(&self) -> (Identity, TrustAnchors) {
            self.files().read(&SystemFiles, &default_provider()).unwrap()
        }

        fn certify(authority: &CertificateAuthority, staged: &Staged) -> CertificateDer<'static> {
            let request = CertificateRequest::from_der(staged.request()).unwrap();
            let validity = Validity::from_now(Duration::from_secs(600));
            authority.issue_requested("n", &Roles::none(), &request, SerialNumbers::draw(), validity).unwrap().into()
        }
    }

    #[test]
    fn an_identity_is_replaced_with_its_anchors_and_keeps_its_reset_secret() {
        let place = Place::new();
        let (before, _) = place.read();
        let next = authority();
        let pems = [place.authority.certificate_pem(), next.certificate_pem()].concat();
        for (authority, anchors) in [(&place.authority, pems.as_str()), (&next, &pems), (&next, next.certificate_pem())]
        {
            let staged = Staged::new(place.files()).unwrap();
            let certificate = Place::certify(authority, &staged);
            let anchors = TrustAnchors::from_pem(anchors.as_bytes()).unwrap();
            staged.install(&certificate, &anchors, &place.read().0).unwrap();
            let (after, found) = place.read();
            assert_eq!(after.chain(), [certificate]);
            assert_eq!(found.certificates(), anchors.certificates());
            assert_eq!(after.reset_secret().expose(), before.reset_secret().expose());
        }
        let key = fs::read_to_string(place.files().key).unwrap();
        assert_eq!(key.matches("BEGIN").count(), 1, "old keys are gone");
        assert_eq!(fs::metadata(place.files().key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 3);
    }

    /// Every state that an end between two steps leaves is one of these, or that of a file on its way by another name.
    #[test]
    fn an_end_between_any_two_steps_leaves_a_pair() {
        let place = Place::new();
        let (before, _) = place.read();
        let files = place.files();
        let old_key = fs::read_to_string(&files.key).unwrap();
        let staged = Staged::new(files.clone()).unwrap();
        assert_eq!(place.read().0.chain(), before.chain(), "a key is made");
        let certificate = Place::certify(&place.authority, &staged);
        write(&files.key, &format!("{}{old_key}", *staged.key.to_pem()), true).unwrap();
        assert_eq!(place.read().0.chain(), before.chain(), "both keys are there");
        write(&files.certificate, &pem(&certificate), false).unwrap();
        assert_eq!(place.read().0.chain(), std::slice::from_ref(&certificate), "the certificate is there");
        // From any of them the next renewal goes on.
        drop(staged);
        let again = Staged::new(files).unwrap();
        let certificate = Place::certify(&place.authority, &again);
        again.install(&certificate, &place.read().1, &place.read().0).unwrap();
        assert_eq!(place.read().0.chain(), [certificate]);
    }
}
