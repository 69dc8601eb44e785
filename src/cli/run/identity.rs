//! Watches the files of the identity, and goes on with what replaces them: the next handshakes have the new certificate,
//! key and anchors, and what is established stays.
//!
//! The files are looked at, not listened to: whoever replaces them may write, rename, or turn a link to another directory,
//! and the file system may be a network's.

use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::config::{IdentityFiles, SystemFiles, text};
use crate::crypto::identity::{Identity, TlsSettings, TrustAnchors};

/// Runs as long as the node.
pub(super) async fn watch(files: IdentityFiles, tls: TlsSettings) {
    // Nothing is known at first: the files may have been replaced since they were read.
    let mut watched = Watched { stamp: Stamp::default(), files, tls, complaint: None };
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        // Files may be on a slow disk.
        match tokio::task::spawn_blocking(move || watched.look()).await {
            Ok(same) => watched = same,
            Err(error) => return tracing::error!(%error, "the identity is not watched any more"),
        }
    }
}

struct Watched {
    files: IdentityFiles,
    tls: TlsSettings,
    /// Of the files that are in use, or were refused.
    stamp: Stamp,
    /// What is wrong with the files that were found last. They may be complete a moment later, so that it is only told
    /// when they are found so again.
    complaint: Option<(Stamp, String)>,
}

impl Watched {
    fn look(mut self) -> Self {
        let stamp = Stamp::of(&self.files);
        if stamp == self.stamp {
            return self;
        }
        match self.exchange() {
            Ok(()) => (self.stamp, self.complaint) = (stamp, None),
            Err(reason) if self.complaint.as_ref().is_some_and(|(seen, _)| *seen == stamp) => {
                tracing::error!(reason, "the new identity cannot be used; the one before stays in use");
                (self.stamp, self.complaint) = (stamp, None);
            }
            Err(reason) => self.complaint = Some((stamp, reason)),
        }
        self
    }

    fn exchange(&self) -> Result<(), String> {
        let (identity, anchors) = self.files.read(&SystemFiles, self.tls.provider())?;
        let before = (self.tls.identity(), self.tls.trust().anchors(identity.node_id().trust_domain()));
        let (until, count) = (identity.not_after_unix(), anchors.count());
        let is_same = is_same(&before, &identity, &anchors);
        self.tls.exchange(identity, anchors).map_err(|error| error.to_string())?;
        if !is_same {
            tracing::info!(until = text::date(until), trust_anchors = count, "identity exchanged");
        }
        Ok(())
    }
}

/// Files that were only touched are no news.
fn is_same(before: &(Identity, Option<TrustAnchors>), identity: &Identity, anchors: &TrustAnchors) -> bool {
    before.0.chain() == identity.chain()
        && before.1.as_ref().is_some_and(|before| before.roots().roots == anchors.roots().roots)
}

/// By what a file that was replaced or written differs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stamp([Option<FileStamp>; 3]);

/// Device, inode, size, and the times of its last writing and of its last change.
pub(super) type FileStamp = (u64, u64, u64, i128, i128);

impl Stamp {
    fn of(files: &IdentityFiles) -> Self {
        Self([&files.certificate, &files.key, &files.trust_anchors].map(|path| file_stamp(path).ok()))
    }
}

/// Follows links, which is how many at once are replaced.
pub(super) fn file_stamp(path: &Path) -> io::Result<FileStamp> {
    use std::os::unix::fs::MetadataExt;
    let found: Metadata = path.metadata()?;
    let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    let written = nanoseconds(found.mtime(), found.mtime_nsec());
    Ok((found.dev(), found.ino(), found.len(), written, nanoseconds(found.ctime(), found.ctime_nsec())))
}

/// Three looks at metadata, which the system has at hand.
const INTERVAL: Duration = Duration::from_secs(1);
