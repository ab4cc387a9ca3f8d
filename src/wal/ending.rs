//! What a commit or abort record lists behind its time.

use serde::{Deserialize, Serialize};

use super::le::{i32_at, i64_at, u32_at, u64_at};
use super::page::Magic;
use super::record::RecordHeader;
use crate::types::Moment;

const DBINFO: u32 = 1 << 0;
const SUBXACTS: u32 = 1 << 1;
const FILES: u32 = 1 << 2;
const INVALIDATIONS: u32 = 1 << 3;
const TWOPHASE: u32 = 1 << 4;
const DROPPED_STATS: u32 = 1 << 8;

/// The message "forget what you know of this relation", by its first byte (`SHAREDINVALRELCACHE_ID`).
const RELCACHE: u8 = 0xFE;
/// The kind of statistics that relations have (`PGSTAT_KIND_RELATION`; 1 is a whole database's).
const RELATION_STATS: u32 = 2;

/// The file of a relation, as the WAL names it (`RelFileLocator`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32)", into = "(u32, u32, u32)")]
pub struct FileNode {
    /// The tablespace's OID.
    pub tablespace: u32,
    /// The database's OID; 0 for what all databases share.
    pub database: u32,
    /// `relfilenode`: the OID of the relation when it was made, another number after every rewrite.
    pub number: u32,
}

impl From<(u32, u32, u32)> for FileNode {
    fn from((tablespace, database, number): (u32, u32, u32)) -> Self {
        Self { tablespace, database, number }
    }
}

impl From<FileNode> for (u32, u32, u32) {
    fn from(file: FileNode) -> Self {
        (file.tablespace, file.database, file.number)
    }
}

impl FileNode {
    /// The first OID that is not given out by `initdb` (`FirstNormalObjectId`): what is below is a catalogue,
    /// unless it was rewritten.
    pub const FIRST_NORMAL: u32 = 16384;

    pub(super) fn read(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            tablespace: u32_at(bytes, at)?,
            database: u32_at(bytes, at + 4)?,
            number: u32_at(bytes, at + 8)?,
        })
    }
}

/// A relation, by the OIDs of its database and its own.
pub type RelationId = (u32, u32);

/// The end of a transaction, with all that its record lists. Lists are empty where the record is cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) commit: bool,
    pub(super) xid: u32,
    pub(super) time: Moment,
    pub(super) database: Option<u32>,
    pub(super) subtransactions: Vec<u32>,
    /// Files that go with it.
    pub(super) dropped: Vec<FileNode>,
    /// Relations whose statistics go with it (15 and later).
    pub(super) dropped_stats: Vec<RelationId>,
    /// Relations that other sessions must forget.
    pub(super) invalidated: Vec<RelationId>,
}

impl Ending {
    /// Reads the main data of a record of the transaction manager; `None` for one that ends nothing. The
    /// order of the lists is that of `ParseCommitRecord` and `ParseAbortRecord`.
    pub(super) fn read(header: &RecordHeader, data: &[u8], magic: Magic) -> Option<Self> {
        let (commit, prepared) = match header.info & 0x70 {
            0x00 => (true, false),
            0x20 => (false, false),
            0x30 => (true, true),
            0x40 => (false, true),
            _ => return None,
        };
        let time = Moment::from_postgres_micros(i64_at(data, 0)?)?;
        let mut ending = Self {
            commit,
            xid: header.xid,
            time,
            database: None,
            subtransactions: Vec::new(),
            dropped: Vec::new(),
            dropped_stats: Vec::new(),
            invalidated: Vec::new(),
        };
        if header.info & 0x80 != 0 {
            let own = ending.lists(data, magic);
            // The second phase is logged by a transaction that has no number of its own.
            if let (true, Some(own)) = (prepared, own) {
                ending.xid = own;
            }
        }
        Some(ending)
    }

    /// Reads the lists; gives the number of the transaction that had been prepared.
    fn lists(&mut self, data: &[u8], magic: Magic) -> Option<u32> {
        let xinfo = u32_at(data, 8)?;
        let mut at = 12;
        if xinfo & DBINFO != 0 {
            self.database = u32_at(data, at);
            at += 8;
        }
        if xinfo & SUBXACTS != 0 {
            at = list(data, at, 4, |item| self.subtransactions.extend(u32_at(item, 0)))?;
        }
        if xinfo & FILES != 0 {
            at = list(data, at, 12, |item| self.dropped.extend(FileNode::read(item, 0)))?;
        }
        if xinfo & DROPPED_STATS != 0 {
            // 18 made the object's identifier 64 bits wide.
            let wide = magic.major()? >= 18;
            at = list(data, at, if wide { 16 } else { 12 }, |item| {
                let oid =
                    if wide { u64_at(item, 8).and_then(|o| u32::try_from(o).ok()) } else { u32_at(item, 8) };
                if let (Some(RELATION_STATS), Some(database), Some(oid)) =
                    (u32_at(item, 0), u32_at(item, 4), oid)
                {
                    self.dropped_stats.push((database, oid));
                }
            })?;
        }
        if xinfo & INVALIDATIONS != 0 && self.commit {
            at = list(data, at, 16, |item| {
                if let (Some(&RELCACHE), Some(database), Some(oid)) =
                    (item.first(), u32_at(item, 4), u32_at(item, 8))
                {
                    self.invalidated.push((database, oid));
                }
            })?;
            self.invalidated.sort_unstable();
            self.invalidated.dedup();
        }
        (xinfo & TWOPHASE != 0).then(|| u32_at(data, at)).flatten()
    }
}

/// Goes through a counted list; says where it ends. A list that the data does not hold whole is not read.
fn list(data: &[u8], at: usize, item: usize, mut each: impl FnMut(&[u8])) -> Option<usize> {
    let count = usize::try_from(i32_at(data, at)?).ok()?;
    let from = at.checked_add(4)?;
    let to = from.checked_add(count.checked_mul(item)?)?;
    data.get(from..to)?.chunks_exact(item).for_each(&mut each);
    Some(to)
}
