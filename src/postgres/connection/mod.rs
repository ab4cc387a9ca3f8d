//! One connection: reached, encrypted, logged in; then one command at a time.
//!
//! Notices and parameter changes may come at any point, inside a copy as well; they are taken out of the
//! stream here. An error from the server is an `Err` of the call that meets it.

mod copy;
mod open;
mod socket;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::{PostgresError, ServerError};
use socket::Socket;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Ordinary SQL in the database that the connection string names.
    Sql,
    /// Replication commands, and nothing else.
    Replication,
}

/// Room for what arrives.
const READ_AHEAD: usize = 256 << 10;

/// Notices that nobody asks for are forgotten beyond this.
const MAX_NOTICES: usize = 1000;

/// A logged-in connection.
pub struct Connection {
    socket: Box<dyn Socket>,
    input: BytesMut,
    target: String,
    parameters: BTreeMap<String, String>,
    notices: VecDeque<ServerError>,
    encrypted: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("target", &self.target).finish_non_exhaustive()
    }
}

/// A message that is neither an error nor one of those that may come at any time.
pub(super) enum Received {
    Message(Message),
    /// `W`, which `postgres-protocol` does not know.
    CopyBoth,
}

/// One row of text values.
#[derive(Debug, Clone)]
pub struct Row(Vec<Option<Bytes>>);

impl Row {
    pub(super) fn read(body: &DataRowBody) -> io::Result<Self> {
        let buffer = body.buffer_bytes();
        Ok(Self(body.ranges().map(|range| Ok(range.map(|r| buffer.slice(r)))).collect()?))
    }

    /// A column's bytes; `None` for NULL or a column that is not there.
    pub fn bytes(&self, column: usize) -> Option<&Bytes> {
        self.0.get(column).and_then(Option::as_ref)
    }

    /// A column's text; `None` for NULL.
    pub fn text(&self, column: usize) -> Option<&str> {
        self.bytes(column).and_then(|b| std::str::from_utf8(b).ok())
    }

    /// A column that has to be there, as whatever it should be.
    pub fn parse<T: std::str::FromStr>(&self, column: usize, what: &str) -> Result<T, PostgresError> {
        self.text(column)
            .and_then(|t| t.parse().ok())
            .ok_or_else(|| PostgresError::protocol(format!("a row without a readable {what}")))
    }
}

impl Connection {
    /// Host and port, or the socket.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// A parameter that the server reports by itself: `server_version`, `TimeZone`, …
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The notices and warnings since the last call.
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        self.notices.drain(..).collect()
    }

    /// Sends one command and collects its rows; of several result sets, all rows in order.
    pub async fn query(&mut self, command: &str, action: &str) -> Result<Vec<Row>, PostgresError> {
        self.start(command).await?;
        let mut rows = Vec::new();
        loop {
            match self.receive_or_drain(action).await? {
                Received::Message(Message::DataRow(body)) => {
                    rows.push(Row::read(&body).map_err(PostgresError::Lost)?);
                }
                Received::Message(Message::ReadyForQuery(_)) => return Ok(rows),
                Received::Message(
                    Message::RowDescription(_) | Message::CommandComplete(_) | Message::EmptyQueryResponse,
                ) => {}
                _ => return Err(PostgresError::protocol(format!("a message that is no answer to {action}"))),
            }
        }
    }

    /// As [`Connection::query`], each row handed on when it arrives. The outer error is `each`'s own, or that of
    /// a connection that cannot be used any more; the inner one is the server's, and the next command may follow.
    pub(super) async fn query_each<E: From<PostgresError>>(
        &mut self,
        command: &str,
        action: &str,
        mut each: impl FnMut(Row) -> Result<(), E>,
    ) -> Result<Result<(), PostgresError>, E> {
        self.start(command).await?;
        loop {
            match self.receive_or_drain(action).await {
                Ok(Received::Message(Message::DataRow(body))) => {
                    each(Row::read(&body).map_err(PostgresError::Lost)?)?;
                }
                Ok(Received::Message(Message::ReadyForQuery(_))) => return Ok(Ok(())),
                Ok(Received::Message(Message::RowDescription(_) | Message::CommandComplete(_))) => {}
                Ok(_) => {
                    let what = format!("a message that is no answer to {action}");
                    return Err(PostgresError::protocol(what).into());
                }
                Err(e) if e.server().is_some() => return Ok(Err(e)),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Whether the server is in recovery.
    pub(super) async fn is_standby(&mut self) -> Result<bool, PostgresError> {
        Ok(match self.parameter("in_hot_standby") {
            Some(value) => value == "on",
            // Before 14; a server in recovery has no other setting of this.
            None => self.show("transaction_read_only").await? == "on",
        })
    }

    /// A setting's value, as `SHOW` prints it.
    pub async fn show(&mut self, setting: &'static str) -> Result<String, PostgresError> {
        let action = format!("SHOW {setting}");
        let rows = self.query(&action, &action).await?;
        rows.first().ok_or_else(|| PostgresError::protocol("no row for SHOW"))?.parse(0, setting)
    }

    /// Sends a command; its answer is to be received.
    pub(super) async fn start(&mut self, command: &str) -> Result<(), PostgresError> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out)
            .map_err(|e| PostgresError::protocol(format!("(nothing: the command cannot be sent: {e})")))?;
        self.send(&out).await
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), PostgresError> {
        self.socket.write_all(bytes).await.map_err(PostgresError::Lost)?;
        self.socket.flush().await.map_err(PostgresError::Lost)
    }

    /// The next message; may be dropped while it waits without losing anything.
    pub(super) async fn receive(&mut self, action: &str) -> Result<Received, PostgresError> {
        loop {
            if let Some(received) = self.parse(action)? {
                return Ok(received);
            }
            if self.input.capacity() - self.input.len() < 16 << 10 {
                self.input.reserve(READ_AHEAD);
            }
            match self.socket.read_buf(&mut self.input).await {
                Ok(0) => return Err(PostgresError::Closed),
                Ok(_) => {}
                Err(e) => return Err(PostgresError::Lost(e)),
            }
        }
    }

    /// As `receive`; after an error of a command, also what the server still has to say, so that the
    /// connection can be used again.
    pub(super) async fn receive_or_drain(&mut self, action: &str) -> Result<Received, PostgresError> {
        let error = match self.receive(action).await {
            Ok(received) => return Ok(received),
            Err(error) => error,
        };
        if error.server().is_some_and(|e| e.severity == "ERROR") {
            loop {
                match self.receive(action).await {
                    Ok(Received::Message(Message::ReadyForQuery(_))) | Err(_) => break,
                    Ok(_) => {}
                }
            }
        }
        Err(error)
    }

    fn parse(&mut self, action: &str) -> Result<Option<Received>, PostgresError> {
        loop {
            if self.input.first() == Some(&b'W') {
                let Some(length) = self.input.get(1..5) else { return Ok(None) };
                let length = length.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
                if self.input.len() < length + 1 {
                    return Ok(None);
                }
                drop(self.input.split_to(length + 1));
                return Ok(Some(Received::CopyBoth));
            }
            let message = Message::parse(&mut self.input)
                .map_err(|e| PostgresError::protocol(format!("a message that cannot be read ({e})")))?;
            match message {
                None => return Ok(None),
                Some(Message::NoticeResponse(body)) => {
                    let notice = ServerError::read(body.fields()).map_err(PostgresError::Lost)?;
                    tracing::debug!("the server says: {notice}");
                    if self.notices.len() >= MAX_NOTICES {
                        self.notices.pop_front();
                    }
                    self.notices.push_back(notice);
                }
                Some(Message::ParameterStatus(body)) => {
                    if let (Ok(name), Ok(value)) = (body.name(), body.value()) {
                        self.parameters.insert(name.to_owned(), value.to_owned());
                    }
                }
                Some(Message::NotificationResponse(_)) => {}
                Some(Message::ErrorResponse(body)) => {
                    let source = Box::new(ServerError::read(body.fields()).map_err(PostgresError::Lost)?);
                    return Err(PostgresError::Server { action: action.to_owned(), source });
                }
                Some(message) => return Ok(Some(Received::Message(message))),
            }
        }
    }

    /// Says good-bye. Not needed for safety: a server notices a closed socket too.
    pub async fn close(mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        drop(self.send(&out).await);
        drop(tokio::time::timeout(Duration::from_secs(1), self.socket.shutdown()).await);
    }
}
