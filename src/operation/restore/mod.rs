//! `restore`: prove the plan, then touch.

mod destination;
mod write;

pub use destination::target_problems;
pub use write::{RestoreError, restore};

use crate::repository::backup_set::format::Backup;
use crate::repository::{Cluster, RepositoryError};
use crate::types::SegmentName;

/// The segments from a backup's start on, as far as they follow each other, and what is missing before its
/// stop. Only the backup's own timeline is looked at.
pub fn coverage(
    cluster: &Cluster<'_>,
    backup: &Backup,
) -> Result<(Vec<SegmentName>, Vec<String>), RepositoryError> {
    let size = cluster.segment_size();
    let have = cluster.segments(backup.stop_timeline)?;
    let first = SegmentName::holding(backup.timeline, backup.start_lsn, size);
    let last = SegmentName::holding(
        backup.stop_timeline,
        crate::types::Lsn(backup.stop_lsn.0.saturating_sub(1)),
        size,
    );
    let (mut run, mut missing) = (Vec::new(), Vec::new());
    let mut next = SegmentName { timeline: backup.stop_timeline, ..first };
    loop {
        if have.binary_search(&next).is_ok() {
            run.push(next);
        } else if next <= last {
            missing.push(format!("WAL segment {next}, which the backup needs, is not in the archive"));
        } else {
            break;
        }
        match next.next(size) {
            Some(following) => next = following,
            None => break,
        }
    }
    Ok((run, missing))
}
