//! What the operator chose, and who is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::postgres::ConnInfo;
use crate::postgres::base_backup::Checkpoint;
use crate::types::{BackupId, SegmentName};

/// Whoever shows what happens. Called from several threads.
pub trait Monitor: Sync + std::fmt::Debug {
    /// The backup has a name, and the server has said how large it thinks it is.
    fn started(&self, _id: &BackupId, _estimate: Option<u64>) {}
    /// Raw bytes received so far.
    fn received(&self, _bytes: u64) {}
    /// Bytes stored so far.
    fn stored(&self, _bytes: u64) {}
    /// All files are stored; this segment of WAL is not yet in this repository. `by_itself`: only the
    /// primary's own traffic (or somebody who calls `pg_switch_wal()` there) will end it.
    fn waiting(&self, _segment: SegmentName, _repository: &str, _by_itself: bool) {}
    /// Something that the operator should know and that stops nothing.
    fn warning(&self, _text: &str) {}
}

/// Where the WAL from the backup's start to its end comes from.
#[derive(Debug, Clone, Copy)]
pub enum Wal<'a> {
    /// The server's archiver.
    Archive {
        /// To the server that is backed up, for a look at its archiver.
        connection: &'a ConnInfo,
        /// Asked to end its segment where the backup is of a standby.
        primary: Option<&'a ConnInfo>,
    },
    /// A second connection.
    Include {
        /// To the server that is backed up.
        connection: &'a ConnInfo,
    },
}

/// What the operator chose.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// In one line.
    pub label: String,
    /// Notes.
    pub annotations: BTreeMap<String, String>,
    /// How soon the server begins.
    pub checkpoint: Checkpoint,
    /// kB/s.
    pub max_rate: Option<u32>,
    /// How long to wait for the last WAL.
    pub wal_timeout: Duration,
    /// Keep a backup in which the server found damaged pages.
    pub keep_damaged: bool,
    /// Record what the cluster's objects are called, over a connection for SQL.
    pub catalogue: bool,
    /// zstd's.
    pub level: i32,
    /// Compressing threads.
    pub threads: usize,
    /// Where the index, the manifest and a streamed segment wait, in files without a name. Made where it is
    /// missing.
    pub temp_dir: PathBuf,
    /// This host's name.
    pub host: String,
}
