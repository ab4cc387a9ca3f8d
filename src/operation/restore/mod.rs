//! `restore`: prove the plan, then touch.

mod archived_wal;
mod destination;
mod prepare;
mod rolled;
mod survey;
mod write;

pub use archived_wal::ArchivedWal;
pub use destination::{Destination, Ownership};
pub use prepare::{PlaceProblems, Prepared, Served, prepare, prepare_from_any};
pub use survey::Survey;
pub(in crate::operation) use write::compare_with_manifest;
pub use write::{Monitor, RestoreError, Written, restore};
