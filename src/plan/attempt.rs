//! What came of looking for a target along one timeline.

use super::coverage::Lineage;
use super::lineage_plan::Road;
use super::restore_plan::BackupFacts;
use super::run::Run;
use super::target::{Stop, Target};
use crate::types::Lsn;
use crate::wal::Found;

/// A target that recovery will reach.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    pub(super) backup: BackupFacts,
    pub(super) lineage: Lineage,
    /// The segments up to the one in which it stops.
    pub(super) run: Run,
    pub(super) stop: Stop,
    pub(super) recover: Target,
    pub(super) recover_exclusive: bool,
    pub(super) notes: Vec<String>,
    /// Commits and aborts around the target that are not in the order of their times.
    pub(super) mixed: Vec<Found>,
}

/// Why a target cannot be reached.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusal {
    pub(super) problems: Vec<String>,
    pub(super) hints: Vec<String>,
    /// The backup that it would have started from.
    pub(super) backup: Option<BackupFacts>,
    /// The last WAL on the way, where something is in the way of it: the target may be there.
    pub(super) hidden: Option<(Lineage, Lsn)>,
    /// The way to the timeline is not known.
    pub(super) unknown_timeline: bool,
    /// The target is there more than once: what else is found does not make it plain.
    pub(super) must_be_chosen: bool,
}

impl Refusal {
    pub(super) fn new(problem: String) -> Self {
        Self { problems: vec![problem], ..Self::default() }
    }

    pub(super) fn unknown_timeline(why: String) -> Self {
        Self { unknown_timeline: true, ..Self::new(why) }
    }

    pub(super) fn hint(mut self, hint: String) -> Self {
        self.hints.push(hint);
        self
    }

    pub(super) fn hiding(mut self, road: &Road<'_>, run: &Run) -> Self {
        if run.barrier.is_some() {
            let last = road.archive.last_on(road.lineage);
            self.hidden = last.map(|last| (road.lineage.clone(), last));
        }
        self
    }

    pub(super) fn starting_from(mut self, backup: &BackupFacts) -> Self {
        self.backup = Some(backup.clone());
        self
    }
}

pub(super) type Attempt = Result<Reached, Refusal>;
