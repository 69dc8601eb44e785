//! Reads files with private keys, and refuses those that others may read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system did not let us.
    #[error("{} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// Larger than anything that belongs there.
    #[error("{} has more than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Group or others may read or write it.
    #[cfg(unix)]
    #[error("{} may be used by others than its owner (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// Whether the service manager has handed a file over: it may do so by an access list, which shows as a permission to read
/// for the group.
#[cfg(unix)]
fn is_credential(path: &Path, mode: u32, directory: Option<&std::ffi::OsStr>) -> bool {
    mode & 0o037 == 0 && directory.is_some_and(|directory| path.starts_with(directory))
}

/// Reads a file that only its owner may use.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = file.metadata().map_err(|reason| FileError::Unreadable { path: path.to_owned(), reason })?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 && !is_credential(path, mode, std::env::var_os("CREDENTIALS_DIRECTORY").as_deref()) {
            return Err(FileError::TooOpen { path: path.to_owned(), mode });
        }
    }
    read(file, path)
}

/// Reads a file that anybody may read.
pub(crate) fn read_public(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(open(path)?, path)
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|reason| FileError::Unreadable { path: path.to_owned(), reason })
}

/// All of it into one allocation, so that no copy of a key is left behind by growth.
fn read(file: File, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    let limit = u64::try_from(FILE_BYTES_MAX + 1).unwrap_or(u64::MAX);
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|reason| FileError::Unreadable { path: path.to_owned(), reason })?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// A configuration of thousands of services fits.
const FILE_BYTES_MAX: usize = 1024 * 1024;

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn credentials_may_be_readable_by_access_list() {
        let directory = Some(std::ffi::OsStr::new("/run/credentials/x.service"));
        let key = Path::new("/run/credentials/x.service/node.key");
        assert!(is_credential(key, 0o440, directory));
        assert!(!is_credential(key, 0o444, directory) && !is_credential(key, 0o460, directory));
        assert!(!is_credential(Path::new("/etc/node.key"), 0o440, directory));
        assert!(!is_credential(key, 0o440, None));
    }
}
