//! Which segments hold a timeline's records, and which of them those of a stretch of time.

use super::part::{Part, Source};
use crate::plan::{Archive, Lineage};
use crate::repository::{Cluster, RepositoryError};
use crate::types::{Lsn, Moment, SegmentName, TimelineId, WalFileName};

/// Up to so many segments are all asked about their times. Of more it is searched for: where clocks were set back by
/// more than [`SLACK`], events at the edge may be missed then.
const ASKED: usize = 2048;

/// What clocks and the order of commits may differ.
const SLACK: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);

/// One segment of a timeline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Counted from `0/0`.
    pub(super) number: u64,
    /// Where its bytes are.
    pub(super) source: Source,
    /// Records from here on are another timeline's.
    pub(super) until: Option<Lsn>,
}

/// One timeline: the part of it that the archive holds.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) timeline: TimelineId,
    pub(super) lineage: Lineage,
    /// In order; numbers may be missing.
    pub(super) places: Vec<Place>,
}

impl Stretch {
    /// Finds a timeline's own segments, and what there is of its last one elsewhere: left as partial, streamed, or in
    /// the first segment of a timeline that left it there.
    pub(super) fn of(
        cluster: &Cluster<'_>,
        archive: &Archive,
        timeline: TimelineId,
    ) -> Result<Result<Self, String>, RepositoryError> {
        let lineage = match archive.named_lineage(timeline) {
            Ok(lineage) => lineage,
            Err(why) => return Ok(Err(why)),
        };
        let size = archive.segment_size;
        let Some(held) = archive.timelines.get(&timeline) else {
            return Ok(Err(format!("timeline {timeline} is not in the archive")));
        };
        let name = |number| SegmentName::from_number(timeline, number, size);
        let own = held.segments.runs().iter().cloned().flatten();
        let mut places: Vec<_> =
            own.map(|number| Place { number, source: Source::Segment(name(number)), until: None }).collect();
        let begin = size.number_of(lineage.history().begin());
        let next = places.last().map_or(begin, |place| place.number + 1);
        places.extend(unfinished(cluster, archive, name(next), next)?);
        Ok(Ok(Self { timeline, lineage, places }))
    }

    /// Whether a record at `lsn` in one of the segments is this timeline's.
    pub(super) fn owns(&self, lsn: Lsn) -> bool {
        self.lineage.history().timeline_at(lsn) == self.timeline
    }

    /// The segment before another one, on the way to it.
    pub(super) fn before(&self, archive: &Archive, number: u64) -> Option<Place> {
        let number = number.checked_sub(1)?;
        let name = self.lineage.segment(number);
        let there = archive.has(name).then_some(Source::Segment(name));
        let own = || self.places.iter().find(|place| place.number == number).map(|place| place.source);
        there.or_else(own).map(|source| Place { number, source, until: None })
    }
}

fn unfinished(
    cluster: &Cluster<'_>,
    archive: &Archive,
    name: SegmentName,
    number: u64,
) -> Result<Option<Place>, RepositoryError> {
    let place = |source, until| Ok(Some(Place { number, source, until }));
    if !cluster.wal_copies(WalFileName::Partial(name))?.is_empty() {
        return place(Source::Partial(name), None);
    }
    if archive.piece(name).is_some() {
        return place(Source::Piece(name), None);
    }
    let left_here = archive.timelines.iter().find_map(|(id, timeline)| {
        let end = timeline.history.as_ref().ok()?.end_of(name.timeline)?;
        let here = archive.segment_size.number_of(end) == number && timeline.segments.contains(number);
        here.then(|| (SegmentName::from_number(*id, number, archive.segment_size), end))
    });
    left_here.map_or(Ok(None), |(segment, end)| place(Source::Segment(segment), Some(end)))
}

/// A stretch of time; open where nothing was said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// From this moment on.
    pub since: Option<Moment>,
    /// Up to this moment.
    pub until: Option<Moment>,
}

impl Span {
    /// Whether a moment is within it.
    pub fn holds(&self, moment: Moment) -> bool {
        self.since.is_none_or(|since| moment >= since) && self.until.is_none_or(|until| moment <= until)
    }

    fn is_everything(&self) -> bool {
        self.since.is_none() && self.until.is_none()
    }
}

/// The segments among `places` that may tell of a stretch of time.
pub(super) fn within(
    places: &[Place],
    span: Span,
    mut ask: impl FnMut(&[Place]) -> Result<Vec<Part>, RepositoryError>,
) -> Result<std::ops::Range<usize>, RepositoryError> {
    if span.is_everything() || places.is_empty() {
        return Ok(0..places.len());
    }
    if places.len() <= ASKED {
        let parts = ask(places)?;
        let early =
            |part: &Part| span.since.is_some_and(|since| part.until.is_some_and(|until| until < since));
        // The file's own time says nothing about its first record.
        let late =
            |part: &Part| span.until.is_some_and(|until| part.times.is_some_and(|(first, _)| first > until));
        let from = parts.iter().position(|part| !early(part)).unwrap_or(parts.len());
        let to = parts.iter().rposition(|part| !late(part)).map_or(0, |last| last + 1);
        return Ok(from..to.max(from));
    }
    let mut behind = |moment: Moment| {
        let (mut low, mut high) = (0, places.len());
        while low < high {
            let mid = usize::midpoint(low, high);
            let told = tells(places, mid, &mut ask)?;
            if told.is_some_and(|until| until < moment) { low = mid + 1 } else { high = mid }
        }
        Ok::<usize, RepositoryError>(low)
    };
    let shifted = |moment: Moment, by: jiff::SignedDuration| moment.0.checked_add(by).map_or(moment, Moment);
    let from = span.since.map(|since| behind(shifted(since, -SLACK))).transpose()?.unwrap_or(0);
    let to = span.until.map(|until| behind(shifted(until, SLACK))).transpose()?;
    Ok(from..to.map_or(places.len(), |to| (to + 1).min(places.len())))
}

/// The latest moment that a segment, or the next one before it that knows any, tells of.
fn tells(
    places: &[Place],
    at: usize,
    ask: &mut impl FnMut(&[Place]) -> Result<Vec<Part>, RepositoryError>,
) -> Result<Option<Moment>, RepositoryError> {
    for place in places.get(..=at).unwrap_or_default().iter().rev() {
        if let Some(until) = ask(std::slice::from_ref(place))?.first().and_then(|part| part.until) {
            return Ok(Some(until));
        }
    }
    Ok(None)
}
