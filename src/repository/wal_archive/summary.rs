use serde::{Deserialize, Serialize};

use crate::types::{Lsn, Moment, SystemId, TimelineId};
use crate::wal::SegmentScan;

/// What a segment holds, as the scan at push time saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalContent {
    /// From the long page header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<SystemId>,
    /// The timeline on the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<TimelineId>,
    /// Where the first record starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_record: Option<Lsn>,
    /// Where the last record starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_record: Option<Lsn>,
    /// Behind the last valid record.
    pub end_of_valid: Lsn,
    /// Set where the segment is undamaged and its records end before it does: a cut-off copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off_at: Option<Lsn>,
    /// How many records.
    pub records: u64,
    /// How many commits.
    pub commits: u64,
    /// How many aborts.
    pub aborts: u64,
    /// The earliest and the latest commit or abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<(Moment, Moment)>,
    /// The latest moment that any record carries: a commit or abort, a restore point, a checkpoint (to the
    /// second, rounded down), an end of recovery. Nothing earlier is missing before the segment's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Restore points, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore_points: Vec<NamedPoint>,
    /// What is broken, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    /// Why nothing behind the first page's header was read: then `end_of_valid` is the segment's start, and
    /// all that counts records is zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_checked: Option<String>,
}

/// A restore point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPoint {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub time: Moment,
    /// Where its record starts.
    pub lsn: Lsn,
}

impl From<&SegmentScan> for WalContent {
    fn from(scan: &SegmentScan) -> Self {
        Self {
            system_identifier: scan.header.as_ref().map(|h| h.system_id),
            timeline: scan.header.as_ref().map(|h| h.timeline),
            first_record: scan.first_record,
            last_record: scan.last_record,
            end_of_valid: scan.end_of_valid,
            cut_off_at: scan.cut_off_at(),
            records: scan.records,
            commits: scan.commits,
            aborts: scan.aborts,
            times: scan.time_span,
            until: latest(scan),
            restore_points: scan
                .restore_points
                .iter()
                .map(|p| NamedPoint { name: p.name.clone(), time: p.time, lsn: p.lsn })
                .collect(),
            damage: scan.damage.map(|damage| damage.to_string()),
            not_checked: scan
                .newer_magic()
                .map(|magic| format!("its page magic {:04X} is newer than this version knows", magic.0)),
        }
    }
}

fn latest(scan: &SegmentScan) -> Option<Moment> {
    let transactions = scan.time_span.map(|(_, latest)| latest);
    let points = scan.restore_points.iter().map(|p| p.time);
    let checkpoints = scan.checkpoints.iter().map(|c| c.time);
    let changes = scan.timeline_changes.iter().map(|c| c.time);
    transactions.into_iter().chain(points).chain(checkpoints).chain(changes).max()
}
