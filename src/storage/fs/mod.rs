//! A local directory (`file:///…`): the root of a repository on a disk or a network mount.
//!
//! The root is held open from its first use, and everything is named relative to it. So the answer "no
//! such name" comes from the very directory whose identity was read before, not from an empty mount point
//! that appeared in between. When the path stops leading to the directory that is held (unmounted,
//! replaced), every call fails from then on: another directory is another repository.
//!
//! Files are made with mode 0640 and directories with 0750, less what the umask takes: a group can be let
//! in to read, nobody else. Nothing is cleaned up: the `.pitr-tmp-…` file of a killed writer is never
//! shown, and is left to `expire`.

mod list;
mod write;

use std::collections::HashSet;
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Created, ObjectInfo, ObjectWriter, Storage, StorageError, StorageErrorKind, name};
use crate::durable;

/// A repository's root in a local directory.
#[derive(Debug)]
pub struct FsStorage {
    path: PathBuf,
    url: String,
    root: Mutex<Option<Arc<OwnedFd>>>,
    /// Folders whose names this process knows to be durable, up to the root.
    synced_folders: Mutex<HashSet<PathBuf>>,
}

impl FsStorage {
    /// The directory at `path`, which need not be there yet. Nothing is touched before the first call.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let url = format!("file://{}", path.display());
        Self { path, url, root: Mutex::default(), synced_folders: Mutex::default() }
    }

    /// The root, opened; proves that the path still leads to the directory that was opened first.
    fn root(&self, action: &'static str) -> Result<Arc<OwnedFd>, StorageError> {
        let mut held = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = held.as_ref() {
            self.prove_root(action, root)?;
            return Ok(Arc::clone(root));
        }
        let opened = durable::open_dir(&self.path).map_err(|e| self.root_error(action, e.source))?;
        Ok(Arc::clone(held.insert(Arc::new(opened))))
    }

    fn prove_root(&self, action: &'static str, root: &OwnedFd) -> Result<(), StorageError> {
        let ours = rustix::fs::fstat(root).map_err(|e| self.root_error(action, e.into()))?;
        let there = rustix::fs::stat(&self.path).map_err(|e| self.root_error(action, e.into()))?;
        if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino) {
            return Ok(());
        }
        let why = "another directory stands there now: was it unmounted or replaced while in use?";
        Err(StorageError::new(StorageErrorKind::RootMissing, action, &self.url, why))
    }

    /// An error about the root itself: there "not found" means that the repository is missing.
    fn root_error(&self, action: &'static str, source: std::io::Error) -> StorageError {
        let kind = match Errno::from_io_error(&source) {
            Some(Errno::NOENT | Errno::NOTDIR) => StorageErrorKind::RootMissing,
            _ => kind_of(&source),
        };
        StorageError::new(kind, action, &self.url, source)
    }

    fn error(&self, action: &'static str, name: &str, source: std::io::Error) -> StorageError {
        StorageError::new(kind_of(&source), action, self.object(name), source)
    }

    fn durable_error(&self, action: &'static str, name: &str, error: durable::Error) -> StorageError {
        let kind = match kind_of(&error.source) {
            // A failed sync has used up its one chance, whatever the reason was.
            StorageErrorKind::Transient if error.is_sync() => StorageErrorKind::Permanent,
            kind => kind,
        };
        StorageError::new(kind, action, self.object(name), error)
    }

    fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }

    /// Opens an object for reading. `None` is proven: the root is there and still the same.
    fn open(&self, action: &'static str, name: &str) -> Result<Option<(File, u64)>, StorageError> {
        name::check(&self.url, action, name)?;
        let root = self.root(action)?;
        // Not blocking: a FIFO that somebody left here must not hang a recovery.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&root, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => {
                self.prove_nothing_is_there(action, name, &root)?;
                self.prove_root(action, &root)?;
                return Ok(None);
            }
            Err(errno) => return Err(self.error(action, name, errno.into())),
        };
        let stat = rustix::fs::fstat(&file).map_err(|e| self.error(action, name, e.into()))?;
        // Whatever else has taken an object's place has not proved that it never was there.
        let why = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(Some((file, u64::try_from(stat.st_size).unwrap_or(0)))),
            FileType::Directory => "a directory, and not a file",
            _ => "not a regular file",
        };
        Err(StorageError::new(StorageErrorKind::Permanent, action, self.object(name), why))
    }

    /// "No such file" is also the answer of a link that leads to nothing: a part of the archive that was moved to another
    /// disk, which is not mounted now.
    fn prove_nothing_is_there(
        &self,
        action: &'static str,
        name: &str,
        root: &OwnedFd,
    ) -> Result<(), StorageError> {
        let mut path = PathBuf::new();
        for part in Path::new(name) {
            path.push(part);
            let stat = match rustix::fs::statat(root, &path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(()),
                // Whatever else keeps this from being looked at, it proves nothing.
                Err(errno) => return Err(self.error(action, name, errno.into())),
            };
            let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
            if is_link && rustix::fs::statat(root, &path, AtFlags::empty()).is_err() {
                let why = "a link that leads to nothing: is the disk mounted that it leads to?";
                let link = self.object(&path.display().to_string());
                return Err(StorageError::new(StorageErrorKind::Permanent, action, link, why));
            }
        }
        Ok(())
    }

    fn read_at(&self, name: &str, file: &File, from: u64, length: u64) -> Result<Bytes, StorageError> {
        let length = usize::try_from(length)
            .map_err(|e| StorageError::new(StorageErrorKind::Permanent, "read", self.object(name), e))?;
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, from + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.error("read", name, e)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes.into())
    }
}

impl Storage for FsStorage {
    fn url(&self) -> &str {
        &self.url
    }

    fn probe_root(&self) -> Result<(), StorageError> {
        let root = self.root("open")?;
        // Opening asks for less than listing: the first entry tells whether this login may look.
        let mut entries = rustix::fs::Dir::read_from(&root).map_err(|e| self.root_error("list", e.into()))?;
        match entries.read() {
            None | Some(Ok(_)) => Ok(()),
            Some(Err(e)) => Err(self.root_error("list", e.into())),
        }
    }

    fn create_root(&self) -> Result<(), StorageError> {
        durable::create_dirs(&self.path, durable::DIR_MODE).map_err(|e| {
            let kind = kind_of(&e.source);
            StorageError::new(kind, "create", &self.url, e)
        })?;
        self.probe_root()
    }

    fn begin(&self, name: &str, size_hint: Option<u64>) -> Result<Box<dyn ObjectWriter + '_>, StorageError> {
        let _ = size_hint; // the file system needs none
        Ok(Box::new(write::FsWriter::begin(self, name)?))
    }

    fn read(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        match self.open("read", name)? {
            Some((file, size)) => self.read_at(name, &file, 0, size).map(Some),
            None => Ok(None),
        }
    }

    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        match self.open("read", name)? {
            Some((file, size)) => {
                let length = range.end.min(size).saturating_sub(range.start);
                self.read_at(name, &file, range.start, length).map(Some)
            }
            None => Ok(None),
        }
    }

    fn size(&self, name: &str) -> Result<Option<u64>, StorageError> {
        Ok(self.open("look at", name)?.map(|(_, size)| size))
    }

    fn list_while(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        name::check_prefix(&self.url, prefix)?;
        list::objects(self, prefix, after, visit)
    }

    fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        name::check_prefix(&self.url, prefix)?;
        list::folders(self, prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        name::check(&self.url, "delete", name)?;
        let root = self.root("delete")?;
        let removed = durable::remove_at(root.as_fd(), Path::new(name))
            .map_err(|e| self.durable_error("delete", name, e))?;
        if !removed {
            self.prove_root("delete", &root)?;
        }
        Ok(())
    }

    fn create_only(&self) -> bool {
        true
    }

    fn set_create_only(&self, _holds: bool) {
        // Measured or not: renaming without clobber is the kernel's promise, not a server's.
    }

    fn raw_conditional_put(&self, name: &str, bytes: Bytes) -> Result<bool, StorageError> {
        Ok(self.create(name, bytes)? == Created::New)
    }
}

/// What a caller can do about an answer of the operating system.
fn kind_of(error: &std::io::Error) -> StorageErrorKind {
    match Errno::from_io_error(error) {
        // A part of the name that is a file where a folder should be is for the operator, as a missing
        // permission is: nothing that passes, and no proof of absence.
        Some(Errno::ACCESS | Errno::PERM | Errno::NOTDIR) => StorageErrorKind::Denied,
        Some(Errno::ROFS) => StorageErrorKind::ReadOnly,
        Some(Errno::NOSPC | Errno::DQUOT) => StorageErrorKind::Full,
        // A network file system that is away for a moment, or a process short of descriptors.
        Some(
            Errno::STALE
            | Errno::TIMEDOUT
            | Errno::AGAIN
            | Errno::INTR
            | Errno::HOSTUNREACH
            | Errno::HOSTDOWN
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::NOTCONN
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM,
        ) => StorageErrorKind::Transient,
        _ => StorageErrorKind::Permanent,
    }
}
