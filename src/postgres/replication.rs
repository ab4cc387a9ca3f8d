//! The replication protocol's commands, physical only, for majors 13 and later.
//!
//! What differs between majors is decided by the server's version and never by trying: an error on a
//! replication connection drops its temporary slots.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::base_backup::{BaseBackup, BaseBackupOptions};
use super::connection::{Connection, Purpose, Received, Row};
use super::conninfo::ConnInfo;
use super::error::PostgresError;
use crate::types::{Lsn, Moment, SegmentSize, SystemId, TimelineId};

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
        self.conn.start(&command).await?;
        match self.conn.receive_or_drain("START_REPLICATION").await? {
            Received::CopyBoth => Ok(WalStream { conn: &mut self.conn, done: None }),
            // Exactly at a historic timeline's end there is nothing to copy.
            Received::Message(Message::RowDescription(_)) => {
                let done = next_timeline(&mut self.conn).await?;
                Ok(WalStream { conn: &mut self.conn, done: Some(done) })
            }
            Received::Message(_) => Err(PostgresError::protocol("no stream after START_REPLICATION")),
        }
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

/// What a WAL stream brings.
#[derive(Debug)]
pub enum WalEvent {
    /// WAL bytes.
    Data {
        /// Address of the first one.
        start: Lsn,
        /// Where the server's WAL ends.
        server_end: Lsn,
        /// The bytes.
        bytes: Bytes,
    },
    /// A sign of life.
    KeepAlive {
        /// Where the server's WAL ends.
        server_end: Lsn,
        /// The server's clock.
        moment: Option<Moment>,
        /// Whether it wants to hear from us at once.
        reply: bool,
    },
    /// The timeline was left here, and there will be nothing more.
    EndOfTimeline {
        /// The one that follows.
        next: TimelineId,
        /// Where it begins.
        at: Lsn,
    },
}

/// A stream of WAL. Say [`WalStream::reply`] at least every ten seconds.
#[derive(Debug)]
pub struct WalStream<'a> {
    conn: &'a mut Connection,
    done: Option<(TimelineId, Lsn)>,
}

impl WalStream<'_> {
    /// The next event. May be dropped while it waits (a timer, say) without losing anything, except at a
    /// timeline's end.
    pub async fn next(&mut self) -> Result<WalEvent, PostgresError> {
        if let Some((next, at)) = self.done {
            return Ok(WalEvent::EndOfTimeline { next, at });
        }
        match self.conn.receive("to stream WAL").await? {
            Received::Message(Message::CopyData(body)) => event(body.into_bytes()),
            Received::Message(Message::CopyDone) => {
                self.copy_done().await?;
                match self.conn.receive("to stream WAL").await? {
                    Received::Message(Message::RowDescription(_)) => {
                        let (next, at) = next_timeline(self.conn).await?;
                        self.done = Some((next, at));
                        Ok(WalEvent::EndOfTimeline { next, at })
                    }
                    // A server that shuts down ends the copy as well, without a word about timelines.
                    _ => Err(PostgresError::Closed),
                }
            }
            _ => Err(PostgresError::protocol("a message that does not belong into a WAL stream")),
        }
    }

    /// Tells the server how far we are. `flushed` moves a slot, and is what a synchronous commit waits for:
    /// only what is durable may be told.
    pub async fn reply(&mut self, written: Lsn, flushed: Lsn, now: Moment) -> Result<(), PostgresError> {
        const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
        let mut body = BytesMut::with_capacity(34);
        body.put_u8(b'r');
        body.put_u64(written.0);
        body.put_u64(flushed.0);
        body.put_u64(0);
        body.put_i64(now.0.as_microsecond() - POSTGRES_EPOCH);
        body.put_u8(0);
        let mut out = BytesMut::new();
        frontend::CopyData::new(body.freeze()).map_err(PostgresError::Lost)?.write(&mut out);
        self.conn.send(&out).await
    }

    /// Ends the stream from this side; the connection can then be used for the next command.
    pub async fn stop(self) -> Result<(), PostgresError> {
        if self.done.is_some() {
            return Ok(());
        }
        self.copy_done_and_drain().await
    }

    async fn copy_done_and_drain(mut self) -> Result<(), PostgresError> {
        self.copy_done().await?;
        let drain = async {
            loop {
                match self.conn.receive("to end the WAL stream").await? {
                    Received::Message(Message::ReadyForQuery(_)) => return Ok(()),
                    Received::Message(_) => {}
                    Received::CopyBoth => return Err(PostgresError::protocol("a second stream")),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), drain)
            .await
            .unwrap_or_else(|_| Err(PostgresError::protocol("more WAL after the stream was ended")))
    }

    async fn copy_done(&mut self) -> Result<(), PostgresError> {
        let mut out = BytesMut::new();
        frontend::copy_done(&mut out);
        self.conn.send(&out).await
    }
}

fn event(mut message: Bytes) -> Result<WalEvent, PostgresError> {
    let short = || PostgresError::protocol("a WAL message that is too short");
    match message.try_get_u8().map_err(|_| short())? {
        b'w' if message.len() >= 24 => {
            let start = Lsn(message.get_u64());
            let server_end = Lsn(message.get_u64());
            let _clock = message.get_i64();
            Ok(WalEvent::Data { start, server_end, bytes: message })
        }
        b'k' if message.len() >= 17 => Ok(WalEvent::KeepAlive {
            server_end: Lsn(message.get_u64()),
            moment: Moment::from_postgres_micros(message.get_i64()),
            reply: message.get_u8() != 0,
        }),
        b'w' | b'k' => Err(short()),
        other => Err(PostgresError::protocol(format!("a WAL message of type {:?}", char::from(other)))),
    }
}

/// The row that names the next timeline, up to the end of the command.
async fn next_timeline(conn: &mut Connection) -> Result<(TimelineId, Lsn), PostgresError> {
    let mut found = None;
    loop {
        match conn.receive_or_drain("to stream WAL").await? {
            Received::Message(Message::DataRow(body)) => {
                let row = Row::read(&body).map_err(PostgresError::Lost)?;
                found = Some((TimelineId(row.parse(0, "timeline")?), row.parse(1, "WAL position")?));
            }
            Received::Message(Message::ReadyForQuery(_)) => {
                return found.ok_or_else(|| PostgresError::protocol("no next timeline"));
            }
            Received::Message(_) => {}
            Received::CopyBoth => return Err(PostgresError::protocol("a second stream")),
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
