//! The file of `[log] key_log_file`: what opens recorded packets, for whoever may read it.
//!
//! It is only ever added to, and refused unless its owner alone may use it. What stands in it:
//! [`crypto::key_log`](crate::crypto::key_log).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, anyhow};
use rustls::KeyLog;

use crate::crypto::key_log::{is_logged, key_line};

/// A key log that is written.
pub(super) struct KeyLogFile {
    file: Mutex<File>,
    is_failing: AtomicBool,
}

impl KeyLogFile {
    /// Opens the file, or makes it, and says so in the log.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let failed = || format!("[log] key_log_file {} cannot be opened", path.display());
        // A pipe that nobody reads would stop the node.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).custom_flags(flags).open(path).with_context(failed)?;
        let metadata = file.metadata().with_context(failed)?;
        if !metadata.is_file() {
            return Err(anyhow!("[log] key_log_file {} is no regular file", path.display()));
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            let path = path.display();
            return Err(anyhow!(
                "[log] key_log_file {path} may be used by others than its owner (mode {mode:04o}); run: chmod 600 {path}"
            ));
        }
        tracing::warn!(
            file = %path.display(),
            "KEY LOG IS ON: whoever reads the file can read everything that sessions made from now on carry, recorded or not"
        );
        Ok(Self { file: Mutex::new(file), is_failing: AtomicBool::new(false) })
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, id: &[u8], secret: &[u8]) {
        if !is_logged(label) {
            return;
        }
        let line = key_line(label, id, secret);
        let written = self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
        match written {
            Ok(()) => self.is_failing.store(false, Ordering::Relaxed),
            Err(error) if !self.is_failing.swap(true, Ordering::Relaxed) => {
                tracing::error!(%error, "key log cannot be written");
            }
            Err(_) => {}
        }
    }

    fn will_log(&self, label: &str) -> bool {
        is_logged(label)
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLogFile")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let log = KeyLogFile::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        log.log("LONGHAUL_SUITE", &[1], &[2]);
        log.log("EXPORTER_SECRET", &[1], &[2]);
        // Another node, or this one after a restart, adds to it.
        KeyLogFile::open(&path).unwrap().log("LONGHAUL_SUITE", &[3], &[4]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "LONGHAUL_SUITE 01 02\nLONGHAUL_SUITE 03 04\n");
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = KeyLogFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
        assert!(KeyLogFile::open(folder.path()).is_err());
    }
}
