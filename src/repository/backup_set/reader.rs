//! Backups, found and opened.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;

use super::format::{Backup, Digest, FORMAT, IndexLine, Started};
use crate::repository::{Cluster, RepositoryError, abreast};
use crate::types::BackupId;

/// How much of an index or manifest is asked for at once.
const READ: u64 = 4 << 20;

impl Cluster<'_> {
    /// The names under which backups were begun, oldest first: not all of them exist.
    pub fn backup_ids(&self) -> Result<Vec<BackupId>, RepositoryError> {
        let folders = self.storage().list_folders(&self.layout().backups())?;
        Ok(folders.iter().filter_map(|folder| folder.parse().ok()).collect())
    }

    /// The backups that exist, oldest first: those whose last write is there.
    pub fn backups(&self) -> Result<Vec<Backup>, RepositoryError> {
        let backups = abreast(&self.backup_ids()?, |id| self.backup(id))?;
        Ok(backups.into_iter().flatten().collect())
    }

    /// Backups that began and are not there: running still, or failed. The earliest first. With whoever
    /// began it, where its first write can be read: garbage keeps nobody from looking at the rest.
    pub fn unfinished_backups(&self) -> Result<Vec<(BackupId, Option<Started>)>, RepositoryError> {
        let mut unfinished = Vec::new();
        for id in self.backup_ids()? {
            if self.storage().size(&self.layout().backup_descriptor(&id))?.is_some() {
                continue;
            }
            let started = self.started(&id)?;
            unfinished.push((id, started));
        }
        Ok(unfinished)
    }

    /// A backup's first write, where it is there and can be read.
    pub fn started(&self, id: &BackupId) -> Result<Option<Started>, RepositoryError> {
        let bytes = self.storage().read(&self.layout().started(id))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
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

    /// Which of a backup's parts are missing or shorter than they were stored; empty where none is. One
    /// listing: their bytes are proved when they are read.
    pub fn backup_problems(&self, backup: &Backup) -> Result<Vec<String>, RepositoryError> {
        let mut sizes = HashMap::new();
        self.storage().list(&self.layout().backup(&backup.id), None, &mut |object| {
            sizes.insert(object.name, object.size);
        })?;
        let mut problems = Vec::new();
        let missing = |name: &str| format!("{} is missing", self.object_url(name));
        for archive in &backup.archives {
            let parts = (0..archive.parts).map(|n| self.layout().part(&backup.id, &archive.name, n));
            let (there, lost): (Vec<_>, Vec<_>) = parts.partition(|name| sizes.contains_key(name));
            problems.extend(lost.iter().map(|name| missing(name)));
            let stored: u64 = there.iter().filter_map(|name| sizes.get(name)).sum();
            if lost.is_empty() && stored != archive.stored_size {
                problems.push(format!(
                    "the parts of {} have {stored} bytes instead of {}",
                    archive.name, archive.stored_size
                ));
            }
        }
        Ok(problems)
    }

    /// A backup's index, fetched and proved against the digest in `backup.json`.
    pub fn index(&self, backup: &Backup) -> Result<Index, RepositoryError> {
        Ok(Index(self.proved(self.layout().files(&backup.id), &backup.index)?))
    }

    /// The server's own manifest, fetched and proved as the index is.
    pub fn manifest(&self, backup: &Backup) -> Result<Proved, RepositoryError> {
        self.proved(self.layout().manifest(&backup.id), &backup.manifest)
    }

    /// Both may name millions of files, so they are kept as they are stored, in a file without a name.
    pub(super) fn proved(&self, name: String, digest: &Digest) -> Result<Proved, RepositoryError> {
        let object = self.object_url(&name);
        let local = |source| RepositoryError::Local {
            action: "keep a part of the backup in a temporary file (TMPDIR) for",
            path: object.clone(),
            source,
        };
        let mut stored = tempfile::tempfile().map_err(local)?;
        let mut at = 0;
        loop {
            let bytes = self
                .storage()
                .read_range(&name, at..at + READ)?
                .ok_or_else(|| RepositoryError::damaged(&object, "it is missing"))?;
            stored.write_all(&bytes).map_err(local)?;
            at += bytes.len() as u64;
            if (bytes.len() as u64) < READ {
                break;
            }
        }
        let proved = Proved { stored, object };
        proved.prove(digest)?;
        Ok(proved)
    }
}

/// A compressed object in a temporary file, of which the raw bytes are what `backup.json` promises.
#[derive(Debug)]
pub struct Proved {
    stored: File,
    object: String,
}

/// Reads a [`Proved`] object's raw bytes; any number of them may be under way.
pub type ProvedReader<'a> = BufReader<zstd::stream::read::Decoder<'static, BufReader<ReadAt<'a>>>>;

impl Proved {
    /// The raw bytes from the start.
    pub fn reader(&self) -> Result<ProvedReader<'_>, RepositoryError> {
        let stored = BufReader::with_capacity(128 << 10, ReadAt { file: &self.stored, at: 0 });
        let decoder = zstd::stream::read::Decoder::with_buffer(stored)
            .map_err(|e| RepositoryError::damaged(&self.object, e))?;
        Ok(BufReader::with_capacity(128 << 10, decoder))
    }

    /// Where it came from.
    pub fn object(&self) -> &str {
        &self.object
    }

    fn prove(&self, digest: &Digest) -> Result<(), RepositoryError> {
        let mut raw = self.reader()?.take(digest.size.saturating_add(1));
        let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
        let mut chunk = vec![0u8; 256 << 10];
        loop {
            let n = raw.read(&mut chunk).map_err(|e| RepositoryError::damaged(&self.object, e))?;
            let Some(read) = chunk.get(..n).filter(|r| !r.is_empty()) else { break };
            hasher.update(read);
            size += read.len() as u64;
        }
        if size == digest.size && hasher.finalize().to_hex().as_str() == digest.blake3 {
            Ok(())
        } else {
            Err(RepositoryError::damaged(&self.object, "it is not what backup.json says"))
        }
    }
}

/// A file read from a place of one's own, so that several can read it.
#[derive(Debug)]
pub struct ReadAt<'a> {
    file: &'a File,
    at: u64,
}

impl Read for ReadAt<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// A backup's index: what is where. Its lines can be read several times, also at once.
#[derive(Debug)]
pub struct Index(Proved);

impl Index {
    /// The lines from the start.
    pub fn lines(&self) -> Result<IndexLines<'_>, RepositoryError> {
        Ok(IndexLines { reader: self.0.reader()?, object: &self.0.object, line: String::new() })
    }

    /// Where it came from.
    pub fn object(&self) -> &str {
        &self.0.object
    }
}

/// See [`Index::lines`].
pub struct IndexLines<'a> {
    reader: ProvedReader<'a>,
    object: &'a str,
    line: String,
}

impl std::fmt::Debug for IndexLines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexLines").field("object", &self.object).finish_non_exhaustive()
    }
}

impl Iterator for IndexLines<'_> {
    type Item = Result<IndexLine, RepositoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line.clear();
        match self.reader.read_line(&mut self.line) {
            Ok(0) => None,
            Ok(_) => {
                Some(serde_json::from_str(&self.line).map_err(|e| RepositoryError::damaged(self.object, e)))
            }
            Err(e) => Some(Err(RepositoryError::damaged(self.object, e))),
        }
    }
}
