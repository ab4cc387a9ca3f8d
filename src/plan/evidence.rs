//! What the plan asks about segments while it searches.

use crate::repository::wal_archive::{WalContent, WalLevel};
use crate::types::{Lsn, Moment, SegmentName, SegmentSize};
use crate::wal::{Found, Joined, Sought};

/// What is known of one segment without decoding it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SegmentFacts {
    /// What is in it; `None` where that was never recorded.
    pub content: Option<WalContent>,
    /// When the server last wrote the file.
    pub modified: Option<Moment>,
    /// Bytes of the object, as far as that is known.
    pub stored: Option<u64>,
    /// Why no copy of it can be read.
    pub unreadable: Option<String>,
}

impl SegmentFacts {
    /// The latest moment of which the segment tells, by its records and its file's time. A damaged one tells
    /// of none: what its summary knows may lie behind the damage.
    pub fn until(&self) -> Option<Moment> {
        let content = self.content.as_ref();
        if content.is_some_and(|c| c.damage.is_some()) {
            return None;
        }
        let recorded = content.and_then(|c| c.until.max(c.times.map(|(_, latest)| latest)));
        recorded.max(self.modified)
    }

    /// Where recovery would end in this segment, and why, although more WAL may follow.
    pub fn broken(&self) -> Option<(Lsn, String)> {
        if let Some(why) = &self.unreadable {
            return Some((Lsn::INVALID, why.clone()));
        }
        let content = self.content.as_ref()?;
        match (&content.damage, content.cut_off_at) {
            (Some(damage), _) => Some((content.end_of_valid, format!("it holds a {damage}"))),
            (None, Some(at)) => Some((at, format!("its records end at {at}, before the segment does"))),
            _ => None,
        }
    }
}

impl SegmentFacts {
    /// The first record at or behind a position from which on the server wrote too little for recovery.
    pub(super) fn minimal_from(&self, from: Lsn) -> Option<Lsn> {
        let mut changes = self.content.as_ref()?.parameters.iter().filter(|change| change.lsn >= from);
        changes.find(|change| change.wal_level == WalLevel::Minimal).map(|change| change.lsn)
    }

    /// Whether a commit, an abort or a restore point that starts in this segment, which begins at `start` and is
    /// `size` long, may end in the next one, of which `next` is known.
    pub(super) fn may_go_on(&self, start: Lsn, size: SegmentSize, next: &Self) -> bool {
        if self.unreadable.is_some() || next.unreadable.is_some() {
            return false;
        }
        match self.crossing(next) {
            Joined::Nothing => return false,
            Joined::Activity(activity) => return activity.end.is_some(),
            Joined::RestorePoint { .. } => return true,
            Joined::Unknown => {}
        }
        let behind = start.plus(size.bytes());
        let leaves = self.content.as_ref().is_none_or(|c| {
            c.damage.is_none()
                && c.cut_off_at.is_none()
                && (c.not_checked.is_some() || c.end_of_valid < behind)
        });
        // A record right behind the long page header leaves no room for the rest of another.
        let takes = next.content.as_ref().is_none_or(|c| {
            c.first_record != Some(behind.plus(LONG_HEADER))
                && (c.not_checked.is_some() || c.end_of_valid > behind)
        });
        leaves && takes
    }

    /// The record that starts in this segment and ends in the next one, as far as the summaries of both tell.
    pub(super) fn crossing(&self, next: &Self) -> Joined {
        let (Some(here), Some(there)) = (&self.content, &next.content) else { return Joined::Unknown };
        // Summaries of earlier versions keep nothing of such records.
        let Some(magic) = here.magic().filter(|_| there.page_magic.is_some()) else { return Joined::Unknown };
        match (&here.unfinished, &there.rest) {
            (Some(unfinished), Some(rest)) => unfinished.join(rest, magic),
            _ => Joined::Nothing,
        }
    }

    /// Where the record starts that goes on in the next segment, if it is certainly damaged, here or there.
    pub(super) fn damaged_at_the_border(&self, next: &Self) -> Option<Lsn> {
        let (here, there) = (self.content.as_ref()?, next.content.as_ref()?);
        let (begun, rest) = here.unfinished.as_ref().zip(there.rest.as_ref())?;
        (begun.is_intact_with(rest) == Some(false)).then_some(begun.lsn)
    }

    /// The earliest and the latest commit or abort; `None` where there is none, or where nothing is known.
    pub(super) fn times(&self) -> Option<(Moment, Moment)> {
        self.content.as_ref()?.times
    }

    /// Whether there may be a commit or an abort in it that can be read.
    pub(super) fn may_have_transactions(&self) -> bool {
        let content = self.content.as_ref();
        self.unreadable.is_none()
            && content.is_none_or(|c| c.commits + c.aborts > 0 || c.not_checked.is_some())
    }
}

/// Length of the page header at a segment's start.
const LONG_HEADER: u64 = 40;

/// Where a record that is sought may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It starts and ends in a segment.
    In(SegmentName),
    /// It starts in the first and ends in the second one, the segment behind it.
    Across(SegmentName, SegmentName),
}

/// Answers about segments that are there. Reading is somebody else's business, and so is its failure.
pub trait WalReader {
    /// Why it could not be read: never the same as "not there".
    type Error;

    /// All of these will be asked for soon.
    fn expect(&mut self, segments: &[SegmentName]) -> Result<(), Self::Error>;

    /// What is known of a segment.
    fn facts(&mut self, segment: SegmentName) -> Result<SegmentFacts, Self::Error>;

    /// The first record of its kind, at or after `from`, out of several places in the order of the WAL. A
    /// place across two segments is that of the one record which crosses their border.
    fn seek(&mut self, places: &[Place], sought: &Sought, from: Lsn) -> Result<Option<Found>, Self::Error>;

    /// Goes through the commits and aborts that start and end in a segment, in order. Where a copy of it
    /// turns out to be damaged, the next one begins with the first state again: so `step` has no other effect.
    fn fold<S: Clone>(
        &mut self,
        segment: SegmentName,
        state: S,
        step: impl FnMut(&mut S, Found),
    ) -> Result<S, Self::Error>;
}
