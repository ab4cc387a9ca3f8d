//! What roll-ups say in place of summaries, and the proof of it that a plan needs.
//!
//! A roll-up may be out of date: a segment was lost since, or damaged, or a better copy of it came. A listing
//! shows all three, as another number of objects or of bytes. So a plan is made from what roll-ups say, then
//! the range that it would replay is listed, and where the two differ the plan is made again from the
//! segments themselves.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::operation::in_full::in_full;
use crate::plan::{Archive, RestorePlan, SegmentFacts, Timeline};
use crate::repository::layout::RollupName;
use crate::repository::rollup::{Listing, Rollup};
use crate::repository::{Cluster, RepositoryError, abreast};
use crate::types::{Lsn, SegmentName, SegmentSize, TimelineId};

type Log = (TimelineId, u32);

/// Facts out of roll-ups, each read once as long as it is in use.
#[derive(Debug, Default)]
pub(super) struct RolledFacts {
    believed: BTreeMap<Log, RollupName>,
    read: HashMap<Log, Rollup>,
    order: VecDeque<Log>,
}

/// Segments of which the content is kept; a LOG has 4 to 4096.
const KEPT: usize = 1 << 16;

impl RolledFacts {
    /// Believes what an archive believes, and nothing else.
    pub(super) fn believe(&mut self, archive: &Archive) {
        let names = archive.timelines.iter().flat_map(|(timeline, held)| {
            held.sealed.iter().map(move |(log, name)| ((*timeline, *log), name.clone()))
        });
        self.believed = names.collect();
        let believed = &self.believed;
        self.read.retain(|log, _| believed.contains_key(log));
        self.order.retain(|log| believed.contains_key(log));
    }

    /// Reads the roll-ups of all these segments; those that have none come back.
    pub(super) fn load(
        &mut self,
        cluster: &Cluster<'_>,
        segments: &[SegmentName],
    ) -> Result<Vec<SegmentName>, RepositoryError> {
        let mut wanted: Vec<RollupName> = Vec::new();
        for segment in segments {
            let log = (segment.timeline, segment.log);
            if let Some(name) = self.believed.get(&log)
                && !self.read.contains_key(&log)
                && wanted.last() != Some(name)
            {
                wanted.push(name.clone());
            }
        }
        let read = abreast(&wanted, |name| read(cluster, name))?;
        for (name, read) in wanted.iter().zip(read) {
            self.keep((name.timeline, name.log), read);
        }
        let rolled = |s: &SegmentName| self.read.contains_key(&(s.timeline, s.log));
        Ok(segments.iter().copied().filter(|s| !rolled(s)).collect())
    }

    /// What its LOG's roll-up says of a segment; `None` where there is none to be believed.
    pub(super) fn facts(
        &mut self,
        cluster: &Cluster<'_>,
        segment: SegmentName,
    ) -> Result<Option<SegmentFacts>, RepositoryError> {
        self.load(cluster, &[segment])?;
        let rollup = self.read.get(&(segment.timeline, segment.log));
        let number = usize::try_from(segment.seg).unwrap_or(usize::MAX);
        Ok(rollup.and_then(|rollup| rollup.segments.get(number)).map(|rolled| SegmentFacts {
            content: rolled.wal.clone(),
            modified: rolled.modified,
            stored: rolled.copies.iter().map(|copy| copy.size).max(),
            unreadable: rolled.unreadable.clone(),
        }))
    }

    fn keep(&mut self, log: Log, rollup: Option<Rollup>) {
        let Some(rollup) = rollup else {
            self.believed.remove(&log);
            return;
        };
        let share = rollup.segments.len().max(1);
        self.read.insert(log, rollup);
        self.order.push_back(log);
        while self.order.len() > (KEPT / share).max(2) {
            if let Some(oldest) = self.order.pop_front() {
                self.read.remove(&oldest);
            }
        }
    }
}

/// A roll-up that cannot be used is `None`: the segments say the same.
fn read(cluster: &Cluster<'_>, name: &RollupName) -> Result<Option<Rollup>, RepositoryError> {
    match cluster.rollup(name) {
        Err(e @ (RepositoryError::Damaged { .. } | RepositoryError::NewerFormat { .. })) => {
            tracing::warn!("the segments' own summaries are read instead: {}", in_full(&e));
            Ok(None)
        }
        other => other,
    }
}

/// Lists what a plan would replay as far as only roll-ups have told of it. Where the objects say something
/// else, the archive is corrected and `false` comes back: the plan has to be made again.
pub(super) fn prove(
    cluster: &Cluster<'_>,
    archive: &mut Archive,
    plan: &RestorePlan,
) -> Result<bool, RepositoryError> {
    let size = archive.segment_size;
    let Some((timeline, wal)) = plan.timeline.zip(plan.wal.as_ref()) else { return Ok(true) };
    let Ok(lineage) = archive.named_lineage(timeline) else { return Ok(true) };
    let (Some(first), Some(last)) = (wal.first.number(size), wal.last.number(size)) else { return Ok(true) };
    let mut holds = true;
    for (timeline, held) in &mut archive.timelines {
        let own = lineage.own(*timeline);
        let (from, to) = (own.start.max(first), own.end.min(last + 1));
        if from >= to {
            continue;
        }
        let log = |number| u32::try_from(number / size.per_log()).unwrap_or(u32::MAX);
        let mut told = held.sealed.range(log(from)..=log(to - 1)).map(|(log, _)| *log);
        let Some(lowest) = told.next() else { continue };
        let logs = lowest..=told.next_back().unwrap_or(lowest);
        let listing = cluster.list_logs(*timeline, logs.clone())?;
        let wrong: Vec<u32> = held
            .sealed
            .range(logs)
            .filter(|(_, name)| !listing.agrees(name, size))
            .map(|(log, _)| *log)
            .collect();
        for log in wrong {
            correct(held, log, &listing, size);
            holds = false;
        }
    }
    Ok(holds)
}

/// Lists the LOG of a segment that is not where a roll-up had it. `false` where none told of it.
pub(super) fn doubt(
    cluster: &Cluster<'_>,
    archive: &mut Archive,
    segment: SegmentName,
) -> Result<bool, RepositoryError> {
    let size = archive.segment_size;
    let held = archive.timelines.get_mut(&segment.timeline).filter(|t| t.sealed.contains_key(&segment.log));
    let Some(held) = held else { return Ok(false) };
    let listing = cluster.list_logs(segment.timeline, segment.log..=segment.log)?;
    correct(held, segment.log, &listing, size);
    Ok(true)
}

/// Lists the LOGs from a position on. Those that are whole stay sealed.
pub(super) fn list_from(
    cluster: &Cluster<'_>,
    archive: &mut Archive,
    start: Lsn,
) -> Result<(), RepositoryError> {
    let size = archive.segment_size;
    for (timeline, held) in &mut archive.timelines {
        let first = SegmentName::holding(*timeline, start, size).log;
        let logs: Vec<u32> = held.sealed.range(first..).map(|(log, _)| *log).collect();
        for log in logs {
            let listing = cluster.list_logs(*timeline, log..=log)?;
            let all = size.numbers_of_log(log);
            if listing.segments.run_of(all.start).is_none_or(|run| run.end < all.end) {
                correct(held, log, &listing, size);
            }
        }
    }
    Ok(())
}

/// From now on, what was listed of a LOG is what is there of it.
fn correct(held: &mut Timeline, log: u32, listing: &Listing, size: SegmentSize) {
    if let Some(name) = held.sealed.remove(&log) {
        tracing::warn!("the roll-up {name} is not what is there any more: its segments are looked at");
    }
    let numbers = size.numbers_of_log(log);
    held.segments.remove(numbers.clone());
    for run in listing.segments.runs() {
        held.segments.insert(run.start.max(numbers.start)..run.end.min(numbers.end));
    }
}
