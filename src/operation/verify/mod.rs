//! `verify`: the repository against itself.
//!
//! One listing says what there is. Every object is then held against its name, its summary or index and, unless
//! it is to be quick, its bytes; what is found is held against the timelines and the backups, so that each
//! problem says what can no longer be restored because of it.
//!
//! What the store does not answer is never taken for something that is not there: an object that it does not
//! give out is a problem of its own, a store that does not answer at all ends the command.
//!
//! Nothing is changed, and nothing written but roll-ups that are missing. Memory is a constant: each thread has one object or frame, and a million segments are a
//! few ranges of numbers.

mod backup;
mod coverage;
mod frames;
mod history;
mod in_order;
mod inventory;
mod pass;
mod problem;
mod report;
mod rollups;
mod root;
mod state;
#[cfg(test)]
mod tests;
mod truth;
mod unfinished;
mod wal;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

pub use problem::{Kind, Problem};
pub use root::verify_root;
pub use unfinished::Lives;

use self::coverage::Ground;
use self::inventory::Inventory;
use self::problem::Found;
use self::state::Keeper;
use crate::operation::in_full::in_full;
use crate::operation::seal::seal_complete;
use crate::repository::{Cluster, RepositoryError};
use crate::types::{Moment, TimelineId, WalFileName};

/// How a verification is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names, sizes, summaries and coverage alone: the bytes behind them are not read.
    pub quick: bool,
    /// Only what is needed to restore moments from this one on.
    pub since: Option<Moment>,
    /// How many objects are read at a time; each takes up to 28 MiB of memory.
    pub threads: usize,
    /// Where it is kept how far a verification has come; `None` to keep nothing.
    pub state_dir: Option<PathBuf>,
    /// Go on where an earlier run was cut off.
    pub resume: bool,
}

/// Told how far a verification is.
pub trait Monitor: Sync {
    /// So much is to be looked at in this cluster, roughly. Without bytes only the objects count.
    fn began(&self, _cluster: &str, _objects: u64, _bytes: u64) {}
    /// So much more was looked at.
    fn checked(&self, _objects: u64, _bytes: u64) {}
    /// What is no problem of the repository.
    fn warning(&self, _text: &str) {}
}

/// For whom nobody looks.
impl Monitor for () {}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Objects: WAL objects, refused files, pieces, and those of backups.
    pub objects: u64,
    /// Their stored bytes. With `quick` only some of them were read.
    pub bytes: u64,
}

/// One epoch of a cluster, verified.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The cluster.
    pub name: String,
    /// Which of its identities.
    pub epoch: u32,
    /// The system that it is bound to.
    pub system_identifier: crate::types::SystemId,
    /// By this run.
    pub checked: Amount,
    /// By the run that was cut off before.
    pub resumed: Amount,
    /// Worst first; empty where all is well.
    pub problems: Vec<Problem>,
    /// What an operator may want to know, and what is no problem.
    pub notes: Vec<String>,
}

/// Counts what was looked at.
#[derive(Debug, Default)]
struct Checked {
    now: Amount,
    before: Amount,
}

impl Checked {
    fn looked_at(&mut self, objects: u64, bytes: u64) {
        self.now.objects += objects;
        self.now.bytes += bytes;
    }

    fn resumed(&mut self, objects: u64, bytes: u64) {
        self.before.objects += objects;
        self.before.bytes += bytes;
    }
}

/// Verifies one epoch; see the module's text. An error is one of the store: how far this has come is kept.
pub fn verify(
    cluster: &Cluster<'_>,
    options: &Options,
    lives: &Lives<'_>,
    monitor: &dyn Monitor,
) -> Result<Report, RepositoryError> {
    let mut keeper = Keeper::begin(cluster, !options.quick, options.state_dir.as_deref(), options.resume);
    let outcome = look(cluster, options, lives, monitor, &mut keeper);
    if outcome.is_err() {
        keeper.keep();
    }
    if let Some(warning) = keeper.warning.take() {
        monitor.warning(&warning);
    }
    if outcome.is_ok() {
        keeper.done();
        // Nothing depends on it: what is not sealed is listed.
        if let Err(error) = seal_complete(cluster, &|| true) {
            let why = in_full(&error);
            monitor.warning(&format!(
                "complete LOGs of {name} cannot be sealed in roll-ups: {why}",
                name = cluster.name()
            ));
        }
    }
    outcome
}

fn look(
    cluster: &Cluster<'_>,
    options: &Options,
    lives: &Lives<'_>,
    monitor: &dyn Monitor,
    keeper: &mut Keeper,
) -> Result<Report, RepositoryError> {
    let inventory = Inventory::of(cluster)?;
    let (mut found, mut checked) = (Found::default(), Checked::default());
    let mut described = Vec::new();
    let ways = history::ways(cluster, &inventory, &mut found)?;
    for (id, folder) in &inventory.backups {
        if !folder.complete {
            unfinished::judge_unfinished(cluster, id, lives, &mut found)?;
            continue;
        }
        described.extend(backup::describe(cluster, id, &mut found)?);
        checked.looked_at(folder.objects, 0);
    }
    if !inventory.backups.values().any(|folder| folder.complete) {
        let what = "there is no backup: nothing can be restored";
        found.add(Kind::NoBackup, &cluster.layout().all(), what, root::BACK_UP, problem::About::Nothing);
    }
    let mut facts: Vec<_> = described.iter().filter(|d| d.usable).map(backup::Described::facts).collect();
    facts.sort_by_key(|b| b.stop);
    let standing = BTreeMap::new();
    let mut ground = Ground {
        size: cluster.segment_size(),
        ways,
        segments: &inventory.segments,
        pieces: &inventory.pieces,
        standing: &standing,
        backups: facts,
        first: 0,
    };
    if let Some(since) = options.since {
        ground.first = ground.needed_since(since, &ends(cluster, &ground)?);
    }
    let needed = |d: &&backup::Described| ground.size.number_of(d.backup.start_lsn) >= ground.first;
    let deep: Vec<_> = described.iter().filter(needed).filter(|d| d.readable && !options.quick).collect();
    let (objects, mut bytes) = inventory.wal_from(ground.first);
    bytes += deep.iter().map(|d| d.backup.stored_size).sum::<u64>();
    let name = format!("{} of {}", cluster.name(), cluster.repository().url());
    monitor.began(&name, objects, if options.quick { 0 } else { bytes });
    let pass = pass::Pass {
        cluster,
        deep: !options.quick,
        first: ground.first,
        threads: options.threads,
        rollups: &inventory.rollups,
        monitor,
    };
    pass.run(keeper, &mut checked)?;
    // Of a LOG that is not there at all the pass has seen nothing.
    for ((timeline, log), names) in &inventory.rollups {
        let numbers = ground.size.numbers_of_log(*log);
        let there = inventory.segments.get(timeline).and_then(|held| held.next_from(numbers.start));
        if there.is_none_or(|number| number >= numbers.end) && numbers.start >= ground.first {
            found.take_in(rollups::check(cluster, names)?);
        }
    }
    keeper.state.backups.retain(|id, _| deep.iter().any(|d| d.backup.id.as_str() == id));
    for described in deep {
        let bytes = frames::Bytes { cluster, backup: &described.backup, threads: options.threads, monitor };
        bytes.run(keeper, &mut checked, &mut found)?;
    }
    let folders = keeper.state.folders.values().map(|folder| folder.found.clone());
    let backups = keeper.state.backups.values().map(|backup| backup.found.clone());
    folders.chain(backups).for_each(|more| found.take_in(more));
    report::put_together(cluster, &inventory, &described, ground, found, checked)
}

/// The latest moments of which the WAL of each way tells, by the word of its last segment.
fn ends(cluster: &Cluster<'_>, ground: &Ground<'_>) -> Result<BTreeMap<TimelineId, Moment>, RepositoryError> {
    let mut ends = BTreeMap::new();
    for way in &ground.ways {
        let Some(last) = ground.last_on(way) else { continue };
        let summary = match cluster.wal_summary(WalFileName::Segment(last)) {
            Ok(summary) => summary,
            Err(error) => {
                problem::judge(error)?;
                continue;
            }
        };
        let until = summary.and_then(|s| s.wal.and_then(|wal| wal.until).max(s.modified));
        ends.extend(until.map(|until| (way.timeline(), until)));
    }
    Ok(ends)
}
