//! `archive-get`: one file out of the archive, verified, or the proof that no repository has it.

use std::path::Path;
use std::sync::Arc;

use super::data_directory::{ControlFileError, system_of};
use crate::durable::{self, NewFile};
use crate::repository::layout::ClusterName;
use crate::repository::{Create, HostMemory, Repository, RepositoryError};
use crate::storage::Storage;
use crate::types::{Moment, SystemId, WalFileName};

/// Why it could not be found out. None of these is absence.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// The data directory's control file says nothing.
    #[error(transparent)]
    Control(#[from] ControlFileError),
    /// A repository.
    #[error("cannot get {name}")]
    Repository {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: RepositoryError,
    },
    /// The destination.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<RepositoryError> for GetError {
    fn from(source: RepositoryError) -> Self {
        Self::Repository { name: "the file".to_owned(), source }
    }
}

/// Brings `file` to `destination` (relative to `cwd`). `Ok(false)`: every repository was reached, is the
/// right one, and has proved that it does not hold the file.
pub fn archive_get(
    storages: Vec<Arc<dyn Storage>>,
    memory: &HostMemory,
    cluster: &ClusterName,
    system: Option<SystemId>,
    file: WalFileName,
    destination: &Path,
    cwd: &Path,
    now: Moment,
) -> Result<bool, GetError> {
    let system = match system {
        Some(system) => Some(system),
        None => system_of(destination, cwd)?.map(|s| s.system_identifier),
    };
    let target = cwd.join(destination);
    let mut failure = None;
    for storage in storages {
        match from_one(storage, memory, cluster, system, file, &target, now) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(e) => failure = Some(e),
        }
    }
    match failure {
        // One repository that could not be asked may be the one that has it.
        Some(GetError::Repository { source, .. }) => {
            Err(GetError::Repository { name: file.to_string(), source })
        }
        Some(e) => Err(e),
        None => Ok(false),
    }
}

fn from_one(
    storage: Arc<dyn Storage>,
    memory: &HostMemory,
    cluster: &ClusterName,
    system: Option<SystemId>,
    file: WalFileName,
    target: &Path,
    now: Moment,
) -> Result<bool, GetError> {
    use std::io::Write;
    let write = |source: Box<dyn std::error::Error + Send + Sync>| GetError::Write {
        path: target.display().to_string(),
        source,
    };
    let repository = Repository::open(storage, memory, Create::Nothing, now)?;
    let cluster = repository.cluster(cluster, system)?;
    let new = std::cell::RefCell::new(None);
    let mut size = 0u64;
    let found = cluster.fetch(
        file,
        || {
            *new.borrow_mut() = Some(NewFile::create_beside(target, 0o600).map_err(|e| write(e.into()))?);
            Ok::<(), GetError>(())
        },
        |chunk| {
            if let Some(new) = new.borrow_mut().as_mut() {
                new.file().write_all(&chunk).map_err(|e| write(e.into()))?;
            }
            Ok(())
        },
    )?;
    if !found {
        return Ok(false);
    }
    let Some(mut new) = new.into_inner() else {
        return Err(write("nothing was fetched".into()));
    };
    let name = target.file_name().ok_or_else(|| write("it has no file name".into()))?;
    size += new.file().metadata().map_err(|e| write(e.into()))?.len();
    // The server syncs what it keeps; it only must never see half a file.
    new.replace_unsynced(name).map_err(|e| write(e.into()))?;
    // A last look: exit 0 without the file would be taken for the archive's end.
    let there = std::fs::metadata(target).map_err(|e| write(e.into()))?.len();
    if there != size || (matches!(file, WalFileName::Segment(_)) && there != cluster.segment_size().bytes()) {
        drop(durable::remove(target));
        return Err(write(format!("it has {there} bytes").into()));
    }
    // What was asked for is done; a memory that cannot be kept only weakens the next look.
    if let Err(error) = repository.remember(memory, &cluster) {
        tracing::warn!(%error, "cannot remember the repository on this host");
    }
    Ok(true)
}
