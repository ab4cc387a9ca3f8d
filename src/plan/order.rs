//! A moment, and the order of the WAL. Commits are written in the order of their places, and nearly in that
//! of their times: two at once may be the other way round, and a clock may be set back.
//!
//! The server knows only places: it stops at the first commit or abort that is later than its target. What
//! comes behind and is not later is lost by that; where somebody would want it, only he can say so.

use std::ops::Range;

use super::coverage::Archive;
use super::ends::{first_transaction, last_transaction};
use super::evidence::{SegmentFacts, WalReader};
use super::run::{Run, Visited, sealed};
use super::search::{Borders, SLACK, later};
use crate::types::{Lsn, Moment, SegmentName};
use crate::wal::{Found, Sought};

/// A commit or abort that is needed only where it is shown.
#[derive(Debug, Clone)]
enum Spot {
    Here(Found),
    /// Of some of the run's segments, by their places in it.
    FirstOf(Range<usize>),
    LastOf(Range<usize>),
}

/// A place at which a moment can be said to be: what comes before is not later, what follows is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// The last one that is not later; `None` where none is.
    pub(super) last: Option<Found>,
    /// The first one that is later; `None` at the end of the WAL.
    pub(super) next: Option<Found>,
}

/// The commits and aborts along a run, on both sides of a moment.
#[derive(Debug, Clone)]
pub(super) struct Order {
    moment: Moment,
    /// One at exactly the moment is on the later side.
    or_at: bool,
    from: Lsn,
    end: Lsn,
    /// The last one that is not later, while nothing later has followed it.
    open: Option<Spot>,
    /// The last one seen is later.
    in_later: bool,
    /// The latest so far.
    highest: Option<Moment>,
    /// Of those that are not later and come behind one that is: how many, and how far the clock was ahead.
    pub(super) behind: u64,
    pub(super) step: jiff::SignedDuration,
    /// The places to choose from, as many as are shown.
    places: Vec<(Option<Spot>, Option<Spot>)>,
    pub(super) more_places: u64,
    /// Those out of order, with the later ones before them, as many as are shown.
    pub(super) mixed: Vec<Found>,
    /// Later ones since the last one that is not.
    since: Vec<Found>,
}

/// What is shown of a list.
const SHOWN: usize = 16;

impl Order {
    /// Of a run, from a position on.
    pub(super) fn along<W: WalReader>(
        run: &Run,
        archive: &Archive,
        (from, moment, or_at): (Lsn, Moment, bool),
        wal: &mut W,
    ) -> Result<Self, W::Error> {
        let mut order = Self {
            moment,
            or_at,
            from,
            end: run.end,
            open: None,
            in_later: false,
            highest: None,
            behind: 0,
            step: jiff::SignedDuration::ZERO,
            places: Vec::new(),
            more_places: 0,
            mixed: Vec::new(),
            since: Vec::new(),
        };
        let mut borders = Borders::default();
        let (mut at, mut before) = (0, None::<SegmentFacts>);
        while let Some(segment) = run.segments.get(at).copied() {
            if let Some((log, behind)) = sealed(archive, &run.segments, at)
                && log.whole
                && order.passes(at..behind, log.times)
            {
                (at, before) = (behind, None);
                continue;
            }
            let facts = wal.facts(segment)?;
            let previous = at.checked_sub(1).and_then(|at| run.segments.get(at)).copied();
            let visited = Visited { before: previous, segment, facts: &facts };
            let across = borders.before(visited, archive, &Sought::Transaction);
            let near = before.as_ref().is_some_and(|before| order.is_near(before, &facts));
            if let Some(place) = across.filter(|_| near)
                && let Some(found) = wal.seek(&[place], &Sought::Transaction, from)?
            {
                order.take(&found);
            }
            order = order.segment(at, segment, &facts, archive, wal)?;
            before = Some(facts);
            at += 1;
        }
        if !order.places.is_empty() && order.open.is_some() {
            order.next_is_later(None);
        }
        Ok(order)
    }

    /// Whether nobody but the operator can say what is meant.
    pub(super) fn must_be_chosen(&self) -> bool {
        self.step > SLACK
    }

    /// The places to choose from.
    pub(super) fn choices<W: WalReader>(
        &self,
        run: &Run,
        archive: &Archive,
        wal: &mut W,
    ) -> Result<Vec<Choice>, W::Error> {
        let mut choices = Vec::new();
        for (last, next) in &self.places {
            let last = self.at(last.as_ref(), run, archive, wal)?;
            choices.push(Choice { last, next: self.at(next.as_ref(), run, archive, wal)? });
        }
        Ok(choices)
    }

    fn at<W: WalReader>(
        &self,
        spot: Option<&Spot>,
        run: &Run,
        archive: &Archive,
        wal: &mut W,
    ) -> Result<Option<Found>, W::Error> {
        let part = |range: &Range<usize>| Run {
            from: run.from,
            segments: run.segments.get(range.clone()).unwrap_or_default().to_vec(),
            end: self.end,
            barrier: None,
        };
        match spot {
            None => Ok(None),
            Some(Spot::Here(found)) => Ok(Some(found.clone())),
            Some(Spot::FirstOf(range)) => first_transaction(&part(range), archive, self.from, wal),
            Some(Spot::LastOf(range)) => last_transaction(&part(range), archive, self.from, false, wal),
        }
    }

    fn is_later(&self, time: Moment) -> bool {
        time > self.moment || (self.or_at && time == self.moment)
    }

    /// Whether a commit on the border of two segments can be on another side than both of them.
    fn is_near(&self, before: &SegmentFacts, behind: &SegmentFacts) -> bool {
        match (before.times(), behind.times()) {
            (Some((early, late)), Some((next_early, next_late))) => {
                let not_later = later(late.max(next_late)) < self.moment;
                let all_later = early.min(next_early) > later(self.moment);
                !(not_later || all_later)
            }
            _ => true,
        }
    }

    /// Where all of a segment is on one side, its summary is enough.
    fn segment<W: WalReader>(
        mut self,
        at: usize,
        segment: SegmentName,
        facts: &SegmentFacts,
        archive: &Archive,
        wal: &mut W,
    ) -> Result<Self, W::Error> {
        if !facts.may_have_transactions() {
            return Ok(self);
        }
        let size = archive.segment_size;
        let inside = segment.start(size).is_some_and(|s| s >= self.from && s.plus(size.bytes()) <= self.end);
        match facts.times() {
            Some((earliest, latest)) if inside && self.is_later(earliest) => {
                self.next_is_later(Some(Spot::FirstOf(at..at + 1)));
                self.highest = self.highest.max(Some(latest));
                Ok(self)
            }
            Some((earliest, latest)) if !self.is_later(latest) && (inside || self.ahead().is_none()) => {
                let commits = facts.content.as_ref().map_or(0, |c| c.commits + c.aborts);
                self.next_is_not(Spot::LastOf(at..at + 1), earliest, commits);
                self.highest = self.highest.max(Some(latest));
                Ok(self)
            }
            _ => wal.fold(segment, self, |order, found| order.take(&found)),
        }
    }

    /// Whether a LOG is all on one side, so that what its roll-up's name tells is enough.
    fn passes(&mut self, range: Range<usize>, times: Option<(Moment, Moment)>) -> bool {
        let Some((earliest, latest)) = times else { return true };
        if later(latest) < self.moment {
            // How many commits it holds is not known; each of its segments stands for one.
            let at_least = range.len() as u64;
            self.next_is_not(Spot::LastOf(range), earliest, at_least);
        } else if earliest > later(self.moment) {
            self.next_is_later(Some(Spot::FirstOf(range)));
        } else {
            return false;
        }
        self.highest = self.highest.max(Some(latest));
        true
    }

    fn take(&mut self, found: &Found) {
        if found.lsn < self.from || found.lsn >= self.end {
            return;
        }
        if self.is_later(found.time) {
            self.next_is_later(Some(Spot::Here(found.clone())));
            if self.since.len() < SHOWN {
                self.since.push(found.clone());
            }
        } else {
            let ahead = self.ahead().is_some();
            self.next_is_not(Spot::Here(found.clone()), found.time, 1);
            if ahead && self.mixed.len() < SHOWN {
                self.mixed.push(found.clone());
            }
        }
        self.highest = self.highest.max(Some(found.time));
    }

    fn next_is_later(&mut self, next: Option<Spot>) {
        if !self.in_later {
            let last = self.open.take();
            if self.places.len() < SHOWN {
                self.places.push((last, next));
            } else {
                self.more_places += 1;
            }
        }
        self.in_later = true;
    }

    fn next_is_not(&mut self, last: Spot, earliest: Moment, commits: u64) {
        if let Some(ahead) = self.ahead() {
            self.behind += commits;
            self.step = self.step.max(earliest.0.duration_until(ahead.0));
            let room = SHOWN.saturating_sub(self.mixed.len());
            self.mixed.extend(std::mem::take(&mut self.since).into_iter().take(room));
        }
        self.in_later = false;
        self.open = Some(last);
    }

    /// The latest time so far, where it is later than the moment.
    fn ahead(&self) -> Option<Moment> {
        self.highest.filter(|h| self.is_later(*h))
    }
}
