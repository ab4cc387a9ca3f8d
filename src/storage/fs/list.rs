//! Listing a directory as a bucket would be listed: by full name, in the order of its bytes.
//!
//! Only the directories on the way to the present name are in memory, never the tree. What disappears
//! while it is looked at was deleted, and is not shown.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::FsStorage;
use crate::durable;
use crate::storage::{ObjectInfo, StorageError, name};

const ACTION: &str = "list";

pub(super) fn objects(
    storage: &FsStorage,
    prefix: &str,
    after: Option<&str>,
    visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
) -> Result<(), StorageError> {
    let root = storage.root(ACTION)?;
    let walk = Walk { storage, root: &root, after };
    let _ = walk.descend(prefix, visit)?;
    // An empty answer is as good as the root it came from.
    storage.prove_root(ACTION, &root)
}

pub(super) fn folders(storage: &FsStorage, prefix: &str) -> Result<Vec<String>, StorageError> {
    let root = storage.root(ACTION)?;
    let walk = Walk { storage, root: &root, after: None };
    let mut folders = Vec::new();
    for entry in walk.entries(prefix)? {
        if let Some(folder) = entry.strip_suffix('/') {
            // A bucket has no empty folders; one here is left of a killed writer or of `expire`.
            if walk.holds_an_object(&format!("{prefix}{entry}"))? {
                folders.push(folder.to_owned());
            }
        }
    }
    folders.sort_unstable();
    storage.prove_root(ACTION, &root)?;
    Ok(folders)
}

struct Walk<'a> {
    storage: &'a FsStorage,
    root: &'a Arc<OwnedFd>,
    after: Option<&'a str>,
}

impl Walk<'_> {
    fn descend(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StorageError> {
        for entry in self.entries(prefix)? {
            let name = format!("{prefix}{entry}");
            if entry.ends_with('/') {
                // All names in here are smaller than `after`: not even opened.
                let passed =
                    self.after.is_some_and(|after| name.as_str() < after && !after.starts_with(&name));
                if !passed && self.descend(&name, visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            } else if self.after.is_none_or(|after| name.as_str() > after)
                && let Some(object) = self.look_at(&name)?
                && visit(object).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn holds_an_object(&self, prefix: &str) -> Result<bool, StorageError> {
        for entry in self.entries(prefix)? {
            if !entry.ends_with('/') || self.holds_an_object(&format!("{prefix}{entry}"))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A directory's entries, folders with a `/` at their end. With it they sort as full names do: `a.zst`
    /// stands before everything in `a/`, and `a0` behind it.
    fn entries(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        let path = if prefix.is_empty() { "." } else { prefix };
        let fail = |e: Errno| self.storage.error(ACTION, prefix, e.into());
        let dir = match durable::open_dir_at(self.root.as_fd(), Path::new(path)) {
            Ok(dir) => dir,
            Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => {
                self.storage.prove_nothing_is_there(ACTION, prefix, self.root)?;
                return Ok(Vec::new());
            }
            Err(e) => return Err(self.storage.error(ACTION, prefix, e.source)),
        };
        let mut entries = Vec::new();
        for entry in Dir::read_from(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Ok(part) = entry.file_name().to_str() else { continue };
            // Every ext4 has one at its top, and only root may look into it.
            if !name::is_valid(part) || (prefix.is_empty() && part == "lost+found") {
                continue;
            }
            let file_type = match entry.file_type() {
                FileType::Unknown | FileType::Symlink => {
                    match rustix::fs::statat(&dir, entry.file_name(), AtFlags::empty()) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                        Err(Errno::NOENT) => {
                            let name = format!("{prefix}{part}");
                            self.storage.prove_nothing_is_there(ACTION, &name, self.root)?;
                            continue;
                        }
                        Err(errno) => return Err(self.storage.error(ACTION, part, errno.into())),
                    }
                }
                known => known,
            };
            match file_type {
                FileType::RegularFile => entries.push(part.to_owned()),
                FileType::Directory => entries.push(format!("{part}/")),
                _ => {}
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn look_at(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        match rustix::fs::statat(self.root, name, AtFlags::empty()) {
            Ok(stat) => Ok(Some(ObjectInfo {
                name: name.to_owned(),
                size: u64::try_from(stat.st_size).unwrap_or(0),
                modified: modified(&stat),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.storage.error(ACTION, name, errno.into())),
        }
    }
}

fn modified(stat: &rustix::fs::Stat) -> Option<jiff::Timestamp> {
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).ok()?;
    jiff::Timestamp::new(stat.st_mtime, nanoseconds).ok()
}
