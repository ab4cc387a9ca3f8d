//! What lies outside of any cluster's epoch: probes, strangers, and folders whose descriptor is gone.

use std::ops::ControlFlow;

use super::problem::{About, Found, Kind, Problem};
use crate::repository::layout::{ClusterName, Epoch, PROBE_FOLDER, REPOSITORY};
use crate::repository::object_name::ClusterObject;
use crate::repository::{Repository, RepositoryError};
use crate::storage::{ObjectInfo, Storage};
use crate::types::Moment;

/// A probe lives for seconds; one that is this old was left behind.
const STALE: i64 = 3600;

/// What to do where nothing is there.
pub(super) const BACK_UP: &str =
    "was one taken? then it is lost, or in another repository; else run pitr backup";

/// Looks at the root and at the folders of clusters, not into their epochs. With `only`, at that cluster's.
pub fn verify_root(
    repository: &Repository,
    only: Option<&ClusterName>,
    now: Moment,
) -> Result<Vec<Problem>, RepositoryError> {
    let mut found = Found::default();
    let storage = repository.storage();
    if let Some(only) = only {
        cluster_folder(repository, only, &mut found)?;
    } else {
        let mut clusters = 0;
        children(storage, "", &mut |child| {
            match child {
                Child::Object(name) if name == REPOSITORY => {}
                Child::Object(name) => stranger(&name, &mut found),
                Child::Folder(name) if format!("{name}/") == PROBE_FOLDER => {
                    probes(storage, now, &mut found)?;
                }
                Child::Folder(name) => match name.parse::<ClusterName>() {
                    Ok(cluster) => clusters += u32::from(cluster_folder(repository, &cluster, &mut found)?),
                    Err(_) => stranger(&format!("{name}/"), &mut found),
                },
            }
            Ok(())
        })?;
        if clusters == 0 {
            let what = "nothing is stored here: there is no cluster, and no backup";
            found.add(Kind::NoBackup, REPOSITORY, what, BACK_UP, About::Nothing);
        }
    }
    Ok(found.findings.into_iter().map(|finding| finding.problem).collect())
}

/// Whether anything of a cluster is there.
fn cluster_folder(
    repository: &Repository,
    name: &ClusterName,
    found: &mut Found,
) -> Result<bool, RepositoryError> {
    let storage = repository.storage();
    let everything = |what: String| format!("everything of {what}: nobody finds it");
    let there = storage.size(&name.descriptor())?.is_some();
    let mut identities: Vec<Epoch> = Vec::new();
    let mut epochs: Vec<Epoch> = Vec::new();
    let prefix = format!("{name}/");
    children(storage, &prefix, &mut |child| {
        match child {
            Child::Folder(folder) if folder == "identity" => {
                storage.list(&name.identities(), None, &mut |object| match ClusterObject::parse(
                    object.name.strip_prefix(&prefix).unwrap_or_default(),
                ) {
                    ClusterObject::Identity(epoch) => identities.push(epoch),
                    _ => stranger(&object.name, found),
                })?;
            }
            Child::Folder(folder) => match folder.parse() {
                Ok(epoch) => epochs.push(epoch),
                Err(_) => stranger(&format!("{prefix}{folder}/"), found),
            },
            Child::Object(object) if object == name.descriptor() => {}
            Child::Object(object) => stranger(&object, found),
        }
        Ok(())
    })?;
    if !there && identities.is_empty() && epochs.is_empty() {
        // Nothing of a cluster: somebody else's folder was named above, object by object.
        return Ok(false);
    }
    if identities.is_empty() && epochs.is_empty() {
        let what = "nothing of this cluster is stored but its name: there is no backup";
        found.add(Kind::NoBackup, &name.descriptor(), what, BACK_UP, About::Nothing);
    }
    let lost = |found: &mut Found, of: String| {
        found.findings.iter_mut().rev().take(1).for_each(|f| f.problem.lost.push(everything(of.clone())));
    };
    if !there {
        let todo = "is the descriptor in another repository? it holds the cluster's name and nothing else that is not in FORMAT.md";
        found.add(Kind::MissingDescriptor, &name.descriptor(), "it is missing", todo, About::Nothing);
        lost(found, format!("cluster {name}"));
    }
    for epoch in epochs.into_iter().filter(|epoch| !identities.contains(epoch)) {
        let todo = "is the identity in another repository? else write it anew, as FORMAT.md has it";
        found.add(Kind::MissingDescriptor, &name.identity(epoch), "it is missing", todo, About::Nothing);
        lost(found, format!("epoch {epoch} of cluster {name}"));
    }
    Ok(true)
}

fn probes(storage: &dyn Storage, now: Moment, found: &mut Found) -> Result<(), RepositoryError> {
    Ok(storage.list(PROBE_FOLDER, None, &mut |object| {
        let age = object.modified.map(|modified| now.0.duration_since(modified).as_secs());
        if age.is_none_or(|age| age > STALE) {
            let what = "a probe that nobody has removed";
            found.add(Kind::Leftover, &object.name, what, "it may be removed", About::Nothing);
        }
    })?)
}

fn stranger(name: &str, found: &mut Found) {
    let what = "no name that this version of pitr gives";
    let todo = "did a later version write it? else, is it somebody's, and may it be moved away?";
    found.add(Kind::Leftover, name, what, todo, About::Nothing);
}

enum Child {
    Object(String),
    /// Its last part.
    Folder(String),
}

/// What lies directly below a prefix, by one short listing each: what lies deeper is passed over.
fn children(
    storage: &dyn Storage,
    prefix: &str,
    visit: &mut dyn FnMut(Child) -> Result<(), RepositoryError>,
) -> Result<(), RepositoryError> {
    let mut after: Option<String> = None;
    loop {
        let mut next: Option<ObjectInfo> = None;
        storage.list_while(prefix, after.as_deref(), &mut |object| {
            next = Some(object);
            ControlFlow::Break(())
        })?;
        let Some(object) = next else { return Ok(()) };
        let below = object.name.strip_prefix(prefix).unwrap_or_default();
        after = Some(match below.split_once('/') {
            Some((folder, _)) => {
                let folder = folder.to_owned();
                // Behind every name that begins with the folder and a slash.
                let behind = format!("{prefix}{folder}/\u{10ffff}");
                visit(Child::Folder(folder))?;
                behind
            }
            None => {
                visit(Child::Object(object.name.clone()))?;
                object.name
            }
        });
    }
}
