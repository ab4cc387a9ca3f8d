//! Roll-ups against the segments that they are of. `info` believes them, so one that lies is told.

use super::problem::{About, Found, Kind, Verdict, judge};
use crate::repository::layout::RollupName;
use crate::repository::rollup::{RolledSegment, Rollup};
use crate::repository::{Cluster, RepositoryError};

const AGAIN: &str = "remove it, and run pitr verify: it is made again from the segments";

/// All roll-ups of one LOG.
pub(super) fn check(cluster: &Cluster<'_>, names: &[RollupName]) -> Result<Found, RepositoryError> {
    let mut found = Found::default();
    let Some(first) = names.first() else { return Ok(found) };
    let truth = match cluster.roll_up(first.timeline, first.log) {
        Ok(truth) => truth,
        Err(error) => {
            // Each of its segments was looked at, and has its own problem.
            judge(error)?;
            return Ok(found);
        }
    };
    let numbers = cluster.segment_size().numbers_of_log(first.log);
    let whole = cluster.list_logs(first.timeline, first.log..=first.log)?.segments.holds_all(numbers);
    if truth.is_none() && whole {
        // The segment behind cannot tell what crosses into it: neither can be held against the other.
        return Ok(found);
    }
    for name in names {
        let object = cluster.layout().rollup(name);
        let (kind, what, todo) = match cluster.rollup(name) {
            Ok(None) => continue,
            Ok(Some(rollup)) => match lie(name, &rollup, truth.as_ref()) {
                Some(lie) => (Kind::RollupLies, lie, AGAIN),
                None => continue,
            },
            Err(error) => match judge(error)? {
                Verdict::Damaged(_) if replaced(cluster, name, names)? => continue,
                // Of what is damaged a good one is stored beside it; where that cannot be, nothing is worse.
                Verdict::Damaged(why) => match cluster.seal(name.timeline, name.log) {
                    Ok(_) => {
                        (Kind::DamagedRollup, why, "it was made again beside this one, which may be removed")
                    }
                    Err(_) => (Kind::DamagedRollup, why, AGAIN),
                },
                Verdict::Newer(why) => (Kind::NewerFormat, why, "install a newer version of pitr"),
                Verdict::Unreadable(why) => (Kind::Unreadable, why, "may this user read it?"),
            },
        };
        found.add(kind, &object, what, todo, About::Nothing);
    }
    Ok(found)
}

/// A damaged one stays where it is, and a good one is stored beside it, under more of its digest.
fn replaced(cluster: &Cluster<'_>, name: &RollupName, all: &[RollupName]) -> Result<bool, RepositoryError> {
    for other in all.iter().filter(|other| *other != name && other.digest.starts_with(&name.digest)) {
        match cluster.rollup(other) {
            Ok(found) => return Ok(found.is_some()),
            Err(error) => drop(judge(error)?),
        }
    }
    Ok(false)
}

fn lie(name: &RollupName, rollup: &Rollup, truth: Option<&Rollup>) -> Option<String> {
    let Some(truth) = truth else {
        return Some("it is of a whole LOG, and not every segment of that is there".to_owned());
    };
    let objects: usize = truth.segments.iter().map(|segment| segment.copies.len()).sum();
    if usize::try_from(name.objects).unwrap_or(usize::MAX) < objects {
        // Made before further copies came: it claims nothing of them, and is passed over for a newer one.
        return None;
    }
    let differs = |(said, is): &(&RolledSegment, &RolledSegment)| said != is;
    let Some((said, is)) = rollup.segments.iter().zip(&truth.segments).find(differs) else {
        let what = "it does not say what the segment behind it says of the record that ends there";
        return (rollup != truth).then(|| what.to_owned());
    };
    let text = |segment: &RolledSegment| serde_json::to_string(segment).unwrap_or_default();
    let short = |text: String| text.chars().take(200).collect::<String>();
    Some(format!(
        "it does not say what the summaries say: of segment {:08X} it says {}, not {}",
        is.seg,
        short(text(said)),
        short(text(is))
    ))
}
