//! What the window holds, and what it wants next. Whoever looks at it holds its lock.

use std::time::Duration;

use super::course::Course;
use super::slots::Slots;
use super::source::Fetched;
use crate::types::SegmentName;

#[derive(Debug)]
pub(super) struct State {
    pub(super) slots: Slots,
    pub(super) course: Course,
    /// How long a segment takes to fetch: the longest of late.
    pub(super) pace: Duration,
    pub(super) closing: bool,
}

impl State {
    /// The server waits for this one: the window begins behind it.
    pub(super) fn asked_for(&mut self, segment: SegmentName, window: u64) {
        let number = self.course.number(segment);
        if self.slots.has_newer(segment, |other| self.course.number(other) == number) {
            self.course.forget();
        }
        self.slots.asked_for(segment);
        self.slots.retain_ahead(|other| {
            let other = self.course.number(other);
            (number..=number.saturating_add(window)).contains(&other)
        });
    }

    pub(super) fn wants(&self, segment: SegmentName, window: u64) -> bool {
        self.slots.asked().is_some_and(|asked| {
            let (from, number) = (self.course.number(asked), self.course.number(segment));
            (from..=from.saturating_add(window)).contains(&number)
        })
    }

    pub(super) fn next(&self, window: u64) -> Option<SegmentName> {
        let last = self.slots.asked().filter(|_| !self.slots.is_halted())?;
        self.course.next(last, window, |name| self.slots.standing(name))
    }

    pub(super) fn settle(&mut self, segment: SegmentName, fetched: Fetched, window: u64) {
        let wanted = !self.closing && self.wants(segment, window);
        let fetched = if wanted || !matches!(fetched, Fetched::Whole(_)) { fetched } else { Fetched::Failed };
        let number = self.course.number(segment);
        self.slots.settle(segment, fetched, |other| self.course.number(other) > number);
    }
}
