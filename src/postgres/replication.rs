//! The replication protocol's commands, physical only, for majors 13 and later.
//!
//! What differs between majors is decided by the server's version and never by trying: an error on a
//! replication connection drops its temporary slots.

use bytes::Bytes;

use super::base_backup::{BaseBackup, BaseBackupOptions};
use super::connection::{Connection, Purpose, Row};
use super::conninfo::ConnInfo;
use super::error::PostgresError;
use super::wal_stream::WalStream;
use crate::types::{Lsn, SegmentSize, SystemId, TimelineId};

/// The first major that is supported.
pub const OLDEST_MAJOR: u32 = 13;

/// A replication connection.
#[derive(Debug)]
pub struct ReplicationClient {
    pub(super) conn: Connection,
    version: u32,
}

/// `IDENTIFY_SYSTEM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster's number.
    pub system_id: SystemId,
    /// The timeline it is on.
    pub timeline: TimelineId,
    /// Flushed on a primary; replayed or received on a standby.
    pub position: Lsn,
}

/// A physical slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotState {
    /// The oldest WAL it keeps.
    pub restart_lsn: Option<Lsn>,
    /// That position's timeline.
    pub restart_timeline: Option<TimelineId>,
}

impl ReplicationClient {
    /// Logs in and learns the version; a server older than 13 is refused.
    pub async fn connect(info: &ConnInfo) -> Result<Self, PostgresError> {
        let mut conn = Connection::connect(info, Purpose::Replication).await?;
        // What the server says by itself, first: before 10 it could not even be asked.
        let said = conn.parameter("server_version").unwrap_or_default().to_owned();
        let major = said.split(|c: char| !c.is_ascii_digit()).next().and_then(|m| m.parse::<u32>().ok());
        if major.is_some_and(|major| major < OLDEST_MAJOR) {
            return Err(PostgresError::TooOld { what: "pitr", needs: OLDEST_MAJOR, found: said });
        }
        let version = conn
            .show("server_version_num")
            .await?
            .parse()
            .map_err(|_| PostgresError::protocol("a server_version_num that is no number"))?;
        if version < OLDEST_MAJOR * 10_000 {
            return Err(PostgresError::TooOld { what: "pitr", needs: OLDEST_MAJOR, found: said });
        }
        Ok(Self { conn, version })
    }

    /// `server_version_num`.
    pub fn server_version(&self) -> u32 {
        self.version
    }

    /// 13, 14, …
    pub fn major(&self) -> u32 {
        self.version / 10_000
    }

    /// The connection itself.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.conn
    }

    /// Who the server is and where its WAL ends.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, PostgresError> {
        let row = self.one("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM").await?;
        Ok(SystemIdentity {
            system_id: row.parse(0, "system identifier")?,
            timeline: TimelineId(row.parse(1, "timeline")?),
            position: row.parse(2, "WAL position")?,
        })
    }

    /// A setting's value as `SHOW` prints it.
    pub async fn show(&mut self, setting: &'static str) -> Result<String, PostgresError> {
        self.conn.show(setting).await
    }

    /// `wal_segment_size`.
    pub async fn segment_size(&mut self) -> Result<SegmentSize, PostgresError> {
        let text = self.show("wal_segment_size").await?;
        parse_size(&text)
            .and_then(|bytes| SegmentSize::new(bytes).ok())
            .ok_or_else(|| PostgresError::protocol(format!("wal_segment_size = \"{text}\"")))
    }

    /// Whether the server is in recovery.
    pub async fn is_standby(&mut self) -> Result<bool, PostgresError> {
        self.conn.is_standby().await
    }

    /// Creates a physical slot that keeps WAL from now on. The old syntax is the one that all majors know.
    pub async fn create_slot(&mut self, name: &SlotName, temporary: bool) -> Result<(), PostgresError> {
        let temporary = if temporary { " TEMPORARY" } else { "" };
        let command = format!("CREATE_REPLICATION_SLOT \"{}\"{temporary} PHYSICAL RESERVE_WAL", name.0);
        self.one(&command, "CREATE_REPLICATION_SLOT").await.map(drop)
    }

    /// Drops a slot.
    pub async fn drop_slot(&mut self, name: &SlotName) -> Result<(), PostgresError> {
        let command = format!("DROP_REPLICATION_SLOT \"{}\" WAIT", name.0);
        self.conn.query(&command, "DROP_REPLICATION_SLOT").await.map(drop)
    }

    /// A slot's position; `None` where there is no such slot. From 15 on.
    pub async fn read_slot(&mut self, name: &SlotName) -> Result<Option<SlotState>, PostgresError> {
        if self.major() < 15 {
            let (what, needs) = ("READ_REPLICATION_SLOT", 15);
            return Err(PostgresError::TooOld { what, needs, found: (self.version / 10_000).to_string() });
        }
        let command = format!("READ_REPLICATION_SLOT \"{}\"", name.0);
        let row = self.one(&command, "READ_REPLICATION_SLOT").await?;
        Ok(row.text(0).is_some().then(|| SlotState {
            restart_lsn: row.text(1).and_then(|t| t.parse().ok()),
            restart_timeline: row.text(2).and_then(|t| t.parse().ok()).map(TimelineId),
        }))
    }

    /// A timeline's history file: its name and its bytes.
    pub async fn timeline_history(&mut self, timeline: TimelineId) -> Result<(String, Bytes), PostgresError> {
        let row = self.one(&format!("TIMELINE_HISTORY {timeline}"), "TIMELINE_HISTORY").await?;
        let content = row.bytes(1).cloned();
        Ok((row.parse(0, "file name")?, content.ok_or_else(|| PostgresError::protocol("an empty history"))?))
    }

    /// Starts a base backup.
    pub async fn base_backup(
        &mut self,
        options: &BaseBackupOptions,
    ) -> Result<BaseBackup<'_>, PostgresError> {
        BaseBackup::start(self, options).await
    }

    /// Starts to stream WAL; `from` should be a segment's first byte.
    pub async fn start_replication(
        &mut self,
        slot: Option<&SlotName>,
        timeline: TimelineId,
        from: Lsn,
    ) -> Result<WalStream<'_>, PostgresError> {
        let slot = slot.map(|s| format!("SLOT \"{}\" ", s.0)).unwrap_or_default();
        let command = format!("START_REPLICATION {slot}PHYSICAL {from} TIMELINE {timeline}");
        WalStream::start(&mut self.conn, &command).await
    }

    async fn one(&mut self, command: &str, action: &str) -> Result<Row, PostgresError> {
        let rows = self.conn.query(command, action).await?;
        rows.into_iter().next().ok_or_else(|| PostgresError::protocol(format!("no row for {action}")))
    }

    /// Says good-bye.
    pub async fn close(self) {
        self.conn.close().await;
    }
}

/// A slot's name: 1 to 63 of `a-z 0-9 _`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotName(String);

impl std::str::FromStr for SlotName {
    type Err = crate::types::ParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ok = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if ok && (1..=63).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Self::Err::new(text, "a slot's name (1 to 63 of a-z, 0-9 and _)"))
        }
    }
}

/// `16MB`, as `SHOW` prints a size.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
