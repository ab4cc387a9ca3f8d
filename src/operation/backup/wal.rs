//! The WAL that a backup cannot do without, and waiting for it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::destinations::Destinations;
use super::primary::Nudge;
use super::source::runtime;
use super::{BackupError, Monitor};
use crate::operation::in_full::in_full;
use crate::pgdata::backup_manifest::WalRange;
use crate::postgres::ConnInfo;
use crate::postgres::sql::{ArchiverStats, SqlClient};
use crate::repository::wal_archive::StoredWal;
use crate::repository::{Cluster, RepositoryError};
use crate::types::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};

/// A segment, and up to where it must be readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) segment: SegmentName,
    pub(super) up_to: Lsn,
}

/// The segments, in order: for each number, the name on the latest timeline that needs it, because a
/// segment in which a timeline was left is complete only under the next one's name.
pub(super) fn needs(ranges: &[WalRange], size: SegmentSize) -> Vec<Need> {
    let mut needed: BTreeMap<u64, (TimelineId, Lsn)> = BTreeMap::new();
    for range in ranges {
        let last = size.number_of(Lsn(range.end.0.saturating_sub(1)));
        for number in size.number_of(range.start)..=last {
            let end = Lsn(range.end.0.min((number + 1) * size.bytes()));
            let (timeline, up_to) = needed.entry(number).or_insert((range.timeline, end));
            *timeline = range.timeline.max(*timeline);
            *up_to = end.max(*up_to);
        }
    }
    let need = |(number, (timeline, up_to))| Need {
        segment: SegmentName::from_number(timeline, number, size),
        up_to,
    };
    needed.into_iter().map(need).collect()
}

/// How long to wait, and who can be asked meanwhile.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    pub(super) limit: Duration,
    pub(super) nudge: Nudge<'a>,
    /// To the server, for a look at its archiver.
    pub(super) connection: &'a ConnInfo,
    pub(super) size: SegmentSize,
}

/// Waits until every segment is in every repository and says of itself that it can be read as far as the
/// backup needs it.
pub(super) fn wait(
    destinations: &Destinations<'_>,
    needs: &[Need],
    patience: &Patience<'_>,
    monitor: &dyn Monitor,
) -> Result<(), BackupError> {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);
    let end = needs.last().and_then(|n| n.segment.next(patience.size)?.start(patience.size));
    let mut waited = Duration::ZERO;
    let mut nudged = false;
    destinations.each(|cluster| {
        let url = cluster.repository().url();
        for need in needs {
            let mut step = FIRST;
            let mut said = false;
            loop {
                let found = match look(cluster, *need)? {
                    Found::Enough => break,
                    Found::NotYet(found) => found,
                    Found::Damaged(damage) => {
                        let (segment, url) = (need.segment.to_string(), url.to_owned());
                        return Err(BackupError::WalDamaged { segment, url, damage });
                    }
                };
                if !nudged && waited > FIRST {
                    nudged = true;
                    patience.nudge.give(end, monitor);
                }
                if waited >= patience.limit {
                    return Err(BackupError::WalMissing {
                        segment: need.segment.to_string(),
                        url: url.to_owned(),
                        found,
                        archiver: archiver(patience.connection),
                        seconds: patience.limit.as_secs(),
                    });
                }
                if !said && waited > FIRST * 10 {
                    said = true;
                    monitor.waiting(need.segment, url, matches!(patience.nudge, Nudge::Nobody));
                }
                std::thread::sleep(step);
                waited += step;
                step = (step * 3 / 2).min(LONGEST);
            }
        }
        Ok(())
    })
}

enum Found {
    Enough,
    /// What there is of it, with a verb.
    NotYet(String),
    Damaged(String),
}

/// The best of all copies, as their summaries tell. Longer siblings stand beside a first copy only, so that
/// nothing under the first name is nothing at all.
fn look(cluster: &Cluster<'_>, need: Need) -> Result<Found, RepositoryError> {
    let first = cluster.layout().segment(need.segment);
    let mut best = match judge(cluster, &first, need)? {
        None => return Ok(Found::NotYet("does not have".to_owned())),
        Some(Found::Enough) => return Ok(Found::Enough),
        Some(found) => found,
    };
    for copy in cluster.wal_copies(WalFileName::Segment(need.segment))? {
        match judge(cluster, &copy, need)? {
            Some(Found::Enough) => return Ok(Found::Enough),
            // Something that can still be completed says more than something broken.
            Some(found @ Found::NotYet(_)) => best = found,
            Some(Found::Damaged(_)) | None => {}
        }
    }
    Ok(best)
}

fn judge(cluster: &Cluster<'_>, copy: &str, need: Need) -> Result<Option<Found>, RepositoryError> {
    let stored = match StoredWal::open(cluster.storage(), copy, false) {
        Ok(Some(stored)) => stored,
        Ok(None) => return Ok(None),
        Err(e @ RepositoryError::Damaged { .. }) => return Ok(Some(Found::Damaged(in_full(&e)))),
        Err(e) => return Err(e),
    };
    let summary = stored.summary();
    if summary.name != need.segment.to_string() {
        return Ok(Some(Found::Damaged(format!("it says that it holds {}", summary.name.escape_debug()))));
    }
    let Some(wal) = &summary.wal else {
        return Ok(Some(Found::Damaged("its summary says nothing about its records".to_owned())));
    };
    Ok(Some(match (&wal.damage, wal.cut_off_at) {
        (Some(damage), _) if wal.end_of_valid < need.up_to => Found::Damaged(damage.clone()),
        (_, Some(end)) if end < need.up_to => Found::NotYet(format!("has only up to {end}")),
        _ => Found::Enough,
    }))
}

/// What the server says about its archiver; nothing where SQL is not allowed to this role.
fn archiver(connection: &ConnInfo) -> String {
    match archiver_stats(connection) {
        Ok(stats) if stats.failing => format!("; {}", fails(&stats)),
        Ok(stats) => match stats.last_archived {
            Some(last) => format!("; the server says that it has archived {last}"),
            None => "; the server says that it has archived nothing".to_owned(),
        },
        Err(_) => String::new(),
    }
}

/// Whether the last thing that the server's archiver has done was to fail, in words.
pub(super) fn archiver_fails(connection: &ConnInfo) -> Option<String> {
    archiver_stats(connection).ok().filter(|stats| stats.failing).map(|stats| fails(&stats))
}

fn fails(stats: &ArchiverStats) -> String {
    let last = stats.last_failed.as_deref().unwrap_or_default();
    format!("the server's archiver fails: {} failures, the last with {last}", stats.failed)
}

fn archiver_stats(connection: &ConnInfo) -> Result<ArchiverStats, BackupError> {
    let asked = async {
        let mut sql = SqlClient::connect(connection).await?;
        let stats = sql.archiver().await?;
        sql.close().await;
        Ok::<_, crate::postgres::PostgresError>(stats)
    };
    Ok(runtime()?.block_on(asked)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_in_which_the_timeline_changed_is_needed_under_the_later_name() {
        let range = |timeline, start, end| WalRange {
            timeline: TimelineId(timeline),
            start: Lsn(start),
            end: Lsn(end),
        };
        let needs = needs(
            &[range(1, 0x200_0028, 0x450_0000), range(2, 0x450_0000, 0x580_0000)],
            SegmentSize::DEFAULT,
        );
        let needs: Vec<(String, u64)> = needs.iter().map(|n| (n.segment.to_string(), n.up_to.0)).collect();
        assert_eq!(
            needs,
            [
                ("000000010000000000000002".to_owned(), 0x300_0000),
                ("000000010000000000000003".to_owned(), 0x400_0000),
                ("000000020000000000000004".to_owned(), 0x500_0000),
                ("000000020000000000000005".to_owned(), 0x580_0000),
            ]
        );
    }
}
