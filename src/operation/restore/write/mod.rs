//! Writes a backup into its directories, every byte checked before it is written.
//!
//! Before anything is touched the index and the server's manifest are fetched, proved by their digests and
//! compared, file by file. Then one thread walks the index and deals out frames with the pieces of files
//! in them, and several fetch, decode, check and write them. A frame is written only after its digest was
//! right, and each file's size and CRC32C, put together from its pieces, must be what the manifest says.
//!
//! What is left behind by a kill, a power cut or an error cannot be started: `global/pg_control` stays in
//! memory until everything else is on the disk. Until then each directory holds a marker, which also keeps
//! two restores apart.

mod claim;
mod finish;
mod output;
mod proof;
mod schedule;
mod workers;

use std::path::Path;

pub(in crate::operation) use proof::compare as compare_with_manifest;

use super::destination::{Destination, Ownership};
use crate::durable::{self, Owner};
use crate::pgdata::backup_manifest::ManifestError;
use crate::pgdata::control_file::ControlFileProblem;
use crate::pgdata::recovery_settings::RecoverySettings;
use crate::pgdata::tablespace_map::MapError;
use crate::repository::backup_set::format::Backup;
use crate::repository::{Cluster, RepositoryError};
use crate::types::SegmentName;

/// The file without which no server starts.
const CONTROL: &str = "global/pg_control";

/// Why a restore failed after its plan was good.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The target directory.
    #[error(transparent)]
    Local(#[from] durable::Error),
    /// A file of it.
    #[error("cannot {action} {path}")]
    File {
        /// The verb.
        action: &'static str,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A directory that was free when the plan was made.
    #[error("{0}")]
    Taken(String),
    /// A file is not what the server's manifest says.
    #[error("{path} should be {expected}, but is {found}")]
    Mismatch {
        /// The file, below the data directory.
        path: String,
        /// In the manifest.
        expected: String,
        /// In the backup.
        found: String,
    },
    /// The manifest.
    #[error("cannot use the backup's manifest")]
    Manifest(#[from] ManifestError),
    /// The tablespace map.
    #[error("cannot use the backup's tablespace map")]
    Map(#[from] MapError),
    /// The control file.
    #[error("cannot use the backup's pg_control")]
    Control(#[from] ControlFileProblem),
}

impl RestoreError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { action, path, source }
    }
}

/// Told how far a restore is.
pub trait Monitor: Sync {
    /// So many more bytes of files were written.
    fn written(&self, _bytes: u64) {}
    /// All files are written; they are being made durable.
    fn syncing(&self) {}
}

/// For whom nobody looks.
impl Monitor for () {}

/// What a restore has done, as far as an operator must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// How many files were checked and written.
    pub files: u64,
    /// Whose they are, where they were given away.
    pub owner: Option<Owner>,
    /// Whether the data directory holds a `postgresql.conf`. Debian keeps it elsewhere, out of every backup.
    pub has_configuration: bool,
    /// Settings that had to be raised to what the recovery needs.
    pub raised: Vec<(&'static str, i32)>,
}

/// Restores; see the module's text. `piece` is the segment of which the archive holds the start alone, as the
/// plan says. `threads` fetch, decode and write, each with about 8 MiB of memory.
pub fn restore(
    cluster: &Cluster<'_>,
    backup: &Backup,
    piece: Option<SegmentName>,
    destination: &Destination,
    settings: &RecoverySettings,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Written, RestoreError> {
    let (index, manifest) = (cluster.index(backup)?, cluster.manifest(backup)?);
    let proof = proof::compare(&index, &manifest)?;
    let owner = match destination.ownership {
        Ownership::Own => None,
        Ownership::Given(owner) => Some(owner),
        Ownership::Recorded => proof.recorded_owner,
    };
    let claims = claim::take(destination, backup, owner)?;
    let plan = schedule::Plan { cluster, backup, destination, owner };
    let control = workers::write_all(&plan, &index, &claims, threads, monitor)?;
    monitor.syncing();
    let written = finish::Finish { plan: &plan, settings, piece, manifest: &manifest, control: &control };
    let configured = written.all_but_control()?;
    claims.sync()?;
    written.control()?;
    claims.release()?;
    Ok(Written {
        files: proof.files,
        owner,
        has_configuration: configured.is_there,
        raised: configured.raised,
    })
}
