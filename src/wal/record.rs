//! Records: the fixed header, the way to the main data, and what transaction and XLOG records say.

use super::le::{i32_at, i64_at, u32_at, u64_at};
use super::page::Magic;
use crate::types::{Lsn, Moment, TimelineId};

/// Length of a record's header; no record is shorter.
pub(super) const HEADER: usize = 24;
/// The part of the header that its own checksum covers, after the body.
pub(super) const HEADER_BEFORE_CRC: usize = 20;

const RM_XLOG: u8 = 0;
const RM_XACT: u8 = 1;

/// A record's fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// Header and body together.
    pub(super) total: u32,
    pub(super) xid: u32,
    /// Where the record before this one starts.
    pub(super) prev: Lsn,
    pub(super) info: u8,
    pub(super) rmid: u8,
    pub(super) crc: u32,
}

impl RecordHeader {
    pub(super) fn read(bytes: &[u8; HEADER]) -> Self {
        let [l0, l1, l2, l3, x0, x1, x2, x3, p @ .., info, rmid, _, _, c0, c1, c2, c3] = *bytes;
        Self {
            total: u32::from_le_bytes([l0, l1, l2, l3]),
            xid: u32::from_le_bytes([x0, x1, x2, x3]),
            prev: Lsn(u64::from_le_bytes(p)),
            info,
            rmid,
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        }
    }

    /// The record after which the rest of the segment is not used.
    pub(super) fn is_switch(&self) -> bool {
        self.rmid == RM_XLOG && self.info & 0xF0 == 0x40
    }

    /// Whether [`Event::read`] may find something in the body; other bodies need not be kept.
    pub(super) fn is_of_interest(&self) -> bool {
        match self.rmid {
            RM_XACT => true,
            RM_XLOG => matches!(self.info & 0xF0, 0x00 | 0x10 | 0x70 | 0x90),
            _ => false,
        }
    }
}

/// What a record says that matters for archiving and for recovery targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Commit { xid: u32, time: Moment },
    Abort { xid: u32, time: Moment },
    RestorePoint { name: String, time: Moment },
    EndOfRecovery { time: Moment, timeline: TimelineId, previous: TimelineId },
    Checkpoint { online: bool, redo: Lsn, timeline: TimelineId, previous: TimelineId, time: Moment },
}

impl Event {
    /// Looks into the body (all that follows the fixed header) of an intact record. `body` may be cut off
    /// behind the fields that count; a body that does not hold what its kind promises gives `None`.
    pub(super) fn read(header: &RecordHeader, body: &[u8], magic: Magic) -> Option<Self> {
        let data = main_data(body)?;
        match header.rmid {
            RM_XACT => Self::transaction(header, data, magic),
            RM_XLOG => Self::xlog(header, data, magic),
            _ => None,
        }
    }

    fn transaction(header: &RecordHeader, data: &[u8], magic: Magic) -> Option<Self> {
        let operation = header.info & 0x70;
        let (commit, prepared) = match operation {
            0x00 => (true, false),
            0x20 => (false, false),
            0x30 => (true, true),
            0x40 => (false, true),
            _ => return None,
        };
        let time = Moment::from_postgres_micros(i64_at(data, 0)?)?;
        // The second phase is logged by a transaction that has no number of its own.
        let xid = if prepared {
            prepared_xid(data, commit, header.info & 0x80 != 0, magic).unwrap_or(header.xid)
        } else {
            header.xid
        };
        Some(if commit { Self::Commit { xid, time } } else { Self::Abort { xid, time } })
    }

    fn xlog(header: &RecordHeader, data: &[u8], magic: Magic) -> Option<Self> {
        match header.info & 0xF0 {
            kind @ (0x00 | 0x10) => {
                // 19 made multixact offsets 64 bits wide and put a flag before the counters.
                let time_at = if magic.major()? >= 19 { 72 } else { 64 };
                Some(Self::Checkpoint {
                    online: kind == 0x10,
                    redo: Lsn(u64_at(data, 0)?),
                    timeline: TimelineId(u32_at(data, 8)?),
                    previous: TimelineId(u32_at(data, 12)?),
                    time: moment_from_unix_seconds(i64_at(data, time_at)?)?,
                })
            }
            0x70 => {
                let name = data.get(8..72)?.split(|byte| *byte == 0).next()?;
                Some(Self::RestorePoint {
                    name: String::from_utf8_lossy(name).into_owned(),
                    time: Moment::from_postgres_micros(i64_at(data, 0)?)?,
                })
            }
            0x90 => Some(Self::EndOfRecovery {
                time: Moment::from_postgres_micros(i64_at(data, 0)?)?,
                timeline: TimelineId(u32_at(data, 8)?),
                previous: TimelineId(u32_at(data, 12)?),
            }),
            _ => None,
        }
    }
}

/// `pg_time_t`, the seconds since 1970 that checkpoints and the control file carry.
pub(crate) fn moment_from_unix_seconds(seconds: i64) -> Option<Moment> {
    jiff::Timestamp::from_second(seconds).ok().map(Moment)
}

/// The main data of a body without block references: behind the optional replication origin and top-level
/// xid, and its own short or long header. Records that refer to blocks carry nothing that is asked for here.
fn main_data(body: &[u8]) -> Option<&[u8]> {
    let mut rest = body;
    loop {
        let (id, after) = rest.split_first()?;
        rest = match id {
            // The length is not needed: main data is the last part, and its reader checks its own bounds.
            255 => return after.get(1..),
            254 => return after.get(4..),
            253 => after.get(2..)?,
            252 => after.get(4..)?,
            _ => return None,
        };
    }
}

/// The number of the transaction that a `COMMIT PREPARED` or `ROLLBACK PREPARED` ends: behind lists of
/// variable length, in the order of `ParseCommitRecord` and `ParseAbortRecord`.
fn prepared_xid(data: &[u8], commit: bool, has_info: bool, magic: Magic) -> Option<u32> {
    const DBINFO: u32 = 1 << 0;
    const SUBXACTS: u32 = 1 << 1;
    const FILES: u32 = 1 << 2;
    const INVALIDATIONS: u32 = 1 << 3;
    const TWOPHASE: u32 = 1 << 4;
    const DROPPED_STATS: u32 = 1 << 8;
    if !has_info {
        return None;
    }
    let xinfo = u32_at(data, 8)?;
    let mut at = 12_usize;
    if xinfo & DBINFO != 0 {
        at += 8;
    }
    let stats_item = if magic.major()? >= 18 { 16 } else { 12 };
    let lists = [(SUBXACTS, 4), (FILES, 12), (DROPPED_STATS, stats_item), (INVALIDATIONS, 16)];
    for (flag, item) in lists {
        if xinfo & flag != 0 && (commit || flag != INVALIDATIONS) {
            let count = usize::try_from(i32_at(data, at)?).ok()?;
            at = at.checked_add(4)?.checked_add(count.checked_mul(item)?)?;
        }
    }
    (xinfo & TWOPHASE != 0).then(|| u32_at(data, at)).flatten()
}
