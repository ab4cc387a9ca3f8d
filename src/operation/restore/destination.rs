//! Where a backup goes: the data directory and its tablespaces. Whether it can go there is found out
//! without changing anything.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::durable::{self, Owner};
use crate::repository::backup_set::format::Backup;

/// Stands in every directory that is being restored into, locked by the restore that does it, and goes last.
pub(super) const MARKER: &str = "pitr-restore-is-not-finished";

/// Whose the restored files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Of whoever runs this.
    Own,
    /// Of this account; only root can.
    Given(Owner),
    /// Of the account number that owned them on the server; only root can.
    Recorded,
}

impl Ownership {
    /// Where nobody has said it. Root's own files are of no use to a server, which refuses to run as root:
    /// they are given to the owner of the directory they go to, or of the nearest one above it; where that
    /// is root too, to the account that owned them on the server.
    pub fn by_default(dir: &Path) -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self::Own;
        }
        match dir.ancestors().find_map(|d| d.metadata().ok()) {
            Some(above) if above.uid() != 0 => Self::Given(Owner { uid: above.uid(), gid: above.gid() }),
            _ => Self::Recorded,
        }
    }
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The new data directory, absolute.
    pub dir: PathBuf,
    /// Where each tablespace goes, by its OID; absolute.
    pub tablespaces: BTreeMap<String, PathBuf>,
    /// Whose the files are.
    pub ownership: Ownership,
}

impl Destination {
    /// The directory of one of the backup's archives; `None` for a tablespace that nobody has given a place.
    pub fn root_of(&self, backup: &Backup, archive: &str) -> Option<PathBuf> {
        let location = backup.archives.iter().find(|a| a.name == archive).and_then(|a| a.location.as_ref());
        match location.map(Path::new) {
            None => Some(self.dir.clone()),
            // Within the data directory (allow_in_place_tablespaces): it moves with it.
            Some(inside) if inside.is_relative() => Some(self.dir.join(inside)),
            Some(_) => self.tablespaces.get(archive).cloned(),
        }
    }

    /// The directories that must be empty, with the bytes that go there.
    pub fn roots(&self, backup: &Backup) -> Vec<(PathBuf, u64)> {
        let mut roots = BTreeMap::from([(self.dir.clone(), 0)]);
        for archive in &backup.archives {
            let Some(root) = self.root_of(backup, &archive.name) else { continue };
            let root = if root.starts_with(&self.dir) { self.dir.clone() } else { root };
            *roots.entry(root).or_default() += archive.size;
        }
        roots.into_iter().collect()
    }

    /// What is wrong with it; empty when the backup can be restored there. Nothing is changed.
    pub fn problems(&self, backup: &Backup) -> Vec<String> {
        let mut problems = self.tablespace_problems(backup);
        let mut wanted: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
        for (root, bytes) in self.roots(backup) {
            problems.extend(directory_problems(&root));
            // Two directories on one file system share its room.
            let Some((above, facts)) = nearest(&root) else { continue };
            wanted.entry(facts.dev()).or_insert((above, 0)).1 += bytes;
        }
        for (above, bytes) in wanted.into_values() {
            match rustix::fs::statvfs(&above) {
                Ok(fs) => {
                    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
                    if free < bytes {
                        problems.push(format!(
                            "the file system of {} has {free} bytes free, the backup takes {bytes}",
                            above.display()
                        ));
                    }
                }
                Err(e) => {
                    problems.push(format!("the free space of {} cannot be told: {e}", above.display()));
                }
            }
        }
        problems
    }

    fn tablespace_problems(&self, backup: &Backup) -> Vec<String> {
        let mut problems = Vec::new();
        for archive in &backup.archives {
            if self.root_of(backup, &archive.name).is_none() {
                problems.push(format!(
                    "tablespace {name} was in {}: say where it goes with --tablespace {name}=DIR",
                    archive.location.as_deref().unwrap_or_default(),
                    name = archive.name,
                ));
            }
        }
        // A link, or a way around, must not hide that two places are one.
        let dir = resolved(&self.dir);
        let places: Vec<_> = self.tablespaces.iter().map(|(oid, place)| (oid, resolved(place))).collect();
        for (number, (oid, place)) in places.iter().enumerate() {
            let known = backup
                .archives
                .iter()
                .any(|a| a.name == **oid && a.location.as_ref().is_some_and(|l| Path::new(l).is_absolute()));
            if !known {
                problems.push(format!("the backup has no tablespace {oid} that could be placed"));
            }
            if place.starts_with(&dir) || dir.starts_with(place) {
                problems.push(format!(
                    "tablespace {oid} cannot go to {}: it and the data directory lie in one another",
                    place.display()
                ));
            }
            for (other, elsewhere) in places.iter().skip(number + 1) {
                if place.starts_with(elsewhere) || elsewhere.starts_with(place) {
                    problems.push(format!("tablespaces {oid} and {other} cannot share {}", place.display()));
                }
            }
        }
        problems
    }
}

/// A path with the links resolved in as much of it as is there.
fn resolved(path: &Path) -> PathBuf {
    let known = path.ancestors().find_map(|above| {
        let rest = path.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    });
    known.unwrap_or_else(|| path.to_owned())
}

fn nearest(dir: &Path) -> Option<(PathBuf, std::fs::Metadata)> {
    dir.ancestors().find_map(|d| d.metadata().ok().map(|facts| (d.to_owned(), facts)))
}

fn directory_problems(dir: &Path) -> Vec<String> {
    let shown = dir.display();
    let mut problems = Vec::new();
    if dir.join("postmaster.pid").exists() {
        problems.push(format!("a server may be running in {shown}: it has a postmaster.pid"));
    }
    match std::fs::read_dir(dir) {
        Ok(mut entries) => {
            let marker = dir.join(MARKER);
            if marker.exists() {
                problems.push(match durable::marker_is_held(&marker) {
                    Ok(true) => format!("another restore is writing into {shown} just now"),
                    Ok(false) => unfinished(dir),
                    Err(e) => format!(
                        "{shown} holds {MARKER}, and whether its restore still runs cannot be told: {e}"
                    ),
                });
            } else if entries.next().is_some() {
                problems.push(format!("{shown} is not empty"));
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => problems.push(format!("{shown} cannot be read: {e}")),
    }
    if let Some((above, _)) = nearest(dir)
        && let Err(e) = rustix::fs::access(&above, rustix::fs::Access::WRITE_OK)
    {
        problems.push(format!("{} is not writable: {e}", above.display()));
    }
    problems
}

/// What is said of a directory in which a restore has died.
pub(super) fn unfinished(dir: &Path) -> String {
    format!(
        "{dir} holds a restore that was cut off and cannot be started: empty it (find {dir} -mindepth 1 -delete) and restore again",
        dir = dir.display()
    )
}
