//! Which record stops recovery: the server's own rules, applied beforehand.
//!
//! A time, a transaction and a name are compared with commits, aborts and restore points in the order of
//! the WAL, from the backup's start on. A stop before the backup's end would be refused by the server
//! ("requested recovery stop point is before consistent recovery point"), so an older backup is taken then.

use super::attempt::{Attempt, Reached, Refusal};
use super::evidence::WalReader;
use super::lineage_plan::{Road, in_the_way};
use super::restore_plan::BackupFacts;
use super::run::Run;
use super::search::{Search, may_hold};
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
                Some(found) => return Ok(Ok(self.at_record(backup, run, found, wanted))),
                None => {
                    let told = run.until(wal, self.archive)?.max(Some(backup.stop_time));
                    let broken = matches!(run.barrier, Some(super::Barrier::Broken { .. }));
                    let unread = self.unread(&run, wal)?.is_some();
                    return Ok(if told >= Some(moment) && !broken && !unread {
                        Ok(self.all_of_it(backup, run, wanted, wal)?)
                    } else {
                        Err(self.not_reached(backup, &run, wanted, wal)?)
                    });
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
            let (run, _) = self.listed(backup.start).replay(self.archive, wal, |wal, segment, facts| {
                let listed = facts.content.as_ref().map_or(&[][..], |c| c.restore_points.as_slice());
                for point in listed.iter().filter(|p| p.lsn >= from) {
                    if point.name != name {
                        others.push(point.name.clone());
                    } else {
                        points.push(Found { lsn: point.lsn, time: point.time, xid: None, commit: false });
                    }
                }
                let sought = Sought::Name(name.to_owned());
                if !listed.iter().any(|p| p.name == name) && may_hold(&sought, facts) {
                    points.extend(wal.seek(segment, &sought, from)?);
                }
                Ok(None)
            })?;
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
        let (run, _) = listed.replay(self.archive, wal, |_, _, _| Ok(None))?;
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
