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
    #[error("cannot write or read the temporary file for the backup's index")]
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
        let text = json("started.json", started)?;
        match storage.create(&name, text.clone())? {
            Created::New => Ok(true),
            // Host, process and position are in it: the same bytes are our own, whose answer was lost.
            Created::Exists => Ok(storage.read(&name)?.as_ref() == Some(&text)),
        }
    }

    /// Goes on writing the backup that [`BackupWriter::start`] has started.
    pub fn new(storage: &'a dyn Storage, layout: &'a EpochLayout, id: &'a BackupId) -> Self {
        Self { storage, layout, id }
    }

    /// Starts one part of an archive.
    pub fn part(&self, archive: &str, number: u64) -> Result<PartWriter<'a>, BackupSetError> {
        let name = self.layout.part(self.id, archive, number);
        let writer = self.storage.begin(&name, None)?;
        Ok(PartWriter { storage: self.storage, name, writer, digest: blake3::Hasher::new() })
    }

    /// Stores the index.
    pub fn files(&self, spool: &mut Spool) -> Result<(), BackupSetError> {
        self.spooled(self.layout.files(self.id), spool)
    }

    /// Stores the server's manifest.
    pub fn manifest(&self, spool: &mut Spool) -> Result<(), BackupSetError> {
        self.spooled(self.layout.manifest(self.id), spool)
    }

    /// Stores the catalogue.
    pub fn catalogue(&self, spool: &mut Spool) -> Result<(), BackupSetError> {
        self.spooled(self.layout.catalogue(self.id), spool)
    }

    /// The last write: from here on the backup exists.
    pub fn commit(self, backup: &Backup) -> Result<(), BackupSetError> {
        let name = self.layout.backup_descriptor(self.id);
        let text = json("backup.json", backup)?;
        let stored = match self.storage.create(&name, text.clone()) {
            Ok(Created::New) => return Ok(()),
            Ok(Created::Exists) => self.storage.read(&name)?,
            // It may be there all the same, and a backup that exists must not be called failed.
            Err(e) if e.is_transient() => match self.storage.read(&name) {
                Ok(Some(found)) => Some(found),
                Ok(None) | Err(_) => return Err(e.into()),
            },
            Err(e) => return Err(e.into()),
        };
        if stored == Some(text) { Ok(()) } else { Err(BackupSetError::Taken(name)) }
    }

    fn spooled(&self, name: String, spool: &mut Spool) -> Result<(), BackupSetError> {
        let writer = self.storage.begin(&name, Some(spool.stored_size()))?;
        let mut part = PartWriter { storage: self.storage, name, writer, digest: blake3::Hasher::new() };
        spool.copy_stored(|bytes| part.append(bytes))?;
        part.commit()
    }
}

/// One part being written.
pub struct PartWriter<'a> {
    storage: &'a dyn Storage,
    name: String,
    writer: Box<dyn ObjectWriter + 'a>,
    digest: blake3::Hasher,
}

impl std::fmt::Debug for PartWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartWriter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartWriter<'_> {
    /// Appends one whole frame.
    pub fn append(&mut self, frame: &[u8]) -> Result<(), BackupSetError> {
        self.writer.write(frame)?;
        self.digest.update(frame);
        Ok(())
    }

    /// Ends the part: visible and durable.
    pub fn commit(mut self) -> Result<(), BackupSetError> {
        match self.writer.commit()? {
            Created::New => Ok(()),
            // The identity of a backup is its own. It is there already when the store's answer to the first
            // try was lost; then these are our bytes. Anything else is another writer's.
            Created::Exists => match self.storage.read(&self.name)? {
                Some(found) if blake3::hash(&found) == self.digest.finalize() => Ok(()),
                _ => Err(BackupSetError::Taken(self.name)),
            },
        }
    }
}

fn json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<Bytes, BackupSetError> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|source| BackupSetError::Json { what, source })?;
    text.push(b'\n');
    Ok(text.into())
}
