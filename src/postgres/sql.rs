//! Ordinary SQL: what replication commands cannot ask. Simple queries of our own making only; no value
//! from outside ever becomes part of one.

use super::connection::{Connection, Purpose, Row};
use super::conninfo::ConnInfo;
use super::error::PostgresError;
use crate::types::{Lsn, SegmentName, SystemId};

/// A connection for SQL.
#[derive(Debug)]
pub struct SqlClient {
    conn: Connection,
}

/// `pg_stat_archiver`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiverStats {
    /// How many files were archived.
    pub archived: u64,
    /// The last one.
    pub last_archived: Option<String>,
    /// How many attempts failed.
    pub failed: u64,
    /// The last file that could not be archived.
    pub last_failed: Option<String>,
    /// Whether the last attempt of all failed.
    pub failing: bool,
}

impl SqlClient {
    /// Logs in.
    pub async fn connect(info: &ConnInfo) -> Result<Self, PostgresError> {
        let mut conn = Connection::connect(info, Purpose::Sql).await?;
        conn.query(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET DateStyle = ISO; SET search_path = pg_catalog",
            "the session's settings",
        )
        .await?;
        Ok(Self { conn })
    }

    /// The connection itself.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.conn
    }

    async fn one(&mut self, command: &str, action: &str) -> Result<Row, PostgresError> {
        let rows = self.conn.query(command, action).await?;
        rows.into_iter().next().ok_or_else(|| PostgresError::protocol(format!("no row for {action}")))
    }

    /// A setting's value as `SHOW` prints it.
    pub async fn show(&mut self, setting: &'static str) -> Result<String, PostgresError> {
        self.conn.show(setting).await
    }

    /// `server_version_num`.
    pub async fn server_version(&mut self) -> Result<u32, PostgresError> {
        self.show("server_version_num")
            .await?
            .parse()
            .map_err(|_| PostgresError::protocol("a server_version_num that is no number"))
    }

    /// The cluster's number.
    pub async fn system_id(&mut self) -> Result<SystemId, PostgresError> {
        let command = "SELECT system_identifier FROM pg_control_system()";
        self.one(command, "the system identifier").await?.parse(0, "system identifier")
    }

    /// Whether the server is a standby (or recovering).
    pub async fn is_in_recovery(&mut self) -> Result<bool, PostgresError> {
        let row = self.one("SELECT pg_is_in_recovery()", "pg_is_in_recovery()").await?;
        Ok(row.text(0) == Some("t"))
    }

    /// Where the primary writes, or up to where a standby has replayed.
    pub async fn wal_position(&mut self) -> Result<Lsn, PostgresError> {
        let command = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                       ELSE pg_current_wal_lsn() END";
        self.one(command, "the WAL position").await?.parse(0, "WAL position")
    }

    /// Ends the current segment, so that it is archived. Returns the end of the WAL in it.
    pub async fn switch_wal(&mut self) -> Result<Lsn, PostgresError> {
        self.one("SELECT pg_switch_wal()", "pg_switch_wal()").await?.parse(0, "WAL position")
    }

    /// Whether [`SqlClient::switch_wal`] is granted.
    pub async fn may_switch_wal(&mut self) -> Result<bool, PostgresError> {
        let command = "SELECT has_function_privilege('pg_catalog.pg_switch_wal()', 'EXECUTE')";
        Ok(self.one(command, "a privilege").await?.text(0) == Some("t"))
    }

    /// How the server's archiver fares.
    pub async fn archiver(&mut self) -> Result<ArchiverStats, PostgresError> {
        let command = "SELECT archived_count, last_archived_wal, failed_count, last_failed_wal, \
                       coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) \
                       FROM pg_stat_archiver";
        let row = self.one(command, "pg_stat_archiver").await?;
        let text = |column| row.text(column).filter(|t| !t.is_empty()).map(str::to_owned);
        Ok(ArchiverStats {
            archived: row.parse(0, "archived_count")?,
            last_archived: text(1),
            failed: row.parse(2, "failed_count")?,
            last_failed: text(3),
            failing: row.text(4) == Some("t"),
        })
    }

    /// Whether this role may take a base backup.
    pub async fn may_replicate(&mut self) -> Result<bool, PostgresError> {
        let command = "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user";
        Ok(self.one(command, "the role's attributes").await?.text(0) == Some("t"))
    }

    /// Ends the current segment; its name. Taken from the switch itself: the position that
    /// `pg_current_wal_lsn()` knows may still be at the end of the segment before.
    pub async fn end_segment(&mut self) -> Result<SegmentName, PostgresError> {
        let command = "SELECT pg_walfile_name(pg_switch_wal())";
        self.one(command, "pg_switch_wal()").await?.parse(0, "segment name")
    }

    /// The server's clock, in microseconds since 1970.
    pub async fn clock_micros(&mut self) -> Result<i64, PostgresError> {
        let command = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
        self.one(command, "the server's clock").await?.parse(0, "moment")
    }

    /// `archive_library`; empty before 15, which has none.
    pub async fn archive_library(&mut self) -> Result<String, PostgresError> {
        let command = "SELECT coalesce(current_setting('archive_library', true), '')";
        Ok(self.one(command, "archive_library").await?.text(0).unwrap_or_default().to_owned())
    }

    /// Writes a record that means nothing: a segment without one since the last switch is not switched.
    /// Any role may.
    pub async fn write_something(&mut self) -> Result<(), PostgresError> {
        let command = "SELECT pg_logical_emit_message(false, 'pitr', 'check')";
        self.one(command, "a message into the WAL").await.map(drop)
    }

    /// Says good-bye.
    pub async fn close(self) {
        self.conn.close().await;
    }
}
