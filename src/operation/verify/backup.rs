//! One backup: its descriptor, its index against the server's manifest, its parts against its index.

use std::collections::BTreeMap;

use super::coverage::BackupFacts;
use super::problem::{About, Found, Kind, Verdict, judge};
use crate::operation::in_full::in_full;
use crate::operation::restore::{RestoreError, compare_with_manifest};
use crate::pgdata::backup_manifest::WalRange;
use crate::repository::backup_set::format::{Backup, IndexLine, Status, WalMode};
use crate::repository::backup_set::{Index, Proved};
use crate::repository::{Cluster, RepositoryError};
use crate::types::BackupId;

/// What the descriptors say of a backup that is there.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) backup: Backup,
    /// Its index is good, and all that it names is there.
    pub(super) readable: bool,
    /// It can be restored, as far as that shows without reading all of it.
    pub(super) usable: bool,
}

impl Described {
    pub(super) fn facts(&self) -> BackupFacts {
        let b = &self.backup;
        BackupFacts {
            id: b.id.clone(),
            start: b.start_lsn,
            timeline: b.timeline,
            stop: b.stop_lsn,
            stop_timeline: b.stop_timeline,
            stop_time: b.stop_time,
            include: b.wal == WalMode::Include,
        }
    }
}

const ANOTHER: &str = "is it in another repository? else take a new backup (pitr backup)";

/// What shows without reading its parts.
pub(super) fn describe(
    cluster: &Cluster<'_>,
    id: &BackupId,
    found: &mut Found,
) -> Result<Option<Described>, RepositoryError> {
    let about = || About::Backup(id.clone());
    let layout = cluster.layout();
    let descriptor = layout.backup_descriptor(id);
    let backup = match cluster.backup(id) {
        Ok(Some(backup)) => backup,
        // It went away between two looks; nothing that is there is wrong.
        Ok(None) => return Ok(None),
        Err(error) => {
            let (kind, why, todo) = match judge(error)? {
                Verdict::Damaged(why) => (Kind::DamagedDescriptor, why, ANOTHER),
                Verdict::Newer(why) => (Kind::NewerFormat, why, "install a newer version of pitr"),
                Verdict::Unreadable(why) => (Kind::Unreadable, why, "may this user read it?"),
            };
            found.add(kind, &descriptor, why, todo, about());
            return Ok(None);
        }
    };
    let ours = cluster.identity();
    let before = found.findings.len();
    if backup.id != *id {
        let what = format!("it says that it is of backup {}", backup.id);
        found.add(Kind::Misnamed, &descriptor, what, ANOTHER, about());
    }
    if backup.system_identifier != ours.system_identifier || backup.segment_size != ours.segment_size {
        let what = format!(
            "it is of system {} with {} segments, the cluster here is system {} with {}",
            backup.system_identifier, backup.segment_size, ours.system_identifier, ours.segment_size
        );
        found.add(Kind::Foreign, &descriptor, what, "how did it get here?", about());
    }
    if found.findings.len() == before {
        contents(cluster, &backup, found)?;
    }
    let mut new = found.findings.iter().skip(before);
    let readable = new.all(|f| f.about == About::Nothing);
    let usable = readable && backup.status == Status::Complete;
    if backup.status == Status::Damaged {
        let what = format!("the server found damaged pages: {}", backup.damage.join("; "));
        let todo = "repair what the server reported, and take a new backup (pitr backup)";
        found.add(Kind::DamagedPages, &descriptor, what, todo, about());
    }
    Ok(Some(Described { backup, readable, usable }))
}

/// Index, manifest, and the sizes of parts.
fn contents(cluster: &Cluster<'_>, backup: &Backup, found: &mut Found) -> Result<(), RepositoryError> {
    let about = || About::Backup(backup.id.clone());
    let layout = cluster.layout();
    let folder = layout.backup(&backup.id);
    let mut sizes = BTreeMap::new();
    cluster.storage().list(&folder, None, &mut |object| {
        sizes.insert(object.name, object.size);
    })?;
    let index = proved(&layout.files(&backup.id), Kind::DamagedIndex, cluster.index(backup), backup, found)?;
    let manifest = (layout.manifest(&backup.id), cluster.manifest(backup));
    let manifest = proved(&manifest.0, Kind::DamagedManifest, manifest.1, backup, found)?;
    if let (Some(index), Some(manifest)) = (&index, &manifest) {
        agree(cluster, index, manifest, backup, found)?;
    }
    if let Err(error) = cluster.catalogue(backup) {
        let (kind, why) = match judge(error)? {
            Verdict::Damaged(why) => (Kind::DamagedCatalogue, why),
            Verdict::Newer(why) => (Kind::NewerFormat, why),
            Verdict::Unreadable(why) => (Kind::Unreadable, why),
        };
        let todo =
            "restores do without it; pitr events shows numbers in place of the names that only it knew";
        found.add(kind, &layout.catalogue(&backup.id), why, todo, About::Nothing);
    }
    let mut known = vec![
        layout.started(&backup.id),
        layout.backup_descriptor(&backup.id),
        layout.files(&backup.id),
        layout.manifest(&backup.id),
        layout.catalogue(&backup.id),
    ];
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    if let Some(index) = &index {
        let mut archive = String::new();
        for line in index.lines()? {
            match line {
                Ok(IndexLine::Archive { name }) => archive = name,
                Ok(IndexLine::Frame(frame)) => {
                    let end = frame.at + u64::from(frame.stored);
                    let size = expected.entry(layout.part(&backup.id, &archive, frame.part)).or_insert(end);
                    *size = end.max(*size);
                }
                Ok(IndexLine::Entry(_)) => {}
                Err(error) => {
                    match judge(error)? {
                        Verdict::Damaged(why) | Verdict::Newer(why) | Verdict::Unreadable(why) => {
                            found.add(Kind::DamagedIndex, index.object(), why, ANOTHER, about());
                        }
                    }
                    break;
                }
            }
        }
    }
    for archive in &backup.archives {
        for part in 0..archive.parts {
            let name = layout.part(&backup.id, &archive.name, part);
            match (sizes.get(&name), expected.get(&name)) {
                (None, _) => found.add(Kind::MissingPart, &name, "it is missing", ANOTHER, about()),
                (Some(there), Some(size)) if there != size => {
                    let what = format!("it has {there} bytes instead of {size}");
                    found.add(Kind::DamagedPart, &name, what, ANOTHER, about());
                }
                _ => {}
            }
            known.push(name);
        }
    }
    known.sort_unstable();
    for name in sizes.keys().filter(|name| known.binary_search(name).is_err()) {
        let what = "the backup's descriptor does not name it";
        found.add(Kind::Leftover, name, what, "it may be removed", About::Nothing);
    }
    Ok(())
}

/// What could be fetched and is what `backup.json` promises.
fn proved<T>(
    object: &str,
    kind: Kind,
    fetched: Result<T, RepositoryError>,
    backup: &Backup,
    found: &mut Found,
) -> Result<Option<T>, RepositoryError> {
    let error = match fetched {
        Ok(proved) => return Ok(Some(proved)),
        Err(error) => error,
    };
    let (kind, why) = match judge(error)? {
        Verdict::Damaged(why) if why == "it is missing" => (Kind::MissingPart, why),
        Verdict::Damaged(why) => (kind, why),
        Verdict::Newer(why) => (Kind::NewerFormat, why),
        Verdict::Unreadable(why) => (Kind::Unreadable, why),
    };
    found.add(kind, object, why, ANOTHER, About::Backup(backup.id.clone()));
    Ok(None)
}

/// The descriptor's start and end against the server's own word: a restore that believed another end would
/// stop before the data is consistent.
fn positions(cluster: &Cluster<'_>, ranges: &[WalRange], backup: &Backup, found: &mut Found) {
    let begins = ranges.iter().any(|r| r.timeline == backup.timeline && r.start == backup.start_lsn);
    let ends = ranges.iter().any(|r| r.timeline == backup.stop_timeline && r.end == backup.stop_lsn);
    if ranges.is_empty() || begins && ends {
        return;
    }
    let told: Vec<String> =
        ranges.iter().map(|r| format!("{} to {} on timeline {}", r.start, r.end, r.timeline)).collect();
    let what = format!(
        "it says that the backup goes from {} on timeline {} to {} on timeline {}, the server's manifest says {}",
        backup.start_lsn,
        backup.timeline,
        backup.stop_lsn,
        backup.stop_timeline,
        told.join(", ")
    );
    let descriptor = cluster.layout().backup_descriptor(&backup.id);
    found.add(Kind::BackupMismatch, &descriptor, what, ANOTHER, About::Backup(backup.id.clone()));
}

/// As a restore proves it before it writes.
fn agree(
    cluster: &Cluster<'_>,
    index: &Index,
    manifest: &Proved,
    backup: &Backup,
    found: &mut Found,
) -> Result<(), RepositoryError> {
    let error = match compare_with_manifest(index, manifest) {
        Ok(proof) => {
            positions(cluster, &proof.wal_ranges, backup, found);
            return Ok(());
        }
        Err(error) => error,
    };
    let layout = cluster.layout();
    let (kind, object, why) = match error {
        RestoreError::Repository(error) => match judge(error)? {
            Verdict::Damaged(why) | Verdict::Newer(why) | Verdict::Unreadable(why) => {
                (Kind::DamagedIndex, layout.files(&backup.id), why)
            }
        },
        RestoreError::Manifest(e) => (Kind::DamagedManifest, layout.manifest(&backup.id), in_full(&e)),
        other => (Kind::BackupMismatch, layout.files(&backup.id), in_full(&other)),
    };
    found.add(kind, &object, why, ANOTHER, About::Backup(backup.id.clone()));
    Ok(())
}
