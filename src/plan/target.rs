//! What an operator asks for, and what the server is told.

use std::fmt;

use crate::types::{BackupId, Lsn, Moment, TimelineId};
use crate::wal::Found;

/// Where recovery is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// At the end of the archive.
    Latest,
    /// As soon as the database is consistent.
    Immediate,
    /// A moment.
    Time(Moment),
    /// A position.
    Lsn(Lsn),
    /// A transaction's end. The server compares the low 32 bits.
    Xid(u32),
    /// A restore point.
    Name(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Immediate => f.write_str("immediate"),
            Self::Time(moment) => write!(f, "{moment}"),
            Self::Lsn(lsn) => write!(f, "{lsn}"),
            Self::Xid(xid) => write!(f, "transaction {xid}"),
            Self::Name(name) => write!(f, "restore point \"{name}\""),
        }
    }
}

/// Which timeline to end on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimelineChoice {
    /// Nothing was said: the one that the target lies on, if there is but one.
    Unsaid,
    /// The newest that is in the archive.
    Latest,
    /// That of the backup.
    Current,
    /// This one.
    Number(TimelineId),
}

/// Everything an operator asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where to stop.
    pub target: Target,
    /// Before the target instead of behind it.
    pub exclusive: bool,
    /// On which timeline.
    pub timeline: TimelineChoice,
    /// From this backup and no other.
    pub backup: Option<BackupId>,
    /// For a server that goes on replaying: whatever is there, from a consistent state on.
    pub standby: bool,
}

/// Where the server will stop, as proved by the WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The position up to which everything is replayed: the start of the record that stops recovery, or
    /// the end of the WAL.
    pub at: Lsn,
    /// What stops it.
    pub kind: StopKind,
}

/// What stops recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopKind {
    /// A record that was found: a commit, an abort, a restore point.
    Record(Found),
    /// A record that starts at or behind a position.
    Position,
    /// The database is consistent.
    Consistent,
    /// There is no more WAL.
    EndOfWal {
        /// Where the last record starts, if one is known.
        last_record: Option<Lsn>,
        /// The latest moment of which the WAL tells.
        until: Option<Moment>,
    },
}
