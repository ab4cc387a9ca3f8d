use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Lsn, Moment, SystemId, TimelineId};
use crate::wal::{Activity, Magic, Rest, SegmentScan, Unfinished};

/// What a segment holds, as the scan at push time saw it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// The first commit or abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_transaction: Option<EndedTransaction>,
    /// The last commit or abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transaction: Option<EndedTransaction>,
    /// The lowest and the highest number of the transactions that ended, in circular order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xids: Option<(u32, u32)>,
    /// A number that no transaction had yet: none so high, or higher, has a record before this segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_xid: Option<u32>,
    /// Records by resource manager, as `pg_waldump` calls them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, u64>,
    /// Where timelines began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timelines: Vec<TimelineBegin>,
    /// Changes of settings that recovery depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<ParameterChange>,
    /// How many restore points, beginnings of timelines and changes of settings did not fit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_listed: u64,
    /// The number on every page, which names the server's major and with it the form of its records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_magic: Option<u16>,
    /// What transactions did, as far as it is worth telling; `None` where that was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<Vec<Activity>>,
    /// How often something did not fit into `activity`: then only the segment itself tells all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub activity_left_out: u64,
    /// The rest of a record that began in the segment before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<Rest>,
    /// The beginning of a record that ends in the next segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Unfinished>,
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

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedTransaction {
    /// Where its record starts.
    pub lsn: Lsn,
    /// Its number.
    pub xid: u32,
    /// When.
    pub time: Moment,
    /// Whether it was a commit.
    pub commit: bool,
}

/// The beginning of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineBegin {
    /// Where the record starts that tells of it.
    pub lsn: Lsn,
    /// When.
    pub time: Moment,
    /// The new timeline.
    pub timeline: TimelineId,
    /// The one that was left.
    pub previous: TimelineId,
}

/// Settings that recovery depends on, from a record on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterChange {
    /// Where the record starts.
    pub lsn: Lsn,
    /// `wal_level`
    pub wal_level: WalLevel,
    /// `max_connections`
    pub max_connections: u32,
    /// `max_worker_processes`
    pub max_worker_processes: u32,
    /// `max_wal_senders`
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`
    pub max_locks_per_transaction: u32,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalLevel {
    /// Too little: recovery cannot pass over it.
    Minimal,
    /// Enough for recovery.
    Replica,
    /// More, for logical decoding.
    Logical,
}

impl From<&crate::wal::ParameterChange> for ParameterChange {
    fn from(change: &crate::wal::ParameterChange) -> Self {
        let values = &change.values;
        Self {
            lsn: change.lsn,
            wal_level: match values.wal_level {
                0 => WalLevel::Minimal,
                1 => WalLevel::Replica,
                _ => WalLevel::Logical,
            },
            max_connections: values.max_connections,
            max_worker_processes: values.max_worker_processes,
            max_wal_senders: values.max_wal_senders,
            max_prepared_transactions: values.max_prepared_transactions,
            max_locks_per_transaction: values.max_locks_per_transaction,
        }
    }
}

impl From<&crate::wal::Transaction> for EndedTransaction {
    fn from(transaction: &crate::wal::Transaction) -> Self {
        let crate::wal::Transaction { lsn, xid, time, commit } = *transaction;
        Self { lsn, xid, time, commit }
    }
}

impl WalContent {
    /// The format of the segment's pages.
    pub fn magic(&self) -> Option<Magic> {
        self.page_magic.map(Magic)
    }
}

/// A zero is not worth its bytes.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
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
            first_transaction: scan.first_transaction.as_ref().map(EndedTransaction::from),
            last_transaction: scan.last_transaction.as_ref().map(EndedTransaction::from),
            xids: scan.xids,
            next_xid: scan.next_xid,
            kinds: scan.kinds.iter().cloned().collect(),
            timelines: scan
                .timeline_changes
                .iter()
                .map(|c| TimelineBegin {
                    lsn: c.lsn,
                    time: c.time,
                    timeline: c.timeline,
                    previous: c.previous,
                })
                .collect(),
            parameters: scan.parameters.iter().map(ParameterChange::from).collect(),
            not_listed: scan.not_listed,
            page_magic: scan.header.as_ref().map(|header| header.magic.0),
            activity: scan.newer_magic().is_none().then(|| scan.activities.clone()),
            activity_left_out: scan.activities_left_out,
            rest: scan.rest.clone(),
            unfinished: scan.unfinished.clone(),
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
