//! The WAL that a backup cannot do without, and waiting for it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::{BackupError, Monitor, Target};
use crate::pgdata::backup_manifest::WalRange;
use crate::postgres::ConnInfo;
use crate::postgres::sql::SqlClient;
use crate::types::{SegmentName, SegmentSize, SystemId, TimelineId};

/// The segments, in order: for each number, the name on the latest timeline that needs it, because a
/// segment in which a timeline was left is complete only under the next one's name.
pub(super) fn segments(ranges: &[WalRange], size: SegmentSize) -> Vec<SegmentName> {
    let mut needed: BTreeMap<u64, TimelineId> = BTreeMap::new();
    for range in ranges {
        let last = size.number_of(crate::types::Lsn(range.end.0.saturating_sub(1)));
        for number in size.number_of(range.start)..=last {
            let timeline = needed.entry(number).or_insert(range.timeline);
            *timeline = range.timeline.max(*timeline);
        }
    }
    needed.into_iter().map(|(number, timeline)| SegmentName::from_number(timeline, number, size)).collect()
}

/// What can be done so that the last segment ends.
pub(super) enum Nudge<'a> {
    /// The server that was backed up is a primary: it has ended the segment itself.
    NotNeeded,
    /// A standby's primary.
    Primary(&'a ConnInfo),
    /// A standby, and nobody to ask.
    Nobody,
}

/// Waits until every segment is in the repository; says what it waits for.
pub(super) fn wait(
    target: Target<'_>,
    segments: &[SegmentName],
    size: SegmentSize,
    nudge: &Nudge<'_>,
    system: SystemId,
    limit: Duration,
    monitor: &dyn Monitor,
) -> Result<(), BackupError> {
    const STEP: Duration = Duration::from_millis(250);
    let mut waited = Duration::ZERO;
    let mut nudged = false;
    for segment in segments {
        let name = target.layout.segment(*segment);
        let mut said = false;
        while target.storage.size(&name)?.is_none() {
            if !nudged && waited > STEP {
                nudged = true;
                if let Nudge::Primary(info) = nudge {
                    switch(info, segments.last().copied(), size, system, monitor)?;
                }
            }
            if waited >= limit {
                return Err(BackupError::WalMissing {
                    segment: segment.to_string(),
                    seconds: limit.as_secs(),
                });
            }
            if !said && waited > STEP * 4 {
                said = true;
                monitor.waiting(*segment, matches!(nudge, Nudge::Nobody));
            }
            std::thread::sleep(STEP);
            waited += STEP;
        }
    }
    Ok(())
}

/// Ends the primary's segment where it is still the one that is needed.
fn switch(
    info: &ConnInfo,
    last: Option<SegmentName>,
    size: SegmentSize,
    system: SystemId,
    monitor: &dyn Monitor,
) -> Result<(), BackupError> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut sql = SqlClient::connect(info).await?;
        let found = sql.system_id().await?;
        if found != system {
            return Err(BackupError::OtherSystem { what: "primary", expected: system, found });
        }
        if sql.is_in_recovery().await? {
            return Err(BackupError::Setting("the server given as primary is a standby".to_owned()));
        }
        let end = last.and_then(|s| s.next(size)).and_then(|s| s.start(size));
        if end.is_some_and(|end| end.0 > 0) && Some(sql.wal_position().await?) < end {
            if sql.may_switch_wal().await? {
                sql.switch_wal().await?;
            } else {
                monitor.warning(
                    "the role may not call pg_switch_wal() on the primary: the last segment ends when it is full",
                );
            }
        }
        sql.close().await;
        Ok(())
    })
}

/// A runtime for one connection.
pub(super) fn runtime() -> Result<Runtime, BackupError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BackupError::local("start the network runtime"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Lsn;

    #[test]
    fn a_segment_in_which_the_timeline_changed_is_needed_under_the_later_name() {
        let range = |timeline, start, end| WalRange {
            timeline: TimelineId(timeline),
            start: Lsn(start),
            end: Lsn(end),
        };
        let names = segments(
            &[range(1, 0x200_0028, 0x450_0000), range(2, 0x450_0000, 0x600_0000)],
            SegmentSize::DEFAULT,
        );
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "000000010000000000000002",
                "000000010000000000000003",
                "000000020000000000000004",
                "000000020000000000000005"
            ]
        );
    }
}
