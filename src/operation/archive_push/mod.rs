//! `archive-push`: one file into every repository, durable when `Ok`.
//!
//! What is certainly not this cluster's is refused: another system, another position, another length. What
//! is this cluster's but damaged is stored, marked, and reported: a segment that is refused fills the
//! server's disk, and helps nobody.

mod ahead;
mod door;
mod error;
mod proof;
mod ready;
mod take;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use ahead::{AheadOptions, PushAhead};
pub use error::PushError;
pub use ready::more_are_ready;
pub use take::Concern;

use self::door::Door;
use self::proof::{Place, Seen};
use self::take::Source;
use super::data_directory::{is_where_it_was_written, system_of};
use crate::repository::layout::{ClusterName, name_digest};
use crate::repository::wal_archive::{StoreOutcome, WalFile, Workroom};
use crate::repository::{Create, HostMemory, Repository, SystemIdentity};
use crate::storage::Storage;
use crate::types::{Moment, SystemId, WalFileName};

/// How to push.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// The cluster's name in the repository.
    pub cluster: ClusterName,
    /// Which of the cluster's systems is meant; needed only for a history or backup file outside of a data
    /// directory, in a cluster that has had several.
    pub system: Option<SystemId>,
    /// zstd's level.
    pub level: i32,
    /// Refuse what is damaged or could not be checked, instead of storing it marked.
    pub strict: bool,
    /// Where segments that are too large for memory wait, compressed.
    pub temp_dir: PathBuf,
}

/// What was done.
#[derive(Debug)]
pub struct Pushed {
    /// The file.
    pub name: WalFileName,
    /// What became of it, for each repository.
    pub outcomes: Vec<StoreOutcome>,
    /// What the operator should know about its content.
    pub concern: Option<Concern>,
}

impl Pushed {
    /// Whether there is nothing that an operator should hear.
    pub fn is_unremarkable(&self) -> bool {
        let plain = |outcome: &StoreOutcome| {
            matches!(outcome, StoreOutcome::New | StoreOutcome::Same | StoreOutcome::Contained)
        };
        self.concern.is_none() && self.outcomes.iter().all(plain)
    }
}

/// Archives the file at `path` (as the server gives it: relative to `cwd`). All repositories are tried; one
/// that fails makes the push fail, and the next push finds the others done.
pub fn archive_push(
    storages: Vec<Arc<dyn Storage>>,
    memory: &HostMemory,
    path: &Path,
    cwd: &Path,
    options: &PushOptions,
    now: Moment,
) -> Result<Pushed, PushError> {
    let doors: Vec<Door> = storages.into_iter().map(Door::new).collect();
    let workroom = Workroom::new(options.level, 1);
    let how = How { options, workroom: &workroom, company: Company::Alone };
    push_one(&doors, memory, path, cwd, how, now).map(|done| done.pushed)
}

/// Whether other files are pushed by this process at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Company {
    /// None: compressing may have a core of its own.
    Alone,
    /// So many at most, this one included: each does all of its own work.
    Others { at_once: usize },
}

impl Company {
    /// Compressed bytes to keep in memory. Most segments of 16 MiB have 1 to 4 MiB; a hook has 40 MiB in all, of which
    /// each that is compressed takes 3 besides, and a bucket 16.
    fn in_memory(self) -> usize {
        match self {
            Self::Alone => 4 << 20,
            Self::Others { at_once } => (15 << 19) / at_once.max(3),
        }
    }
}

/// A push that succeeded, with what a proof of it says.
struct Done {
    pushed: Pushed,
    blake3: String,
    first_page: Option<String>,
    /// The file, where nobody wrote to it between the first byte that was read and the last.
    seen: Option<Seen>,
    /// The data directory's system.
    system: Option<SystemId>,
    places: Vec<Place>,
}

/// How one file is pushed.
#[derive(Debug, Clone, Copy)]
struct How<'a> {
    options: &'a PushOptions,
    workroom: &'a Workroom,
    company: Company,
}

fn push_one(
    doors: &[Door],
    memory: &HostMemory,
    path: &Path,
    cwd: &Path,
    how: How<'_>,
    now: Moment,
) -> Result<Done, PushError> {
    let shown = path.display().to_string();
    let last = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name: WalFileName = last.parse().map_err(|source| PushError::Name { path: shown.clone(), source })?;
    let local = |source| PushError::Read { path: shown.clone(), source };
    let absolute = cwd.join(path);
    // Asked before it is opened: opening a pipe would wait for its writer for ever.
    if !std::fs::metadata(&absolute).map_err(local)?.is_file() {
        return Err(local(std::io::Error::other("it is not a regular file")));
    }
    let file = File::open(&absolute).map_err(local)?;
    let meta = file.metadata().map_err(local)?;
    let before = Seen::of(&meta);
    let system = system_of(path, cwd)?;
    let source = Source { file: &file, length: meta.len(), name, shown: &shown, how };
    let taken = match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
            source.take_segment(segment, system)?
        }
        WalFileName::Backup(..) | WalFileName::History(_) => source.take_text(system)?,
    };
    let seen = Some(before).filter(|before| file.metadata().is_ok_and(|after| Seen::of(&after) == *before));
    if let (true, Some(concern)) = (how.options.strict, &taken.concern) {
        return Err(PushError::Strict { path: shown.clone(), what: concern.to_string() });
    }

    let modified = meta
        .modified()
        .ok()
        .filter(|_| is_where_it_was_written(path, cwd))
        .and_then(|t| jiff::Timestamp::try_from(t).ok())
        .map(Moment);
    let mut wal = WalFile { name, file: &file, modified, content: taken.content, frames: taken.frames };
    let (mut outcomes, mut places, mut failure) = (Vec::new(), Vec::new(), None);
    for door in doors {
        match into_one(door, memory, &mut wal, taken.system, how.options, now) {
            Ok((outcome, place)) => {
                outcomes.push(outcome);
                places.push(place);
            }
            Err(error) if failure.is_none() => failure = Some(error),
            // Only one can be returned.
            Err(error) => tracing::warn!(cause = ?std::error::Error::source(&error), "{error}"),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(Done {
            pushed: Pushed { name, outcomes, concern: taken.concern },
            blake3: wal.frames.blake3().to_owned(),
            first_page: taken.first_page,
            seen,
            system: system.map(|system| system.system_identifier),
            places,
        }),
    }
}

fn into_one(
    door: &Door,
    memory: &HostMemory,
    wal: &mut WalFile<'_>,
    system: Option<SystemIdentity>,
    options: &PushOptions,
    now: Moment,
) -> Result<(StoreOutcome, Place), PushError> {
    let name = wal.name.to_string();
    let broken = |source| PushError::Repository { name: name.clone(), source };
    let repository =
        Repository::open(Arc::clone(&door.storage), memory, Create::Identity, now).map_err(broken)?;
    let cluster = door.cluster(&repository, system.as_ref(), options, now).map_err(broken)?;
    let outcome = match cluster.store_wal(wal).map_err(broken)? {
        StoreOutcome::Conflict { with, kept, differs_at } => {
            return Err(PushError::Conflict { name, with, kept, differs_at });
        }
        outcome => outcome,
    };
    // What was asked for is done; a memory that cannot be kept only weakens the next look.
    if let Err(error) = repository.remember(memory, &cluster) {
        tracing::warn!(%error, "cannot remember the repository on this host");
    }
    let place = Place {
        url: repository.url().to_owned(),
        identity: repository.descriptor().identity.clone(),
        epoch: cluster.epoch().0,
        object: cluster.layout().wal_file(wal.name, name_digest(wal.frames.blake3())),
        stored: matches!(outcome, StoreOutcome::New).then(|| wal.frames.object_size()),
    };
    Ok((outcome, place))
}
