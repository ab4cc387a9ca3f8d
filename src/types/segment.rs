use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Lsn, ParseError};

/// A timeline's number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl TimelineId {
    /// Eight hex digits, as in the names of WAL files.
    pub fn to_hex8(self) -> String {
        format!("{:08X}", self.0)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// `wal_segment_size` in bytes: a power of two from 1 MiB to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// What `initdb` takes unless told otherwise.
    pub const DEFAULT: Self = Self(16 << 20);

    /// Checks a size in bytes.
    pub fn new(bytes: u64) -> Result<Self, ParseError> {
        match u32::try_from(bytes) {
            Ok(size) if size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size) => Ok(Self(size)),
            _ => Err(ParseError::new(
                &bytes.to_string(),
                "a WAL segment size (a power of two from 1 MiB to 1 GiB, in bytes)",
            )),
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// How many segments share one LOG, the middle eight digits of a name: 256 of 16 MiB.
    pub fn per_log(self) -> u64 {
        0x1_0000_0000 / self.bytes()
    }

    /// The numbers of the segments of one LOG.
    pub fn numbers_of_log(self, log: u32) -> std::ops::Range<u64> {
        let first = u64::from(log) * self.per_log();
        first..first + self.per_log()
    }

    /// The number, counted from 0 at `0/0`, of the segment that holds the byte at `lsn`.
    pub fn number_of(self, lsn: Lsn) -> u64 {
        lsn.0 / self.bytes()
    }
}

impl TryFrom<u64> for SegmentSize {
    type Error = ParseError;
    fn try_from(bytes: u64) -> Result<Self, ParseError> {
        Self::new(bytes)
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> Self {
        size.bytes()
    }
}

impl fmt::Display for SegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

/// The 24 hex digits of a segment's name: timeline, LOG, and number within the LOG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline that the name claims; leading pages may carry an older one.
    pub timeline: TimelineId,
    /// The middle eight digits.
    pub log: u32,
    /// The last eight digits: the segment's number within its LOG.
    pub seg: u32,
}

impl SegmentName {
    /// The name of segment `number` (counted from `0/0`) of a timeline.
    pub fn from_number(timeline: TimelineId, number: u64, size: SegmentSize) -> Self {
        let low = |n: u64| u32::try_from(n & 0xFFFF_FFFF).unwrap_or(u32::MAX);
        Self { timeline, log: low(number / size.per_log()), seg: low(number % size.per_log()) }
    }

    /// The name of the segment that holds the byte at `lsn`.
    pub fn holding(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Self {
        Self::from_number(timeline, size.number_of(lsn), size)
    }

    /// The segment's number, counted from `0/0`; `None` where the name cannot be of this size.
    pub fn number(self, size: SegmentSize) -> Option<u64> {
        (u64::from(self.seg) < size.per_log())
            .then(|| u64::from(self.log) * size.per_log() + u64::from(self.seg))
    }

    /// The address of the segment's first byte; `None` where the name cannot be of this size.
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        self.number(size).map(|n| Lsn(n * size.bytes()))
    }

    /// The segment that follows on the same timeline; `None` behind the last LSN there is.
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        let next = self.number(size)? + 1;
        (next <= size.number_of(Lsn(u64::MAX))).then(|| Self::from_number(self.timeline, next, size))
    }

    /// The one before it on the same timeline.
    pub fn previous(self, size: SegmentSize) -> Option<Self> {
        let before = self.number(size)?.checked_sub(1)?;
        Some(Self::from_number(self.timeline, before, size))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.seg)
    }
}

impl FromStr for SegmentName {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = || ParseError::new(text, "the name of a WAL segment (24 hex digits)");
        if text.len() != 24 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')) {
            return Err(err());
        }
        let part = |range: std::ops::Range<usize>| {
            text.get(range).and_then(|s| u32::from_str_radix(s, 16).ok()).ok_or_else(err)
        };
        let timeline = TimelineId(part(0..8)?);
        if timeline.0 == 0 {
            return Err(err());
        }
        Ok(Self { timeline, log: part(8..16)?, seg: part(16..24)? })
    }
}

impl Serialize for SegmentName {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SegmentName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
