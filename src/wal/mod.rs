//! PostgreSQL's write-ahead log: bytes → values. No I/O, no clock, no opinion about repositories.
//!
//! [`SegmentScanner`] reads one segment, in chunks of any size and in constant memory, the way recovery
//! would read it: page headers, record headers, links and checksums. It says whose segment it is, where its
//! valid part ends and how, what is in it (commits, restore points, checkpoints), and whether something is
//! broken *inside* what should be valid. [`TimelineHistory`] says on which timeline a position lies.
//!
//! Nothing here ever refuses on behalf of others: what to do with a damaged or foreign segment is the
//! caller's decision.

#![warn(clippy::indexing_slicing)]

mod activity;
mod block;
mod ending;
pub(crate) mod le;
mod page;
mod record;
mod scan;
mod timeline_history;

pub use activity::{Activity, CreatedFile, DroppedDatabase, End, FileRows, Joined, Rest, Unfinished};
pub use ending::{FileNode, RelationId};
pub use page::{LongHeader, Magic};
pub use record::Parameters;
pub(crate) use record::moment_from_unix_seconds;
pub use scan::{
    Checkpoint, Damage, DamageKind, EarlyEnd, Ends, Found, HeaderProblem, ParameterChange, RestorePoint,
    SegmentScan, SegmentScanner, Sought, TimelineChange, Transaction, precedes,
};
pub use timeline_history::{HistoryProblem, TimelineHistory, TimelineSwitch};
