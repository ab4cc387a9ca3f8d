//! A backup as objects: `started.json` first, parts, index and manifest, `backup.json` last.

pub mod catalogue;
mod entries;
pub mod format;
mod reader;
mod spool;
mod writer;

pub use entries::Entries;
pub use reader::{Index, IndexLines, Proved, ProvedReader};
pub use spool::{Spool, SpoolReader};
pub use writer::{BackupSetError, BackupWriter, PART_SIZE, PartWriter};
