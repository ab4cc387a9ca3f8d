//! `archive-get`: one file out of the archive, verified, or the proof that no repository has it.

mod absence;
mod error;
mod what_follows;
pub mod window;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::data_directory::{is_not_where_the_server_looks, server_of, system_of};
use crate::durable::{self, NewFile};
use crate::repository::layout::ClusterName;
use crate::repository::wal_archive::Reach;
use crate::repository::{Cluster, Create, HostMemory, Repository, RepositoryError, SystemIdentity};
use crate::storage::Storage;
use crate::types::{Moment, SystemId, WalFileName};

pub use error::GetError;

/// From where to get.
#[derive(Debug, Clone)]
pub struct GetOptions {
    /// The cluster's name in the repository.
    pub cluster: ClusterName,
    /// Which of the cluster's systems is meant; else the data directory's.
    pub system: Option<SystemId>,
}

/// Brings `file` to `destination` (relative to `cwd`). `Ok(false)`: every repository was reached, is the
/// right one, and has proved that it does not hold the file.
pub fn archive_get(
    storages: Vec<Arc<dyn Storage>>,
    memory: &HostMemory,
    file: WalFileName,
    destination: &Path,
    cwd: &Path,
    options: &GetOptions,
    now: Moment,
) -> Result<bool, GetError> {
    let (target, own) = check_destination(file, destination, cwd)?;
    let get = Get { memory, file, target: &target, own, options, now };
    if own.is_some() {
        // Each killed hook leaves up to a segment in pg_wal, where nobody else looks for it.
        durable::remove_abandoned(&target);
        // And a killed process that fetched ahead, much more.
        target.parent().map(window::remove_abandoned);
    }
    let (mut best, mut failure) = (None::<Fetched>, None);
    for storage in &storages {
        match get.ask(Arc::clone(storage)) {
            Ok(Some(fetched)) if fetched.reach.is_whole() => {
                get.refuse_border(storage, &server_of(destination, cwd))?;
                return get.place(fetched).map(|()| true);
            }
            // A copy that was cut off, or is damaged: another repository may hold a better one.
            Ok(Some(fetched)) => {
                if best.as_ref().is_none_or(|best| best.reach < fetched.reach) {
                    best = Some(fetched);
                }
            }
            Ok(None) => {}
            // One that could be asked and is wrong weighs more than one that could not be asked.
            Err(error) => match &failure {
                Some(first) if !GetError::is_unreachable(first) => {}
                _ => failure = Some(error),
            },
        }
    }
    // One repository that could not be asked may be the one that has it, or has more of it.
    match (failure, best) {
        (Some(error), _) => Err(error),
        (None, Some(best)) => {
            get.refuse_cut(&storages, best.reach, &server_of(destination, cwd))?;
            get.place(best).map(|()| true)
        }
        (None, None) => get.refuse_gap(&storages, &server_of(destination, cwd)).map(|()| false),
    }
}

/// Whether `file` might be brought to `destination`, in a server's data directory, if it were anywhere: otherwise the
/// absence that another process has proved for that server's next question is no answer to this one.
pub fn is_asked_by_the_server(file: WalFileName, destination: &Path, cwd: &Path) -> bool {
    matches!(check_destination(file, destination, cwd), Ok((_, Some(_))))
}

/// Whether `file` may be brought to `destination`: where that is, and whose data directory it lies in.
fn check_destination(
    file: WalFileName,
    destination: &Path,
    cwd: &Path,
) -> Result<(PathBuf, Option<SystemIdentity>), GetError> {
    let target = cwd.join(destination);
    if is_not_where_the_server_looks(destination, file, cwd) {
        return Err(GetError::Elsewhere { path: target.display().to_string() });
    }
    let own = system_of(destination, cwd)?;
    // Recovery asks for RECOVERYXLOG, and pg_rewind for what is missing. A file that stands under its own
    // name is the server's: this hook was written into archive_command.
    let own_name = target.file_name().is_some_and(|name| name == file.to_string().as_str());
    if own_name && target.exists() {
        return Err(GetError::Taken { path: target.display().to_string() });
    }
    Ok((target, own))
}

/// A last look: exit 0 without the file would be taken for the archive's end.
fn look_at(target: &Path, expected: u64) -> Result<(), GetError> {
    let error = |source| GetError::Write { path: target.display().to_string(), source };
    let there = std::fs::metadata(target).map_err(|e| error(e.into()))?.len();
    if there == expected {
        return Ok(());
    }
    drop(durable::remove(target));
    Err(error(format!("it has {there} bytes instead of {expected}").into()))
}

/// The cluster in a repository that is meant: the data directory's, or the one that was asked for.
fn cluster_of<'r>(
    repository: &'r Repository,
    own: Option<SystemIdentity>,
    options: &GetOptions,
) -> Result<Cluster<'r>, RepositoryError> {
    match (own, options.system) {
        (Some(own), asked) if asked.is_none_or(|id| id == own.system_identifier) => {
            repository.cluster_of(&options.cluster, &own)
        }
        (_, asked) => repository.cluster(&options.cluster, asked),
    }
}

/// A file that was fetched and verified, under a temporary name beside its destination.
struct Fetched {
    file: NewFile,
    reach: Reach,
    /// What a segment's length must be.
    segment_size: u64,
}

struct Get<'a> {
    memory: &'a HostMemory,
    file: WalFileName,
    target: &'a Path,
    /// The system of the data directory that the destination lies in.
    own: Option<SystemIdentity>,
    options: &'a GetOptions,
    now: Moment,
}

/// What ends the delivery of one copy.
enum Stop {
    Repository(RepositoryError),
    Write(Box<dyn std::error::Error + Send + Sync>),
}

impl From<RepositoryError> for Stop {
    fn from(source: RepositoryError) -> Self {
        Self::Repository(source)
    }
}

impl Get<'_> {
    fn ask(&self, storage: Arc<dyn Storage>) -> Result<Option<Fetched>, GetError> {
        self.fetch(storage).map_err(|stop| match stop {
            Stop::Repository(source) => GetError::Repository { name: self.file.to_string(), source },
            Stop::Write(source) => self.write_error(source),
        })
    }

    fn write_error(&self, source: Box<dyn std::error::Error + Send + Sync>) -> GetError {
        GetError::Write { path: self.target.display().to_string(), source }
    }

    fn fetch(&self, storage: Arc<dyn Storage>) -> Result<Option<Fetched>, Stop> {
        use std::io::Write;
        let repository = Repository::open(storage, self.memory, Create::Nothing, self.now)?;
        let cluster = cluster_of(&repository, self.own, self.options)?;
        let new = std::cell::RefCell::new(None);
        let found = cluster.fetch(
            self.file,
            || {
                let file = NewFile::create_beside(self.target, 0o600).map_err(|e| Stop::Write(e.into()))?;
                *new.borrow_mut() = Some(file);
                Ok(())
            },
            |chunk| match new.borrow_mut().as_mut() {
                Some(new) => new.file().write_all(&chunk).map_err(|e| Stop::Write(e.into())),
                None => Err(Stop::Write("it was not begun".into())),
            },
        )?;
        let Some(reach) = found else { return Ok(None) };
        let Some(file) = new.into_inner() else {
            return Err(Stop::Write("nothing was fetched".into()));
        };
        // What was asked for is done; a memory that cannot be kept only weakens the next look.
        if let Err(error) = repository.remember(self.memory, &cluster) {
            tracing::warn!(%error, "cannot remember the repository on this host");
        }
        Ok(Some(Fetched { file, reach, segment_size: cluster.segment_size().bytes() }))
    }

    fn place(&self, mut fetched: Fetched) -> Result<(), GetError> {
        let name = self.target.file_name().ok_or_else(|| self.write_error("it has no file name".into()))?;
        let written = fetched.file.file().metadata().map_err(|e| self.write_error(e.into()))?.len();
        // The server syncs what it keeps; it only must never see half a file.
        fetched.file.replace_unsynced(name).map_err(|e| self.write_error(e.into()))?;
        let expected = match self.file {
            WalFileName::Segment(_) => fetched.segment_size,
            _ => written,
        };
        look_at(self.target, expected)
    }
}
