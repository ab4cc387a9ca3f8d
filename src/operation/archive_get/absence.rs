//! That a file is nowhere, found out by a process that keeps its connections.
//!
//! The steps and the rules are those of [`archive_get`](super::archive_get), which asks one thing after the other in a
//! process of its own, and needs a third of a second for it with a store that is not far: a server asks some six times
//! in each recovery for what is not there. Here nothing is fetched, and what can be asked at the same time is.

use std::path::Path;
use std::thread::ScopedJoinHandle;

use super::{GetOptions, cluster_of};
use crate::operation::data_directory::{has_whole, opens_at_the_end};
use crate::repository::{Bound, Repository, RepositoryError, SystemIdentity};
use crate::types::{Lsn, SegmentName, WalFileName};

/// The least that is asked for of an object that is expected not to be there. Bytes.
const FIRST_BYTES: u64 = 16 << 10;

/// Whether a server to which `file` is said to be absent would open without what comes behind it: the segment, and where
/// it begins.
pub(super) fn gap_would_be_lost(
    file: WalFileName,
    own: SystemIdentity,
    data_directory: &Path,
) -> Option<(SegmentName, Lsn)> {
    let WalFileName::Segment(missing) = file else { return None };
    let from = missing.start(own.segment_size).filter(|_| opens_at_the_end(data_directory))?;
    (!has_whole(data_directory, missing, own.segment_size)).then_some((missing, from))
}

/// Whether a repository, opened just now, is the right one, has no copy of `file`, and nothing behind it that would be
/// lost. Any copy, whole or not, means `false`, and so does a gap: those are for [`archive_get`](super::archive_get) to
/// judge. `bound` says where the cluster was found before; that it is still there is looked at with the rest.
pub(super) fn is_absent_from(
    repository: &Repository,
    bound: &Bound,
    file: WalFileName,
    own: SystemIdentity,
    data_directory: &Path,
    options: &GetOptions,
) -> Result<bool, RepositoryError> {
    let gap = gap_would_be_lost(file, own, data_directory).map(|(missing, _)| missing);
    let cluster = &repository.bound(bound);
    let (still, first, copies, behind) = std::thread::scope(|scope| {
        let still =
            scope.spawn(|| Ok(cluster_of(repository, Some(own), options)?.epoch() == cluster.epoch()));
        let first = scope.spawn(|| Ok(cluster.first_copy(file, FIRST_BYTES)?.is_none()));
        let copies = scope.spawn(|| Ok(cluster.wal_copies(file)?.is_empty()));
        let behind = gap.map_or(Ok(true), |missing| cluster.gap_at(missing).map(|more| more.is_none()));
        (answer(still), answer(first), answer(copies), behind)
    });
    // All of them before any is believed: an error is never absence.
    let (still, first, copies, behind) = (still?, first?, copies?, behind?);
    Ok(still && first && copies && behind)
}

fn answer(asked: ScopedJoinHandle<'_, Result<bool, RepositoryError>>) -> Result<bool, RepositoryError> {
    asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
