//! The directory in which segments wait for the server.
//!
//! It lies in `pg_wal` itself: only there a rename reaches `RECOVERYXLOG` whatever is mounted where. The server
//! looks at no name there that is none of its own, and leaves the directory out of a base backup. Nothing in it
//! is of use to anybody but the process that made it, so what a dead one has left is removed.

use std::path::{Path, PathBuf};

use super::WindowError;
use crate::durable::{self, Claim, Marker};

/// Below `pg_wal`.
pub(in crate::operation::archive_get) const NAME: &str = ".pitr-ahead";
const MARKER: &str = "in-use";

/// The directory, ours as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    marker: Option<Marker>,
}

impl Folder {
    pub(super) fn open(data_directory: &Path) -> Result<Self, WindowError> {
        let path = path_in(data_directory);
        let error = |source| WindowError::Folder { path: path.display().to_string(), source };
        // The second time, when what a dead one has left is removed.
        for _ in 0..2 {
            durable::create_dirs(&path, 0o700).map_err(error)?;
            match Marker::take(&path.join(MARKER), "").map_err(error)? {
                Claim::Ours(marker) => return Ok(Self { path, marker: Some(marker) }),
                Claim::Left => remove(&path),
                Claim::Busy => break,
            }
        }
        Err(WindowError::Busy { path: path.display().to_string() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.path);
        drop(self.marker.take());
    }
}

/// Removes what a window left whose process is gone; whether there was any. One that is in use stays.
pub fn remove_abandoned_window(data_directory: &Path) -> bool {
    remove_abandoned(&data_directory.join("pg_wal"))
}

/// The same, with the name of `pg_wal`.
pub(in crate::operation::archive_get) fn remove_abandoned(pg_wal: &Path) -> bool {
    let path = pg_wal.join(NAME);
    if !path.is_dir() || !matches!(durable::marker_is_held(&path.join(MARKER)), Ok(false)) {
        return false;
    }
    remove(&path);
    true
}

fn path_in(data_directory: &Path) -> PathBuf {
    data_directory.join("pg_wal").join(NAME)
}

/// What cannot be removed stays until the next one tries: it is in nobody's way.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "cannot remove {}", path.display());
    }
}
