//! Whether a directory can be restored into, found out without changing it.

use std::path::Path;

/// What is wrong with the target directory; empty when it can be restored into. Nothing is changed.
pub fn target_problems(dir: &Path, bytes: u64) -> Vec<String> {
    let mut problems = Vec::new();
    if dir.join("postmaster.pid").exists() {
        problems.push(format!("a server may be running in {}: it has a postmaster.pid", dir.display()));
    }
    match std::fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                problems.push(format!("{} is not empty", dir.display()));
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => problems.push(format!("{} cannot be read: {e}", dir.display())),
    }
    let existing = dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
    if let Err(e) = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK) {
        problems.push(format!("{} is not writable: {e}", existing.display()));
    }
    match rustix::fs::statvfs(existing) {
        Ok(fs) if fs.f_bavail.saturating_mul(fs.f_frsize) < bytes => problems.push(format!(
            "{} has {} bytes free, the backup takes {bytes}",
            existing.display(),
            fs.f_bavail.saturating_mul(fs.f_frsize)
        )),
        Ok(_) => {}
        Err(e) => problems.push(format!("the free space of {} cannot be told: {e}", existing.display())),
    }
    problems
}
