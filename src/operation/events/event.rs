//! What happened, as values.

use std::fmt;
use std::str::FromStr;

use crate::repository::backup_set::catalogue::Name;
use crate::types::{Lsn, Moment, ParseError, TimelineId};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A transaction was committed.
    Commit,
    /// A table, index, sequence or materialized view is gone.
    Drop,
    /// A table was emptied by giving it a new file.
    Truncate,
    /// Rows were deleted.
    Delete,
    /// Rows were updated.
    Update,
    /// A table or index has a new file with its content: VACUUM FULL, CLUSTER, REINDEX, ALTER TABLE, REFRESH.
    Rewrite,
    /// A database is gone.
    DropDatabase,
    /// `pg_create_restore_point`.
    RestorePoint,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Commit,
        Self::Drop,
        Self::Truncate,
        Self::Delete,
        Self::Update,
        Self::Rewrite,
        Self::DropDatabase,
        Self::RestorePoint,
    ];

    /// As it is written on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Drop => "drop",
            Self::Truncate => "truncate",
            Self::Delete => "delete",
            Self::Update => "update",
            Self::Rewrite => "rewrite",
            Self::DropDatabase => "drop-database",
            Self::RestorePoint => "restore-point",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let all = "an event's kind: commit, drop, truncate, delete, update, rewrite, drop-database or restore-point";
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| ParseError::new(text, all))
    }
}

/// An event's name: its timeline, its record, and which of the record's events it is, from 1.
///
/// Written `1-0000000003000028`, and `1-0000000003000028-2` for the second event of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The timeline that the record is on.
    pub timeline: TimelineId,
    /// Where the record starts.
    pub lsn: Lsn,
    /// From 1.
    pub number: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.timeline, self.lsn.to_hex16())?;
        if self.number > 1 { write!(f, "-{}", self.number) } else { Ok(()) }
    }
}

impl FromStr for EventId {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = || ParseError::new(text, "an event's id, as pitr events prints it: 1-0000000003000028");
        let mut parts = text.split('-');
        let (Some(timeline), Some(lsn), number, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(err());
        };
        let digits =
            |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
        let above = |limit: u32| move |n: &u32| *n > limit;
        Ok(Self {
            timeline: TimelineId(digits(timeline).filter(above(0)).ok_or_else(err)?),
            lsn: Lsn::from_hex16(lsn).map_err(|_| err())?,
            number: number.map_or(Some(1), |n| digits(n).filter(above(1))).ok_or_else(err)?,
        })
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub id: EventId,
    /// The time of the commit, or of the restore point.
    pub time: Moment,
    /// The transaction; `None` for a restore point.
    pub xid: Option<u32>,
    /// What happened.
    pub kind: Kind,
    /// The database's name, or its number where no catalogue knows it.
    pub database: Option<String>,
    /// What it was about: `public.orders`, `index public.orders_pkey`; numbers where no catalogue knows it.
    pub object: Option<String>,
    /// How many rows.
    pub rows: Option<u64>,
    /// The last record before it: recovery that stops behind that one stops just before the event.
    pub before: Lsn,
    /// The table's schema and name, where a catalogue knows them.
    pub(super) of: Option<(Name, Name)>,
}

impl Event {
    /// Whether what it is about is told by numbers.
    pub(super) fn is_unnamed(&self) -> bool {
        let by_name = matches!(self.kind, Kind::Commit | Kind::RestorePoint | Kind::DropDatabase);
        !by_name && self.of.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_in_no_other_way() {
        for text in ["1-0000000003000028", "12-00000ABC03000028-2", "4294967295-FFFFFFFFFFFFFFFF-4294967295"]
        {
            assert_eq!(text.parse::<EventId>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "1",
            "1-",
            "-0000000003000028",
            "0-0000000003000028",
            "1-0000000003000028-1",
            "1-0000000003000028-",
            "1-0000000003000028-0",
            "1-3000028",
            "1-000000000300002g",
            "1-0000000003000028-2-3",
            "+1-0000000003000028",
            "0/3000028",
            "1-0000000003000028-02x",
        ] {
            assert!(wrong.parse::<EventId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn kinds_have_the_names_that_the_command_line_takes() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse::<Kind>().unwrap(), kind);
        }
        assert!("Drop".parse::<Kind>().is_err());
    }
}
