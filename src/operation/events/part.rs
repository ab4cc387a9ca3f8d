//! What one segment says: its summary where that is enough, all of its bytes where it is not.

use std::cell::RefCell;

use crate::operation::in_full::in_full;
use crate::repository::wal_archive::{NamedPoint, WalContent};
use crate::repository::{Cluster, RepositoryError};
use crate::types::{Lsn, Moment, SegmentName, WalFileName};
use crate::wal::{Activity, Magic, Rest, SegmentScan, SegmentScanner, Unfinished};

/// Where a segment's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A whole segment, of this name.
    Segment(SegmentName),
    /// What a promotion left of it.
    Partial(SegmentName),
    /// What was streamed of it.
    Piece(SegmentName),
}

impl Source {
    /// The segment's name.
    pub(super) fn segment(self) -> SegmentName {
        let (Self::Segment(name) | Self::Partial(name) | Self::Piece(name)) = self;
        name
    }

    fn file(self) -> Option<WalFileName> {
        match self {
            Self::Segment(name) => Some(WalFileName::Segment(name)),
            Self::Partial(name) => Some(WalFileName::Partial(name)),
            Self::Piece(_) => None,
        }
    }
}

/// What one segment says.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    /// What was done, ended transactions in the order of their ends; `None` where that was never recorded.
    pub(super) activities: Option<Vec<Activity>>,
    /// Something of it is not in that list.
    pub(super) left_out: bool,
    /// The lowest transaction that ended here.
    pub(super) lowest: Option<u32>,
    /// This one and those behind it had not begun then.
    pub(super) next_xid: Option<u32>,
    /// Commits.
    pub(super) ends: u64,
    pub(super) points: Vec<NamedPoint>,
    /// The format of its pages.
    pub(super) magic: Option<Magic>,
    pub(super) rest: Option<Rest>,
    pub(super) unfinished: Option<Unfinished>,
    /// The latest moment that it tells of.
    pub(super) until: Option<Moment>,
    /// The earliest and the latest end of a transaction.
    pub(super) times: Option<(Moment, Moment)>,
    /// What cannot be read of it, and why.
    pub(super) lacks: Option<String>,
}

impl Part {
    fn of_content(content: WalContent, modified: Option<Moment>) -> Self {
        let lacks = content.not_checked.or(content.damage.map(|damage| format!("it holds a {damage}")));
        Self {
            magic: content.page_magic.map(Magic),
            activities: content.activity,
            left_out: content.activity_left_out > 0,
            lowest: content.xids.map(|(lowest, _)| lowest),
            next_xid: content.next_xid,
            ends: content.commits,
            points: content.restore_points,
            rest: content.rest,
            unfinished: content.unfinished,
            until: content.until.or(modified),
            times: content.times,
            lacks,
        }
    }

    fn of_scan(scan: &SegmentScan, mut ended: Vec<Activity>) -> Self {
        let content = WalContent::from(scan);
        ended.extend(scan.activities.iter().cloned());
        Self { activities: Some(ended), left_out: false, ..Self::of_content(content, None) }
    }

    /// Whether reading all of it can tell more.
    pub(super) fn readable(&self) -> bool {
        self.activities.is_none() || self.magic.is_some()
    }

    fn unreadable(why: String) -> Self {
        Self { lacks: Some(why), activities: Some(Vec::new()), ..Self::default() }
    }
}

/// What a segment's summary says. A segment that cannot be read is a fact; a store that cannot be asked is not.
pub(super) fn summary(cluster: &Cluster<'_>, source: Source) -> Result<Part, RepositoryError> {
    let said = match source.file() {
        Some(file) => cluster.wal_summary(file),
        None => cluster.piece_of(source.segment()).map(|piece| piece.map(|piece| piece.summary().clone())),
    };
    match said {
        Ok(Some(said)) => Ok(match said.wal {
            Some(content) => Part::of_content(content, said.modified),
            None => Part { until: said.modified, ..Part::default() },
        }),
        Ok(None) => Ok(Part::unreadable("it was listed a moment ago and is not there".to_owned())),
        Err(e @ (RepositoryError::Damaged { .. } | RepositoryError::NewerFormat { .. })) => {
            Ok(Part::unreadable(in_full(&e)))
        }
        Err(e) => Err(e),
    }
}

/// Reads all of a segment.
pub(super) fn read(cluster: &Cluster<'_>, source: Source) -> Result<Part, RepositoryError> {
    let (name, size) = (source.segment(), cluster.segment_size());
    let fresh = || (SegmentScanner::detailed(name, size), Vec::new());
    let state = RefCell::new(fresh());
    let take = |chunk: Vec<u8>| {
        let mut state = state.borrow_mut();
        state.0.push(&chunk);
        let ended = state.0.drain();
        state.1.extend(ended);
        Ok::<(), RepositoryError>(())
    };
    let done = match source.file() {
        Some(file) => {
            let restart = || {
                state.replace(fresh());
                Ok(())
            };
            cluster.fetch(file, restart, take).map(|found| found.is_some())
        }
        None => cluster.piece_of(name).and_then(|piece| match piece {
            Some(piece) => piece.decode(take).map(|()| true),
            None => Ok(false),
        }),
    };
    match done {
        Ok(true) => {
            let (scanner, ended) = state.into_inner();
            Ok(Part::of_scan(&scanner.finish(), ended))
        }
        Ok(false) => Ok(Part::unreadable("it was listed a moment ago and is not there".to_owned())),
        Err(e @ (RepositoryError::Damaged { .. } | RepositoryError::NewerFormat { .. })) => {
            Ok(Part::unreadable(in_full(&e)))
        }
        Err(e) => Err(e),
    }
}

/// Reads the end of a transaction whose record begins in `first` and ends in `second`, and is too long for their
/// summaries. What the transaction did in `first` is not in it: that is in the segment's own list.
pub(super) fn read_split(
    cluster: &Cluster<'_>,
    first: Source,
    second: Source,
    lsn: Lsn,
) -> Result<Option<Activity>, RepositoryError> {
    /// As much as is ever looked at of a record.
    const HEAD: usize = 1 << 20;
    let (Some(before), Some(behind)) = (first.file(), second.file()) else { return Ok(None) };
    let fresh = || SegmentScanner::detailed(first.segment(), cluster.segment_size());
    let scanner = RefCell::new(fresh());
    let head = RefCell::new(Vec::new());
    let restart = || {
        scanner.replace(fresh());
        Ok(())
    };
    let take = |chunk: Vec<u8>| {
        let mut scanner = scanner.borrow_mut();
        scanner.push(&chunk);
        drop(scanner.drain());
        Ok::<(), RepositoryError>(())
    };
    let forget = || {
        head.borrow_mut().clear();
        Ok(())
    };
    let keep = |chunk: Vec<u8>| {
        let mut head = head.borrow_mut();
        let room = HEAD.saturating_sub(head.len()).min(chunk.len());
        head.extend_from_slice(chunk.get(..room).unwrap_or_default());
        Ok::<(), RepositoryError>(())
    };
    let read = cluster.fetch(before, restart, take).and_then(|_| cluster.fetch(behind, forget, keep));
    match read {
        Ok(_) => {}
        Err(RepositoryError::Damaged { .. } | RepositoryError::NewerFormat { .. }) => return Ok(None),
        Err(e) => return Err(e),
    }
    let mut scanner = scanner.into_inner();
    scanner.finish_split(&head.into_inner());
    let ended =
        scanner.drain().into_iter().find(|activity| activity.end.as_ref().is_some_and(|e| e.lsn == lsn));
    Ok(ended.map(|activity| Activity { xid: activity.xid, end: activity.end, ..Activity::default() }))
}

/// Does the same for many, several at a time; the answers are in the order of the questions.
pub(super) fn of_each<T: Send>(
    sources: &[Source],
    at_once: usize,
    ask: impl Fn(Source) -> Result<T, RepositoryError> + Sync,
) -> Result<Vec<T>, RepositoryError> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut answers: Vec<(usize, T)> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..at_once.min(sources.len()))
            .map(|_| {
                scope.spawn(|| {
                    let mut own = Vec::new();
                    loop {
                        let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let Some(source) = sources.get(at) else { return Ok::<_, RepositoryError>(own) };
                        own.push((at, ask(*source)?));
                    }
                })
            })
            .collect();
        let mut all = Vec::new();
        for reader in readers {
            match reader.join() {
                Ok(answers) => all.extend(answers?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, RepositoryError>(all)
    })?;
    answers.sort_unstable_by_key(|(at, _)| *at);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}
