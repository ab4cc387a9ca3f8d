//! Backups, found and opened.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};

use super::format::{Backup, FORMAT, IndexLine, Started};
use crate::repository::{Cluster, RepositoryError};
use crate::types::BackupId;

impl Cluster<'_> {
    /// The names under which backups were begun, oldest first: not all of them exist.
    pub fn backup_ids(&self) -> Result<Vec<BackupId>, RepositoryError> {
        let folders = self.storage().list_folders(&self.layout().backups())?;
        Ok(folders.iter().filter_map(|folder| folder.parse().ok()).collect())
    }

    /// The backups that exist, oldest first: those whose last write is there.
    pub fn backups(&self) -> Result<Vec<Backup>, RepositoryError> {
        let mut backups = Vec::new();
        for id in self.backup_ids()? {
            if let Some(backup) = self.backup(&id)? {
                backups.push(backup);
            }
        }
        Ok(backups)
    }

    /// Backups that began and are not there: running still, or failed. The earliest first.
    pub fn unfinished_backups(&self) -> Result<Vec<Started>, RepositoryError> {
        let mut unfinished = Vec::new();
        for folder in self.storage().list_folders(&self.layout().backups())? {
            let Ok(id) = folder.parse::<BackupId>() else { continue };
            if self.storage().size(&self.layout().backup_descriptor(&id))?.is_some() {
                continue;
            }
            let name = self.layout().started(&id);
            let Some(bytes) = self.storage().read(&name)? else { continue };
            let started = serde_json::from_slice(&bytes)
                .map_err(|e| RepositoryError::damaged(self.object_url(&name), e))?;
            unfinished.push(started);
        }
        Ok(unfinished)
    }

    /// One backup; `None` when its last write is not there.
    pub fn backup(&self, id: &BackupId) -> Result<Option<Backup>, RepositoryError> {
        let name = self.layout().backup_descriptor(id);
        let Some(bytes) = self.storage().read(&name)? else { return Ok(None) };
        let object = self.object_url(&name);
        let backup: Backup =
            serde_json::from_slice(&bytes).map_err(|e| RepositoryError::damaged(&object, e))?;
        if backup.format > FORMAT {
            return Err(RepositoryError::NewerFormat { object, found: backup.format, supported: FORMAT });
        }
        Ok(Some(backup))
    }

    /// Reads a backup's index: decoded into an unnamed file, proved against the digest in `backup.json`,
    /// and only then handed out line by line.
    pub fn index(
        &self,
        backup: &Backup,
    ) -> Result<impl Iterator<Item = Result<IndexLine, RepositoryError>>, RepositoryError> {
        let name = self.layout().files(&backup.id);
        let object = self.object_url(&name);
        let damaged = |e: std::io::Error| RepositoryError::damaged(&object, e);
        let stored =
            self.storage().read(&name)?.ok_or_else(|| RepositoryError::damaged(&object, "it is missing"))?;
        let mut plain = tempfile::tempfile().map_err(damaged)?;
        let mut decoder = zstd::stream::read::Decoder::new(&stored[..]).map_err(damaged)?;
        let mut digest = blake3::Hasher::new();
        let mut chunk = vec![0u8; 1 << 20];
        loop {
            let n = decoder.read(&mut chunk).map_err(damaged)?;
            let Some(read) = chunk.get(..n).filter(|r| !r.is_empty()) else { break };
            digest.update(read);
            plain.write_all(read).map_err(damaged)?;
        }
        if digest.finalize().to_hex().as_str() != backup.index.blake3 {
            return Err(RepositoryError::damaged(&object, "it is not what backup.json says"));
        }
        plain.seek(SeekFrom::Start(0)).map_err(damaged)?;
        Ok(BufReader::new(plain).lines().map(move |line| {
            let line = line.map_err(|e| RepositoryError::damaged(&object, e))?;
            serde_json::from_str(&line).map_err(|e| RepositoryError::damaged(&object, e))
        }))
    }
}
