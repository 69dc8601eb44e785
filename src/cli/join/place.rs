//! The directory of a node that joins: which files, in which order, so that every crash can be gone on from.
//!
//! 1. `join.key` and `join.csr`: the key and the request. As long as `join.csr` is there, joining is not complete.
//! 2. The answer of the hub: anchors, certificate, key and configuration, each by rename.
//! 3. `join.csr` and `join.key` are removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::super::CliError;
use super::super::clock::now_unix;
use super::super::new_files::{NewFile, write_all};
use crate::config::secret_file::{read_private, read_public};
use crate::crypto::identity::{Identity, NodeId, default_provider};
use crate::issue::{KeyType, NodeKey};

/// The node's certificate.
pub(super) const CERTIFICATE: &str = "node.crt";

/// Its key.
pub(super) const KEY: &str = "node.key";

/// The authority's certificate.
pub(super) const ANCHORS: &str = "ca.crt";

const CONFIG: &str = "node.toml";
const PENDING_KEY: &str = "join.key";
const PENDING_REQUEST: &str = "join.csr";

/// The directory.
#[derive(Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The node that is there with a certificate that holds, and until when.
    pub(super) fn existing(&self) -> Result<Option<(NodeId, u64)>, CliError> {
        if self.path(PENDING_REQUEST).exists() || !self.path(CERTIFICATE).exists() {
            return Ok(None);
        }
        let certificate = read_public(&self.path(CERTIFICATE)).map_err(anyhow::Error::new)?;
        let key = read_private(&self.path(KEY)).map_err(anyhow::Error::new)?;
        let identity = Identity::from_pem(&certificate, &key, &default_provider())
            .with_context(|| format!("{} cannot be used; --force joins anew", self.path(CERTIFICATE).display()));
        let identity = identity?;
        let until = identity.not_after_unix();
        Ok((until > now_unix()).then(|| (identity.node_id().clone(), until)))
    }

    /// The request, DER: the one that was begun with, or a new one.
    pub(super) fn request(&self) -> Result<Vec<u8>, CliError> {
        if let Some(request) = self.pending_request()? {
            return Ok(request);
        }
        let key = NodeKey::generate(KeyType::P256).map_err(anyhow::Error::new)?;
        let request = key.request().map_err(anyhow::Error::new)?;
        let pem = key.to_pem();
        let file = NewFile { path: self.path(PENDING_KEY), contents: &pem, is_private: true };
        write_all(&self.0, &[file], true)?;
        self.sync()?;
        let hex: String = request.iter().map(|byte| format!("{byte:02x}")).collect();
        let file = NewFile { path: self.path(PENDING_REQUEST), contents: &hex, is_private: false };
        write_all(&self.0, &[file], true)?;
        self.sync()?;
        Ok(request)
    }

    /// Puts everything where a node looks for it. A configuration that is there is left alone.
    pub(super) fn finish(&self, certificate: &str, authority: &str, config: &str) -> Result<(), CliError> {
        let key = read_private(&self.path(PENDING_KEY)).map_err(anyhow::Error::new)?;
        let key = std::str::from_utf8(&key).map_err(|_| anyhow::anyhow!("{PENDING_KEY} is not PEM"))?;
        let new = |name: &str, contents, is_private| NewFile { path: self.path(name), contents, is_private };
        let files = [new(ANCHORS, authority, false), new(KEY, key, true), new(CERTIFICATE, certificate, false)];
        write_all(&self.0, &files, true)?;
        if self.path(CONFIG).symlink_metadata().is_err() {
            write_all(&self.0, &[new(CONFIG, config, false)], true)?;
        }
        self.sync()?;
        for name in [PENDING_REQUEST, PENDING_KEY] {
            let path = self.path(name);
            fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
            self.sync()?;
        }
        Ok(())
    }

    /// What is there in the end, with what it is.
    pub(super) fn files(&self) -> [(PathBuf, &'static str); 4] {
        [
            (self.path(KEY), "the node's private key, which never leaves this machine"),
            (self.path(CERTIFICATE), "its certificate"),
            (self.path(ANCHORS), "the trust anchor"),
            (self.config(), "its configuration, with a link to the hub"),
        ]
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path(CONFIG)
    }

    /// A request whose key is gone is worth nothing.
    fn pending_request(&self) -> Result<Option<Vec<u8>>, CliError> {
        let (request, key) = (self.path(PENDING_REQUEST), self.path(PENDING_KEY));
        if !(request.exists() && key.exists()) {
            return Ok(None);
        }
        let digits = read_public(&request).map_err(anyhow::Error::new)?;
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let der: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        Ok(der.filter(|der| !der.is_empty()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A rename is on the disk when its directory is.
    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.0)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_same_until_the_node_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(&directory.path().join("node"));
        assert!(place.existing().unwrap().is_none());
        let request = place.request().unwrap();
        assert_eq!(Place::new(&directory.path().join("node")).request().unwrap(), request);
        place.finish("certificate", "authority", "config").unwrap();
        let names = |place: &Place| fs::read_dir(&place.0).unwrap().count();
        assert_eq!(names(&place), 4);
        assert_ne!(place.request().unwrap(), request);
        // Without its key a request is made anew.
        let second = place.request().unwrap();
        fs::remove_file(place.path(PENDING_KEY)).unwrap();
        assert_ne!(place.request().unwrap(), second);
        fs::write(place.path(CONFIG), "mine").unwrap();
        place.finish("certificate", "authority", "config").unwrap();
        assert_eq!(fs::read_to_string(place.config()).unwrap(), "mine");
    }
}
