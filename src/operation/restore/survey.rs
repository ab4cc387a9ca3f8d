//! The facts that a plan is made from: what the archive and the backups of one cluster are.

use std::collections::{BTreeMap, BTreeSet};

use super::archived_wal::ArchivedWal;
use crate::operation::in_full::in_full;
use crate::plan::{Archive, BackupFacts, Timeline, Window, windows};
use crate::repository::backup_set::format::{Backup, Status};
use crate::repository::rollup::SealedLogs;
use crate::repository::{Cluster, RepositoryError, abreast};
use crate::types::{BackupId, Lsn, SegmentSet, TimelineId, WalFileName};
use crate::wal::TimelineHistory;

/// One cluster, looked over.
#[derive(Debug)]
pub struct Survey {
    /// Its WAL.
    pub archive: Archive,
    /// Its backups, oldest first.
    pub backups: Vec<Backup>,
    /// Backups that are there and cannot be used.
    pub unusable: Vec<Unusable>,
    /// Those of the backups of which parts are missing, as far as that was looked at.
    broken: BTreeSet<BackupId>,
    /// Backups that began and are not there: running still, or failed.
    pub unfinished: Vec<BackupId>,
}

/// A backup that cannot be used.
#[derive(Debug, Clone)]
pub struct Unusable {
    /// Its name.
    pub id: BackupId,
    /// What is wrong with it.
    pub why: String,
    /// A later version can read it.
    pub newer: bool,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "backup {} cannot be used: {}", self.id, self.why)
    }
}

impl Survey {
    /// Lists everything. A store that does not answer is an error; an object that is damaged is a fact.
    pub fn of(cluster: &Cluster<'_>) -> Result<Self, RepositoryError> {
        let (mut backups, mut unusable, mut unfinished) = (Vec::new(), Vec::new(), Vec::new());
        let ids = cluster.backup_ids()?;
        let found = abreast(&ids, |id| match cluster.backup(id) {
            Err(e @ (RepositoryError::Damaged { .. } | RepositoryError::NewerFormat { .. })) => Ok(Err(e)),
            other => other.map(Ok),
        })?;
        for (id, found) in ids.into_iter().zip(found) {
            match found {
                Ok(Some(backup)) => backups.push(backup),
                Ok(None) => unfinished.push(id),
                Err(e) => {
                    let newer = matches!(e, RepositoryError::NewerFormat { .. });
                    unusable.push(Unusable { id, why: in_full(&e), newer });
                }
            }
        }
        let broken = BTreeSet::new();
        Ok(Self { archive: archive(cluster)?, backups, unusable, broken, unfinished })
    }

    /// Lists the LOGs from a position on of which roll-ups told: what is not there any more is missing from now on.
    pub fn list_sealed_from(&mut self, cluster: &Cluster<'_>, start: Lsn) -> Result<(), RepositoryError> {
        super::rolled::list_from(cluster, &mut self.archive, start)
    }

    /// What the plan needs to know of the backups.
    pub fn facts(&self) -> Vec<BackupFacts> {
        self.backups.iter().map(facts_of).collect()
    }

    /// The recovery windows, none of them begun by a backup of which parts are missing: those become unusable,
    /// and the newest backup too where it is such a one. One listing of each backup that is looked at.
    pub fn proved_windows(&mut self, cluster: &Cluster<'_>) -> Result<Vec<Window>, RepositoryError> {
        let mut looked_at = BTreeSet::new();
        loop {
            let windows = self.windows(cluster)?;
            let newest = self.backups.last().map(|backup| backup.id.clone());
            let begins = |b: &Backup| windows.iter().any(|window| window.from_lsn == b.stop_lsn);
            let doubtful: Vec<Backup> = self
                .backups
                .iter()
                .filter(|b| begins(b) || newest.as_ref() == Some(&b.id))
                .filter(|b| looked_at.insert(b.id.clone()))
                .cloned()
                .collect();
            let problems = abreast(&doubtful, |backup| cluster.backup_problems(backup))?;
            let mut whole = true;
            for (backup, problems) in doubtful.into_iter().zip(problems) {
                let Some(first) = problems.first() else { continue };
                let why = match problems.len() - 1 {
                    0 => first.clone(),
                    more => format!("{first}, and {more} more like it"),
                };
                self.broken.insert(backup.id.clone());
                self.unusable.push(Unusable { id: backup.id, why, newer: false });
                whole = false;
            }
            if whole {
                return Ok(windows);
            }
        }
    }

    /// The recovery windows of the backups that may be chosen. What roll-ups say is believed, as far as no
    /// segment that is asked for turns out to be lost.
    pub fn windows(&mut self, cluster: &Cluster<'_>) -> Result<Vec<Window>, RepositoryError> {
        let usable: Vec<_> =
            self.facts().into_iter().filter(|b| b.complete && !self.broken.contains(&b.id)).collect();
        let mut wal = ArchivedWal::new(cluster).believing(&self.archive);
        loop {
            match windows(&self.archive, &usable, &mut wal) {
                Err(e) if !wal.doubt(&mut self.archive)? => return Err(e),
                Err(_) => {}
                Ok(_) if wal.has_learned() => {}
                windows => return windows,
            }
        }
    }
}

fn facts_of(backup: &Backup) -> BackupFacts {
    BackupFacts {
        id: backup.id.clone(),
        start: backup.start_lsn,
        timeline: backup.timeline,
        stop: backup.stop_lsn,
        stop_timeline: backup.stop_timeline,
        stop_time: backup.stop_time,
        complete: backup.status == Status::Complete,
        size: backup.size,
        stored: backup.stored_size,
        start_time: backup.start_time,
    }
}

fn archive(cluster: &Cluster<'_>) -> Result<Archive, RepositoryError> {
    let size = cluster.segment_size();
    let mut timelines = BTreeMap::new();
    let mut rollups = cluster.rollups()?;
    let mut known = cluster.begun_timelines()?;
    known.extend(rollups.keys());
    known.sort_unstable();
    known.dedup();
    let lowest = known.first().copied();
    for timeline in &known {
        let sealed = rollups.remove(timeline).unwrap_or_default();
        let mut segments = cluster.list_unsealed(*timeline, &sealed)?.segments;
        for log in sealed.keys() {
            segments.insert(size.numbers_of_log(*log));
        }
        // The first timeline has none.
        let found = if timeline.0 == 1 { None } else { history(cluster, *timeline)? };
        let (history, orphan) = match found {
            Some(history) => (history, false),
            None if timeline.0 == 1 || Some(*timeline) == lowest => {
                (Ok(TimelineHistory::of_first(*timeline)), false)
            }
            None => (
                Err(format!(
                    "the history file of timeline {timeline} is not in the archive: where it comes from is not known"
                )),
                true,
            ),
        };
        let pieces = cluster.stream_pieces(*timeline)?;
        timelines.insert(*timeline, Timeline { history, orphan, segments, sealed, pieces });
    }
    // A timeline that has just begun has a history and no segment yet; the server finds it in the same way.
    let mut next = known.last().map_or(1, |t| t.0);
    loop {
        next = next.saturating_add(1);
        let timeline = TimelineId(next);
        let Some(history) = history(cluster, timeline)? else { break };
        let pieces = cluster.stream_pieces(timeline)?;
        timelines.insert(
            timeline,
            Timeline {
                history,
                orphan: false,
                segments: SegmentSet::default(),
                sealed: SealedLogs::new(),
                pieces,
            },
        );
    }
    Ok(Archive { segment_size: size, timelines })
}

type History = Result<TimelineHistory, String>;

fn history(cluster: &Cluster<'_>, timeline: TimelineId) -> Result<Option<History>, RepositoryError> {
    let damaged = |why: String| format!("the history file of timeline {timeline} cannot be used: {why}");
    match cluster.small_file(WalFileName::History(timeline)) {
        Ok(Some(bytes)) => {
            Ok(Some(TimelineHistory::parse(timeline, &bytes).map_err(|e| damaged(e.to_string()))))
        }
        Ok(None) => Ok(None),
        Err(e @ RepositoryError::Damaged { .. }) => Ok(Some(Err(damaged(in_full(&e))))),
        Err(e) => Err(e),
    }
}
