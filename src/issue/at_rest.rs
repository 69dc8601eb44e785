//! The key of an authority at rest: PKCS#8, encrypted with a passphrase by PBES2 (RFC 8018 §6.2), as `openssl pkcs8`
//! reads and writes it. scrypt with N = 2^15, r = 8, p = 1 makes a guess cost 32 MiB; AES-256-CBC encrypts.

use pkcs8::der::Encode;
use pkcs8::der::pem::LineEnding;
use pkcs8::pkcs5::pbes2::Parameters;
use pkcs8::pkcs5::scrypt;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use super::IssueError;
use crate::base::{Entropy, SystemEntropy};

/// Whether a key, PEM, is encrypted.
pub(super) fn is_encrypted(key_pem: &str) -> bool {
    key_pem.contains(concat!("-----BEGIN ENCRYPTED", " PRIVATE KEY-----"))
}

/// The key, PKCS#8 DER, as PEM that nobody reads without the passphrase.
pub(super) fn encrypt(key_der: &[u8], passphrase: &[u8]) -> Result<Zeroizing<String>, IssueError> {
    let failed = |error: &dyn std::fmt::Display| IssueError::AtRest { reason: error.to_string() };
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    SystemEntropy::new().fill(&mut salt);
    SystemEntropy::new().fill(&mut iv);
    let cost = scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P).map_err(|error| failed(&error))?;
    let parameters = Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).map_err(|error| failed(&error))?;
    let key = PrivateKeyInfoRef::try_from(key_der).map_err(|error| failed(&error))?;
    let document = key.encrypt_with_params(parameters, passphrase).map_err(|error| failed(&error))?;
    document.to_pem(LABEL, LineEnding::LF).map_err(|error| failed(&error))
}

/// The key, PKCS#8 PEM, of what [`encrypt`] or another tool wrote.
pub(super) fn decrypt(key_pem: &str, passphrase: &[u8]) -> Result<Zeroizing<String>, IssueError> {
    let failed = |error: &dyn std::fmt::Display| IssueError::AtRest { reason: error.to_string() };
    let (_, document) = SecretDocument::from_pem(key_pem.trim_start()).map_err(|error| failed(&error))?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|error| failed(&error))?;
    let key = encrypted.decrypt(passphrase).map_err(|_| IssueError::WrongPassphrase)?;
    // What a wrong passphrase gives looks like padding now and then, and never like a key.
    let parsed = PrivateKeyInfoRef::try_from(key.as_bytes()).map_err(|_| IssueError::WrongPassphrase)?;
    parsed.encoded_len().map_err(|_| IssueError::WrongPassphrase)?;
    key.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|error| failed(&error))
}

const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// OWASP's Password Storage Cheat Sheet asks for 2^17 where passwords of many people are at stake and for 2^15 with more
/// lanes; here one strong passphrase is, and hubs may be small.
const SCRYPT_LOG_N: u8 = 15;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::issue::{CertificateAuthority, KeyType, Validity};

    #[test]
    fn an_encrypted_key_needs_its_passphrase() {
        let validity = Validity::from_now(Duration::from_secs(3600));
        for key_type in [KeyType::P256, KeyType::Ed25519] {
            let made = CertificateAuthority::generate("example", key_type, validity).unwrap();
            let certificate = made.certificate_pem();
            let encrypted = made.encrypted_key_pem(b"correct horse").unwrap();
            assert!(is_encrypted(&encrypted) && !is_encrypted(&made.key_pem()));
            let read = |key: &str, passphrase| CertificateAuthority::read(certificate, key, passphrase);
            assert_eq!(read(&encrypted, Some(b"correct horse")).unwrap().spki_sha256(), made.spki_sha256());
            assert!(matches!(read(&encrypted, Some(b"battery staple")), Err(IssueError::WrongPassphrase)));
            assert!(matches!(read(&encrypted, None), Err(IssueError::KeyEncrypted)));
            // Plain keys go on working, whatever passphrase is at hand.
            assert!(read(&made.key_pem(), None).is_ok() && read(&made.key_pem(), Some(b"x")).is_ok());
            assert_ne!(*made.encrypted_key_pem(b"correct horse").unwrap(), *encrypted, "salted");
        }
    }

    #[test]
    fn what_is_no_encrypted_key_is_refused() {
        for bad in ["", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"] {
            assert!(decrypt(bad, b"x").is_err());
        }
    }
}
