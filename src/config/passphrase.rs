//! The passphrase of an authority's key: from a file, or from what the service manager hands over.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Files;

/// Reads the passphrase that `name` names: a path, or `credential:NAME` for a credential of systemd.
pub(crate) fn read(name: &str, base: &Path, files: &dyn Files) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut passphrase = match name.strip_prefix(CREDENTIAL) {
        // Its directory is for the service alone; the file's own mode says less.
        Some(name) => files.read_public(&credential(name)?),
        None => files.read_private(&base.join(name)),
    }
    .map_err(|error| error.to_string())?;
    while passphrase.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        passphrase.pop();
    }
    if passphrase.is_empty() {
        return Err("the passphrase is empty; write one line into its file".to_owned());
    }
    Ok(passphrase)
}

/// Where systemd has put it (systemd.exec(5), "Credentials").
fn credential(name: &str) -> Result<PathBuf, String> {
    let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    if !is_plain {
        return Err(format!("{name:?} is no name of a credential"));
    }
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
        format!("there are no credentials; run this as a service with LoadCredential={name}:FILE, or name a file")
    })?;
    Ok(PathBuf::from(directory).join(name))
}

/// Stands in front of the name of a credential.
pub(crate) const CREDENTIAL: &str = "credential:";
