//! Creating an object in a directory.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::FsStorage;
use crate::durable::{self, NewFile, Published};
use crate::storage::{Created, ObjectWriter, StorageError, StorageErrorKind, name};

/// An object being written under a temporary name in its folder.
pub(super) struct FsWriter<'a> {
    storage: &'a FsStorage,
    root: Arc<OwnedFd>,
    folder: PathBuf,
    name: String,
    file: NewFile,
    broken: bool,
}

impl<'a> FsWriter<'a> {
    pub(super) fn begin(storage: &'a FsStorage, name: &str) -> Result<Self, StorageError> {
        name::check(&storage.url, "store", name)?;
        let root = storage.root("store")?;
        let folder = Path::new(name).parent().map(Path::to_owned).unwrap_or_default();
        let fail = |e| storage.durable_error("store", name, e);
        // An operator may tidy an empty folder away between its making and its first file: once more, then.
        let mut file = None;
        for _ in 0..3 {
            make_folder(storage, &root, &folder).map_err(fail)?;
            match open_folder(&root, &folder).and_then(|dir| NewFile::create_in(dir, durable::FILE_MODE)) {
                Ok(new) => {
                    file = Some(new);
                    break;
                }
                Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => {
                    forget_folder(storage, &folder);
                    storage.prove_root("store", &root)?;
                }
                Err(e) => return Err(fail(e)),
            }
        }
        let Some(file) = file else {
            let why = "its folder disappears as fast as it is made";
            return Err(StorageError::new(StorageErrorKind::Transient, "store", storage.object(name), why));
        };
        Ok(Self { storage, root, folder, name: name.to_owned(), file, broken: false })
    }

    fn fail(&self, error: durable::Error) -> StorageError {
        self.storage.durable_error("store", &self.name, error)
    }

    /// Somebody stored this name before. A writer that was killed may have placed the file and not synced
    /// its name, and who sees it must not call it durable on that writer's word: sync both, then say so.
    fn confirm_existing(&self) -> Result<(), StorageError> {
        let path = Path::new(&self.name);
        let gone = || self.storage.error("sync", &self.name, std::io::ErrorKind::NotFound.into());
        let (found, _) = self.storage.open("sync", &self.name)?.ok_or_else(gone)?;
        durable::sync_file(found, path).map_err(|e| self.fail(e))?;
        durable::sync_dirs_at(self.root.as_fd(), &self.folder).map_err(|e| self.fail(e))
    }
}

impl ObjectWriter for FsWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_all(bytes).map_err(|e| {
            // How much of it was written is not known: this file is of no further use.
            self.broken = true;
            self.storage.error("store", &self.name, e)
        })
    }

    fn commit(&mut self) -> Result<Created, StorageError> {
        if self.broken {
            let why = "a write to it failed before";
            let object = self.storage.object(&self.name);
            return Err(StorageError::new(StorageErrorKind::Permanent, "store", object, why));
        }
        let name = Path::new(&self.name).file_name().unwrap_or_default().to_owned();
        let created = match self.file.publish(&name).map_err(|e| self.fail(e))? {
            Published::New => Created::New,
            Published::Exists => {
                self.confirm_existing()?;
                Created::Exists
            }
        };
        // A root that was unmounted lazily or moved away meanwhile holds the bytes where nobody looks.
        self.storage.prove_root("store", &self.root)?;
        Ok(created)
    }
}

/// Makes an object's folder, and its name durable up to the root.
///
/// Another process may have made the folder and been killed before its sync. No file is placed in a folder
/// before its name is durable; so one visible object in it proves that it is, and a folder without one is
/// synced again.
fn make_folder(storage: &FsStorage, root: &Arc<OwnedFd>, folder: &Path) -> Result<(), durable::Error> {
    let known = || storage.synced_folders.lock().unwrap_or_else(PoisonError::into_inner);
    if folder.as_os_str().is_empty() || known().contains(folder) {
        return Ok(());
    }
    let created = durable::create_dirs_at(root.as_fd(), folder, durable::DIR_MODE)?;
    if created || !holds_an_object(root, folder) {
        durable::sync_dirs_at(root.as_fd(), folder)?;
    }
    known().insert(folder.to_owned());
    Ok(())
}

fn forget_folder(storage: &FsStorage, folder: &Path) {
    storage.synced_folders.lock().unwrap_or_else(PoisonError::into_inner).remove(folder);
}

fn open_folder(root: &Arc<OwnedFd>, folder: &Path) -> Result<OwnedFd, durable::Error> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    durable::open_dir_at(root.as_fd(), folder)
}

fn holds_an_object(root: &Arc<OwnedFd>, folder: &Path) -> bool {
    let Ok(dir) = open_folder(root, folder) else { return false };
    let Ok(entries) = rustix::fs::Dir::read_from(&dir) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        !name.to_bytes().starts_with(b".")
            && matches!(rustix::fs::statat(&dir, name, AtFlags::empty()).map_err(Errno::raw_os_error),
                Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file())
    })
}
