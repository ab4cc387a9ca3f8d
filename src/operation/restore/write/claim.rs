//! The directories, made and held for one restore alone.

use std::path::Path;

use super::RestoreError;
use crate::durable::{self, Claim, Marker, Owner, TreeSync};
use crate::operation::restore::destination::{Destination, MARKER, unfinished};
use crate::repository::backup_set::format::Backup;

/// The directories that are ours.
#[derive(Debug)]
pub(super) struct Claimed {
    trees: Vec<TreeSync>,
    markers: Vec<Marker>,
}

/// Claims the data directory and every tablespace's.
pub(super) fn take(
    destination: &Destination,
    backup: &Backup,
    owner: Option<Owner>,
) -> Result<Claimed, RestoreError> {
    let claims = destination.roots(backup);
    let claims: Result<Vec<_>, _> = claims.iter().map(|(root, _)| claim(root, backup, owner)).collect();
    let (trees, markers) = claims?.into_iter().unzip();
    Ok(Claimed { trees, markers })
}

fn claim(root: &Path, backup: &Backup, owner: Option<Owner>) -> Result<(TreeSync, Marker), RestoreError> {
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
    Ok((sync, marker))
}

impl Claimed {
    /// Lets the disk work on what is written while the rest is still being decoded.
    pub(super) fn sync_ahead(&self) -> Result<(), RestoreError> {
        Ok(TreeSync::sync_ahead(&self.trees)?)
    }

    /// Everything in them is on the disk when this returns.
    pub(super) fn sync(&self) -> Result<(), RestoreError> {
        Ok(TreeSync::sync_all(&self.trees)?)
    }

    /// The restore is done.
    pub(super) fn release(self) -> Result<(), RestoreError> {
        self.markers.into_iter().try_for_each(|marker| Ok(marker.remove()?))
    }
}
