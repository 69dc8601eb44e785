//! Reads an authority from its directory.

use std::path::Path;

use super::CliError;
use crate::config::secret_file::{FileError, read_private, read_public};
use crate::issue::CertificateAuthority;

/// The authority whose `ca.crt` and `ca.key` are in `directory`.
pub(in crate::cli) fn read_authority(directory: &Path) -> Result<CertificateAuthority, CliError> {
    let failed = |error: FileError| anyhow::Error::new(error).context("the authority cannot be used");
    let certificate = read_public(&directory.join("ca.crt")).map_err(failed)?;
    let key = read_private(&directory.join("ca.key")).map_err(failed)?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| anyhow::anyhow!("the authority's files are not PEM"));
    let authority = CertificateAuthority::from_pem(text(&certificate)?, text(&key)?);
    Ok(authority.map_err(|error| anyhow::Error::new(error).context("the authority cannot be used"))?)
}
