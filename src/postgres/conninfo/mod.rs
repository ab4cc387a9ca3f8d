//! Where a server is and how to log in: libpq's conventions, one for one where it can be helped.
//!
//! Explicit settings win over those of a service file, these over the environment, these over defaults, as
//! in libpq. Without an explicit string, `DATABASE_URL` takes its place. The environment is a lookup
//! function, so that nothing here depends on the process it runs in.
//!
//! A key that libpq does not know is an error, and so is one that it knows and that cannot be honoured
//! here: a check that was asked for is never dropped silently.

mod error;
mod host;
mod patience;
mod settings;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{passfile, service_file};
pub use error::ConnInfoError;
pub use host::{Host, Target};
use host::{hosts, is_default_socket_dir};
pub use patience::KeepAlive;
use patience::{connect_timeout, keepalive, number};
use settings::{IGNORED, KNOWN, Settings};
pub use words::{ChannelBindingMode, SessionAttrs, SslMode, SslNegotiation};

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

    /// The same server and login, another database.
    #[must_use]
    pub(super) fn for_database(&self, name: &str) -> Self {
        Self { dbname: Some(name.to_owned()), ..self.clone() }
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
