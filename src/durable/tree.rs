//! Many files at once: a data directory that is being restored.
//!
//! Nothing here is durable by itself. All of it is made durable together, by [`TreeSync`], before the one
//! write that lets a server start: one flush instead of thousands, which a disk can do in its own order.
//!
//! Why that is safe: what a write-back could not store is reported by `syncfs` to whoever opened the file
//! system before it failed, since Linux 5.8 and on the local file systems named below. Anywhere else
//! (older kernels, network and FUSE file systems, overlays) every file and directory is opened and synced
//! by itself, as the server's own `initdb --sync-only` does.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Error, SYNC_DIR, SYNC_FILE, SYNC_FILE_SYSTEM, create_exclusive, open_dir, remove};

/// Whom a restored file is given to. Only root can give anything away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The account's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
}

/// Creates a file that must not exist and opens it for writing; `mode` is exact, whatever the umask.
pub fn create_file(path: &Path, mode: u32, owner: Option<Owner>) -> Result<File, Error> {
    let file =
        create_exclusive(rustix::fs::CWD, path, mode).map_err(|e| Error::new("create the file", path, e))?;
    give(&file, path, owner)?;
    // After the owner: changing that may take bits away.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
        .map_err(|e| Error::new("set the mode of", path, e))?;
    Ok(file)
}

/// Creates one directory, unless it is there, and gives it exactly this mode and owner.
pub fn create_dir(path: &Path, mode: u32, owner: Option<Owner>) -> Result<(), Error> {
    match rustix::fs::mkdirat(rustix::fs::CWD, path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Error::new("create the directory", path, errno)),
    }
    let dir = open_dir(path)?;
    give(&dir, path, owner)?;
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode)).map_err(|e| Error::new("set the mode of", path, e))
}

/// Creates a symbolic link.
pub fn create_symlink(target: &Path, link: &Path, owner: Option<Owner>) -> Result<(), Error> {
    rustix::fs::symlinkat(target, rustix::fs::CWD, link)
        .map_err(|e| Error::new("create the symbolic link", link, e))?;
    let Some(Owner { uid, gid }) = owner else { return Ok(()) };
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(rustix::fs::CWD, link, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| Error::new("change the owner of", link, e))
}

fn give(made: impl AsFd, path: &Path, owner: Option<Owner>) -> Result<(), Error> {
    let Some(Owner { uid, gid }) = owner else { return Ok(()) };
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::fchown(made, Some(uid), Some(gid)).map_err(|e| Error::new("change the owner of", path, e))
}

/// A directory to be made durable with all that is below it: to be taken before its first byte is written,
/// so that no failed write-back goes by unseen.
#[derive(Debug)]
pub struct TreeSync {
    root: PathBuf,
    watch: OwnedFd,
    /// The device of a file system that one call syncs.
    whole: Option<u64>,
}

/// `statfs`'s numbers of file systems whose `syncfs` writes everything and says what failed: ext2 to 4,
/// XFS, btrfs, ZFS, tmpfs (of which nothing survives anyway). Sources: linux/magic.h, zfs_vfsops.h.
const SYNCS_AS_A_WHOLE: [u32; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x2FC1_2FC1, 0x0102_1994];

impl TreeSync {
    /// Of an existing directory.
    pub fn watch(root: &Path) -> Result<Self, Error> {
        let watch = open_dir(root)?;
        let facts = rustix::fs::fstatfs(&watch).map_err(|e| Error::new("look at", root, e))?;
        // Its type differs between architectures; the numbers have 32 bits.
        let kind = u32::try_from(i128::from(facts.f_type) & 0xFFFF_FFFF).unwrap_or(0);
        let whole = if SYNCS_AS_A_WHOLE.contains(&kind) && kernel_reports_failed_write_back() {
            Some(rustix::fs::fstat(&watch).map_err(|e| Error::new("look at", root, e))?.st_dev)
        } else {
            None
        };
        Ok(Self { root: root.to_owned(), watch, whole })
    }

    /// Brings to the disk what is written so far below these directories, where that is one call; otherwise
    /// it waits for [`sync_all`](Self::sync_all). Once it has failed, no later success is to be believed.
    pub fn sync_ahead(trees: &[Self]) -> Result<(), Error> {
        Self::first_on_each(trees).try_for_each(Self::sync_whole)
    }

    /// Everything below these directories is on the disk when this returns `Ok`.
    ///
    /// A file system that holds several of them is asked once. That tells of every failed write-back: all of
    /// them are watched since before the first byte was written below any.
    pub fn sync_all(trees: &[Self]) -> Result<(), Error> {
        Self::first_on_each(trees).try_for_each(Self::sync_whole)?;
        trees.iter().filter(|tree| tree.whole.is_none()).try_for_each(|tree| sync_each(&tree.root))
    }

    /// One directory for each file system that syncs as a whole.
    fn first_on_each(trees: &[Self]) -> impl Iterator<Item = &Self> {
        let is_first = |at: usize, tree: &Self| !trees.iter().take(at).any(|other| other.whole == tree.whole);
        let each = trees.iter().enumerate();
        each.filter(move |(at, tree)| tree.whole.is_some() && is_first(*at, tree)).map(|(_, tree)| tree)
    }

    fn sync_whole(&self) -> Result<(), Error> {
        rustix::fs::syncfs(&self.watch).map_err(|e| Error::new(SYNC_FILE_SYSTEM, &self.root, e))
    }
}

fn kernel_reports_failed_write_back() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0u32));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 8)
}

/// Files first, then the directory that names them. Links have nothing but their name.
pub(super) fn sync_each(dir: &Path) -> Result<(), Error> {
    let list = |e| Error::new("list", dir, e);
    for entry in std::fs::read_dir(dir).map_err(list)? {
        let entry = entry.map_err(list)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| Error::new("look at", &path, e))?;
        if kind.is_dir() {
            sync_each(&path)?;
        } else if kind.is_file() {
            let file = rustix::fs::openat(
                rustix::fs::CWD,
                &path,
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|e| Error::new(SYNC_FILE, &path, e))?;
            rustix::fs::fsync(file).map_err(|e| Error::new(SYNC_FILE, &path, e))?;
        }
    }
    rustix::fs::fsync(open_dir(dir)?).map_err(|e| Error::new(SYNC_DIR, dir, e))
}

/// A file that says "not finished yet", locked while its maker lives.
#[derive(Debug)]
pub struct Marker {
    path: PathBuf,
    _locked: File,
}

/// What became of the wish to work in a directory.
#[derive(Debug)]
pub enum Claim {
    /// Ours alone.
    Ours(Marker),
    /// Somebody else is at work.
    Busy,
    /// Somebody has begun, and is gone.
    Left,
}

impl Marker {
    /// Makes the marker, durable with `text` in it, unless there is one.
    pub fn take(path: &Path, text: &str) -> Result<Claim, Error> {
        let mut file = match create_exclusive(rustix::fs::CWD, path, 0o600) {
            Ok(file) => file,
            Err(Errno::EXIST) if marker_is_held(path)? => return Ok(Claim::Busy),
            Err(Errno::EXIST) => return Ok(Claim::Left),
            Err(e) => return Err(Error::new("create the file", path, e)),
        };
        // Whoever looks at it in the moment between holds it for that moment, and is refused: so this one is not.
        file.lock().map_err(|e| Error::new("lock", path, e))?;
        file.write_all(text.as_bytes()).map_err(|e| Error::new("write", path, e))?;
        rustix::fs::fsync(&file).map_err(|e| Error::new(SYNC_FILE, path, e))?;
        super::sync_dir(super::parent_of(path))?;
        Ok(Claim::Ours(Self { path: path.to_owned(), _locked: file }))
    }

    /// Finished: removes the marker. Durable when it returns.
    pub fn remove(self) -> Result<(), Error> {
        remove(&self.path).map(drop)
    }
}

/// Whether the maker of the marker at `path` is still at work; `false` also where there is none.
pub fn marker_is_held(path: &Path) -> Result<bool, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::new("open", path, e)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(Error::new("lock", path, e)),
    }
}
