//! What a restore has to bring and to replay, and how long that takes by the archive's own figures.

use super::attempt::Reached;
use super::coverage::Archive;
use super::evidence::WalReader;
use super::run::sealed;
use crate::types::{Lsn, Moment, TimelineId};

/// Everything between the repository and the target.
#[derive(Debug, Clone, PartialEq)]
pub struct Road {
    /// Stored bytes of the backup's parts.
    pub backup_stored: u64,
    /// Stored bytes of the WAL; `None` where that is not known of all of it. Of a LOG (4 GiB) that is needed in
    /// part, its share.
    pub wal_stored: Option<u64>,
    /// The timelines that recovery leaves on its way: which, where, and for which.
    pub switches: Vec<(TimelineId, Lsn, TimelineId)>,
    /// Until everything has been fetched and written.
    pub fetch: Option<Estimate>,
    /// No longer than this until the WAL has been replayed.
    pub replay: Option<Estimate>,
}

/// A time, and what it was taken from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Seconds.
    pub seconds: f64,
    /// Raw bytes a second: at this rate the archive was filled.
    pub rate: f64,
}

impl Road {
    pub(super) fn of<W: WalReader>(
        archive: &Archive,
        reached: &Reached,
        wal: &mut W,
    ) -> Result<Self, W::Error> {
        let Reached { backup, run, lineage, .. } = reached;
        let written = Written::along(archive, reached, wal)?;
        let raw = backup
            .size
            .saturating_add((run.segments.len() as u64).saturating_mul(archive.segment_size.bytes()));
        let took = seconds(backup.start_time, backup.stop_time);
        let stretches: Vec<_> = lineage.history().stretches().collect();
        let switches = stretches.windows(2).filter_map(|pair| match pair {
            [(timeline, _, Some(end)), (next, ..)] if *end > backup.start && *end <= reached.stop.at => {
                Some((*timeline, *end, *next))
            }
            _ => None,
        });
        Ok(Self {
            backup_stored: backup.stored,
            wal_stored: written.stored,
            switches: switches.collect(),
            fetch: at_rate(raw, took.map(|took| per_second(backup.size, took))),
            replay: at_rate(written.bytes, written.fastest),
        })
    }
}

/// How the server wrote the WAL on the way.
struct Written {
    /// Bytes of records.
    bytes: u64,
    stored: Option<u64>,
    /// Bytes a second.
    fastest: Option<f64>,
}

impl Written {
    /// By the names of roll-ups, where there are: a plan does not read what it does not need.
    fn along<W: WalReader>(archive: &Archive, reached: &Reached, wal: &mut W) -> Result<Self, W::Error> {
        /// Segments between two times of files: a single one may have been written in a burst.
        const TOGETHER: usize = 4;
        let (size, segments) = (archive.segment_size, &reached.run.segments);
        let mut written = Self { bytes: 0, stored: Some(0), fastest: None };
        // Bytes up to a file's end, and its time, since the last LOG that a roll-up tells of.
        let mut files: Vec<(u64, Moment)> = Vec::new();
        let mut at = 0;
        while let Some(segment) = segments.get(at) {
            if let Some((log, behind)) = sealed(archive, segments, at) {
                let here = ((behind - at) as u64).saturating_mul(size.bytes());
                let whole = size.per_log().saturating_mul(size.bytes());
                let stored =
                    archive.timelines.get(&segment.timeline).and_then(|t| t.sealed.get(&segment.log));
                let share =
                    stored.map(|name| u128::from(name.stored) * u128::from(here) / u128::from(whole.max(1)));
                written.add_stored(share.and_then(|share| u64::try_from(share).ok()));
                let took = log.times.and_then(|(from, to)| seconds(from, to));
                written.saw(took.map(|took| per_second(whole, took)));
                written.bytes = written.bytes.saturating_add(here);
                files.clear();
                at = behind;
                continue;
            }
            at += 1;
            let facts = wal.facts(*segment)?;
            let start = segment.start(size).unwrap_or(Lsn::INVALID);
            let used =
                facts.content.as_ref().map_or(size.bytes(), |c| c.end_of_valid.0.saturating_sub(start.0));
            written.bytes = written.bytes.saturating_add(used);
            written.add_stored(facts.stored);
            let Some(modified) = facts.modified else {
                files.clear();
                continue;
            };
            files.push((written.bytes, modified));
            if let Some((bytes, time)) =
                files.len().checked_sub(TOGETHER + 1).and_then(|first| files.get(first))
            {
                let rate = seconds(*time, modified).map(|took| per_second(written.bytes - bytes, took));
                written.saw(rate);
            }
        }
        // Too few for a stretch: what there is, from the first to the last.
        if let (None, [(bytes, from), .., (to_bytes, to)]) = (written.fastest, files.as_slice()) {
            written.saw(seconds(*from, *to).map(|took| per_second(to_bytes - bytes, took)));
        }
        Ok(written)
    }

    fn add_stored(&mut self, stored: Option<u64>) {
        self.stored = self.stored.zip(stored).map(|(a, b)| a.saturating_add(b));
    }

    fn saw(&mut self, rate: Option<f64>) {
        self.fastest = match (self.fastest, rate) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
    }
}

/// Between two moments; `None` where that is nothing, or less.
fn seconds(from: Moment, to: Moment) -> Option<f64> {
    Some(from.0.duration_until(to.0).as_secs_f64()).filter(|seconds| *seconds > 0.0)
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn per_second(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / seconds
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn at_rate(bytes: u64, rate: Option<f64>) -> Option<Estimate> {
    let rate = rate.filter(|rate| *rate > 0.0)?;
    Some(Estimate { seconds: bytes as f64 / rate, rate })
}
