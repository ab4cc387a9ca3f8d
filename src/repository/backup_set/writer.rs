//! The order of a backup's writes, which is its safety: nothing is listed before the last one.

use std::io;

use bytes::Bytes;

use super::Spool;
use super::format::{Backup, Started};
use crate::repository::layout::EpochLayout;
use crate::storage::{Created, ObjectWriter, Storage, StorageError};
use crate::types::BackupId;

/// A part is ended once it holds this many stored bytes.
pub const PART_SIZE: u64 = 32 << 20;

/// Why a backup cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum BackupSetError {
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Somebody else has written under this backup's name.
    #[error("{0} is there already: is another backup being written under the same name?")]
    Taken(String),
    /// The temporary file for index and manifest.
    #[error("cannot write or read the temporary file for the backup's index (TMPDIR)")]
    Spool(#[from] io::Error),
    /// A descriptor that cannot be written as JSON.
    #[error("cannot write {what} as JSON")]
    Json {
        /// Which one.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// One backup being written.
#[derive(Debug, Clone, Copy)]
pub struct BackupWriter<'a> {
    storage: &'a dyn Storage,
    layout: &'a EpochLayout,
    id: &'a BackupId,
}

impl<'a> BackupWriter<'a> {
    /// Writes `started.json`, from when on the WAL that the backup needs is kept. `false` when the name is
    /// taken.
    pub fn start(
        storage: &dyn Storage,
        layout: &EpochLayout,
        started: &Started,
    ) -> Result<bool, BackupSetError> {
        let name = layout.started(&started.id);
        Ok(storage.create(&name, json("started.json", started)?)? == Created::New)
    }

    /// Goes on writing the backup that [`BackupWriter::start`] has started.
    pub fn new(storage: &'a dyn Storage, layout: &'a EpochLayout, id: &'a BackupId) -> Self {
        Self { storage, layout, id }
    }

    /// Starts one part of an archive.
    pub fn part(&self, archive: &str, number: u64) -> Result<PartWriter<'a>, BackupSetError> {
        let name = self.layout.part(self.id, archive, number);
        let writer = self.storage.begin(&name, None)?;
        Ok(PartWriter { name, writer, stored: 0 })
    }

    /// Stores the index.
    pub fn files(&self, spool: &mut Spool) -> Result<(), BackupSetError> {
        self.spooled(self.layout.files(self.id), spool)
    }

    /// Stores the server's manifest.
    pub fn manifest(&self, spool: &mut Spool) -> Result<(), BackupSetError> {
        self.spooled(self.layout.manifest(self.id), spool)
    }

    /// The last write: from here on the backup exists.
    pub fn commit(self, backup: &Backup) -> Result<(), BackupSetError> {
        let name = self.layout.backup_descriptor(self.id);
        match self.storage.create(&name, json("backup.json", backup)?)? {
            Created::New => Ok(()),
            Created::Exists => Err(BackupSetError::Taken(name)),
        }
    }

    fn spooled(&self, name: String, spool: &mut Spool) -> Result<(), BackupSetError> {
        let mut writer = self.storage.begin(&name, Some(spool.stored_size()))?;
        spool.copy_stored(|bytes| writer.write(bytes).map_err(BackupSetError::from))?;
        committed(&mut *writer, name)
    }
}

/// One part being written.
pub struct PartWriter<'a> {
    name: String,
    writer: Box<dyn ObjectWriter + 'a>,
    stored: u64,
}

impl std::fmt::Debug for PartWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartWriter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartWriter<'_> {
    /// Appends one whole frame; where it begins in the part.
    pub fn append(&mut self, frame: &[u8]) -> Result<u64, BackupSetError> {
        self.writer.write(frame)?;
        let at = self.stored;
        self.stored += frame.len() as u64;
        Ok(at)
    }

    /// Stored bytes so far.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Ends the part: visible and durable.
    pub fn commit(mut self) -> Result<(), BackupSetError> {
        committed(&mut *self.writer, self.name)
    }
}

fn committed(writer: &mut dyn ObjectWriter, name: String) -> Result<(), BackupSetError> {
    match writer.commit()? {
        Created::New => Ok(()),
        // The identity of a backup is its own: nothing but another writer can have put it there.
        Created::Exists => Err(BackupSetError::Taken(name)),
    }
}

fn json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<Bytes, BackupSetError> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|source| BackupSetError::Json { what, source })?;
    text.push(b'\n');
    Ok(text.into())
}
