//! A roll-up's content: JSON lines, compressed. The first says of what it is, each of the others is a segment.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::facts;
use crate::codec::{CodecError, FrameEncoder, MAX_FRAME_RAW, blake3_hex, decode_at_most};
use crate::repository::layout::{LogFacts, RollupName, name_digest};
use crate::repository::wal_archive::WalContent;
use crate::repository::{Cluster, Identity, RepositoryError};
use crate::types::{Moment, SegmentSize, SystemId, TimelineId};
use crate::wal::Rest;

/// The format number of a roll-up.
const FORMAT: u32 = 1;

/// Raw bytes of the largest content: 4096 segments of 1 MiB with many restore points take a tenth of it.
const LARGEST: usize = 64 << 20;

/// zstd's own default: it is read more often than it is written.
const LEVEL: i32 = 3;

/// What the segments of one LOG hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollup {
    /// Whose they are.
    pub timeline: TimelineId,
    /// The middle eight digits of their names.
    pub log: u32,
    /// All of them, in order.
    pub segments: Vec<RolledSegment>,
    /// What the segment behind the last one holds of a record that begins in that.
    pub follows: Option<Rest>,
}

/// One segment, as its best copy's summary told when the roll-up was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolledSegment {
    /// Its number within the LOG.
    pub seg: u32,
    /// BLAKE3 of its raw bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// When the server last wrote the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Moment>,
    /// The objects that hold copies of it, the first copy first.
    pub copies: Vec<StoredCopy>,
    /// Why no copy of it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// What is in it, without the counts by kind and the lists of activity, which only its own summary has;
    /// `None` where that was never recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<WalContent>,
}

/// An object that holds a copy of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCopy {
    /// The digest in its name; `None` for the first copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its stored bytes.
    pub size: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    system_identifier: SystemId,
    segment_size: SegmentSize,
    timeline: TimelineId,
    log: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    follows: Option<Rest>,
}

impl Rollup {
    /// The facts that its name carries.
    pub fn facts(&self) -> LogFacts {
        facts::of_log(&self.segments, self.follows.as_ref())
    }

    /// How many objects it knows of.
    fn objects(&self) -> u32 {
        let copies: usize = self.segments.iter().map(|s| s.copies.len()).sum();
        u32::try_from(copies).unwrap_or(u32::MAX)
    }

    /// Its name, and what is stored under it, for a cluster; the same segments give the same bytes.
    pub fn encode(&self, identity: &Identity) -> Result<(RollupName, Bytes), RepositoryError> {
        let object = || format!("the roll-up of LOG {:08X} of timeline {}", self.log, self.timeline);
        let header = Header {
            format: FORMAT,
            system_identifier: identity.system_identifier,
            segment_size: identity.segment_size,
            timeline: self.timeline,
            log: self.log,
            follows: self.follows.clone(),
        };
        let mut raw = Vec::new();
        append_line(&mut raw, &header).map_err(|e| RepositoryError::damaged(object(), e))?;
        for segment in &self.segments {
            append_line(&mut raw, segment).map_err(|e| RepositoryError::damaged(object(), e))?;
        }
        if raw.len() > LARGEST {
            return Err(RepositoryError::damaged(object(), "its segments say more than a roll-up holds"));
        }
        let mut stored = Vec::new();
        let local = |source| RepositoryError::Local { action: "compress", path: object(), source };
        let mut encoder = FrameEncoder::new(LEVEL).map_err(local)?;
        for chunk in raw.chunks(MAX_FRAME_RAW) {
            encoder.append(chunk, &mut stored).map_err(local)?;
        }
        Ok((self.named(blake3_hex(&raw)), stored.into()))
    }

    fn named(&self, digest: String) -> RollupName {
        RollupName {
            timeline: self.timeline,
            log: self.log,
            objects: self.objects(),
            stored: self.segments.iter().flat_map(|s| &s.copies).map(|copy| copy.size).sum(),
            facts: self.facts(),
            digest,
        }
    }

    /// Reads what stands under a name, and proves that it is what the name says.
    pub(super) fn decode(
        cluster: &Cluster<'_>,
        name: &RollupName,
        stored: &[u8],
        object: &str,
    ) -> Result<Self, RepositoryError> {
        let damaged = |why: &str| RepositoryError::damaged(object, why);
        let raw = decode_at_most(stored, LARGEST as u64).map_err(|e| RepositoryError::codec(object, e))?;
        let digest = blake3_hex(&raw);
        if !digest.starts_with(&name.digest) {
            let why =
                CodecError::Digest { expected: name.digest.clone(), found: name_digest(&digest).to_owned() };
            return Err(RepositoryError::codec(object, why));
        }
        let mut lines = raw.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let first = lines.next().ok_or_else(|| damaged("it is empty"))?;
        let header = header(first, object)?;
        let identity = cluster.identity();
        if header.system_identifier != identity.system_identifier
            || header.segment_size != identity.segment_size
        {
            return Err(damaged("it is of another system"));
        }
        let segments = lines
            .map(|line| serde_json::from_slice(line).map_err(|e| RepositoryError::damaged(object, e)))
            .collect::<Result<Vec<RolledSegment>, _>>()?;
        let numbers = segments.iter().map(|s| u64::from(s.seg));
        if !numbers.eq(0..header.segment_size.per_log()) {
            return Err(damaged("it does not name every segment of its LOG once and in order"));
        }
        let (timeline, log, follows) = (header.timeline, header.log, header.follows);
        let rollup = Self { timeline, log, segments, follows };
        if rollup.named(name.digest.clone()) != *name {
            return Err(damaged("its name says something else"));
        }
        Ok(rollup)
    }
}

fn append_line(raw: &mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *raw, value)?;
    raw.push(b'\n');
    Ok(())
}

/// A newer format is refused before its fields are looked at.
fn header(line: &[u8], object: &str) -> Result<Header, RepositoryError> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let versioned: Versioned =
        serde_json::from_slice(line).map_err(|e| RepositoryError::damaged(object, e))?;
    if versioned.format > FORMAT {
        return Err(RepositoryError::NewerFormat {
            object: object.to_owned(),
            found: versioned.format,
            supported: FORMAT,
        });
    }
    serde_json::from_slice(line).map_err(|e| RepositoryError::damaged(object, e))
}
