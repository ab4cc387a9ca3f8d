//! What is kept of the cluster: whose it is, whether there is a backup, and whether its WAL is all there.

use super::{Finding, unusable};
use crate::repository::backup_set::format::{Backup, Status};
use crate::repository::layout::ClusterName;
use crate::repository::{Cluster, Repository, RepositoryError};
use crate::types::{SegmentName, SystemId};

const CLUSTER: &str = "cluster";
const BACKUP: &str = "backup";
const UNFINISHED: &str = "unfinished backups";
const GAPS: &str = "WAL without gaps";
const CONFLICTS: &str = "refused files";

/// Looks at the cluster in a repository. `system` is the server's, where one could be asked.
pub fn check_archive(
    repository: &Repository,
    name: &ClusterName,
    system: Option<SystemId>,
    advice: &dyn Fn(&RepositoryError) -> Option<String>,
) -> Vec<Finding> {
    let cluster = match repository.cluster(name, system) {
        Ok(cluster) => cluster,
        Err(error) => return vec![unusable(CLUSTER, &error, advice)],
    };
    let identity = cluster.identity().system_identifier;
    let seen = format!("\"{name}\" is bound to system identifier {identity}");
    let mut findings = vec![Finding::ok(CLUSTER, seen)];
    let backups = match cluster.backups() {
        Ok(backups) => backups,
        Err(error) => {
            findings.push(unusable(BACKUP, &error, advice));
            return findings;
        }
    };
    let newest = backups.iter().rfind(|b| b.status == Status::Complete);
    findings.push(backup(&backups, newest));
    findings.push(unfinished(&cluster).unwrap_or_else(|error| unusable(UNFINISHED, &error, advice)));
    if let Some(newest) = newest {
        findings.push(gaps(&cluster, newest).unwrap_or_else(|error| unusable(GAPS, &error, advice)));
    }
    findings.push(conflicts(&cluster).unwrap_or_else(|error| unusable(CONFLICTS, &error, advice)));
    findings
}

fn backup(backups: &[Backup], newest: Option<&Backup>) -> Finding {
    match (newest, backups.last()) {
        (Some(newest), Some(last)) if last.id != newest.id => Finding::problem(
            BACKUP,
            format!("the newest, {}, is marked as damaged; the one before is {}", last.id, newest.id),
            "repair what the server reported (its log names the files), and run pitr backup",
        ),
        (Some(newest), _) => Finding::ok(BACKUP, format!("{} is the newest of {}", newest.id, backups.len())),
        (None, Some(last)) => Finding::problem(
            BACKUP,
            format!("{} is marked as damaged, and there is no other", last.id),
            "repair what the server reported (its log names the files), and run pitr backup",
        ),
        (None, None) => Finding::problem(BACKUP, "there is none: nothing can be restored", "run pitr backup"),
    }
}

/// What runs still and what failed look the same from here; neither is in the way of anything.
fn unfinished(cluster: &Cluster<'_>) -> Result<Finding, RepositoryError> {
    let unfinished = cluster.unfinished_backups()?;
    Ok(match unfinished.last() {
        None => Finding::ok(UNFINISHED, "none"),
        Some((id, started)) => {
            let by = started.as_ref().map_or_else(String::new, |started| {
                format!(", begun by process {} on {}", started.pid, started.host)
            });
            let seen = format!("{}; the newest is {id}{by}", unfinished.len());
            Finding::ok(UNFINISHED, seen).with_advice(
                "once its process is gone this is garbage: its folder, without backup.json, may be removed",
            )
        }
    })
}

/// Missing segments from the newest backup on, on its timeline and on later ones.
fn gaps(cluster: &Cluster<'_>, newest: &Backup) -> Result<Finding, RepositoryError> {
    let size = cluster.segment_size();
    let start = SegmentName::holding(newest.timeline, newest.start_lsn, size);
    let from = start.number(size).unwrap_or(0);
    let mut missing = Vec::new();
    let mut last = None;
    for timeline in cluster.timelines()?.into_iter().filter(|t| *t >= newest.timeline) {
        let listing = cluster.list_from(timeline, start.log)?;
        // The backup's own first segment must be there; a later timeline begins where it begins.
        let mut expected = (timeline == newest.timeline).then_some(from);
        for run in listing.segments.runs().iter().filter(|run| run.end > from) {
            let begin = run.start.max(from);
            if let Some(first) = expected.filter(|first| *first < begin) {
                let first = SegmentName::from_number(timeline, first, size);
                missing.push((first, SegmentName::from_number(timeline, begin - 1, size)));
            }
            expected = Some(run.end);
            last = Some(SegmentName::from_number(timeline, run.end - 1, size));
        }
    }
    Ok(match (missing.first(), last) {
        (Some((first, to)), _) => Finding::problem(
            GAPS,
            format!(
                "{first} to {to} are missing ({} gaps): nothing after them can be restored",
                missing.len()
            ),
            "are they still in pg_wal, or in another repository? else run pitr backup: a new window begins with it",
        ),
        (None, Some(last)) => Finding::ok(GAPS, format!("{start} to {last} are all there")),
        (None, None) => Finding::problem(
            GAPS,
            format!("{start}, with which backup {} begins, is missing", newest.id),
            "run pitr backup: this one cannot be restored",
        ),
    })
}

/// Files that were refused and that no operator has decided about.
fn conflicts(cluster: &Cluster<'_>) -> Result<Finding, RepositoryError> {
    let folder = cluster.layout().conflicts();
    let (mut kept, mut discarded) = (Vec::new(), Vec::new());
    cluster.storage().list(&folder, None, &mut |object| {
        let last = object.name.strip_prefix(&folder).unwrap_or_default();
        if let Some(stem) = last.strip_suffix(".discarded.json") {
            discarded.push(stem.to_owned());
        } else if let Some(stem) = last.strip_suffix(".zst") {
            kept.push(stem.to_owned());
        }
    })?;
    kept.retain(|stem| !discarded.contains(stem));
    Ok(match kept.first() {
        None => Finding::ok(CONFLICTS, "none"),
        Some(first) => {
            let (file, digest) = first.rsplit_once('.').unwrap_or((first, ""));
            Finding::problem(
                CONFLICTS,
                format!("{} wait for a decision, the first is {file}", kept.len()),
                format!(
                    "are two servers archiving to this cluster? pitr repo resolve {file} --discard {digest} drops it"
                ),
            )
        }
    })
}
