//! One connection: reached, encrypted, logged in; then one command at a time.
//!
//! Notices and parameter changes may come at any point, inside a copy as well; they are taken out of the
//! stream here. An error from the server is an `Err` of the call that meets it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use rustix::net::sockopt;
use rustls::pki_types::{IpAddr, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::auth::{self, Binding};
use super::conninfo::{ConnInfo, Host, SessionAttrs, SslMode, SslNegotiation, Target};
use super::error::{PostgresError, ServerError};
use super::tls;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Ordinary SQL in the database that the connection string names.
    Sql,
    /// Replication commands, and nothing else.
    Replication,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Room for what arrives: a server sends a base backup in messages of up to 64 KiB.
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
    /// Tries each host, each of its addresses, and plain or TLS as `sslmode` says, until one lets us in.
    pub async fn connect(info: &ConnInfo, purpose: Purpose) -> Result<Self, PostgresError> {
        let mut last = None;
        let passes = match info.target_session_attrs {
            SessionAttrs::PreferStandby => vec![SessionAttrs::Standby, SessionAttrs::Any],
            attrs => vec![attrs],
        };
        for attrs in passes {
            for host in &info.hosts {
                match Self::connect_host(info, host, purpose, attrs).await {
                    Ok(conn) => return Ok(conn),
                    // libpq goes on only where a host could not be reached or will not do; a refused
                    // login is the answer.
                    Err(e) if e.server().is_some_and(|s| !s.code.starts_with("57P")) => return Err(e),
                    Err(e) => last = Some(e),
                }
            }
        }
        let last = last.unwrap_or(PostgresError::Closed);
        let count = info.hosts.len();
        Err(if count > 1 { PostgresError::AllHosts { count, source: Box::new(last) } } else { last })
    }

    async fn connect_host(
        info: &ConnInfo,
        host: &Host,
        purpose: Purpose,
        attrs: SessionAttrs,
    ) -> Result<Self, PostgresError> {
        let attempt = async {
            // sslmode does not apply to a socket of this machine, as in libpq.
            let local = matches!(host.target, Target::Socket(_));
            let (first, second) = match info.sslmode {
                _ if local => (false, None),
                SslMode::Disable => (false, None),
                SslMode::Allow => (false, Some(true)),
                SslMode::Prefer => (true, Some(false)),
                _ => (true, None),
            };
            match (Self::log_in(info, host, purpose, first).await, second) {
                (Err(e), Some(second)) if may_try_the_other_way(&e) => {
                    Self::log_in(info, host, purpose, second).await.map_err(|other| match other {
                        PostgresError::NoTls { .. } => e,
                        other => other,
                    })
                }
                (result, _) => result,
            }
        };
        let mut conn = match info.connect_timeout {
            None => attempt.await?,
            Some(limit) => tokio::time::timeout(limit, attempt).await.map_err(|_| {
                PostgresError::ConnectTimeout { target: host.to_string(), seconds: limit.as_secs() }
            })??,
        };
        let wants_standby = match attrs {
            SessionAttrs::Any | SessionAttrs::PreferStandby => return Ok(conn),
            SessionAttrs::Primary | SessionAttrs::ReadWrite => false,
            SessionAttrs::Standby | SessionAttrs::ReadOnly => true,
        };
        if conn.is_standby().await? == wants_standby {
            Ok(conn)
        } else {
            Err(PostgresError::WrongSession { target: host.to_string(), wanted: attrs.as_str() })
        }
    }

    async fn log_in(
        info: &ConnInfo,
        host: &Host,
        purpose: Purpose,
        encrypt: bool,
    ) -> Result<Self, PostgresError> {
        let target = host.to_string();
        let fail = |source| PostgresError::Connect { target: target.clone(), source };
        let (socket, binding): (Box<dyn Socket>, _) = match &host.target {
            Target::Socket(dir) => {
                let stream = UnixStream::connect(host.socket_path(dir)).await.map_err(fail)?;
                (Box::new(stream), Binding::Plain)
            }
            Target::Name(name) => {
                let tcp = TcpStream::connect((name.as_str(), host.port)).await.map_err(fail)?;
                secure(tcp, info, host, encrypt).await?
            }
            Target::Address(addr) => {
                let tcp = TcpStream::connect((*addr, host.port)).await.map_err(fail)?;
                secure(tcp, info, host, encrypt).await?
            }
        };
        let mut conn = Self {
            socket,
            input: BytesMut::with_capacity(READ_AHEAD),
            target,
            parameters: BTreeMap::new(),
            notices: VecDeque::new(),
            encrypted: matches!(binding, Binding::Tls(_)),
        };
        let replication = purpose == Purpose::Replication;
        let mut parameters = vec![
            ("user", info.user.as_str()),
            ("application_name", info.application_name.as_str()),
            ("client_encoding", "UTF8"),
        ];
        match purpose {
            Purpose::Sql => parameters.push(("database", info.database())),
            Purpose::Replication => parameters.push(("replication", "true")),
        }
        if let Some(options) = &info.options {
            parameters.push(("options", options));
        }
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out)
            .map_err(|e| PostgresError::protocol(format!("(nothing: a start-up parameter is bad: {e})")))?;
        conn.send(&out).await?;
        let password = info
            .password_for(host, replication)
            .map_err(|e| PostgresError::Login { target: conn.target.clone(), what: e.to_string() })?;
        auth::log_in(&mut conn, info, password.as_ref(), &binding).await?;
        loop {
            match conn.receive("the login").await? {
                Received::Message(Message::ReadyForQuery(_)) => return Ok(conn),
                Received::Message(Message::BackendKeyData(_)) => {}
                _ => return Err(PostgresError::protocol("an unknown message after login")),
            }
        }
    }

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

/// `prefer` and `allow` try the other way after a failed handshake, and where `pg_hba.conf` may have lines
/// for the other way only. A wrong password stays wrong.
fn may_try_the_other_way(error: &PostgresError) -> bool {
    match error {
        PostgresError::NoTls { .. } | PostgresError::TlsHandshake { .. } => true,
        error => error.code() == Some("28000"),
    }
}

async fn secure(
    tcp: TcpStream,
    info: &ConnInfo,
    host: &Host,
    encrypt: bool,
) -> Result<(Box<dyn Socket>, Binding), PostgresError> {
    tune(&tcp, info).map_err(|source| PostgresError::Connect { target: host.to_string(), source })?;
    if !encrypt {
        return Ok((Box::new(tcp), Binding::Plain));
    }
    let config = tls::config(info)?;
    let mut tcp = tcp;
    let direct = info.sslnegotiation == SslNegotiation::Direct;
    if !direct {
        let mut out = BytesMut::new();
        frontend::ssl_request(&mut out);
        tcp.write_all(&out).await.map_err(PostgresError::Lost)?;
        // Exactly one byte: whatever somebody may have put behind it goes into the handshake and spoils it.
        let answer = tcp.read_u8().await.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => PostgresError::Closed,
            _ => PostgresError::Lost(e),
        })?;
        if answer != b'S' {
            return Err(PostgresError::NoTls { target: host.to_string(), mode: info.sslmode.as_str() });
        }
    }
    let handshake = |source| PostgresError::TlsHandshake { target: host.to_string(), source };
    let name =
        server_name(host).ok_or_else(|| handshake(io::Error::other("the host's name is no DNS name")))?;
    let stream =
        tokio_rustls::TlsConnector::from(Arc::clone(&config)).connect(name, tcp).await.map_err(handshake)?;
    let (_, session) = stream.get_ref();
    if direct && session.alpn_protocol() != Some(tls::ALPN) {
        return Err(handshake(io::Error::other("the server did not choose the protocol \"postgresql\"")));
    }
    let digest = session.peer_certificates().and_then(|certs| certs.first()).and_then(|c| tls::end_point(c));
    Ok((Box::new(stream), Binding::Tls(digest)))
}

fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match &host.target {
        _ if !host.name.is_empty() => ServerName::try_from(host.name.clone()).ok(),
        Target::Name(name) => ServerName::try_from(name.clone()).ok(),
        Target::Address(addr) => Some(ServerName::IpAddress(IpAddr::from(*addr))),
        Target::Socket(_) => None,
    }
}

fn tune(tcp: &TcpStream, info: &ConnInfo) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, info.keepalive.is_some())?;
    if let Some(keepalive) = info.keepalive {
        sockopt::set_tcp_keepidle(tcp, keepalive.idle)?;
        sockopt::set_tcp_keepintvl(tcp, keepalive.interval)?;
        sockopt::set_tcp_keepcnt(tcp, keepalive.count)?;
    }
    if let Some(timeout) = info.tcp_user_timeout {
        sockopt::set_tcp_user_timeout(tcp, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?;
    }
    Ok(())
}
