//! Roll-ups: what the summaries of all segments of one LOG (4 GiB of WAL) say, in one object.
//!
//! A LOG of a timeline that is complete, and on which another one follows, is sealed once. From then on its roll-up's *name* tells a listing
//! what a coarse search needs, so that one page of names stands for a thousand LOGs, and its *content* takes
//! the place of as many summaries as the LOG has segments. The segments stay the truth: a roll-up says what
//! was there when it was made. `info` believes it; a restore plan lists its own range again, and believes it
//! only where it counts as many objects as the roll-up did; `verify` compares.
//!
//! A roll-up that is damaged, of a later version, or contradicted by another one is passed over: its LOG is
//! listed, and its summaries are read. It is never a reason to call something absent.
//!
//! Made by commands (`backup` at its end, `verify`), never by a hook. What is made depends on nothing but the
//! segments, and its name on its content, so that two who seal at once write one object.

mod content;
mod facts;
mod listing;
mod seal;

pub use content::{RolledSegment, Rollup, StoredCopy};
pub use listing::{Listing, LogObjects};
pub use seal::Sealed;

use std::collections::BTreeMap;

use super::layout::RollupName;
use super::{Cluster, RepositoryError};
use crate::types::TimelineId;

/// The roll-ups of one timeline that can be believed, by their LOGs.
pub type SealedLogs = BTreeMap<u32, RollupName>;

impl Cluster<'_> {
    /// The roll-ups of all timelines, from their names alone: one for each LOG, the one that saw the most
    /// objects. A LOG about which two of those disagree has none.
    pub fn rollups(&self) -> Result<BTreeMap<TimelineId, SealedLogs>, RepositoryError> {
        let folder = self.layout().rollups();
        let mut timelines: BTreeMap<TimelineId, BTreeMap<u32, Vec<RollupName>>> = BTreeMap::new();
        self.storage().list(&folder, None, &mut |info| {
            let parts = info.name.strip_prefix(&folder).and_then(|name| name.split_once('/'));
            let Some((timeline, last)) = parts else { return };
            let timeline = (timeline.len() == 8).then(|| u32::from_str_radix(timeline, 16).ok()).flatten();
            let Some(name) = timeline.and_then(|t| RollupName::parse(TimelineId(t), last)) else { return };
            timelines.entry(name.timeline).or_default().entry(name.log).or_default().push(name);
        })?;
        let believed = |logs: BTreeMap<u32, Vec<RollupName>>| {
            logs.into_iter().filter_map(|(log, names)| Some((log, latest(names)?))).collect()
        };
        Ok(timelines.into_iter().map(|(timeline, logs)| (timeline, believed(logs))).collect())
    }

    /// A roll-up's content, proved against its name; `None` is proof of absence.
    pub fn rollup(&self, name: &RollupName) -> Result<Option<Rollup>, RepositoryError> {
        let object = self.layout().rollup(name);
        let Some(stored) = self.storage().read(&object)? else { return Ok(None) };
        Rollup::decode(self, name, &stored, &self.object_url(&object)).map(Some)
    }
}

/// The one of a LOG's roll-ups that saw the most objects; `None` where several did and differ.
fn latest(mut names: Vec<RollupName>) -> Option<RollupName> {
    // The one with the longer digest was written because the other is damaged.
    names.sort_by_key(|name| (name.objects, name.digest.len()));
    let last = names.pop()?;
    let same = |other: &RollupName| other.facts == last.facts && last.digest.starts_with(&other.digest);
    names.iter().filter(|other| other.objects == last.objects).all(same).then_some(last)
}
