//! Timeline history files: which timelines a timeline descends from, and where it left each.
//!
//! A promotion writes `NNNNNNNN.history`, one line an ancestor: number, the position where it was left, and
//! why in words. Read as the server reads it: `#` starts a comment, empty lines count for nothing, numbers
//! ascend, and each is below the file's own.

#[cfg(test)]
mod tests;

use crate::types::{Lsn, TimelineId};

/// One line: where an ancestor was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineSwitch {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// Its end: the first position that is not its own any more.
    pub end: Lsn,
    /// The server's words: `no recovery target specified`, `before 2026-…`.
    pub reason: String,
}

/// Where a timeline comes from: what its history file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The timeline itself.
    pub timeline: TimelineId,
    /// Its ancestors, oldest first.
    pub ancestors: Vec<TimelineSwitch>,
}

/// Why a file is not the history of its timeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryProblem {
    /// A line that is neither a comment nor `number, position, reason`.
    #[error("line {line} is not a timeline, a position and a reason: \"{text}\"")]
    Line {
        /// Counted from 1.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// Numbers must ascend, and stay below the file's own.
    #[error("line {line} names timeline {timeline} out of order")]
    Order {
        /// Counted from 1.
        line: usize,
        /// The number out of order.
        timeline: TimelineId,
    },
    /// A timeline cannot have been left before its parent was.
    #[error("line {line} leaves timeline {timeline} at {end}, before its parent was left")]
    Backwards {
        /// Counted from 1.
        line: usize,
        /// The timeline of that line.
        timeline: TimelineId,
        /// The position of that line.
        end: Lsn,
    },
    /// Every timeline but the first has ancestors: an empty file is a lost one.
    #[error("the history of timeline {0} names no ancestor")]
    Empty(TimelineId),
}

impl TimelineHistory {
    /// The history of a timeline without ancestors. There is no file for it.
    pub fn of_first(timeline: TimelineId) -> Self {
        Self { timeline, ancestors: Vec::new() }
    }

    /// Reads the history file of `timeline`.
    pub fn parse(timeline: TimelineId, file: &[u8]) -> Result<Self, HistoryProblem> {
        let text = String::from_utf8_lossy(file);
        let mut ancestors: Vec<TimelineSwitch> = Vec::new();
        for (index, text) in text.lines().enumerate() {
            let line = index + 1;
            let trimmed = text.trim_start();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let switch = read_line(trimmed)
                .ok_or_else(|| HistoryProblem::Line { line, text: text.chars().take(100).collect() })?;
            let last = ancestors.last();
            if last.is_some_and(|last| last.timeline >= switch.timeline) || switch.timeline >= timeline {
                return Err(HistoryProblem::Order { line, timeline: switch.timeline });
            }
            if last.is_some_and(|last| last.end > switch.end) {
                let TimelineSwitch { timeline, end, .. } = switch;
                return Err(HistoryProblem::Backwards { line, timeline, end });
            }
            ancestors.push(switch);
        }
        if ancestors.is_empty() && timeline.0 > 1 {
            return Err(HistoryProblem::Empty(timeline));
        }
        Ok(Self { timeline, ancestors })
    }

    /// The timeline on which the byte at `lsn` was written, seen from this one. The position of a switch
    /// belongs to the newer timeline.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.ancestors.iter().find(|switch| lsn < switch.end).map_or(self.timeline, |switch| switch.timeline)
    }

    /// Whether a timeline is this one or an ancestor of it.
    pub fn contains(&self, timeline: TimelineId) -> bool {
        timeline == self.timeline || self.ancestors.iter().any(|switch| switch.timeline == timeline)
    }

    /// Where an ancestor was left; `None` for this timeline itself, and for strangers.
    pub fn end_of(&self, timeline: TimelineId) -> Option<Lsn> {
        self.ancestors.iter().find(|switch| switch.timeline == timeline).map(|switch| switch.end)
    }

    /// Where this timeline left its parent; `0/0` for one without ancestors.
    pub fn begin(&self) -> Lsn {
        self.ancestors.last().map_or(Lsn::INVALID, |switch| switch.end)
    }

    /// Every timeline, oldest first and this one last, with its first position and the first position
    /// behind it (`None` where it has not ended).
    pub fn stretches(&self) -> impl Iterator<Item = (TimelineId, Lsn, Option<Lsn>)> + '_ {
        let begins = std::iter::once(Lsn::INVALID).chain(self.ancestors.iter().map(|switch| switch.end));
        let ends = self.ancestors.iter().map(|switch| (switch.timeline, Some(switch.end)));
        begins
            .zip(ends.chain(std::iter::once((self.timeline, None))))
            .map(|(begin, (timeline, end))| (timeline, begin, end))
    }
}

fn read_line(line: &str) -> Option<TimelineSwitch> {
    let (number, rest) = line.split_once(|c: char| c.is_ascii_whitespace())?;
    let rest = rest.trim_start();
    let (lsn, reason) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
    let timeline = number.parse().ok().filter(|number| *number > 0).map(TimelineId)?;
    Some(TimelineSwitch { timeline, end: lsn.parse().ok()?, reason: reason.trim().to_owned() })
}
