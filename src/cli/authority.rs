//! Reads an authority from its directory.

use std::path::Path;

use anyhow::Context;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::CliError;
use crate::config::secret_file::{FileError, read_private, read_public};
use crate::config::{SystemFiles, passphrase};
use crate::issue::CertificateAuthority;

/// The authority whose `ca.crt` and `ca.key` are in `directory`; the key may be encrypted with a passphrase.
pub(in crate::cli) fn read_authority(
    directory: &Path,
    passphrase: Option<&PassphraseArgs>,
) -> Result<CertificateAuthority, CliError> {
    let failed = |error: FileError| anyhow::Error::new(error).context("the authority cannot be used");
    let certificate = read_public(&directory.join("ca.crt")).map_err(failed)?;
    let key = read_private(&directory.join("ca.key")).map_err(failed)?;
    decrypt(&certificate, &key, passphrase)
}

/// The authority with this certificate and this key, in PEM; the key may be encrypted with a passphrase.
pub(in crate::cli) fn decrypt(
    certificate: &[u8],
    key: &[u8],
    passphrase: Option<&PassphraseArgs>,
) -> Result<CertificateAuthority, CliError> {
    let passphrase = passphrase.map(PassphraseArgs::read).transpose()?.flatten();
    let authority =
        CertificateAuthority::read(text(certificate)?, text(key)?, passphrase.as_ref().map(|bytes| &bytes[..]));
    Ok(authority.map_err(|error| anyhow::Error::new(error).context("the authority cannot be used"))?)
}

/// SHA-256 of the key of the authority in `directory`, by which tokens name it. Needs its certificate alone.
pub(in crate::cli) fn read_authority_pin(directory: &Path) -> Result<[u8; 32], CliError> {
    let failed = |error: FileError| anyhow::Error::new(error).context("the authority cannot be used");
    let pem = read_public(&directory.join("ca.crt")).map_err(failed)?;
    let der = CertificateDer::from_pem_slice(&pem).context("the authority's certificate is not PEM")?;
    let (_, parsed) = X509Certificate::from_der(&der).context("the authority's certificate cannot be read")?;
    let digest = ring::digest::digest(&ring::digest::SHA256, parsed.public_key().raw);
    Ok(digest.as_ref().try_into().context("SHA-256 gives 32 bytes")?)
}

fn text(bytes: &[u8]) -> Result<&str, anyhow::Error> {
    std::str::from_utf8(bytes).map_err(|_| anyhow::anyhow!("the authority's files are not PEM"))
}

/// Where the passphrase of an authority's key is. Never an argument itself.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PassphraseArgs {
    /// File with the passphrase of ca.key, for its owner only; or credential:NAME
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<String>,
}

impl PassphraseArgs {
    /// As a configuration names it: a path that does not depend on the working directory.
    pub(in crate::cli) fn file(&self) -> Option<String> {
        let name = self.passphrase_file.as_ref()?;
        let is_credential = name.starts_with(passphrase::CREDENTIAL);
        let absolute = std::path::absolute(name).ok().filter(|_| !is_credential);
        Some(absolute.map_or_else(|| name.clone(), |path| path.display().to_string()))
    }

    /// The key of an authority as it is kept: encrypted, if there is a passphrase.
    pub(in crate::cli) fn key_pem(&self, authority: &CertificateAuthority) -> Result<Zeroizing<String>, CliError> {
        Ok(match self.read()? {
            Some(passphrase) => authority.encrypted_key_pem(&passphrase).map_err(anyhow::Error::new)?,
            None => authority.key_pem(),
        })
    }

    pub(in crate::cli) fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, CliError> {
        let read = |name: &String| passphrase::read(name, Path::new(""), &SystemFiles).map_err(|e| anyhow::anyhow!(e));
        Ok(self.passphrase_file.as_ref().map(read).transpose()?)
    }
}
