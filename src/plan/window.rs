//! Which moments can be restored, and which segments are missing.

use super::coverage::{Archive, Lineage};
use super::ends::{first_transaction, last_transaction};
use super::evidence::WalReader;
use super::restore_plan::BackupFacts;
use super::run::{Barrier, Run, Visited};
use super::search::Borders;
use crate::types::{Lsn, Moment, SegmentName, SegmentSet, SegmentSize, TimelineId};
use crate::wal::{Found, Sought};

/// A range of moments, each of which can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The timeline that it ends on.
    pub timeline: TimelineId,
    /// The earliest moment: when its first backup ended, by the later of two clocks.
    pub from: Moment,
    /// The latest moment of which its WAL is known to tell everything.
    pub to: Moment,
    /// The earliest position: the end of its first backup.
    pub from_lsn: Lsn,
    /// Behind its last record.
    pub to_lsn: Lsn,
    /// The last commit that can be restored; `None` where nothing was committed since the backup.
    pub last_commit: Option<Found>,
}

/// A window, and the way along it.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    pub(super) window: Window,
    first: BackupFacts,
    run: Run,
}

impl Stretch {
    /// The first commit or abort in it.
    pub(super) fn first<W: WalReader>(
        &self,
        archive: &Archive,
        wal: &mut W,
    ) -> Result<Option<Found>, W::Error> {
        first_transaction(&self.run, archive, self.first.stop, wal)
    }

    /// The last commit or abort in it.
    pub(super) fn last<W: WalReader>(
        &self,
        archive: &Archive,
        wal: &mut W,
    ) -> Result<Option<Found>, W::Error> {
        last_transaction(&self.run, archive, self.first.stop, false, wal)
    }
}

/// What follows a backup without a break, along one timeline.
struct Way {
    lineage: Lineage,
    first: BackupFacts,
    run: Run,
}

impl Way {
    /// The timeline of its last byte.
    fn owner(&self) -> TimelineId {
        self.lineage.history().timeline_at(Lsn(self.run.end.0.saturating_sub(1)))
    }
}

/// The recovery windows: from the end of a backup that may be chosen by itself to the end of the WAL that
/// follows it without a gap, once for each timeline that is not just on the way to another.
pub fn windows<W: WalReader>(
    archive: &Archive,
    backups: &[BackupFacts],
    wal: &mut W,
) -> Result<Vec<Window>, W::Error> {
    Ok(stretches(archive, backups, wal)?.into_iter().map(|stretch| stretch.window).collect())
}

pub(super) fn stretches<W: WalReader>(
    archive: &Archive,
    backups: &[BackupFacts],
    wal: &mut W,
) -> Result<Vec<Stretch>, W::Error> {
    let mut ways: Vec<Way> = Vec::new();
    for timeline in archive.timelines.keys() {
        let Ok(lineage) = archive.lineage(*timeline) else { continue };
        let mut here: Vec<&BackupFacts> = backups.iter().filter(|b| b.is_on(&lineage)).collect();
        here.sort_by_key(|b| b.stop);
        let mut reached = Lsn::INVALID;
        for backup in here {
            if backup.stop <= reached {
                continue;
            }
            let listed = Run::listed(archive, &lineage, backup.start);
            if listed.end < backup.stop {
                continue;
            }
            let run = listed.at_a_glance(archive, wal)?;
            if run.end < backup.stop {
                continue;
            }
            reached = run.end;
            ways.push(Way { lineage: lineage.clone(), first: backup.clone(), run });
        }
    }
    let mut stretches = Vec::new();
    for a in &ways {
        let passed = ways.iter().any(|b| {
            let (own, other) = (a.lineage.timeline(), b.lineage.timeline());
            // Both stop at one place: the one whose own place it is speaks for it.
            let further =
                b.run.end > a.run.end || (b.run.end == a.run.end && a.owner() != own && a.owner() == other);
            own != other
                && further
                && b.first.stop <= a.first.stop
                && b.lineage.holds_before(a.owner(), a.run.end)
        });
        if passed {
            continue;
        }
        let (timeline, run) = (a.lineage.timeline(), a.run.clone());
        let from = a.first.stop_time.max(latest_before_the_end(&run, &a.first, archive, wal)?);
        let told = match run.barrier {
            Some(Barrier::Broken { .. } | Barrier::Minimal { .. }) => {
                last_transaction(&run, archive, a.first.stop, false, wal)?.map(|found| found.time)
            }
            _ => run.until(wal)?,
        };
        let window = Window {
            timeline,
            from,
            to: told.map_or(from, |told| told.max(from)),
            from_lsn: a.first.stop,
            to_lsn: run.last_record(wal)?.end.max(a.first.stop),
            last_commit: last_transaction(&run, archive, a.first.stop, true, wal)?,
        };
        stretches.push(Stretch { window, first: a.first.clone(), run });
    }
    Ok(stretches)
}

/// The latest commit or abort that is replayed before a backup is consistent, where its clock was ahead of
/// the one that dated the backup: a target before that would stop recovery too early.
fn latest_before_the_end<W: WalReader>(
    run: &Run,
    backup: &BackupFacts,
    archive: &Archive,
    wal: &mut W,
) -> Result<Moment, W::Error> {
    let size = archive.segment_size;
    let replayed = backup.start..backup.stop;
    let mut latest = backup.stop_time;
    let mut borders = Borders::default();
    let mut before = None;
    for segment in &run.segments {
        let Some(start) = segment.start(size).filter(|start| *start < backup.stop) else { break };
        let facts = wal.facts(*segment)?;
        let sought = Sought::Time { after: latest, or_at: false };
        let visited = Visited { before: before.replace(*segment), segment: *segment, facts: &facts };
        if let Some(place) = borders.before(visited, archive, &sought)
            && let Some(found) = wal.seek(&[place], &Sought::Transaction, backup.start)?
        {
            latest = latest.max(found.time);
        }
        if !facts.may_have_transactions() || facts.times().is_some_and(|(_, time)| time <= latest) {
            continue;
        }
        let whole = start >= backup.start && start.plus(size.bytes()) <= backup.stop;
        latest = match facts.times() {
            Some((_, time)) if whole => latest.max(time),
            _ => wal.fold(*segment, latest, |latest, found| {
                if replayed.contains(&found.lsn) {
                    *latest = (*latest).max(found.time);
                }
            })?,
        };
    }
    Ok(latest)
}

/// The missing stretches between a timeline's first and last segment, in order.
pub fn gaps(
    segments: &SegmentSet,
    timeline: TimelineId,
    size: SegmentSize,
) -> Vec<(SegmentName, SegmentName)> {
    let between = |pair: &[std::ops::Range<u64>]| match pair {
        [a, b] => Some((
            SegmentName::from_number(timeline, a.end, size),
            SegmentName::from_number(timeline, b.start - 1, size),
        )),
        _ => None,
    };
    segments.runs().windows(2).filter_map(between).collect()
}
