//! From a connection string to a logged-in connection: each host, each address, plain or encrypted.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::net::{TcpStream, UnixStream};

use super::socket::{Socket, secure};
use super::{Connection, Purpose, READ_AHEAD, Received};
use crate::postgres::auth::{self, Binding};
use crate::postgres::conninfo::{ConnInfo, Host, SessionAttrs, SslMode, Target};
use crate::postgres::error::PostgresError;

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
}

/// `prefer` and `allow` try the other way after a failed handshake, and where `pg_hba.conf` may have lines
/// for the other way only. A wrong password stays wrong.
fn may_try_the_other_way(error: &PostgresError) -> bool {
    match error {
        PostgresError::NoTls { .. } | PostgresError::TlsHandshake { .. } => true,
        error => error.code() == Some("28000"),
    }
}
