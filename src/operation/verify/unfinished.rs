//! Backups that were begun and are not there: at work still, or garbage.

use super::problem::{About, Found, Kind};
use crate::repository::backup_set::format::Started;
use crate::repository::{Cluster, RepositoryError};
use crate::types::{BackupId, Moment};

/// What this host knows of processes and time.
pub struct Lives<'a> {
    /// Now.
    pub now: Moment,
    /// This host's name.
    pub host: &'a str,
    /// Whether a process of this host is there.
    pub alive: &'a dyn Fn(u32) -> bool,
}

impl std::fmt::Debug for Lives<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lives").field("now", &self.now).field("host", &self.host).finish_non_exhaustive()
    }
}

/// Of a backup on another host nobody here knows whether it still runs; after a day it hardly does.
const LONGEST: i64 = 24 * 3600;

/// Index and manifest are written when all parts are there.
fn looks_whole(cluster: &Cluster<'_>, id: &BackupId) -> Result<bool, RepositoryError> {
    let (storage, layout) = (cluster.storage(), cluster.layout());
    Ok(storage.size(&layout.files(id))?.is_some() && storage.size(&layout.manifest(id))?.is_some())
}

/// Says whether a backup without its last write is a problem.
pub(super) fn judge_unfinished(
    cluster: &Cluster<'_>,
    id: &BackupId,
    lives: &Lives<'_>,
    found: &mut Found,
) -> Result<(), RepositoryError> {
    let name = cluster.layout().started(id);
    let folder = cluster.layout().backup(id);
    let started: Option<Started> =
        cluster.storage().read(&name)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if cluster.storage().size(&cluster.layout().backup_descriptor(id))?.is_some() {
        // It ended between two looks.
        return Ok(());
    }
    let gone = match &started {
        None => Some("and nothing says who began it".to_owned()),
        Some(by) if by.host == lives.host => {
            (!(lives.alive)(by.pid)).then(|| format!("process {} of this host began it, and is gone", by.pid))
        }
        Some(by) => {
            let age = lives.now.0.duration_since(by.start_time.0).as_secs();
            (age > LONGEST)
                .then(|| format!("process {} of {} began it at {}", by.pid, by.host, by.start_time))
        }
    };
    match (gone, started) {
        (Some(why), _) if looks_whole(cluster, id)? => {
            found.add(
                Kind::Leftover,
                &folder,
                format!("everything of a backup but its backup.json is there: it was never finished, or has lost that ({why})"),
                "is its backup.json in another repository? copy it here; remove the folder only if the backup is known to have failed",
                About::Nothing,
            );
            let lost = format!("every restore from backup {id}, if it was finished");
            found.findings.last_mut().into_iter().for_each(|f| f.problem.lost.push(lost.clone()));
        }
        (Some(why), _) => found.add(
            Kind::Leftover,
            &folder,
            format!("a backup that was begun and never finished: {why}"),
            "when its process is gone, its folder may be removed",
            About::Nothing,
        ),
        (None, Some(by)) => found.notes.push(format!(
            "backup {id} is not finished: process {} of {} is at it since {}",
            by.pid, by.host, by.start_time
        )),
        (None, None) => {}
    }
    Ok(())
}
