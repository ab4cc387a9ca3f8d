//! Whom the demo becomes when it is started by root: a PostgreSQL server refuses root.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

/// Whom we become when we are root.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: &'static str,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// PostgreSQL's own user where there is one, nobody otherwise.
    pub(super) fn find() -> anyhow::Result<Self> {
        let id = |flag: &str, name: &str| -> Option<u32> {
            let output = Command::new("id").args([flag, name]).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| Some(Self { name, uid: id("-u", name)?, gid: id("-g", name)? }))
            .context("a PostgreSQL server refuses root, and there is neither a user postgres nor nobody")
    }

    pub(super) fn own(&self, path: &Path) -> anyhow::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to {}", path.display(), self.name))
    }
}
