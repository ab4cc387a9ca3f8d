//! Where PostgreSQL's programs are: on the search path, where `pg_config` says, or where distributions put their majors.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

const NEEDED: [&str; 4] = ["initdb", "pg_ctl", "postgres", "psql"];

/// A directory that holds everything the demo needs.
#[derive(Debug, Clone)]
pub(super) struct Programs(PathBuf);

impl Programs {
    /// The first complete directory; of several majors the newest.
    pub(super) fn find() -> anyhow::Result<Self> {
        let mut places: Vec<PathBuf> =
            std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
            places.push(String::from_utf8_lossy(&output.stdout).trim().into());
        }
        places.extend(majors("/usr/lib/postgresql", |name| Some(format!("{name}/bin"))));
        places.extend(majors("/usr", |name| {
            Some(format!("{name}/bin")).filter(|_| name.starts_with("pgsql-"))
        }));
        let complete = |dir: &PathBuf| NEEDED.iter().all(|name| dir.join(name).is_file());
        match places.into_iter().filter(|dir| dir.is_absolute()).find(complete) {
            Some(dir) => Ok(Self(dir)),
            None => bail!(
                "no directory has {} (Debian and Ubuntu: apt-get install postgresql; or put it on the PATH)",
                NEEDED.join(", ")
            ),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }
}

/// Sub-directories by the number in their names, highest first.
fn majors(parent: &str, inside: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let digits: String = name.chars().filter(char::is_ascii_digit).collect();
            Some((digits.parse().ok()?, Path::new(parent).join(inside(&name)?)))
        })
        .collect();
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    found.into_iter().map(|(_, path)| path).collect()
}
