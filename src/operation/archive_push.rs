//! `archive-push`: one file into every repository, durable when `Ok`.

use std::fs::File;
use std::path::Path;

use super::data_directory::{ControlFileError, system_of};
use crate::repository::layout::ClusterName;
use crate::repository::wal_archive::{EncodedFrames, StoreOutcome, WalContent, WalFile};
use crate::repository::{Create, HostMemory, Repository, RepositoryError, SystemIdentity};
use crate::storage::Storage;
use crate::types::{Moment, ParseError, SegmentName, SegmentSize, WalFileName};
use crate::wal::{HeaderProblem, SegmentScan, SegmentScanner};

/// How to push.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// The cluster's name in the repository.
    pub cluster: ClusterName,
    /// zstd's level.
    pub level: i32,
    /// Refuse a segment whose content is damaged, instead of storing it marked.
    pub strict: bool,
}

/// Why a file was not archived.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Its name is none the server gives.
    #[error("cannot archive {path}")]
    Name {
        /// What was given.
        path: String,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not the segment its name says.
    #[error("{path} is not the segment that its name says")]
    Header {
        /// The file.
        path: String,
        /// What is wrong.
        #[source]
        source: HeaderProblem,
    },
    /// It is of another system than the data directory it lies in.
    #[error("{path} is of system identifier {found}, its data directory is of {expected}")]
    Stranger {
        /// The file.
        path: String,
        /// The segment's.
        found: crate::types::SystemId,
        /// `pg_control`'s.
        expected: crate::types::SystemId,
    },
    /// `strict` is on, and the content is damaged.
    #[error("{path} is damaged {what}")]
    Damaged {
        /// The file.
        path: String,
        /// Where and how.
        what: String,
    },
    /// Nothing says which system it is of.
    #[error("cannot tell which system {path} is of: it lies in no data directory")]
    NoSystem {
        /// The file.
        path: String,
    },
    /// The data directory's control file says nothing.
    #[error(transparent)]
    Control(#[from] ControlFileError),
    /// The repository.
    #[error("cannot archive {name}")]
    Repository {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: RepositoryError,
    },
    /// Other bytes are archived under its name.
    #[error(
        "refused {name}: {with} holds other bytes (from byte {differs_at} on); the refused file is kept as {kept}"
    )]
    Conflict {
        /// The file.
        name: String,
        /// The stored object.
        with: String,
        /// The refused file's copy.
        kept: String,
        /// The first byte that differs.
        differs_at: u64,
    },
}

/// What was done.
#[derive(Debug)]
pub struct Pushed {
    /// The file.
    pub name: WalFileName,
    /// What became of it, for each repository.
    pub outcomes: Vec<StoreOutcome>,
    /// What the operator should know about its content.
    pub damage: Option<String>,
}

/// Archives the file at `path` (as the server gives it: relative to `cwd`).
pub fn archive_push(
    storages: Vec<std::sync::Arc<dyn Storage>>,
    memory: &HostMemory,
    path: &Path,
    cwd: &Path,
    options: &PushOptions,
    now: Moment,
) -> Result<Pushed, PushError> {
    let shown = path.display().to_string();
    let last = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name: WalFileName = last.parse().map_err(|source| PushError::Name { path: shown.clone(), source })?;
    let system = system_of(path, cwd)?;
    let local = |source| PushError::Read { path: shown.clone(), source };
    let file = File::open(cwd.join(path)).map_err(local)?;
    let meta = file.metadata().map_err(local)?;
    let (frames, scan) = read_twice_if_damaged(&file, meta.len(), name, system, options.level, &shown)?;

    let mut content = None;
    let mut bound = system;
    if let Some(scan) = &scan {
        if let Some(problem) = &scan.problem {
            return Err(PushError::Header { path: shown, source: *problem });
        }
        if let Some(header) = &scan.header {
            let found = SystemIdentity {
                system_identifier: header.system_id,
                segment_size: scan.size,
                postgres_major: system.and_then(|s| s.postgres_major),
            };
            if let Some(system) = system
                && system.system_identifier != header.system_id
            {
                return Err(PushError::Stranger {
                    path: shown,
                    found: header.system_id,
                    expected: system.system_identifier,
                });
            }
            bound = Some(found);
        }
        content = Some(WalContent::from(scan));
    }
    let damage = content.as_ref().and_then(|c: &WalContent| c.damage.clone());
    if options.strict
        && let Some(what) = damage
    {
        return Err(PushError::Damaged { path: shown, what });
    }
    let modified = meta.modified().ok().and_then(|t| jiff::Timestamp::try_from(t).ok()).map(Moment);
    let mut wal = WalFile { name, file: &file, modified, content, frames };
    let mut outcomes = Vec::new();
    for storage in storages {
        let broken = |source| PushError::Repository { name: name.to_string(), source };
        let repository = Repository::open(storage, memory, Create::Identity, now).map_err(broken)?;
        let cluster = match bound {
            Some(system) => repository.cluster_for_writing(&options.cluster, &system, now),
            // Outside a data directory a history file is taken for the cluster's only system.
            None => repository.cluster(&options.cluster, None),
        }
        .map_err(broken)?;
        match cluster.store_wal(&mut wal).map_err(broken)? {
            StoreOutcome::Conflict { with, kept, differs_at } => {
                return Err(PushError::Conflict { name: name.to_string(), with, kept, differs_at });
            }
            outcome => outcomes.push(outcome),
        }
        // What was asked for is done; a memory that cannot be kept only weakens the next look.
        if let Err(error) = repository.remember(memory, &cluster) {
            tracing::warn!(%error, "cannot remember the repository on this host");
        }
    }
    Ok(Pushed { name, outcomes, damage })
}

/// A record that looks broken may have been read while the disk or the page cache had a bad moment: the
/// second look decides.
fn read_twice_if_damaged(
    file: &File,
    len: u64,
    name: WalFileName,
    system: Option<SystemIdentity>,
    level: i32,
    shown: &str,
) -> Result<(EncodedFrames, Option<SegmentScan>), PushError> {
    let first = read(file, len, name, system, level, shown)?;
    match &first.1 {
        Some(scan) if scan.damage.is_some() || scan.problem.is_some() => {
            read(file, len, name, system, level, shown)
        }
        _ => Ok(first),
    }
}

fn read(
    mut file: &File,
    len: u64,
    name: WalFileName,
    system: Option<SystemIdentity>,
    level: i32,
    shown: &str,
) -> Result<(EncodedFrames, Option<SegmentScan>), PushError> {
    use std::io::Seek;
    file.seek(std::io::SeekFrom::Start(0))
        .map_err(|source| PushError::Read { path: shown.to_owned(), source })?;
    let mut scanner = scanned(name).map(|segment| {
        // Without a data directory the length is all there is; the header is compared with it.
        let size = system.map(|s| s.segment_size).or_else(|| SegmentSize::new(len).ok());
        SegmentScanner::new(segment, size.unwrap_or(SegmentSize::DEFAULT))
    });
    let frames = EncodedFrames::encode(&mut file, len, level, &std::env::temp_dir(), shown, |chunk| {
        if let Some(scanner) = &mut scanner {
            scanner.push(chunk);
        }
    })
    .map_err(|source| PushError::Repository { name: name.to_string(), source })?;
    Ok((frames, scanner.map(SegmentScanner::finish)))
}

fn scanned(name: WalFileName) -> Option<SegmentName> {
    match name {
        WalFileName::Segment(s) | WalFileName::Partial(s) => Some(s),
        WalFileName::Backup(..) | WalFileName::History(_) => None,
    }
}
