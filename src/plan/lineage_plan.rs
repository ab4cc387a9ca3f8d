//! The way to a target along one timeline: from which backup, up to which record.

use super::attempt::{Attempt, Reached, Refusal};
use super::coverage::{Archive, Lineage};
use super::evidence::WalReader;
use super::restore_plan::BackupFacts;
use super::run::{Barrier, Run};
use super::search::Search;
use super::target::{Stop, StopKind, Target, Wanted};
use crate::types::{Lsn, Moment};

impl BackupFacts {
    /// Whether everything of it lies on the way: only then can recovery go from it to the timeline.
    pub fn is_on(&self, lineage: &Lineage) -> bool {
        lineage.holds(self.timeline, self.start) && lineage.holds_before(self.stop_timeline, self.stop)
    }
}

/// Looks for the target along one timeline.
pub(super) fn on_lineage<W: WalReader>(
    archive: &Archive,
    backups: &[BackupFacts],
    wanted: &Wanted,
    lineage: &Lineage,
    wal: &mut W,
) -> Result<Attempt, W::Error> {
    let mut here: Vec<&BackupFacts> = backups.iter().filter(|b| b.is_on(lineage)).collect();
    if here.is_empty() {
        return Ok(
            Err(origin_unknown(archive, lineage).unwrap_or_else(|| not_an_ancestor(backups, lineage))),
        );
    }
    here.sort_by(|a, b| (b.stop, &b.id).cmp(&(a.stop, &a.id)));
    let road = Road { archive, lineage, backups: here };
    if wanted.standby {
        return road.consistent(wal, true);
    }
    match &wanted.target {
        Target::Latest => road.latest(wal),
        Target::Immediate => road.consistent(wal, false),
        Target::Lsn(lsn) => road.position(*lsn, wanted, wal),
        Target::Time(moment) => road.moment(*moment, wanted, wal),
        Target::Xid(xid) => road.transaction(*xid, wanted, wal),
        Target::Name(name) => road.named(name, wanted, wal),
    }
}

/// Without its history file nothing can be said of a timeline's ancestors, only that no backup is its own.
fn origin_unknown(archive: &Archive, lineage: &Lineage) -> Option<Refusal> {
    let timeline = archive.timelines.get(&lineage.timeline()).filter(|t| t.orphan)?;
    let why = timeline.history.as_ref().err()?;
    Some(Refusal::new(format!("{why}, and no backup was taken on it")).hint(format!(
        "does a server of that timeline still have pg_wal/{:08X}.history? pitr archive-push brings it into the archive",
        lineage.timeline().0
    )))
}

fn not_an_ancestor(backups: &[BackupFacts], lineage: &Lineage) -> Refusal {
    let timeline = lineage.timeline();
    let newest = backups.iter().max_by(|a, b| a.id.cmp(&b.id));
    let Some(backup) = newest else { return Refusal::new("there is no backup".to_owned()) };
    let left = lineage.history().end_of(backup.stop_timeline);
    Refusal::new(match left {
        Some(end) => format!(
            "backup {} ends at {} on timeline {}, which timeline {timeline} left at {end}: it is no ancestor",
            backup.id, backup.stop, backup.stop_timeline
        ),
        None => format!(
            "backup {} is of timeline {}, which is no ancestor of timeline {timeline}",
            backup.id, backup.stop_timeline
        ),
    })
    .hint(format!("timeline {timeline} can be restored from a backup taken before it began, or on it"))
}

/// One timeline with the backups on the way to it, the newest first; there is at least one.
pub(super) struct Road<'a> {
    pub(super) archive: &'a Archive,
    pub(super) lineage: &'a Lineage,
    pub(super) backups: Vec<&'a BackupFacts>,
}

impl Road<'_> {
    pub(super) fn listed(&self, from: Lsn) -> Run {
        Run::listed(self.archive, self.lineage, from)
    }

    /// The newest backup that satisfies a condition.
    pub(super) fn newest(&self, fits: impl Fn(&BackupFacts) -> bool) -> Option<&BackupFacts> {
        self.backups.iter().copied().find(|b| fits(b))
    }

    pub(super) fn reached(
        &self,
        backup: &BackupFacts,
        run: Run,
        stop: Stop,
        wanted: (Target, bool),
    ) -> Reached {
        Reached {
            backup: backup.clone(),
            lineage: self.lineage.clone(),
            run,
            stop,
            recover: wanted.0,
            recover_exclusive: wanted.1,
            notes: Vec::new(),
            mixed: Vec::new(),
        }
    }

    /// Up to where the database is consistent, and (`on`) whatever follows without a gap.
    fn consistent<W: WalReader>(&self, wal: &mut W, on: bool) -> Result<Attempt, W::Error> {
        let Some(backup) = self.newest(|_| true) else { return Ok(Err(Refusal::default())) };
        let mut run = self.listed(backup.start);
        if !on {
            run = run.through(Lsn(backup.stop.0.saturating_sub(1)), self.archive);
        }
        let run = run.to_its_end(self.archive, wal)?;
        if run.end < backup.stop {
            return Ok(Err(self.lacks_wal(backup, &run)));
        }
        let stop = Stop { at: backup.stop, kind: StopKind::Consistent };
        let target = if on { Target::Latest } else { Target::Immediate };
        let barrier = run.barrier.clone().filter(|_| on);
        let mut reached = self.reached(backup, run, stop, (target, false));
        reached
            .notes
            .extend(barrier.map(|b| format!("{}: a standby has to stream what follows", in_the_way(&b))));
        Ok(Ok(reached))
    }

    fn latest<W: WalReader>(&self, wal: &mut W) -> Result<Attempt, W::Error> {
        let Some(backup) = self.newest(|_| true) else { return Ok(Err(Refusal::default())) };
        let run = self.listed(backup.start).to_its_end(self.archive, wal)?;
        if run.end < backup.stop {
            return Ok(Err(self.lacks_wal(backup, &run)));
        }
        if let Some(barrier) = &run.barrier {
            let last = run.last_record(wal)?;
            let mut refusal = Refusal::new(format!(
                "{}: there is more WAL behind, and recovery from backup {} would end at {}",
                in_the_way(barrier),
                backup.id,
                run.end
            ))
            .hiding(self, &run)
            .starting_from(backup);
            if let Some(record) = last.record.filter(|r| *r >= backup.stop) {
                refusal = refusal.hint(format!("up to there it can be restored with --target-lsn {record}"));
            }
            return Ok(Err(refusal));
        }
        let last = run.last_record(wal)?;
        let until = run.until(wal)?;
        let kind = StopKind::EndOfWal { last_record: last.record, until };
        let stop = Stop { at: last.end.max(backup.stop), kind };
        Ok(Ok(self.reached(backup, run, stop, (Target::Latest, false))))
    }

    fn position<W: WalReader>(&self, lsn: Lsn, wanted: &Wanted, wal: &mut W) -> Result<Attempt, W::Error> {
        let Some(backup) = self.newest(|b| b.stop <= lsn) else {
            return Ok(Err(self.before_first_backup(&wanted.target)));
        };
        let (run, hit) =
            Search::Position(lsn).along(self.listed(backup.start), self.archive, backup.start, wal)?;
        if run.end < backup.stop {
            return Ok(Err(self.lacks_wal(backup, &run)));
        }
        if hit.is_some() {
            let stop = Stop { at: lsn, kind: StopKind::Position };
            return Ok(Ok(self.reached(backup, run, stop, (wanted.target.clone(), wanted.exclusive))));
        }
        let last = run.last_record(wal)?;
        if run.barrier.is_none() && lsn <= last.end {
            return Ok(Ok(self.all_of_it(backup, run, None, wanted, wal)?));
        }
        Ok(Err(self.not_reached(backup, &run, wanted, wal)?))
    }

    /// The target lies behind the last record that could stop recovery, and before the end of what the
    /// archive tells: everything there is is what was asked for. The server needs a record to stop at: the
    /// last commit, where that is what matters, or the last one at all.
    pub(super) fn all_of_it<W: WalReader>(
        &self,
        backup: &BackupFacts,
        run: Run,
        commit: Option<Lsn>,
        wanted: &Wanted,
        wal: &mut W,
    ) -> Result<Reached, W::Error> {
        let last = run.last_record(wal)?;
        let until = run.until(wal)?;
        let record = commit.or(last.record).filter(|r| *r >= backup.stop);
        let recover = record.map_or(Target::Immediate, Target::Lsn);
        let kind = StopKind::EndOfWal { last_record: record, until };
        let stop = Stop { at: last.end.max(backup.stop), kind };
        let mut reached = self.reached(backup, run, stop, (recover, false));
        reached.notes.push(format!(
            "no record behind the target {} is in the archive that could stop recovery: the server is told to stop behind the last {}{}",
            wanted.target,
            if commit.is_some() { "commit" } else { "record" },
            record.map_or_else(String::new, |r| format!(", at {r}"))
        ));
        Ok(reached)
    }

    /// Why the content of a run's last segment is not known.
    pub(super) fn unread<W: WalReader>(&self, run: &Run, wal: &mut W) -> Result<Option<String>, W::Error> {
        let Some(last) = run.segments.last() else { return Ok(None) };
        Ok(match wal.facts(*last)?.content {
            Some(content) => {
                content.not_checked.map(|why| format!("segment {last} was not looked into: {why}"))
            }
            None => Some(format!("what is in segment {last} was never recorded")),
        })
    }

    pub(super) fn before_first_backup(&self, target: &Target) -> Refusal {
        let Some(first) = self.backups.last() else { return Refusal::default() };
        let which = if self.backups.len() == 1 { "backup" } else { "first backup" };
        Refusal::new(format!(
            "the target {target} lies before the end of the {which}: {} ended at {}, {}",
            first.id, first.stop_time, first.stop
        ))
        .starting_from(first)
    }

    pub(super) fn lacks_wal(&self, backup: &BackupFacts, run: &Run) -> Refusal {
        let why = match &run.barrier {
            Some(barrier) => in_the_way(barrier),
            None => {
                let next = self.lineage.segment(self.archive.segment_size.number_of(run.end));
                format!("WAL segment {next} is not in the archive")
            }
        };
        Refusal::new(format!(
            "{why}: backup {} needs the WAL from {} to {}",
            backup.id, backup.start, backup.stop
        ))
        .hiding(self, run)
        .starting_from(backup)
    }

    /// The target lies in a gap, behind one, or after the last WAL.
    pub(super) fn not_reached<W: WalReader>(
        &self,
        backup: &BackupFacts,
        run: &Run,
        wanted: &Wanted,
        wal: &mut W,
    ) -> Result<Refusal, W::Error> {
        let last = run.last_record(wal)?;
        let until: Option<Moment> = run.until(wal)?;
        let tells = until.map_or_else(String::new, |u| format!(", which tells of nothing after {u}"));
        let unread = self.unread(run, wal)?.map(|why| format!(" ({why})")).unwrap_or_default();
        let end = last
            .end
            .max(run.segments.last().and_then(|s| s.start(self.archive.segment_size)).unwrap_or(last.end));
        let refusal = match &run.barrier {
            Some(barrier) => Refusal::new(format!(
                "{}: recovery from backup {} would end at {end}{tells}, before the target {}{unread}",
                in_the_way(barrier),
                backup.id,
                wanted.target
            )),
            None => Refusal::new(format!(
                "the WAL of timeline {} ends at {end}{tells}: the target {} lies after it{unread}",
                self.lineage.timeline(),
                wanted.target
            ))
            .hint("--target latest restores all that is in the archive".to_owned())
            .hint("has the server archived its last segment? pg_switch_wal() makes it".to_owned()),
        };
        Ok(refusal.hiding(self, run).starting_from(backup))
    }
}

pub(super) fn in_the_way(barrier: &Barrier) -> String {
    match barrier {
        Barrier::Missing { first, last } if first == last => {
            format!("WAL segment {first} is missing from the archive")
        }
        Barrier::Missing { first, last } => {
            format!("WAL segments {first} to {last} are missing from the archive")
        }
        Barrier::Minimal { segment, at } => format!(
            "from {at} on, in WAL segment {segment}, the server wrote with wal_level=minimal, which no recovery can pass over"
        ),
        Barrier::Broken { segment, why } => format!("WAL segment {segment} cannot be replayed: {why}"),
    }
}
