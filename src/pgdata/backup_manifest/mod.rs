//! A reader for the server's `backup_manifest`, versions 1 and 2, as it arrives.
//!
//! A manifest names every file of the cluster, so it is never held in memory: bytes are pushed in pieces
//! of any length, each file is handed on as soon as its braces close, and only the short tail is kept.
//! The last member is a SHA-256 of everything before its line, which the reader computes on the way; a
//! manifest whose sum does not hold, or that ends early, is an error of [`ManifestReader::finish`], so
//! what was handed on before must not be trusted until then.

mod amend;
#[cfg(test)]
mod tests;

use aws_lc_rs::digest;
use serde::Deserialize;

pub use amend::ManifestAmendment;

use crate::types::{Lsn, SystemId, TimelineId};

/// How a manifest checks files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// CRC-32C, as little-endian bytes.
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// A file's checksum as the server computed it while sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestChecksum {
    /// How it was computed.
    pub algorithm: ChecksumAlgorithm,
    /// Its bytes, in the order in which the manifest's digits show them.
    pub bytes: Vec<u8>,
}

impl ManifestChecksum {
    /// The number, where this is a CRC-32C.
    pub fn crc32c(&self) -> Option<u32> {
        let bytes = <[u8; 4]>::try_from(self.bytes.as_slice()).ok()?;
        (self.algorithm == ChecksumAlgorithm::Crc32c).then(|| u32::from_le_bytes(bytes))
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Relative to the data directory, through `pg_tblspc/OID` for a tablespace; any bytes.
    pub path: Vec<u8>,
    /// Size in bytes as sent.
    pub size: u64,
    /// `None` where the backup was taken with `MANIFEST_CHECKSUMS 'NONE'`.
    pub checksum: Option<ManifestChecksum>,
}

/// WAL that the backup cannot do without, on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// Its timeline.
    pub timeline: TimelineId,
    /// The first byte that is needed.
    pub start: Lsn,
    /// The first byte that is not.
    pub end: Lsn,
}

/// What a manifest says besides its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// 1 up to major 16, then 2.
    pub version: u64,
    /// From version 2 on.
    pub system_identifier: Option<SystemId>,
    /// How many files were named.
    pub files: u64,
    /// The WAL that is needed, one range for each timeline.
    pub wal_ranges: Vec<WalRange>,
}

/// A manifest that cannot be read or does not hold.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON that a server writes.
    #[error("the backup manifest cannot be read near byte {offset}")]
    Syntax {
        /// How far it was read.
        offset: u64,
        /// What the JSON reader says.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// A field whose value makes no sense.
    #[error("the backup manifest has a bad {field} near byte {offset}")]
    Value {
        /// How far it was read.
        offset: u64,
        /// The field's name.
        field: &'static str,
    },
    /// Newer than known.
    #[error("the backup manifest is of version {0}; versions 1 and 2 are known")]
    Version(u64),
    /// It ended early.
    #[error("the backup manifest ends at byte {0}, before its checksum")]
    Truncated(u64),
    /// Its own sum does not hold.
    #[error("the backup manifest's checksum does not hold: bytes were lost or changed on the way")]
    Checksum,
}

/// A single member or array element is never longer than this: a path has at most 1024 bytes, six
/// characters each at worst.
const LONGEST: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Array {
    Files,
    WalRanges,
    Unknown,
}

/// Reads one manifest; see the module's text.
pub struct ManifestReader {
    offset: u64,
    depth: usize,
    in_string: bool,
    escaped: bool,
    ended: bool,
    array: Option<Array>,
    /// The member or element being collected.
    text: Vec<u8>,
    sum: LineSum,
    version: Option<u64>,
    system_identifier: Option<SystemId>,
    files: u64,
    wal_ranges: Vec<WalRange>,
    checksum: Option<Vec<u8>>,
}

impl std::fmt::Debug for ManifestReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManifestReader").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Default for ManifestReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ManifestReader {
    /// A reader at the start of a manifest.
    pub fn new() -> Self {
        Self {
            offset: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            ended: false,
            array: None,
            text: Vec::new(),
            sum: LineSum::new(),
            version: None,
            system_identifier: None,
            files: 0,
            wal_ranges: Vec::new(),
            checksum: None,
        }
    }

    /// Takes the next bytes and hands on every file that they complete.
    pub fn push(&mut self, bytes: &[u8], file: &mut dyn FnMut(ManifestFile)) -> Result<(), ManifestError> {
        self.sum.update(bytes);
        for byte in bytes {
            self.offset += 1;
            self.byte(*byte, file)?;
        }
        Ok(())
    }

    /// To be called when the manifest has ended: was it complete, and does its sum hold?
    pub fn finish(self) -> Result<Manifest, ManifestError> {
        let expected = self.checksum.filter(|_| self.ended).ok_or(ManifestError::Truncated(self.offset))?;
        if self.sum.finish().as_ref() != expected.as_slice() {
            return Err(ManifestError::Checksum);
        }
        let version = self.version.ok_or(ManifestError::Value { offset: self.offset, field: "version" })?;
        Ok(Manifest {
            version,
            system_identifier: self.system_identifier,
            files: self.files,
            wal_ranges: self.wal_ranges,
        })
    }

    fn byte(&mut self, byte: u8, file: &mut dyn FnMut(ManifestFile)) -> Result<(), ManifestError> {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return self.keep(byte);
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.keep(byte)
            }
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => self.close(byte, file),
            b',' if self.depth == 1 => self.member(),
            b',' if self.depth == 2 && self.array.is_some() => Ok(()),
            b' ' | b'\n' | b'\r' | b'\t' => Ok(()),
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) -> Result<(), ManifestError> {
        if self.depth == 0 || self.text.len() >= LONGEST {
            return Err(self.syntax(None));
        }
        self.text.push(byte);
        Ok(())
    }

    fn open(&mut self, byte: u8) -> Result<(), ManifestError> {
        match (self.depth, byte) {
            (0, b'{') if !self.ended => {}
            (0, _) => return Err(self.syntax(None)),
            (1, b'[') => {
                let key = self.text.strip_suffix(b":").unwrap_or_default();
                self.array = Some(match key {
                    b"\"Files\"" => Array::Files,
                    b"\"WAL-Ranges\"" => Array::WalRanges,
                    _ => Array::Unknown,
                });
                self.text.clear();
            }
            (2, b'{') if self.array.is_some() => {
                self.text.clear();
                self.text.push(byte);
            }
            _ => self.keep(byte)?,
        }
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self, byte: u8, file: &mut dyn FnMut(ManifestFile)) -> Result<(), ManifestError> {
        match (self.depth, byte) {
            (0, _) => return Err(self.syntax(None)),
            (1, b'}') => {
                self.member()?;
                self.ended = true;
            }
            (2, b']') if self.array.is_some() => {
                self.array = None;
                self.text.clear();
            }
            (3, b'}') if self.array.is_some() => {
                self.keep(byte)?;
                self.element(file)?;
            }
            _ => self.keep(byte)?,
        }
        self.depth -= 1;
        Ok(())
    }

    /// A member of the outermost object, other than an array.
    fn member(&mut self) -> Result<(), ManifestError> {
        if self.text.is_empty() {
            return Ok(());
        }
        self.text.insert(0, b'{');
        self.text.push(b'}');
        let members: Members = serde_json::from_slice(&self.text).map_err(|e| self.syntax(Some(e)))?;
        self.text.clear();
        if let Some(version) = members.version {
            if !(1..=2).contains(&version) {
                return Err(ManifestError::Version(version));
            }
            self.version = Some(version);
        }
        if let Some(id) = members.system_identifier {
            self.system_identifier = Some(SystemId(id));
        }
        if let Some(sum) = members.checksum {
            self.checksum = Some(hex(&sum).ok_or_else(|| self.value("Manifest-Checksum"))?);
        }
        Ok(())
    }

    fn element(&mut self, file: &mut dyn FnMut(ManifestFile)) -> Result<(), ManifestError> {
        match self.array {
            Some(Array::Files) => {
                let raw: RawFile = serde_json::from_slice(&self.text).map_err(|e| self.syntax(Some(e)))?;
                let path = match (raw.path, raw.encoded_path) {
                    (Some(path), None) => path.into_bytes(),
                    (None, Some(digits)) => hex(&digits).ok_or_else(|| self.value("Encoded-Path"))?,
                    _ => return Err(self.value("Path")),
                };
                let checksum = match raw.algorithm.as_deref() {
                    None | Some("NONE") => None,
                    Some(name) => Some(
                        checksum(name, &raw.checksum.unwrap_or_default())
                            .ok_or_else(|| self.value("Checksum"))?,
                    ),
                };
                self.files += 1;
                file(ManifestFile { path, size: raw.size, checksum });
            }
            Some(Array::WalRanges) => {
                let raw: RawRange = serde_json::from_slice(&self.text).map_err(|e| self.syntax(Some(e)))?;
                self.wal_ranges.push(WalRange {
                    timeline: TimelineId(raw.timeline),
                    start: raw.start,
                    end: raw.end,
                });
            }
            _ => {}
        }
        self.text.clear();
        Ok(())
    }

    fn syntax(&self, source: Option<serde_json::Error>) -> ManifestError {
        ManifestError::Syntax { offset: self.offset, source }
    }

    fn value(&self, field: &'static str) -> ManifestError {
        ManifestError::Value { offset: self.offset, field }
    }
}

#[derive(Deserialize)]
struct Members {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: Option<u64>,
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

fn checksum(name: &str, digits: &str) -> Option<ManifestChecksum> {
    let (algorithm, length) = match name {
        "CRC32C" => (ChecksumAlgorithm::Crc32c, 4),
        "SHA224" => (ChecksumAlgorithm::Sha224, 28),
        "SHA256" => (ChecksumAlgorithm::Sha256, 32),
        "SHA384" => (ChecksumAlgorithm::Sha384, 48),
        "SHA512" => (ChecksumAlgorithm::Sha512, 64),
        _ => return None,
    };
    let bytes = hex(digits)?;
    (bytes.len() == length).then_some(ManifestChecksum { algorithm, bytes })
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// SHA-256 of all lines but the last, whatever the pieces they come in: the state is copied at a piece's
/// last two line ends, so that the last line can be left out without holding it back.
struct LineSum {
    all: digest::Context,
    last: digest::Context,
    before_last: digest::Context,
    /// Whether bytes follow the last line end.
    open_line: bool,
}

impl LineSum {
    fn new() -> Self {
        let all = digest::Context::new(&digest::SHA256);
        Self { last: all.clone(), before_last: all.clone(), all, open_line: false }
    }

    fn update(&mut self, bytes: &[u8]) {
        let mut ends = bytes.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
        let (last, before_last) = (ends.next(), ends.next());
        let mut done = 0;
        for end in [before_last, last].into_iter().flatten() {
            self.all.update(bytes.get(done..end).unwrap_or_default());
            self.before_last = std::mem::replace(&mut self.last, self.all.clone());
            done = end;
        }
        let rest = bytes.get(done..).unwrap_or_default();
        self.all.update(rest);
        self.open_line = if last.is_some() { !rest.is_empty() } else { self.open_line || !rest.is_empty() };
    }

    fn finish(self) -> digest::Digest {
        if self.open_line { self.last.finish() } else { self.before_last.finish() }
    }
}
