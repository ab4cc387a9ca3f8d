//! Why there is no backup.

use std::error::Error;

use crate::pgdata::backup_manifest::ManifestError;
use crate::pgdata::tar::TarError;
use crate::postgres::PostgresError;
use crate::repository::RepositoryError;
use crate::repository::backup_set::BackupSetError;
use crate::storage::StorageError;
use crate::types::SystemId;

/// Why there is no backup. Whatever was stored before is not listed by anything.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The server, or the way to it.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The store, or the backup's objects in it.
    #[error(transparent)]
    Set(#[from] BackupSetError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The server's tar stream.
    #[error("the server's stream of {archive} cannot be read")]
    Tar {
        /// `base` or a tablespace's OID.
        archive: String,
        /// What is wrong with it.
        #[source]
        source: TarError,
    },
    /// The server's manifest.
    #[error("the backup is not what the server's manifest says")]
    Manifest(#[from] ManifestError),
    /// A file of the stream does not agree with the manifest.
    #[error("{path} arrived {found}, but the server's manifest says {expected}")]
    File {
        /// The file, below the data directory.
        path: String,
        /// What the manifest says.
        expected: String,
        /// What the stream brought.
        found: String,
    },
    /// The server found damaged pages.
    #[error("the server found damaged pages while it read its files: {}", files.join("; "))]
    DamagedPages {
        /// The server's warnings.
        files: Vec<String>,
    },
    /// The settings forbid base backups, or those of this kind.
    #[error("{0}")]
    Setting(String),
    /// The connection leads to another cluster than the one that was looked at first.
    #[error("the {what} is system {found}, not {expected}")]
    OtherSystem {
        /// Which connection.
        what: &'static str,
        /// What the repository's cluster is bound to.
        expected: SystemId,
        /// What the server is.
        found: SystemId,
    },
    /// WAL that is not in the repository in time.
    #[error(
        "the files are stored, but the backup is not complete: after {seconds} s {url} {found} WAL segment {segment}{archiver}"
    )]
    WalMissing {
        /// The first one missing.
        segment: String,
        /// The repository.
        url: String,
        /// What it has of it, with a verb.
        found: String,
        /// What the server says about its archiver, with the punctuation before it.
        archiver: String,
        /// `--wal-timeout`.
        seconds: u64,
    },
    /// WAL that the server did not send in time.
    #[error(
        "the files are stored, but the backup is not complete: the server has not sent WAL segment {segment} to its end after {seconds} s"
    )]
    WalNotSent {
        /// The segment.
        segment: String,
        /// `--wal-timeout`.
        seconds: u64,
    },
    /// WAL that the backup needs, archived with damage in it.
    #[error("the backup needs WAL segment {segment}, and {url} holds it damaged: {damage}")]
    WalDamaged {
        /// The segment.
        segment: String,
        /// The repository.
        url: String,
        /// What is broken.
        damage: String,
    },
    /// WAL that was streamed and could not be stored.
    #[error("cannot store {what}, which the backup needs")]
    Wal {
        /// The segment or history file.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A label or an annotation.
    #[error("{0}")]
    Argument(String),
    /// Threads, compression, temporary files.
    #[error("cannot {action}")]
    Local {
        /// The verb.
        action: &'static str,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl From<StorageError> for BackupError {
    fn from(e: StorageError) -> Self {
        Self::Set(BackupSetError::Storage(e))
    }
}

impl BackupError {
    pub(super) fn local<E: Into<Box<dyn Error + Send + Sync>>>(
        action: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Local { action, source: source.into() }
    }
}
