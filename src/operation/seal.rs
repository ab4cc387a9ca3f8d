//! Sealing: a roll-up for each LOG of WAL that is complete and has none yet.
//!
//! For commands that have the time, never for a hook. Nothing depends on it being done: what is not sealed is
//! listed.

use crate::repository::{Cluster, RepositoryError};

/// Seals the complete LOGs of all timelines, the newest first: those are looked at most. `go_on` is asked
/// before each, because an archive that was never sealed has many. How many roll-ups are new.
pub fn seal_complete(cluster: &Cluster<'_>, go_on: &dyn Fn() -> bool) -> Result<u64, RepositoryError> {
    let mut sealed = cluster.rollups()?;
    let mut new = 0;
    for timeline in cluster.timelines()?.into_iter().rev() {
        let known = sealed.remove(&timeline).unwrap_or_default();
        for log in cluster.to_be_sealed(timeline, &known)?.into_iter().rev() {
            if !go_on() {
                return Ok(new);
            }
            if let crate::repository::rollup::Sealed::New(_) = cluster.seal(timeline, log)? {
                new += 1;
            }
        }
    }
    Ok(new)
}
