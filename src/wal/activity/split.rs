//! A record that begins in one segment and ends in the next: neither can tell what it is, but each keeps its part.

use serde::{Deserialize, Serialize};

use super::Activity;
use super::collect::{Collector, Limits};
use crate::types::Lsn;
use crate::wal::block::bare_main_data;
use crate::wal::ending::Ending;
use crate::wal::page::Magic;
use crate::wal::record::{Event, HEADER, HEADER_BEFORE_CRC, RecordHeader, kind};

/// How much is kept of either part: more than a row's deletion or an ordinary commit has.
const KEPT: usize = 1024;

/// What a segment holds of a record that goes on in the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// Where it starts.
    pub lsn: Lsn,
    /// Its first bytes, header included. Not the whole of what is here where that is longer than is worth
    /// keeping, or of a kind that tells nothing.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
    /// How many of its bytes are here.
    pub here: u64,
    /// CRC32C of what is here behind the header; of a version that did not compute it, `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc: Option<u32>,
}

/// What a segment holds of a record that began in the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// The first bytes of it.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
    /// How many bytes of it there are.
    pub length: u64,
    /// CRC32C of all of them; of a version that did not compute it, `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc: Option<u32>,
}

/// What a record that spans two segments says, put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// It ends a transaction, or changes rows or files on behalf of one.
    Activity(Box<Activity>),
    /// A restore point.
    RestorePoint {
        /// Its name.
        name: String,
        /// When it was made.
        time: crate::types::Moment,
        /// Where its record starts.
        lsn: Lsn,
    },
    /// Nothing that is told.
    Nothing,
    /// Too little of it was kept: the segments themselves have to be read.
    Unknown,
}

impl Rest {
    pub(in crate::wal) fn of(length: u64) -> Self {
        Self { bytes: Vec::new(), length, crc: Some(0) }
    }

    pub(in crate::wal) fn append(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.crc = self.crc.map(|crc| crc32c::crc32c_append(crc, bytes));
    }
}

impl Unfinished {
    /// Of a record whose header is split.
    pub(in crate::wal) fn header(lsn: Lsn, bytes: &[u8]) -> Self {
        Self { lsn, bytes: bytes.to_vec(), here: bytes.len() as u64, crc: Some(0) }
    }

    /// Of a record whose header is here, and `left` bytes of whose body are not; `crc` is that of the others.
    pub(in crate::wal) fn body(
        lsn: Lsn,
        header: &RecordHeader,
        raw: &[u8; HEADER_BEFORE_CRC],
        kept: &[u8],
        left: u64,
        crc: u32,
    ) -> Self {
        let mut bytes = [raw.as_slice(), &header.crc.to_le_bytes()].concat();
        let here = u64::from(header.total).saturating_sub(left);
        let worth = if tells(header) { KEPT } else { HEADER };
        bytes.extend_from_slice(kept);
        bytes.truncate(worth);
        Self { lsn, bytes, here, crc: Some(crc) }
    }

    /// Whether the record is intact: its checksum covers both parts. `None` where too little is known of them.
    pub fn is_intact_with(&self, rest: &Rest) -> Option<bool> {
        let (here, there) = self.crc.zip(rest.crc)?;
        // A split header's other bytes come first in the rest.
        let split = HEADER.saturating_sub(usize::try_from(self.here).ok()?);
        let mut raw = self.bytes.get(..HEADER - split)?.to_vec();
        raw.extend_from_slice(rest.bytes.get(..split)?);
        let header = RecordHeader::read(raw.first_chunk()?);
        if self.here.saturating_add(rest.length) != u64::from(header.total) {
            return Some(false);
        }
        let behind = usize::try_from(rest.length).ok()?.checked_sub(split)?;
        // CRC is linear: what stands before is taken out of the sum again.
        let before = crc32c::crc32c_combine(crc32c::crc32c(rest.bytes.get(..split)?), 0, behind);
        let body = crc32c::crc32c_combine(here, there ^ before, behind);
        Some(crc32c::crc32c_append(body, raw.get(..HEADER_BEFORE_CRC)?) == header.crc)
    }

    /// Puts a record together from its two parts.
    pub fn join(&self, rest: &Rest, magic: Magic) -> Joined {
        let gap = (self.bytes.len() as u64) < self.here;
        let mut bytes = self.bytes.clone();
        if !gap {
            bytes.extend_from_slice(&rest.bytes);
        }
        let Some(raw) = bytes.first_chunk::<HEADER>() else { return Joined::Unknown };
        let header = RecordHeader::read(raw);
        if !tells(&header) {
            return Joined::Nothing;
        }
        let body = bytes.get(HEADER..).unwrap_or_default();
        let whole = bytes.len() as u64 == u64::from(header.total);
        match header.rmid {
            // Of these only a restore point is told; images of pages are the long ones.
            kind::XLOG if header.info & 0xF0 != 0x70 => Joined::Nothing,
            kind::TRANSACTION | kind::XLOG if !whole => Joined::Unknown,
            kind::TRANSACTION => {
                let ending = bare_main_data(body).and_then(|data| Ending::read(&header, data, magic));
                ending.map_or(Joined::Nothing, |ending| {
                    let mut collector = Collector::new(Limits::EVERYTHING);
                    collector.end(ending, self.lsn, header.prev);
                    one(collector)
                })
            }
            kind::XLOG => match Event::read(&header, body, magic) {
                Some(Event::RestorePoint { name, time }) => {
                    Joined::RestorePoint { name, time, lsn: self.lsn }
                }
                _ => Joined::Nothing,
            },
            _ => {
                let mut collector = Collector::new(Limits::EVERYTHING);
                collector.record(self.lsn, &header, body, magic);
                one(collector)
            }
        }
    }
}

fn one(collector: Collector) -> Joined {
    let (mut activities, _) = collector.finish();
    activities.pop().map_or(Joined::Nothing, |activity| Joined::Activity(Box::new(activity)))
}

/// Whether records of this kind tell anything that is asked for.
fn tells(header: &RecordHeader) -> bool {
    header.kept() > 64
}

/// Bytes as lower-case hex digits.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let pairs = text.as_bytes().chunks(2).map(|pair| {
            let digits = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
            digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())
        });
        pairs.collect::<Option<_>>().ok_or_else(|| D::Error::custom("not an even number of hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
        bytes[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[HEADER..]), &bytes[..HEADER_BEFORE_CRC]);
        bytes[HEADER_BEFORE_CRC..HEADER].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// As two scanners keep it, of which each sees its own part, in pieces.
    fn split(bytes: &[u8], at: usize) -> (Unfinished, Rest) {
        let (here, there) = bytes.split_at(at);
        let unfinished = match here.first_chunk::<HEADER>() {
            None => Unfinished::header(Lsn(100), here),
            Some(raw) => {
                let body = &here[HEADER..];
                let header = RecordHeader::read(raw);
                let first = raw.first_chunk().unwrap();
                Unfinished::body(Lsn(100), &header, first, body, there.len() as u64, crc32c::crc32c(body))
            }
        };
        let mut rest = Rest::of(there.len() as u64);
        there.chunks(700).for_each(|piece| rest.append(piece));
        (unfinished, rest)
    }

    #[test]
    fn wherever_a_record_is_split_both_parts_tell_whether_it_is_intact() {
        for length in [HEADER, HEADER + 1, 33, 104, 1_000, 1_100, 9_000] {
            let bytes = record(length);
            for at in (1..length).filter(|at| *at < 64 || at % 97 == 0 || length - at < 40) {
                let (unfinished, rest) = split(&bytes, at);
                assert_eq!(unfinished.is_intact_with(&rest), Some(true), "{length} at {at}");
                for wrong in (4..length).filter(|wrong| wrong % (13 + length / 20) == at % 13) {
                    let mut other = bytes.clone();
                    other[wrong] ^= 0x20;
                    let (unfinished, rest) = split(&other, at);
                    assert_eq!(
                        unfinished.is_intact_with(&rest),
                        Some(false),
                        "{length} at {at}, byte {wrong}"
                    );
                }
                let (_, shorter) = split(&bytes[..length - 1], at.min(length - 2));
                assert_ne!(unfinished.is_intact_with(&shorter), Some(true), "{length} at {at}");
            }
        }
    }

    #[test]
    fn of_what_an_earlier_version_kept_nothing_is_said() {
        let (unfinished, rest) = split(&record(104), 50);
        let (mut old, mut old_rest) = (unfinished.clone(), rest.clone());
        (old.crc, old_rest.crc) = (None, None);
        assert_eq!(old.is_intact_with(&rest), None);
        assert_eq!(unfinished.is_intact_with(&old_rest), None);
        assert!(!serde_json::to_string(&old).unwrap().contains("crc"));
        let read: Rest = serde_json::from_str("{\"bytes\":\"00ff\",\"length\":2}").unwrap();
        assert_eq!(read.crc, None);
    }
}
