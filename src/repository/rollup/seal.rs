//! Sealing a LOG: reading the summaries of all its segments once, and keeping what they say.

use super::{RolledSegment, Rollup, SealedLogs, StoredCopy};
use crate::repository::abreast::abreast;
use crate::repository::layout::{RollupName, WalObjectName};
use crate::repository::wal_archive::WalContent;
use crate::repository::{Cluster, RepositoryError};
use crate::storage::Created;
use crate::types::{SegmentName, TimelineId, WalFileName};

/// What became of a LOG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealed {
    /// Its roll-up was written.
    New(RollupName),
    /// The same roll-up was there.
    Known(RollupName),
    /// Not every segment of it is there, or not the one behind.
    Incomplete,
}

impl Cluster<'_> {
    /// Writes the roll-up of a LOG of which every segment is there, and the one behind it: a record may end
    /// in that. Others may do the same at once: the same
    /// segments give the same object. A segment of which no copy can be read is a fact, and kept as one; a
    /// store that does not answer, and a summary of a later version, are errors.
    pub fn seal(&self, timeline: TimelineId, log: u32) -> Result<Sealed, RepositoryError> {
        let Some(rollup) = self.roll_up(timeline, log)? else { return Ok(Sealed::Incomplete) };
        let (mut name, bytes) = rollup.encode(self.identity())?;
        let whole_digest = std::mem::take(&mut name.digest);
        for digest in [crate::repository::layout::name_digest(&whole_digest), &whole_digest] {
            name.digest = digest.to_owned();
            if self.storage().create(&self.layout().rollup(&name), bytes.clone())? == Created::New {
                return Ok(Sealed::New(name));
            }
            match self.rollup(&name) {
                Ok(Some(_)) => return Ok(Sealed::Known(name)),
                // Damage is never overwritten: the good one is stored beside it.
                Ok(None) | Err(RepositoryError::Damaged { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(RepositoryError::damaged(
            self.object_url(&self.layout().rollup(&name)),
            "and so is the other copy of this roll-up",
        ))
    }

    /// What the roll-up of a LOG would hold if it were made now; `None` where a segment is missing, or the one
    /// behind.
    pub fn roll_up(&self, timeline: TimelineId, log: u32) -> Result<Option<Rollup>, RepositoryError> {
        let copies = self.copies_in_log(timeline, log)?;
        if !copies.keys().map(|seg| u64::from(*seg)).eq(0..self.segment_size().per_log()) {
            return Ok(None);
        }
        let behind = SegmentName::from_number(
            timeline,
            self.segment_size().numbers_of_log(log).end,
            self.segment_size(),
        );
        // One that cannot tell what crosses into it leaves the LOG unsealed.
        let known = match self.wal_summary(WalFileName::Segment(behind)) {
            Ok(summary) => summary.and_then(|summary| summary.wal).filter(|wal| wal.not_checked.is_none()),
            Err(RepositoryError::Damaged { .. }) => None,
            Err(e) => return Err(e),
        };
        let Some(follows) = known.filter(|wal| wal.page_magic.is_some()).map(|wal| wal.rest) else {
            return Ok(None);
        };
        let copies: Vec<(u32, Vec<StoredCopy>)> = copies.into_iter().collect();
        let segments = abreast(&copies, |(seg, copies)| {
            self.rolled(SegmentName { timeline, log, seg: *seg }, copies.clone())
        })?;
        // One that vanished meanwhile is missing.
        let segments: Option<Vec<RolledSegment>> = segments.into_iter().collect();
        Ok(segments.map(|segments| Rollup { timeline, log, segments, follows }))
    }

    fn rolled(
        &self,
        segment: SegmentName,
        copies: Vec<StoredCopy>,
    ) -> Result<Option<RolledSegment>, RepositoryError> {
        let seg = segment.seg;
        let sizes = copies.clone();
        let size = |name: &str| {
            let named = WalObjectName::parse(name.rsplit('/').next()?)?;
            sizes.iter().find(|copy| copy.digest == named.digest).map(|copy| copy.size)
        };
        let unread = RolledSegment { seg, blake3: None, modified: None, copies, unreadable: None, wal: None };
        Ok(match self.listed_wal_summary(WalFileName::Segment(segment), size) {
            Ok(Some((summary, _))) => Some(RolledSegment {
                blake3: Some(summary.blake3),
                modified: summary.modified,
                wal: summary.wal.map(compact),
                ..unread
            }),
            Ok(None) => None,
            Err(RepositoryError::Damaged { source, .. }) => {
                Some(RolledSegment { unreadable: Some(source.to_string()), ..unread })
            }
            Err(e) => return Err(e),
        })
    }

    /// The complete LOGs of a timeline that have no roll-up, or one that counts fewer objects than are there
    /// now and says that a segment is damaged or cut off: a better copy may have come since.
    pub fn to_be_sealed(
        &self,
        timeline: TimelineId,
        sealed: &SealedLogs,
    ) -> Result<Vec<u32>, RepositoryError> {
        let mut certain = sealed.clone();
        certain.retain(|_, name| name.facts.whole);
        let listing = self.list_unsealed(timeline, &certain)?;
        let size = self.segment_size();
        let follows = |log: u32| listing.segments.contains(size.numbers_of_log(log).end);
        let behind =
            |log: u32| follows(log) || log.checked_add(1).is_some_and(|next| certain.contains_key(&next));
        let complete = |log: &u32| listing.segments.holds_all(size.numbers_of_log(*log)) && behind(*log);
        let stale = |log: &u32| {
            let now = listing.logs.get(log).map_or(0, |objects| objects.count);
            sealed.get(log).is_none_or(|name| name.objects < now)
        };
        Ok(listing.logs.keys().copied().filter(|log| complete(log) && stale(log)).collect())
    }
}

/// Without what is asked of a segment only when it is looked at by itself.
fn compact(content: WalContent) -> WalContent {
    WalContent { kinds: Default::default(), activity: None, activity_left_out: 0, ..content }
}
