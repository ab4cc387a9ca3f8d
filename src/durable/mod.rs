//! The only place that creates, renames or syncs a local file.
//!
//! A name that survives a power cut needs three things in this order: the bytes on disk before the name
//! points at them, the name on disk before anybody is told, and the same for every directory above. A
//! caller that did this by itself would forget one; here each sync stands beside its reason.
//!
//! A sync that failed is never tried again: after a failed write-back Linux marks the pages clean, and the
//! next `fsync` of the same bytes answers success for data that never arrived. Such a failure is final for
//! that file ([`Error::is_sync`]); the caller begins a new one.
//!
//! Run by root below a directory of somebody else (`sudo pitr backup` into the repository of `postgres`),
//! what is created here belongs to the owner of the directory it lies in. Otherwise the server could not
//! write beside it a minute later.

mod new_file;
mod tree;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

pub use new_file::{NewFile, Published, SetAside, take_aside};
pub use tree::{Claim, Marker, Owner, TreeSync, create_dir, create_file, create_symlink, marker_is_held};

/// What a temporary name starts with. Readers never show such names.
pub const TEMP_PREFIX: &str = ".pitr-tmp-";
/// Files: their owner writes, a group may be let in to read. The process's umask takes bits away.
pub const FILE_MODE: u32 = 0o640;
/// Directories: as [`FILE_MODE`].
pub const DIR_MODE: u32 = 0o750;

/// Takes the owner's own rights out of the process's umask: an object that its writer may not read is no copy.
pub fn keep_own_rights() {
    let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    rustix::process::umask(mask - Mode::RWXU);
}

/// A step that failed, on which path. The operating system's answer is the source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub struct Error {
    /// The step, as a verb with its object: "sync the file".
    pub step: &'static str,
    /// The path as far as it is known here (below an open directory it is relative to it).
    pub path: PathBuf,
    /// The operating system's answer.
    pub source: io::Error,
}

const SYNC_FILE: &str = "sync the file";
const SYNC_DIR: &str = "sync the directory";
const SYNC_FILE_SYSTEM: &str = "sync the file system of";

impl Error {
    fn new(step: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self { step, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// Whether a sync failed: what was written since the last good one may be lost, whatever a later sync
    /// of the same file says.
    pub fn is_sync(&self) -> bool {
        [SYNC_FILE, SYNC_DIR, SYNC_FILE_SYSTEM].contains(&self.step)
    }
}

/// Durably replaces the file at `path` by `bytes`: for state that this host keeps for itself.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let mut file = NewFile::create_beside(path, mode)?;
    file.write_all(bytes).map_err(|e| Error::new("write", path, e))?;
    file.replace(file_name_of(path)?)
}

/// Durably creates the file at `path` with `bytes`, unless the name is taken.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<Published, Error> {
    let mut file = NewFile::create_beside(path, mode)?;
    file.write_all(bytes).map_err(|e| Error::new("write", path, e))?;
    file.publish(file_name_of(path)?)
}

/// Opens an existing directory.
pub fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    open_dir_at(rustix::fs::CWD, path)
}

/// Opens an existing directory below an open one.
pub fn open_dir_at(at: impl AsFd, path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::new("open the directory", path, e))
}

/// Makes the directory `path` with its missing parents; durable when it returns. Whether anything was
/// missing is the answer.
pub fn create_dirs(path: &Path, mode: u32) -> Result<bool, Error> {
    create_dirs_at(rustix::fs::CWD, path, mode)
}

/// As [`create_dirs`], below an open directory.
pub fn create_dirs_at(at: impl AsFd, path: &Path, mode: u32) -> Result<bool, Error> {
    let mut walked = PathBuf::new();
    let mut created = false;
    for part in path.components() {
        let parent = if walked.as_os_str().is_empty() { PathBuf::from(".") } else { walked.clone() };
        walked.push(part);
        if !matches!(part, Component::Normal(_)) {
            continue;
        }
        match rustix::fs::mkdirat(&at, &walked, Mode::from_raw_mode(mode)) {
            Ok(()) => {
                let (above, made) = (open_dir_at(&at, &parent)?, open_dir_at(&at, &walked)?);
                inherit_owner(&above, &made, &walked)?;
                // A directory's name lives in the directory above; a file in it is lost with it.
                rustix::fs::fsync(&above).map_err(|e| Error::new(SYNC_DIR, &parent, e))?;
                created = true;
            }
            // A file of that name fails when it is opened as a directory, and says so then.
            Err(Errno::EXIST) => {}
            // Read-only and existing is fine; the one that does not exist will say it.
            Err(errno) if open_dir_at(&at, &walked).is_err() => {
                return Err(Error::new("create the directory", &walked, errno));
            }
            Err(_) => {}
        }
    }
    Ok(created)
}

/// Syncs every directory from the open one down to `path`: for names that another process made and, if it
/// was killed, has not synced.
pub fn sync_dirs_at(at: impl AsFd, path: &Path) -> Result<(), Error> {
    rustix::fs::fsync(open_dir_at(&at, Path::new("."))?).map_err(|e| Error::new(SYNC_DIR, ".", e))?;
    let mut walked = PathBuf::new();
    for part in path.components() {
        walked.push(part);
        sync_dir_at(&at, &walked)?;
    }
    Ok(())
}

/// Makes the names in a directory durable: after creations, renames and removals in it.
pub fn sync_dir(path: &Path) -> Result<(), Error> {
    sync_dir_at(rustix::fs::CWD, path)
}

/// As [`sync_dir`], below an open directory.
pub fn sync_dir_at(at: impl AsFd, path: &Path) -> Result<(), Error> {
    rustix::fs::fsync(open_dir_at(at, path)?).map_err(|e| Error::new(SYNC_DIR, path, e))
}

/// Makes the bytes of an open file durable, whoever wrote them. Once for a file: see the module's text.
pub fn sync_file(file: impl AsFd, path: &Path) -> Result<(), Error> {
    rustix::fs::fsync(file).map_err(|e| Error::new(SYNC_FILE, path, e))
}

/// Removes a name below an open directory; whether it was there is the answer. Durable when it returns.
pub fn remove_at(at: impl AsFd, path: &Path) -> Result<bool, Error> {
    match rustix::fs::unlinkat(&at, path, AtFlags::empty()) {
        Ok(()) => {
            // The order of removals must survive: a backup's description goes before its data.
            sync_dir_at(at, parent_of(path))?;
            Ok(true)
        }
        // A directory is not the file that was asked for.
        Err(Errno::NOENT | Errno::ISDIR) => Ok(false),
        Err(errno) => Err(Error::new("remove", path, errno)),
    }
}

/// Removes the file at `path`, as [`remove_at`].
pub fn remove(path: &Path) -> Result<bool, Error> {
    remove_at(rustix::fs::CWD, path)
}

/// Removes what killed processes left under temporary names in the directory where `path` will stand. What
/// cannot be looked at or removed stays: it is in nobody's way.
pub fn remove_abandoned(path: &Path) {
    let Ok(dir) = open_dir(parent_of(path)) else { return };
    let Ok(entries) = rustix::fs::Dir::read_from(&dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if new_file::is_abandoned(name.to_str().unwrap_or_default()) {
            let _ = rustix::fs::unlinkat(&dir, name, AtFlags::empty());
        }
    }
}

/// An open file without a name: gone with its last descriptor, whatever kills the process.
pub fn unnamed_file(dir: &Path) -> Result<File, Error> {
    tempfile::tempfile_in(dir).map_err(|e| Error::new("create a temporary file in", dir, e))
}

/// Opens the file at `path` for locking, made where it is missing. It holds nothing, so nothing is synced.
pub fn lock_file(path: &Path) -> Result<File, Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(FILE_MODE))
        .map(File::from)
        .map_err(|e| Error::new("open the lock", path, e))?;
    // One that root had made for itself would keep the server's user out for ever.
    inherit_owner(open_dir(parent_of(path))?, &file, path)?;
    Ok(file)
}

fn create_exclusive(at: impl AsFd, path: &Path, mode: u32) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::from_raw_mode(mode)).map(File::from)
}

fn inherit_owner(dir: impl AsFd, made: impl AsFd, path: &Path) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let above = rustix::fs::fstat(dir).map_err(|e| Error::new("look at the directory of", path, e))?;
    if above.st_uid == 0 {
        return Ok(());
    }
    let (owner, group) = (rustix::fs::Uid::from_raw(above.st_uid), rustix::fs::Gid::from_raw(above.st_gid));
    rustix::fs::fchown(made, Some(owner), Some(group))
        .map_err(|e| Error::new("give its directory's owner to", path, e))
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn file_name_of(path: &Path) -> Result<&OsStr, Error> {
    path.file_name().ok_or_else(|| Error::new("name a file at", path, Errno::ISDIR))
}

#[cfg(test)]
mod tests;
