//! A server before its recovery.

use crate::support::{Pitr, S3Kind, S3Server, Server, StopMode, TestDir, wait_until};

/// A server about to recover: it has the WAL of its own copy, and everything later is only in the archives (a directory and a
/// bucket). Whoever tells it "not there" makes it open without what came later.
pub(super) struct Recovery {
    pub(super) dir: TestDir,
    pub(super) pitr: Pitr,
    pub(super) store: S3Server,
    pub(super) bucket: String,
    pub(super) server: Server,
    /// A segment in the middle of what it needs.
    pub(super) needed: String,
}

pub(super) const ROWS: &str = "8000";

impl Recovery {
    pub(super) fn new() -> Self {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let store = S3Server::start(S3Kind::Moto);
        let bucket = store.bucket();
        // A budget of its own for reading: nobody waits a minute for each broken store here.
        let pitr = Pitr::new(&dir).env("PITR_ARCHIVE_GET_RETRY", "1");
        let remote = in_bucket(&pitr, &store, &format!("s3://{bucket}/prod"));
        let both = format!("{} && {}", pitr.hook("archive-push %p"), remote.hook("archive-push %p"));
        let mut primary =
            Server::build(&dir, "primary").initdb("--wal-segsize=1").archive_command(&both).start();
        primary
            .sql("CREATE TABLE t AS SELECT n, repeat(md5(n::text), 10) AS v FROM generate_series(1, 1000) n");
        let server = primary.copy(&dir, "copy");
        server.append_setting("archive_mode", "off");
        dir.write(server.file("recovery.signal"), "");
        primary.sql("INSERT INTO t SELECT n, repeat(md5(n::text), 10) FROM generate_series(1001, 3000) n");
        let needed = primary.archive_now();
        primary.sql("INSERT INTO t SELECT n, repeat(md5(n::text), 10) FROM generate_series(3001, 8000) n");
        primary.archive_now();
        primary.stop(StopMode::Fast);
        Self { dir, pitr, store, bucket, server, needed }
    }

    pub(super) fn get(&self) -> String {
        self.pitr.hook("archive-get %f %p")
    }

    pub(super) fn with(&self, name: &str, value: &str) -> String {
        self.pitr.clone().env(name, value).hook("archive-get %f %p")
    }

    pub(super) fn url(&self, place: &str) -> String {
        format!("file://{}", self.dir.join(place).display())
    }

    pub(super) fn object(&self) -> std::path::PathBuf {
        let folder = format!("repo/main/0001/wal/00000001/{}", &self.needed[8..16]);
        self.dir.join(format!("{folder}/{}.zst", self.needed))
    }

    /// Starts the server with this `restore_command`, and waits until it has given up; it must not have opened.
    #[track_caller]
    pub(super) fn must_not_open(&mut self, case: &str, command: &str) -> String {
        let before = self.server.log().len();
        self.server.append_setting("restore_command", command);
        self.server.spawn();
        let opened =
            |log: &str| log.contains("archive recovery complete") || log.contains("selected new timeline");
        let mut log = String::new();
        wait_until(case, 60, || {
            log = self.server.log()[before..].to_owned();
            assert!(!opened(&log), "{case}: the server opened\n{log}");
            self.server.exited().is_some()
        });
        log = self.server.log()[before..].to_owned();
        assert!(!opened(&log), "{case}: the server opened\n{log}");
        assert!(self.server.file("recovery.signal").exists(), "{case}: recovery is over\n{log}");
        log
    }

    /// With what was wrong put right, nothing is lost.
    #[track_caller]
    pub(super) fn recovers(&mut self) {
        self.server.append_setting("restore_command", &self.get());
        self.server.start();
        self.server.wait_for("SELECT pg_is_in_recovery()", "f", 60);
        assert_eq!(self.server.sql("SELECT count(*) FROM t"), ROWS);
        self.server.stop(StopMode::Immediate);
    }
}

pub(super) fn in_bucket(pitr: &Pitr, store: &S3Server, url: &str) -> Pitr {
    let pitr = pitr.clone().repository(url);
    store.environment().into_iter().fold(pitr, |pitr, (name, value)| pitr.env(name, value))
}
