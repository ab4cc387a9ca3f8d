//! What is in the archive's segments, for a plan that asks: by roll-ups and summaries where those tell, else by
//! the segments themselves.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::rolled::{self, RolledFacts};
use crate::operation::in_full::in_full;
use crate::plan::{Archive, Place, RestorePlan, SegmentFacts, WalReader};
use crate::repository::wal_archive::WalContent;
use crate::repository::{Cluster, RepositoryError, abreast};
use crate::types::{Lsn, SegmentName, TimelineId, WalFileName};
use crate::wal::{Found, SegmentScanner, Sought};

/// Answers the plan's questions out of the archive, each summary read once.
#[derive(Debug)]
pub struct ArchivedWal<'c> {
    cluster: &'c Cluster<'c>,
    known: HashMap<SegmentName, SegmentFacts>,
    rolled: RolledFacts,
    /// The stored bytes of the objects in some LOGs.
    sizes: HashMap<(TimelineId, u32), HashMap<String, u64>>,
    /// The segments of which no more than a piece is there.
    pieces: HashSet<SegmentName>,
    seen: Mutex<Seen>,
}

/// What came to light while segments were read.
#[derive(Debug, Default)]
struct Seen {
    /// What was asked for and is not there, although the archive has it.
    lost: Option<SegmentName>,
    /// Segments that are damaged, and why: their summaries did not show it.
    damaged: Vec<(SegmentName, String)>,
}

impl<'c> ArchivedWal<'c> {
    /// Of this cluster.
    pub fn new(cluster: &'c Cluster<'c>) -> Self {
        Self {
            cluster,
            known: HashMap::new(),
            rolled: RolledFacts::default(),
            sizes: HashMap::new(),
            pieces: HashSet::new(),
            seen: Mutex::default(),
        }
    }

    /// Takes what the archive's roll-ups say for what their segments' summaries would, from now on only that,
    /// and what it has of unfinished segments.
    #[must_use]
    pub fn believing(mut self, archive: &Archive) -> Self {
        self.rolled.believe(archive);
        let size = self.cluster.segment_size();
        let pieces = archive.timelines.iter().flat_map(|(timeline, held)| {
            held.pieces.iter().map(|(from, _)| SegmentName::holding(*timeline, *from, size))
        });
        self.pieces = pieces.filter(|segment| !archive.has(*segment)).collect();
        self
    }

    /// Corrects the archive where its last answer was that a segment of a sealed LOG is not there. `false`:
    /// no roll-up is to blame, and the error stands.
    pub fn doubt(&mut self, archive: &mut Archive) -> Result<bool, RepositoryError> {
        let Some(lost) = self.seen().lost.take() else { return Ok(false) };
        let corrected = rolled::doubt(self.cluster, archive, lost)?;
        self.rolled.believe(archive);
        Ok(corrected)
    }

    /// Whether the last answer was given before some segment turned out to be damaged: then it has to be asked
    /// for again. From now on, they are known to be.
    pub fn has_learned(&mut self) -> bool {
        let damaged = std::mem::take(&mut self.seen().damaged);
        let learned = !damaged.is_empty();
        for (segment, why) in damaged {
            let facts = SegmentFacts { unreadable: Some(why), ..SegmentFacts::default() };
            self.known.insert(segment, facts);
        }
        learned
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vanished(&self, segment: SegmentName) -> RepositoryError {
        self.seen().lost = Some(segment);
        let object = self.cluster.object_url(&self.cluster.layout().segment(segment));
        RepositoryError::damaged(object, "it was listed a moment ago and is not there")
    }

    /// Damage is a fact about a segment: it is noted, and there is nothing to be read in it.
    fn noted<T>(
        &self,
        segment: SegmentName,
        read: Result<T, RepositoryError>,
    ) -> Result<Option<T>, RepositoryError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(e @ RepositoryError::Damaged { .. }) => {
                let mut seen = self.seen();
                if seen.lost.is_some() {
                    return Err(e);
                }
                seen.damaged.push((segment, in_full(&e)));
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Hands out a segment, or as much of it as was streamed, filled up with zeros as recovery will see it.
    /// `restart` is called before each copy that is tried.
    fn read(
        &self,
        segment: SegmentName,
        mut restart: impl FnMut(),
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), RepositoryError> {
        if self.pieces.contains(&segment) {
            let piece = self.cluster.piece_of(segment)?.ok_or_else(|| self.vanished(segment))?;
            let mut read = 0;
            piece.decode(|bytes| {
                read += bytes.len() as u64;
                sink(&bytes);
                Ok::<(), RepositoryError>(())
            })?;
            let zeros = vec![0; 64 << 10];
            while read < self.cluster.segment_size().bytes() {
                let left = self.cluster.segment_size().bytes() - read;
                let here = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
                sink(zeros.get(..here).unwrap_or_default());
                read += here as u64;
            }
            return Ok(());
        }
        let found = self.cluster.fetch(
            WalFileName::Segment(segment),
            || {
                restart();
                Ok::<(), RepositoryError>(())
            },
            |chunk| {
                sink(&chunk);
                Ok(())
            },
        )?;
        if found.is_some() { Ok(()) } else { Err(self.vanished(segment)) }
    }

    fn scan(
        &self,
        segment: SegmentName,
        scanner: impl Fn() -> SegmentScanner,
    ) -> Result<SegmentScanner, RepositoryError> {
        let current = std::cell::RefCell::new(scanner());
        self.read(segment, || drop(current.replace(scanner())), |chunk| current.borrow_mut().push(chunk))?;
        Ok(current.into_inner())
    }

    fn look(&self, place: Place, sought: &Sought, from: Lsn) -> Result<Option<Found>, RepositoryError> {
        let size = self.cluster.segment_size();
        let (Place::In(first) | Place::Across(first, _)) = place;
        let scan = self.scan(first, || SegmentScanner::seeking(first, size, sought.clone(), from));
        let Some(mut scanner) = self.noted(first, scan)? else { return Ok(None) };
        let Place::Across(_, second) = place else { return Ok(scanner.found().cloned()) };
        // What ends in the first one has been looked for there.
        drop(scanner.take_found());
        // Transactions' records are short; only the lists of a giant one fill more than this.
        const HEAD: usize = 1 << 20;
        let head = std::cell::RefCell::new(Vec::new());
        let read = self.read(
            second,
            || head.borrow_mut().clear(),
            |chunk| {
                let mut head = head.borrow_mut();
                let room = HEAD.saturating_sub(head.len()).min(chunk.len());
                head.extend_from_slice(chunk.get(..room).unwrap_or_default());
            },
        );
        if self.noted(second, read)?.is_none() {
            return Ok(None);
        }
        scanner.finish_split(&head.into_inner());
        Ok(scanner.found().cloned())
    }

    /// Compares the objects of the segments that a plan replays with what their summaries name, as far as no roll-up
    /// tells of them: one listing of each LOG. `true` where one is cut short: then the plan has to be made again.
    pub fn is_cut_short(&mut self, archive: &Archive, plan: &RestorePlan) -> Result<bool, RepositoryError> {
        let mut found = false;
        for segment in plan.segments(archive) {
            let log = (segment.timeline, segment.log);
            if self.pieces.contains(&segment) {
                continue;
            }
            if archive.timelines.get(&log.0).is_some_and(|held| held.sealed.contains_key(&log.1)) {
                continue;
            }
            if !self.sizes.contains_key(&log) {
                let sizes = self.cluster.sizes_in_log(log.0, log.1)?;
                self.sizes.insert(log, sizes);
            }
            let first = self.cluster.layout().segment(segment);
            let is = self.sizes.get(&log).and_then(|sizes| sizes.get(&first)).copied();
            let known = self.facts(segment)?;
            if known.unreadable.is_none() && known.stored.zip(is).is_some_and(|(whole, is)| is < whole) {
                let facts = self.facts_of(segment)?;
                found |= facts.unreadable.is_some();
                self.known.insert(segment, facts);
            }
        }
        Ok(found)
    }

    fn facts_of(&self, segment: SegmentName) -> Result<SegmentFacts, RepositoryError> {
        if !self.pieces.contains(&segment) {
            let sizes = self.sizes.get(&(segment.timeline, segment.log));
            return read_facts(self.cluster, segment, sizes)?.ok_or_else(|| self.vanished(segment));
        }
        // A piece's summary says nothing of its content: who streamed it had no time to look.
        let size = self.cluster.segment_size();
        match self.scan(segment, || SegmentScanner::new(segment, size)) {
            Ok(scanner) => Ok(SegmentFacts {
                content: Some(WalContent::from(&scanner.finish())),
                ..SegmentFacts::default()
            }),
            Err(e @ RepositoryError::Damaged { .. }) => {
                Ok(SegmentFacts { unreadable: Some(in_full(&e)), ..SegmentFacts::default() })
            }
            Err(e) => Err(e),
        }
    }
}

impl WalReader for ArchivedWal<'_> {
    type Error = RepositoryError;

    fn expect(&mut self, segments: &[SegmentName]) -> Result<(), RepositoryError> {
        let segments = self.rolled.load(self.cluster, segments)?;
        let missing: Vec<_> = segments.into_iter().filter(|s| !self.known.contains_key(s)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let facts = abreast(&missing, |segment| self.facts_of(*segment))?;
        self.known.extend(missing.into_iter().zip(facts));
        Ok(())
    }

    fn facts(&mut self, segment: SegmentName) -> Result<SegmentFacts, RepositoryError> {
        if let Some(known) = self.known.get(&segment) {
            return Ok(known.clone());
        }
        if let Some(rolled) = self.rolled.facts(self.cluster, segment)? {
            return Ok(rolled);
        }
        let facts = self.facts_of(segment)?;
        self.known.insert(segment, facts.clone());
        Ok(facts)
    }

    fn seek(
        &mut self,
        places: &[Place],
        sought: &Sought,
        from: Lsn,
    ) -> Result<Option<Found>, RepositoryError> {
        // One after the other while one looks; the first in the order of the WAL counts.
        let found = abreast(places, |place| self.look(*place, sought, from))?;
        Ok(found.into_iter().flatten().next())
    }

    fn fold<S: Clone>(
        &mut self,
        segment: SegmentName,
        state: S,
        mut step: impl FnMut(&mut S, Found),
    ) -> Result<S, RepositoryError> {
        let size = self.cluster.segment_size();
        let scanner = || SegmentScanner::seeking(segment, size, Sought::Transaction, Lsn::INVALID);
        let current = std::cell::RefCell::new((scanner(), state.clone()));
        let read = self.read(
            segment,
            || drop(current.replace((scanner(), state.clone()))),
            |chunk| {
                let (scanner, state) = &mut *current.borrow_mut();
                scanner.push(chunk);
                scanner.take_found().into_iter().for_each(|found| step(state, found));
            },
        );
        Ok(if self.noted(segment, read)?.is_some() { current.into_inner().1 } else { state.clone() })
    }
}

fn read_facts(
    cluster: &Cluster<'_>,
    segment: SegmentName,
    sizes: Option<&HashMap<String, u64>>,
) -> Result<Option<SegmentFacts>, RepositoryError> {
    let size = |name: &str| sizes.and_then(|sizes| sizes.get(name)).copied();
    match cluster.listed_wal_summary(WalFileName::Segment(segment), size) {
        Ok(Some((summary, stored))) => {
            let stored = Some(stored);
            Ok(Some(SegmentFacts {
                content: summary.wal,
                modified: summary.modified,
                stored,
                unreadable: None,
            }))
        }
        Ok(None) => Ok(None),
        Err(e @ RepositoryError::Damaged { .. }) => {
            Ok(Some(SegmentFacts { unreadable: Some(in_full(&e)), ..SegmentFacts::default() }))
        }
        Err(e) => Err(e),
    }
}
