//! The index against the server's manifest, before anything is written: no file missing, none too many,
//! each of the same size and checksum. Both are in the order of the streams, so no table is needed.

use std::io::Read;

use super::RestoreError;
use crate::durable::Owner;
use crate::pgdata::backup_manifest::{ManifestFile, ManifestReader, WalRange};
use crate::repository::RepositoryError;
use crate::repository::backup_set::format::{Entry, EntryKind, IndexLine};
use crate::repository::backup_set::{Index, IndexLines, Proved};

/// What was found on the way.
pub(in crate::operation) struct Proof {
    pub(in crate::operation) files: u64,
    /// The WAL that is needed, as the server says.
    pub(in crate::operation) wal_ranges: Vec<WalRange>,
    /// Whose the files were on the server: all of a data directory are one account's.
    pub(in crate::operation) recorded_owner: Option<Owner>,
}

/// Compares; from then on a file that is what the index says is what the manifest says.
pub(in crate::operation) fn compare(index: &Index, manifest: &Proved) -> Result<Proof, RestoreError> {
    let mut files = Files { lines: index.lines()?, archive: String::new(), owner: None };
    let mut reader = ManifestReader::new();
    let mut raw = manifest.reader()?;
    let mut chunk = vec![0; 256 << 10];
    loop {
        let n = raw.read(&mut chunk).map_err(|e| RepositoryError::damaged(manifest.object(), e))?;
        let Some(bytes) = chunk.get(..n).filter(|b| !b.is_empty()) else { break };
        let mut failed = None;
        reader.push(bytes, &mut |named| {
            if failed.is_none() {
                failed = files.compare(&named).err();
            }
        })?;
        failed.map_or(Ok(()), Err)?;
    }
    let manifest = reader.finish()?;
    match files.next()? {
        Some((path, _)) => Err(RestoreError::Mismatch {
            path,
            expected: "absent (the manifest does not name it)".to_owned(),
            found: "part of the backup".to_owned(),
        }),
        None => {
            Ok(Proof { files: manifest.files, wal_ranges: manifest.wal_ranges, recorded_owner: files.owner })
        }
    }
}

struct Files<'a> {
    lines: IndexLines<'a>,
    archive: String,
    owner: Option<Owner>,
}

impl Files<'_> {
    fn next(&mut self) -> Result<Option<(String, Entry)>, RestoreError> {
        for line in self.lines.by_ref() {
            match line? {
                IndexLine::Archive { name } => self.archive = name,
                IndexLine::Entry(entry) => {
                    self.owner.get_or_insert(Owner { uid: entry.uid, gid: entry.gid });
                    if entry.kind == EntryKind::File {
                        let path = match self.archive.as_str() {
                            "base" => entry.path.clone(),
                            oid => format!("pg_tblspc/{oid}/{}", entry.path),
                        };
                        return Ok(Some((path, entry)));
                    }
                }
                IndexLine::Frame(_) => {}
            }
        }
        Ok(None)
    }

    fn compare(&mut self, named: &ManifestFile) -> Result<(), RestoreError> {
        let path = String::from_utf8_lossy(&named.path).into_owned();
        let shown = |size: u64, sum: Option<u32>| match sum {
            Some(sum) => format!("{size} bytes with CRC32C {sum:08x}"),
            None => format!("{size} bytes without a CRC32C"),
        };
        let sum = named.checksum.as_ref().and_then(|sum| sum.crc32c());
        let expected = shown(named.size, sum);
        match self.next()? {
            Some((found, entry)) if found.as_bytes() == named.path => {
                if entry.size == named.size && entry.crc32c == sum && sum.is_some() {
                    return Ok(());
                }
                Err(RestoreError::Mismatch { path, expected, found: shown(entry.size, entry.crc32c) })
            }
            other => {
                let found = other.map_or_else(
                    || "missing".to_owned(),
                    |(other, _)| format!("missing where {other} stands"),
                );
                Err(RestoreError::Mismatch { path, expected, found })
            }
        }
    }
}
