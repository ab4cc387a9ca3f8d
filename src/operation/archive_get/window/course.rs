//! Which segments the server will ask for next. Pure.
//!
//! As `XLogFileReadAnyTLI` does: for one segment number the newest timeline of the lineage is asked for first,
//! then its ancestors, down to the timeline of the last one read.

use crate::types::{SegmentName, SegmentSize, TimelineId};
use crate::wal::TimelineHistory;

/// What is known of a segment's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody has looked yet.
    Unknown,
    /// Here, on its way, or there and not for us.
    Known,
    /// It was not there when somebody looked.
    Missing,
}

/// The lineage that the server follows, as far as it shows.
#[derive(Debug)]
pub(super) struct Course {
    size: SegmentSize,
    history: Option<TimelineHistory>,
    /// The history was asked for in this run, and is no file that some earlier one has left.
    seen: bool,
}

impl Course {
    /// With what an earlier run of recovery may have left in `pg_wal`.
    pub(super) fn new(size: SegmentSize, left: Option<TimelineHistory>) -> Self {
        Self { size, history: left, seen: false }
    }

    pub(super) fn size(&self) -> SegmentSize {
        self.size
    }

    pub(super) fn number(&self, segment: SegmentName) -> u64 {
        // A name that cannot be of this size has been refused before.
        segment.number(self.size).unwrap_or_default()
    }

    /// The server was given this history. Looking for the newest timeline it probes upwards, so the greatest one
    /// is the one it follows.
    pub(super) fn learn(&mut self, history: TimelineHistory) {
        if !self.seen || self.history.as_ref().is_none_or(|known| known.timeline <= history.timeline) {
            self.history = Some(history);
            self.seen = true;
        }
    }

    /// The server has asked for an older timeline's segment where the lineage promises a newer one.
    pub(super) fn forget(&mut self) {
        self.history = None;
        self.seen = false;
    }

    /// The names that segment `number` may be asked for under, the first one first, once `last` was.
    fn candidates(&self, last: SegmentName, number: u64) -> Vec<SegmentName> {
        let named = |timeline: TimelineId| SegmentName::from_number(timeline, number, self.size);
        let Some(history) = self.history.as_ref().filter(|h| h.contains(last.timeline)) else {
            return vec![named(last.timeline)];
        };
        let start = number.saturating_mul(self.size.bytes());
        let mut names: Vec<_> = history
            .stretches()
            .filter(|(timeline, begin, end)| {
                // Behind its end a timeline's segments are of another lineage.
                *timeline >= last.timeline
                    && self.size.number_of(*begin) <= number
                    && end.is_none_or(|end| start < end.0)
            })
            .map(|(timeline, ..)| named(timeline))
            .collect();
        names.reverse();
        names
    }

    /// The nearest segment within `window` behind `last` that nobody has looked for; `None` also where the
    /// archive ends before: what is behind a segment that is missing is not looked for.
    pub(super) fn next(
        &self,
        last: SegmentName,
        window: u64,
        standing: impl Fn(SegmentName) -> Standing,
    ) -> Option<SegmentName> {
        let from = self.number(last);
        for number in from + 1..=from.saturating_add(window) {
            let mut there = false;
            for name in self.candidates(last, number) {
                match standing(name) {
                    Standing::Unknown => return Some(name),
                    Standing::Known => {
                        there = true;
                        break;
                    }
                    Standing::Missing => {}
                }
            }
            if !there {
                return None;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn name(timeline: u32, number: u64) -> SegmentName {
        SegmentName::from_number(TimelineId(timeline), number, SIZE)
    }

    fn history(timeline: u32, text: &str) -> TimelineHistory {
        TimelineHistory::parse(TimelineId(timeline), text.as_bytes()).unwrap()
    }

    /// All that is asked for, where only these are there.
    fn asked(course: &Course, last: SegmentName, window: u64, there: &[SegmentName]) -> Vec<SegmentName> {
        let mut asked = Vec::new();
        while let Some(next) = course.next(last, window, |name| match asked.contains(&name) {
            true if there.contains(&name) => Standing::Known,
            true => Standing::Missing,
            false => Standing::Unknown,
        }) {
            asked.push(next);
        }
        asked
    }

    #[test]
    fn the_next_segments_are_looked_for_up_to_the_first_that_is_missing() {
        let course = Course::new(SIZE, None);
        let there: Vec<_> = (256..260).map(|number| name(1, number)).collect();
        let found = asked(&course, name(1, 255), 3, &there);
        assert_eq!(found, there[..3]);
        assert_eq!(found[0].to_string(), "000000010000000100000000");
        let all: Vec<_> = (256..=260).map(|number| name(1, number)).collect();
        assert_eq!(asked(&course, name(1, 255), 100, &there), all);
        assert_eq!(asked(&course, name(1, 255), 0, &there), []);
    }

    #[test]
    fn at_a_switch_the_newer_timeline_is_looked_for_first() {
        // Timeline 1 was left in the middle of segment 5, timeline 2 at the very end of segment 7.
        let mut course = Course::new(SIZE, None);
        course.learn(history(3, "1\t0/5800000\tx\n2\t0/8000000\tx\n"));
        let there = [name(1, 4), name(2, 5), name(2, 6), name(2, 7), name(3, 8), name(3, 9)];
        let mut all = there.to_vec();
        all.push(name(3, 10));
        assert_eq!(asked(&course, name(1, 3), 100, &there), all);
        // The segment of the switch is only there under its old name: as after a promotion that was not archived.
        let there = [name(1, 4), name(1, 5)];
        let expected = [name(1, 4), name(2, 5), name(1, 5), name(2, 6)];
        assert_eq!(asked(&course, name(1, 3), 100, &there), expected);
        // Never back to a timeline that was left.
        assert_eq!(asked(&course, name(2, 5), 1, &[]), [name(2, 6)]);
    }

    #[test]
    fn the_greatest_history_that_the_server_was_given_counts_before_what_lay_there() {
        let mut course = Course::new(SIZE, Some(history(4, "1\t0/5000000\tx\n")));
        assert_eq!(asked(&course, name(1, 4), 1, &[]), [name(4, 5)]);
        course.learn(history(2, "1\t0/5000000\tx\n"));
        assert_eq!(asked(&course, name(1, 4), 1, &[]), [name(2, 5)]);
        course.learn(history(3, "1\t0/5000000\tx\n2\t0/9000000\tx\n"));
        course.learn(history(2, "1\t0/5000000\tx\n"));
        assert_eq!(asked(&course, name(2, 8), 1, &[]), [name(3, 9)]);
        course.forget();
        assert_eq!(asked(&course, name(1, 4), 1, &[]), [name(1, 5)]);
    }
}
