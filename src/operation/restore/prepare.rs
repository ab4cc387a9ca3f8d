//! The plan of a restore with everything that can stand in its way: WAL, backup, and the places to write to.

use super::archived_wal::ArchivedWal;
use super::rolled;
use super::survey::{Survey, Unusable};
use crate::operation::in_full::in_full;
use crate::plan::{RestorePlan, Target, Wanted, half_dropped, plan};
use crate::repository::backup_set::format::Backup;
use crate::repository::{Cluster, RepositoryError};
use crate::types::{SegmentName, WalFileName};
use crate::wal::Activity;

/// What is wrong with the places that a backup would be written to; changes nothing.
pub type PlaceProblems<'a> = &'a dyn Fn(&Backup) -> Vec<String>;

/// A plan, and the backup that it starts from.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The plan; nothing may be written while it has problems.
    pub plan: RestorePlan,
    /// The chosen backup; `None` where there is a problem with all of them.
    pub backup: Option<Backup>,
    /// The last segment of the plan, where the archive holds no more than its start: no server asks for that,
    /// so it has to be there when recovery begins.
    pub piece: Option<SegmentName>,
}

/// Makes the plan from what is in one cluster. Reads the archive and looks at the places; changes nothing.
pub fn prepare(
    cluster: &Cluster<'_>,
    wanted: &Wanted,
    places: PlaceProblems<'_>,
) -> Result<Prepared, RepositoryError> {
    let mut survey = Survey::of(cluster)?;
    let mut wal = ArchivedWal::new(cluster).believing(&survey.archive);
    let (mut plan, backup) = loop {
        let plan = match plan(&survey.archive, &survey.facts(), wanted, &mut wal) {
            Ok(plan) => plan,
            Err(e) if !wal.doubt(&mut survey.archive)? => return Err(e),
            Err(_) => continue,
        };
        if wal.has_learned() {
            continue;
        }
        if !rolled::prove(cluster, &mut survey.archive, &plan)? {
            wal = wal.believing(&survey.archive);
            continue;
        }
        if wal.is_cut_short(&survey.archive, &plan)? {
            continue;
        }
        let id = plan.backup.as_ref().map(|b| &b.id);
        let Some(backup) = survey.backups.iter().find(|b| Some(&b.id) == id).cloned() else {
            break (plan, None);
        };
        let damage = damage(cluster, &backup)?;
        if damage.is_empty() {
            break (plan, Some(backup));
        }
        // An older one may do; it is said which one could not.
        let why = damage.join(", ");
        survey.unusable.push(Unusable { id: backup.id.clone(), why, newer: false });
        survey.backups.retain(|b| b.id != backup.id);
    };
    if plan.problems.is_empty() {
        let notes = half_dropped(activities(cluster, &plan)?, &plan);
        plan.notes.extend(notes);
    }
    tell_of(&mut plan, survey.unusable, survey.backups.is_empty());
    plan.problems.extend(backup.iter().flat_map(places));
    let piece = plan.wal.as_ref().map(|wal| wal.last).filter(|last| !survey.archive.has(*last));
    if let Some(segment) = piece {
        match cluster.piece_of(segment) {
            Err(e @ RepositoryError::Damaged { .. }) => plan.problems.push(in_full(&e)),
            other => drop(other?),
        }
    }
    Ok(Prepared { plan, backup, piece })
}

/// What the last two segments of a plan tell of transactions.
fn activities(cluster: &Cluster<'_>, plan: &RestorePlan) -> Result<Vec<Activity>, RepositoryError> {
    let size = cluster.segment_size();
    let Some(last) = plan.wal.as_ref().map(|wal| wal.last) else { return Ok(Vec::new()) };
    let before = last.number(size).and_then(|n| n.checked_sub(1));
    let before = before.map(|number| SegmentName::from_number(last.timeline, number, size));
    let mut activities = Vec::new();
    for segment in before.into_iter().chain([last]) {
        match cluster.wal_summary(WalFileName::Segment(segment)) {
            Ok(summary) => activities.extend(summary.and_then(|s| s.wal).and_then(|wal| wal.activity)),
            // The plan has looked at what it needs; this is only a warning less.
            Err(RepositoryError::Damaged { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(activities.into_iter().flatten().collect())
}

/// Puts the backups that cannot be used into a plan: beside a good one as notes. Where there is a problem
/// already, each may be the reason for it; and a backup that is there is never said not to be.
fn tell_of(plan: &mut RestorePlan, unusable: Vec<Unusable>, none_left: bool) {
    if plan.problems.is_empty() {
        plan.notes.extend(unusable.iter().map(ToString::to_string));
        return;
    }
    let named = unusable.iter().any(|u| Some(&u.id) == plan.wanted.backup.as_ref());
    if named || (none_left && plan.wanted.backup.is_none() && !unusable.is_empty()) {
        plan.problems.clear();
    }
    let said = unusable.iter().filter(|u| !named || Some(&u.id) == plan.wanted.backup.as_ref());
    let said: Vec<String> = said.map(ToString::to_string).collect();
    plan.problems.splice(0..0, said);
    if unusable.iter().any(|u| u.newer) {
        plan.hints.insert(0, "install a newer version of pitr".to_owned());
    }
}

/// Why a backup cannot be restored, as far as that shows without reading all of it.
fn damage(cluster: &Cluster<'_>, backup: &Backup) -> Result<Vec<String>, RepositoryError> {
    let mut damage = cluster.backup_problems(backup)?;
    for proof in [cluster.index(backup).map(drop), cluster.manifest(backup).map(drop)] {
        match proof {
            Err(e @ RepositoryError::Damaged { .. }) => damage.push(in_full(&e)),
            other => other?,
        }
    }
    Ok(damage)
}

/// The repository that serves, out of several.
#[derive(Debug)]
pub struct Served<'c, 'r> {
    /// Where it is.
    pub cluster: &'c Cluster<'r>,
    /// What it offers.
    pub prepared: Prepared,
}

/// Asks every repository, and takes the first whose plan is good; for the latest state the one that reaches
/// furthest. One that cannot be asked (`silent`: its URL and why) is never taken for one that has nothing:
/// where the answer depends on it, the plan has a problem. `Err` where none could be asked.
pub fn prepare_from_any<'c, 'r>(
    clusters: &'c [Cluster<'r>],
    mut silent: Vec<(String, RepositoryError)>,
    wanted: &Wanted,
    places: PlaceProblems<'_>,
) -> Result<Served<'c, 'r>, RepositoryError> {
    let mut served: Vec<Served<'c, 'r>> = Vec::new();
    for cluster in clusters {
        match prepare(cluster, wanted, places) {
            Ok(prepared) => served.push(Served { cluster, prepared }),
            Err(e) => silent.push((cluster.repository().url().to_owned(), e)),
        }
    }
    let all_there_is = wanted.target == Target::Latest && !wanted.standby;
    // The first of several equals, so from the back.
    let best = served.into_iter().rev().max_by_key(|s| {
        let plan = &s.prepared.plan;
        let end = plan.stop.as_ref().filter(|_| all_there_is).map(|stop| stop.at);
        (plan.problems.is_empty(), end)
    });
    let Some(mut best) = best else {
        return match silent.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Err(RepositoryError::Empty { url: String::new() }),
        };
    };
    let plan = &mut best.prepared.plan;
    let fine = plan.problems.is_empty() && !all_there_is;
    for (url, error) in silent {
        let line = format!("{url} cannot be asked: {}", in_full(&error));
        if fine {
            plan.notes.push(line);
            continue;
        }
        // What is not here may be there.
        plan.problems.push(line);
        plan.hints.push(format!("--repository {} does without the other", best.cluster.repository().url()));
    }
    Ok(best)
}
