//! Which record stops recovery: the server's own rules, applied beforehand.
//!
//! A time, a transaction and a name are compared with commits, aborts and restore points in the order of
//! the WAL, from the backup's start on. A stop before the backup's end would be refused by the server
//! ("requested recovery stop point is before consistent recovery point"), so an older backup is taken then.

use super::attempt::{Attempt, Reached, Refusal};
use super::ends::last_transaction;
use super::evidence::{Place, WalReader};
use super::lineage_plan::{Road, in_the_way};
use super::order::{Choice, Order};
use super::restore_plan::BackupFacts;
use super::run::{Barrier, Run};
use super::search::{Borders, Search, may_hold};
use super::target::{Stop, StopKind, Target, Wanted};
use crate::types::{Lsn, Moment};
use crate::wal::{Found, Sought};

impl Road<'_> {
    /// Before the first commit or abort later than the moment.
    pub(super) fn moment<W: WalReader>(
        &self,
        moment: Moment,
        wanted: &Wanted,
        wal: &mut W,
    ) -> Result<Attempt, W::Error> {
        let sought = Sought::Time { after: moment, or_at: wanted.exclusive };
        let early = self.backups.iter().filter(|b| b.stop_time <= moment);
        let mut ahead = None;
        for backup in early {
            let (run, hit) = Search::Record(sought.clone()).along(
                self.listed(backup.start),
                self.archive,
                backup.start,
                wal,
            )?;
            match hit.and_then(|h| h.found) {
                // The server's clock is ahead of the one that dated the backup. The search has gone no
                // further than this record: where the backup's WAL ends is not known, nor needed.
                Some(found) if found.lsn < backup.stop => {
                    ahead.get_or_insert((backup, found));
                }
                _ if run.end < backup.stop => return Ok(Err(self.lacks_wal(backup, &run))),
                Some(found) => {
                    let reached = self.at_record(backup, run, found, wanted);
                    return self.in_order(reached, moment, wanted, wal);
                }
                None => {
                    let reached = self.behind_the_last(backup, run, moment, wanted, wal)?;
                    return match reached {
                        Ok(reached) => self.in_order(reached, moment, wanted, wal),
                        Err(refusal) => Ok(Err(refusal)),
                    };
                }
            }
        }
        let refusal = self.before_first_backup(&wanted.target);
        Ok(Err(match ahead {
            Some((backup, found)) => refusal.hint(format!(
                "the server's clock is ahead of the one that dated backup {}: it wrote {} at {}, before the backup's end",
                backup.id, found.time, found.lsn
            )),
            None => refusal,
        }))
    }

    /// Nothing in the archive is later: all of it, if the archive tells of the moment at all.
    fn behind_the_last<W: WalReader>(
        &self,
        backup: &BackupFacts,
        run: Run,
        moment: Moment,
        wanted: &Wanted,
        wal: &mut W,
    ) -> Result<Attempt, W::Error> {
        let last = last_transaction(&run, self.archive, backup.stop, false, wal)?;
        let told = match &run.barrier {
            // What a broken segment tells may lie behind what recovery can read of it.
            Some(Barrier::Broken { .. } | Barrier::Minimal { .. }) => last.as_ref().map(|l| l.time),
            _ => run.until(wal)?.max(Some(backup.stop_time)),
        };
        if told < Some(moment) || self.unread(&run, wal)?.is_some() {
            return Ok(Err(self.not_reached(backup, &run, wanted, wal)?));
        }
        let last = last.map(|l| l.lsn);
        Ok(Ok(self.all_of_it(backup, run, last, wanted, wal)?))
    }

    /// Whether the order of the WAL around the moment is that of the times. If it is not, both sides are
    /// shown; and where a clock was set back, the moment was there twice, and only one of them can be meant.
    fn in_order<W: WalReader>(
        &self,
        mut reached: Reached,
        moment: Moment,
        wanted: &Wanted,
        wal: &mut W,
    ) -> Result<Attempt, W::Error> {
        let Some((from, run)) = self.longest_way(reached.stop.at, wal)? else { return Ok(Ok(reached)) };
        let order = Order::along(&run, self.archive, (from, moment, wanted.exclusive), wal)?;
        if order.behind == 0 {
            return Ok(Ok(reached));
        }
        let choices = order.choices(&run, self.archive, wal)?;
        let said = choices
            .iter()
            .map(|choice| self.choice(choice))
            .chain((order.more_places > 0).then(|| format!("and {} more places", order.more_places)));
        if order.must_be_chosen() {
            let mut refusal = Refusal::new(format!(
                "the times of commits go back by {} s across the target {}: a clock was set back, or a server with another clock took over, and {} {} not later than the target {} behind one that is",
                seconds(order.step),
                wanted.target,
                order.behind,
                if order.behind == 1 { "commit" } else { "commits" },
                if order.behind == 1 { "comes" } else { "come" },
            ))
            .starting_from(&reached.backup);
            refusal.hints.extend(said);
            refusal.must_be_chosen = true;
            return Ok(Err(refusal));
        }
        reached.notes.push(format!(
            "the times of commits are not in the order of the WAL around the target: {} not later {} behind one that is",
            order.behind,
            if order.behind == 1 { "comes" } else { "come" },
        ));
        let stop = reached.stop.at;
        reached.notes.extend(order.mixed.iter().map(|found| {
            let side = if found.lsn < stop { "restored" } else { "left out" };
            format!("  {side}: {}", told(found))
        }));
        reached.notes.extend(said.map(|choice| format!("  to choose: {choice}")));
        reached.mixed = order.mixed;
        Ok(Ok(reached))
    }

    /// The way from the oldest backup that leads to a place, and goes on behind it as far as it can: every
    /// place that may be chosen is on it.
    fn longest_way<W: WalReader>(&self, to: Lsn, wal: &mut W) -> Result<Option<(Lsn, Run)>, W::Error> {
        let mut behind = Lsn::INVALID;
        for backup in self.backups.iter().rev().filter(|b| b.stop <= to) {
            let listed = self.listed(backup.start);
            if backup.start < behind || listed.end < to {
                continue;
            }
            let run = listed.to_its_end(self.archive, wal)?;
            if run.end >= to {
                return Ok(Some((backup.stop, run)));
            }
            behind = run.end;
        }
        Ok(None)
    }

    /// A place that can be chosen, as it is typed.
    fn choice(&self, choice: &Choice) -> String {
        let timeline = match self.archive.timelines.len() {
            0 | 1 => String::new(),
            _ => format!(" --target-timeline {}", self.lineage.timeline()),
        };
        let before = choice.next.as_ref().map_or_else(
            || ", the last one in the archive".to_owned(),
            |next| format!(", and before {}", told(next)),
        );
        match (&choice.last, &choice.next) {
            (Some(last), _) => {
                format!("--target-lsn {}{timeline} stops behind {}{before}", last.lsn, told(last))
            }
            (None, Some(next)) => {
                format!("--target-lsn {} --exclusive{timeline} stops before {}", next.lsn, told(next))
            }
            (None, None) => "--target immediate stops where the backup is consistent".to_owned(),
        }
    }

    /// At the commit or abort of a transaction.
    pub(super) fn transaction<W: WalReader>(
        &self,
        xid: u32,
        wanted: &Wanted,
        wal: &mut W,
    ) -> Result<Attempt, W::Error> {
        let mut searched: Option<(&BackupFacts, Run)> = None;
        let mut seen = None;
        let mut newer: Option<&BackupFacts> = None;
        for backup in &self.backups {
            let mut listed = self.listed(backup.start);
            if let (Some(newer), None) = (newer, &seen) {
                // Behind it, the search has been made.
                listed = listed.through(newer.stop, self.archive);
            }
            let (run, hit) =
                Search::Record(Sought::Xid(xid)).along(listed, self.archive, backup.start, wal)?;
            match hit.and_then(|h| h.found) {
                Some(found) if found.lsn >= backup.stop => {
                    return Ok(Ok(self.at_record(backup, run, found, wanted)));
                }
                Some(found) => seen = Some(found),
                None => {
                    searched.get_or_insert((backup, run));
                }
            }
            newer = Some(backup);
        }
        if seen.is_some() {
            return Ok(Err(self.before_first_backup(&wanted.target)));
        }
        let Some((newest, run)) = searched else { return Ok(Err(Refusal::default())) };
        let first = self.backups.last().map_or(newest.start, |b| b.start);
        let way = run.barrier.as_ref().map_or_else(String::new, |b| format!(" ({})", in_the_way(b)));
        Ok(Err(Refusal::new(format!(
            "no commit or abort of transaction {xid} is in the WAL of timeline {} from {first} to {}{way}",
            self.lineage.timeline(),
            run.end
        ))
        .hint(
            "is it a subtransaction's number? only the number of the whole transaction can be a target"
                .to_owned(),
        )
        .hiding(self, &run)
        .starting_from(newest)))
    }

    /// At a restore point, if there is but one of this name.
    pub(super) fn named<W: WalReader>(
        &self,
        name: &str,
        wanted: &Wanted,
        wal: &mut W,
    ) -> Result<Attempt, W::Error> {
        let mut points: Vec<Found> = Vec::new();
        let mut others: Vec<String> = Vec::new();
        let mut reached = Lsn::INVALID;
        for backup in self.backups.iter().rev().filter(|b| b.complete || self.backups.len() == 1) {
            if backup.stop <= reached {
                continue;
            }
            let from = backup.start.max(reached);
            let sought = Sought::Name(name.to_owned());
            let mut borders = Borders::default();
            let listed = self.listed(backup.start);
            let (run, _) = listed.replay(
                self.archive,
                wal,
                |log, _| !log.restore_points,
                |wal, visited| {
                    let facts = visited.facts;
                    if let Some(place) = borders.before(visited, self.archive, &sought) {
                        points.extend(wal.seek(&[place], &sought, from)?);
                    }
                    let listed = facts.content.as_ref().map_or(&[][..], |c| c.restore_points.as_slice());
                    for point in listed.iter().filter(|p| p.lsn >= from) {
                        if point.name != name {
                            others.push(point.name.clone());
                        } else {
                            points.push(Found { lsn: point.lsn, time: point.time, xid: None, commit: false });
                        }
                    }
                    if !listed.iter().any(|p| p.name == name) && may_hold(&sought, facts) {
                        points.extend(wal.seek(&[Place::In(visited.segment)], &sought, from)?);
                    }
                    Ok(None)
                },
            )?;
            points.retain(|p| p.lsn < run.end);
            reached = run.end;
        }
        let reachable: Vec<&Found> =
            points.iter().filter(|p| self.backups.iter().any(|b| b.stop <= p.lsn)).collect();
        match reachable.as_slice() {
            [] if points.is_empty() => Ok(Err(no_such_point(name, others, self))),
            [] => Ok(Err(self.before_first_backup(&wanted.target))),
            [point] => self.at_point(point, &points, wanted, wal),
            several => {
                let mut refusal = Refusal::new(format!(
                    "restore point \"{name}\" was made {} times on the way to timeline {}",
                    several.len(),
                    self.lineage.timeline()
                ));
                for point in several {
                    refusal =
                        refusal.hint(format!("--target-lsn {} is the one of {}", point.lsn, point.time));
                }
                Ok(Err(refusal))
            }
        }
    }

    fn at_point<W: WalReader>(
        &self,
        point: &Found,
        all: &[Found],
        wanted: &Wanted,
        wal: &mut W,
    ) -> Result<Attempt, W::Error> {
        let Some(backup) = self.newest(|b| b.stop <= point.lsn) else {
            return Ok(Err(self.before_first_backup(&wanted.target)));
        };
        let listed = self.listed(backup.start).through(point.lsn, self.archive);
        let run = listed.to_its_end(self.archive, wal)?;
        if run.end <= point.lsn {
            return Ok(Err(self.not_reached(backup, &run, wanted, wal)?));
        }
        let mut reached = self.at_record(backup, run, point.clone(), wanted);
        // The server stops at the first of the name, and refuses one before the backup's end.
        if all.iter().any(|p| p.lsn >= backup.start && p.lsn < point.lsn) {
            reached.recover = Target::Lsn(point.lsn);
        }
        Ok(Ok(reached))
    }

    fn at_record(&self, backup: &BackupFacts, run: Run, found: Found, wanted: &Wanted) -> Reached {
        let stop = Stop { at: found.lsn, kind: StopKind::Record(found) };
        self.reached(backup, run, stop, (wanted.target.clone(), wanted.exclusive))
    }
}

/// A record in words.
pub(super) fn told(found: &Found) -> String {
    match (found.xid, found.commit) {
        (Some(xid), true) => format!("the commit of transaction {xid} at {}, {}", found.time, found.lsn),
        (Some(xid), false) => format!("the abort of transaction {xid} at {}, {}", found.time, found.lsn),
        (None, _) => format!("the restore point of {}, {}", found.time, found.lsn),
    }
}

/// Seconds, as many digits as say something.
fn seconds(span: jiff::SignedDuration) -> String {
    let text = format!("{:.6}", span.as_secs_f64());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn no_such_point(name: &str, mut others: Vec<String>, road: &Road<'_>) -> Refusal {
    others.sort();
    others.dedup();
    let refusal = Refusal::new(format!(
        "no restore point \"{name}\" is in the WAL of timeline {}",
        road.lineage.timeline()
    ));
    match others.as_slice() {
        [] => {
            refusal.hint("there is no restore point at all; pg_create_restore_point() makes one".to_owned())
        }
        some => {
            let shown: Vec<&str> = some.iter().take(20).map(String::as_str).collect();
            refusal.hint(format!("there are: {}", shown.join(", ")))
        }
    }
}
