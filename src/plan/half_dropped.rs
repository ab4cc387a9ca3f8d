//! A stop in the midst of a `DROP DATABASE`. Its first step, a change in place, belongs to no transaction: recovery that
//! stops between it and the commit leaves a database that nobody can connect to.

use std::collections::BTreeMap;

use super::restore_plan::RestorePlan;
use super::target::{StopKind, Target};
use crate::types::Lsn;
use crate::wal::Activity;

/// What an operator should know of such a stop, by what the segments around it tell of transactions, in order.
pub fn half_dropped(activities: impl IntoIterator<Item = Activity>, plan: &RestorePlan) -> Vec<String> {
    let Some(stop) = &plan.stop else { return Vec::new() };
    let exclusive = plan.recover_exclusive || matches!(plan.recover, Target::Time(_));
    let whole = matches!(stop.kind, StopKind::EndOfWal { .. });
    let mut drops: BTreeMap<u32, Activity> = BTreeMap::new();
    for part in activities {
        let xid = part.xid;
        drops.entry(xid).or_insert_with(|| Activity { xid, ..Activity::default() }).absorb(part);
    }
    let mut notes = Vec::new();
    for drop in drops.into_values() {
        let Some(before) = drop.before_in_place else { continue };
        let begun = match &drop.dropped_database {
            Some(files) if exclusive && !whole => stop.at >= files.previous,
            _ => stop.at > before,
        };
        let done = drop.end.as_ref().is_some_and(|end| is_replayed(end.lsn, stop.at, exclusive && !whole));
        if !begun || done {
            continue;
        }
        let which = drop
            .dropped_database
            .map_or_else(String::new, |d| format!(" of the database with OID {}", d.database));
        notes.push(format!(
            "recovery stops in the midst of the DROP DATABASE{which} by transaction {}: nobody can connect to that database afterwards; --target-lsn {before} stops before it began",
            drop.xid
        ));
    }
    notes
}

fn is_replayed(record: Lsn, stop: Lsn, exclusive: bool) -> bool {
    if exclusive { record < stop } else { record <= stop }
}
