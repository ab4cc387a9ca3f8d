//! The only maker of object names.
//!
//! ```text
//! repository.json
//! <cluster>/cluster.json
//! <cluster>/identity/0001.json
//! <cluster>/<EPOCH>/wal/<TLI>/<LOG>/<24hex>.zst  ….<DIGEST>.zst  ….<DIGEST>.partial.zst  ….<OFFSET>.backup.zst
//! <cluster>/<EPOCH>/wal/<TLI>.history.zst
//! <cluster>/<EPOCH>/rollup/<TLI>/<LOG>.….zst
//! <cluster>/<EPOCH>/conflict/<name>.<DIGEST>.zst  <name>.<DIGEST>.discarded.json
//! <cluster>/<EPOCH>/stream/<TLI>/<LSN16>-<LSN16>.zst
//! <cluster>/<EPOCH>/backup/<ID>/…
//! ```

mod rollup_name;

use std::fmt;
use std::str::FromStr;

use crate::types::{BackupId, Lsn, ParseError, SegmentName, TimelineId, WalFileName};

pub use rollup_name::{LogFacts, RollupName, Xids};

/// The repository's own descriptor.
pub const REPOSITORY: &str = "repository.json";

/// Where the create-only probe writes.
pub fn probe(token: &str) -> String {
    format!("probe/{token}")
}

/// The folder of probes.
pub const PROBE_FOLDER: &str = "probe/";

/// A cluster's name in the repository: 1 to 63 of `a-z A-Z 0-9 _ . -`, starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(String);

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The cluster's descriptor.
    pub fn descriptor(&self) -> String {
        format!("{self}/cluster.json")
    }

    /// The folder of identities.
    pub fn identities(&self) -> String {
        format!("{self}/identity/")
    }

    /// One identity.
    pub fn identity(&self, epoch: Epoch) -> String {
        format!("{self}/identity/{epoch}.json")
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClusterName {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first && rest && text.len() <= 63 && !matches!(text, "probe" | "repository.json") {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::new(
                text,
                "a cluster name (1 to 63 letters, digits, '_', '.' or '-', starting with a letter or digit)",
            ))
        }
    }
}

/// The number of an identity of a cluster, from 1: everything of one system identifier lives below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = || ParseError::new(text, "an epoch of four digits");
        match text.parse() {
            Ok(n) if n > 0 && text.len() == 4 => Ok(Self(n)),
            _ => Err(err()),
        }
    }
}

/// The names of everything of one epoch of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochLayout {
    base: String,
}

impl EpochLayout {
    /// The names below `<cluster>/<EPOCH>/`.
    pub fn new(cluster: &ClusterName, epoch: Epoch) -> Self {
        Self { base: format!("{cluster}/{epoch}") }
    }

    /// The folder of everything of the epoch.
    pub fn all(&self) -> String {
        format!("{}/", self.base)
    }

    /// The folder of all WAL.
    pub fn wal(&self) -> String {
        format!("{}/wal/", self.base)
    }

    /// The folder of a timeline's segments.
    pub fn wal_timeline(&self, timeline: TimelineId) -> String {
        format!("{}/wal/{}/", self.base, timeline.to_hex8())
    }

    /// The folder of one LOG of a timeline.
    pub fn wal_log(&self, segment: SegmentName) -> String {
        format!("{}/wal/{}/{:08X}/", self.base, segment.timeline.to_hex8(), segment.log)
    }

    /// A name behind everything of one LOG of a timeline and before everything of the next: a listing that
    /// begins there passes over it.
    pub fn wal_behind_log(&self, timeline: TimelineId, log: u32) -> String {
        // `0` is the character after the slash.
        format!("{}{log:08X}0", self.wal_timeline(timeline))
    }

    /// The folder of all timelines' roll-ups.
    pub fn rollups(&self) -> String {
        format!("{}/rollup/", self.base)
    }

    /// A roll-up.
    pub fn rollup(&self, name: &RollupName) -> String {
        format!("{}{}/{name}", self.rollups(), name.timeline.to_hex8())
    }

    /// A whole segment.
    pub fn segment(&self, segment: SegmentName) -> String {
        format!("{}{segment}.zst", self.wal_log(segment))
    }

    /// A longer (or whole, where the first is damaged) copy of a segment.
    pub fn sibling(&self, segment: SegmentName, digest: &str) -> String {
        format!("{}{segment}.{digest}.zst", self.wal_log(segment))
    }

    /// What the first push of a WAL file is stored as. A partial segment carries its digest, because two
    /// promotions may both leave one.
    pub fn wal_file(&self, name: WalFileName, digest: &str) -> String {
        match name {
            WalFileName::Segment(s) => self.segment(s),
            WalFileName::Partial(s) => format!("{}{s}.{digest}.partial.zst", self.wal_log(s)),
            WalFileName::Backup(s, offset) => format!("{}{s}.{offset:08X}.backup.zst", self.wal_log(s)),
            WalFileName::History(t) => self.history(t),
        }
    }

    /// Other names for copies of the same file, tried in order when the first copy is shorter or fails its
    /// own check: with the digest as names carry it, and, should damage sit there too, with all of it.
    pub fn beside(&self, name: WalFileName, blake3: &str) -> Vec<String> {
        let short = name_digest(blake3);
        match name {
            WalFileName::Segment(s) => vec![self.sibling(s, short), self.sibling(s, blake3)],
            WalFileName::Partial(_) => vec![self.wal_file(name, blake3)],
            other => {
                let first = self.wal_file(other, short);
                let stem = first.strip_suffix(".zst").unwrap_or(&first);
                vec![format!("{stem}.{short}.zst"), format!("{stem}.{blake3}.zst")]
            }
        }
    }

    /// A timeline's history file.
    pub fn history(&self, timeline: TimelineId) -> String {
        format!("{}/wal/{}.history.zst", self.base, timeline.to_hex8())
    }

    /// The folder of refused files.
    pub fn conflicts(&self) -> String {
        format!("{}/conflict/", self.base)
    }

    /// A refused file, kept for the operator.
    pub fn conflict(&self, name: WalFileName, digest: &str) -> String {
        format!("{}/conflict/{name}.{digest}.zst", self.base)
    }

    /// The operator's word that a refused file is not wanted.
    pub fn discarded(&self, name: WalFileName, digest: &str) -> String {
        format!("{}/conflict/{name}.{digest}.discarded.json", self.base)
    }

    /// The folder of all timelines' stream pieces.
    pub fn stream(&self) -> String {
        format!("{}/stream/", self.base)
    }

    /// The folder of a timeline's stream pieces.
    pub fn stream_timeline(&self, timeline: TimelineId) -> String {
        format!("{}/stream/{}/", self.base, timeline.to_hex8())
    }

    /// A piece of a segment that is not complete.
    pub fn stream_piece(&self, timeline: TimelineId, from: Lsn, to: Lsn) -> String {
        format!("{}{}-{}.zst", self.stream_timeline(timeline), from.to_hex16(), to.to_hex16())
    }

    /// The folder of all backups.
    pub fn backups(&self) -> String {
        format!("{}/backup/", self.base)
    }

    /// One backup's folder.
    pub fn backup(&self, id: &BackupId) -> String {
        format!("{}/backup/{id}/", self.base)
    }

    /// A backup's first write.
    pub fn started(&self, id: &BackupId) -> String {
        format!("{}started.json", self.backup(id))
    }

    /// A part of one of the server's tar streams.
    pub fn part(&self, id: &BackupId, archive: &str, part: u64) -> String {
        format!("{}{archive}/{part:010}.zst", self.backup(id))
    }

    /// A backup's index.
    pub fn files(&self, id: &BackupId) -> String {
        format!("{}files.zst", self.backup(id))
    }

    /// The server's manifest.
    pub fn manifest(&self, id: &BackupId) -> String {
        format!("{}backup_manifest.zst", self.backup(id))
    }

    /// What the cluster's objects were called.
    pub fn catalogue(&self, id: &BackupId) -> String {
        format!("{}catalogue.zst", self.backup(id))
    }

    /// A backup's last write.
    pub fn backup_descriptor(&self, id: &BackupId) -> String {
        format!("{}backup.json", self.backup(id))
    }
}

/// Length of a digest in a name: enough of BLAKE3's 64 hex digits that two files never share it.
pub const NAME_DIGEST_LEN: usize = 32;

/// The part of a digest that names carry.
pub fn name_digest(blake3: &str) -> &str {
    blake3.get(..NAME_DIGEST_LEN).unwrap_or(blake3)
}

/// What an object below `wal/` is, read off its name's last part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalObjectName {
    /// The file it holds.
    pub file: WalFileName,
    /// The digest in its name; `None` for the first copy.
    pub digest: Option<String>,
}

impl WalObjectName {
    /// Reads the last part of an object's name; `None` for what this version does not know.
    pub fn parse(last: &str) -> Option<Self> {
        let stem = last.strip_suffix(".zst")?;
        let is_digest = |s: &str| {
            matches!(s.len(), NAME_DIGEST_LEN | 64)
                && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if let Some(inner) = stem.strip_suffix(".partial") {
            let (segment, digest) = inner.split_once('.')?;
            let file = WalFileName::Partial(segment.parse().ok()?);
            return is_digest(digest).then(|| Self { file, digest: Some(digest.to_owned()) });
        }
        if let Ok(file) = stem.parse() {
            return Some(Self { file, digest: None });
        }
        let (inner, digest) = stem.rsplit_once('.')?;
        let file = inner.parse().ok()?;
        is_digest(digest).then(|| Self { file, digest: Some(digest.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_copy_of_every_file_is_known_by_its_name(
            timeline in 1_u32..,
            log in any::<u32>(),
            seg in any::<u32>(),
            offset in any::<u32>(),
            kind in 0..4,
            digest in "[0-9a-f]{64}",
        ) {
            let timeline = TimelineId(timeline);
            let segment = SegmentName { timeline, log, seg };
            let file = match kind {
                0 => WalFileName::Segment(segment),
                1 => WalFileName::Partial(segment),
                2 => WalFileName::Backup(segment, offset),
                _ => WalFileName::History(timeline),
            };
            let layout = EpochLayout::new(&"main".parse().unwrap(), Epoch(1));
            let mut names = vec![layout.wal_file(file, name_digest(&digest))];
            names.extend(layout.beside(file, &digest));
            for name in names {
                let last = name.rsplit('/').next().unwrap();
                let known = WalObjectName::parse(last).unwrap();
                prop_assert_eq!(known.file, file, "{}", last);
                prop_assert!(known.digest.is_none_or(|known| digest.starts_with(&known)));
            }
        }

        #[test]
        fn no_name_makes_the_parsers_panic(text in "\\PC{0,80}|[0-9A-Fa-f]{20,30}(\\.[0-9a-f]{30,34})?(\\.partial|\\.backup)?\\.zst") {
            drop(WalObjectName::parse(&text));
            if let Ok(name) = text.parse::<ClusterName>() {
                prop_assert_eq!(name.as_str(), &text[..]);
                prop_assert!(!text.contains('/'), "a cluster's name must stay one folder");
            }
        }
    }
}
