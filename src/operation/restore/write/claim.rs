//! The directories, made and held for one restore alone.

use std::path::Path;

use super::RestoreError;
use crate::durable::{self, Claim, Marker, Owner, TreeSync};
use crate::operation::restore::destination::{Destination, MARKER, unfinished};
use crate::repository::backup_set::format::Backup;

/// A directory that is ours.
#[derive(Debug)]
pub(super) struct Claimed {
    sync: TreeSync,
    marker: Marker,
}

/// Claims the data directory and every tablespace's.
pub(super) fn take(
    destination: &Destination,
    backup: &Backup,
    owner: Option<Owner>,
) -> Result<Vec<Claimed>, RestoreError> {
    destination.roots(backup).iter().map(|(root, _)| claim(root, backup, owner)).collect()
}

fn claim(root: &Path, backup: &Backup, owner: Option<Owner>) -> Result<Claimed, RestoreError> {
    durable::create_dirs(root, 0o700)?;
    let text = format!(
        "pitr restore is writing backup {} into this directory, or was cut off while it did.\n\
         Until this file is gone no server can be started here. If no pitr runs: empty the directory, restore again.\n",
        backup.id
    );
    let taken = |why: String| Err(RestoreError::Taken(why));
    let marker = match Marker::take(&root.join(MARKER), &text)? {
        Claim::Ours(marker) => marker,
        Claim::Busy => return taken(format!("another restore is writing into {}", root.display())),
        Claim::Left => return taken(unfinished(root)),
    };
    // Only now nobody else begins; what was empty when the plan was made may not be any more.
    let list = |e| RestoreError::file("list", root)(e);
    for entry in std::fs::read_dir(root).map_err(list)? {
        let name = entry.map_err(list)?.file_name();
        if name != MARKER {
            marker.remove()?;
            let other = name.to_string_lossy();
            return taken(format!("{} is not empty any more: it holds {other}", root.display()));
        }
    }
    let sync = TreeSync::watch(root)?;
    // 0700 until the backup's own directories say that a group may look in.
    durable::create_dir(root, 0o700, owner)?;
    Ok(Claimed { sync, marker })
}

impl Claimed {
    /// Lets the disk work on what is written while the rest is still being decoded.
    pub(super) fn sync_ahead(&self) -> Result<(), RestoreError> {
        Ok(self.sync.sync_ahead()?)
    }

    /// Everything in it is on the disk when this returns.
    pub(super) fn sync(&self) -> Result<(), RestoreError> {
        Ok(self.sync.sync()?)
    }

    /// The restore is done.
    pub(super) fn release(self) -> Result<(), RestoreError> {
        Ok(self.marker.remove()?)
    }
}
