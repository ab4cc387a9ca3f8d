//! What a backup's objects say, as serde sees them. `FORMAT.md` is the normative text.
//!
//! `files.zst` is JSON lines, one [`IndexLine`] each, in the order in which things happened on the stream:
//! an archive's `archive` line before everything of it; `frame` lines in the order of their raw bytes; an
//! `entry` line once the entry's last byte was seen. Frames and entries of one archive are interleaved as
//! they became known, so that neither the writer nor a reader needs a table of all files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::FrameDigest;
use crate::types::{BackupId, BackupType, Lsn, Moment, SegmentSize, SystemId, TimelineId};

/// The format number written by this version; a reader refuses a greater one.
pub const FORMAT: u32 = 1;

/// `started.json`: a backup's first write. WAL from its start on is kept while it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// Format number.
    pub format: u32,
    /// The backup's name.
    pub id: BackupId,
    /// When the command began.
    pub start_time: Moment,
    /// Where replay has to start.
    pub start_lsn: Lsn,
    /// The timeline of `start_lsn`.
    pub timeline: TimelineId,
    /// The host that takes the backup.
    pub host: String,
    /// The process that takes it.
    pub pid: u32,
}

/// `backup.json`: the last write. Where it is, the backup is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backup {
    /// Format number.
    pub format: u32,
    /// The backup's name.
    pub id: BackupId,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: BackupType,
    /// The label given to the server.
    pub label: String,
    /// The operator's own notes.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// When the command began, by the clock of the host that took the backup.
    pub start_time: Moment,
    /// When the server had ended the backup: the earliest moment that a restore from it can be asked for.
    pub stop_time: Moment,
    /// Where replay has to start (the redo position of the backup's checkpoint).
    pub start_lsn: Lsn,
    /// Up to where WAL must be replayed before the database is consistent.
    pub stop_lsn: Lsn,
    /// The timeline of `start_lsn`.
    pub timeline: TimelineId,
    /// The timeline of `stop_lsn`; later than `timeline` when a standby followed a promotion meanwhile.
    pub stop_timeline: TimelineId,
    /// The cluster it is of.
    pub system_identifier: SystemId,
    /// 15, 16, …
    pub postgres_major: u32,
    /// `server_version_num`.
    pub server_version: u32,
    /// What the stream came from.
    pub source: Source,
    /// The cluster's segment size in bytes.
    pub segment_size: SegmentSize,
    /// The server's tar streams, in the order they came: tablespaces first, `base` last.
    pub archives: Vec<Archive>,
    /// How many regular files.
    pub files: u64,
    /// Raw bytes of all tar streams.
    pub size: u64,
    /// Stored bytes of all parts.
    pub stored_size: u64,
    /// `files.zst`: its raw bytes' size and digest.
    pub index: Digest,
    /// `backup_manifest.zst`: its raw bytes' size and digest.
    pub manifest: Digest,
    /// `catalogue.zst`, or why there is none; absent where it was not wanted, and in backups of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<super::catalogue::Catalogue>,
    /// Whether the WAL from start to stop was waited for or brought along. Both are in the archive.
    pub wal: WalMode,
    /// Complete, or kept although the server found damaged pages.
    pub status: Status,
    /// What the server said about damaged pages, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<String>,
    /// The version of pitr that wrote it.
    pub pitr_version: String,
    /// The host that took it.
    pub host: String,
}

/// What a backup was streamed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A primary.
    Primary,
    /// A server in recovery.
    Standby,
}

/// Where a backup's WAL comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalMode {
    /// The server's archiver.
    Archive,
    /// Streamed by the backup itself.
    Include,
}

/// Whether a backup is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Whole.
    Complete,
    /// The server reported damaged pages; kept because it was asked for.
    Damaged,
}

/// One of the server's tar streams.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Archive {
    /// `base`, or the tablespace's OID: the folder of its parts.
    pub name: String,
    /// The tablespace's directory on the server; `None` for `base`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// How many parts, numbered from 0.
    pub parts: u64,
    /// Raw bytes of the tar stream, its end marker included.
    pub size: u64,
    /// Stored bytes of all its parts.
    pub stored_size: u64,
}

/// Size and BLAKE3 of some raw bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Raw bytes.
    pub size: u64,
    /// BLAKE3 of the raw bytes, 64 hex digits.
    pub blake3: String,
}

/// One line of `files.zst`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexLine {
    /// What follows, up to the next such line, is of this archive.
    Archive {
        /// As in [`Archive::name`].
        name: String,
    },
    /// One zstd frame of the tar stream. Frames follow each other without holes.
    Frame(Frame),
    /// One entry of the tar stream.
    Entry(Entry),
}

/// Where one zstd frame is, and what it must decode to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The part's number.
    pub part: u64,
    /// Offset of the frame's first byte in the stored part.
    pub at: u64,
    /// Stored bytes.
    pub stored: u32,
    /// Raw bytes.
    pub raw: u32,
    /// BLAKE3 of the raw bytes, 64 hex digits.
    pub blake3: String,
}

impl Frame {
    /// What must be decoded.
    pub fn proof(&self) -> FrameDigest<'_> {
        FrameDigest::Blake3(&self.blake3)
    }
}

/// A file, directory or link of the tar stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path inside its archive: below the data directory for `base`, below the tablespace's directory
    /// otherwise.
    pub path: String,
    /// File, directory or link.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner on the server.
    pub uid: u32,
    /// Group on the server.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Bytes of the file.
    #[serde(default)]
    pub size: u64,
    /// Offset of the file's first byte in the raw tar stream.
    #[serde(default)]
    pub at: u64,
    /// CRC32C of the file's bytes; compared with the server's manifest before the backup was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<u32>,
    /// A link's target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// The kinds of entries a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link (`pg_tblspc/OID`).
    Link,
}
