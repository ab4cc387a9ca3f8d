//! WAL files in a cluster's archive: stored once, never overwritten, found again in their best copy.

mod object;
mod store;
mod summary;

pub use object::{EncodedFrames, StoredWal, WalFrame, WalSummary};
pub use store::{Beside, StoreOutcome, WalFile};
pub use summary::{NamedPoint, WalContent};

use std::ops::ControlFlow;

use super::layout::WalObjectName;
use super::{Cluster, RepositoryError};
use crate::types::{Lsn, SegmentName, TimelineId, WalFileName};

impl Cluster<'_> {
    /// Every stored copy of a file, first copy first. Empty is proof of absence: the root answered.
    pub fn wal_copies(&self, file: WalFileName) -> Result<Vec<String>, RepositoryError> {
        let folder = match file {
            WalFileName::Segment(s) | WalFileName::Partial(s) | WalFileName::Backup(s, _) => {
                self.layout().wal_log(s)
            }
            WalFileName::History(_) => self.layout().wal(),
        };
        let stem = match file {
            WalFileName::Segment(s) | WalFileName::Partial(s) | WalFileName::Backup(s, _) => s.to_string(),
            WalFileName::History(timeline) => timeline.to_hex8(),
        };
        let after = format!("{folder}{stem}");
        let shared = format!("{after}.");
        let mut copies = Vec::new();
        self.storage().list_while(&folder, Some(&after), &mut |info| {
            let last = info.name.strip_prefix(&folder).unwrap_or_default();
            if WalObjectName::parse(last).is_some_and(|n| n.file == file) {
                copies.push(info.name);
            } else if info.name > shared && !info.name.starts_with(&shared) {
                // Names come in order: all copies were before this one.
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        // The first copy has the shortest name.
        copies.sort_by_key(String::len);
        Ok(copies)
    }

    /// The segments of a timeline, in order, each once.
    pub fn segments(&self, timeline: TimelineId) -> Result<Vec<SegmentName>, RepositoryError> {
        let folder = self.layout().wal_timeline(timeline);
        let mut segments = Vec::new();
        self.storage().list(&folder, None, &mut |info| {
            let last = info.name.rsplit('/').next().unwrap_or_default();
            if let Some(WalObjectName { file: WalFileName::Segment(s), .. }) = WalObjectName::parse(last) {
                segments.push(s);
            }
        })?;
        segments.sort_unstable();
        segments.dedup();
        Ok(segments)
    }

    /// The timelines that have segments, in order.
    pub fn timelines(&self) -> Result<Vec<TimelineId>, RepositoryError> {
        let folders = self.storage().list_folders(&self.layout().wal())?;
        Ok(folders.iter().filter_map(|f| u32::from_str_radix(f, 16).ok()).map(TimelineId).collect())
    }

    /// What the best copy of a file says of itself, by the rule of [`fetch`](Self::fetch); `None` is proof of
    /// absence. A file of which no copy can be read is an error. Frames are not looked at.
    pub fn wal_summary(&self, file: WalFileName) -> Result<Option<WalSummary>, RepositoryError> {
        let mut failure = None;
        let mut open = |name: &str| match StoredWal::open(self.storage(), name, false) {
            Ok(stored) => Ok(stored),
            Err(e @ RepositoryError::Damaged { .. }) => {
                failure = Some(e);
                Ok(None)
            }
            Err(e) => Err(e),
        };
        if let Some(stored) = open(&self.layout().wal_file(file, ""))?.filter(whole) {
            return Ok(Some(stored.summary().clone()));
        }
        let mut best: Option<StoredWal<'_>> = None;
        for name in self.wal_copies(file)? {
            let Some(stored) = open(&name)? else { continue };
            if best.as_ref().is_none_or(|b| reach(&stored) > reach(b)) {
                best = Some(stored);
            }
        }
        match (best, failure) {
            (Some(best), _) => Ok(Some(best.summary().clone())),
            (None, Some(damage)) => Err(damage),
            (None, None) => Ok(None),
        }
    }

    /// The timelines that have segments, or at least the beginning of one, in order.
    pub fn begun_timelines(&self) -> Result<Vec<TimelineId>, RepositoryError> {
        let mut timelines = self.timelines()?;
        let folders = self.storage().list_folders(&self.layout().stream())?;
        timelines.extend(folders.iter().filter_map(|f| u32::from_str_radix(f, 16).ok()).map(TimelineId));
        timelines.sort_unstable();
        timelines.dedup();
        Ok(timelines)
    }

    /// The stretches of segments that are not complete, as they were streamed: first position, and that
    /// behind the last byte.
    pub fn stream_pieces(&self, timeline: TimelineId) -> Result<Vec<(Lsn, Lsn)>, RepositoryError> {
        let folder = self.layout().stream_timeline(timeline);
        let mut pieces = Vec::new();
        self.storage().list(&folder, None, &mut |info| {
            let name = info.name.strip_prefix(&folder).and_then(|n| n.strip_suffix(".zst"));
            if let Some((from, to)) = name.and_then(|n| n.split_once('-'))
                && let (Ok(from), Ok(to)) = (Lsn::from_hex16(from), Lsn::from_hex16(to))
            {
                pieces.push((from, to));
            }
        })?;
        Ok(pieces)
    }

    /// A small file (history, backup) as a whole; `None` is proof of absence.
    pub fn small_file(&self, file: WalFileName) -> Result<Option<Vec<u8>>, RepositoryError> {
        let mut bytes = Vec::new();
        let found = self.fetch(
            file,
            || Ok(()),
            |chunk| {
                bytes.extend_from_slice(&chunk);
                Ok::<(), RepositoryError>(())
            },
        )?;
        Ok(found.then_some(bytes))
    }

    /// Hands out the best copy of a file, each frame checked before `sink` sees it. `restart` is called
    /// before each copy that is tried, so that what an earlier, damaged one left behind can be thrown away.
    /// `Ok(false)` is proof of absence; a file of which every copy is damaged is an error.
    pub fn fetch<E: From<RepositoryError>>(
        &self,
        file: WalFileName,
        mut restart: impl FnMut() -> Result<(), E>,
        mut sink: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut failure: Option<RepositoryError> = None;
        let mut candidates = Vec::new();
        let first = match file {
            WalFileName::Partial(_) => None,
            other => Some(self.layout().wal_file(other, "")),
        };
        let mut tried = None;
        if let Some(first) = first {
            match StoredWal::open(self.storage(), &first, true) {
                Ok(Some(stored)) if whole(&stored) => {
                    restart()?;
                    match decode(&stored, file, &mut sink)? {
                        None => return Ok(true),
                        Some(damage) => failure = Some(damage),
                    }
                    tried = Some(first);
                }
                Ok(_) => {}
                Err(e @ RepositoryError::Damaged { .. }) => {
                    failure = Some(e);
                    tried = Some(first);
                }
                Err(e) => return Err(e.into()),
            }
        }
        for name in self.wal_copies(file)? {
            if tried.as_ref() == Some(&name) {
                continue;
            }
            match StoredWal::open(self.storage(), &name, true) {
                Ok(Some(stored)) => candidates.push(stored),
                Ok(None) => {}
                Err(e @ RepositoryError::Damaged { .. }) => failure = Some(e),
                Err(e) => return Err(e.into()),
            }
        }
        // The copy that recovery can read furthest goes first.
        candidates.sort_by_key(|c| std::cmp::Reverse(reach(c)));
        for stored in &candidates {
            restart()?;
            match decode(stored, file, &mut sink)? {
                None => return Ok(true),
                Some(damage) => failure = Some(damage),
            }
        }
        match failure {
            Some(damage) => Err(damage.into()),
            None => Ok(false),
        }
    }
}

/// How far recovery can read a copy: the greater, the better.
fn reach(stored: &StoredWal<'_>) -> (Option<Lsn>, bool) {
    let wal = stored.summary().wal.as_ref();
    (wal.map(|w| w.end_of_valid), wal.is_none_or(|w| w.damage.is_none()))
}

/// Nothing can be better than a first copy that is neither cut off nor marked as damaged.
fn whole(stored: &StoredWal<'_>) -> bool {
    stored.summary().wal.as_ref().is_none_or(|w| w.damage.is_none() && w.cut_off_at.is_none())
}

/// Damage comes back as `Ok(Some(…))`, so that another copy can be tried.
fn decode<E: From<RepositoryError>>(
    stored: &StoredWal<'_>,
    file: WalFileName,
    sink: &mut impl FnMut(Vec<u8>) -> Result<(), E>,
) -> Result<Option<RepositoryError>, E> {
    enum Stop<E> {
        Repository(RepositoryError),
        Sink(E),
    }
    impl<E> From<RepositoryError> for Stop<E> {
        fn from(e: RepositoryError) -> Self {
            Self::Repository(e)
        }
    }
    if stored.summary().name != file.to_string() {
        let why = format!("it says that it holds {}", stored.summary().name);
        return Ok(Some(RepositoryError::damaged(stored.url(), why)));
    }
    match stored.decode(|chunk| sink(chunk).map_err(Stop::Sink)) {
        Ok(()) => Ok(None),
        Err(Stop::Sink(e)) => Err(e),
        Err(Stop::Repository(e @ RepositoryError::Damaged { .. })) => Ok(Some(e)),
        Err(Stop::Repository(e)) => Err(e.into()),
    }
}
