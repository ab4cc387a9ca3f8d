//! One record that a reader looks for: where a recovery target would stop replay.

use crate::types::{Lsn, Moment};
use crate::wal::record::Event;

/// What to look for. The rules are those by which a server in recovery stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// The end of a transaction, committed or aborted.
    Xid(u32),
    /// The first commit or abort later than a moment, or (`or_at`) not earlier.
    Time {
        /// The moment.
        after: Moment,
        /// Whether one at exactly this moment counts.
        or_at: bool,
    },
    /// A restore point.
    Name(String),
    /// Commits and aborts, all of them.
    Transaction,
}

/// A record that was sought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it starts.
    pub lsn: Lsn,
    /// The moment it carries.
    pub time: Moment,
    /// The transaction that it ends; `None` for a restore point.
    pub xid: Option<u32>,
    /// Whether that was a commit.
    pub commit: bool,
}

impl Sought {
    pub(super) fn found_in(&self, event: &Event, lsn: Lsn) -> Option<Found> {
        match (self, event) {
            (Self::Name(wanted), Event::RestorePoint { name, time }) if name == wanted => {
                Some(Found { lsn, time: *time, xid: None, commit: false })
            }
            (_, Event::Commit { xid, time } | Event::Abort { xid, time }) => {
                let matches = match self {
                    Self::Xid(wanted) => xid == wanted,
                    Self::Time { after, or_at } => time > after || (*or_at && time == after),
                    Self::Transaction => true,
                    Self::Name(_) => false,
                };
                let commit = matches!(event, Event::Commit { .. });
                matches.then_some(Found { lsn, time: *time, xid: Some(*xid), commit })
            }
            _ => None,
        }
    }
}
