//! `archive-get`: one file out of the archive, verified, or the proof that no repository has it.

mod absence;
pub mod window;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::data_directory::{
    ControlFileError, is_not_where_the_server_looks, opens_at_the_end, replay_begins, server_of, system_of,
};
use crate::durable::{self, NewFile};
use crate::repository::layout::ClusterName;
use crate::repository::wal_archive::{Behind, Reach};
use crate::repository::{Cluster, Create, HostMemory, Repository, RepositoryError, SystemIdentity};
use crate::storage::{Storage, StorageErrorKind};
use crate::types::{Lsn, Moment, SegmentName, SystemId, WalFileName};

/// From where to get.
#[derive(Debug, Clone)]
pub struct GetOptions {
    /// The cluster's name in the repository.
    pub cluster: ClusterName,
    /// Which of the cluster's systems is meant; else the data directory's.
    pub system: Option<SystemId>,
}

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
    /// The destination is the server's own file of this name.
    #[error("refused to overwrite {path}")]
    Taken {
        /// The file.
        path: String,
    },
    /// The server whose data directory this is recovers, and looks for the file elsewhere.
    #[error("refused to write {path}: the server in this directory is in recovery and looks elsewhere")]
    Elsewhere {
        /// The file.
        path: String,
    },
    /// It is in no repository, but what comes behind it is. As an answer, absence would make a server open
    /// there, without all of that.
    #[error("{missing} is in no repository, and {behind} is in {url}: a gap, not the end")]
    Gap {
        /// The segment that was asked for.
        missing: SegmentName,
        /// What shows that there is more.
        behind: Behind,
        /// Where that is stored.
        url: String,
        /// Where the gap begins.
        from: Lsn,
    },
    /// Recovery reads its best copy to the middle only, and more is stored behind it. A server that is given it
    /// would open there, without all of that.
    #[error("{cut} can be read to {ends} in its best copy, and {behind} is in {url}: not the end")]
    CutShort {
        /// The segment that was asked for.
        cut: SegmentName,
        /// Where the last record ends that can be read.
        ends: Lsn,
        /// What shows that there is more.
        behind: Behind,
        /// Where that is stored.
        url: String,
    },
    /// The record that begins in the segment before, which the server was given, and ends in this one is damaged in
    /// one of them. A server that reads it would open there.
    #[error(
        "the record at {at}, which goes on from {before} to {next} in {url}, has a wrong checksum: not the end"
    )]
    Border {
        /// Where the record starts.
        at: Lsn,
        /// In which segment.
        before: SegmentName,
        /// The segment that was asked for.
        next: SegmentName,
        /// Where they are stored.
        url: String,
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

impl GetError {
    /// Whether a repository could not be asked at all, as opposed to one that answered wrongly, with
    /// something damaged, or as another than it should be.
    pub fn is_unreachable(&self) -> bool {
        use StorageErrorKind::{Denied, RootMissing, Transient};
        matches!(self, Self::Repository { source: RepositoryError::Storage(e), .. }
            if matches!(e.kind, Transient | RootMissing | Denied))
    }
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

    /// What is proven absent is the archive's end, unless more of the timeline follows it.
    fn refuse_gap(&self, storages: &[Arc<dyn Storage>], server: &Path) -> Result<(), GetError> {
        let lost = |own| absence::gap_would_be_lost(self.file, own, server);
        let Some((missing, from)) = self.own.and_then(lost) else { return Ok(()) };
        match self.behind(missing, storages)? {
            Some((behind, url)) => Err(GetError::Gap { missing, behind, url, from }),
            None => Ok(()),
        }
    }

    /// The same of a segment of which the rest cannot be read.
    fn refuse_cut(&self, storages: &[Arc<dyn Storage>], reach: Reach, server: &Path) -> Result<(), GetError> {
        let WalFileName::Segment(cut) = self.file else { return Ok(()) };
        let Some(ends) = reach.end_of_valid().filter(|_| self.own.is_some() && opens_at_the_end(server))
        else {
            return Ok(());
        };
        match self.behind(cut, storages)? {
            Some((behind, url)) => Err(GetError::CutShort { cut, ends, behind, url }),
            None => Ok(()),
        }
    }

    /// The same of one that is whole by itself.
    fn refuse_border(&self, storage: &Arc<dyn Storage>, server: &Path) -> Result<(), GetError> {
        let (WalFileName::Segment(next), Some(own)) = (self.file, self.own) else { return Ok(()) };
        if !opens_at_the_end(server) {
            return Ok(());
        }
        // Whoever begins in this segment reads nothing that comes before.
        let begins = replay_begins(server)?.zip(next.start(own.segment_size));
        if begins.is_none_or(|(replay, segment)| replay >= segment) {
            return Ok(());
        }
        let error = |source| GetError::Repository { name: self.file.to_string(), source };
        let repository =
            Repository::open(Arc::clone(storage), self.memory, Create::Nothing, self.now).map_err(error)?;
        let cluster = cluster_of(&repository, self.own, self.options).map_err(error)?;
        match cluster.damaged_border(next).map_err(error)? {
            Some((before, at)) => Err(GetError::Border { at, before, next, url: storage.url().to_owned() }),
            None => Ok(()),
        }
    }

    /// What any repository has of the timeline behind a segment, and where.
    fn behind(
        &self,
        segment: SegmentName,
        storages: &[Arc<dyn Storage>],
    ) -> Result<Option<(Behind, String)>, GetError> {
        let error = |source| GetError::Repository { name: self.file.to_string(), source };
        for storage in storages {
            let repository = Repository::open(Arc::clone(storage), self.memory, Create::Nothing, self.now)
                .map_err(error)?;
            let cluster = cluster_of(&repository, self.own, self.options).map_err(error)?;
            if let Some(behind) = cluster.gap_at(segment).map_err(error)? {
                return Ok(Some((behind, storage.url().to_owned())));
            }
        }
        Ok(None)
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
