//! Promise 2: nothing is overwritten, and nobody is blocked for ever.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::encode::EncodedFrames;
use super::object::StoredWal;
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
    pub frames: EncodedFrames<'f>,
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
    /// Stored beside another copy.
    Beside(Beside),
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

/// Why a file is stored beside another copy of it. Readers take the one that recovery can read furthest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Beside {
    /// The stored object fails its own check.
    #[error("the stored object fails its own check")]
    StoredObjectDamaged,
    /// The stored copy was cut off.
    #[error("the stored copy ends earlier")]
    StoredEndsEarlier,
    /// The stored copy was marked as damaged when it came.
    #[error("the stored copy was damaged when it was archived")]
    StoredContentDamaged,
    /// This copy is damaged, and the stored one is the same as far as this one can be read.
    #[error("this copy is damaged where it begins to differ; the stored one is what recovery gets")]
    OursDamaged,
}

/// What the first request for a stored copy brings: all of most segments of 16 MiB. The rest comes piece by piece, so
/// that a hook that meets a copy of incompressible bytes stays within its memory. Bytes.
const FIRST_REQUEST: u64 = 2 << 20;

/// How a stored copy compares with the file.
enum Comparison {
    Same,
    Damaged,
    Differs { at: u64, stored: Option<Box<WalContent>> },
}

/// What all stored copies together say about the file.
enum Verdict {
    Same,
    Contained,
    /// It belongs beside another copy; `done` when it already stands there.
    Beside {
        why: Beside,
        done: bool,
    },
    Conflict {
        with: String,
        at: u64,
    },
    Nothing,
}

impl Cluster<'_> {
    /// Stores a file, or proves that the archive holds what it would add.
    pub fn store_wal(&self, file: &mut WalFile<'_>) -> Result<StoreOutcome, RepositoryError> {
        let digest = file.frames.blake3().to_owned();
        let first = self.layout().wal_file(file.name, name_digest(&digest));
        if self.put(file, &first)? == Created::New {
            return Ok(StoreOutcome::New);
        }
        let why = match self.judge(file, &first, None)? {
            Verdict::Same => return Ok(StoreOutcome::Same),
            Verdict::Contained => return Ok(StoreOutcome::Contained),
            Verdict::Conflict { with, at } => return self.refuse(file, &digest, with, at),
            Verdict::Beside { why, done: true } => return Ok(StoreOutcome::Beside(why)),
            Verdict::Beside { why, done: false } => why,
            Verdict::Nothing => {
                return Err(RepositoryError::damaged(
                    format!("{} in {}", file.name, self.repository().url()),
                    "the name was taken a moment ago, and now nothing is there",
                ));
            }
        };
        for name in self.layout().beside(file.name, &digest) {
            if self.put(file, &name)? == Created::New {
                // Another writer may have put a copy of its own beside the first in the same instant. Each
                // of the two looks again after it stored, so one of them at least sees the other.
                if let Verdict::Conflict { with, at } = self.judge(file, &first, Some(&name))? {
                    return self.refuse(file, &digest, with, at);
                }
                return Ok(StoreOutcome::Beside(why));
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

    /// Compares the file with every stored copy but `own`. The first copy decides alone when it is the same
    /// and undamaged; a later one only where no copy contradicts it.
    fn judge(&self, file: &WalFile<'_>, first: &str, own: Option<&str>) -> Result<Verdict, RepositoryError> {
        let mut copies = self.wal_copies(file.name)?;
        if let WalFileName::Partial(_) = file.name {
            // Those with other digests are other promotions' and contradict nothing.
            let ours = self.layout().beside(file.name, file.frames.blake3());
            copies.retain(|copy| copy == first || ours.contains(copy));
        }
        if !copies.iter().any(|copy| copy == first) {
            copies.insert(0, first.to_owned());
        }
        let damaged = file.content.as_ref().is_some_and(|ours| ours.damage.is_some());
        let (mut why, mut same) = (None, false);
        for copy in copies.into_iter().filter(|copy| own != Some(copy)) {
            let beside = match self.compare(file, &copy)? {
                Comparison::Same if copy == first && !damaged => return Ok(Verdict::Same),
                Comparison::Same => {
                    same = true;
                    continue;
                }
                Comparison::Damaged => Beside::StoredObjectDamaged,
                Comparison::Differs { at, stored } => {
                    let (ours, stored) = (file.content.as_ref(), stored.as_deref());
                    if !matches!(file.name, WalFileName::Segment(_)) {
                        return Ok(Verdict::Conflict { with: copy, at });
                    }
                    if ours.is_some_and(|c| c.damage.is_none() && self.readable_before(c, at)) {
                        return Ok(Verdict::Contained);
                    }
                    match (stored, ours) {
                        (Some(c), _) if self.readable_before(c, at) && c.damage.is_none() => {
                            Beside::StoredEndsEarlier
                        }
                        (Some(c), Some(ours))
                            if self.readable_before(c, at) && c.end_of_valid < ours.end_of_valid =>
                        {
                            Beside::StoredContentDamaged
                        }
                        (_, Some(c)) if self.readable_before(c, at) => Beside::OursDamaged,
                        (Some(c), _) if self.readable_before(c, at) => Beside::StoredContentDamaged,
                        _ => return Ok(Verdict::Conflict { with: copy, at }),
                    }
                }
            };
            why.get_or_insert(beside);
        }
        Ok(match why {
            Some(why) => Verdict::Beside { why, done: same },
            None if same => Verdict::Same,
            None => Verdict::Nothing,
        })
    }

    /// Whether all that recovery can read of a copy stands before the first byte that differs: it is cut off
    /// or broken there. Of a copy that nobody could read (a newer server's) nothing is known.
    fn readable_before(&self, content: &WalContent, differs_at: u64) -> bool {
        let ends_there = content.cut_off_at.is_some() || content.damage.is_some();
        ends_there && content.end_of_valid.0 % self.segment_size().bytes() <= differs_at
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
        let stored = match StoredWal::open_with(self.storage(), name, FIRST_REQUEST) {
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
        Ok(Comparison::Differs { at, stored: stored.summary().wal.clone().map(Box::new) })
    }
}
