//! What the archive's WAL covers, and what a hole in it costs. Pure: facts in, holes and losses out.
//!
//! The rules are those of the restore plan: a way leads from timeline to timeline as a history file tells, and
//! a segment in which a timeline begins is asked for under the newest one's name. Each hole is judged as if
//! it were the only one: what it costs does not depend on what else is broken, and mending one thing never
//! turns out to have been in vain because of the order of a list.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::Lineage;
use crate::types::{BackupId, Lsn, Moment, SegmentName, SegmentSet, SegmentSize, TimelineId};

/// How recovery gets on in a segment of which it cannot read all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Standing {
    /// Undamaged, and its records end here, before the segment does.
    CutOff(Lsn),
    /// Recovery ends here.
    Broken(Lsn),
    /// It could not be asked, or is of a newer version.
    Unknown,
}

/// What coverage needs to know of a backup.
#[derive(Debug, Clone)]
pub(super) struct BackupFacts {
    pub(super) id: BackupId,
    pub(super) start: Lsn,
    pub(super) timeline: TimelineId,
    pub(super) stop: Lsn,
    pub(super) stop_timeline: TimelineId,
    pub(super) stop_time: Moment,
    /// It brought its WAL along: nobody may have archived behind it.
    pub(super) include: bool,
}

impl BackupFacts {
    fn is_on(&self, way: &Lineage) -> bool {
        way.holds(self.timeline, self.start) && way.holds_before(self.stop_timeline, self.stop)
    }
}

/// One cluster's WAL and backups.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) size: SegmentSize,
    /// One for each timeline.
    pub(super) ways: Vec<Lineage>,
    pub(super) segments: &'a BTreeMap<TimelineId, SegmentSet>,
    /// Stretches of segments that are not complete.
    pub(super) pieces: &'a [(TimelineId, Lsn, Lsn)],
    pub(super) standing: &'a BTreeMap<SegmentName, Standing>,
    /// Those that can be restored but for their WAL, by the position of their end.
    pub(super) backups: Vec<BackupFacts>,
    /// The number of the first segment that is looked at.
    pub(super) first: u64,
}

/// A place on a way that recovery does not get past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hole {
    /// The first segment.
    pub(super) first: SegmentName,
    /// The last one; the same where one segment is broken.
    pub(super) last: SegmentName,
    /// How far recovery gets.
    pub(super) end: Lsn,
    pub(super) cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Missing,
    /// The same, where nobody was archiving: between the end of a backup that brought its WAL along and the start
    /// of the next one.
    NotArchived,
    /// Behind the end of a backup that brought its WAL along, with archived WAL behind it that no backup begins
    /// with: lost, or from before archiving was switched on. Either way nobody gets past it.
    CutsOff,
    CutOff,
    Broken,
    Unknown,
}

/// Moments that a hole costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    /// On the way to these.
    pub(super) timelines: Vec<TimelineId>,
    /// Behind this position.
    pub(super) after: Lsn,
    /// The newest backup that would have led there.
    pub(super) from: BackupId,
    /// How many older ones would have, too.
    pub(super) older: usize,
    /// Up to the end of this one, which begins behind the hole.
    pub(super) until: Option<(BackupId, Moment)>,
}

/// Why a backup's own WAL is not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lack {
    /// Of these segments one is missing or broken; `unknown` where it only could not be asked.
    Segment { segment: SegmentName, unknown: bool },
    /// No history leads from its first timeline to its last.
    Way,
}

impl Ground<'_> {
    /// The numbers of the segments on a way.
    fn present(&self, way: &Lineage) -> SegmentSet {
        let mut all = SegmentSet::default();
        for (timeline, _, _) in way.history().stretches() {
            let own = way.own(timeline);
            let held = self.segments.get(&timeline).map(SegmentSet::runs).unwrap_or_default();
            for run in held {
                all.insert(run.start.max(own.start).max(self.first)..run.end.min(own.end));
            }
        }
        all
    }

    fn start_of(&self, number: u64) -> Lsn {
        Lsn(number.saturating_mul(self.size.bytes()))
    }

    /// All holes on a way, in order.
    pub(super) fn holes(&self, way: &Lineage) -> Vec<Hole> {
        let present = self.present(way);
        let gaps = present.runs().windows(2).filter_map(|pair| match pair {
            [before, behind] => Some(self.missing(way, before.end, behind.start - 1)),
            _ => None,
        });
        let mut holes: Vec<Hole> = gaps.collect();
        let Some(last) = present.last() else { return holes };
        for (segment, standing) in self.standing {
            let Some(number) = segment.number(self.size) else { continue };
            if way.segment(number) != *segment || !present.contains(number) {
                continue;
            }
            let (end, cause) = match standing {
                // At the end of a way the WAL just ends there.
                Standing::CutOff(_) if number == last => continue,
                Standing::CutOff(end) => (*end, Cause::CutOff),
                Standing::Broken(end) => ((*end).max(self.start_of(number)), Cause::Broken),
                Standing::Unknown => (self.start_of(number), Cause::Unknown),
            };
            holes.push(Hole { first: *segment, last: *segment, end, cause });
        }
        holes.sort_by_key(|hole| (hole.first.log, hole.first.seg));
        holes
    }

    fn missing(&self, way: &Lineage, first: u64, last: u64) -> Hole {
        let explained = self.backups.iter().any(|b| {
            let ends_in = self.size.number_of(Lsn(b.stop.0.saturating_sub(1)));
            b.include && b.is_on(way) && (ends_in + 1 == first || (ends_in == first && self.has_piece(b)))
        });
        let covered = self.backups.iter().any(|b| b.is_on(way) && self.size.number_of(b.start) == last + 1);
        Hole {
            first: way.segment(first),
            last: way.segment(last),
            end: self.start_of(first),
            cause: match (explained, covered) {
                (true, true) => Cause::NotArchived,
                (true, false) => Cause::CutsOff,
                (false, _) => Cause::Missing,
            },
        }
    }

    fn has_piece(&self, backup: &BackupFacts) -> bool {
        self.pieces.iter().any(|(timeline, from, to)| {
            *timeline == backup.stop_timeline && *from < backup.stop && *to >= backup.stop
        })
    }

    /// What a hole costs, on every way that it lies on. Empty where no backup leads to it.
    pub(super) fn lost(&self, hole: &Hole) -> Vec<Lost> {
        let mut all: Vec<Lost> = Vec::new();
        let behind = hole.last.number(self.size).map_or(Lsn(u64::MAX), |n| self.start_of(n + 1));
        for way in &self.ways {
            let on_way = |s: SegmentName| s.number(self.size).is_some_and(|n| way.segment(n) == s);
            if !on_way(hole.first) || !on_way(hole.last) {
                continue;
            }
            let backups = || self.backups.iter().filter(|b| b.is_on(way));
            let leading = || backups().filter(|b| b.stop <= hole.end);
            let Some(from) = leading().next_back() else { continue };
            let until = backups().find(|b| b.start >= behind).map(|b| (b.id.clone(), b.stop_time));
            let lost = Lost {
                timelines: vec![way.timeline()],
                after: hole.end,
                from: from.id.clone(),
                older: leading().count() - 1,
                until,
            };
            match all
                .iter_mut()
                .find(|l| (&l.from, l.older, &l.until) == (&lost.from, lost.older, &lost.until))
            {
                Some(same) => same.timelines.extend(lost.timelines),
                None => all.push(lost),
            }
        }
        all
    }

    /// Whether the WAL from a backup's start to its end is whole, on at least one way.
    pub(super) fn wal_of(&self, backup: &BackupFacts) -> Result<(), Lack> {
        let mut lack = None;
        for way in self.ways.iter().filter(|way| backup.is_on(way)) {
            match self.wal_on(backup, way) {
                Ok(()) => return Ok(()),
                Err(found) if way.timeline() == backup.stop_timeline => lack = Some(found),
                Err(found) => lack = lack.or(Some(found)),
            }
        }
        Err(lack.unwrap_or(Lack::Way))
    }

    fn wal_on(&self, backup: &BackupFacts, way: &Lineage) -> Result<(), Lack> {
        let first = self.size.number_of(backup.start);
        let last = self.size.number_of(Lsn(backup.stop.0.saturating_sub(1)));
        let present = self.present(way);
        let missing = present.run_of(first).map_or(first, |run| run.end);
        if let Some(number) = Some(missing).filter(|number| *number <= last)
            && !(number == last && self.has_piece(backup))
        {
            return Err(Lack::Segment { segment: way.segment(number), unknown: false });
        }
        for (segment, standing) in self.standing {
            let number = segment.number(self.size).filter(|n| (first..=last).contains(n));
            if number.is_none_or(|n| way.segment(n) != *segment) {
                continue;
            }
            let short = match standing {
                Standing::CutOff(end) | Standing::Broken(end) => *end < backup.stop,
                Standing::Unknown => true,
            };
            if short {
                let unknown = *standing == Standing::Unknown;
                return Err(Lack::Segment { segment: *segment, unknown });
            }
        }
        Ok(())
    }

    /// The backup from which the moments behind a bad one are still reached: an older one on the same way
    /// with all the WAL between.
    pub(super) fn stands_in_for(&self, bad: &BackupFacts) -> Option<&BackupFacts> {
        self.ways.iter().filter(|way| bad.is_on(way)).find_map(|way| {
            let holes = self.holes(way);
            let older = |b: &&BackupFacts| {
                let cut = |hole: &Hole| hole.end >= b.stop && hole.end < bad.stop;
                b.is_on(way) && b.id != bad.id && b.stop <= bad.stop && !holes.iter().any(cut)
            };
            self.backups.iter().filter(|b| self.wal_of(b).is_ok()).rfind(older)
        })
    }

    /// The first usable backup that ends behind another one, on a way of its own.
    pub(super) fn next_after(&self, bad: &BackupFacts) -> Option<&BackupFacts> {
        let follows = |b: &&BackupFacts| {
            b.id != bad.id && b.stop > bad.stop && self.ways.iter().any(|w| bad.is_on(w) && b.is_on(w))
        };
        self.backups.iter().find(follows)
    }

    /// The number of the first segment that is needed to restore any moment from `since` on: that of the
    /// newest backup before it, on each way that leads to such a moment. Without a backup, all of it.
    /// `until` is the latest moment of which a way's WAL tells, where that is known.
    pub(super) fn needed_since(&self, since: Moment, until: &BTreeMap<TimelineId, Moment>) -> u64 {
        let last = until.values().max().copied();
        let leads_there = |way: &&Lineage| {
            let until = until.get(&way.timeline()).copied();
            // A moment to come lies on the way that is the furthest now.
            until.is_none_or(|until| until >= since || Some(until) == last)
        };
        let firsts = self.ways.iter().filter(leads_there).filter_map(|way| {
            let on_way = || self.backups.iter().filter(|b| b.is_on(way));
            // A moment has microseconds, a clock more.
            let micros = |moment: Moment| moment.0.as_microsecond();
            let ended = |b: &&BackupFacts| micros(b.stop_time) <= micros(since);
            let before = on_way().rfind(ended).or_else(|| on_way().next());
            before.map(|b| self.size.number_of(b.start))
        });
        firsts.min().unwrap_or(0)
    }

    /// The last segment on a way.
    pub(super) fn last_on(&self, way: &Lineage) -> Option<SegmentName> {
        self.present(way).last().map(|number| way.segment(number))
    }
}
