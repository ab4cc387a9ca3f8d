//! A TCP connection made to last, and TLS on top of it.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustix::net::sockopt;
use rustls::pki_types::{IpAddr, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::postgres::auth::Binding;
use crate::postgres::conninfo::{ConnInfo, Host, SslNegotiation, Target};
use crate::postgres::error::PostgresError;
use crate::postgres::tls;

pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Sets the keepalives, and speaks TLS where it is asked for.
pub(super) async fn secure(
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
