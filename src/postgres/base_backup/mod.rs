//! `BASE_BACKUP`: the cluster as tar streams, told as one sequence of events for all majors.
//!
//! 13 and 14 send a copy for each tablespace and one for the manifest, without the tars' end marker; from
//! 15 on it is a single copy with typed messages. Here both look the same, the end marker included. Success
//! is only what [`BaseBackup::next`] says with `Ok(None)`: a server reports damaged pages after everything
//! else was sent.

mod words;

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use postgres_protocol::message::backend::Message;

use self::words::{command, cstring, position, tablespace};
use super::connection::{Received, Row};
use super::error::PostgresError;
use super::replication::ReplicationClient;
use crate::types::{Lsn, TimelineId};

/// How the checkpoint before the backup is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// At once.
    Fast,
    /// Spread over time, as `checkpoint_completion_target` says.
    Spread,
}

/// What to ask for. The server never waits for archiving here: whoever calls checks it against the
/// repository, which is what counts.
#[derive(Debug, Clone)]
pub struct BaseBackupOptions {
    /// At most 1024 bytes, in one line.
    pub label: String,
    /// How soon to begin.
    pub checkpoint: Checkpoint,
    /// kB/s, from 32 to 1048576.
    pub max_rate: Option<u32>,
    /// `CRC32C`, `SHA256`, …
    pub manifest_checksums: &'static str,
}

/// A tablespace, as announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID; `None` for the data directory itself.
    pub oid: Option<u32>,
    /// Its directory on the server.
    pub location: Option<String>,
    /// The server's estimate.
    pub size: Option<u64>,
}

/// What a backup is made of, in order.
#[derive(Debug)]
pub enum BaseBackupEvent {
    /// The server is ready; comes once.
    Start {
        /// Where replay will have to start.
        lsn: Lsn,
        /// That position's timeline.
        timeline: TimelineId,
        /// Tablespaces first, the data directory last.
        tablespaces: Vec<Tablespace>,
    },
    /// A tar stream begins, and with it the one before ends.
    Archive {
        /// A tablespace's OID, or `base`.
        name: String,
        /// A tablespace's directory on the server.
        location: Option<String>,
    },
    /// The next bytes of the tar stream were appended to the caller's.
    Data,
    /// Raw bytes sent so far, by the server's count (15 and later).
    Progress(u64),
    /// The next bytes of the manifest.
    Manifest(Bytes),
    /// The backup has ended on the server; not yet success.
    End {
        /// Up to where WAL is needed.
        lsn: Lsn,
        /// That position's timeline.
        timeline: TimelineId,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the copy; for 13 and 14 also between copies.
    Between,
    Archive,
    /// 13 and 14: an archive is over, so many bytes of its end marker are still to be told.
    Marker(usize),
    Manifest,
    /// All copies are over.
    After,
    Done,
}

/// A running base backup.
#[derive(Debug)]
pub struct BaseBackup<'a> {
    client: &'a mut ReplicationClient,
    typed: bool,
    state: State,
    /// 13 and 14: the archives still to come.
    archives: VecDeque<Tablespace>,
    /// Bytes of the message of data that is being read.
    left: usize,
    /// Data that came behind a notice, as a message of its own.
    behind_notice: Bytes,
    queue: VecDeque<BaseBackupEvent>,
}

const ACTION: &str = "BASE_BACKUP";

impl<'a> BaseBackup<'a> {
    pub(super) async fn start(
        client: &'a mut ReplicationClient,
        options: &BaseBackupOptions,
    ) -> Result<Self, PostgresError> {
        let typed = client.major() >= 15;
        client.conn.start(&command(options, typed)).await?;
        let mut backup = Self {
            client,
            typed,
            state: State::Between,
            archives: VecDeque::new(),
            left: 0,
            behind_notice: Bytes::new(),
            queue: VecDeque::new(),
        };
        let start = backup.rows().await?;
        let first = start.first().ok_or_else(|| PostgresError::protocol("no start position"))?;
        let (lsn, timeline) = position(first)?;
        let tablespaces = backup.rows().await?.iter().map(tablespace).collect::<Result<Vec<_>, _>>()?;
        backup.archives = tablespaces.iter().cloned().collect();
        backup.queue.push_back(BaseBackupEvent::Start { lsn, timeline, tablespaces });
        Ok(backup)
    }

    /// The next event; `Ok(None)` once the server has said that all is well. Data is appended to `data`, until that
    /// holds `most` bytes, or the archive ends, or something else is said.
    pub async fn next(
        &mut self,
        data: &mut Vec<u8>,
        most: usize,
    ) -> Result<Option<BaseBackupEvent>, PostgresError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(Some(event));
            }
            let before = data.len();
            match self.state {
                State::Done => return Ok(None),
                State::Archive if !self.behind_notice.is_empty() => {
                    let now = self.behind_notice.len().min(most.saturating_sub(before));
                    data.extend_from_slice(&self.behind_notice.split_to(now));
                }
                State::Archive => {
                    let first: &[u8] = if self.typed { b"d" } else { b"" };
                    self.client.conn.copy_bodies(first, &mut self.left, data, most).await?;
                }
                State::Marker(left) => {
                    let now = left.min(most.saturating_sub(before));
                    data.resize(before + now, 0);
                    self.state = if now == left { State::Between } else { State::Marker(left - now) };
                }
                State::Between | State::Manifest | State::After => {}
            }
            if data.len() > before || self.left > 0 || !self.behind_notice.is_empty() {
                return Ok(Some(BaseBackupEvent::Data));
            }
            let message = match self.client.conn.receive_or_drain(ACTION).await? {
                Received::Message(message) => message,
                Received::CopyBoth => return Err(PostgresError::protocol("a stream in both directions")),
            };
            match (self.state, message) {
                (State::Archive | State::Manifest, Message::CopyData(body)) => {
                    let bytes = body.into_bytes();
                    if self.typed { self.typed_message(bytes)? } else { self.plain_message(bytes) }
                }
                (State::Between, Message::CopyOutResponse(_)) if self.typed => self.state = State::Archive,
                (State::Between, Message::CopyOutResponse(_)) => self.next_archive(),
                (State::Archive | State::Manifest, Message::CopyDone) if self.typed => {
                    self.state = State::After;
                }
                // These majors leave out the end marker.
                (State::Archive, Message::CopyDone) => self.state = State::Marker(1024),
                (State::Manifest, Message::CopyDone) => self.state = State::After,
                (State::After, Message::RowDescription(_) | Message::CommandComplete(_)) => {}
                (State::After, Message::DataRow(body)) => {
                    let (lsn, timeline) = position(&Row::read(&body).map_err(PostgresError::Lost)?)?;
                    self.queue.push_back(BaseBackupEvent::End { lsn, timeline });
                }
                (State::After, Message::ReadyForQuery(_)) => self.state = State::Done,
                _ => {
                    return Err(PostgresError::protocol("a message that does not belong into a base backup"));
                }
            }
        }
    }

    /// What the server warned about since the last call.
    pub fn take_notices(&mut self) -> Vec<super::ServerError> {
        self.client.conn.take_notices()
    }

    fn next_archive(&mut self) {
        match self.archives.pop_front() {
            Some(tablespace) => {
                let name = tablespace.oid.map_or_else(|| "base".to_owned(), |oid| oid.to_string());
                self.queue.push_back(BaseBackupEvent::Archive { name, location: tablespace.location });
                self.state = State::Archive;
            }
            None => self.state = State::Manifest,
        }
    }

    fn plain_message(&mut self, bytes: Bytes) {
        match self.state {
            State::Manifest => self.queue.push_back(BaseBackupEvent::Manifest(bytes)),
            _ => self.behind_notice = bytes,
        }
    }

    fn typed_message(&mut self, mut bytes: Bytes) -> Result<(), PostgresError> {
        let short = || PostgresError::protocol("a backup message that is too short");
        match bytes.try_get_u8().map_err(|_| short())? {
            b'd' => self.plain_message(bytes),
            b'p' => {
                let done = bytes.try_get_u64().map_err(|_| short())?;
                self.queue.push_back(BaseBackupEvent::Progress(done));
            }
            b'n' => {
                let file = cstring(&mut bytes).ok_or_else(short)?;
                let location = cstring(&mut bytes).ok_or_else(short)?;
                let name = file.strip_suffix(".tar").unwrap_or_default();
                let known = name == "base" || (!name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()));
                if !known {
                    return Err(PostgresError::protocol(format!("an archive called {file:?}")));
                }
                let location = Some(location).filter(|l| !l.is_empty());
                self.queue.push_back(BaseBackupEvent::Archive { name: name.to_owned(), location });
                self.state = State::Archive;
            }
            b'm' => self.state = State::Manifest,
            other => {
                return Err(PostgresError::protocol(format!(
                    "a backup message of type {:?}",
                    char::from(other)
                )));
            }
        }
        Ok(())
    }

    /// One result set, up to its end.
    async fn rows(&mut self) -> Result<Vec<Row>, PostgresError> {
        let mut rows = Vec::new();
        loop {
            match self.client.conn.receive_or_drain(ACTION).await? {
                Received::Message(Message::RowDescription(_)) => {}
                Received::Message(Message::DataRow(body)) => {
                    rows.push(Row::read(&body).map_err(PostgresError::Lost)?);
                }
                Received::Message(Message::CommandComplete(_)) => return Ok(rows),
                _ => return Err(PostgresError::protocol("no result set at the start of a base backup")),
            }
        }
    }
}
