//! What can go wrong with the state, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::crypto::token::TokenId;

/// Why the state could not be read or written. Nothing was acted on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The authority's key could not sign the denylist.
    #[error("the denylist cannot be signed: {reason}")]
    Signature {
        /// What the key says.
        reason: String,
    },
    /// There is no state.
    #[error("{} is not there; `longhaul hub init` makes it", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is to be made, and something is there.
    #[error("{} is there already", path.display())]
    Exists {
        /// Where it is.
        path: PathBuf,
    },
    /// Another process uses it, and does not stop.
    #[error("{} is in use by another process for longer than a transaction takes; try again", path.display())]
    Busy {
        /// Where it is.
        path: PathBuf,
    },
    /// A later version of the program has changed its form.
    #[error("{} has schema {found}, this program knows up to {known}; use the newer program that wrote it", path.display())]
    Newer {
        /// Where it is.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What this program knows.
        known: u64,
    },
    /// The system did not let us.
    #[error("{} cannot be used: {source}{}", path.display(), advice(source))]
    Io {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{} is damaged: {reason}; restore it from a copy", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is a token with this id.
    #[error("there is a token {id} already")]
    TokenExists {
        /// Its id.
        id: TokenId,
    },
    /// A certificate without a reservation.
    #[error("there is no reservation for this request with token {id}")]
    NotReserved {
        /// The token's id.
        id: TokenId,
    },
}

impl StoreError {
    /// What redb says, in our words.
    pub(super) fn of(path: &Path, error: redb::Error) -> Self {
        let path = path.to_owned();
        match error {
            redb::Error::Io(source) if source.kind() == io::ErrorKind::NotFound => Self::Missing { path },
            redb::Error::Io(source) => Self::Io { path, source },
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Busy { path },
            other => Self::Damaged { path, reason: other.to_string() },
        }
    }
}

/// What an operator can do.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room on its file system",
        io::ErrorKind::ReadOnlyFilesystem => "; its file system is mounted read-only",
        io::ErrorKind::PermissionDenied => "; it has to belong to the user that runs this, and its directory too",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_can_mend_is_said() {
        let of = |kind: io::ErrorKind| StoreError::of(Path::new("state"), redb::Error::Io(kind.into())).to_string();
        for (kind, word) in [
            (io::ErrorKind::StorageFull, "make room"),
            (io::ErrorKind::ReadOnlyFilesystem, "read-only"),
            (io::ErrorKind::PermissionDenied, "belong to the user"),
            (io::ErrorKind::NotFound, "hub init"),
        ] {
            assert!(of(kind).contains(word), "{}", of(kind));
        }
        let damaged = StoreError::of(Path::new("state"), redb::Error::Corrupted("a page".to_owned()));
        assert!(damaged.to_string().contains("restore it"), "{damaged}");
    }
}
