//! Collecting activities while records go by, in constant memory and little time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use super::in_place::{InPlace, PG_DATABASE};
use super::{Activity, CreatedFile, DroppedDatabase, End, FileRows};
use crate::types::Lsn;
use crate::wal::block::{first_file, main_data};
use crate::wal::ending::{Ending, FileNode};
use crate::wal::le::u32_at;
use crate::wal::page::Magic;
use crate::wal::record::{HEADER, RecordHeader, kind};

/// Flags of a deletion's record (`XLH_DELETE_*` in `heapam_xlog.h`).
const DELETE_IS_SUPER: u8 = 1 << 3;
const DELETE_IS_PARTITION_MOVE: u8 = 1 << 4;

/// `INIT_FORKNUM` in `relpath.h`.
const INIT_FORK: u32 = 3;

/// How much is kept. What does not fit is counted as left out.
#[derive(Debug, Clone, Copy)]
pub(in crate::wal) struct Limits {
    /// Activities in the end.
    listed: usize,
    /// A transaction that ended within the segment and changed fewer rows is not listed for them.
    rows: u64,
    /// Transactions that are followed at one time.
    open: usize,
    /// Files of one transaction.
    files: usize,
    /// Items of a commit's lists.
    items: usize,
}

impl Limits {
    /// For the summary that goes into every object.
    pub(in crate::wal) const SUMMARY: Self = Self { listed: 64, rows: 16, open: 4096, files: 64, items: 64 };
    /// For a reader who wants everything there is.
    pub(in crate::wal) const EVERYTHING: Self =
        Self { listed: usize::MAX, rows: 0, open: usize::MAX, files: usize::MAX, items: usize::MAX };
}

/// Transaction numbers are small and dense: one multiplication spreads them well enough.
#[derive(Debug, Default)]
struct XidHasher(u64);

impl Hasher for XidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

/// The activities of a segment, as its records go by.
#[derive(Debug)]
pub(in crate::wal) struct Collector {
    limits: Limits,
    /// In boxes: the map moves what it holds, and an activity is hundreds of bytes.
    open: HashMap<u32, Box<Activity>, BuildHasherDefault<XidHasher>>,
    /// Emptied ones, so that a segment of ten thousand small transactions makes a handful of allocations.
    #[expect(clippy::vec_box, reason = "they go into the map as they are")]
    spare: Vec<Box<Activity>>,
    /// How many of the open ones made a file: only then is it looked at which files other records change.
    creating: usize,
    in_place: InPlace,
    listed: Vec<Activity>,
    left_out: u64,
}

impl Collector {
    pub(in crate::wal) fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: HashMap::default(),
            spare: Vec::new(),
            creating: 0,
            in_place: InPlace::default(),
            listed: Vec::new(),
            left_out: 0,
        }
    }

    /// Looks at an intact record that ends no transaction. `body` is whole, or cut off behind the part that a
    /// split record keeps.
    pub(in crate::wal) fn record(&mut self, lsn: Lsn, header: &RecordHeader, body: &[u8], magic: Magic) {
        if header.rmid == kind::HEAP
            && header.info & 0x70 == 0x70
            && let Some(data) = whole_data(header, body, magic)
        {
            self.in_place.changed(body, data, header.prev, magic);
        }
        if header.xid == 0 {
            return;
        }
        match (header.rmid, header.info & 0x70) {
            (kind::HEAP, 0x10 | 0x20 | 0x40) => self.row(header, body, magic),
            (kind::HEAP, 0x30) => self.truncate(header, body, magic),
            (kind::SMGR, 0x10) => self.create(header, body, magic),
            // 15 put the creation of a database by WAL before it.
            (kind::DATABASE, info) if info == if magic.major() >= Some(15) { 0x20 } else { 0x10 } => {
                self.drop_database(lsn, header, body, magic);
            }
            _ => {}
        }
        if self.creating > 0 && header.rmid != kind::SMGR {
            self.written(header, body, magic);
        }
    }

    /// `DROP DATABASE` removes the files.
    fn drop_database(&mut self, lsn: Lsn, header: &RecordHeader, body: &[u8], magic: Magic) {
        let Some(database) = whole_data(header, body, magic).and_then(|data| u32_at(data, 0)) else { return };
        let previous = header.prev;
        self.with(header.xid, |activity| {
            activity.dropped_database.get_or_insert(DroppedDatabase { database, lsn, previous });
        });
    }

    fn row(&mut self, header: &RecordHeader, body: &[u8], magic: Magic) {
        let Some((file, _)) = first_file(body, magic) else { return };
        if file.number < FileNode::FIRST_NORMAL {
            if file == PG_DATABASE && header.info & 0x70 == 0x10 {
                self.database_row_deleted(header, body, magic);
            }
            return;
        }
        let mut deleted = header.info & 0x70 == 0x10;
        if deleted && let Some(flags) = whole_data(header, body, magic).and_then(|data| data.get(7)) {
            if flags & DELETE_IS_SUPER != 0 {
                // The insertion that it takes back was never seen by anybody.
                return;
            }
            deleted = flags & DELETE_IS_PARTITION_MOVE == 0;
        }
        let limit = self.limits.files;
        let mut left_out = false;
        self.with(header.xid, |activity| {
            let at = activity.rows.iter().rposition(|r| r.file == file);
            let rows = match at {
                Some(at) => activity.rows.get_mut(at),
                None if activity.rows.len() < limit => {
                    activity.rows.push(FileRows { file, deleted: 0, updated: 0 });
                    activity.rows.last_mut()
                }
                None => None,
            };
            match rows {
                Some(rows) if deleted => rows.deleted += 1,
                Some(rows) => rows.updated += 1,
                None => left_out = true,
            }
        });
        self.left_out += u64::from(left_out);
    }

    fn database_row_deleted(&mut self, header: &RecordHeader, body: &[u8], magic: Magic) {
        let data = whole_data(header, body, magic);
        if let Some(before) = data.and_then(|data| self.in_place.deleted(body, data, magic)) {
            self.with(header.xid, |activity| {
                activity.before_in_place.get_or_insert(before);
            });
        }
    }

    fn truncate(&mut self, header: &RecordHeader, body: &[u8], magic: Magic) {
        // A list that is longer than what is kept of a record is one that does not fit.
        let Some(data) = whole_data(header, body, magic) else {
            self.left_out += 1;
            return;
        };
        let (Some(database), Some(count)) = (u32_at(data, 0), u32_at(data, 4)) else { return };
        let oids = data.get(12..).unwrap_or_default().chunks_exact(4).filter_map(|b| u32_at(b, 0));
        let oids = oids.take(count as usize).map(|oid| (database, oid));
        let limit = self.limits.items;
        let mut over = 0;
        self.with(header.xid, |activity| {
            activity.truncated.extend(oids);
            over = cut(&mut activity.truncated, limit);
        });
        self.left_out += u64::from(over > 0);
    }

    fn create(&mut self, header: &RecordHeader, body: &[u8], magic: Magic) {
        let Some(data) = whole_data(header, body, magic) else { return };
        let (Some(file), Some(fork)) = (FileNode::read(data, 0), u32_at(data, 12)) else { return };
        // Of an unlogged relation only the fork from which recovery makes it anew goes through the WAL.
        if fork != 0 && fork != INIT_FORK {
            return;
        }
        let limit = self.limits.files;
        let mut first = false;
        let mut left_out = false;
        self.with(header.xid, |activity| {
            first = activity.created.is_empty();
            let known = activity.created.last().is_some_and(|last| last.file == file);
            left_out = !known && activity.created.len() >= limit;
            if !known && !left_out {
                activity.created.push(CreatedFile { file, written: 0 });
            }
        });
        self.creating += usize::from(first);
        self.left_out += u64::from(left_out);
    }

    fn written(&mut self, header: &RecordHeader, body: &[u8], magic: Magic) {
        let Some(activity) = self.open.get_mut(&header.xid).filter(|a| !a.created.is_empty()) else { return };
        let Some((file, fork)) = first_file(body, magic) else { return };
        if fork != 0 && u32::from(fork) != INIT_FORK {
            return;
        }
        if let Some(created) = activity.created.iter_mut().rev().find(|c| c.file == file) {
            created.written += 1;
        }
    }

    /// Something was not read because it is too long.
    pub(in crate::wal) fn too_long(&mut self) {
        self.left_out += 1;
    }

    /// A transaction ends.
    pub(in crate::wal) fn end(&mut self, ending: Ending, lsn: Lsn, previous: Lsn) {
        let mut activity = self.take(ending.xid).or_else(|| self.spare.pop()).unwrap_or_default();
        for subtransaction in &ending.subtransactions {
            if let Some(part) = self.take(*subtransaction) {
                activity.absorb(*part);
            }
        }
        activity.xid = ending.xid;
        let noteworthy = !ending.dropped.is_empty()
            || activity.dropped_database.is_some()
            || !activity.truncated.is_empty()
            || activity.rows_changed() >= self.limits.rows;
        let listed = self.limits.rows == 0 || (ending.commit && noteworthy);
        if !listed {
            return self.give_back(activity);
        }
        let mut end = End {
            lsn,
            previous,
            time: ending.time,
            commit: ending.commit,
            database: ending.database,
            subtransactions: ending.subtransactions,
            dropped: ending.dropped,
            dropped_stats: ending.dropped_stats,
            invalidated: ending.invalidated,
            left_out: 0,
        };
        let mut left_out = cut(&mut end.subtransactions, self.limits.items);
        left_out += cut(&mut end.dropped, self.limits.items);
        left_out += cut(&mut end.dropped_stats, self.limits.items);
        left_out += cut(&mut end.invalidated, self.limits.items);
        end.left_out = left_out;
        self.left_out += u64::from(left_out > 0);
        activity.end = Some(end);
        self.list(*activity);
    }

    /// Gives what was collected, in the order of the ends, and behind them what was still going on; with how
    /// much was left out.
    pub(in crate::wal) fn finish(mut self) -> (Vec<Activity>, u64) {
        let mut open: Vec<_> = self.open.drain().map(|(_, activity)| *activity).collect();
        open.sort_unstable_by_key(|activity| activity.xid);
        for activity in open {
            self.list(activity);
        }
        let ended = |a: &Activity| a.end.as_ref().map_or(Lsn(u64::MAX), |end| end.lsn);
        self.listed.sort_by_key(ended);
        (self.listed, self.left_out)
    }

    /// What ended since this was last asked for, in the order of the ends.
    pub(in crate::wal) fn drain(&mut self) -> Vec<Activity> {
        std::mem::take(&mut self.listed)
    }

    /// Keeps one, if it says more than the least of those that are kept.
    fn list(&mut self, activity: Activity) {
        if self.listed.len() < self.limits.listed {
            return self.listed.push(activity);
        }
        self.left_out += 1;
        let least =
            self.listed.iter().enumerate().min_by_key(|(_, a)| weight(a)).map(|(at, a)| (at, weight(a)));
        if let Some((at, least)) = least
            && least < weight(&activity)
            && let Some(place) = self.listed.get_mut(at)
        {
            *place = activity;
        }
    }

    fn with(&mut self, xid: u32, change: impl FnOnce(&mut Activity)) {
        let full = self.open.len() >= self.limits.open;
        match self.open.entry(xid) {
            Entry::Occupied(known) => change(known.into_mut()),
            Entry::Vacant(_) if full => self.left_out += 1,
            Entry::Vacant(place) => {
                let mut fresh = self.spare.pop().unwrap_or_default();
                fresh.xid = xid;
                change(place.insert(fresh));
            }
        }
    }

    fn take(&mut self, xid: u32) -> Option<Box<Activity>> {
        let activity = self.open.remove(&xid)?;
        self.creating -= usize::from(!activity.created.is_empty());
        Some(activity)
    }

    fn give_back(&mut self, mut activity: Box<Activity>) {
        if self.spare.len() < 64 {
            activity.rows.clear();
            activity.created.clear();
            activity.truncated.clear();
            activity.before_in_place = None;
            activity.dropped_database = None;
            activity.end = None;
            self.spare.push(activity);
        }
    }
}

/// The main data, where the body is not cut off.
fn whole_data<'b>(header: &RecordHeader, body: &'b [u8], magic: Magic) -> Option<&'b [u8]> {
    let whole = HEADER + body.len() == header.total as usize;
    if whole { main_data(body, magic) } else { None }
}

fn weight(activity: &Activity) -> u64 {
    if activity.changed_files() { u64::MAX } else { activity.rows_changed() }
}

fn cut<T>(list: &mut Vec<T>, limit: usize) -> u64 {
    let over = list.len().saturating_sub(limit) as u64;
    list.truncate(limit);
    over
}
