//! A stopped server's directory with files that wait, and the tests in the archiver's place.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::finished::tree;
use crate::support::{Finished, Outcome, Pitr, wait_until};

/// Segments of a finished server that wait to be archived, in a repository that this host knows already.
pub(super) struct Backlog {
    pub(super) server: Finished,
    pub(super) pitr: Pitr,
    /// Names, in the archiver's order.
    pub(super) names: Vec<String>,
}

impl Backlog {
    /// With the finished server's segments, all ready, and a cluster that knows its first history file.
    pub(super) fn new() -> Self {
        Self::of(Finished::new(), |pitr| pitr)
    }

    /// With other variables.
    pub(super) fn of(server: Finished, change: impl FnOnce(Pitr) -> Pitr) -> Self {
        let pitr = change(server.pitr.clone());
        // What the server itself left.
        for entry in fs::read_dir(server.data.join("pg_wal/archive_status")).unwrap().flatten() {
            fs::remove_file(entry.path()).unwrap();
        }
        let names: Vec<String> = server.segments.iter().map(|(name, _)| name.clone()).collect();
        let backlog = Self { server, pitr, names };
        backlog.first_contact();
        for (name, bytes) in &backlog.server.segments {
            backlog.server.put(name, bytes);
            backlog.ready(name);
        }
        backlog.let_settle();
        backlog
    }

    /// The first contact is never for more than one file.
    fn first_contact(&self) {
        let history = self.server.put("00000001.history", b"1\t0/3000000\tno recovery target specified\n");
        self.pitr.run(["archive-push", &history]).expect_code(0);
    }

    pub(super) fn data(&self) -> &Path {
        &self.server.data
    }

    pub(super) fn segment(&self, name: &str) -> PathBuf {
        self.data().join("pg_wal").join(name)
    }

    fn status(&self, name: &str, ending: &str) -> PathBuf {
        self.data().join("pg_wal/archive_status").join(format!("{name}.{ending}"))
    }

    /// Says that a file waits.
    pub(super) fn ready(&self, name: &str) {
        let path = self.status(name, "ready");
        fs::write(&path, "").unwrap();
        self.server.dir.account().own(&path);
    }

    /// Waits until every segment is old enough to be pushed ahead.
    pub(super) fn let_settle(&self) {
        self.names.iter().for_each(|name| settle(&self.segment(name)));
    }

    /// The hook, as the server calls it.
    pub(super) fn push(&self, name: &str) -> Outcome {
        self.pitr.run(["archive-push", &format!("pg_wal/{name}")])
    }

    /// What the server does after success.
    pub(super) fn done(&self, name: &str) {
        fs::rename(self.status(name, "ready"), self.status(name, "done")).unwrap();
    }

    /// The proofs in the spool, wherever they are.
    pub(super) fn proofs(&self) -> Vec<PathBuf> {
        proofs_below(&self.server.dir.join("spool"))
    }

    /// The proof of one file.
    pub(super) fn proof(&self, name: &str) -> Option<PathBuf> {
        self.proofs().into_iter().find(|path| path.file_stem().unwrap() == name)
    }

    /// The stored object of a file.
    pub(super) fn object(&self, name: &str) -> Option<PathBuf> {
        let root = self.server.dir.join("repo");
        let stored = tree(&root).into_keys().find(|path| {
            path.contains("/wal/") && path.rsplit('/').next().unwrap() == format!("{name}.zst")
        })?;
        Some(root.join(stored))
    }

    /// Damages the stored object where only reading it would tell: an ordinary push finds out and stores the good
    /// bytes beside it, an answer from a proof does not look.
    pub(super) fn damage(&self, name: &str) {
        let path = self.object(name).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 50;
        bytes[at] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        self.server.dir.account().own(&path);
    }

    /// Pushes the first file; the others are then proved. Each one's object is damaged, so that what follows tells
    /// whether it was looked at.
    pub(super) fn read_ahead(&self) {
        self.push(&self.names[0]).expect_code(0);
        self.done(&self.names[0]);
        for name in &self.names[1..] {
            assert!(self.object(name).is_some(), "{name} was not pushed ahead");
            assert!(self.proof(name).is_some(), "no proof of {name}");
            self.damage(name);
        }
    }
}

/// Waits until a file is a moment old: one that was written just now is not pushed ahead.
pub(super) fn settle(path: &Path) {
    wait_until("the segment is a moment old", 10, || {
        let meta = fs::metadata(path).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let nanoseconds = u32::try_from(meta.ctime_nsec()).unwrap();
        now > Duration::new(meta.ctime().unsigned_abs(), nanoseconds) + Duration::from_millis(150)
    });
}

/// Whether a push of a damaged object looked at it.
pub(super) fn looked(outcome: &Outcome) -> bool {
    outcome.stderr.contains("beside another copy")
}

pub(crate) fn proofs_below(spool: &Path) -> Vec<PathBuf> {
    tree(spool).into_keys().filter(|path| path.contains("/pushed/")).map(|path| spool.join(path)).collect()
}
