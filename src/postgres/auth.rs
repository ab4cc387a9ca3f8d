//! Logging in. With `channel_binding=require` nothing that a man in the middle could use is ever sent.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use super::connection::{Connection, Received};
use super::conninfo::{ChannelBindingMode, ConnInfo, Password};
use super::error::PostgresError;

/// How far the login is bound to the TLS connection.
pub(super) enum Binding {
    /// No TLS.
    Plain,
    /// TLS; the certificate's digest where there can be one.
    Tls(Option<Vec<u8>>),
}

/// Answers the server's questions until it lets us in.
pub(super) async fn log_in(
    conn: &mut Connection,
    info: &ConnInfo,
    password: Option<&Password>,
    binding: &Binding,
) -> Result<(), PostgresError> {
    let target = conn.target().to_owned();
    let fail = |what: String| PostgresError::Login { target: target.clone(), what };
    let must_bind = info.channel_binding == ChannelBindingMode::Require;
    let need_password = || {
        password.map(Password::reveal).ok_or_else(|| {
            fail(format!(
                "the server asks for a password, and none is given for the role \"{}\" (neither in the \
                 connection string, nor PGPASSWORD, nor a line that fits in the password file)",
                info.user
            ))
        })
    };
    let unbound = || {
        fail("channel_binding=require, and the server wants to log us in without channel binding".to_owned())
    };
    let mut bound = false;
    loop {
        let message = match conn.receive("the login").await? {
            Received::Message(message) => message,
            Received::CopyBoth => return Err(PostgresError::protocol("a copy response during login")),
        };
        let mut out = BytesMut::new();
        match message {
            Message::AuthenticationOk if must_bind && !bound => return Err(unbound()),
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword | Message::AuthenticationMd5Password(_) if must_bind => {
                return Err(unbound());
            }
            Message::AuthenticationCleartextPassword => {
                write(frontend::password_message(need_password()?.as_bytes(), &mut out))?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(info.user.as_bytes(), need_password()?.as_bytes(), body.salt());
                write(frontend::password_message(hash.as_bytes(), &mut out))?;
            }
            Message::AuthenticationSasl(body) => {
                bound = scram(conn, info, &body, need_password()?, binding, &fail).await?;
                continue;
            }
            Message::AuthenticationGss | Message::AuthenticationSspi | Message::AuthenticationKerberosV5 => {
                return Err(fail(
                    "the server asks for GSSAPI or Kerberos, which is not supported".to_owned(),
                ));
            }
            _ => return Err(PostgresError::protocol("an unknown message during login")),
        }
        conn.send(&out).await?;
    }
}

async fn scram(
    conn: &mut Connection,
    info: &ConnInfo,
    body: &AuthenticationSaslBody,
    password: &str,
    binding: &Binding,
    fail: &dyn Fn(String) -> PostgresError,
) -> Result<bool, PostgresError> {
    let offered: Vec<String> =
        body.mechanisms().map(|m| Ok(m.to_owned())).collect().map_err(PostgresError::Lost)?;
    let has = |name: &str| offered.iter().any(|m| m == name);
    let digest = match binding {
        Binding::Tls(Some(digest)) if info.channel_binding != ChannelBindingMode::Disable => Some(digest),
        _ => None,
    };
    let (mechanism, channel, bound) = match digest {
        Some(digest) if has(SCRAM_SHA_256_PLUS) => {
            (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(digest.clone()), true)
        }
        _ if info.channel_binding == ChannelBindingMode::Require => {
            let why = match (binding, digest) {
                (Binding::Plain, _) => "the connection is not encrypted",
                (_, None) => "the server's certificate has a signature for which no binding is defined",
                _ => "the server does not offer SCRAM-SHA-256-PLUS",
            };
            return Err(fail(format!("channel_binding=require, and {why}")));
        }
        _ if !has(SCRAM_SHA_256) => {
            return Err(fail(format!("none of the server's login methods is known: {}", offered.join(", "))));
        }
        // Says "I could have": a server that did offer PLUS then knows that somebody removed it.
        Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested(), false),
        None => (SCRAM_SHA_256, ChannelBinding::unsupported(), false),
    };
    let bad = |e: std::io::Error| fail(format!("the server's part of SCRAM does not hold: {e}"));
    let mut scram = ScramSha256::new(password.as_bytes(), channel);
    let mut out = BytesMut::new();
    write(frontend::sasl_initial_response(mechanism, scram.message(), &mut out))?;
    conn.send(&out).await?;
    match conn.receive("the login").await? {
        Received::Message(Message::AuthenticationSaslContinue(body)) => {
            scram.update(body.data()).map_err(bad)?
        }
        _ => return Err(PostgresError::protocol("something else than its part of SCRAM")),
    }
    out.clear();
    write(frontend::sasl_response(scram.message(), &mut out))?;
    conn.send(&out).await?;
    match conn.receive("the login").await? {
        Received::Message(Message::AuthenticationSaslFinal(body)) => {
            scram.finish(body.data()).map_err(bad)?
        }
        _ => return Err(PostgresError::protocol("something else than its proof of SCRAM")),
    }
    Ok(bound)
}

fn write(result: std::io::Result<()>) -> Result<(), PostgresError> {
    result.map_err(|e| PostgresError::protocol(format!("(nothing: the password cannot be sent: {e})")))
}
