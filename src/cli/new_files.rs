//! Writes certificates and keys: keys for their owner only, and nothing over what is there without being told to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A file to be written.
pub(in crate::cli) struct NewFile<'a> {
    /// Where.
    pub(in crate::cli) path: PathBuf,
    /// What.
    pub(in crate::cli) contents: &'a str,
    /// Whether only its owner may read it.
    pub(in crate::cli) is_private: bool,
}

/// Writes all files, or none if one is there already and `is_forced` is not set.
pub(in crate::cli) fn write_all(directory: &Path, files: &[NewFile<'_>], is_forced: bool) -> anyhow::Result<()> {
    create_directory(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    for file in files.iter().filter(|_| !is_forced) {
        if file.path.symlink_metadata().is_ok() {
            anyhow::bail!("{} is there already; --force overwrites it", file.path.display());
        }
    }
    files.iter().try_for_each(|file| {
        write(file, is_forced).with_context(|| format!("{} cannot be written", file.path.display()))
    })
}

/// By way of a temporary file when there is something to replace, so that a running node never sees a half.
fn write(file: &NewFile<'_>, is_forced: bool) -> io::Result<()> {
    if !is_forced {
        return fill(create(&file.path, file.is_private)?, file.contents);
    }
    let mut temporary = file.path.clone().into_os_string();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = create(&temporary, file.is_private)
        .and_then(|new| fill(new, file.contents))
        .and_then(|()| fs::rename(&temporary, &file.path));
    if written.is_err() {
        // Best effort: the error that matters is the one above.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn fill(mut file: File, contents: &str) -> io::Result<()> {
    file.write_all(contents.as_bytes())?;
    file.sync_all()
}

fn create(path: &Path, is_private: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if is_private { 0o600 } else { 0o644 });
    #[cfg(not(unix))]
    let _ = is_private;
    options.open(path)
}

fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder.create(path)
}
