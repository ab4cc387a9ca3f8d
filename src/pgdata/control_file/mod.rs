//! `global/pg_control`: whose data directory this is, where its last checkpoint is, and what a server needs
//! to start from it.
//!
//! The first 56 bytes have kept their layout for decades; behind them fields move between majors, and the
//! checksum stands behind the last. A field is only believed when the checksum is right. Of a layout newer
//! than we know the checksum is searched for, so that at least the system identifier can be told for
//! certain.

#[cfg(test)]
mod tests;

use crate::types::{Lsn, Moment, SegmentSize, SystemId, TimelineId};
use crate::wal::le::{i32_at, i64_at, u32_at, u64_at};
use crate::wal::moment_from_unix_seconds;

/// What the server did when it last wrote the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// It is being started for the first time.
    StartingUp,
    /// Cleanly shut down.
    ShutDown,
    /// A standby, or a recovery, cleanly shut down.
    ShutDownInRecovery,
    /// Shutting down, or killed while it did.
    ShuttingDown,
    /// In crash recovery, or killed in it.
    InCrashRecovery,
    /// A standby or an archive recovery, running or killed.
    InArchiveRecovery,
    /// Running, or killed.
    InProduction,
    /// A number that we do not know.
    Other(u32),
}

/// The fields of `pg_control` that matter to an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster.
    pub system_id: SystemId,
    /// `PG_CONTROL_VERSION`.
    pub control_version: u32,
    /// `CATALOG_VERSION_NO`.
    pub catalog_version: u32,
    /// The server's major version.
    pub major: u16,
    /// What the server was doing.
    pub state: ClusterState,
    /// When the file was last written, to the second.
    pub time: Moment,
    /// The last checkpoint record.
    pub checkpoint: Lsn,
    /// Where replay starts from it.
    pub redo: Lsn,
    /// Its timeline.
    pub timeline: TimelineId,
    /// The timeline before it; the same one unless it began a timeline.
    pub previous_timeline: TimelineId,
    /// When the checkpoint was made, to the second.
    pub checkpoint_time: Moment,
    /// How far a recovery must get before the files are consistent; `0/0` where none was under way.
    pub min_recovery_point: Lsn,
    /// The timeline of that position; 0 where there is none.
    pub min_recovery_timeline: TimelineId,
    /// Where the backup began that is being recovered; `0/0` where none is.
    pub backup_start: Lsn,
    /// Where the backup of a standby ended; `0/0` where that does not apply.
    pub backup_end: Lsn,
    /// The end of the backup must still be seen in the WAL.
    pub backup_end_required: bool,
    /// `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    /// A recovery needs at least this `max_connections`.
    pub max_connections: i32,
    /// A recovery needs at least this `max_worker_processes`.
    pub max_worker_processes: i32,
    /// A recovery needs at least this `max_wal_senders`.
    pub max_wal_senders: i32,
    /// A recovery needs at least this `max_prepared_transactions`.
    pub max_prepared_transactions: i32,
    /// A recovery needs at least this `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
    /// `BLCKSZ`.
    pub block_size: u32,
    /// `XLOG_BLCKSZ`.
    pub wal_block_size: u32,
    /// `wal_segment_size`.
    pub segment_size: SegmentSize,
    /// The version of page checksums; 0 where they are off. From 19 on there are states between.
    pub data_checksums: u32,
}

/// Why a file is not read as a control file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileProblem {
    /// Shorter than the fields take.
    #[error("{0} bytes are too short for a control file")]
    TooShort(usize),
    /// All zeros.
    #[error("the control file is filled with zeros")]
    ZeroFilled,
    /// The fields do not match their checksum: damaged, or caught while the server wrote it. Worth reading
    /// once more.
    #[error("the control file's checksum is wrong")]
    Checksum,
    /// A server older than we support.
    #[error("the control file is of a server older than version 12 (control version {0})")]
    TooOld(u32),
    /// A layout newer than we know. Only the start of the file keeps its meaning.
    #[error("the control file is of a server newer than we know (control version {control_version})")]
    Newer {
        /// `PG_CONTROL_VERSION`.
        control_version: u32,
        /// The cluster, if a checksum that matches was found behind it.
        system_id: Option<SystemId>,
    },
    /// The checksum is right and a value is not: no server writes this.
    #[error("the control file's {0} makes no sense")]
    Value(&'static str),
}

/// What moves between majors.
struct Layout {
    checksum: usize,
    /// By how much the fields behind the checkpoint's copy are shifted.
    shift: usize,
    checkpoint_time: usize,
    wal_block_size: usize,
    data_checksums: usize,
}

const LAYOUT_12: Layout =
    Layout { checksum: 288, shift: 0, checkpoint_time: 104, wal_block_size: 224, data_checksums: 252 };
/// 18 put `default_char_signedness` before the nonce.
const LAYOUT_18: Layout = Layout { checksum: 292, ..LAYOUT_12 };
/// 19 made the checkpoint longer and added two fields.
const LAYOUT_19: Layout =
    Layout { checksum: 308, shift: 8, checkpoint_time: 112, wal_block_size: 236, data_checksums: 268 };

fn layout(control_version: u32) -> Option<&'static Layout> {
    match control_version {
        1201..=1700 => Some(&LAYOUT_12),
        1701..=1800 => Some(&LAYOUT_18),
        1905 => Some(&LAYOUT_19),
        _ => None,
    }
}

/// 12 to 16 share control versions; the catalogue's tells them apart.
fn major(control_version: u32, catalog_version: u32) -> u16 {
    match (control_version, catalog_version) {
        (1801.., _) => 19,
        (1701.., _) => 18,
        (1301.., _) => 17,
        (_, 202_209_062..) => 16,
        (_, 202_107_182..) => 15,
        (_, 202_007_202..) => 14,
        (_, 201_909_213..) => 13,
        _ => 12,
    }
}

impl ControlFile {
    /// Where the server keeps it, below the data directory.
    pub const PATH: &'static str = "global/pg_control";

    /// Reads a control file.
    pub fn parse(file: &[u8]) -> Result<Self, ControlFileProblem> {
        let short = || ControlFileProblem::TooShort(file.len());
        let (version, catalog_version) = u32_at(file, 8).zip(u32_at(file, 12)).ok_or_else(short)?;
        if file.iter().all(|byte| *byte == 0) {
            return Err(ControlFileProblem::ZeroFilled);
        }
        let Some(layout) = layout(version) else { return Err(unknown_version(file, version)) };
        let expected = u32_at(file, layout.checksum).ok_or_else(short)?;
        if crc32c::crc32c(file.get(..layout.checksum).ok_or_else(short)?) != expected {
            return Err(ControlFileProblem::Checksum);
        }
        Self::fields(file, version, catalog_version, layout)
    }

    fn fields(
        file: &[u8],
        control_version: u32,
        catalog_version: u32,
        layout: &Layout,
    ) -> Result<Self, ControlFileProblem> {
        let short = || ControlFileProblem::TooShort(file.len());
        let lsn = |at| u64_at(file, at).map(Lsn).ok_or_else(short);
        let number = |at| u32_at(file, at).ok_or_else(short);
        let setting = |at| i32_at(file, at + layout.shift).ok_or_else(short);
        let moment = |at, name| {
            let seconds = i64_at(file, at).ok_or_else(short)?;
            moment_from_unix_seconds(seconds).ok_or(ControlFileProblem::Value(name))
        };
        let segment_size = u64::from(number(layout.wal_block_size + 4)?);
        Ok(Self {
            system_id: SystemId(u64_at(file, 0).ok_or_else(short)?),
            control_version,
            catalog_version,
            major: major(control_version, catalog_version),
            state: ClusterState::from_number(number(16)?),
            time: moment(24, "time")?,
            checkpoint: lsn(32)?,
            redo: lsn(40)?,
            timeline: TimelineId(number(48)?),
            previous_timeline: TimelineId(number(52)?),
            checkpoint_time: moment(layout.checkpoint_time, "checkpoint time")?,
            min_recovery_point: lsn(136 + layout.shift)?,
            min_recovery_timeline: TimelineId(number(144 + layout.shift)?),
            backup_start: lsn(152 + layout.shift)?,
            backup_end: lsn(160 + layout.shift)?,
            backup_end_required: file.get(168 + layout.shift).is_some_and(|byte| *byte != 0),
            wal_level: setting(172)?,
            max_connections: setting(180)?,
            max_worker_processes: setting(184)?,
            max_wal_senders: setting(188)?,
            max_prepared_transactions: setting(192)?,
            max_locks_per_transaction: setting(196)?,
            block_size: number(216 + layout.shift)?,
            wal_block_size: number(layout.wal_block_size)?,
            segment_size: SegmentSize::new(segment_size)
                .map_err(|_| ControlFileProblem::Value("WAL segment size"))?,
            data_checksums: number(layout.data_checksums)?,
        })
    }
}

impl ClusterState {
    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::StartingUp,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            other => Self::Other(other),
        }
    }

    /// The server ended in good order: nothing but its own start is needed to use the files.
    pub fn is_shut_down(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }
}

/// A version that is not in the table: too old, newer than we know, or garbage.
fn unknown_version(file: &[u8], version: u32) -> ControlFileProblem {
    // The checksum is the only witness that this is a control file at all, and it stands somewhere behind
    // the fields; the rest of the file is zeros.
    let mut crc = 0;
    let mut done = 0;
    let found = (200..1024).step_by(4).any(|at| {
        crc = crc32c::crc32c_append(crc, file.get(done..at).unwrap_or_default());
        done = at;
        u32_at(file, at) == Some(crc)
    });
    match version {
        1..1201 if found => ControlFileProblem::TooOld(version),
        1801.. if found => {
            ControlFileProblem::Newer { control_version: version, system_id: u64_at(file, 0).map(SystemId) }
        }
        1801..=9999 => ControlFileProblem::Newer { control_version: version, system_id: None },
        _ => ControlFileProblem::Checksum,
    }
}
