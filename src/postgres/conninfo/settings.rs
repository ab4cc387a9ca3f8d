//! From text to names and values: `key=value` strings and URIs.

use std::collections::BTreeMap;

use super::ConnInfoError;

/// What libpq knows and this client honours, with the environment variable of each.
pub(super) const KNOWN: &[(&str, &str)] = &[
    ("application_name", "PGAPPNAME"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("dbname", "PGDATABASE"),
    ("fallback_application_name", ""),
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("keepalives", ""),
    ("keepalives_count", ""),
    ("keepalives_idle", ""),
    ("keepalives_interval", ""),
    ("options", "PGOPTIONS"),
    ("passfile", "PGPASSFILE"),
    ("password", "PGPASSWORD"),
    ("port", "PGPORT"),
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("tcp_user_timeout", ""),
    ("user", "PGUSER"),
];

/// What libpq knows, this client has no use for, and may be ignored as long as it has one of these values
/// (an empty list: any). Everything else that libpq knows would weaken what the operator asked for if it
/// were ignored, so it is refused.
pub(super) const IGNORED: &[(&str, &str, &[&str])] = &[
    ("client_encoding", "PGCLIENTENCODING", &[]),
    ("gssdelegation", "PGGSSDELEGATION", &["0"]),
    ("gssencmode", "PGGSSENCMODE", &["disable", "prefer"]),
    ("gsslib", "PGGSSLIB", &[]),
    ("krbsrvname", "PGKRBSRVNAME", &[]),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", &["disable"]),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION", &[]),
    ("min_protocol_version", "PGMINPROTOCOLVERSION", &["3.0"]),
    ("require_auth", "PGREQUIREAUTH", &[]),
    ("requirepeer", "PGREQUIREPEER", &[]),
    ("requiressl", "PGREQUIRESSL", &["0"]),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", &["TLSv1.3"]),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("sslcertmode", "PGSSLCERTMODE", &["allow"]),
    ("sslcompression", "PGSSLCOMPRESSION", &["0"]),
    ("sslcrl", "PGSSLCRL", &[]),
    ("sslcrldir", "PGSSLCRLDIR", &[]),
    ("sslpassword", "", &[]),
    ("sslsni", "PGSSLSNI", &["1"]),
];

/// Of [`IGNORED`], those that must be empty: ignoring them would drop a check that was asked for.
const REFUSED: &[&str] = &["require_auth", "requirepeer", "sslcrl", "sslcrldir", "sslpassword"];

/// Names and values as given; later ones win.
#[derive(Default)]
pub(super) struct Settings(pub(super) BTreeMap<&'static str, String>);

impl Settings {
    /// Sets one name, whoever gave it.
    pub(super) fn set(&mut self, key: &str, value: String) -> Result<(), ConnInfoError> {
        if let Some((known, _)) = KNOWN.iter().find(|(k, _)| *k == key) {
            self.0.insert(known, value);
            return Ok(());
        }
        let Some((_, _, harmless)) = IGNORED.iter().find(|(k, ..)| *k == key) else {
            return Err(ConnInfoError::UnknownKey(key.to_owned()));
        };
        let refused = REFUSED.contains(&key) || !(harmless.is_empty() || harmless.contains(&value.as_str()));
        if refused && !value.is_empty() {
            return Err(ConnInfoError::Unsupported(key.to_owned()));
        }
        Ok(())
    }

    /// Sets what is not set yet.
    pub(super) fn set_default(&mut self, key: &str, value: String) -> Result<(), ConnInfoError> {
        if self.0.contains_key(key) { Ok(()) } else { self.set(key, value) }
    }

    /// Reads either form.
    pub(super) fn parse(text: &str) -> Result<Self, ConnInfoError> {
        let uri = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
        match uri {
            Some(rest) => parse_uri(rest),
            None => parse_pairs(text),
        }
    }
}

/// `key = 'it''s not like SQL: \' and \\ are the escapes'`.
fn parse_pairs(text: &str) -> Result<Settings, ConnInfoError> {
    let mut settings = Settings::default();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(settings);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| !c.is_ascii_whitespace() && *c != '=') {
            key.push(c);
        }
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            // The word may be the end of a password with a blank in it: it is not repeated.
            return Err(ConnInfoError::Syntax("a word is not followed by \"=\""));
        }
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if quoted || !c.is_ascii_whitespace() => value.push(c),
                None if quoted => return Err(ConnInfoError::Syntax("a quoted value is not closed")),
                _ => break,
            }
        }
        settings.set(&key, value)?;
    }
}

/// `[user[:password]@][host[:port][,…]][/dbname][?key=value[&…]]`
fn parse_uri(rest: &str) -> Result<Settings, ConnInfoError> {
    let mut settings = Settings::default();
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
    let (authority, dbname) = rest.split_once('/').map_or((rest, None), |(a, b)| (a, Some(b)));
    let hosts = match authority.rsplit_once('@') {
        Some((login, hosts)) => {
            let (user, password) = login.split_once(':').map_or((login, None), |(u, p)| (u, Some(p)));
            if !user.is_empty() {
                settings.set("user", decode(user)?)?;
            }
            if let Some(password) = password.filter(|p| !p.is_empty()) {
                settings.set("password", decode(password)?)?;
            }
            hosts
        }
        None => authority,
    };
    if !hosts.is_empty() {
        let mut names = Vec::new();
        let mut ports = Vec::new();
        for one in hosts.split(',') {
            let (name, port) = match one.strip_prefix('[') {
                Some(v6) => {
                    let (name, tail) = v6
                        .split_once(']')
                        .ok_or(ConnInfoError::Syntax("an IPv6 address is not closed by \"]\""))?;
                    match (tail.strip_prefix(':'), tail.is_empty()) {
                        (Some(port), _) => (name, port),
                        (None, true) => (name, ""),
                        (None, false) => {
                            return Err(ConnInfoError::Syntax(
                                "a \"]\" is followed by something else than a port",
                            ));
                        }
                    }
                }
                None => one.split_once(':').unwrap_or((one, "")),
            };
            names.push(decode(name)?);
            ports.push(decode(port)?);
        }
        if names.iter().any(|n| !n.is_empty()) {
            settings.set("host", names.join(","))?;
        }
        if ports.iter().any(|p| !p.is_empty()) {
            settings.set("port", ports.join(","))?;
        }
    }
    if let Some(dbname) = dbname.filter(|d| !d.is_empty()) {
        settings.set("dbname", decode(dbname)?)?;
    }
    for pair in query.into_iter().flat_map(|q| q.split('&')).filter(|p| !p.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .filter(|(_, value)| !value.contains('='))
            .ok_or(ConnInfoError::Syntax("a query parameter of the URI is not of the form key=value"))?;
        let (key, value) = (decode(key)?, decode(value)?);
        match (key.as_str(), value.as_str()) {
            // JDBC's spelling, which libpq takes too.
            ("ssl", "true") => settings.set("sslmode", "require".to_owned())?,
            _ => settings.set(&key, value)?,
        }
    }
    Ok(settings)
}

fn decode(text: &str) -> Result<String, ConnInfoError> {
    const BAD: ConnInfoError =
        ConnInfoError::Syntax("a percent sign of the URI is not followed by two hex digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).ok_or(BAD);
        let value = digit()? * 16 + digit()?;
        match u8::try_from(value) {
            Ok(0) | Err(_) => return Err(ConnInfoError::Syntax("the URI contains %00")),
            Ok(byte) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| ConnInfoError::Syntax("the URI is not UTF-8 when decoded"))
}
