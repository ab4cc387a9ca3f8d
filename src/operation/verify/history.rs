//! Where each timeline comes from: its history file, and what others say of it.

use std::collections::BTreeMap;

use super::inventory::Inventory;
use super::problem::{About, Found, Kind, Problem, Verdict, judge};
use super::wal::{self, Listed};
use crate::plan::Lineage;
use crate::repository::{Cluster, RepositoryError};
use crate::types::{TimelineId, WalFileName};
use crate::wal::TimelineHistory;

/// The way to each timeline. One whose history is missing or damaged is taken for one without ancestors, as
/// the server takes it.
pub(super) fn ways(
    cluster: &Cluster<'_>,
    inventory: &Inventory,
    found: &mut Found,
) -> Result<Vec<Lineage>, RepositoryError> {
    for copy in &inventory.histories {
        found.take_in(wal::check(cluster, std::slice::from_ref(copy), true)?);
    }
    let mut histories = BTreeMap::new();
    let begun = inventory.begun();
    let named = inventory.histories.iter().filter_map(|copy| match &copy.holds {
        wal::Holds::File(known) => Some(known.file.timeline()),
        wal::Holds::Piece { .. } => None,
    });
    let mut timelines: Vec<TimelineId> = begun.iter().copied().chain(named).collect();
    timelines.sort_unstable();
    timelines.dedup();
    for timeline in timelines {
        let object = cluster.layout().history(timeline);
        let history = match cluster.small_file(WalFileName::History(timeline)) {
            // A text that cannot be read was found above.
            Ok(Some(text)) => TimelineHistory::parse(timeline, &text).ok(),
            Ok(None) if timeline.0 == 1 => None,
            Ok(None) if begun.first() == Some(&timeline) => {
                found.notes.push(format!(
                    "timeline {timeline} is the first in the archive, without its history file: the archive began after it"
                ));
                None
            }
            Ok(None) => {
                found.add(
                    Kind::MissingHistory,
                    &object,
                    format!("the history file of timeline {timeline} is missing: where it comes from is not known"),
                    format!("is {}.history still in pg_wal of a server of that timeline? push it again (pitr archive-push)", timeline.to_hex8()),
                    About::Nothing,
                );
                None
            }
            Err(error) => match judge(error)? {
                Verdict::Damaged(_) | Verdict::Newer(_) | Verdict::Unreadable(_) => None,
            },
        };
        let copies: Vec<&str> =
            inventory.histories.iter().filter(|c| is_of(c, timeline)).map(|c| c.name.as_str()).collect();
        let is_bad = |name: &str| found.findings.iter().any(|f| f.problem.object == name);
        let no_good_one = history.is_none() || !copies.is_empty() && copies.iter().all(|name| is_bad(name));
        if no_good_one && timeline.0 != 1 {
            let lost = format!(
                "restores to timeline {timeline} from backups taken before it began, also where no timeline is asked for and it is the newest"
            );
            let own = |p: &Problem| p.object == object || copies.contains(&p.object.as_str());
            let own = found.findings.iter_mut().map(|f| &mut f.problem).filter(|p| own(p));
            own.for_each(|problem| problem.lost.push(lost.clone()));
        }
        if !begun.contains(&timeline) {
            found.notes.push(format!(
                "timeline {timeline} has a history file and no WAL: was a server promoted that does not archive? restores that ask for no timeline may go there"
            ));
        }
        let history = history.unwrap_or_else(|| TimelineHistory::of_first(timeline));
        histories.insert(timeline, history);
    }
    contradictions(cluster, &histories, found);
    Ok(histories.into_values().map(|history| Lineage::new(history, cluster.segment_size())).collect())
}

fn is_of(copy: &Listed, timeline: TimelineId) -> bool {
    matches!(&copy.holds, wal::Holds::File(known) if known.file.timeline() == timeline)
}

/// What one history says of a common ancestor must be what that ancestor's own says.
fn contradictions(
    cluster: &Cluster<'_>,
    histories: &BTreeMap<TimelineId, TimelineHistory>,
    found: &mut Found,
) {
    for history in histories.values() {
        for (number, switch) in history.ancestors.iter().enumerate() {
            let Some(own) = histories.get(&switch.timeline).filter(|own| !own.ancestors.is_empty()) else {
                continue;
            };
            let place = |h: &TimelineHistory, n: usize| h.ancestors.get(n).map(|s| (s.timeline, s.end));
            let same =
                (0..number).all(|n| place(history, n) == place(own, n)) && own.ancestors.len() == number;
            if !same {
                found.add(
                    Kind::BadHistory,
                    &cluster.layout().history(history.timeline),
                    format!("it tells another way to timeline {} than that timeline's own history", switch.timeline),
                    "have two servers been promoted to one timeline? the files in pg_wal of each say which is right",
                    About::Nothing,
                );
                break;
            }
        }
    }
}
