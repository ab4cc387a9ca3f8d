//! Where the PostgreSQL majors are: the distribution's directory, then the cache of `install-postgres.sh`.

use std::path::PathBuf;

use super::lack::{caches, lacking};

/// One installed major.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    /// 15, 18, …
    pub(crate) major: u32,
    bin: PathBuf,
}

impl Installation {
    /// The given major; panics when it is not there, because a test without its server has proved nothing.
    #[track_caller]
    pub(crate) fn of(major: u32) -> Self {
        Self::find(major).unwrap_or_else(|| lacking(&format!("PostgreSQL {major}")))
    }

    /// The given major, if it is there.
    pub(crate) fn find(major: u32) -> Option<Self> {
        let distribution = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
        let cached = caches().into_iter().map(|cache| cache.join(format!("postgresql/{major}/bin")));
        std::iter::once(distribution)
            .chain(cached)
            .find(|bin| bin.join("postgres").exists())
            .map(|bin| Self { major, bin })
    }

    /// The distribution's: the one with every program.
    #[track_caller]
    pub(crate) fn of_distribution() -> Self {
        Self::of(distribution_major())
    }

    /// A program of this major. The majors out of npm have `initdb`, `pg_ctl` and `postgres` only.
    #[track_caller]
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let path = self.bin.join(name);
        assert!(path.exists(), "PostgreSQL {} has no {name} here", self.major);
        path
    }

    /// Whether this major came with the program.
    pub(crate) fn has_program(&self, name: &str) -> bool {
        self.bin.join(name).exists()
    }

    /// The directory of the programs.
    pub(crate) fn bin(&self) -> &std::path::Path {
        &self.bin
    }
}

/// The major whose `psql`, `pg_basebackup` and `pg_waldump` there are: 15 on Debian 12, another elsewhere.
#[track_caller]
pub(crate) fn distribution_major() -> u32 {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let majors: Vec<u32> = installed
        .filter(|entry| entry.path().join("bin/postgres").exists())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let preferred = majors.iter().copied().find(|major| *major == 15);
    preferred
        .or_else(|| majors.into_iter().max())
        .unwrap_or_else(|| lacking("PostgreSQL of the distribution"))
}

/// The majors a test of "every major" covers: `PITR_TEST_MAJORS`, else 13 to 18. A missing one fails its test.
pub(crate) fn all_majors() -> Vec<u32> {
    let named = std::env::var("PITR_TEST_MAJORS").unwrap_or_else(|_| "13 14 15 16 17 18".to_owned());
    named.split_whitespace().map(|major| major.parse().expect("PITR_TEST_MAJORS")).collect()
}
