//! Which segments there are: the sealed LOGs by the names of their roll-ups, the others by listing them.

use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, RangeInclusive};

use super::{SealedLogs, StoredCopy};
use crate::repository::abreast::abreast;
use crate::repository::layout::{RollupName, WalObjectName};
use crate::repository::{Cluster, RepositoryError};
use crate::storage::ObjectInfo;
use crate::types::{SegmentName, SegmentSet, SegmentSize, TimelineId, WalFileName};

/// What a listing of objects shows of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Its segments by their numbers.
    pub segments: SegmentSet,
    /// How many objects hold segments of each LOG, and what they take together.
    pub logs: BTreeMap<u32, LogObjects>,
}

/// The objects that hold a LOG's segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogObjects {
    /// How many, copies counted.
    pub count: u32,
    /// Stored bytes of all.
    pub stored: u64,
}

impl Cluster<'_> {
    /// The segments of a timeline outside its sealed LOGs. What is asked for is the stretches between them,
    /// not each LOG.
    pub fn list_unsealed(
        &self,
        timeline: TimelineId,
        sealed: &SealedLogs,
    ) -> Result<Listing, RepositoryError> {
        let folder = self.layout().wal_timeline(timeline);
        let mut listing = Listing::default();
        let mut after: Option<String> = None;
        loop {
            let mut met = None;
            self.storage().list_while(&folder, after.as_deref(), &mut |info| {
                let Some(object) = segment_object(&info) else { return ControlFlow::Continue(()) };
                if sealed.contains_key(&object.of.log) {
                    met = Some(object.of.log);
                    return ControlFlow::Break(());
                }
                listing.add(self, &object);
                ControlFlow::Continue(())
            })?;
            let Some(mut last) = met else { return Ok(listing) };
            while let Some(next) = last.checked_add(1).filter(|next| sealed.contains_key(next)) {
                last = next;
            }
            after = Some(self.layout().wal_behind_log(timeline, last));
        }
    }

    /// The segments in some LOGs of a timeline, sealed or not; many LOGs are listed in several parts at once.
    pub fn list_logs(
        &self,
        timeline: TimelineId,
        logs: RangeInclusive<u32>,
    ) -> Result<Listing, RepositoryError> {
        /// Names on a page of a bucket's listing: parts that fill their pages ask for no more of them.
        const PAGE: u64 = 1000;
        const PARTS: u64 = 16;
        let per_log = self.segment_size().per_log();
        let count = u64::from(logs.end().saturating_sub(*logs.start())) + 1;
        let pages = (count * per_log).div_ceil(PARTS * PAGE);
        let share = u32::try_from(pages * PAGE / per_log).unwrap_or(u32::MAX).max(1);
        let mut parts = Vec::new();
        let mut from = *logs.start();
        while from <= *logs.end() {
            let to = from.saturating_add(share - 1).min(*logs.end());
            parts.push(from..=to);
            match to.checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
        let mut all = Listing::default();
        for part in abreast(&parts, |part| self.list_part(timeline, part))? {
            for run in part.segments.runs() {
                all.segments.insert(run.clone());
            }
            all.logs.extend(part.logs);
        }
        Ok(all)
    }

    /// The segments of a timeline from a LOG on, sealed or not.
    pub fn list_from(&self, timeline: TimelineId, log: u32) -> Result<Listing, RepositoryError> {
        self.list_part(timeline, &(log..=u32::MAX))
    }

    fn list_part(
        &self,
        timeline: TimelineId,
        logs: &RangeInclusive<u32>,
    ) -> Result<Listing, RepositoryError> {
        let mut listing = Listing::default();
        if logs.start() == logs.end() {
            let folder = self.layout().wal_log(SegmentName { timeline, log: *logs.start(), seg: 0 });
            self.storage().list(&folder, None, &mut |info| {
                if let Some(object) = segment_object(&info) {
                    listing.add(self, &object);
                }
            })?;
            return Ok(listing);
        }
        let folder = self.layout().wal_timeline(timeline);
        let after = logs.start().checked_sub(1).map(|log| self.layout().wal_behind_log(timeline, log));
        self.storage().list_while(&folder, after.as_deref(), &mut |info| {
            let Some(object) = segment_object(&info) else { return ControlFlow::Continue(()) };
            if object.of.log > *logs.end() {
                return ControlFlow::Break(());
            }
            listing.add(self, &object);
            ControlFlow::Continue(())
        })?;
        Ok(listing)
    }

    /// The stored bytes of every object of a LOG, by its name below the root.
    pub fn sizes_in_log(
        &self,
        timeline: TimelineId,
        log: u32,
    ) -> Result<HashMap<String, u64>, RepositoryError> {
        let folder = self.layout().wal_log(SegmentName { timeline, log, seg: 0 });
        let mut sizes = HashMap::new();
        self.storage().list(&folder, None, &mut |info| {
            sizes.insert(info.name, info.size);
        })?;
        Ok(sizes)
    }

    /// The copies of each segment of a LOG, by its number within the LOG.
    pub(super) fn copies_in_log(
        &self,
        timeline: TimelineId,
        log: u32,
    ) -> Result<BTreeMap<u32, Vec<StoredCopy>>, RepositoryError> {
        let folder = self.layout().wal_log(SegmentName { timeline, log, seg: 0 });
        let mut copies: BTreeMap<u32, Vec<StoredCopy>> = BTreeMap::new();
        self.storage().list(&folder, None, &mut |info| {
            if let Some(SegmentObject { of, whole: true, digest, size }) = segment_object(&info)
                && (of.timeline, of.log) == (timeline, log)
            {
                copies.entry(of.seg).or_default().push(StoredCopy { digest, size });
            }
        })?;
        for copies in copies.values_mut() {
            copies.sort_by(|a, b| a.digest.cmp(&b.digest));
        }
        Ok(copies)
    }
}

impl Listing {
    /// Whether it shows as many objects of a LOG, with as many bytes, as were there when the LOG was sealed,
    /// and every segment of it.
    pub fn agrees(&self, name: &RollupName, size: SegmentSize) -> bool {
        let whole = self.segments.holds_all(size.numbers_of_log(name.log));
        let seen = self.logs.get(&name.log).copied().unwrap_or_default();
        whole && (seen.count, seen.stored) == (name.objects, name.stored)
    }

    fn add(&mut self, cluster: &Cluster<'_>, object: &SegmentObject) {
        let Some(number) = object.of.number(cluster.segment_size()).filter(|_| object.whole) else { return };
        self.segments.insert(number..number + 1);
        let log = self.logs.entry(object.of.log).or_default();
        log.count = log.count.saturating_add(1);
        log.stored = log.stored.saturating_add(object.size);
    }
}

/// An object that is named after a segment.
struct SegmentObject {
    of: SegmentName,
    /// It holds all of it: no `.partial`, no `.backup`.
    whole: bool,
    digest: Option<String>,
    size: u64,
}

fn segment_object(info: &ObjectInfo) -> Option<SegmentObject> {
    let name = WalObjectName::parse(info.name.rsplit('/').next()?)?;
    let (of, whole) = match name.file {
        WalFileName::Segment(s) => (s, true),
        WalFileName::Partial(s) | WalFileName::Backup(s, _) => (s, false),
        WalFileName::History(_) => return None,
    };
    Some(SegmentObject { of, whole, digest: name.digest, size: info.size })
}
