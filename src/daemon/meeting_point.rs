//! Where the hooks of one data directory find the process that stays: a socket in the spool, which only the same
//! user may use.
//!
//! The hook that starts the process makes the socket and gives it away as the child's standard input. So it
//! can speak into it at once, two hooks cannot start two, and a socket whose process is gone refuses.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::durable;

const LONGEST_LOCK: Duration = Duration::from_secs(1);

/// The folder of one data directory in the spool, and the name of the work that is done there.
#[derive(Debug, Clone)]
pub struct MeetingPoint {
    folder: PathBuf,
    socket: String,
    lock: String,
}

/// A socket's place in its file system: another one under the same name is another process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u64, u64);

impl MeetingPoint {
    /// In `folder`, which is made when a process is started. Those who use another `name` have a process of their own:
    /// the two hooks of one server may have other settings.
    pub fn new(folder: impl Into<PathBuf>, name: &str) -> Self {
        Self { folder: folder.into(), socket: format!("{name}.sock"), lock: format!("{name}.lock") }
    }

    /// A connection to the process, if one is there.
    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        let stream = self.at_short_path(|path| UnixStream::connect(path))?;
        refuse_strangers(&stream)?;
        Ok(stream)
    }

    /// Where the socket stands now.
    pub(super) fn place(&self) -> Option<Place> {
        let meta = std::fs::symlink_metadata(self.folder.join(&self.socket)).ok()?;
        Some(Place(meta.dev(), meta.ino()))
    }

    /// Makes the socket, unless a process listens already. `start` gets it while nobody else can make one.
    pub(super) fn establish(&self, start: impl FnOnce(UnixListener) -> io::Result<()>) -> io::Result<()> {
        durable::create_dirs(&self.folder, durable::DIR_MODE).map_err(io::Error::other)?;
        let _lock = self.lock()?;
        if self.connect().is_ok() {
            return Ok(());
        }
        durable::remove(&self.folder.join(&self.socket)).map_err(io::Error::other)?;
        start(self.at_short_path(|path| UnixListener::bind(path))?)
    }

    /// Takes the socket away if it is still the one at `place`: its process answers no more.
    pub(super) fn abandon(&self, place: Option<Place>) {
        let Ok(_lock) = self.lock() else { return };
        if place.is_some() && self.place() == place {
            drop(durable::remove(&self.folder.join(&self.socket)));
        }
    }

    fn lock(&self) -> io::Result<File> {
        let file = durable::lock_file(&self.folder.join(&self.lock)).map_err(io::Error::other)?;
        let begun = Instant::now();
        // It is held for moments. One who is stopped while holding it must not stop the others.
        while let Err(refused) = file.try_lock() {
            match refused {
                TryLockError::WouldBlock if begun.elapsed() < LONGEST_LOCK => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                TryLockError::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                TryLockError::Error(error) => return Err(error),
            }
        }
        Ok(file)
    }

    /// A socket's path may have 107 bytes, and a spool's more: through the open folder it is short.
    fn at_short_path<T>(&self, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let folder = durable::open_dir(&self.folder).map_err(|e| e.source)?;
        with(&PathBuf::from(format!("/proc/self/fd/{}/{}", folder.as_fd().as_raw_fd(), self.socket)))
    }
}

/// Both sides believe what the other one says: it must be the same user.
pub(super) fn refuse_strangers(stream: &UnixStream) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    if peer.uid == rustix::process::geteuid() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the other side is another user"))
}
