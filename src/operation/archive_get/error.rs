//! Why a file was not delivered.

use crate::operation::data_directory::ControlFileError;
use crate::repository::RepositoryError;
use crate::repository::wal_archive::Behind;
use crate::storage::StorageErrorKind;
use crate::types::{Lsn, SegmentName};

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
