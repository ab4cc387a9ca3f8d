//! What a hook and the process that stays say to each other: JSON, one line each.

use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How often the process that stays says that it is still at work.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);

/// A silence after which a hook goes on alone: several heartbeats, since a busy machine delays them.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// No line is longer: a path and a digest. Bytes.
const LONGEST_LINE: u64 = 16 << 10;

/// What a hook asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// Settings, binary and data directory of the hook: another one's work must not be done for it.
    pub(super) fingerprint: String,
    /// The work.
    pub(super) work: Work,
}

/// The work of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// `archive-push` of a path, as the server gives it.
    Push(PathBuf),
    /// `archive-get` of a file's name.
    Get(String),
}

/// What comes back. There is no word for failure: the hook finds that by itself, and says why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Still at work.
    Working,
    /// The file is durable in every repository, and there is nothing to be said about it.
    Durable,
    /// The file, verified, waits to be renamed.
    Ready(PathBuf),
    /// Every repository was asked for the file after this question came, and has proved that it does not hold it.
    Absent,
    /// Do it yourself.
    Declined,
}

pub(super) fn send<T: Serialize>(stream: &mut impl Write, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl BufRead) -> io::Result<T> {
    let mut line = Vec::new();
    stream.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}
