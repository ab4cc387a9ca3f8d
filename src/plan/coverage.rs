//! Which segments the server would ask for on its way to a timeline, and which of them are there.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::repository::rollup::SealedLogs;
use crate::types::{Lsn, SegmentName, SegmentSet, SegmentSize, TimelineId};
use crate::wal::TimelineHistory;

/// What the archive holds of one timeline.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Where it comes from, or why that is not known.
    pub history: Result<TimelineHistory, String>,
    /// Its history file is proved to be absent; the server takes such a timeline for one without ancestors.
    pub orphan: bool,
    /// The numbers of its segments, counted from `0/0`.
    pub segments: SegmentSet,
    /// Its LOGs whose roll-ups are believed: their segments are in `segments` by the word of those.
    pub sealed: SealedLogs,
    /// Stretches of segments that are not complete, as streamed: from a segment's start to behind the last
    /// byte.
    pub pieces: Vec<(Lsn, Lsn)>,
}

/// What the archive of one cluster holds.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The cluster's segment size.
    pub segment_size: SegmentSize,
    /// All timelines that have a segment or a history file.
    pub timelines: BTreeMap<TimelineId, Timeline>,
}

/// The way from the cluster's beginning to a timeline.
#[derive(Debug, Clone)]
pub struct Lineage {
    history: TimelineHistory,
    size: SegmentSize,
}

impl Archive {
    /// The way to a timeline; `Err` says why it is not known.
    pub fn lineage(&self, timeline: TimelineId) -> Result<Lineage, String> {
        match self.timelines.get(&timeline) {
            Some(Timeline { history: Ok(history), .. }) => {
                Ok(Lineage { history: history.clone(), size: self.segment_size })
            }
            Some(Timeline { history: Err(why), .. }) => Err(why.clone()),
            None => {
                let known: Vec<String> = self.timelines.keys().map(ToString::to_string).collect();
                Err(match known.as_slice() {
                    [] => format!("timeline {timeline} is not in the archive, which holds no WAL at all"),
                    _ => format!(
                        "timeline {timeline} is not in the archive: there are timelines {}",
                        known.join(", ")
                    ),
                })
            }
        }
    }

    /// The same, where an operator named the timeline: without a history file it has no ancestors then.
    pub fn named_lineage(&self, timeline: TimelineId) -> Result<Lineage, String> {
        match self.timelines.get(&timeline) {
            Some(t) if t.orphan && !t.segments.is_empty() => {
                Ok(Lineage { history: TimelineHistory::of_first(timeline), size: self.segment_size })
            }
            _ => self.lineage(timeline),
        }
    }

    /// Whether a segment is there, whole.
    pub fn has(&self, name: SegmentName) -> bool {
        let number = name.number(self.segment_size);
        let timeline = self.timelines.get(&name.timeline);
        timeline.zip(number).is_some_and(|(t, number)| t.segments.contains(number))
    }

    /// The end of what was streamed of a segment that is not complete.
    pub fn piece(&self, name: SegmentName) -> Option<Lsn> {
        let start = name.start(self.segment_size)?;
        let pieces = &self.timelines.get(&name.timeline)?.pieces;
        pieces.iter().filter(|(from, _)| *from == start).map(|(_, to)| *to).max()
    }

    /// Where the last segment on a way that is there starts.
    pub fn last_on(&self, lineage: &Lineage) -> Option<Lsn> {
        let on_way = |(id, timeline): (&TimelineId, &Timeline)| {
            let own = lineage.own(*id);
            timeline.segments.last_before(own.end).filter(|n| own.contains(n))
        };
        let known = self.timelines.iter().filter(|(id, _)| lineage.history.contains(**id));
        known.filter_map(on_way).max().map(|number| Lsn(number.saturating_mul(self.segment_size.bytes())))
    }

    /// The first segment on a way, from `number` on, that is there.
    pub fn next_on(&self, lineage: &Lineage, number: u64) -> Option<u64> {
        let on_way = |(id, timeline): (&TimelineId, &Timeline)| {
            let own = lineage.own(*id);
            timeline.segments.next_from(own.start.max(number)).filter(|n| own.contains(n))
        };
        self.timelines.iter().filter(|(id, _)| lineage.history.contains(**id)).filter_map(on_way).min()
    }
}

impl Lineage {
    /// The way that a history tells.
    pub fn new(history: TimelineHistory, size: SegmentSize) -> Self {
        Self { history, size }
    }

    /// The timeline that the way leads to.
    pub fn timeline(&self) -> TimelineId {
        self.history.timeline
    }

    /// Where its ancestors were left.
    pub fn history(&self) -> &TimelineHistory {
        &self.history
    }

    /// The name under which the server asks for segment `number` on this way: a segment in which a timeline
    /// begins is asked for under the newest one's name, and holds its ancestor's records before that.
    pub fn segment(&self, number: u64) -> SegmentName {
        let mut owner = self.history.timeline;
        for (timeline, _, end) in self.history.stretches() {
            match end {
                // The next one begins behind this segment.
                Some(end) if self.size.number_of(end) > number => {
                    owner = timeline;
                    break;
                }
                _ => owner = timeline,
            }
        }
        SegmentName::from_number(owner, number, self.size)
    }

    /// The numbers of the segments that the server asks for under a timeline's name on this way.
    pub fn own(&self, timeline: TimelineId) -> Range<u64> {
        let mut from = 0;
        for (id, _, end) in self.history.stretches() {
            let until = end.map_or(u64::MAX, |end| self.size.number_of(end)).max(from);
            if id == timeline {
                return from..until;
            }
            from = until;
        }
        0..0
    }

    /// Whether the byte at `lsn` of `timeline` lies on this way.
    pub fn holds(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.history.timeline_at(lsn) == timeline
    }

    /// Whether everything of `timeline` before `end` lies on this way.
    pub fn holds_before(&self, timeline: TimelineId, end: Lsn) -> bool {
        self.holds(timeline, Lsn(end.0.saturating_sub(1)))
    }
}
