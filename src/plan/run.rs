//! A stretch of WAL that recovery can replay without a break.

use super::coverage::{Archive, Lineage};
use super::evidence::{SegmentFacts, WalReader};
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
}

/// Segments that follow each other, and where replay of them ends.
#[derive(Debug, Clone)]
pub struct Run {
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
            return Self { segments, end: piece.unwrap_or(start), barrier };
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

    /// Goes along the segments as recovery would. The run ends where a segment is broken or cut off, or
    /// behind the segment in which `visit` finds what it looks for.
    pub fn replay<W: WalReader, F>(
        mut self,
        archive: &Archive,
        wal: &mut W,
        mut visit: F,
    ) -> Result<(Self, Option<Hit>), W::Error>
    where
        F: FnMut(&mut W, SegmentName, &SegmentFacts) -> Result<Option<Hit>, W::Error>,
    {
        /// Asked for together, so that a distant store answers many requests at once.
        const TOGETHER: usize = 256;
        let whole: Vec<_> = self.segments.iter().copied().filter(|s| archive.has(*s)).collect();
        let last = whole.len().saturating_sub(1);
        for (at, segment) in whole.iter().copied().enumerate() {
            if at % TOGETHER == 0 {
                wal.expect(whole.get(at..(at + TOGETHER).min(whole.len())).unwrap_or_default())?;
            }
            let facts = wal.facts(segment)?;
            let broken = facts.broken();
            let start = segment.start(archive.segment_size).unwrap_or(Lsn::INVALID);
            let end = broken.as_ref().map(|(end, _)| (*end).max(start));
            let hit = if facts.unreadable.is_some() { None } else { visit(wal, segment, &facts)? };
            if let Some(hit) = hit.filter(|hit| end.is_none_or(|end| hit.at < end)) {
                self.segments.truncate(at + 1);
                self.end = start.plus(archive.segment_size.bytes());
                self.barrier = None;
                return Ok((self, Some(hit)));
            }
            let (Some(end), Some((_, why))) = (end, broken) else { continue };
            let followed = at < last || self.segments.len() > whole.len() || self.barrier.is_some();
            let only_cut = facts.unreadable.is_none() && facts.content.is_some_and(|c| c.damage.is_none());
            self.segments.truncate(at + 1);
            self.end = end;
            // Nothing follows a segment that was cut off at the archive's end: the WAL ends there.
            self.barrier = (followed || !only_cut).then_some(Barrier::Broken { segment, why });
            return Ok((self, None));
        }
        Ok((self, None))
    }

    /// Its end, by the content of its last segment, where nothing is known to be in the way of more.
    pub fn settle_end<W: WalReader>(&mut self, wal: &mut W, archive: &Archive) -> Result<(), W::Error> {
        if let (None, Some(last)) = (&self.barrier, self.segments.last().filter(|s| archive.has(**s)))
            && let Some((end, _)) = wal.facts(*last)?.broken()
        {
            self.end = end.max(last.start(archive.segment_size).unwrap_or(end));
        }
        Ok(())
    }

    /// The position behind the last record that recovery reads, with that record's own.
    pub fn last_record<W: WalReader>(&self, wal: &mut W, archive: &Archive) -> Result<LastRecord, W::Error> {
        let mut end = None;
        for segment in self.segments.iter().rev().filter(|s| archive.has(**s)) {
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
    pub fn until<W: WalReader>(&self, wal: &mut W, archive: &Archive) -> Result<Option<Moment>, W::Error> {
        /// A segment without a commit is rare, sixteen in a row are an idle server: its files have times.
        const LOOKED_AT: usize = 16;
        for segment in self.segments.iter().rev().filter(|s| archive.has(**s)).take(LOOKED_AT) {
            let facts: SegmentFacts = wal.facts(*segment)?;
            if let Some(until) = facts.until() {
                return Ok(Some(until));
            }
        }
        Ok(None)
    }
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
