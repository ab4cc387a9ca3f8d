//! What was found, against the timelines and the backups: what can no longer be restored, and what to do.

use std::collections::BTreeMap;

use super::backup::Described;
use super::coverage::{Cause, Ground, Hole, Lack, Lost, Standing};
use super::inventory::Inventory;
use super::problem::{About, Finding, Found, Kind, Problem};
use super::{Checked, Report};
use crate::repository::{Cluster, RepositoryError};
use crate::types::{BackupId, Moment, SegmentName, TimelineId, WalFileName};

/// Puts the report together; reads a few summaries, for the times of holes.
pub(super) fn put_together(
    cluster: &Cluster<'_>,
    inventory: &Inventory,
    described: &[Described],
    ground: Ground<'_>,
    mut found: Found,
    checked: Checked,
) -> Result<Report, RepositoryError> {
    let standing: BTreeMap<SegmentName, Standing> = std::mem::take(&mut found.standing).into_iter().collect();
    let damaged: Vec<String> = found.findings.iter().map(|f| f.problem.object.clone()).collect();
    let whole = |(timeline, from, to): &(TimelineId, _, _)| {
        !damaged.contains(&cluster.layout().stream_piece(*timeline, *from, *to))
    };
    let pieces: Vec<_> = inventory.pieces.iter().copied().filter(whole).collect();
    let bad: Vec<&BackupId> = found.findings.iter().filter_map(|f| backup_of(&f.about)).collect();
    let backups = ground.backups.iter().filter(|b| !bad.contains(&&b.id)).cloned().collect();
    let ground = Ground { standing: &standing, pieces: &pieces, backups, ..ground };
    let mut writer = Writer { cluster, ground: &ground, described, found, problems: Vec::new() };
    writer.holes()?;
    writer.backups();
    writer.costs()?;
    writer.rest(inventory);
    let Writer { mut problems, found, .. } = writer;
    problems.sort_by_key(|p| (p.lost.is_empty(), p.object.clone()));
    Ok(Report {
        name: cluster.name().to_string(),
        epoch: cluster.epoch().0,
        system_identifier: cluster.identity().system_identifier,
        checked: checked.now,
        resumed: checked.before,
        problems,
        notes: found.notes,
    })
}

fn backup_of(about: &About) -> Option<&BackupId> {
    match about {
        About::Backup(id) => Some(id),
        About::Nothing | About::Segment(_) => None,
    }
}

struct Writer<'a> {
    cluster: &'a Cluster<'a>,
    ground: &'a Ground<'a>,
    described: &'a [Described],
    found: Found,
    problems: Vec<Problem>,
}

impl Writer<'_> {
    /// Missing and cut-off segments; what broken ones cost is asked by whoever found them.
    fn holes(&mut self) -> Result<(), RepositoryError> {
        let mut known: Vec<Hole> = Vec::new();
        for hole in self.ground.ways.iter().flat_map(|way| self.ground.holes(way)) {
            if known.contains(&hole) {
                continue;
            }
            known.push(hole.clone());
            let object = self.cluster.layout().segment(hole.first);
            let count = match (hole.first.number(self.ground.size), hole.last.number(self.ground.size)) {
                (Some(first), Some(last)) => last - first + 1,
                _ => 1,
            };
            let range = match count {
                1 => format!("{} is", hole.first),
                _ => format!("{} to {} ({count} segments) are", hole.first, hole.last),
            };
            let (kind, what, todo) = match hole.cause {
                Cause::Missing => (
                    Kind::MissingWal,
                    format!("{range} missing"),
                    "are they still in pg_wal, or in another repository? push them again (pitr archive-push); else take a new backup (pitr backup)",
                ),
                Cause::CutsOff => (
                    Kind::MissingWal,
                    format!(
                        "{range} missing, and no backup begins behind that: what is archived there cannot be reached (was archiving switched on only then?)"
                    ),
                    "are they still in pg_wal, or in another repository? push them again (pitr archive-push); else take a new backup (pitr backup): a new window begins with it",
                ),
                Cause::CutOff => (
                    Kind::CutOff,
                    format!(
                        "the records of {} end at {}, and its timeline goes on behind it",
                        hole.first, hole.end
                    ),
                    "is the whole segment still in pg_wal, or in another repository? push it again (pitr archive-push); else take a new backup (pitr backup)",
                ),
                Cause::NotArchived => {
                    self.found.notes.push(format!(
                        "{range} not there: the backup before it brought its WAL along, and nothing was archived behind it"
                    ));
                    continue;
                }
                Cause::Broken | Cause::Unknown => continue,
            };
            let lost = self.lost(&hole)?;
            self.problems.push(Problem { kind, object, what, lost, todo: todo.to_owned() });
        }
        Ok(())
    }

    fn backups(&mut self) {
        for backup in &self.ground.backups {
            if self.ground.size.number_of(backup.start) < self.ground.first {
                continue;
            }
            let Err(lack) = self.ground.wal_of(backup) else { continue };
            let what = match &lack {
                // The segment's own problem says it, and that it could be there.
                Lack::Segment { unknown: true, .. } => continue,
                Lack::Segment { segment, .. } => format!("{segment} is missing or broken"),
                Lack::Way => {
                    format!("no history leads from timeline {} to {}", backup.timeline, backup.stop_timeline)
                }
            };
            self.problems.push(Problem {
                kind: Kind::BackupWithoutWal,
                object: self.cluster.layout().backup_descriptor(&backup.id),
                what: format!(
                    "its WAL from {} to {} on timeline {} is not whole: {what}",
                    backup.start, backup.stop, backup.stop_timeline
                ),
                lost: vec![format!("every restore from backup {}", backup.id)],
                todo: "is the WAL still in pg_wal, or in another repository? push it again (pitr archive-push); else take a new backup (pitr backup)".to_owned(),
            });
        }
    }

    /// What each finding costs.
    fn costs(&mut self) -> Result<(), RepositoryError> {
        for Finding { mut problem, about } in std::mem::take(&mut self.found.findings) {
            match about {
                About::Nothing => {}
                About::Segment(segment) => problem.lost.extend(self.lost_by(segment)?),
                About::Backup(id) => problem.lost.push(self.lost_with(&id)),
            }
            self.problems.push(problem);
        }
        Ok(())
    }

    fn lost_by(&self, segment: SegmentName) -> Result<Vec<String>, RepositoryError> {
        let mut lost = Vec::new();
        for hole in self.ground.ways.iter().flat_map(|way| self.ground.holes(way)) {
            if hole.first == segment && matches!(hole.cause, Cause::Broken | Cause::Unknown) {
                for line in self.lost(&hole)? {
                    if !lost.contains(&line) {
                        lost.push(line);
                    }
                }
            }
        }
        Ok(lost)
    }

    fn lost_with(&self, id: &BackupId) -> String {
        let all = format!("restores from backup {id}");
        let Some(bad) = self.described.iter().find(|d| d.backup.id == *id).map(Described::facts) else {
            return all;
        };
        if let Some(other) = self.ground.stands_in_for(&bad) {
            return format!("{all}; backup {} before it still leads to the same moments", other.id);
        }
        match self.ground.next_after(&bad) {
            Some(next) => format!(
                "{all}, and with it every moment from {} until {}, when backup {} ended",
                bad.stop_time, next.stop_time, next.id
            ),
            None => format!("{all}, and with it every moment from {} on", bad.stop_time),
        }
    }

    fn lost(&self, hole: &Hole) -> Result<Vec<String>, RepositoryError> {
        let lost = self.ground.lost(hole);
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        let time = self.time_of(hole)?;
        let unless = if hole.cause == Cause::Unknown { ", unless it can be read" } else { "" };
        Ok(lost.iter().map(|lost| format!("{}{unless}", in_words(lost, time))).collect())
    }

    /// The latest moment of which the WAL before a hole tells.
    fn time_of(&self, hole: &Hole) -> Result<Option<Moment>, RepositoryError> {
        let size = self.ground.size;
        let Some(number) = hole.first.number(size) else { return Ok(None) };
        // The way that the hole lies on; any that shares it tells the same.
        let way = self.ground.ways.iter().find(|way| way.segment(number) == hole.first);
        let before = number.checked_sub(1).and_then(|n| way.map(|way| way.segment(n)));
        let inside = (hole.cause != Cause::Missing).then_some(hole.first);
        for segment in inside.into_iter().chain(before) {
            let summary = match self.cluster.wal_summary(WalFileName::Segment(segment)) {
                Ok(Some(summary)) => summary,
                Ok(None) => continue,
                Err(error) => {
                    super::problem::judge(error)?;
                    continue;
                }
            };
            let until = summary.wal.as_ref().and_then(|wal| wal.until.or(wal.times.map(|(_, t)| t)));
            if until.is_some() {
                return Ok(until);
            }
        }
        Ok(None)
    }

    /// What needs no more than its name.
    fn rest(&mut self, inventory: &Inventory) {
        for (object, stem) in &inventory.conflicts {
            if inventory.discarded.contains(stem) {
                continue;
            }
            let (file, digest) = stem.rsplit_once('.').unwrap_or((stem, ""));
            self.problems.push(Problem {
                kind: Kind::Conflict,
                object: object.clone(),
                what: format!("{file} came with other bytes than are stored, and was refused"),
                lost: Vec::new(),
                todo: format!(
                    "are two servers archiving to this cluster? pitr repo resolve {file} --discard {digest} drops it"
                ),
            });
        }
        let (names, count) = &inventory.strangers;
        for name in names {
            self.problems.push(leftover(name.clone(), "no name that this version of pitr gives".to_owned()));
        }
        if let Some(more) = count.checked_sub(names.len() as u64).filter(|more| *more > 0) {
            let object = self.cluster.layout().all();
            self.problems.push(leftover(
                object,
                format!("{more} more objects whose names this version does not give"),
            ));
        }
        let needless = self.ground.pieces.iter().filter(|(timeline, from, _)| {
            let number = self.ground.size.number_of(*from);
            let whole = self.ground.segments.get(timeline).is_some_and(|held| held.contains(number));
            whole
                && !self.ground.standing.contains_key(&SegmentName::from_number(
                    *timeline,
                    number,
                    self.ground.size,
                ))
        });
        for (timeline, from, to) in needless {
            let object = self.cluster.layout().stream_piece(*timeline, *from, *to);
            self.found.notes.push(format!("{object} is not needed any more: its segment is whole by now"));
        }
    }
}

fn leftover(object: String, what: String) -> Problem {
    let todo = "did a later version write it? else, is it somebody's, and may it be moved away?".to_owned();
    Problem { kind: Kind::Leftover, object, what, lost: Vec::new(), todo }
}

fn in_words(lost: &Lost, time: Option<Moment>) -> String {
    let timelines: Vec<String> = lost.timelines.iter().map(ToString::to_string).collect();
    let many = if timelines.len() > 1 { "timelines" } else { "timeline" };
    let time = time.map_or_else(String::new, |time| format!(" ({time})"));
    let until = match &lost.until {
        Some((id, time)) => format!(", until {time}, when backup {id} ended"),
        None => String::new(),
    };
    let older = match lost.older {
        0 => String::new(),
        n => format!(" (and {n} older)"),
    };
    format!(
        "restores from backup {}{older} past {}{time} on {many} {}{until}",
        lost.from,
        lost.after,
        timelines.join(", ")
    )
}
