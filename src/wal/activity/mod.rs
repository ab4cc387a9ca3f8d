//! What transactions did within a segment: rows deleted and updated, files made and dropped.
//!
//! A segment sees a part of a transaction only. An [`Activity`] with an [`End`] ended here and may have begun in
//! an earlier segment; one without goes on in a later one, or is a subtransaction whose parent does. Whoever
//! wants the whole joins the parts by their numbers.

mod collect;
mod in_place;
mod split;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(super) use collect::{Collector, Limits};
pub use split::{Joined, Rest, Unfinished};

use super::ending::{FileNode, RelationId};
use crate::types::{Lsn, Moment};

/// One transaction's (or subtransaction's) part of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Activity {
    /// Its number.
    pub xid: u32,
    /// How it ended, if it did so here: what its subtransactions did is counted as its own then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// Rows deleted and updated, by file; those of system catalogues are not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<FileRows>,
    /// Files that were made: the main fork, or the init fork of what is unlogged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub created: Vec<CreatedFile>,
    /// Tables that were truncated, as only `wal_level=logical` tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<RelationId>,
    /// Where the record starts that is before the in-place change by which `DROP DATABASE` marks its database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_in_place: Option<Lsn>,
    /// A database that was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_database: Option<DroppedDatabase>,
}

/// A commit or an abort, with what its record lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Where its record starts.
    pub lsn: Lsn,
    /// Where the record before it starts: recovery that ends behind that one has all that came before.
    pub previous: Lsn,
    /// When.
    pub time: Moment,
    /// Whether it was a commit.
    pub commit: bool,
    /// The database it was made in, where the record says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<u32>,
    /// Its subtransactions that were not rolled back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subtransactions: Vec<u32>,
    /// Files that go with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<FileNode>,
    /// Relations whose statistics go with it, by database and OID (15 and later).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped_stats: Vec<RelationId>,
    /// Relations whose definition changed, by database and OID.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalidated: Vec<RelationId>,
    /// How many items of these lists were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// Rows of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRows {
    /// The file.
    pub file: FileNode,
    /// Rows deleted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deleted: u64,
    /// Rows updated, those that moved to another partition included.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub updated: u64,
}

/// A file that a transaction made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedFile {
    /// The file.
    pub file: FileNode,
    /// Records of the same transaction that changed it afterwards. An empty heap has none; an empty index has
    /// some, because its first page is written at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub written: u64,
}

/// A database that was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedDatabase {
    /// Its OID.
    pub database: u32,
    /// The record that removes its files.
    pub lsn: Lsn,
    /// The record before it.
    pub previous: Lsn,
}

/// A zero is not worth its bytes.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Activity {
    /// Rows deleted and updated, all files together.
    pub fn rows_changed(&self) -> u64 {
        self.rows.iter().map(|r| r.deleted.saturating_add(r.updated)).sum()
    }

    /// Whether it did something that is worth telling although it changed few rows.
    pub fn changed_files(&self) -> bool {
        self.dropped_database.is_some()
            || !self.truncated.is_empty()
            || self.end.as_ref().is_some_and(|end| end.commit && !end.dropped.is_empty())
    }

    /// Adds another part of the same transaction, or what one of its subtransactions did.
    pub fn absorb(&mut self, other: Self) {
        for rows in other.rows {
            match self.rows.iter_mut().find(|r| r.file == rows.file) {
                Some(own) => {
                    own.deleted += rows.deleted;
                    own.updated += rows.updated;
                }
                None => self.rows.push(rows),
            }
        }
        for created in other.created {
            match self.created.iter_mut().find(|c| c.file == created.file) {
                Some(own) => own.written += created.written,
                None => self.created.push(created),
            }
        }
        self.truncated.extend(other.truncated);
        self.before_in_place = match (self.before_in_place, other.before_in_place) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.dropped_database = self.dropped_database.or(other.dropped_database);
        self.end = self.end.take().or(other.end);
    }
}
