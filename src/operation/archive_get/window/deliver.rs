//! The hook's part: what the window has handed out goes into its place.

use std::path::Path;

use super::super::{GetError, check_destination, look_at};
use super::folder;
use crate::durable;
use crate::types::WalFileName;

/// Puts what [`Window::take`](super::Window::take) of another process named, at `handed`, into its place at
/// `destination` (relative to `cwd`), under the same conditions as [`archive_get`](super::super::archive_get).
/// `Ok(false)`: it is not what it should be, or is gone, and nothing was done.
pub fn deliver(handed: &Path, file: WalFileName, destination: &Path, cwd: &Path) -> Result<bool, GetError> {
    let (target, own) = check_destination(file, destination, cwd)?;
    let Some(own) = own else { return Ok(false) };
    // From beside the destination, and nowhere else: a rename must reach it, and nobody who has got hold of the
    // name of that process shall have another file moved.
    let beside = target.parent().map(|folder| folder.join(folder::NAME));
    if !same_directory(handed.parent(), beside.as_deref()) {
        return Ok(false);
    }
    let Ok(facts) = std::fs::symlink_metadata(handed) else { return Ok(false) };
    let expected = match file {
        WalFileName::Segment(_) => own.segment_size.bytes(),
        _ => facts.len(),
    };
    if !facts.is_file() || facts.len() != expected {
        return Ok(false);
    }
    match durable::take_aside(handed, &target) {
        Ok(true) => look_at(&target, expected).map(|()| true),
        Ok(false) => Ok(false),
        Err(error) => {
            tracing::debug!(%error, "cannot take what was fetched ahead");
            Ok(false)
        }
    }
}

/// `pg_wal` may be a link, and either path go through it.
fn same_directory(one: Option<&Path>, other: Option<&Path>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
