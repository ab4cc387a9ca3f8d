//! Going through one timeline.

use std::collections::{HashMap, HashSet};

use super::event::{Event, EventId, Kind};
use super::join::{Joiner, UNLISTED};
use super::part::{self, Part};
use super::places::{Place, Stretch, within};
use super::tell::Committed;
use super::{Monitor, Query};
use crate::plan::Archive;
use crate::repository::{Cluster, RepositoryError};
use crate::types::{Lsn, Moment, TimelineId};
use crate::wal::{FileNode, Joined, Unfinished, precedes};

/// Requests to a store at the same time: most of a small request is waiting.
const AT_ONCE: usize = 16;
/// Segments read at the same time: that is work, and memory.
const READ_AT_ONCE: usize = 4;
/// So many segments are taken together.
const CHUNK: usize = 64;
/// So many summaries are kept between the search for the time and the walk.
const KEPT: usize = 4096;

/// The files of the one table that is asked for.
#[derive(Debug, Default)]
pub(super) struct TableFiles {
    /// Its own, as far as catalogues know.
    pub(super) own: HashSet<FileNode>,
    /// All that catalogues know: others than these may be its own as well.
    pub(super) known: HashSet<FileNode>,
}

/// One timeline being gone through.
pub(super) struct Walk<'a> {
    cluster: &'a Cluster<'a>,
    archive: &'a Archive,
    query: &'a Query,
    files: Option<&'a TableFiles>,
    monitor: &'a dyn Monitor,
    kept: HashMap<u64, Part>,
    /// The segment before, and the record of it that goes on in the next one.
    unfinished: Option<(Place, Unfinished)>,
    /// Transactions that may be worth a line.
    pub(super) committed: Vec<Committed>,
    pub(super) points: Vec<Event>,
    pub(super) unread: Vec<String>,
    pub(super) segments: u64,
    pub(super) readable: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        cluster: &'a Cluster<'a>,
        archive: &'a Archive,
        query: &'a Query,
        files: Option<&'a TableFiles>,
        monitor: &'a dyn Monitor,
    ) -> Self {
        Self {
            cluster,
            archive,
            query,
            files,
            monitor,
            kept: HashMap::new(),
            unfinished: None,
            committed: Vec::new(),
            points: Vec::new(),
            unread: Vec::new(),
            segments: 0,
            readable: 0,
        }
    }

    /// Goes through it.
    pub(super) fn timeline(&mut self, timeline: TimelineId) -> Result<(), RepositoryError> {
        let stretch = match Stretch::of(self.cluster, self.archive, timeline)? {
            Ok(stretch) => stretch,
            Err(why) => {
                self.unread.push(format!("timeline {timeline} is not looked at: {why}"));
                return Ok(());
            }
        };
        let mut range = match self.query.at {
            None => within(&stretch.places, self.query.span, |places| self.summaries(places))?,
            Some(lsn) => {
                // A record that begins there may end in the next one.
                let number = self.archive.segment_size.number_of(lsn);
                let from = stretch.places.partition_point(|place| place.number < number);
                from..stretch.places.partition_point(|place| place.number <= number + 1)
            }
        };
        if self.query.shows_commits() && self.query.around.is_some() {
            range = self.reach_commits(&stretch, range)?;
        }
        let places = stretch.places.get(range).unwrap_or_default();
        self.gaps(&stretch, places);
        let total = places.len() as u64;
        let lists_relations = self.cluster.identity().postgres_major.is_none_or(|major| major >= 15);
        let mut joiner = Joiner::new(self.query.least_rows(), lists_relations);
        self.look_back(&stretch, places, &mut joiner)?;
        for chunk in places.chunks(CHUNK) {
            let parts = self.parts(chunk)?;
            for (place, part) in chunk.iter().zip(parts) {
                self.segment(&stretch, *place, part, &mut joiner, true)?;
            }
            self.segments += chunk.len() as u64;
            self.monitor.looked_at(self.segments, total);
        }
        Ok(())
    }

    /// Further out, until there is a commit on either side of the moment.
    fn reach_commits(
        &mut self,
        stretch: &Stretch,
        range: std::ops::Range<usize>,
    ) -> Result<std::ops::Range<usize>, RepositoryError> {
        let places = &stretch.places;
        let (mut from, mut to) = (range.start.min(places.len()), range.end.min(places.len()));
        for side in [false, true] {
            loop {
                let next =
                    if side { places.get(to) } else { from.checked_sub(1).and_then(|at| places.get(at)) };
                let Some(place) = next else { break };
                let there =
                    self.summaries(std::slice::from_ref(place))?.first().is_some_and(|part| part.ends > 0);
                if side {
                    to += 1
                } else {
                    from -= 1
                }
                if there {
                    break;
                }
            }
        }
        Ok(from..to)
    }

    /// Whether a list that leaves small things out will do.
    fn needs_everything(&self) -> bool {
        let rows = self.query.wants(Kind::Delete) || self.query.wants(Kind::Update);
        self.query.shows_commits() || (rows && self.query.least_rows() < UNLISTED)
    }

    fn summaries(&mut self, places: &[Place]) -> Result<Vec<Part>, RepositoryError> {
        let missing: Vec<&Place> = places.iter().filter(|p| !self.kept.contains_key(&p.number)).collect();
        let sources: Vec<_> = missing.iter().map(|place| place.source).collect();
        let cluster = self.cluster;
        let asked = part::of_each(&sources, AT_ONCE, |source| part::summary(cluster, source))?;
        if self.kept.len() + asked.len() > KEPT {
            self.kept.clear();
        }
        if missing.len() == places.len() {
            let kept = places.iter().map(|p| p.number).zip(asked.iter().cloned());
            self.kept.extend(kept.take(KEPT));
            return Ok(asked);
        }
        self.kept.extend(missing.iter().map(|p| p.number).zip(asked));
        let parts: Vec<Option<Part>> =
            places.iter().map(|place| self.kept.get(&place.number).cloned()).collect();
        match parts.into_iter().collect() {
            Some(parts) => Ok(parts),
            // Some were forgotten in between.
            None => {
                let sources: Vec<_> = places.iter().map(|place| place.source).collect();
                part::of_each(&sources, AT_ONCE, |source| part::summary(cluster, source))
            }
        }
    }

    /// What segments say, from all of their bytes where their summaries are not enough.
    fn parts(&mut self, places: &[Place]) -> Result<Vec<Part>, RepositoryError> {
        let mut parts = self.summaries(places)?;
        let everything = self.needs_everything();
        let enough = |part: &Part| part.activities.is_some() && !part.left_out && !everything;
        let short: Vec<usize> = parts
            .iter()
            .enumerate()
            .filter(|(_, part)| part.readable() && !enough(part))
            .map(|(at, _)| at)
            .collect();
        let sources: Vec<_> =
            short.iter().filter_map(|at| places.get(*at)).map(|place| place.source).collect();
        let cluster = self.cluster;
        // The transactions of a segment of a gigabyte alone may fill a gigabyte.
        let at_once = if cluster.segment_size().bytes() > 64 << 20 { 1 } else { READ_AT_ONCE };
        let read = part::of_each(&sources, at_once, |source| part::read(cluster, source))?;
        for (at, part) in short.into_iter().zip(read) {
            if let Some(place) = parts.get_mut(at) {
                *place = part;
            }
        }
        Ok(parts)
    }

    /// Goes back to where nothing of the transactions that ended in these segments can be.
    fn look_back(
        &mut self,
        stretch: &Stretch,
        places: &[Place],
        joiner: &mut Joiner,
    ) -> Result<(), RepositoryError> {
        let Some(first) = places.first() else { return Ok(()) };
        let mut lowest: Option<u32> = None;
        for chunk in places.chunks(CHUNK) {
            for xid in self.summaries(chunk)?.iter().filter_map(|part| part.lowest) {
                lowest = Some(lowest.map_or(xid, |low| if precedes(xid, low) { xid } else { low }));
            }
        }
        let mut back = Vec::new();
        let mut number = first.number;
        while let Some(place) = stretch.before(self.archive, number) {
            let part = self.parts(std::slice::from_ref(&place))?.pop().unwrap_or_default();
            number = place.number;
            // A transaction begins behind the last record that does not know its number yet.
            let done = lowest.zip(part.next_xid).is_some_and(|(lowest, next)| !precedes(lowest, next));
            back.push((place, part));
            if done || lowest.is_none() {
                break;
            }
        }
        for (place, part) in back.into_iter().rev() {
            self.segment(stretch, place, part, joiner, false)?;
        }
        Ok(())
    }

    /// Takes up one segment; with `told`, what was committed in it is kept.
    fn segment(
        &mut self,
        stretch: &Stretch,
        place: Place,
        mut part: Part,
        joiner: &mut Joiner,
        told: bool,
    ) -> Result<(), RepositoryError> {
        let mut listed = part.activities.take().unwrap_or_default();
        let whole = self.needs_everything() || part.lacks.is_some();
        if !whole && part.lowest.is_some_and(|lowest| joiner.may_end(lowest, &listed)) {
            part = part::read(self.cluster, place.source)?;
            listed = part.activities.take().unwrap_or_default();
        }
        if let (Some(why), true) = (&part.lacks, told) {
            self.unread.push(format!("segment {} is not read to its end: {why}", place.source.segment()));
        }
        let ours = |lsn: Lsn| stretch.owns(lsn) && place.until.is_none_or(|end| lsn < end);
        let before = self.unfinished.take().filter(|(before, _)| before.number + 1 == place.number);
        let mut committed = Vec::new();
        let mut points: Vec<(String, Moment, Lsn)> = Vec::new();
        if let (Some((first, unfinished)), Some(rest), Some(magic)) = (before, &part.rest, part.magic) {
            let lsn = unfinished.lsn;
            let activity = match unfinished.join(rest, magic) {
                Joined::Activity(activity) => Some(*activity),
                Joined::RestorePoint { name, time, lsn } => {
                    points.push((name, time, lsn));
                    None
                }
                Joined::Nothing => None,
                Joined::Unknown => {
                    let read = part::read_split(self.cluster, first.source, place.source, lsn)?;
                    if read.is_none() && told {
                        let segment = place.source.segment();
                        self.unread.push(format!(
                            "the record at {lsn}, which goes on in segment {segment}, is not read"
                        ));
                    }
                    read
                }
            };
            if let Some(activity) = activity {
                committed.extend(joiner.segment(vec![activity], stretch.timeline));
            }
        }
        committed.extend(joiner.segment(listed, stretch.timeline));
        self.unfinished = part.unfinished.map(|unfinished| (place, unfinished));
        if !told {
            return Ok(());
        }
        self.readable += u64::from(part.magic.is_some());
        committed.retain(|committed| ours(committed.end.lsn) && self.is_worth_it(committed));
        self.committed.append(&mut committed);
        if self.query.wants(Kind::RestorePoint) && self.query.table.is_none() {
            points.extend(part.points.into_iter().map(|point| (point.name, point.time, point.lsn)));
            let points = points.into_iter().filter(|(_, _, lsn)| ours(*lsn));
            self.points.extend(points.map(|point| restore_point(stretch.timeline, point)));
        }
        Ok(())
    }

    fn is_worth_it(&self, committed: &Committed) -> bool {
        let query = self.query;
        let in_time = query.span.holds(committed.end.time);
        if query.shows_commits() {
            return query.around.is_some() || in_time;
        }
        let least = query.least_rows();
        let ours = |file: &FileNode| {
            self.files.is_none_or(|files| files.own.contains(file) || !files.known.contains(file))
        };
        let rows = committed.activity.rows.iter().filter(|rows| ours(&rows.file)).any(|rows| {
            (query.wants(Kind::Delete) && rows.deleted >= least)
                || (query.wants(Kind::Update) && rows.updated >= least)
        });
        // Whatever kinds are asked for: it may tell which table has which file from there on.
        in_time && (rows || committed.changed_files())
    }

    fn gaps(&mut self, stretch: &Stretch, places: &[Place]) {
        let size = self.archive.segment_size;
        let name = |number| crate::types::SegmentName::from_number(stretch.timeline, number, size);
        for pair in places.windows(2) {
            if let [one, two] = pair
                && one.number + 1 < two.number
            {
                let (first, last) = (name(one.number + 1), name(two.number - 1));
                let which = if first == last {
                    format!("segment {first} is")
                } else {
                    format!("segments {first} to {last} are")
                };
                self.unread.push(format!("{which} not in the archive: what happened there is not known"));
            }
        }
    }
}

/// Recovery that stops behind a restore point has what it would have before: the record changes nothing.
fn restore_point(timeline: TimelineId, (name, time, lsn): (String, Moment, Lsn)) -> Event {
    Event {
        id: EventId { timeline, lsn, number: 1 },
        time,
        xid: None,
        kind: Kind::RestorePoint,
        database: None,
        object: Some(name),
        rows: None,
        before: lsn,
        of: None,
    }
}
