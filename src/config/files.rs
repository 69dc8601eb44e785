//! How the files that a configuration names are read: those of the system, or of whoever checks a text without them.

use std::path::Path;

use zeroize::Zeroizing;

use super::secret_file::{FileError, read_private, read_public};
use crate::channel::InheritedSockets;

/// Reads the files that a configuration names.
pub trait Files {
    /// A file that anybody may read.
    ///
    /// # Errors
    /// [`FileError`], which is told at the place that names the file.
    fn read_public(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError>;

    /// A file that only its owner may use.
    ///
    /// # Errors
    /// As [`read_public`](Self::read_public), and when others may use it.
    fn read_private(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError>;

    /// The sockets that `tcp://systemd:NAME` may mean; `None` where that is not known.
    fn sockets(&self) -> Option<&InheritedSockets> {
        None
    }
}

/// The files of the system.
#[derive(Clone, Copy, Debug)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn read_public(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
        read_public(path)
    }

    fn read_private(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
        read_private(path)
    }

    fn sockets(&self) -> Option<&InheritedSockets> {
        InheritedSockets::of_process()
    }
}
