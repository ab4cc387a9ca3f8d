//! What the plan asks about segments while it searches.

use crate::repository::wal_archive::WalContent;
use crate::types::{Lsn, Moment, SegmentName};
use crate::wal::{Found, Sought};

/// What is known of one segment without decoding it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SegmentFacts {
    /// What is in it; `None` where that was never recorded.
    pub content: Option<WalContent>,
    /// When the server last wrote the file.
    pub modified: Option<Moment>,
    /// Why no copy of it can be read.
    pub unreadable: Option<String>,
}

impl SegmentFacts {
    /// The latest moment of which the segment tells: by its records, else by its file's time.
    pub fn until(&self) -> Option<Moment> {
        let content = self.content.as_ref();
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

/// Answers about segments that are there. Reading is somebody else's business, and so is its failure.
pub trait WalReader {
    /// Why it could not be read: never the same as "not there".
    type Error;

    /// All of these will be asked for soon.
    fn expect(&mut self, segments: &[SegmentName]) -> Result<(), Self::Error>;

    /// What is known of a segment.
    fn facts(&mut self, segment: SegmentName) -> Result<SegmentFacts, Self::Error>;

    /// The first record of its kind that starts in a segment, at or after `from`.
    fn seek(
        &mut self,
        segment: SegmentName,
        sought: &Sought,
        from: Lsn,
    ) -> Result<Option<Found>, Self::Error>;

    /// The same for the one record that starts in `first` and ends in `second`, the segment behind it.
    fn seek_split(
        &mut self,
        first: SegmentName,
        second: SegmentName,
        sought: &Sought,
    ) -> Result<Option<Found>, Self::Error>;
}
