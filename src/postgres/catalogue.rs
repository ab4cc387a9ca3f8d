//! What a server's objects are called: databases, and the relations of each. Any role that may connect may
//! read it, on a standby as well; rows are handed on while they arrive.
//!
//! Names are bytes. A database's own encoding is converted to UTF-8 by the server where it can; the names of
//! databases are not, because nothing says in which encoding somebody wrote them.

use bytes::Bytes;

use super::connection::{Connection, Purpose, Row};
use super::conninfo::ConnInfo;
use super::error::PostgresError;
use crate::types::{Lsn, SystemId};

/// A database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its OID.
    pub oid: u32,
    /// Its name, in whatever encoding it was given.
    pub name: Bytes,
    /// Whether anybody may connect to it: not to `template0`.
    pub connectable: bool,
    /// Whether its names have to be converted to be UTF-8.
    foreign_encoding: bool,
}

/// A table, index, view, sequence, … of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its OID.
    pub oid: u32,
    /// The number of its file; 0 where it has none, as a view.
    pub file: u32,
    /// The tablespace of its file, that of its database where it names none; 1664 for what all databases
    /// share.
    pub tablespace: u32,
    /// Its schema.
    pub schema: Bytes,
    /// Its name.
    pub name: Bytes,
    /// `pg_class.relkind`.
    pub kind: char,
    /// The table of an index or of a TOAST table.
    pub owner: Option<u32>,
}

/// A connection that reads the catalogue of one database.
#[derive(Debug)]
pub struct CatalogueClient {
    conn: Connection,
}

impl CatalogueClient {
    /// Logs in to `database`, or to the one that the connection string names.
    pub async fn connect(info: &ConnInfo, database: Option<&str>) -> Result<Self, PostgresError> {
        let info = match database {
            Some(name) => &info.for_database(name),
            None => info,
        };
        let mut conn = Connection::connect(info, Purpose::Sql).await?;
        // The caller has a limit of its own. Nothing is converted with SQL_ASCII.
        conn.query(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET search_path = pg_catalog; SET client_encoding = SQL_ASCII",
            "the session's settings",
        )
        .await?;
        Ok(Self { conn })
    }

    /// The cluster's number.
    pub async fn system_id(&mut self) -> Result<SystemId, PostgresError> {
        let command = "SELECT system_identifier FROM pg_control_system()";
        self.one(command, "the system identifier").await?.parse(0, "system identifier")
    }

    /// Where the primary writes, or up to where a standby has replayed: what is read next is what it was there, or a
    /// little later.
    pub async fn position(&mut self) -> Result<Lsn, PostgresError> {
        let command = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                       ELSE pg_current_wal_lsn() END";
        self.one(command, "the WAL position").await?.parse(0, "WAL position")
    }

    async fn one(&mut self, command: &str, action: &str) -> Result<Row, PostgresError> {
        let rows = self.conn.query(command, action).await?;
        rows.into_iter().next().ok_or_else(|| PostgresError::protocol(format!("no row for {action}")))
    }

    /// All databases of the cluster.
    pub async fn databases(&mut self) -> Result<Vec<Database>, PostgresError> {
        let command =
            "SELECT oid, datname, datallowconn, pg_encoding_to_char(encoding) FROM pg_database ORDER BY oid";
        let rows = self.conn.query(command, "pg_database").await?;
        rows.iter()
            .map(|row| {
                Ok(Database {
                    oid: row.parse(0, "OID")?,
                    name: row.bytes(1).cloned().unwrap_or_default(),
                    connectable: row.text(2) == Some("t"),
                    foreign_encoding: !matches!(row.text(3), Some("UTF8" | "SQL_ASCII")),
                })
            })
            .collect()
    }

    /// The relations of this connection's database, which is `database`, one after another. An error of `each` ends
    /// it. A relation may be told twice.
    pub async fn relations<E: From<PostgresError>>(
        &mut self,
        database: &Database,
        mut each: impl FnMut(Relation) -> Result<(), E>,
    ) -> Result<(), E> {
        // A mapped relation has no number in pg_class, and only one function knows it.
        const COMMAND: &str = "SELECT c.oid, \
             CASE WHEN c.relfilenode <> 0 THEN c.relfilenode ELSE coalesce(pg_relation_filenode(c.oid), 0) END, \
             CASE WHEN c.relisshared THEN 1664 WHEN c.reltablespace <> 0 THEN c.reltablespace ELSE d.dattablespace END, \
             n.nspname, c.relname, c.relkind, coalesce(i.indrelid, t.oid) \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_database d ON d.datname = current_database() \
             LEFT JOIN pg_index i ON i.indexrelid = c.oid \
             LEFT JOIN pg_class t ON c.relkind = 't' AND t.reltoastrelid = c.oid";
        let mut read = |row: Row| each(relation(&row)?);
        if database.foreign_encoding {
            self.conn.query("SET client_encoding = UTF8", "the session's settings").await?;
            match self.conn.query_each(COMMAND, "pg_class", &mut read).await? {
                Ok(()) => return Ok(()),
                // A name that UTF-8 cannot hold, or bytes that are none of the encoding: as they are, then.
                Err(e) if matches!(e.code(), Some("22021" | "22P05")) => {
                    self.conn.query("SET client_encoding = SQL_ASCII", "the session's settings").await?;
                }
                Err(e) => return Err(e.into()),
            }
        }
        self.conn.query_each(COMMAND, "pg_class", &mut read).await?.map_err(E::from)
    }

    /// Says good-bye.
    pub async fn close(self) {
        self.conn.close().await;
    }
}

fn relation(row: &Row) -> Result<Relation, PostgresError> {
    Ok(Relation {
        oid: row.parse(0, "OID")?,
        file: row.parse(1, "file number")?,
        tablespace: row.parse(2, "tablespace")?,
        schema: row.bytes(3).cloned().unwrap_or_default(),
        name: row.bytes(4).cloned().unwrap_or_default(),
        kind: row.parse(5, "kind of relation")?,
        owner: row.bytes(6).map(|_| row.parse(6, "OID")).transpose()?,
    })
}
