//! The words of the house as values: parsed once, valid from then on. No I/O, no clock.

mod backup_id;
mod lsn;
mod moment;
mod segment;
mod segment_set;
mod system_id;
#[cfg(test)]
mod tests;
mod wal_file_name;

pub use backup_id::{BackupId, BackupType};
pub use lsn::Lsn;
pub use moment::{Moment, MomentError};
pub use segment::{SegmentName, SegmentSize, TimelineId};
pub use segment_set::SegmentSet;
pub use system_id::SystemId;
pub use wal_file_name::WalFileName;

/// Why a text is not the value it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not {expected}")]
pub struct ParseError {
    /// What was given.
    pub text: String,
    /// What it should have been, with its article ("a WAL file name").
    pub expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(200).collect(), expected }
    }
}
