//! `pitr info`

use serde_json::{Value, json};

use super::settings::{Global, Settings};
use super::{Stop, now, say};
use crate::repository::wal_archive::StoredWal;
use crate::repository::{Cluster, Create, Repository, RepositoryError};
use crate::types::{Moment, SegmentName, TimelineId};

pub(super) fn run(global: &Global) -> Result<(), Stop> {
    let settings = Settings::load(global)?;
    let mut clusters = Vec::new();
    for storage in settings.storages()?.into_iter().take(1) {
        let repository = Repository::open(storage, &settings.memory(), Create::Nothing, now())?;
        let names = match &global.cluster {
            Some(name) => vec![name.clone()],
            None => repository.cluster_names()?,
        };
        for name in names {
            for cluster in repository.epochs(&name)? {
                clusters.push(describe(&cluster)?);
            }
        }
    }
    if global.json {
        say(&json!({ "clusters": clusters }).to_string());
    } else if clusters.is_empty() {
        say("no clusters");
    } else {
        for cluster in &clusters {
            print(cluster);
        }
    }
    Ok(())
}

fn describe(cluster: &Cluster<'_>) -> Result<Value, RepositoryError> {
    let size = cluster.segment_size();
    let backups = cluster.backups()?;
    let mut wal = Vec::new();
    let mut windows = Vec::new();
    for timeline in cluster.timelines()? {
        let segments = cluster.segments(timeline)?;
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else { continue };
        let gaps: Vec<Value> = gaps(&segments, timeline, size)
            .into_iter()
            .map(|(first, last)| json!({ "first": first, "last": last }))
            .collect();
        wal.push(json!({
            "timeline": timeline, "first": first, "last": last, "segments": segments.len(), "gaps": gaps,
        }));
        let mut reached: Option<SegmentName> = None;
        for backup in backups.iter().filter(|b| b.stop_timeline == timeline) {
            let stop = SegmentName::holding(timeline, backup.start_lsn, size);
            if reached.is_some_and(|r| stop <= r) {
                continue;
            }
            let Some(end) = contiguous_end(&segments, stop, size) else { continue };
            reached = Some(end);
            if let Some(to) = latest_moment(cluster, &segments, end)? {
                windows.push(json!({
                    "timeline": timeline, "from": backup.stop_time, "to": to.max(backup.stop_time),
                }));
            }
        }
    }
    let backups: Vec<Value> = backups
        .iter()
        .map(|b| {
            json!({
                "id": b.id, "type": b.kind, "label": b.label, "start_time": b.start_time,
                "stop_time": b.stop_time, "start_lsn": b.start_lsn, "stop_lsn": b.stop_lsn,
                "timeline": b.timeline, "size": b.size, "stored_size": b.stored_size, "status": b.status,
            })
        })
        .collect();
    let unfinished: Vec<Value> = cluster
        .unfinished_backups()?
        .iter()
        .map(|s| json!({ "id": s.id, "start_time": s.start_time, "host": s.host, "pid": s.pid }))
        .collect();
    Ok(json!({
        "name": cluster.name().as_str(),
        "epoch": cluster.epoch().0,
        "system_identifier": cluster.identity().system_identifier,
        "postgres_major": cluster.identity().postgres_major,
        "backups": backups, "unfinished": unfinished, "wal": wal, "recovery_windows": windows,
    }))
}

/// The missing stretches between the first and the last segment.
fn gaps(
    segments: &[SegmentName],
    timeline: TimelineId,
    size: crate::types::SegmentSize,
) -> Vec<(SegmentName, SegmentName)> {
    let numbers: Vec<u64> = segments.iter().filter_map(|s| s.number(size)).collect();
    numbers
        .windows(2)
        .filter_map(|pair| match pair {
            [a, b] if a + 1 < *b => Some((
                SegmentName::from_number(timeline, a + 1, size),
                SegmentName::from_number(timeline, b - 1, size),
            )),
            _ => None,
        })
        .collect()
}

fn contiguous_end(
    segments: &[SegmentName],
    from: SegmentName,
    size: crate::types::SegmentSize,
) -> Option<SegmentName> {
    let at = segments.binary_search(&from).ok()?;
    let mut end = from;
    for next in segments.get(at + 1..)? {
        if end.next(size) != Some(*next) {
            break;
        }
        end = *next;
    }
    Some(end)
}

/// The latest commit or abort at or before `end`, or else when its segment was last written.
fn latest_moment(
    cluster: &Cluster<'_>,
    segments: &[SegmentName],
    end: SegmentName,
) -> Result<Option<Moment>, RepositoryError> {
    let mut written = None;
    for segment in segments.iter().rev().skip_while(|s| **s > end).take(16) {
        let name = cluster.layout().segment(*segment);
        let Some(stored) = StoredWal::open(cluster.storage(), &name, false)? else { continue };
        let summary = stored.summary();
        written = written.or(summary.modified);
        if let Some((_, latest)) = summary.wal.as_ref().and_then(|w| w.times) {
            return Ok(Some(latest));
        }
    }
    Ok(written)
}

fn print(cluster: &Value) {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let field = |v: &Value, name: &str| text(v.get(name).unwrap_or(&Value::Null));
    let list = |name: &str| cluster.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    say(&format!(
        "cluster {}: system identifier {}, PostgreSQL {}",
        field(cluster, "name"),
        field(cluster, "system_identifier"),
        field(cluster, "postgres_major")
    ));
    for b in list("backups") {
        say(&format!(
            "  backup {}  {} … {}  WAL from {} to {}  {} bytes, {} stored  {}",
            field(&b, "id"),
            field(&b, "start_time"),
            field(&b, "stop_time"),
            field(&b, "start_lsn"),
            field(&b, "stop_lsn"),
            field(&b, "size"),
            field(&b, "stored_size"),
            field(&b, "status")
        ));
    }
    for u in list("unfinished") {
        say(&format!(
            "  unfinished {}, begun by process {} on {}: it runs still, or failed and is garbage; nothing restores from it",
            field(&u, "id"),
            field(&u, "pid"),
            field(&u, "host")
        ));
    }
    for w in list("wal") {
        say(&format!(
            "  WAL of timeline {}: {} … {}, {} segments",
            field(&w, "timeline"),
            field(&w, "first"),
            field(&w, "last"),
            field(&w, "segments")
        ));
        for gap in w.get("gaps").and_then(Value::as_array).into_iter().flatten() {
            say(&format!("    MISSING {} … {}", field(gap, "first"), field(gap, "last")));
        }
    }
    for w in list("recovery_windows") {
        say(&format!(
            "  can be restored, timeline {}: {} … {}",
            field(&w, "timeline"),
            field(&w, "from"),
            field(&w, "to")
        ));
    }
}
