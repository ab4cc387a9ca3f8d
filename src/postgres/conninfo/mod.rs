//! Where a server is and how to log in: libpq's conventions, one for one where it can be helped.
//!
//! Explicit settings win over those of a service file, these over the environment, these over defaults, as
//! in libpq. Without an explicit string, `DATABASE_URL` takes its place. The environment is a lookup
//! function, so that nothing here depends on the process it runs in.
//!
//! A key that libpq does not know is an error, and so is one that it knows and that cannot be honoured
//! here: a check that was asked for is never dropped silently.

mod settings;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{passfile, service_file};
use settings::{IGNORED, KNOWN, Settings};
pub use words::{ChannelBindingMode, SessionAttrs, SslMode, SslNegotiation};

/// Why a connection string or its surroundings cannot be used. Never repeats a value that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum ConnInfoError {
    /// The text itself.
    #[error("the connection string cannot be read: {0}")]
    Syntax(&'static str),
    /// libpq has no such key.
    #[error("\"{0}\" is not a connection parameter")]
    UnknownKey(String),
    /// libpq has it; here it cannot be honoured.
    #[error("the connection parameter \"{0}\" is not supported with this value")]
    Unsupported(String),
    /// A value of the wrong kind.
    #[error("the connection parameter \"{key}\" cannot be \"{value}\": expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is possible.
        expected: &'static str,
    },
    /// Lists of hosts, addresses and ports that do not fit together.
    #[error("{0} hosts, but {1} values of \"{2}\"")]
    Count(usize, usize, &'static str),
    /// A service that no file defines.
    #[error("no service file defines the service \"{0}\"")]
    NoService(String),
    /// A line of a service file.
    #[error("line {line} of the service file {path} cannot be read")]
    ServiceSyntax {
        /// The file.
        path: String,
        /// The line's number.
        line: usize,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Its path.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// No name to log in with.
    #[error("no user is given, and the operating system has no name for this one")]
    NoUser,
}

/// A password. Neither Debug nor anything else shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The bytes to log in with.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

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
    pub(super) fn socket_path(&self, dir: &std::path::Path) -> PathBuf {
        dir.join(format!(".s.PGSQL.{}", self.port))
    }
}

/// TCP keepalives; a connection that carries nothing for hours must not outlive its network unnoticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Idle time before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// How many unanswered ones end the connection.
    pub count: u32,
}

/// `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// The operating system's authorities.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// Everything that is needed to reach a server and log in.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    /// To be tried in this order.
    pub hosts: Vec<Host>,
    /// Role.
    pub user: String,
    /// Database, where one was named.
    pub dbname: Option<String>,
    /// `application_name`.
    pub application_name: String,
    /// Command-line options for the session.
    pub options: Option<String>,
    /// `sslmode`.
    pub sslmode: SslMode,
    /// `sslnegotiation`.
    pub sslnegotiation: SslNegotiation,
    /// `sslrootcert`, or the default file where it is there.
    pub sslrootcert: Option<RootCert>,
    /// Client certificate and key, where there are any.
    pub sslcert: Option<(PathBuf, PathBuf)>,
    /// `channel_binding`.
    pub channel_binding: ChannelBindingMode,
    /// `target_session_attrs`.
    pub target_session_attrs: SessionAttrs,
    /// For each address; `None` waits as long as the system does.
    pub connect_timeout: Option<Duration>,
    /// `None` with `keepalives=0`.
    pub keepalive: Option<KeepAlive>,
    /// `tcp_user_timeout`.
    pub tcp_user_timeout: Option<Duration>,
    password: Option<Password>,
    passfile: Option<PathBuf>,
}

impl ConnInfo {
    /// Puts an explicit string (or `DATABASE_URL`), a service and the environment together.
    pub fn resolve(
        explicit: Option<&str>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnInfoError> {
        let env = &|name: &str| env(name).filter(|value| !value.is_empty());
        let text = explicit.map(str::to_owned).or_else(|| env("DATABASE_URL")).unwrap_or_default();
        let mut settings = Settings::parse(&text)?;
        let named = |settings: &Settings, key: &str, variable: &str| {
            settings.0.get(key).cloned().filter(|v| !v.is_empty()).or_else(|| env(variable))
        };
        if let Some(service) = named(&settings, "service", "PGSERVICE") {
            let file = named(&settings, "servicefile", "PGSERVICEFILE");
            for (key, value) in service_file::read(&service, file.as_deref(), env)? {
                settings.set_default(&key, value)?;
            }
        }
        let ignored = IGNORED.iter().map(|(key, variable, _)| (key, variable));
        for (key, variable) in KNOWN.iter().map(|(key, variable)| (key, variable)).chain(ignored) {
            if let Some(value) = (!variable.is_empty()).then(|| env(variable)).flatten() {
                settings.set_default(key, value)?;
            }
        }
        Self::from_settings(&settings, env)
    }

    fn from_settings(
        settings: &Settings,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnInfoError> {
        let get = |key: &str| settings.0.get(key).map(String::as_str).filter(|v| !v.is_empty());
        let home = env("HOME").map(PathBuf::from);
        let in_home = |name: &str| home.as_ref().map(|h| h.join(name));

        let sslrootcert = match get("sslrootcert") {
            Some("system") => Some(RootCert::System),
            Some(file) => Some(RootCert::File(file.into())),
            None => in_home(".postgresql/root.crt").filter(|p| p.exists()).map(RootCert::File),
        };
        let system = sslrootcert == Some(RootCert::System);
        let sslmode = match get("sslmode").map(SslMode::parse).transpose()? {
            None if system => SslMode::VerifyFull,
            Some(mode) if system && mode != SslMode::VerifyFull => {
                return Err(ConnInfoError::Value {
                    key: "sslmode",
                    value: mode.as_str().to_owned(),
                    expected: "verify-full together with sslrootcert=system",
                });
            }
            mode => mode.unwrap_or(SslMode::Prefer),
        };
        let sslnegotiation =
            get("sslnegotiation").map_or(Ok(SslNegotiation::Postgres), SslNegotiation::parse)?;
        if sslnegotiation == SslNegotiation::Direct && sslmode < SslMode::Require {
            return Err(ConnInfoError::Value {
                key: "sslmode",
                value: sslmode.as_str().to_owned(),
                expected: "require or stricter together with sslnegotiation=direct",
            });
        }
        let cert = get("sslcert").map(PathBuf::from);
        let explicit_cert = cert.is_some();
        let cert = cert.or_else(|| in_home(".postgresql/postgresql.crt").filter(|p| p.exists()));
        let key = get("sslkey").map(PathBuf::from).or_else(|| in_home(".postgresql/postgresql.key"));
        let sslcert = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (Some(cert), None) if explicit_cert => Some((cert.clone(), cert)),
            _ => None,
        };

        Ok(Self {
            hosts: hosts(get("host"), get("hostaddr"), get("port"))?,
            user: match get("user") {
                Some(user) => user.to_owned(),
                None => system_user(env).ok_or(ConnInfoError::NoUser)?,
            },
            dbname: get("dbname").map(str::to_owned),
            application_name: get("application_name")
                .or_else(|| get("fallback_application_name"))
                .unwrap_or("pitr")
                .to_owned(),
            options: get("options").map(str::to_owned),
            sslmode,
            sslnegotiation,
            sslrootcert,
            sslcert,
            channel_binding: get("channel_binding")
                .map_or(Ok(ChannelBindingMode::Prefer), ChannelBindingMode::parse)?,
            target_session_attrs: get("target_session_attrs")
                .map_or(Ok(SessionAttrs::Any), SessionAttrs::parse)?,
            connect_timeout: connect_timeout(get("connect_timeout"))?,
            keepalive: keepalive(&get)?,
            tcp_user_timeout: match number("tcp_user_timeout", get("tcp_user_timeout"))? {
                None | Some(0) => None,
                Some(ms) => Some(Duration::from_millis(ms)),
            },
            password: get("password").map(|p| Password(p.to_owned())),
            passfile: get("passfile").map(PathBuf::from).or_else(|| in_home(".pgpass")),
        })
    }

    /// The password for one host: given, or from the passfile, where the database of a replication
    /// connection is called `replication`.
    pub(super) fn password_for(
        &self,
        host: &Host,
        replication: bool,
    ) -> Result<Option<Password>, ConnInfoError> {
        if let Some(password) = &self.password {
            return Ok(Some(password.clone()));
        }
        let Some(path) = &self.passfile else { return Ok(None) };
        let name = match &host.target {
            Target::Socket(dir) if is_default_socket_dir(dir) => "localhost".to_owned(),
            Target::Socket(dir) => dir.display().to_string(),
            _ if !host.name.is_empty() => host.name.clone(),
            Target::Name(name) => name.clone(),
            Target::Address(addr) => addr.to_string(),
        };
        let dbname = if replication { "replication" } else { self.database() };
        let wanted = passfile::Wanted { host: &name, port: host.port, dbname, user: &self.user };
        passfile::lookup(path, &wanted)
            .map(|found| found.map(Password))
            .map_err(|source| ConnInfoError::File { path: path.display().to_string(), source })
    }

    /// The database for ordinary SQL. libpq would take the user's name; a role that only takes backups
    /// rarely has a database of its own, and `postgres` is there everywhere.
    pub fn database(&self) -> &str {
        self.dbname.as_deref().unwrap_or("postgres")
    }
}

impl fmt::Display for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.user)?;
        for (i, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Where distributions and PostgreSQL itself put the socket.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

fn is_default_socket_dir(dir: &std::path::Path) -> bool {
    SOCKET_DIRS.iter().any(|d| dir == std::path::Path::new(d))
}

fn hosts(host: Option<&str>, hostaddr: Option<&str>, port: Option<&str>) -> Result<Vec<Host>, ConnInfoError> {
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

fn number(key: &'static str, text: Option<&str>) -> Result<Option<u64>, ConnInfoError> {
    text.map(|text| {
        text.trim().parse().map_err(|_| ConnInfoError::Value {
            key,
            value: text.to_owned(),
            expected: "a whole number",
        })
    })
    .transpose()
}

/// libpq waits for ever unless told otherwise, and takes 1 for 2. A tool that runs by itself at night does
/// better to say after half a minute that nobody answers; 0 and negative numbers still mean for ever.
fn connect_timeout(text: Option<&str>) -> Result<Option<Duration>, ConnInfoError> {
    if text.is_some_and(|t| t.trim().starts_with('-')) {
        return Ok(None);
    }
    Ok(match number("connect_timeout", text)? {
        None => Some(Duration::from_secs(30)),
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(seconds.max(2))),
    })
}

fn keepalive<'a>(get: &dyn Fn(&str) -> Option<&'a str>) -> Result<Option<KeepAlive>, ConnInfoError> {
    if number("keepalives", get("keepalives"))? == Some(0) {
        return Ok(None);
    }
    let value = |key, default| Ok(number(key, get(key))?.filter(|v| *v != 0).unwrap_or(default));
    Ok(Some(KeepAlive {
        idle: Duration::from_secs(value("keepalives_idle", 60)?),
        interval: Duration::from_secs(value("keepalives_interval", 10)?),
        count: u32::try_from(value("keepalives_count", 6)?).unwrap_or(6),
    }))
}

/// The name that peer authentication will see.
fn system_user(env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.or_else(|| env("USER")).or_else(|| env("LOGNAME"))
}
