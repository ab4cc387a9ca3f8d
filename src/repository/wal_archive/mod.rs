//! WAL files in a cluster's archive: stored once, never overwritten, found again in their best copy.

mod encode;
mod head;
mod object;
mod piece;
mod read;
mod store;
mod summary;

pub use encode::{EncodedFrames, Encoding, Workroom};
pub use head::{WalFrame, WalFrameDigest, WalSummary};
pub use object::StoredWal;
pub use read::Reach;
pub use store::{Beside, StoreOutcome, WalFile};
pub use summary::{EndedTransaction, NamedPoint, ParameterChange, TimelineBegin, WalContent, WalLevel};

use std::ops::ControlFlow;

use super::layout::WalObjectName;
use super::{Cluster, RepositoryError};
use crate::types::{Lsn, SegmentName, TimelineId, WalFileName};
use crate::wal::{Rest, TimelineHistory};

/// Sorts behind every name in a folder.
const BEHIND_ALL: &str = "~";

/// What shows that a timeline goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// A file of it.
    Stored(WalFileName),
    /// The history of a later timeline, which left it.
    Left {
        /// The later one.
        timeline: TimelineId,
        /// Where.
        at: Lsn,
    },
}

impl std::fmt::Display for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stored(file) => write!(f, "{file} of the same timeline"),
            Self::Left { timeline, at } => {
                write!(f, "{}, by which this timeline went on to {at},", WalFileName::History(*timeline))
            }
        }
    }
}

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

    /// What shows that a timeline goes on behind a segment that is not stored, or cannot be read to its end; `None` also
    /// where the timeline begins only behind it.
    pub fn gap_at(&self, missing: SegmentName) -> Result<Option<Behind>, RepositoryError> {
        let behind = match self.stored_behind(missing)? {
            Some(behind) => Some(behind),
            None => self.left_behind(missing)?,
        };
        if behind.is_none() || missing.timeline.0 == 1 {
            return Ok(behind);
        }
        let file = WalFileName::History(missing.timeline);
        let Some(text) = self.small_file(file)? else { return Ok(behind) };
        let history = TimelineHistory::parse(missing.timeline, &text)
            .map_err(|e| RepositoryError::damaged(self.object_url(&self.layout().wal_file(file, "")), e))?;
        let begins = SegmentName::holding(missing.timeline, history.begin(), self.segment_size());
        Ok(behind.filter(|_| missing >= begins))
    }

    /// Where the record starts that begins in the segment before and ends in this one, if it is certainly damaged: what is
    /// wrong with it neither of the two can tell by itself.
    pub fn damaged_border(
        &self,
        segment: SegmentName,
    ) -> Result<Option<(SegmentName, Lsn)>, RepositoryError> {
        match self.readable_content(segment)?.and_then(|content| content.rest) {
            Some(rest) => self.damaged_border_with(segment, &rest),
            None => Ok(None),
        }
    }

    /// The same where it is known what the segment has of that record.
    pub fn damaged_border_with(
        &self,
        segment: SegmentName,
        rest: &Rest,
    ) -> Result<Option<(SegmentName, Lsn)>, RepositoryError> {
        let Some(before) = segment.previous(self.segment_size()) else { return Ok(None) };
        // Of one that is damaged or cut off it is known already that recovery ends sooner.
        let content = self.readable_content(before)?;
        let whole = content.filter(|content| content.damage.is_none() && content.cut_off_at.is_none());
        let begun = whole.and_then(|content| content.unfinished);
        let damaged = begun.filter(|begun| begun.is_intact_with(rest) == Some(false));
        Ok(damaged.map(|begun| (before, begun.lsn)))
    }

    fn readable_content(&self, segment: SegmentName) -> Result<Option<WalContent>, RepositoryError> {
        match self.wal_summary(WalFileName::Segment(segment)) {
            Ok(summary) => Ok(summary.and_then(|summary| summary.wal)),
            // That is told where the segment is asked for.
            Err(RepositoryError::Damaged { .. } | RepositoryError::NewerFormat { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next segment of the timeline, whole, or the one that a promotion cut off.
    fn stored_behind(&self, missing: SegmentName) -> Result<Option<Behind>, RepositoryError> {
        let folder = self.layout().wal_timeline(missing.timeline);
        let after = format!("{}{missing}", self.layout().wal_log(missing));
        let mut next = None;
        self.storage().list_while(&folder, Some(&after), &mut |info| {
            let last = info.name.rsplit('/').next().unwrap_or_default();
            let file = WalObjectName::parse(last).map(|name| name.file);
            match file {
                Some(file @ (WalFileName::Segment(s) | WalFileName::Partial(s))) if s > missing => {
                    next = Some(Behind::Stored(file));
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        })?;
        Ok(next)
    }

    /// A later timeline that left this one behind the missing segment: all of that was written, and is needed to get there.
    fn left_behind(&self, missing: SegmentName) -> Result<Option<Behind>, RepositoryError> {
        let size = self.segment_size();
        let Some(end) = missing.next(size).and_then(|next| next.start(size)) else { return Ok(None) };
        let folder = self.layout().wal();
        // Names come in order: a timeline's history, then its folder. Of each the first alone is looked at.
        let mut after = self.layout().wal_timeline(missing.timeline) + BEHIND_ALL;
        loop {
            let mut first = None;
            self.storage().list_while(&folder, Some(&after), &mut |info| {
                first = info.name.strip_prefix(&folder).map(str::to_owned);
                ControlFlow::Break(())
            })?;
            let Some(name) = first else { return Ok(None) };
            let Some(later) = name.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()) else {
                after = format!("{folder}{name}");
                continue;
            };
            let timeline = TimelineId(later);
            after = self.layout().wal_timeline(timeline) + BEHIND_ALL;
            let Some(text) = self.small_file(WalFileName::History(timeline))? else { continue };
            // One that no server understands leads nowhere.
            let history = TimelineHistory::parse(timeline, &text).ok();
            let left = history.and_then(|history| history.end_of(missing.timeline));
            if let Some(at) = left.filter(|at| *at >= end) {
                return Ok(Some(Behind::Left { timeline, at }));
            }
        }
    }

    /// The timelines that have segments, in order.
    pub fn timelines(&self) -> Result<Vec<TimelineId>, RepositoryError> {
        let folders = self.storage().list_folders(&self.layout().wal())?;
        Ok(folders.iter().filter_map(|f| u32::from_str_radix(f, 16).ok()).map(TimelineId).collect())
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
}
