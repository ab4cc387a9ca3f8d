//! WAL as a walsender streams it, and what it wants to hear meanwhile.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::connection::{Connection, Received, Row};
use super::error::PostgresError;
use crate::types::{Lsn, Moment, TimelineId};

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

impl<'a> WalStream<'a> {
    /// Sends `START_REPLICATION`.
    pub(super) async fn start(conn: &'a mut Connection, command: &str) -> Result<Self, PostgresError> {
        conn.start(command).await?;
        match conn.receive_or_drain("START_REPLICATION").await? {
            Received::CopyBoth => Ok(Self { conn, done: None }),
            // Exactly at a historic timeline's end there is nothing to copy.
            Received::Message(Message::RowDescription(_)) => {
                let done = next_timeline(conn).await?;
                Ok(Self { conn, done: Some(done) })
            }
            Received::Message(_) => Err(PostgresError::protocol("no stream after START_REPLICATION")),
        }
    }

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
    /// only what is durable may be told. Zero tells nothing: then no commit ever waits for us.
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
