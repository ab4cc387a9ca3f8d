//! The manifest against what arrived, file by file, without a table of all files: both are in the order of
//! the streams.

use std::io::BufRead;
use std::path::Path;

use super::BackupError;
use crate::pgdata::backup_manifest::{Manifest, ManifestFile, ManifestReader};
use crate::repository::backup_set::format::{Entry, EntryKind, IndexLine};
use crate::repository::backup_set::{Spool, SpoolReader};

/// Reads the manifest as it arrives, compares it, and keeps it.
pub(super) struct ManifestJoin {
    manifest: ManifestReader,
    files: Files,
    pub(super) spool: Spool,
    failed: Option<BackupError>,
}

struct Files {
    lines: SpoolReader,
    archive: String,
    line: String,
}

impl ManifestJoin {
    pub(super) fn new(index: &Spool, level: i32, temp_dir: &Path) -> Result<Self, BackupError> {
        let temporary = "read the temporary file of the index";
        Ok(Self {
            manifest: ManifestReader::new(),
            files: Files {
                lines: index.reader().map_err(BackupError::local(temporary))?,
                archive: String::new(),
                line: String::new(),
            },
            spool: Spool::new(level, temp_dir)
                .map_err(BackupError::local("make a temporary file for the manifest"))?,
            failed: None,
        })
    }

    /// The next bytes of the manifest.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.spool.write(bytes).map_err(BackupError::local("write the temporary file of the manifest"))?;
        let (files, failed) = (&mut self.files, &mut self.failed);
        self.manifest.push(bytes, &mut |file| {
            if failed.is_none() {
                *failed = files.compare(&file).err();
            }
        })?;
        self.failed.take().map_or(Ok(()), Err)
    }

    /// The manifest has ended: nothing may be left over on either side.
    pub(super) fn finish(mut self) -> Result<(Manifest, Spool), BackupError> {
        let manifest = self.manifest.finish()?;
        if let Some((path, _)) = self.files.next()? {
            return Err(not_named(path));
        }
        self.spool.flush().map_err(BackupError::local("write the temporary file of the manifest"))?;
        Ok((manifest, self.spool))
    }
}

fn not_named(path: String) -> BackupError {
    BackupError::File { path, expected: "nothing of it".into(), found: "whole".into() }
}

impl Files {
    fn next(&mut self) -> Result<Option<(String, Entry)>, BackupError> {
        let failed = "read the temporary file of the index";
        loop {
            self.line.clear();
            if self.lines.read_line(&mut self.line).map_err(BackupError::local(failed))? == 0 {
                return Ok(None);
            }
            match serde_json::from_str(&self.line).map_err(BackupError::local(failed))? {
                IndexLine::Archive { name } => self.archive = name,
                IndexLine::Entry(entry) if entry.kind == EntryKind::File => {
                    let path = match self.archive.as_str() {
                        "base" => entry.path.clone(),
                        oid => format!("pg_tblspc/{oid}/{}", entry.path),
                    };
                    return Ok(Some((path, entry)));
                }
                _ => {}
            }
        }
    }

    fn compare(&mut self, named: &ManifestFile) -> Result<(), BackupError> {
        let named_path = String::from_utf8_lossy(&named.path).into_owned();
        let missing = |path| BackupError::File {
            path,
            expected: "it is part of the backup".into(),
            found: "not at all, or out of order".into(),
        };
        let Some((path, entry)) = self.next()? else { return Err(missing(named_path)) };
        if path.as_bytes() != named.path {
            return Err(missing(named_path));
        }
        if entry.size != named.size {
            return Err(BackupError::File {
                path,
                expected: format!("{} bytes", named.size),
                found: format!("with {} bytes", entry.size),
            });
        }
        let expected = named.checksum.as_ref().and_then(|sum| sum.crc32c());
        if expected.is_none() || expected != entry.crc32c {
            let hex =
                |sum: Option<u32>| sum.map_or_else(|| "no CRC32C".to_owned(), |s| format!("CRC32C {s:08x}"));
            return Err(BackupError::File {
                path,
                expected: hex(expected),
                found: format!("with {}", hex(entry.crc32c)),
            });
        }
        Ok(())
    }
}
