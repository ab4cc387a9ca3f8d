//! How long a connection may take, and how a dead one is noticed.

use std::time::Duration;

use super::ConnInfoError;

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

pub(super) fn number(key: &'static str, text: Option<&str>) -> Result<Option<u64>, ConnInfoError> {
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
pub(super) fn connect_timeout(text: Option<&str>) -> Result<Option<Duration>, ConnInfoError> {
    if text.is_some_and(|t| t.trim().starts_with('-')) {
        return Ok(None);
    }
    Ok(match number("connect_timeout", text)? {
        None => Some(Duration::from_secs(30)),
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(seconds.max(2))),
    })
}

pub(super) fn keepalive<'a>(
    get: &dyn Fn(&str) -> Option<&'a str>,
) -> Result<Option<KeepAlive>, ConnInfoError> {
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
