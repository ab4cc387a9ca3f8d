//! Why there is no window.

use crate::durable;
use crate::operation::data_directory::ControlFileError;

/// Why there can be no window. Without one every hook works alone.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The data directory's control file says nothing.
    #[error(transparent)]
    Control(#[from] ControlFileError),
    /// The directory is none.
    #[error("{path} is no data directory")]
    NoDataDirectory {
        /// The directory.
        path: String,
    },
    /// Another process has one here.
    #[error("another process fetches ahead into {path}")]
    Busy {
        /// The directory in `pg_wal`.
        path: String,
    },
    /// The directory in `pg_wal`.
    #[error("cannot fetch ahead into {path}")]
    Folder {
        /// The directory in `pg_wal`.
        path: String,
        /// Why.
        #[source]
        source: durable::Error,
    },
    /// The threads.
    #[error("cannot start the threads that fetch ahead")]
    Threads(#[source] std::io::Error),
}
