//! Promise 2: nothing is overwritten, and nobody is blocked for ever.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::object::{EncodedFrames, StoredWal};
use super::summary::WalContent;
use crate::repository::layout::name_digest;
use crate::repository::{Cluster, RepositoryError};
use crate::storage::Created;
use crate::types::{Moment, WalFileName};

/// A file to be archived, read and compressed.
#[derive(Debug)]
pub struct WalFile<'f> {
    /// Its name.
    pub name: WalFileName,
    /// The file itself, for comparing byte by byte.
    pub file: &'f File,
    /// When it was last written.
    pub modified: Option<Moment>,
    /// What is in it, for segments and partial segments.
    pub content: Option<WalContent>,
    /// Its compressed frames.
    pub frames: EncodedFrames,
}

/// What became of a file. All but `Conflict` are success, and durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOutcome {
    /// Stored under its name.
    New,
    /// The same bytes were there, whole.
    Same,
    /// What is there holds all of this file's valid records: a cut-off copy has nothing to add.
    Contained,
    /// Stored beside a copy that is shorter or damaged.
    Beside {
        /// Why.
        why: &'static str,
    },
    /// Refused earlier, and an operator has said that it is not wanted.
    Discarded,
    /// True divergence: kept under `conflict/`, refused.
    Conflict {
        /// The stored object it differs from.
        with: String,
        /// Where the refused file is kept.
        kept: String,
        /// The first byte that differs.
        differs_at: u64,
    },
}

/// How a stored copy compares with the file.
enum Comparison {
    Same,
    Damaged,
    Differs { at: u64, stored: Option<WalContent> },
}

impl Cluster<'_> {
    /// Stores a file, or proves that the archive holds what it would add.
    pub fn store_wal(&self, file: &mut WalFile<'_>) -> Result<StoreOutcome, RepositoryError> {
        let digest = file.frames.blake3().to_owned();
        let first = self.layout().wal_file(file.name, name_digest(&digest));
        if self.put(file, &first)? == Created::New {
            return Ok(StoreOutcome::New);
        }
        let mut beside: Option<&'static str> = None;
        let mut conflict = None;
        let segment = matches!(file.name, WalFileName::Segment(_));
        let mut copies = self.wal_copies(file.name)?;
        if !copies.contains(&first) {
            copies.insert(0, first);
        }
        for copy in copies {
            match self.compare(file, &copy)? {
                Comparison::Same => return Ok(StoreOutcome::Same),
                Comparison::Damaged => beside = Some("the stored copy is damaged"),
                Comparison::Differs { at, stored } => {
                    let ours = file.content.as_ref();
                    if segment && ours.is_some_and(|c| cut_off_before(c, at, self)) {
                        return Ok(StoreOutcome::Contained);
                    }
                    if segment && stored.as_ref().is_some_and(|c| cut_off_before(c, at, self)) {
                        beside = beside.or(Some("the stored copy ends earlier"));
                    } else if segment && marked_damaged_only(stored.as_ref(), ours, at, self) {
                        beside = beside.or(Some("the stored copy was damaged when it was archived"));
                    } else {
                        conflict.get_or_insert((copy, at));
                    }
                }
            }
        }
        match (conflict, beside) {
            (Some((with, differs_at)), _) => self.refuse(file, &digest, with, differs_at),
            (None, Some(why)) => {
                for name in self.layout().beside(file.name, &digest) {
                    if self.put(file, &name)? == Created::New {
                        return Ok(StoreOutcome::Beside { why });
                    }
                    if matches!(self.compare(file, &name)?, Comparison::Same) {
                        return Ok(StoreOutcome::Same);
                    }
                }
                Err(RepositoryError::damaged(
                    format!("every copy of {} in {}", file.name, self.repository().url()),
                    "none is whole, and the names for further copies are taken",
                ))
            }
            (None, None) => Err(RepositoryError::damaged(
                format!("{} in {}", file.name, self.repository().url()),
                "the name was taken a moment ago, and now nothing is there",
            )),
        }
    }

    fn put(&self, file: &mut WalFile<'_>, name: &str) -> Result<Created, RepositoryError> {
        let text = file.name.to_string();
        file.frames.store(self.storage(), name, &text, file.modified, file.content.as_ref())
    }

    fn refuse(
        &self,
        file: &mut WalFile<'_>,
        digest: &str,
        with: String,
        differs_at: u64,
    ) -> Result<StoreOutcome, RepositoryError> {
        let short = name_digest(digest);
        if self.storage().read(&self.layout().discarded(file.name, short))?.is_some() {
            return Ok(StoreOutcome::Discarded);
        }
        let kept = self.layout().conflict(file.name, short);
        self.put(file, &kept)?;
        Ok(StoreOutcome::Conflict { with: self.object_url(&with), kept: self.object_url(&kept), differs_at })
    }

    /// Reads the stored copy whole: a summary that still agrees proves nothing about the bytes behind it.
    fn compare(&self, file: &WalFile<'_>, name: &str) -> Result<Comparison, RepositoryError> {
        let stored = match StoredWal::open(self.storage(), name, true) {
            Ok(Some(stored)) if stored.summary().name == file.name.to_string() => stored,
            Ok(_) | Err(RepositoryError::Damaged { .. }) => return Ok(Comparison::Damaged),
            Err(e) => return Err(e),
        };
        let mut at = 0u64;
        let mut differs = None;
        let mut ours = Vec::new();
        let read = stored.decode(|chunk| {
            if differs.is_none() {
                let left = file.frames.size().saturating_sub(at);
                let len = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
                ours.resize(len, 0);
                file.file.read_exact_at(&mut ours, at).map_err(|source| RepositoryError::Local {
                    action: "read again",
                    path: file.name.to_string(),
                    source,
                })?;
                differs = chunk
                    .iter()
                    .zip(&ours)
                    .position(|(a, b)| a != b)
                    .or((len < chunk.len()).then_some(len))
                    .map(|n| at + n as u64);
            }
            at += chunk.len() as u64;
            Ok::<(), RepositoryError>(())
        });
        match read {
            Ok(()) => {}
            Err(RepositoryError::Damaged { .. }) => return Ok(Comparison::Damaged),
            Err(e) => return Err(e),
        }
        if stored.summary().blake3 == file.frames.blake3() {
            return Ok(Comparison::Same);
        }
        let at = differs.unwrap_or(at);
        Ok(Comparison::Differs { at, stored: stored.summary().wal.clone() })
    }
}

/// Whether a copy ends, undamaged, before the first byte that differs: then the other one holds all of it.
fn cut_off_before(content: &WalContent, differs_at: u64, cluster: &Cluster<'_>) -> bool {
    content.cut_off_at.is_some_and(|end| {
        let offset = end.0 % cluster.segment_size().bytes();
        offset > 0 && offset <= differs_at
    })
}

/// The stored copy was marked as damaged when it came, and this one is whole and of the same system.
fn marked_damaged_only(
    stored: Option<&WalContent>,
    ours: Option<&WalContent>,
    differs_at: u64,
    cluster: &Cluster<'_>,
) -> bool {
    match (stored, ours) {
        (Some(stored), Some(ours)) => {
            stored.damage.is_some()
                && ours.damage.is_none()
                && ours.end_of_valid > stored.end_of_valid
                && stored.end_of_valid.0 % cluster.segment_size().bytes() <= differs_at
        }
        _ => false,
    }
}
