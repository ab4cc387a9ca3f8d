//! `pitr info`

use serde_json::{Value, json};

use super::settings::{Global, Settings};
use super::{Stop, complain, now, say};
use crate::operation::restore::{ArchivedWal, Survey};
use crate::plan::{gaps, windows};
use crate::repository::{Cluster, Create, Repository, RepositoryError};
use crate::types::SegmentName;

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
    let survey = Survey::of(cluster)?;
    for line in &survey.unreadable {
        complain(&format!("warning: {line}"));
    }
    let mut wal = Vec::new();
    for (timeline, held) in &survey.archive.timelines {
        let (Some(first), Some(last)) = (held.segments.first(), held.segments.last()) else { continue };
        let gaps: Vec<Value> = gaps(&held.segments, *timeline, size)
            .into_iter()
            .map(|(first, last)| json!({ "first": first, "last": last }))
            .collect();
        let name = |number: &u64| SegmentName::from_number(*timeline, *number, size);
        wal.push(json!({
            "timeline": timeline, "first": name(first), "last": name(last),
            "segments": held.segments.len(), "gaps": gaps,
        }));
    }
    let usable: Vec<_> = survey.facts().into_iter().filter(|b| b.complete).collect();
    let windows: Vec<Value> = windows(&survey.archive, &usable, &mut ArchivedWal::new(cluster))?
        .iter()
        .map(|w| json!({ "timeline": w.timeline, "from": w.from, "to": w.to }))
        .collect();
    let backups = &survey.backups;
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
