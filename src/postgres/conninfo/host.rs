//! Hosts, addresses and ports: three lists that belong together.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::ConnInfoError;

/// One way to reach a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Host name, as certificates and the passfile know it; empty when only an address was given.
    pub name: String,
    /// Name, address or directory.
    pub target: Target,
    /// Port, also part of the socket's name.
    pub port: u16,
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A directory that holds `.s.PGSQL.<port>`.
    Socket(PathBuf),
    /// A name to be resolved.
    Name(String),
    /// `hostaddr`: no name resolution.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Socket(dir) => write!(f, "{}", self.socket_path(dir).display()),
            Target::Name(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Target::Name(name) => write!(f, "{name}:{}", self.port),
            Target::Address(IpAddr::V6(addr)) => write!(f, "[{addr}]:{}", self.port),
            Target::Address(addr) => write!(f, "{addr}:{}", self.port),
        }
    }
}

impl Host {
    pub(in crate::postgres) fn socket_path(&self, dir: &std::path::Path) -> PathBuf {
        dir.join(format!(".s.PGSQL.{}", self.port))
    }
}

/// Where distributions and PostgreSQL itself put the socket.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

pub(super) fn is_default_socket_dir(dir: &std::path::Path) -> bool {
    SOCKET_DIRS.iter().any(|d| dir == std::path::Path::new(d))
}

pub(super) fn hosts(
    host: Option<&str>,
    hostaddr: Option<&str>,
    port: Option<&str>,
) -> Result<Vec<Host>, ConnInfoError> {
    let split = |text: Option<&str>| {
        text.map(|t| t.split(',').map(|s| s.trim().to_owned()).collect::<Vec<_>>()).unwrap_or_default()
    };
    let (names, addresses, ports) = (split(host), split(hostaddr), split(port));
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(ConnInfoError::Count(names.len(), addresses.len(), "hostaddr"));
    }
    let count = names.len().max(addresses.len()).max(1);
    if ports.len() > 1 && ports.len() != count {
        return Err(ConnInfoError::Count(count, ports.len(), "port"));
    }
    let mut hosts = Vec::new();
    for i in 0..count {
        let port_text = ports.get(i).or_else(|| ports.first().filter(|_| ports.len() == 1));
        let port = match port_text.map(String::as_str).filter(|p| !p.is_empty()) {
            None => 5432,
            Some(text) => text.parse().ok().filter(|p| *p != 0).ok_or_else(|| ConnInfoError::Value {
                key: "port",
                value: text.to_owned(),
                expected: "a number from 1 to 65535",
            })?,
        };
        let name = names.get(i).cloned().unwrap_or_default();
        if let Some(address) = addresses.get(i).filter(|a| !a.is_empty()) {
            let addr = address.parse().map_err(|_| ConnInfoError::Value {
                key: "hostaddr",
                value: address.clone(),
                expected: "an IP address",
            })?;
            hosts.push(Host { name, target: Target::Address(addr), port });
        } else if name.is_empty() {
            hosts.extend(SOCKET_DIRS.map(|dir| Host {
                name: String::new(),
                target: Target::Socket(dir.into()),
                port,
            }));
        } else if name.starts_with('/') {
            hosts.push(Host { target: Target::Socket(name.clone().into()), name, port });
        } else if name.starts_with('@') {
            return Err(ConnInfoError::Unsupported("host".to_owned()));
        } else {
            hosts.push(Host { target: Target::Name(name.clone()), name, port });
        }
    }
    Ok(hosts)
}
