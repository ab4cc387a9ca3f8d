//! Transactions put together from the segments that they went through.
//!
//! A segment knows its own part of a transaction. What goes on in the next one is remembered here until its
//! commit or its end; what is in no segment's list any more (a commit that is worth no mention in its own
//! segment) is asked for where the numbers allow for it.

use std::collections::HashMap;

use super::tell::Committed;
use crate::types::TimelineId;
use crate::wal::{Activity, precedes};

/// So many unfinished transactions are remembered whatever they did; of more only those that did much.
const REMEMBERED: usize = 50_000;

/// The unfinished transactions of one way through the archive.
#[derive(Debug)]
pub(super) struct Joiner {
    open: HashMap<u32, Activity>,
    /// Fewer rows than these are not told.
    rows: u64,
    lists_relations: bool,
}

/// What is left out of a segment's list: a transaction that ended within it and changed fewer rows.
pub(super) const UNLISTED: u64 = 16;

impl Joiner {
    pub(super) fn new(rows: u64, lists_relations: bool) -> Self {
        Self { open: HashMap::new(), rows, lists_relations }
    }

    /// Whether a transaction that is remembered may have ended in a segment of which the lowest transaction
    /// to end is `lowest`, although its list does not say so.
    pub(super) fn may_end(&self, lowest: u32, listed: &[Activity]) -> bool {
        let matters = |activity: &Activity| {
            !activity.created.is_empty()
                || activity.dropped_database.is_some()
                || activity.before_in_place.is_some()
                || activity
                    .rows
                    .iter()
                    .any(|r| r.deleted.max(r.updated).saturating_add(UNLISTED) >= self.rows)
        };
        self.open.values().any(|activity| {
            let ended = |other: &Activity| {
                let end = other.end.as_ref();
                other.xid == activity.xid && end.is_some()
                    || end.is_some_and(|end| end.subtransactions.contains(&activity.xid))
            };
            !precedes(activity.xid, lowest) && matters(activity) && !listed.iter().any(ended)
        })
    }

    /// Takes up a segment's activities; gives the transactions that were committed in it, in their order.
    pub(super) fn segment(&mut self, listed: Vec<Activity>, timeline: TimelineId) -> Vec<Committed> {
        let (ended, open): (Vec<_>, Vec<_>) = listed.into_iter().partition(|activity| activity.end.is_some());
        for activity in open {
            let whole = self.open.entry(activity.xid).or_default();
            whole.xid = activity.xid;
            whole.absorb(activity);
        }
        let mut committed = Vec::new();
        for mut activity in ended {
            let Some(end) = activity.end.take() else { continue };
            let mut whole = self.open.remove(&activity.xid).unwrap_or_default();
            whole.xid = activity.xid;
            for subtransaction in &end.subtransactions {
                if let Some(part) = self.open.remove(subtransaction) {
                    whole.absorb(part);
                }
            }
            whole.absorb(activity);
            if end.commit {
                committed.push(Committed {
                    timeline,
                    activity: whole,
                    end,
                    lists_relations: self.lists_relations,
                });
            }
        }
        if self.open.len() > REMEMBERED {
            self.open
                .retain(|_, activity| activity.rows_changed() >= UNLISTED || !activity.created.is_empty());
        }
        committed
    }
}
