//! Binding a Unix socket: replacing what a dead process left, and nothing else; and who may connect.
//!
//! The directory is locked (`flock`) while a socket in it is bound, so that of two processes that start at once one
//! does not take the other's new socket for a stale one.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, Mode, Uid, chownat, fchmod, flock};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use super::inherited;
use super::listen_error::ListenError;

/// Options of Unix sockets that are listened on.
#[derive(Clone, Debug, PartialEq)]
pub struct UnixOptions {
    /// Permissions of the socket file: who may write to it may connect.
    pub mode: u32,
    /// Owner of the socket file; `None` leaves this process's.
    pub uid: Option<u32>,
    /// Group of the socket file; `None` leaves this process's.
    pub gid: Option<u32>,
    /// Users that may connect.
    pub allow_uids: Vec<u32>,
    /// Groups that may connect, by the peer's effective group. With both lists empty, the file's permissions decide
    /// alone.
    pub allow_gids: Vec<u32>,
}

impl Default for UnixOptions {
    fn default() -> Self {
        Self { mode: 0o660, uid: None, gid: None, allow_uids: Vec::new(), allow_gids: Vec::new() }
    }
}

impl UnixOptions {
    /// Whether a peer may connect: its user or its group is on a list, or both lists are empty.
    #[must_use]
    pub fn allows(&self, peer: PeerCredentials) -> bool {
        (self.allow_uids.is_empty() && self.allow_gids.is_empty())
            || self.allow_uids.contains(&peer.uid)
            || self.allow_gids.contains(&peer.gid)
    }
}

/// Who is at the other end of a Unix socket, as the system tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, where the system tells it.
    pub pid: Option<i32>,
}

impl PeerCredentials {
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() })
    }
}

/// A bound Unix socket, whose file is removed with it if it is still the same, and not the service manager's.
#[derive(Debug)]
pub(crate) struct BoundUnix {
    pub(crate) listener: UnixListener,
    _removal: Option<Removal>,
}

impl BoundUnix {
    pub(crate) async fn bind(path: &Path, options: &UnixOptions, backlog: u32) -> Result<Self, ListenError> {
        let bind_error = |source| ListenError::Bind { address: format!("unix://{}", path.display()), source };
        if let Some(socket) = inherited::unix_at(path) {
            // Its file, owner and mode are those of the service manager.
            let listener = socket.and_then(|socket| UnixListener::from_std(socket.into())).map_err(bind_error)?;
            return Ok(Self { listener, _removal: None });
        }
        let _lock = lock_directory(path).await?;
        remove_stale(path)?;
        let socket = bind_private(path).map_err(bind_error)?;
        let file = FileId::of(path).map_err(bind_error)?;
        // From here on the file is ours to remove.
        let removal = Removal { path: path.to_owned(), file };
        set_owner(path, options).map_err(|source| ListenError::Owner { path: path.to_owned(), source })?;
        let listener = listen(socket, backlog).map_err(bind_error)?;
        Ok(Self { listener, _removal: Some(removal) })
    }
}

/// Removes the file when dropped.
#[derive(Debug)]
struct Removal {
    path: PathBuf,
    file: FileId,
}

impl Drop for Removal {
    fn drop(&mut self) {
        remove_if_same(&self.path, self.file);
    }
}

/// What tells a file from another one that took its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|metadata| Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

fn remove_if_same(path: &Path, file: FileId) {
    if FileId::of(path).is_ok_and(|current| current == file)
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "unix socket not removed");
    }
}

async fn lock_directory(path: &Path) -> Result<File, ListenError> {
    let no_directory = || ListenError::NoDirectory { path: path.to_owned() };
    let directory = path.parent().filter(|directory| directory.is_dir()).ok_or_else(no_directory)?;
    let directory = File::open(directory)
        .map_err(|source| ListenError::Bind { address: format!("unix://{}", path.display()), source })?;
    for _ in 0..LOCK_ATTEMPTS {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(error) => {
                // Some network file systems have no locks; the socket is bound without.
                tracing::debug!(path = %path.display(), %error, "directory of unix socket not locked");
                return Ok(directory);
            }
        }
    }
    Err(ListenError::Locked { path: path.to_owned() })
}

/// Removes a socket that nobody listens on. Anything else at the path is an error.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let probe_error = |source| ListenError::Probe { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(probe_error(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    let probed = FileId::of(path).map_err(probe_error)?;
    match probe(path) {
        Ok(()) => Err(ListenError::InUse { path: path.to_owned() }),
        Err(error) => match error.kind() {
            // WouldBlock: somebody listens, and the backlog is full.
            io::ErrorKind::WouldBlock => Err(ListenError::InUse { path: path.to_owned() }),
            io::ErrorKind::ConnectionRefused => {
                remove_if_same(path, probed);
                tracing::info!(path = %path.display(), "stale unix socket removed");
                Ok(())
            }
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(probe_error(error)),
        },
    }
}

fn probe(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// Binds without a moment at which others may connect: nobody listens yet, and on Linux the file takes over the mode
/// that the socket was given. The umask is the process's own and stays untouched.
fn bind_private(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if cfg!(target_os = "linux") {
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    }
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// The owner first, the wider mode after it. Neither follows a link: what stands at the path was bound just now.
fn set_owner(path: &Path, options: &UnixOptions) -> io::Result<()> {
    if options.uid.is_some() || options.gid.is_some() {
        let (uid, gid) = (options.uid.map(Uid::from_raw), options.gid.map(Gid::from_raw));
        chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    fs::set_permissions(path, Permissions::from_mode(options.mode & 0o777))
}

fn listen(socket: Socket, backlog: u32) -> io::Result<UnixListener> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

/// A lock is held for less than a millisecond.
const LOCK_ATTEMPTS: u32 = 50;

/// Between attempts to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn place() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        (directory, path)
    }

    async fn bind(path: &Path) -> Result<BoundUnix, ListenError> {
        BoundUnix::bind(path, &UnixOptions::default(), 16).await
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let (_directory, path) = place();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _bound = bind(&path).await.unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_live_socket_is_left_alone() {
        let (_directory, path) = place();
        let live = bind(&path).await.unwrap();
        assert!(matches!(bind(&path).await, Err(ListenError::InUse { .. })));
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(live);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let (directory, path) = place();
        fs::write(&path, "mine").unwrap();
        assert!(matches!(bind(&path).await, Err(ListenError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let link = directory.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(bind(&link).await, Err(ListenError::NotASocket { .. })));
        assert!(matches!(bind(&path.join("below")).await, Err(ListenError::NoDirectory { .. })));
    }

    #[tokio::test]
    async fn a_file_that_took_the_name_is_not_removed() {
        let (_directory, path) = place();
        let bound = bind(&path).await.unwrap();
        let other = path.with_extension("new");
        fs::write(&other, "mine").unwrap();
        fs::rename(&other, &path).unwrap();
        drop(bound);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn the_mode_is_the_wanted_one() {
        let (_directory, path) = place();
        for mode in [0o660, 0o600, 0o666] {
            let options = UnixOptions { mode, ..UnixOptions::default() };
            let _bound = BoundUnix::bind(&path, &options, 16).await.unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_new_socket_is_private() {
        let (_directory, path) = place();
        let _socket = bind_private(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o077, 0);
    }

    #[tokio::test]
    async fn an_owner_that_cannot_be_set_leaves_nothing_behind() {
        let (_directory, path) = place();
        let ours = rustix::process::geteuid();
        let options = UnixOptions { uid: Some(12_345), gid: Some(12_345), ..UnixOptions::default() };
        let outcome = BoundUnix::bind(&path, &options, 16).await;
        if ours.is_root() {
            let bound = outcome.unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (12_345, 12_345));
            drop(bound);
        } else {
            assert!(matches!(outcome, Err(ListenError::Owner { .. })));
        }
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_directory_that_stays_locked_is_an_error() {
        let (directory, path) = place();
        let lock = File::open(directory.path()).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert!(matches!(bind(&path).await, Err(ListenError::Locked { .. })));
        drop(lock);
        bind(&path).await.unwrap();
    }

    #[test]
    fn a_peer_is_allowed_by_its_user_or_its_group() {
        let peer = PeerCredentials { uid: 1, gid: 2, pid: None };
        let allows = |uids: &[u32], gids: &[u32]| {
            UnixOptions { allow_uids: uids.to_vec(), allow_gids: gids.to_vec(), ..UnixOptions::default() }.allows(peer)
        };
        assert!(allows(&[], &[]) && allows(&[1], &[]) && allows(&[], &[2]) && allows(&[9], &[2]));
        assert!(!allows(&[2], &[]) && !allows(&[], &[1]) && !allows(&[9], &[9]));
    }
}
