//! `pitr info`

use std::sync::Arc;

use serde_json::{Value, json};

use super::settings::{Global, Settings};
use super::{Stop, complain, now, say};
use crate::operation::restore::Survey;
use crate::plan::gaps;
use crate::repository::{Cluster, Create, Repository, RepositoryError};
use crate::storage::Storage;
use crate::types::SegmentName;

pub(super) fn run(global: &Global) -> Result<(), Stop> {
    let settings = Settings::load(global)?;
    let (clusters, url) = super::from_any(settings.storages()?, |storage| {
        let url = storage.url().to_owned();
        Ok((look(storage, &settings, global)?, url))
    })?;
    super::say_which(&settings, &url);
    if global.json {
        say(&json!({ "clusters": clusters }).to_string());
    } else if clusters.is_empty() {
        say("no cluster has been archived or backed up here yet");
    } else {
        for cluster in &clusters {
            say(&super::info_text::words(cluster, now()));
        }
    }
    Ok(())
}

fn look(storage: Arc<dyn Storage>, settings: &Settings, global: &Global) -> anyhow::Result<Vec<Value>> {
    let repository = Repository::open(storage, &settings.memory(), Create::Nothing, now())?;
    let names = match &global.cluster {
        Some(name) => vec![name.clone()],
        None => repository.cluster_names()?,
    };
    let mut clusters = Vec::new();
    for name in names {
        let epochs = repository.epochs(&name)?;
        if epochs.is_empty() && global.cluster.is_some() {
            // Asked for by name: that there is none is an error, and it says which there are.
            repository.cluster(&name, None)?;
        }
        for cluster in epochs {
            if global.system_id.is_none_or(|system| cluster.identity().system_identifier == system) {
                clusters.push(describe(&cluster)?);
            }
        }
    }
    Ok(clusters)
}

fn describe(cluster: &Cluster<'_>) -> Result<Value, RepositoryError> {
    let size = cluster.segment_size();
    let mut survey = Survey::of(cluster)?;
    let windows = survey.proved_windows(cluster)?;
    for unusable in &survey.unusable {
        complain(&format!("warning: {unusable}"));
    }
    for window in windows.iter().filter(|window| window.to > now()) {
        complain(&format!(
            "warning: the window on timeline {} ends at {}, which is later than this host's clock: the server's clock is ahead, or a summary is wrong (run pitr verify)",
            window.timeline, window.to
        ));
    }
    let windows: Vec<Value> = windows.iter().map(super::restore::window).collect();
    let mut wal = Vec::new();
    for (timeline, held) in &survey.archive.timelines {
        let (Some(first), Some(last)) = (held.segments.first(), held.segments.last()) else { continue };
        let gaps: Vec<Value> = gaps(&held.segments, *timeline, size)
            .into_iter()
            .map(|(first, last)| json!({ "first": first, "last": last }))
            .collect();
        let name = |number: u64| SegmentName::from_number(*timeline, number, size);
        wal.push(json!({
            "timeline": timeline, "first": name(first), "last": name(last),
            "segments": held.segments.len(), "gaps": gaps,
        }));
    }
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
    let unfinished = survey
        .unfinished
        .iter()
        .map(|id| {
            let by = cluster.started(id)?;
            let by = by.as_ref();
            Ok(json!({
                "id": id, "start_time": by.map(|s| s.start_time), "host": by.map(|s| &s.host), "pid": by.map(|s| s.pid),
            }))
        })
        .collect::<Result<Vec<Value>, RepositoryError>>()?;
    Ok(json!({
        "name": cluster.name().as_str(),
        "system_identifier": cluster.identity().system_identifier,
        "postgres_major": cluster.identity().postgres_major,
        "backups": backups, "unfinished": unfinished, "wal": wal, "recovery_windows": windows,
    }))
}
