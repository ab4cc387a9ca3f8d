//! The plan of a restore with everything that can stand in its way: WAL, backup, and the places to write to.

use super::survey::{ArchivedWal, Survey, in_full};
use crate::plan::{RestorePlan, Target, Wanted, plan};
use crate::repository::backup_set::format::Backup;
use crate::repository::{Cluster, RepositoryError};
use crate::types::SegmentName;

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
    let mut wal = ArchivedWal::new(cluster);
    let (mut plan, backup) = loop {
        let plan = plan(&survey.archive, &survey.facts(), wanted, &mut wal)?;
        let id = plan.backup.as_ref().map(|b| &b.id);
        let Some(backup) = survey.backups.iter().find(|b| Some(&b.id) == id).cloned() else {
            break (plan, None);
        };
        let damage = damage(cluster, &backup)?;
        if damage.is_empty() {
            break (plan, Some(backup));
        }
        // An older one may do; it is said which one could not.
        survey.unreadable.push(format!("backup {} cannot be used: {}", backup.id, damage.join(", ")));
        survey.backups.retain(|b| b.id != backup.id);
    };
    for line in survey.unreadable {
        let named = wanted.backup.as_ref().is_some_and(|id| line.contains(id.as_str()));
        if named || backup.is_none() { plan.problems.insert(0, line) } else { plan.notes.push(line) }
    }
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
