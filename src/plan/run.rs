//! A stretch of WAL that recovery can replay without a break.

use super::coverage::{Archive, Lineage};
use super::evidence::{SegmentFacts, WalReader};
use crate::repository::layout::LogFacts;
use crate::types::{Lsn, Moment, SegmentName};
use crate::wal::Found;

/// Why replay cannot go on behind a run although there is more WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Barrier {
    /// Segments are missing.
    Missing {
        /// The first of them.
        first: SegmentName,
        /// The last of them.
        last: SegmentName,
    },
    /// A segment is there, and recovery would end within it.
    Broken {
        /// The segment.
        segment: SegmentName,
        /// What is wrong with it.
        why: String,
    },
    /// From a position on the server wrote too little for recovery: it refuses to go on there (14 and later),
    /// or goes on and loses data (13).
    Minimal {
        /// The segment.
        segment: SegmentName,
        /// Where the record starts that says so.
        at: Lsn,
    },
}

/// Segments that follow each other, and where replay of them ends.
#[derive(Debug, Clone)]
pub struct Run {
    /// Where replay begins.
    pub from: Lsn,
    /// The segments, in order.
    pub segments: Vec<SegmentName>,
    /// Behind the last byte of the last segment that is listed.
    pub end: Lsn,
    /// What is in the way of more.
    pub barrier: Option<Barrier>,
}

impl Run {
    /// What a listing of names shows: from the segment that holds `from`, as far as no name is missing.
    pub fn listed(archive: &Archive, lineage: &Lineage, from: Lsn) -> Self {
        let size = archive.segment_size;
        let mut number = size.number_of(from);
        let mut segments = Vec::new();
        loop {
            let name = lineage.segment(number);
            if archive.has(name) {
                segments.push(name);
                number += 1;
                continue;
            }
            let piece = archive.piece(name);
            segments.extend(piece.map(|_| name));
            let start = Lsn(number.saturating_mul(size.bytes()));
            let barrier = archive
                .next_on(lineage, number + 1)
                .map(|next| Barrier::Missing { first: name, last: lineage.segment(next - 1) });
            return Self { from, segments, end: piece.unwrap_or(start), barrier };
        }
    }

    /// The same without what lies behind the segment that holds `last`.
    #[must_use]
    pub fn through(mut self, last: Lsn, archive: &Archive) -> Self {
        let size = archive.segment_size;
        let number = size.number_of(last);
        let keep = self.segments.partition_point(|s| s.number(size).is_some_and(|n| n <= number));
        if keep < self.segments.len() {
            self.segments.truncate(keep);
            self.end = Lsn((number + 1).saturating_mul(size.bytes()));
            self.barrier = None;
        }
        self
    }

    /// As far as recovery gets along it, whatever is in it.
    pub fn to_its_end<W: WalReader>(self, archive: &Archive, wal: &mut W) -> Result<Self, W::Error> {
        Ok(self.replay(archive, wal, |_, _| true, |_, _| Ok(None))?.0)
    }

    /// The same for a look at everything there is. In an archive with roll-ups, of the segments that no roll-up
    /// tells of only the newest are looked into; the others are taken for whole until one does. A plan looks
    /// into all that it needs.
    pub fn at_a_glance<W: WalReader>(self, archive: &Archive, wal: &mut W) -> Result<Self, W::Error> {
        const NEWEST: usize = 32;
        let rolled = archive.timelines.values().any(|t| !t.sealed.is_empty());
        let newest = if rolled { self.segments.len().saturating_sub(NEWEST) } else { 0 };
        Ok(self.go(archive, wal, newest, |_, _| true, |_, _| Ok(None))?.0)
    }

    /// Goes along the segments as recovery would. The run ends where a segment is broken or cut off, or
    /// behind the segment in which `visit` finds what it looks for. A LOG that is known to be whole, and in which
    /// no setting was changed, is passed over where `may_pass` says so of what its roll-up's name tells, and of its last segment on the way.
    pub fn replay<W: WalReader, F>(
        self,
        archive: &Archive,
        wal: &mut W,
        may_pass: impl Fn(&LogFacts, SegmentName) -> bool,
        visit: F,
    ) -> Result<(Self, Option<Hit>), W::Error>
    where
        F: FnMut(&mut W, Visited<'_>) -> Result<Option<Hit>, W::Error>,
    {
        self.go(archive, wal, 0, may_pass, visit)
    }

    /// `looked_into`: the place from which on segments without a roll-up are looked into.
    fn go<W: WalReader, F>(
        mut self,
        archive: &Archive,
        wal: &mut W,
        looked_into: usize,
        may_pass: impl Fn(&LogFacts, SegmentName) -> bool,
        mut visit: F,
    ) -> Result<(Self, Option<Hit>), W::Error>
    where
        F: FnMut(&mut W, Visited<'_>) -> Result<Option<Hit>, W::Error>,
    {
        let all = self.segments.clone();
        let last = all.len().saturating_sub(1);
        let (mut at, mut expected) = (0, 0);
        // The segment before, where it was looked into.
        let mut looked_at: Option<(usize, SegmentFacts)> = None;
        while let Some(segment) = all.get(at).copied() {
            match sealed(archive, &all, at) {
                Some((log, behind))
                    if all
                        .get(behind - 1)
                        .is_some_and(|last| log.whole && !log.parameters && may_pass(log, *last)) =>
                {
                    at = behind;
                    continue;
                }
                None if at < looked_into => {
                    at += 1;
                    continue;
                }
                _ => {}
            }
            if at >= expected {
                let together = together(archive, &all, at);
                expected = at + together.len();
                wal.expect(together)?;
            }
            let facts = wal.facts(segment)?;
            let border = looked_at.take().filter(|(place, _)| place + 1 == at);
            if let Some(record) = border.and_then(|(_, before)| before.damaged_at_the_border(&facts)) {
                // Which of the two it is nobody can tell: the record begins in the first.
                let segment = all.get(at - 1).copied().unwrap_or(segment);
                let why =
                    format!("its last record, at {record}, which ends in the next one, has a wrong checksum");
                self.segments.truncate(at);
                self.end = record;
                self.barrier = Some(Barrier::Broken { segment, why });
                return Ok((self, None));
            }
            let broken = facts.broken();
            let minimal = facts.minimal_from(self.from);
            let start = segment.start(archive.segment_size).unwrap_or(Lsn::INVALID);
            let cut = broken.as_ref().map(|(end, _)| (*end).max(start));
            // Whichever comes first.
            let minimal = minimal.filter(|at| cut.is_none_or(|cut| *at < cut));
            let end = minimal.or(cut);
            let before = at.checked_sub(1).and_then(|before| all.get(before)).copied();
            let visited = Visited { before, segment, facts: &facts };
            let hit = if facts.unreadable.is_some() { None } else { visit(wal, visited)? };
            if let Some(hit) = hit.filter(|hit| end.is_none_or(|end| hit.at < end)) {
                self.segments.truncate(at + 1);
                self.end = start.plus(archive.segment_size.bytes());
                self.barrier = None;
                return Ok((self, Some(hit)));
            }
            if let Some(at_record) = minimal {
                self.segments.truncate(at + 1);
                self.end = at_record;
                self.barrier = Some(Barrier::Minimal { segment, at: at_record });
                return Ok((self, None));
            }
            let (Some(end), Some((_, why))) = (end, broken) else {
                looked_at = Some((at, facts));
                at += 1;
                continue;
            };
            let followed = at < last || self.barrier.is_some();
            let only_cut = facts.unreadable.is_none() && facts.content.is_some_and(|c| c.damage.is_none());
            self.segments.truncate(at + 1);
            self.end = end;
            // Nothing follows a segment that was cut off at the archive's end: the WAL ends there. And the
            // beginning of one is all that is there: what is missing is the segment itself.
            if archive.has(segment) {
                self.barrier = (followed || !only_cut).then_some(Barrier::Broken { segment, why });
            }
            return Ok((self, None));
        }
        Ok((self, None))
    }

    /// The position behind the last record that recovery reads, with that record's own.
    pub fn last_record<W: WalReader>(&self, wal: &mut W) -> Result<LastRecord, W::Error> {
        let mut end = None;
        for segment in self.segments.iter().rev() {
            let facts = wal.facts(*segment)?;
            // Without a look into it, it is taken to be full.
            let Some(content) = facts.content.filter(|c| c.not_checked.is_none()) else { break };
            let valid = content.end_of_valid.min(self.end);
            end = end.or((valid > Lsn::INVALID).then_some(valid));
            if let Some(record) = content.last_record.filter(|r| *r < self.end) {
                return Ok(LastRecord { record: Some(record), end: end.unwrap_or(self.end) });
            }
        }
        Ok(LastRecord { record: None, end: end.unwrap_or(self.end) })
    }

    /// The latest moment of which the run tells, from its end backwards.
    pub fn until<W: WalReader>(&self, wal: &mut W) -> Result<Option<Moment>, W::Error> {
        /// A segment without a commit is rare, sixteen in a row are an idle server: its files have times.
        const LOOKED_AT: usize = 16;
        for segment in self.segments.iter().rev().take(LOOKED_AT) {
            let facts: SegmentFacts = wal.facts(*segment)?;
            if let Some(until) = facts.until() {
                return Ok(Some(until));
            }
        }
        Ok(None)
    }
}

/// A segment on the way.
#[derive(Debug, Clone, Copy)]
pub struct Visited<'f> {
    /// The one before it on the way.
    pub before: Option<SegmentName>,
    /// The segment.
    pub segment: SegmentName,
    /// What is known of it.
    pub facts: &'f SegmentFacts,
}

/// What the roll-up's name tells of the LOG that a segment is in, and the first place behind that LOG.
pub(super) fn sealed<'a>(
    archive: &'a Archive,
    segments: &[SegmentName],
    at: usize,
) -> Option<(&'a LogFacts, usize)> {
    let segment = segments.get(at)?;
    let name = archive.timelines.get(&segment.timeline)?.sealed.get(&segment.log)?;
    let same = |s: &&SegmentName| (s.timeline, s.log) == (segment.timeline, segment.log);
    let behind = at + segments.get(at..)?.iter().take_while(same).count();
    Some((&name.facts, behind))
}

/// Segments that are asked for together, so that a distant store answers many requests at once: no further
/// than to the next LOG that may be passed over.
fn together<'s>(archive: &Archive, segments: &'s [SegmentName], at: usize) -> &'s [SegmentName] {
    const TOGETHER: usize = 256;
    let to = sealed(archive, segments, at).map_or_else(
        || {
            let rest = at..segments.len().min(at + TOGETHER);
            let end = rest.clone().find(|at| sealed(archive, segments, *at).is_some());
            end.unwrap_or(rest.end)
        },
        |(_, behind)| behind.min(at + TOGETHER),
    );
    segments.get(at..to).unwrap_or_default()
}

/// Where replay of a run was to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The record's start.
    pub at: Lsn,
    /// What it says.
    pub found: Option<Found>,
}

impl From<Found> for Hit {
    fn from(found: Found) -> Self {
        Self { at: found.lsn, found: Some(found) }
    }
}

/// Where a run's records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRecord {
    /// Where the last one starts.
    pub record: Option<Lsn>,
    /// Behind it.
    pub end: Lsn,
}
