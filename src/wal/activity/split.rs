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
}

/// What a segment holds of a record that began in the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// The first bytes of it.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
    /// How many bytes of it there are.
    pub length: u64,
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
        Self { bytes: Vec::new(), length }
    }

    pub(in crate::wal) fn append(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }
}

impl Unfinished {
    /// Of a record whose header is split.
    pub(in crate::wal) fn header(lsn: Lsn, bytes: &[u8]) -> Self {
        Self { lsn, bytes: bytes.to_vec(), here: bytes.len() as u64 }
    }

    /// Of a record whose header is here, and `left` bytes of whose body are not.
    pub(in crate::wal) fn body(
        lsn: Lsn,
        header: &RecordHeader,
        raw: &[u8; HEADER_BEFORE_CRC],
        kept: &[u8],
        left: u64,
    ) -> Self {
        let mut bytes = [raw.as_slice(), &header.crc.to_le_bytes()].concat();
        let here = u64::from(header.total).saturating_sub(left);
        let worth = if tells(header) { KEPT } else { HEADER };
        bytes.extend_from_slice(kept);
        bytes.truncate(worth);
        Self { lsn, bytes, here }
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
