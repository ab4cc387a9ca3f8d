//! One file on its way from a temporary name to its own.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::{Error, SYNC_DIR, SYNC_FILE, TEMP_PREFIX, create_exclusive, inherit_owner, open_dir, parent_of};

/// What became of a name that must not be overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The name is ours and durable.
    New,
    /// The name was taken; what stands there was not touched, and nothing was said about its durability.
    Exists,
}

/// A file under a temporary name in the directory where it will stand. Dropped unfinished, it is removed.
#[derive(Debug)]
pub struct NewFile {
    dir: OwnedFd,
    temp: OsString,
    file: File,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Writing,
    Synced,
    Failed,
    Placed,
}

impl NewFile {
    /// A new file in the open directory `dir`.
    pub fn create_in(dir: impl AsFd, mode: u32) -> Result<Self, Error> {
        let dir = dir.as_fd().try_clone_to_owned().map_err(|e| Error::new("keep open", ".", e))?;
        loop {
            let temp = OsString::from(temp_name());
            match create_exclusive(&dir, Path::new(&temp), mode) {
                Ok(file) => {
                    let new = Self { dir, temp, file, state: State::Writing };
                    inherit_owner(&new.dir, &new.file, Path::new(&new.temp))?;
                    return Ok(new);
                }
                // Another process drew the same number: a new draw, not somebody else's file.
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(Error::new("create the file", &temp, errno)),
            }
        }
    }

    /// A new file in the directory where `path` will stand.
    pub fn create_beside(path: &Path, mode: u32) -> Result<Self, Error> {
        Self::create_in(open_dir(parent_of(path))?, mode)
    }

    /// The open file, for writing at offsets or reading back.
    pub fn file(&mut self) -> &mut File {
        self.state = if self.state == State::Synced { State::Writing } else { self.state };
        &mut self.file
    }

    /// Gives the file its name unless the name is taken. Durable when it says [`Published::New`].
    ///
    /// May be called again after an error of the renaming step; after a failed sync it always fails.
    pub fn publish(&mut self, name: &OsStr) -> Result<Published, Error> {
        // The bytes come first: a name must never point at a file that a power cut leaves short.
        self.sync()?;
        if self.state != State::Placed {
            match self.place_without_clobber(name)? {
                Published::Exists => return Ok(Published::Exists),
                Published::New => self.state = State::Placed,
            }
        }
        // The name itself lives in the directory's own blocks.
        self.sync_parent(name)?;
        Ok(Published::New)
    }

    /// Gives the file its name in place of whatever stands there; readers see the old or the new one,
    /// also after a power cut.
    pub fn replace(&mut self, name: &OsStr) -> Result<(), Error> {
        // Renamed before its bytes are on disk, it could replace a good file by an empty one.
        self.sync()?;
        self.rename_over(name)?;
        self.sync_parent(name)
    }

    /// As [`replace`](Self::replace), without any sync: for a reader that syncs by itself what it accepts,
    /// as the server does with every file `restore_command` brings.
    pub fn replace_unsynced(&mut self, name: &OsStr) -> Result<(), Error> {
        self.rename_over(name)
    }

    /// Keeps the file, its bytes on disk, under its temporary name: made ahead for somebody who gives it the
    /// name it is meant for. That name is not durable: whoever finds it after a power cut may throw it away.
    pub fn set_aside(mut self, dir: &Path) -> Result<SetAside, Error> {
        self.sync()?;
        Ok(self.set_aside_unsynced(dir))
    }

    /// As [`set_aside`](Self::set_aside), for what nobody but this process ever reads: mostly it is removed before
    /// the system gets round to writing it.
    pub fn set_aside_unsynced(mut self, dir: &Path) -> SetAside {
        let aside = SetAside { path: dir.join(&self.temp) };
        self.state = State::Placed;
        self.temp.clear();
        aside
    }

    fn rename_over(&mut self, name: &OsStr) -> Result<(), Error> {
        if self.state != State::Placed {
            rustix::fs::renameat(&self.dir, &self.temp, &self.dir, name)
                .map_err(|e| Error::new("rename a new file to", name, e))?;
            self.state = State::Placed;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        match self.state {
            State::Synced | State::Placed => Ok(()),
            State::Failed => Err(Error::new(SYNC_FILE, &self.temp, Errno::IO)),
            State::Writing => {
                // Failed before it is tried: whoever calls again finds that no second try is made.
                self.state = State::Failed;
                rustix::fs::fsync(&self.file).map_err(|e| Error::new(SYNC_FILE, &self.temp, e))?;
                self.state = State::Synced;
                Ok(())
            }
        }
    }

    fn sync_parent(&mut self, name: &OsStr) -> Result<(), Error> {
        // Placed but perhaps not durable: the name stays, because another writer may have found it and
        // synced it meanwhile; this one never calls it a success.
        rustix::fs::fsync(&self.dir).map_err(|e| {
            self.state = State::Failed;
            Error::new(SYNC_DIR, name, e)
        })
    }

    /// `renameat2(NOREPLACE)` first: one step, and no second name left behind by a kill. File systems
    /// without it (NFS, some FUSE) have `link`, which refuses a taken name just as atomically.
    fn place_without_clobber(&self, name: &OsStr) -> Result<Published, Error> {
        let (dir, temp) = (&self.dir, &self.temp);
        match rustix::fs::renameat_with(dir, temp, dir, name, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(Published::New),
            Err(Errno::EXIST) => return Ok(Published::Exists),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(Error::new("rename a new file to", name, errno)),
        }
        match rustix::fs::linkat(dir, temp, dir, name, AtFlags::empty()) {
            Ok(()) => {}
            // An NFS client that sent its request twice is told "exists" of its own link.
            Err(Errno::EXIST) if self.stands_at(name) => {}
            Err(Errno::EXIST) => return Ok(Published::Exists),
            Err(errno) => return Err(Error::new("link a new file to", name, errno)),
        }
        // A temporary name that stays behind is a second name of a good file: no harm, so no error.
        let _ = rustix::fs::unlinkat(dir, temp, AtFlags::empty());
        Ok(Published::New)
    }

    fn stands_at(&self, name: &OsStr) -> bool {
        let ours = rustix::fs::fstat(&self.file);
        let theirs = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW);
        matches!((ours, theirs), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    }
}

/// A whole file under a temporary name, its bytes on disk. Dropped before it was taken, it is removed.
#[derive(Debug)]
pub struct SetAside {
    path: PathBuf,
}

impl SetAside {
    /// Where it stands until it is taken.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        // Taken, it is not there any more, and nobody draws the same name again.
        let _ = rustix::fs::unlink(&self.path);
    }
}

/// Gives a file that was set aside, perhaps by another process, the name it is meant for, in place of whatever
/// stands there. Its bytes are on disk; the name is for the taker to make durable. `Ok(false)`: it is not there.
pub fn take_aside(aside: &Path, name: &Path) -> Result<bool, Error> {
    match rustix::fs::rename(aside, name) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::new("rename a new file to", name, errno)),
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Set aside, it is somebody else's now.
        if self.temp.is_empty() {
            return;
        }
        // After `publish` the temporary name is gone; asking again removes nothing of anybody's.
        let _ = rustix::fs::unlinkat(&self.dir, &self.temp, AtFlags::empty());
    }
}

/// Unique among processes and, by the random part, among hosts that share a network file system.
fn temp_name() -> String {
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("{TEMP_PREFIX}{}-{random:016x}", std::process::id())
}

/// Whether this is a temporary name of a process that is no more. Only for directories that no other host
/// writes to: a number says nothing about another host's processes.
pub(super) fn is_abandoned(name: &str) -> bool {
    let process = name.strip_prefix(TEMP_PREFIX).and_then(|rest| rest.split_once('-')?.0.parse::<u32>().ok());
    let processes = Path::new("/proc");
    process
        .is_some_and(|number| processes.join("self").exists() && !processes.join(number.to_string()).exists())
}
