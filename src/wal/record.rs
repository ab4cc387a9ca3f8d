//! Records: the fixed header, and what those say that concern the whole server.

use super::block::bare_main_data;
use super::le::{i64_at, u32_at, u64_at};
use super::page::Magic;
use crate::types::{Lsn, Moment, TimelineId};

/// Length of a record's header; no record is shorter.
pub(super) const HEADER: usize = 24;
/// The part of the header that its own checksum covers, after the body.
pub(super) const HEADER_BEFORE_CRC: usize = 20;

/// Resource managers, by their numbers (`rmgrlist.h`), which no release has changed.
pub(super) mod kind {
    pub(in crate::wal) const XLOG: u8 = 0;
    pub(in crate::wal) const TRANSACTION: u8 = 1;
    pub(in crate::wal) const SMGR: u8 = 2;
    pub(in crate::wal) const DATABASE: u8 = 4;
    pub(in crate::wal) const STANDBY: u8 = 8;
    pub(in crate::wal) const HEAP: u8 = 10;

    /// As `pg_waldump` calls them; extensions have the numbers from 128 on.
    const NAMES: [&str; 22] = [
        "XLOG",
        "Transaction",
        "Storage",
        "CLOG",
        "Database",
        "Tablespace",
        "MultiXact",
        "RelMap",
        "Standby",
        "Heap2",
        "Heap",
        "Btree",
        "Hash",
        "Gin",
        "Gist",
        "Sequence",
        "SPGist",
        "BRIN",
        "CommitTs",
        "ReplicationOrigin",
        "Generic",
        "LogicalMessage",
    ];

    pub(in crate::wal) fn name(number: usize) -> String {
        match NAMES.get(number) {
            Some(name) => (*name).to_owned(),
            None if number >= 128 => format!("custom{number:03}"),
            None => format!("UNKNOWN_{number}"),
        }
    }
}

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
        self.rmid == kind::XLOG && self.info & 0xF0 == 0x40
    }

    /// How much of the body is looked at: so much of it is kept where the record is split, and no more is looked
    /// at where it is not. Only the lists of a giant transaction are longer; they are then not known.
    pub(super) fn kept(&self) -> usize {
        match (self.rmid, self.info & 0x70) {
            // A hundred thousand tables dropped at once.
            (kind::TRANSACTION, _) => 16 << 20,
            // What kind of deletion it is, and which row is changed in place, stands behind the page's image.
            (kind::HEAP, 0x10 | 0x70) => 40 << 10,
            (kind::HEAP, 0x20 | 0x30 | 0x40) => 512,
            (kind::XLOG | kind::SMGR | kind::DATABASE | kind::STANDBY, _) => 512,
            _ => 64,
        }
    }
}

/// What a record says that matters for archiving and for recovery targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Commit {
        xid: u32,
        time: Moment,
    },
    Abort {
        xid: u32,
        time: Moment,
    },
    RestorePoint {
        name: String,
        time: Moment,
    },
    Parameters(Parameters),
    /// The next transaction's number.
    NextXid(u32),
    EndOfRecovery {
        time: Moment,
        timeline: TimelineId,
        previous: TimelineId,
    },
    Checkpoint {
        online: bool,
        redo: Lsn,
        timeline: TimelineId,
        previous: TimelineId,
        time: Moment,
        next_xid: u32,
    },
}

/// Settings of the server that recovery depends on, as a change of any of them is logged (`xl_parameter_change`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
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
    /// `wal_level`: 0 is minimal, 1 replica, 2 logical.
    pub wal_level: u32,
}

impl Parameters {
    fn read(data: &[u8]) -> Option<Self> {
        Some(Self {
            max_connections: u32_at(data, 0)?,
            max_worker_processes: u32_at(data, 4)?,
            max_wal_senders: u32_at(data, 8)?,
            max_prepared_transactions: u32_at(data, 12)?,
            max_locks_per_transaction: u32_at(data, 16)?,
            wal_level: u32_at(data, 20)?,
        })
    }
}

impl Event {
    /// Looks into the body (all that follows the fixed header) of an intact record that ends no transaction.
    /// `body` may be cut off behind the fields that count; a body that does not hold what its kind promises
    /// gives `None`.
    pub(super) fn read(header: &RecordHeader, body: &[u8], magic: Magic) -> Option<Self> {
        let data = bare_main_data(body)?;
        match (header.rmid, header.info & 0xF0) {
            (kind::XLOG, _) => Self::xlog(header, data, magic),
            // Behind the two counts and how complete the list is.
            (kind::STANDBY, 0x10) => Some(Self::NextXid(u32_at(data, 12)?)),
            _ => None,
        }
    }

    fn xlog(header: &RecordHeader, data: &[u8], magic: Magic) -> Option<Self> {
        match header.info & 0xF0 {
            kind @ (0x00 | 0x10) => {
                // 19 made multixact offsets 64 bits wide and put a flag before the counters.
                let (xid_at, time_at) = if magic.major()? >= 19 { (32, 72) } else { (24, 64) };
                Some(Self::Checkpoint {
                    online: kind == 0x10,
                    redo: Lsn(u64_at(data, 0)?),
                    timeline: TimelineId(u32_at(data, 8)?),
                    previous: TimelineId(u32_at(data, 12)?),
                    time: moment_from_unix_seconds(i64_at(data, time_at)?)?,
                    next_xid: u32_at(data, xid_at)?,
                })
            }
            0x60 => Parameters::read(data).map(Self::Parameters),
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
