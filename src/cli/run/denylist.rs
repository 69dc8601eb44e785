//! The denylist on the node's disk: known again after a restart, before anybody connects.

use std::path::{Path, PathBuf};

use crate::cli::renewal::replace_file;
use crate::config::IdentityFiles;
use crate::config::secret_file::read_public;
use crate::crypto::identity::{Denylist, TlsSettings};
use crate::service::Denylists;
use crate::wire::SignedDenylist;

/// Where it is: beside the trust anchors, which say whose signature it needs.
pub(super) fn path(files: &IdentityFiles) -> PathBuf {
    files.trust_anchors.with_file_name("denylist")
}

/// Puts into effect what was known when the node ended.
pub(super) fn recall(path: &Path, tls: &TlsSettings) {
    if !path.exists() {
        return;
    }
    let list = read_public(path).map_err(|error| error.to_string()).and_then(|bytes| {
        let decoded = SignedDenylist::decode(&bytes).map_err(|error| error.to_string())?;
        let (signed, _) = decoded.ok_or("it is cut")?;
        tls.trust().deny(signed).map_err(|error| error.to_string())
    });
    if let Err(reason) = list {
        tracing::error!(path = %path.display(), reason, "the denylist cannot be used; peers may have a better one");
    }
}

/// Writes down every list that comes into effect. Runs as long as the node.
pub(super) async fn keep(path: PathBuf, denylists: Denylists) {
    let mut changes = denylists.changes();
    while changes.changed().await.is_ok() {
        changes.borrow_and_update();
        let Some(list) = denylists.current() else { continue };
        let place = path.clone();
        let written = tokio::task::spawn_blocking(move || write(&place, &list)).await;
        if let Err(error) = written.map_err(anyhow::Error::new).and_then(|written| written) {
            let error = format!("{error:#}");
            tracing::error!(error, "the denylist cannot be written; it is in effect until the node ends");
        }
    }
}

fn write(path: &Path, list: &Denylist) -> anyhow::Result<()> {
    replace_file(path, &list.signed().encode(), false)
}
