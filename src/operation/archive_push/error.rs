use crate::operation::data_directory::ControlFileError;
use crate::repository::RepositoryError;
use crate::types::{ParseError, SystemId};
use crate::wal::HeaderProblem;

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
    /// A history or backup file of a length that none has.
    #[error("{path} has {bytes} bytes: it is no file that the server wrote")]
    Length {
        /// The file.
        path: String,
        /// Its length.
        bytes: u64,
    },
    /// It is of another system than the data directory it lies in.
    #[error("{path} is of system identifier {found}, its data directory is of {expected}")]
    Stranger {
        /// The file.
        path: String,
        /// The segment's.
        found: SystemId,
        /// `pg_control`'s.
        expected: SystemId,
    },
    /// `strict` is on, and the content is damaged or could not be checked.
    #[error("refused {path}: {what}")]
    Strict {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
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
