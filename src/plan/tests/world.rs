//! An archive made up of events, for plans to be made from.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::super::*;
use crate::repository::wal_archive::{NamedPoint, ParameterChange, WalContent, WalLevel};
use crate::types::{BackupType, Lsn, Moment, SegmentName, SegmentSize, TimelineId};
use crate::wal::{Found, Sought, TimelineHistory};

pub(super) const SIZE: SegmentSize = SegmentSize::DEFAULT;

/// A position: segment and offset in it.
pub(super) fn at(segment: u64, offset: u64) -> Lsn {
    Lsn(segment * SIZE.bytes() + offset)
}

/// So many seconds after the beginning of these tests' time.
pub(super) fn second(seconds: i64) -> Moment {
    Moment(jiff::Timestamp::from_second(1_775_000_000 + seconds).unwrap())
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Commit(u32),
    Abort(u32),
    Point(&'static str),
}

/// An archive made up of events: every segment holds a record at its start and one just before its end.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) events: Vec<(u32, Lsn, Moment, What)>,
    pub(super) segments: BTreeMap<u32, Vec<u64>>,
    pub(super) histories: BTreeMap<u32, Vec<(u32, Lsn)>>,
    pub(super) orphans: Vec<u32>,
    pub(super) broken: BTreeMap<SegmentName, SegmentFacts>,
    pub(super) cut: BTreeMap<SegmentName, Lsn>,
    pub(super) modified: BTreeMap<SegmentName, Moment>,
    pub(super) pieces: Vec<(u32, Lsn, Lsn)>,
    pub(super) backups: Vec<BackupFacts>,
    pub(super) parameters: Vec<ParameterChange>,
}

impl World {
    pub(super) fn wal(mut self, timeline: u32, segments: impl IntoIterator<Item = u64>) -> Self {
        self.segments.entry(timeline).or_default().extend(segments);
        self
    }

    /// A segment whose records end before it does.
    pub(super) fn cut_off(mut self, timeline: u32, segment: u64, end: Lsn) -> Self {
        self.cut.insert(SegmentName::from_number(TimelineId(timeline), segment, SIZE), end);
        self
    }

    /// `timeline` left `parent` at a position.
    pub(super) fn branch(mut self, timeline: u32, parent: u32, end: Lsn) -> Self {
        let mut history = self.histories.get(&parent).cloned().unwrap_or_default();
        history.push((parent, end));
        self.histories.insert(timeline, history);
        self.segments.entry(timeline).or_default();
        self
    }

    pub(super) fn event(mut self, timeline: u32, lsn: Lsn, seconds: i64, what: What) -> Self {
        self.events.push((timeline, lsn, second(seconds), what));
        self
    }

    pub(super) fn backup(mut self, timeline: u32, start: Lsn, stop: Lsn, seconds: i64) -> Self {
        self.backups.push(BackupFacts {
            id: crate::types::BackupId::new(second(seconds - 5).0, BackupType::Full),
            start,
            timeline: TimelineId(timeline),
            stop,
            stop_timeline: TimelineId(timeline),
            stop_time: second(seconds),
            complete: true,
            size: 1 << 20,
            stored: 1 << 18,
            start_time: second(seconds - 4),
        });
        self
    }

    /// From here on the server ran with another `wal_level` and so many connections.
    pub(super) fn restarted(mut self, lsn: Lsn, wal_level: WalLevel, max_connections: u32) -> Self {
        self.parameters.push(ParameterChange {
            lsn,
            wal_level,
            max_connections,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
        });
        self
    }

    pub(super) fn archive(&self) -> Archive {
        let timeline = |(id, segments): (&u32, &Vec<u64>)| {
            let id = TimelineId(*id);
            let pieces = self.pieces.iter().filter(|p| p.0 == id.0).map(|p| (p.1, p.2)).collect();
            let orphan = self.orphans.contains(&id.0);
            let lines: String = self
                .histories
                .get(&id.0)
                .into_iter()
                .flatten()
                .map(|(parent, end)| format!("{parent}\t{end}\tno recovery target specified\n"))
                .collect();
            let history = if orphan {
                Err(format!("the history file of timeline {id} is not in the archive"))
            } else if id.0 == 1 {
                Ok(TimelineHistory::of_first(id))
            } else {
                TimelineHistory::parse(id, lines.as_bytes()).map_err(|e| e.to_string())
            };
            (
                id,
                Timeline {
                    history,
                    orphan,
                    segments: segments.iter().copied().collect(),
                    sealed: BTreeMap::new(),
                    pieces,
                },
            )
        };
        Archive { segment_size: SIZE, timelines: self.segments.iter().map(timeline).collect() }
    }

    pub(super) fn plan(&mut self, wanted: &Wanted) -> RestorePlan {
        let (archive, backups) = (self.archive(), self.backups.clone());
        let Ok(plan) = plan(&archive, &backups, wanted, self);
        plan
    }

    pub(super) fn windows(&mut self) -> Vec<(u32, Moment, Moment)> {
        let (archive, backups) = (self.archive(), self.backups.clone());
        let Ok(windows) = windows(&archive, &backups, self);
        windows.into_iter().map(|w| (w.timeline.0, w.from, w.to)).collect()
    }

    /// The last commit of each window.
    pub(super) fn last_commits(&mut self) -> Vec<Option<Lsn>> {
        let (archive, backups) = (self.archive(), self.backups.clone());
        let Ok(windows) = windows(&archive, &backups, self);
        windows.into_iter().map(|w| w.last_commit.map(|found| found.lsn)).collect()
    }

    /// Where a segment's records end, if that is before its own end.
    fn cut_of(&self, segment: SegmentName) -> Option<Lsn> {
        let cut = self.cut.get(&segment).copied();
        cut.or_else(|| self.archive().piece(segment).filter(|_| !self.archive().has(segment)))
    }

    /// Of a file's records those that end in it, or (`crossing`) the one that goes on in the next: that is the
    /// one whose start lies behind the last record that every segment has.
    pub(super) fn records_in(&self, segment: SegmentName, crossing: bool) -> Vec<(Lsn, Moment, What)> {
        let cut = self.cut_of(segment).unwrap_or(Lsn(u64::MAX));
        let crosses = |lsn: Lsn| lsn.0 % SIZE.bytes() > SIZE.bytes() - 64;
        let events = self.events_in(segment).into_iter();
        events.filter(|(lsn, ..)| *lsn < cut && crosses(*lsn) == crossing).collect()
    }

    /// What a file of this name holds: its timeline's records, and before its begin those of its ancestors.
    pub(super) fn events_in(&self, segment: SegmentName) -> Vec<(Lsn, Moment, What)> {
        let number = segment.number(SIZE).unwrap();
        let lineage = self.archive().named_lineage(segment.timeline).unwrap();
        let mut events: Vec<_> = self
            .events
            .iter()
            .filter(|(timeline, lsn, ..)| {
                SIZE.number_of(*lsn) == number && lineage.holds(TimelineId(*timeline), *lsn)
            })
            .map(|(_, lsn, time, what)| (*lsn, *time, what.clone()))
            .collect();
        events.sort_by_key(|(lsn, ..)| *lsn);
        events
    }
}

impl WalReader for World {
    type Error = Infallible;

    fn expect(&mut self, _: &[SegmentName]) -> Result<(), Infallible> {
        Ok(())
    }

    fn facts(&mut self, segment: SegmentName) -> Result<SegmentFacts, Infallible> {
        if let Some(broken) = self.broken.get(&segment) {
            return Ok(broken.clone());
        }
        let number = segment.number(SIZE).unwrap();
        let events = self.records_in(segment, false);
        let crossing = self.records_in(segment, true).first().map(|(lsn, ..)| *lsn);
        let before =
            number.checked_sub(1).map(|n| self.archive().named_lineage(segment.timeline).unwrap().segment(n));
        let crossed = before.is_some_and(|before| !self.records_in(before, true).is_empty());
        let times: Vec<Moment> =
            events.iter().filter(|e| !matches!(e.2, What::Point(_))).map(|e| e.1).collect();
        let cut = self.cut_of(segment);
        let points = events.iter().filter_map(|(lsn, time, what)| match what {
            What::Point(name) => Some(NamedPoint { name: (*name).to_owned(), time: *time, lsn: *lsn }),
            _ => None,
        });
        Ok(SegmentFacts {
            content: Some(WalContent {
                timeline: Some(segment.timeline),
                first_record: Some(at(number, if crossed { 80 } else { 40 })),
                last_record: Some(cut.map_or(at(number, SIZE.bytes() - 64), |c| Lsn(c.0 - 64))),
                end_of_valid: cut.or(crossing).unwrap_or(at(number + 1, 0)),
                cut_off_at: cut,
                records: 2,
                commits: times.len() as u64,
                times: times.iter().min().copied().zip(times.iter().max().copied()),
                until: events.iter().map(|e| e.1).max(),
                restore_points: points.collect(),
                parameters: self
                    .parameters
                    .iter()
                    .copied()
                    .filter(|change| SIZE.number_of(change.lsn) == number)
                    .collect(),
                ..WalContent::default()
            }),
            modified: self.modified.get(&segment).copied(),
            stored: Some(1 << 20),
            unreadable: None,
        })
    }

    fn seek(&mut self, places: &[Place], sought: &Sought, from: Lsn) -> Result<Option<Found>, Infallible> {
        let records = places.iter().flat_map(|place| match place {
            Place::In(segment) => self.records_in(*segment, false),
            Place::Across(first, _) => self.records_in(*first, true),
        });
        Ok(records.filter(|(lsn, ..)| *lsn >= from).find_map(|(lsn, time, what)| {
            let found = found(lsn, time, &what);
            let hit = match (&what, sought) {
                (What::Point(name), Sought::Name(wanted)) => wanted == name,
                (What::Point(_), _) | (_, Sought::Name(_)) => false,
                (_, Sought::Xid(wanted)) => found.xid == Some(*wanted),
                (_, Sought::Time { after, or_at }) => time > *after || (*or_at && time == *after),
                (_, Sought::Transaction) => true,
            };
            hit.then_some(found)
        }))
    }

    fn fold<S: Clone>(
        &mut self,
        segment: SegmentName,
        mut state: S,
        mut step: impl FnMut(&mut S, Found),
    ) -> Result<S, Infallible> {
        for (lsn, time, what) in self.records_in(segment, false) {
            if !matches!(what, What::Point(_)) {
                step(&mut state, found(lsn, time, &what));
            }
        }
        Ok(state)
    }
}

fn found(lsn: Lsn, time: Moment, what: &What) -> Found {
    let xid = match what {
        What::Commit(xid) | What::Abort(xid) => Some(*xid),
        What::Point(_) => None,
    };
    Found { lsn, time, xid, commit: matches!(what, What::Commit(_)) }
}
