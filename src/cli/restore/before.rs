//! `--before EVENT`: the event is looked for in the archive, and its own word taken for where to stop.

use anyhow::Context;

use super::super::events::{line, plain, words};
use super::super::{Stop, complain};
use crate::operation::events::{Event, EventId, find};
use crate::repository::Cluster;

/// What the plan says of it.
pub(super) fn note(event: &Event) -> String {
    let object = event.object.as_deref().map(|object| format!(" {}", plain(object))).unwrap_or_default();
    let xid = event.xid.map(|xid| format!(" (xid {xid})")).unwrap_or_default();
    format!("it ends just before event {}: {}{object}{xid}", event.id, words(event.kind))
}

/// The event, out of the first repository that has it.
pub(super) fn event(clusters: &[Cluster<'_>], id: EventId) -> Result<Event, Stop> {
    let mut missing = None;
    let mut failure = None;
    for cluster in clusters {
        match find(cluster, id)
            .with_context(|| format!("cannot look for the event in {}", cluster.repository().url()))
        {
            Ok(Ok(event)) => return Ok(event),
            Ok(Err(nothing)) => drop(missing.get_or_insert(nothing)),
            Err(error) => drop(failure.get_or_insert(error)),
        }
    }
    // One that could not be asked may be the one that has it.
    if let Some(error) = failure {
        return Err(error.into());
    }
    complain(&format!("pitr: event {id} is not in the archive: nothing happened there that has this name"));
    if let Some(nothing) = missing {
        for unread in nothing.unread {
            complain(&format!("warning: {unread}"));
        }
        for near in &nothing.nearest {
            complain(&format!("hint: near it is {}", line(near, false)));
        }
    }
    complain("hint: pitr events lists what happened");
    Err(Stop::Code(1))
}
